// From publish() in one process to the start of the handler in another one that was idle. The clock that both
// read is the machine's monotonic one, which is the same in all processes.

#include <atomic>
#include <cstdlib>
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

constexpr const char* kTopic = "wake";
/// How long a reader waits for what it has not seen yet when nothing more is published.
constexpr double kPatience = 5;

std::int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Steady::now().time_since_epoch()).count();
}

void tell_latencies(const std::vector<double>& latencies_us) {
  std::string line;
  for (const double latency : latencies_us)
    line += fmt::format("{:.1f} ", latency);
  tell_parent(line);
}

std::vector<double> parse_latencies(const std::string& line) {
  std::vector<double> out;
  const char* at = line.c_str();
  for (char* end = nullptr;; at = end) {
    const double value = std::strtod(at, &end);
    if (end == at) return out;
    out.push_back(value / 1000);
  }
}

/// Publishes with pauses in which the reader falls asleep again.
void publish_slowly(std::size_t count, const std::function<void(std::string)>& publish) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> pause_us(4'000, 12'000);
  for (std::size_t i = 0; i < count; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(pause_us(random)));
    publish(payload_with(monotonic_ns()));
  }
}

std::vector<double> collect(Child& child, std::size_t count) {
  child.finish();
  std::vector<double> latencies = parse_latencies(child.read_line());
  child.join();
  if (latencies.size() != count) {
    throw std::runtime_error(fmt::format("the reader saw {} of {} messages", latencies.size(), count));
  }
  return latencies;
}

}  // namespace

int run_wake_consumer(const std::string& url, std::size_t count) {
  std::vector<double> latencies_us;
  std::atomic<std::size_t> handled{0};
  Engine engine = Engine::open(url).value();
  Consumer consumer =
      engine
          .consume(kTopic, {.group = "reader"},
                   [&](Delivery& delivery) {
                     const auto sent = number_in(delivery.payload());
                     latencies_us.push_back(static_cast<double>(monotonic_ns() - sent) / 1000);
                     handled.fetch_add(1);
                   })
          .value();
  tell_parent("ready");
  wait_for_finish();
  const auto end = Steady::now();
  while (handled.load() < count && seconds_since(end) < kPatience)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  (void)engine.close().value();
  tell_latencies(latencies_us);
  return 0;
}

int run_wake_poller(const std::string& file, std::size_t count) {
  PlainQueue queue(file);
  std::vector<double> latencies_us;
  std::vector<std::int64_t> sent;
  std::vector<std::int64_t> ids;
  std::atomic<bool> stop{false};
  tell_parent("ready");
  std::thread listener([&] {
    wait_for_finish();
    stop.store(true);
  });
  std::int64_t version = queue.data_version();
  double left_s = kPatience;
  while (left_s > 0 && latencies_us.size() < count) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (stop.load()) left_s -= 0.001;
    const std::int64_t now = queue.data_version();
    if (now == version) continue;
    version = now;
    sent.clear();
    if (queue.claim(1, 100, ids, [&](std::string_view payload) { sent.push_back(number_in(payload)); }) > 0) {
      const std::int64_t claimed = monotonic_ns();
      for (const std::int64_t at : sent)
        latencies_us.push_back(static_cast<double>(claimed - at) / 1000);
      queue.remove(ids);
    }
  }
  listener.join();
  tell_latencies(latencies_us);
  return 0;
}

void wake_up(Bench& bench) {
  const std::size_t count = bench.size<std::size_t>(300, 20);
  const Conditions conditions{"sqlite FULL", kPayloadBytes, 1, "two processes"};
  const Series p50{"publish() to handler p50", "ms", conditions};
  const Series p99{"publish() to handler p99", "ms", conditions};
  const Series poll_p50{"1 ms polling reader p50", "ms", conditions};
  const Series poll_p99{"1 ms polling reader p99", "ms", conditions};
  bench.interleave(
      {[&](int round) {
         const std::string url = sqlite_url(bench.new_file("wake"));
         Engine engine = Engine::open(url).value();
         Child child({"--role", "wake-consumer", "--url", url, "--count", std::to_string(count)});
         (void)child.read_line();
         publish_slowly(count, [&](std::string payload) {
           (void)engine.publish({.topic = kTopic, .payload = std::move(payload)}).value();
         });
         std::vector<double> latencies = collect(child, count);
         (void)engine.close().value();
         bench.sample(p50, round, quantile(latencies, 0.5));
         bench.sample(p99, round, quantile(latencies, 0.99));
       },
       [&](int round) {
         const std::filesystem::path file = bench.new_file("poll");
         PlainQueue queue(file);
         Child child({"--role", "wake-poller", "--file", file.string(), "--count", std::to_string(count)});
         (void)child.read_line();
         publish_slowly(count, [&](std::string payload) {
           const PlainQueue::Row row{0, payload};
           queue.insert({&row, 1});
         });
         std::vector<double> latencies = collect(child, count);
         bench.sample(poll_p50, round, quantile(latencies, 0.5));
         bench.sample(poll_p99, round, quantile(latencies, 0.99));
       }});
  bench.check("wake-up", p50, at_most(1.0));
  bench.check("wake-up", p99, at_most(5.0));
  bench.compare("wake-up", p50, poll_p50, at_most(0.4));
  bench.compare("wake-up", p99, poll_p99, no_bar());
}

}  // namespace towline::bench
