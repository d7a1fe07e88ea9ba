// The life cycle in other languages, beside the engine alone and beside what a user of that language would
// take instead. Every side of another language is a process of its own, which warms itself up, measures
// itself and prints one line of JSON; the engine's side runs here, in the same round.

#include "languages.hpp"

#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "reference.hpp"

namespace towline::bench {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOnTheWay = "2 batches on the way";
const fs::path kPrograms = fs::path(TOWLINE_SOURCE_DIR) / "bench";
const fs::path kBuilt = TOWLINE_BINARY_DIR;
const fs::path kPython = fs::path(TOWLINE_SOURCE_DIR) / ".deps/venv/bin/python";

Child start(const std::vector<std::string>& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> all = program;
  all.insert(all.end(), arguments.begin(), arguments.end());
  return {"/usr/bin/env", all};
}

bool has_node_peers(Bench& bench) {
  if (fs::exists(kPrograms / "node/peers/node_modules/plainjob")) return true;
  bench.skip("better-sqlite3 and plainjob are not installed in bench/node/peers: run npm install there");
  return false;
}

}  // namespace

bool has_node(Bench& bench) {
  if (fs::exists(kBuilt / "node/towline.node")) return true;
  bench.skip(
      "the Node package is not part of this build: run scripts/bootstrap test, then build towline_node");
  return false;
}

bool has_python(Bench& bench) {
  if (fs::exists(kBuilt / "python/towline") && fs::exists(kPython)) return true;
  bench.skip(
      "the Python package is not part of this build: run scripts/bootstrap test, then build towline_python");
  return false;
}

Child start_node(const std::string& program, const std::vector<std::string>& arguments) {
  return start({"TOWLINE_NODE_BINARY=" + (kBuilt / "node/towline.node").string(), "node",
                (kPrograms / "node" / program).string()},
               arguments);
}

Child start_python(const std::string& program, const std::vector<std::string>& arguments) {
  return start({"PYTHONPATH=" + (kBuilt / "python").string(), "PYTHONDONTWRITEBYTECODE=1", kPython.string(),
                (kPrograms / "python" / program).string()},
               arguments);
}

FlowRate rate_in(const std::string& line) {
  const auto json = nlohmann::json::parse(line);
  return {json.at("per_second").get<double>(), json.at("cpu_us").get<double>()};
}

FlowRate rate_of(Child child) {
  const FlowRate rate = rate_in(child.read_line(600));
  child.join();
  return rate;
}

Series series_of(std::string name, const char* durability, std::string more, std::size_t batch) {
  return {std::move(name), "msg/s", {durability, kPayloadBytes, batch, std::move(more)}};
}

std::function<void(int)> plain_program(Bench& bench, const Series& series, std::size_t count) {
  return [&bench, &series, count](int round) {
    bench.sample(series, round, plain_life(bench.new_file("plain"), count).per_second);
  };
}

Series plain_series() { return series_of("plain program in C++", "sqlite FULL", "one thread"); }

void node_on_sqlite(Bench& bench) {
  if (!has_node(bench)) return;
  const std::size_t count = bench.size<std::size_t>(500'000, 3'000);
  const std::size_t few = bench.size<std::size_t>(20'000, 1'000);
  const Series engine = series_of("C++, batch handler", kSqliteFull);
  const Series batch = series_of("Node, batch handler", kSqliteFull, kOnTheWay);
  const Series each = series_of("Node, handler per message", kSqliteFull, "prefetch 1000, concurrency 1000");
  const Series promise =
      series_of("Node, one promise per message", kSqliteFull, "prefetch 1000, concurrency 1000");
  const Series plain = plain_series();
  const Series raw = series_of("plain better-sqlite3", kSqliteFull);
  const Series full = series_of("plainjob", kSqliteFull, "addMany, synchronous set to FULL");
  const Series normal = series_of("plainjob as it comes", "sqlite NORMAL", "addMany");
  const auto flow = [&](const Series& series, const char* handling) {
    return [&bench, &series, handling, count](int round) {
      const std::string url = sqlite_url(bench.new_file("life"));
      bench.sample(series, round,
                   rate_of(start_node("flow.mjs", {url, handling, std::to_string(count)})).per_second);
    };
  };
  const auto peer = [&](const Series& series, const char* program, std::size_t size, const char* how) {
    return [&bench, &series, program, size, how](int round) {
      const std::string file = bench.new_file("peer").string();
      bench.sample(series, round, rate_of(start_node(program, {file, std::to_string(size), how})).per_second);
    };
  };
  std::vector<std::function<void(int)>> sides = {
      [&](int round) {
        bench.sample(engine, round, run_flow({.url = sqlite_url(bench.new_file("life"))}, count).per_second);
      },
      flow(batch, "batch"), flow(each, "each"), flow(promise, "promise"), plain_program(bench, plain, count)};
  const bool peers = has_node_peers(bench);
  if (peers) {
    sides.push_back(peer(raw, "peers/better_sqlite3.mjs", count, ""));
    sides.push_back(peer(full, "peers/plainjob.mjs", few, "full"));
    sides.push_back(peer(normal, "peers/plainjob.mjs", few, "normal"));
  }
  bench.interleave(sides);
  bench.compare("life, Node", batch, engine, at_least(0.8));
  bench.compare("life, Node", each, engine, at_least(0.5));
  bench.compare("life, Node", promise, engine, at_least(0.5));
  bench.compare("life, Node", batch, plain, at_least(0.6));
  if (!peers) return;
  bench.compare("life, Node", batch, raw, at_least(0.7));
  bench.compare("life, Node", batch, full, at_least(10.0));
  bench.compare("life, Node", promise, full, no_bar());
  bench.compare("life, Node", batch, normal, no_bar());
}

void node_in_memory(Bench& bench) {
  if (!has_node(bench)) return;
  const std::size_t count = bench.size<std::size_t>(500'000, 3'000);
  const Series engine = series_of("C++, batch handler", kNotDurable);
  const Series batch = series_of("Node, batch handler", kNotDurable, kOnTheWay);
  const Series promise =
      series_of("Node, one promise per message", kNotDurable, "prefetch 1000, concurrency 1000");
  const auto flow = [&](const Series& series, const char* handling) {
    return [&bench, &series, handling, count](int round) {
      bench.sample(series, round,
                   rate_of(start_node("flow.mjs", {"memory:", handling, std::to_string(count)})).per_second);
    };
  };
  bench.interleave(
      {[&](int round) { bench.sample(engine, round, run_flow({.url = "memory:"}, count).per_second); },
       flow(batch, "batch"), flow(promise, "promise")});
  bench.check("life, Node", batch, at_least(300'000));
  bench.compare("life, Node", batch, engine, no_bar());
  bench.compare("life, Node", promise, engine, no_bar());
}

void python_to_node(Bench& bench) {
  if (!has_node(bench) || !has_python(bench)) return;
  const std::size_t count = bench.size<std::size_t>(200'000, 3'000);
  const Series across = series_of("published in Python, handled in Node", kSqliteFull, "batch handler");
  const Series alone = series_of("both in one Node process", kSqliteFull, "batch handler");
  const Series plain = plain_series();
  const auto between = [&](int round) {
    const std::string url = sqlite_url(bench.new_file("life"));
    Child consumer = start_node("flow.mjs", {url, "consume", std::to_string(count)});
    if (consumer.read_line(60) != "ready") throw std::runtime_error("the consumer did not start");
    Child publisher = start_python("publish.py", {url, std::to_string(count)});
    bench.sample(across, round, rate_in(consumer.read_line(600)).per_second);
    consumer.join();
    publisher.join();
  };
  bench.interleave(
      {between,
       [&](int round) {
         const std::string url = sqlite_url(bench.new_file("life"));
         const std::string size = std::to_string(count);
         bench.sample(alone, round, rate_of(start_node("flow.mjs", {url, "batch", size})).per_second);
       },
       plain_program(bench, plain, count)});
  bench.compare("life across languages", across, alone, no_bar());
  bench.compare("life across languages", across, plain, at_least(0.7));
}

}  // namespace towline::bench
