// Cancelling delayed messages while a million wait. One a call, from many threads: in the order they were
// scheduled in, and in no order, which touches other pages of the store; and in no order by batches. Beside
// them a plain program commits messages one a call from as many threads, which shows what the disk gives in
// that round.

#include <algorithm>
#include <atomic>
#include <random>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "flow.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

constexpr const char* kTopic = "cancelled";
constexpr int kThreads = 128;
constexpr auto kSoonest = std::chrono::hours(1);
constexpr std::int64_t kSpreadUs = 10'000'000'000;

/// Schedules messages for random times that nobody will live to see.
std::vector<MessageId> fill(Engine& engine, std::size_t count) {
  std::mt19937_64 random(7);
  std::uniform_int_distribution<std::int64_t> within(0, kSpreadUs);
  const TimePoint soonest = system_clock()->now() + kSoonest;
  std::vector<MessageId> ids;
  ids.reserve(count);
  while (ids.size() < count) {
    std::vector<Message> batch(std::min(kBatch, count - ids.size()));
    for (Message& message : batch) {
      message.topic = kTopic;
      message.payload.assign(kPayloadBytes, 'p');
      message.due_at = soonest + Duration(within(random));
    }
    for (const Receipt& receipt : publish_all(engine, std::move(batch)))
      ids.push_back(receipt.id);
  }
  return ids;
}

/// Runs `each(0)` to `each(count - 1)` on all threads; how many a second.
double on_all_threads(std::size_t count, const std::function<void(std::size_t)>& each) {
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  const auto start = Steady::now();
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (std::size_t at = next.fetch_add(1); at < count; at = next.fetch_add(1))
        each(at);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return static_cast<double>(count) / seconds_since(start);
}

double cancel_all(Engine& engine, std::span<const MessageId> ids) {
  std::atomic<std::size_t> refused{0};
  const double rate = on_all_threads(ids.size(), [&](std::size_t at) {
    const auto answer = engine.cancel(ids[at]);
    if (!answer || *answer != ScheduleAnswer::kDone) refused.fetch_add(1);
  });
  if (refused.load() > 0) throw std::runtime_error("pending messages could not be cancelled");
  return rate;
}

double cancel_in_batches(Engine& engine, std::span<const MessageId> ids) {
  const auto start = Steady::now();
  for (std::size_t at = 0; at < ids.size(); at += kBatch) {
    const auto part = ids.subspan(at, std::min(kBatch, ids.size() - at));
    for (const ScheduleAnswer answer : engine.cancel_batch({part.begin(), part.end()}).value()) {
      if (answer != ScheduleAnswer::kDone)
        throw std::runtime_error("a pending message could not be cancelled");
    }
  }
  return static_cast<double>(ids.size()) / seconds_since(start);
}

}  // namespace

int run_cancel_alone(const std::string& url, std::size_t count, bool shuffled) {
  Engine engine = Engine::open(url).value();
  std::vector<MessageId> ids = fill(engine, count);
  if (shuffled) std::shuffle(ids.begin(), ids.end(), std::mt19937_64(11));
  constexpr std::size_t kPart = 20'000;
  for (std::size_t at = 0; at + kPart <= std::min<std::size_t>(ids.size(), 10 * kPart); at += kPart)
    fmt::print("{:.0f} msg/s\n", cancel_all(engine, std::span(ids).subspan(at, kPart)));
  (void)engine.close().value();
  return 0;
}

void cancelling(Bench& bench) {
  const std::size_t part = bench.size<std::size_t>(20'000, 200);
  const std::size_t parts = part * static_cast<std::size_t>(bench.round_count());
  const std::size_t pending = bench.size<std::size_t>(1'000'000, 2'000);
  const Conditions how{"sqlite FULL", kPayloadBytes, 1,
                       fmt::format("{} threads, {} pending", kThreads, pending)};
  const Series in_order{"cancel(), as scheduled", "msg/s", how};
  const Series shuffled{"cancel(), in random order", "msg/s", how};
  const Series batches{"cancel_batch(), in random order",
                       "msg/s",
                       {"sqlite FULL", kPayloadBytes, kBatch, fmt::format("1 thread, {} pending", pending)}};
  const Series plain{"plain group commit", "msg/s", {"sqlite FULL", kPayloadBytes, 1, "128 threads"}};
  Engine engine = Engine::open(sqlite_url(bench.new_file("cancel"))).value();
  std::vector<MessageId> ids = fill(engine, pending + 3 * parts);
  std::shuffle(ids.begin() + static_cast<std::ptrdiff_t>(parts), ids.end(), std::mt19937_64(11));
  const std::span all(ids);
  const auto part_of = [part](int round) { return static_cast<std::size_t>(round - 1) * part; };
  const std::string payload = payload_with(0);
  bench.interleave(
      {[&](int round) {
         bench.sample(in_order, round, cancel_all(engine, all.subspan(part_of(round), part)));
       },
       [&](int round) {
         bench.sample(shuffled, round, cancel_all(engine, all.subspan(parts + part_of(round), part)));
       },
       [&](int round) {
         bench.sample(batches, round,
                      cancel_in_batches(engine, all.subspan(2 * parts + part_of(round), part)));
       },
       [&](int round) {
         GroupCommit commit(bench.new_file("plain"));
         bench.sample(plain, round, on_all_threads(part, [&](std::size_t) { commit.put(payload); }));
       }});
  bench.compare("cancel", in_order, plain, no_bar());
  bench.check("cancel", in_order, at_least(50'000));
  bench.compare("cancel", shuffled, plain, no_bar());
  bench.check("cancel", shuffled, at_least(50'000));
  bench.check("cancel", batches, at_least(50'000));
  (void)engine.close().value();
}

}  // namespace towline::bench
