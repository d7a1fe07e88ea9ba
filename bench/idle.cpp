// What an engine costs that has nothing to do: memory and processor time, read by the process itself, which
// has done nothing else before. Once with an empty store, and once with a store full of what waits.

#include <cstdio>
#include <random>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "dead_letter_file.hpp"
#include "flow.hpp"
#include "process.hpp"
#include "scenarios.hpp"
#include "shifted_clock.hpp"

namespace towline::bench {
namespace {

constexpr auto kRest = std::chrono::milliseconds(1200);

/// Fills a file with what waits: delayed messages of the next months, and dead letters.
void fill(const std::filesystem::path& file, std::size_t schedules, std::size_t dead_letters) {
  Engine engine = Engine::open(sqlite_url(file)).value();
  (void)make_dead_letters(engine, dead_letters, 5);
  std::mt19937_64 random(3);
  std::uniform_int_distribution<std::int64_t> days_us(86'400'000'000, 90 * 86'400'000'000);
  for (std::size_t done = 0; done < schedules; done += kBatch) {
    std::vector<Message> batch(std::min(kBatch, schedules - done));
    for (Message& message : batch) {
      message.topic = "later";
      message.payload.assign(kPayloadBytes, 'p');
      message.delay = Duration(days_us(random));
    }
    publish_all(engine, std::move(batch));
  }
  (void)engine.close().value();
}

}  // namespace

int run_observed(const Observation& observation) {
  EngineOptions options;
  if (observation.wall_start_us != 0) {
    options.clock = std::make_shared<ShiftedClock>(from_us(observation.wall_start_us));
  }
  std::atomic<std::size_t> handled{0};
  Engine engine = Engine::open(observation.url, std::move(options)).value();
  Consumer consumer =
      engine
          .consume_batches({observation.topic}, {.group = "bench"},
                           [&](std::span<Delivery> batch) { handled.fetch_add(batch.size()); })
          .value();
  std::this_thread::sleep_for(kRest);
  tell_parent(fmt::format("{:.3f}", resident_mb()));
  const double cpu_before = cpu_seconds();
  const auto start = Steady::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(observation.seconds));
  const double cpu_ratio = (cpu_seconds() - cpu_before) / seconds_since(start);
  tell_parent(fmt::format("{:.3f} {:.6f} {}", resident_mb(), cpu_ratio, handled.load()));
  wait_for_finish();
  (void)engine.close().value();
  return 0;
}

Observed observe(const Observation& observation) {
  Child child({"--role", "observed", "--url", observation.url, "--topic", observation.topic,
               "--wall-start-us", std::to_string(observation.wall_start_us), "--seconds",
               std::to_string(observation.seconds)});
  Observed out;
  const std::string first = child.read_line();
  const std::string second = child.read_line(observation.seconds + 60);
  child.join();
  if (std::sscanf(first.c_str(), "%lf", &out.resident_mb) != 1 ||
      std::sscanf(second.c_str(), "%lf %lf %lf", &out.resident_later_mb, &out.cpu_ratio, &out.handled) != 3) {
    throw std::runtime_error("the observed process said something else than expected");
  }
  return out;
}

void idle_engine(Bench& bench) {
  const std::size_t schedules = bench.size<std::size_t>(1'000'000, 2'000);
  const std::size_t dead = bench.size<std::size_t>(100'000, 1'000);
  const double seconds = bench.size(4.0, 0.2);
  const std::filesystem::path full = bench.new_file("full");
  fill(full, schedules, dead);
  const Conditions empty{"sqlite FULL", 0, 0, "one consumer, empty store"};
  const Conditions filled{"sqlite FULL", kPayloadBytes, 0,
                          fmt::format("one consumer, {} schedules and {} dead letters", schedules, dead)};
  const Conditions memory{"memory, not durable", 0, 0, "one consumer, empty store"};
  struct Side {
    Series resident, cpu;
    std::function<std::string()> url;
  };
  const std::vector<Side> kinds = {{{"resident", "MB", empty},
                                    {"processor", "% of a core", empty},
                                    [&] { return sqlite_url(bench.new_file("idle")); }},
                                   {{"resident, full store", "MB", filled},
                                    {"processor, full store", "% of a core", filled},
                                    [&] { return sqlite_url(full); }},
                                   {{"resident, memory:", "MB", memory},
                                    {"processor, memory:", "% of a core", memory},
                                    [] { return std::string("memory:"); }}};
  std::vector<std::function<void(int)>> sides;
  for (const Side& side : kinds) {
    sides.emplace_back([&](int round) {
      const Observed seen = observe({.url = side.url(), .topic = "idle", .seconds = seconds});
      bench.sample(side.resident, round, seen.resident_later_mb);
      bench.sample(side.cpu, round, seen.cpu_ratio * 100);
    });
  }
  bench.interleave(sides);
  for (const Side& side : kinds) {
    bench.check("idle", side.resident, &side == &kinds[1] ? no_bar() : at_most(15));
    bench.check("idle", side.cpu, at_most(1));
  }
  bench.check_difference("idle, what waits adds", kinds[1].resident, kinds[0].resident, at_most(50));
}

}  // namespace towline::bench
