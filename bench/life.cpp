// The life cycle of messages: publish, hand out, handle, acknowledge, in batches, beside programs that do the
// same by hand.

#include <array>
#include <memory>

#include <fmt/format.h>

#include "flow.hpp"
#include "process.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

constexpr const char* kSqlite = "sqlite FULL";
constexpr const char* kMemory = "memory, not durable";

Series life_series(std::string name, const char* durability, std::string more = {}) {
  return {std::move(name), "msg/s", {durability, kPayloadBytes, kBatch, std::move(more)}};
}

/// The same, by the processor time that one message takes.
Series cpu_of(const Series& series) {
  return {series.name + ", processor time", "us/msg", series.conditions};
}

void take(Bench& bench, const Series& series, int round, const FlowRate& rate) {
  bench.sample(series, round, rate.per_second);
  bench.sample(cpu_of(series), round, rate.cpu_us);
}

FlowRate plain_log(const std::filesystem::path& file, std::size_t count) {
  ChunkLog log(file);
  const std::string payload = payload_with(0);
  const std::vector<std::string_view> payloads(kBatch, payload);
  std::size_t bytes = 0;
  std::size_t handled = 0;
  const double cpu_before = cpu_seconds();
  const auto start = Steady::now();
  while (handled < count) {
    log.publish(payloads);
    handled += log.consume([&](std::string_view seen) { bytes += seen.size(); });
  }
  const double seconds = seconds_since(start);
  if (bytes != handled * kPayloadBytes) throw std::runtime_error("the plain program lost bytes");
  const auto size = static_cast<double>(handled);
  return {size / seconds, (cpu_seconds() - cpu_before) * 1e6 / size};
}

}  // namespace

int run_flow_alone(const std::string& url, const std::string& handling, std::size_t count) {
  Flow::Plan plan{.url = url};
  if (handling == "each") plan.handling = Handling::kEach;
  if (handling == "dedup") plan.dedup = true;
  if (handling == "log") plan.type = TopicType::kLog;
  const FlowRate rate = run_flow(plan, count);
  fmt::print("{:.0f} msg/s, {:.2f} us of processor time each\n", rate.per_second, rate.cpu_us);
  return 0;
}

void life_on_sqlite(Bench& bench) {
  const Series plain = life_series("plain SQLite", kSqlite);
  const Series batch = life_series("batch handler", kSqlite);
  const Series each = life_series("handler per message", kSqlite, "prefetch 1000");
  const Series dedup = life_series("batch handler, dedup ids", kSqlite);
  const Series simple = life_series("handler per message, no prefetch", kSqlite, "prefetch 0");
  const std::size_t count = bench.size<std::size_t>(200'000, 3'000);
  const std::size_t few = bench.size<std::size_t>(10'000, 500);
  const auto flow = [&](const Series& series, Flow::Plan plan, std::size_t size) {
    return [&bench, &series, plan, size](int round) {
      Flow::Plan fresh = plan;
      fresh.url = sqlite_url(bench.new_file("life"));
      take(bench, series, round, run_flow(fresh, size));
    };
  };
  bench.interleave({flow(batch, {.handling = Handling::kWhole}, count),
                    [&](int round) { take(bench, plain, round, plain_life(bench.new_file("plain"), count)); },
                    flow(each, {.handling = Handling::kEach}, count),
                    flow(dedup, {.handling = Handling::kWhole, .dedup = true}, count),
                    flow(simple, {.handling = Handling::kEachPlain}, few)});
  bench.compare("life", batch, plain, at_least(1.0));
  bench.compare("life", each, plain, at_least(1.0));
  bench.compare("life", dedup, plain, at_least(1.0));
  bench.compare("life", simple, plain, no_bar());
  bench.compare("life", cpu_of(batch), cpu_of(plain), no_bar());
}

void life_in_memory(Bench& bench) {
  const Series batch = life_series("batch handler", kMemory);
  const Series each = life_series("handler per message", kMemory, "prefetch 1000");
  const Series simple = life_series("handler per message, no prefetch", kMemory, "prefetch 0");
  const Series sqlite = life_series("the same on sqlite FULL, batch handler", kSqlite);
  const std::size_t count = bench.size<std::size_t>(1'000'000, 5'000);
  const std::size_t fewer = bench.size<std::size_t>(200'000, 3'000);
  const auto flow = [&](const Series& series, Handling handling, std::size_t size) {
    return [&bench, &series, handling, size](int round) {
      take(bench, series, round, run_flow({.url = "memory:", .handling = handling}, size));
    };
  };
  bench.interleave({flow(batch, Handling::kWhole, count),
                    [&](int round) {
                      const std::string url = sqlite_url(bench.new_file("life"));
                      take(bench, sqlite, round, run_flow({.url = url}, fewer));
                    },
                    flow(each, Handling::kEach, count), flow(simple, Handling::kEachPlain, fewer)});
  bench.check("life", batch, at_least(1'000'000));
  bench.check("life", each, at_least(1'000'000));
  bench.check("life", simple, no_bar());
  bench.compare("life", batch, sqlite, at_least(8.0));
  bench.compare("life", each, sqlite, at_least(8.0));
  bench.compare("life", cpu_of(batch), cpu_of(sqlite), no_bar());
  bench.check("life", cpu_of(each), no_bar());
}

void flat_cost(Bench& bench) {
  const std::array<std::size_t, 3> backlogs = {bench.size<std::size_t>(1'000, 1'000),
                                               bench.size<std::size_t>(100'000, 3'000),
                                               bench.size<std::size_t>(1'000'000, 6'000)};
  for (const bool durable : {true, false}) {
    const std::size_t count =
        durable ? bench.size<std::size_t>(100'000, 2'000) : bench.size<std::size_t>(500'000, 2'000);
    std::vector<Series> series;
    std::vector<std::unique_ptr<Flow>> flows;
    std::vector<std::function<void(int)>> sides;
    for (const std::size_t backlog : backlogs) {
      series.push_back(life_series(std::to_string(backlog) + " waiting" + (durable ? "" : ", memory"),
                                   durable ? kSqlite : kMemory));
      const std::string url = durable ? sqlite_url(bench.new_file("flat")) : "memory:?bytes_max=4294967296";
      flows.push_back(std::make_unique<Flow>(Flow::Plan{.url = url, .backlog = backlog}));
    }
    for (std::size_t i = 0; i < flows.size(); ++i) {
      sides.emplace_back([&, i](int round) { take(bench, series[i], round, flows[i]->run(count)); });
    }
    bench.interleave(sides);
    bench.compare("life with a backlog", series[1], series[0], at_least(0.8));
    bench.compare("life with a backlog", series[2], series[0], at_least(0.8));
    bench.compare("life with a backlog", cpu_of(series[2]), cpu_of(series[0]), no_bar());
  }
}

void log_topics(Bench& bench) {
  const Series log = life_series("log topic", kSqlite);
  const Series queue = life_series("queue topic", kSqlite);
  const Series raw = life_series("plain SQLite, one row per batch", kSqlite);
  const std::size_t count = bench.size<std::size_t>(400'000, 3'000);
  bench.interleave({[&](int round) {
                      const std::string url = sqlite_url(bench.new_file("log"));
                      take(bench, log, round, run_flow({.url = url, .type = TopicType::kLog}, count));
                    },
                    [&](int round) {
                      const std::string url = sqlite_url(bench.new_file("queue"));
                      take(bench, queue, round, run_flow({.url = url}, count / 2));
                    },
                    [&](int round) { take(bench, raw, round, plain_log(bench.new_file("raw"), count)); }});
  bench.compare("publish, read, move the position", log, queue, at_least(3.0));
  bench.compare("publish, read, move the position", log, raw, no_bar());
  bench.compare("publish, read, move the position", cpu_of(log), cpu_of(queue), no_bar());
}

}  // namespace towline::bench
