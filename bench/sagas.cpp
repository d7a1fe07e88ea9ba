// Sagas of five steps, and messages of conversations, beside plain group commit: what the disk would give.

#include <atomic>
#include <functional>
#include <thread>

#include <fmt/format.h>

#include "flow.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

constexpr int kSteps = 5;
constexpr int kThreads = 32;

/// Calls `work` so often, from all threads.
double rate_of(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  const auto start = Steady::now();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (std::size_t now = next.fetch_add(1); now < count; now = next.fetch_add(1))
        work(now);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return static_cast<double>(count) / seconds_since(start);
}

/// Steps per second, from the first start to the last end.
double run_sagas(Engine& engine, std::size_t count) {
  SagaOptions options;
  options.concurrency = 64;
  Saga saga("order", 1, options);
  const SagaHandler nothing = [](SagaCall&) {};
  for (int step = 0; step < kSteps; ++step)
    saga.step(fmt::format("step-{}", step), nothing, nothing);
  SagaRunner runner = engine.sagas().run(saga).value();
  const auto start = Steady::now();
  (void)rate_of(count, [&](std::size_t n) {
    (void)engine.sagas().start(saga, std::to_string(n), payload_with(0)).value();
  });
  for (std::size_t n = count; n-- > 0;)
    (void)engine.sagas().result("order", std::to_string(n), std::chrono::minutes(5)).value();
  const double rate = static_cast<double>(count * kSteps) / seconds_since(start);
  (void)runner.close().value();
  return rate;
}

}  // namespace

void sagas(Bench& bench) {
  const auto count = bench.size<std::size_t>(4'000, 50);
  const auto commit_count = bench.size<std::size_t>(40'000, 500);
  const Conditions full{"sqlite FULL", kPayloadBytes, 1, "five steps, 64 sagas at once"};
  const Conditions one{"sqlite FULL", kPayloadBytes, 1, fmt::format("{} threads", kThreads)};
  const Series ours{"saga steps", "steps/s", full}, commits{"plain group commit", "rows/s", one};
  bench.interleave({[&](int round) {
                      Engine engine = Engine::open(sqlite_url(bench.new_file("sagas"))).value();
                      bench.sample(ours, round, run_sagas(engine, count));
                      (void)engine.close().value();
                    },
                    [&](int round) {
                      GroupCommit commit(bench.new_file("commit"));
                      const std::string payload = payload_with(0);
                      bench.sample(commits, round,
                                   rate_of(commit_count, [&](std::size_t) { commit.put(payload); }));
                    }});
  bench.compare("a step of a saga", ours, commits, no_bar());
}

void conversations(Bench& bench) {
  const auto count = bench.size<std::size_t>(40'000, 500);
  const Conditions one{"sqlite FULL", kPayloadBytes, 1,
                       fmt::format("{} threads, 100 conversations", kThreads)};
  const Series ours{"append with its copy", "messages/s", one}, commits{"plain group commit", "rows/s", one};
  const std::string payload = payload_with(0);
  bench.interleave({[&](int round) {
                      Engine engine = Engine::open(sqlite_url(bench.new_file("talk"))).value();
                      Conversations talk = engine.conversations();
                      bench.sample(ours, round, rate_of(count, [&](std::size_t n) {
                                     const std::string room = fmt::format("room-{}", n % 100);
                                     (void)talk.append(room, {.sender = "ann", .payload = payload}).value();
                                   }));
                      (void)engine.close().value();
                    },
                    [&](int round) {
                      GroupCommit commit(bench.new_file("commit"));
                      bench.sample(commits, round, rate_of(count, [&](std::size_t) { commit.put(payload); }));
                    }});
  bench.compare("a message of a conversation", ours, commits, no_bar());
}

}  // namespace towline::bench
