// The common parts of the experiments, and the main program, which prints the figures of a run last.

#include "faults/experiment.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include <signal.h>

#ifndef TOWLINE_FAULTS_CAPABILITIES
#error "TOWLINE_FAULTS_CAPABILITIES names the table of what is passed over"
#endif

namespace towline::faults {
namespace {

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

bool is_full() {
  const char* value = std::getenv("TOWLINE_FULL");
  return value != nullptr && std::string(value) == "1";
}

std::uint64_t seed() {
  const char* value = std::getenv("TOWLINE_SEED");
  return value != nullptr ? std::stoull(value) : 20'260'301;
}

std::optional<std::string> skip_reason(const std::string& id) {
  if (const char* all = std::getenv("TOWLINE_ALL"); all != nullptr && std::string(all) == "1")
    return std::nullopt;
  std::ifstream in(TOWLINE_FAULTS_CAPABILITIES);
  if (!in) throw std::runtime_error(std::string(TOWLINE_FAULTS_CAPABILITIES) + " cannot be read");
  for (std::string line; std::getline(in, line);) {
    const auto bar = line.find('|');
    if (line.starts_with("#") || bar == std::string::npos) continue;
    if (trimmed(line.substr(0, bar)) == id) return trimmed(line.substr(bar + 1));
  }
  return std::nullopt;
}

void Experiment::SetUp() { notes_.emplace(ledgers(), "test"); }

Engine Experiment::open(Duration lease) {
  EngineOptions options;
  options.lease = lease;
  options.sweep_interval = 50ms;
  options.publish_timeout = 20s;
  return Engine::open(url(), options).value();
}

ChildProcess Experiment::start(const std::string& mode, const std::string& name,
                               const std::vector<std::string>& options) {
  std::vector<std::string> words = {mode, url(), ledgers(), name};
  words.insert(words.end(), options.begin(), options.end());
  ChildProcess child(support::sibling_program("fault_child"), words);
  EXPECT_EQ(child.read_line(20s), "ready") << mode << " " << name;
  return child;
}

void Experiment::kill(ChildProcess& child, const std::string& name) {
  notes().note("killed", 0, name);
  child.kill();
}

void Experiment::print(const std::string& id, const std::string& figures) {
  const double seconds = std::chrono::duration<double>(watch_.elapsed()).count();
  std::printf(
      "{\"experiment\":\"%s\",\"provider\":\"sqlite "
      "%s\",\"size\":\"%s\",\"seed\":%llu,%s,\"seconds\":%.1f}\n",
      id.c_str(), sqlite_version().c_str(), is_full() ? "full" : "small",
      static_cast<unsigned long long>(seed()), figures.c_str(), seconds);
  std::fflush(stdout);
}

void Experiment::expect_clean(const Judgement& judgement) {
  for (const std::string& finding : judgement.findings)
    ADD_FAILURE() << finding;
  EXPECT_TRUE(judgement.clean()) << judgement.to_string();
}

Crew::Crew(std::size_t count, std::string name, Start start)
    : name_(std::move(name)), start_(std::move(start)), seats_(count) {
  for (std::size_t seat = 0; seat < count; ++seat)
    start_again(seat);
}

std::string Crew::name_of(std::size_t seat) const {
  return name_ + "-" + std::to_string(seat) + "." + std::to_string(seats_[seat].life);
}

void Crew::start_again(std::size_t seat) {
  ++seats_[seat].life;
  seats_[seat].child = start_(name_of(seat));
}

void Crew::stop() {
  for (Seat& seat : seats_)
    seat.child.send(SIGTERM);
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    const auto status = seats_[i].child.wait(20s);
    EXPECT_TRUE(status && status->clean()) << name_of(i) << " did not end well";
  }
}

std::string Held::to_string() const {
  std::ostringstream out;
  out << "waiting " << waiting << ", in flight " << in_flight << ", scheduled " << scheduled << ", parked "
      << parked << ", dead letters " << dead_letters.size();
  return out.str();
}

Held held_by(Engine& engine) {
  Held held;
  for (const GroupBacklog& group : engine.backlog().value()) {
    held.waiting += group.waiting;
    held.in_flight += group.in_flight;
  }
  const EngineStatistics statistics = engine.statistics().value();
  held.scheduled = statistics.scheduled_now;
  held.parked = statistics.parked_now;
  DeadLetterQuery query;
  query.count_max = 1000;
  do {
    auto page = engine.dead_letters(query).value();
    for (DeadLetter& entry : page.items)
      held.dead_letters.push_back(std::move(entry));
    query.cursor = page.cursor;
  } while (!query.cursor.empty());
  return held;
}

bool drained(Engine& engine, Duration within) {
  return eventually(
      [&] {
        std::uint64_t left = 0;
        for (const GroupBacklog& group : engine.backlog().value())
          left += group.waiting + group.in_flight;
        if (left != 0) return false;
        const EngineStatistics statistics = engine.statistics().value();
        return statistics.scheduled_now + statistics.parked_now == 0;
      },
      within);
}

}  // namespace towline::faults
