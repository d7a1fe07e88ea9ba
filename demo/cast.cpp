// Starting and stopping the children.

#include "cast.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>

namespace towline::demo {

Cast::Cast(CastOptions options) : options_(std::move(options)) {
  for (std::uint32_t i = 0; i < options_.publisher_rates.size(); ++i) {
    seats_.push_back({Role::kPublisher, i, "publisher", fmt::format("publisher {}", i), 0, std::nullopt,
                      false, std::nullopt});
  }
  for (std::uint32_t i = 0; i < options_.workers; ++i) {
    const auto& language = options_.languages[i % options_.languages.size()];
    seats_.push_back({Role::kWorker, i, language.name, fmt::format("worker {} in {}", i, language.title), 0,
                      std::nullopt, false, std::nullopt});
  }
}

std::vector<std::string> Cast::command_of(const Seat& seat) const {
  const bool publishes = seat.role == Role::kPublisher;
  const auto& language = options_.languages[seat.index % options_.languages.size()];
  std::vector<std::string> words = publishes ? options_.publisher : language.command;
  const auto add = [&](const char* option, std::string value) {
    words.emplace_back(option);
    words.push_back(std::move(value));
  };
  const auto ms = [](std::chrono::milliseconds span) { return std::to_string(span.count()); };
  add("--name", seat.name());
  if (publishes) {
    add("--database", options_.place.database);
    add("--folder", options_.place.folder);
    add("--index", std::to_string(seat.index));
    add("--rate", fmt::format("{}", options_.publisher_rates[seat.index]));
    return words;
  }
  add("--store", options_.place.url());
  add("--ledger", options_.place.ledger_of(seat.name()));
  add("--world", options_.place.world());
  add("--topic", std::string(kTopic));
  add("--group", std::string(kGroup));
  add("--lease-ms", ms(kLease));
  add("--concurrency", std::to_string(options_.concurrency));
  add("--attempts", std::to_string(kAttemptsMax));
  add("--retry-ms", ms(kRetryFirst));
  add("--retry-max-ms", ms(kRetryMax));
  add("--work-ms", std::to_string(options_.work_ms));
  add("--seed", std::to_string(options_.seed));
  return words;
}

Result<void> Cast::start(Seat& seat) {
  ++seat.lives;
  seat.start_at_s.reset();
  auto child = Child::start(command_of(seat), options_.place.log_of(seat.name()));
  if (!child.ok()) return child.error();
  seat.child = std::move(*child);
  return {};
}

Result<void> Cast::start_all() {
  for (auto& seat : seats_) {
    auto started = start(seat);
    if (!started.ok()) return started;
  }
  return {};
}

std::size_t Cast::running(Role role) const {
  return static_cast<std::size_t>(std::count_if(seats_.begin(), seats_.end(), [&](const Seat& seat) {
    return seat.role == role && seat.child.has_value();
  }));
}

bool Cast::publishers_done() const {
  return std::all_of(seats_.begin(), seats_.end(),
                     [](const Seat& seat) { return seat.role != Role::kPublisher || seat.done; });
}

std::vector<std::string> Cast::stop_all(double patience_s) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::string> sentences;
  for (const auto& seat : seats_) {
    if (seat.child) seat.child->send(SIGTERM);
  }
  const auto deadline = Clock::now() + std::chrono::duration<double>(patience_s);
  for (auto& seat : seats_) {
    if (!seat.child) continue;
    std::optional<Ending> ending;
    while (!(ending = seat.child->poll()) && Clock::now() < deadline) {
      // sleeps: waiting for a child has no time limit of its own, so it is polled
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    if (!ending) {
      sentences.push_back(
          fmt::format("{} did not stop within {:.0f} s and was killed", seat.name(), patience_s));
      seat.child->send(SIGKILL);
      seat.child->wait();
    } else if (!ending->clean()) {
      sentences.push_back(fmt::format("{} {} when it was told to stop", seat.name(), ending->to_string()));
    }
    seat.child.reset();
  }
  return sentences;
}

}  // namespace towline::demo
