// The life cycle in Python, beside the engine alone and beside what a Python user would take instead. As with
// Node (languages.cpp) every side in Python is a process of its own, which warms itself up, measures itself
// and prints one line of JSON; the engine's side runs here, in the same round.

#include <filesystem>

#include "flow.hpp"
#include "languages.hpp"
#include "process.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = TOWLINE_SOURCE_DIR;
const fs::path kPeersPython = kSource / ".deps/peers/bin/python";

bool has_peers(Bench& bench) {
  if (fs::exists(kPeersPython)) return true;
  bench.skip("huey and persist-queue are not installed in .deps/peers: scripts/run-bench does it");
  return false;
}

/// A side of a round: a life cycle of `count` messages in Python.
std::function<void(int)> flow(Bench& bench, const Series& series, const char* handling, std::size_t count,
                              bool in_memory = false) {
  return [&bench, &series, handling, count, in_memory](int round) {
    const std::string url = in_memory ? "memory:" : sqlite_url(bench.new_file("life"));
    bench.sample(series, round,
                 rate_of(start_python("flow.py", {url, handling, std::to_string(count)})).per_second);
  };
}

std::function<void(int)> peer(Bench& bench, const Series& series, const char* program, std::size_t count,
                              const char* how = "") {
  return [&bench, &series, program, count, how](int round) {
    const std::string file = bench.new_file("peer").string();
    Child child("/usr/bin/env",
                {"PYTHONDONTWRITEBYTECODE=1", kPeersPython.string(),
                 (kSource / "bench/python" / program).string(), file, std::to_string(count), how});
    bench.sample(series, round, rate_of(std::move(child)).per_second);
  };
}

std::function<void(int)> alone(Bench& bench, const Series& series, Flow::Plan plan, std::size_t count) {
  return [&bench, &series, plan, count](int round) {
    Flow::Plan one = plan;
    if (one.url.empty()) one.url = sqlite_url(bench.new_file("life"));
    bench.sample(series, round, run_flow(std::move(one), count).per_second);
  };
}

}  // namespace

void python_on_sqlite(Bench& bench) {
  if (!has_python(bench)) return;
  const std::size_t count = bench.size<std::size_t>(500'000, 3'000);
  const std::size_t few = bench.size<std::size_t>(3'000, 300);
  const Series engine = series_of("C++, batch handler", kSqliteFull);
  const Series batch = series_of("Python, batch handler", kSqliteFull);
  const Series plain = plain_series();
  const Series huey = series_of("huey", kSqliteFull, "its consumer with one thread, no results", 1);
  const Series persist = series_of("persist-queue", kSqliteFull, "SQLiteAckQueue", 1);
  std::vector<std::function<void(int)>> sides = {alone(bench, engine, {}, count),
                                                 flow(bench, batch, "batch", count),
                                                 plain_program(bench, plain, count)};
  const bool peers = has_peers(bench);
  if (peers) {
    sides.push_back(peer(bench, huey, "peers/huey_sqlite.py", few, "consumer"));
    sides.push_back(peer(bench, persist, "peers/persist_queue.py", few));
  }
  bench.interleave(sides);
  bench.compare("life, Python", batch, engine, at_least(0.8));
  bench.compare("life, Python", batch, plain, at_least(0.6));
  if (!peers) return;
  bench.compare("life, Python", batch, huey, at_least(50.0));
  bench.compare("life, Python", batch, persist, at_least(70.0));
}

void python_per_message(Bench& bench) {
  if (!has_python(bench)) return;
  const std::size_t count = bench.size<std::size_t>(500'000, 3'000);
  const Series engine = series_of("C++, batch handler", kSqliteFull);
  const Series each = series_of("C++, handler per message", kSqliteFull, "prefetch 1000");
  const Series call =
      series_of("Python, one call per message", kSqliteFull, "prefetch 1000, concurrency 1000");
  const Series task =
      series_of("Python, one async def per message", kSqliteFull, "prefetch 1000, concurrency 1000");
  const Series plain = plain_series();
  bench.interleave({alone(bench, engine, {}, count), alone(bench, each, {.handling = Handling::kEach}, count),
                    flow(bench, call, "call", count), flow(bench, task, "task", count),
                    plain_program(bench, plain, count)});
  bench.compare("life, Python", call, engine, at_least(0.5));
  bench.compare("life, Python", task, engine, at_least(0.3));
  bench.compare("life, Python", call, each, no_bar());
  bench.compare("life, Python", task, each, no_bar());
  bench.compare("life, Python", call, plain, at_least(0.4));
  bench.compare("life, Python", task, plain, at_least(0.2));
}

void python_singles(Bench& bench) {
  if (!has_python(bench)) return;
  const std::size_t count = bench.size<std::size_t>(5'000, 300);
  const Series publish = series_of("Python, publish()", kSqliteFull, "one thread", 1);
  const Series raw = series_of("plain program, one row per commit", kSqliteFull, "one thread", 1);
  const Series huey = series_of("huey, enqueue", kSqliteFull, "one thread", 1);
  std::vector<std::function<void(int)>> sides = {
      flow(bench, publish, "publish", count), [&](int round) {
        PlainQueue queue(bench.new_file("plain"));
        const std::string payload = payload_with(0);
        const std::vector<PlainQueue::Row> row = {{0, payload}};
        const auto start = Steady::now();
        for (std::size_t i = 0; i < count; ++i)
          queue.insert(row);
        bench.sample(raw, round, static_cast<double>(count) / seconds_since(start));
      }};
  const bool peers = has_peers(bench);
  if (peers) sides.push_back(peer(bench, huey, "peers/huey_sqlite.py", count, "enqueue"));
  bench.interleave(sides);
  bench.compare("durable publish, Python", publish, raw, at_least(0.9));
  if (peers) bench.compare("durable publish, Python", publish, huey, at_least(1.2));
}

void python_in_memory(Bench& bench) {
  if (!has_python(bench)) return;
  const std::size_t count = bench.size<std::size_t>(500'000, 3'000);
  const Series engine = series_of("C++, batch handler", kNotDurable);
  const Series batch = series_of("Python, batch handler", kNotDurable);
  const Series task =
      series_of("Python, one async def per message", kNotDurable, "prefetch 1000, concurrency 1000");
  bench.interleave({alone(bench, engine, {.url = "memory:"}, count), flow(bench, batch, "batch", count, true),
                    flow(bench, task, "task", count, true)});
  bench.check("life, Python", batch, at_least(300'000));
  bench.compare("life, Python", batch, engine, no_bar());
  bench.compare("life, Python", task, engine, no_bar());
}

}  // namespace towline::bench
