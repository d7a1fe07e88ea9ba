// Publishing that is hard on a store: one durable message a call from many threads, and dedup ids in no
// order.

#include <array>
#include <atomic>
#include <latch>
#include <random>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "flow.hpp"
#include "process.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

struct Many {
  double rate = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double cpu_us = 0;  ///< processor time of the process for each message
};

/// Runs `put` again and again on each of `thread_count` threads for a while.
Many run_threads(int thread_count, double seconds, const std::function<void()>& put) {
  std::vector<std::vector<double>> latencies(static_cast<std::size_t>(thread_count));
  std::atomic<bool> stop{false};
  std::atomic<bool> failed{false};
  std::latch ready(thread_count + 1);
  std::vector<std::thread> threads;
  for (std::vector<double>& mine : latencies) {
    threads.emplace_back([&] {
      ready.arrive_and_wait();
      while (!stop.load(std::memory_order_relaxed)) {
        const auto start = Steady::now();
        try {
          put();
        } catch (const std::exception& error) {
          if (!failed.exchange(true)) fmt::print(stderr, "bench: {}\n", error.what());
          return;
        }
        mine.push_back(seconds_since(start) * 1000);
      }
    });
  }
  const double cpu_before = cpu_seconds();
  ready.arrive_and_wait();
  const auto start = Steady::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop.store(true);
  for (std::thread& thread : threads)
    thread.join();
  const double elapsed = seconds_since(start);
  const double cpu = cpu_seconds() - cpu_before;
  if (failed.load()) throw std::runtime_error("a publish failed");
  std::vector<double> all;
  for (const std::vector<double>& mine : latencies)
    all.insert(all.end(), mine.begin(), mine.end());
  const auto count = static_cast<double>(all.size());
  return {count / elapsed, quantile(all, 0.5), quantile(all, 0.99), cpu * 1e6 / count};
}

struct Sides {
  Series ours, plain, ours_p50, ours_p99, plain_p99, ours_cpu, plain_cpu;
};

Sides sides_of(int thread_count) {
  const std::string threads = fmt::format("{} threads", thread_count);
  const Conditions conditions{"sqlite FULL", kPayloadBytes, 1, threads};
  return {{"publish(), " + threads, "msg/s", conditions},
          {"plain group commit, " + threads, "msg/s", conditions},
          {"publish() p50, " + threads, "ms", conditions},
          {"publish() p99, " + threads, "ms", conditions},
          {"plain group commit p99, " + threads, "ms", conditions},
          {"publish() processor time, " + threads, "us/msg", conditions},
          {"plain group commit processor time, " + threads, "us/msg", conditions}};
}

}  // namespace

int run_singles_alone(const std::string& url, int thread_count, double seconds) {
  Engine engine = Engine::open(url).value();
  const std::string payload = payload_with(0);
  const Many many = run_threads(
      thread_count, seconds, [&] { (void)engine.publish({.topic = "singles", .payload = payload}).value(); });
  fmt::print("{:.0f} msg/s, p50 {:.2f} ms, p99 {:.2f} ms, {:.1f} us of processor time each\n", many.rate,
             many.p50_ms, many.p99_ms, many.cpu_us);
  (void)engine.close().value();
  return 0;
}

void durable_singles(Bench& bench) {
  const std::array<int, 4> thread_counts = {1, 8, 32, 128};
  const double seconds = bench.size(1.5, 0.1);
  const std::string payload = payload_with(0);
  std::vector<Sides> all;
  for (const int thread_count : thread_counts)
    all.push_back(sides_of(thread_count));
  std::vector<std::function<void(int)>> sides;
  for (std::size_t i = 0; i < all.size(); ++i) {
    sides.emplace_back([&, i](int round) {
      Engine engine = Engine::open(sqlite_url(bench.new_file("single"))).value();
      const Many many = run_threads(thread_counts[i], seconds, [&] {
        (void)engine.publish({.topic = "singles", .payload = payload}).value();
      });
      (void)engine.close().value();
      bench.sample(all[i].ours, round, many.rate);
      bench.sample(all[i].ours_p50, round, many.p50_ms);
      bench.sample(all[i].ours_p99, round, many.p99_ms);
      bench.sample(all[i].ours_cpu, round, many.cpu_us);
    });
    sides.emplace_back([&, i](int round) {
      GroupCommit commit(bench.new_file("plain"));
      const Many many = run_threads(thread_counts[i], seconds, [&] { commit.put(payload); });
      bench.sample(all[i].plain, round, many.rate);
      bench.sample(all[i].plain_p99, round, many.p99_ms);
      bench.sample(all[i].plain_cpu, round, many.cpu_us);
    });
  }
  bench.interleave(sides);
  for (std::size_t i = 0; i < all.size(); ++i) {
    bench.compare("durable singles", all[i].ours, all[i].plain, i == 0 ? no_bar() : at_least(0.9));
    bench.check("latency", all[i].ours_p99, thread_counts[i] == 128 ? at_most(10) : no_bar());
    bench.check("latency of the plain program", all[i].plain_p99, no_bar());
    bench.compare("durable singles", all[i].ours_cpu, all[i].plain_cpu, no_bar());
  }
  bench.compare("many against one", all[2].ours, all[0].ours, at_least(6));
  bench.compare("many against one", all[3].ours, all[0].ours, at_least(9));
}

namespace {

class RandomKeys {
 public:
  [[nodiscard]] std::string next() { return fmt::format("{:016x}{:016x}", random_(), random_()); }

 private:
  std::mt19937_64 random_{20260101};
};

double publish_rate(Engine& engine, std::size_t count, RandomKeys* keys) {
  const auto start = Steady::now();
  for (std::size_t done = 0; done < count; done += kBatch) {
    std::vector<Message> batch(kBatch);
    for (Message& message : batch) {
      message.topic = "keys";
      message.payload.assign(kPayloadBytes, 'p');
      if (keys != nullptr) message.dedup_id = keys->next();
    }
    publish_all(engine, std::move(batch));
  }
  return static_cast<double>(count) / seconds_since(start);
}

}  // namespace

void dedup_keys(Bench& bench) {
  const std::size_t live = bench.size<std::size_t>(1'000'000, 3'000);
  const std::size_t count = bench.size<std::size_t>(50'000, 1'000);
  const Conditions conditions{"sqlite FULL", kPayloadBytes, kBatch, fmt::format("{} live keys", live)};
  const Series with{"with a random dedup id", "msg/s", conditions};
  const Series without{"without", "msg/s", conditions};
  const std::string url = sqlite_url(bench.new_file("keys"));
  Engine engine = Engine::open(url).value();
  RandomKeys keys;
  const double filled = publish_rate(engine, live, &keys);
  bench.check_value("the first keys", filled, "msg/s", conditions, no_bar());
  bench.interleave({[&](int round) { bench.sample(with, round, publish_rate(engine, count, &keys)); },
                    [&](int round) { bench.sample(without, round, publish_rate(engine, count, nullptr)); }});
  bench.compare("publish", with, without, at_least(0.25));
  (void)engine.close().value();
  engine = Engine::open(url).value();
  Message first;
  first.topic = "keys";
  first.dedup_id = keys.next();
  const auto start = Steady::now();
  (void)engine.publish(std::move(first)).value();
  bench.check_value("the first after opening", seconds_since(start) * 1000, "ms", conditions, no_bar());
  (void)engine.close().value();
}

}  // namespace towline::bench
