// Workers of two languages on one file, of which one stands still: its event loop does not turn, or it keeps
// the GIL, while it holds messages whose leases its engine goes on renewing. The other one must not notice.
//
// The order of events: the worker that will stand still starts on a new file, takes its messages and says
// "ready"; the other one goes through the life cycle on the same topic and group; then the first one may go
// on, and tells how often its messages were handled.

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "languages.hpp"

namespace towline::bench {
namespace {

constexpr const char* kTopicOfFlow = "flow";     // of flow.cpp
constexpr const char* kTopicOfOthers = "bench";  // of the programs in other languages

/// One run differs from the next by more than the bar allows, so a sample is the median of some that take
/// turns.
constexpr int kTurns = 3;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Pair {
  const char* worker;
  const char* other;
  const char* topic;
  std::function<FlowRate(const std::string& url, std::size_t count)> work;
  std::function<Child(const std::vector<std::string>& arguments)> start_other;
};

double rate_beside(Bench& bench, const Pair& pair, const char* how, std::size_t count) {
  const std::string url = sqlite_url(bench.new_file("blocked"));
  Child other = pair.start_other({url, pair.topic, how});
  if (other.read_line() != "ready") throw std::runtime_error("the other worker did not start");
  const double rate = pair.work(url, count).per_second;
  other.finish();
  const std::string handled = other.read_line();
  if (handled != "2") throw std::runtime_error("two messages were handled " + handled + " times");
  other.join();
  return rate;
}

void measure(Bench& bench, const Pair& pair, std::size_t count) {
  const auto named = [&](const char* how) {
    return series_of(fmt::format("{}, {} {}", pair.worker, pair.other, how), kSqliteFull, "batch handler");
  };
  const Series alone = named("not there");
  const Series idle = named("idle");
  const Series blocked = named("blocked");
  const auto in_turns = [&](int round) {
    std::vector<double> idle_rates, blocked_rates;
    for (int turn = 0; turn < bench.size(kTurns, 1); ++turn) {
      idle_rates.push_back(rate_beside(bench, pair, "idle", count));
      blocked_rates.push_back(rate_beside(bench, pair, "blocked", count));
    }
    bench.sample(idle, round, median(std::move(idle_rates)));
    bench.sample(blocked, round, median(std::move(blocked_rates)));
  };
  bench.interleave({
      [&](int round) {
        bench.sample(alone, round, pair.work(sqlite_url(bench.new_file("alone")), count).per_second);
      },
      in_turns,
  });
  bench.compare("life beside a worker that stands still", blocked, idle, at_least(0.95));
  bench.compare("life beside a worker that stands still", blocked, alone, no_bar());
}

}  // namespace

void blocked_workers(Bench& bench) {
  const bool node = has_node(bench);
  const bool python = has_python(bench);
  const std::size_t count = bench.size<std::size_t>(300'000, 3'000);
  const auto cpp_works = [](const std::string& url, std::size_t size) {
    return run_flow({.url = url}, size);
  };
  const auto node_works = [](const std::string& url, std::size_t size) {
    return rate_of(start_node("flow.mjs", {url, "batch", std::to_string(size)}));
  };
  const auto start_node_other = [](const std::vector<std::string>& arguments) {
    return start_node("blocked.mjs", arguments);
  };
  const auto start_python_other = [](const std::vector<std::string>& arguments) {
    return start_python("blocked.py", arguments);
  };
  if (node) measure(bench, {"C++", "Node", kTopicOfFlow, cpp_works, start_node_other}, count);
  if (python) measure(bench, {"C++", "Python", kTopicOfFlow, cpp_works, start_python_other}, count);
  if (node && python)
    measure(bench, {"Node", "Python", kTopicOfOthers, node_works, start_python_other}, count);
}

}  // namespace towline::bench
