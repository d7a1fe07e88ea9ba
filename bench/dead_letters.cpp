// A hundred thousand dead letters: how long a filtered page of them takes, and how fast they are sent back.
// They come to be in the way they do in earnest: handlers that fail for good.

#include <atomic>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "dead_letter_file.hpp"
#include "flow.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

constexpr int kErrorTypes = 10;
constexpr std::size_t kPages = 20;

std::string topic_of(int number) { return fmt::format("failing.{}", number); }

struct Filter {
  std::string name;
  DeadLetterQuery query;
};

std::vector<Filter> filters(Engine& engine) {
  DeadLetterQuery sample;
  sample.count_max = 1000;
  const Page<DeadLetter> first = engine.dead_letters(sample).value();
  const DeadLetter& some = first.items.at(first.items.size() / 2);
  std::vector<Filter> out;
  const auto add = [&](std::string name, const std::function<void(DeadLetterQuery&)>& narrow) {
    out.push_back({std::move(name), {}});
    out.back().query.count_max = 100;
    narrow(out.back().query);
  };
  add("nothing", [](DeadLetterQuery&) {});
  add("topic", [](DeadLetterQuery& q) { q.topic = topic_of(1); });
  add("group and topic", [](DeadLetterQuery& q) { q.topic = topic_of(1), q.group = "bench"; });
  add("status", [](DeadLetterQuery& q) { q.status = DeadLetterStatus::kPending; });
  add("a status that none has", [](DeadLetterQuery& q) { q.status = DeadLetterStatus::kDiscarded; });
  add("error type", [](DeadLetterQuery& q) { q.error_type = "FailureNumber3"; });
  add("topic and error type",
      [](DeadLetterQuery& q) { q.topic = topic_of(1), q.error_type = "FailureNumber3"; });
  add("fingerprint", [&](DeadLetterQuery& q) { q.fingerprint = some.fingerprint; });
  add("time", [&](DeadLetterQuery& q) { q.created_from = some.created_at; });
  add("reason", [](DeadLetterQuery& q) { q.reason = DeadLetterReason::kExhausted; });
  add("text in every tenth", [](DeadLetterQuery& q) { q.text = "dependency 3 refused"; });
  add("text in one", [](DeadLetterQuery& q) { q.text = "order 4711 "; });
  add("text in none", [](DeadLetterQuery& q) { q.text = "no such words"; });
  return out;
}

/// The slowest of the first pages, in milliseconds.
double slowest_page(Engine& engine, DeadLetterQuery query) {
  double slowest = 0;
  for (std::size_t page = 0; page < kPages; ++page) {
    const auto start = Steady::now();
    Page<DeadLetter> answer = engine.dead_letters(query).value();
    slowest = std::max(slowest, seconds_since(start) * 1000);
    if (answer.cursor.empty()) break;
    query.cursor = std::move(answer.cursor);
  }
  return slowest;
}

}  // namespace

double make_dead_letters(Engine& engine, std::size_t count, int topic_count) {
  ConsumerOptions options{.group = "bench", .prefetch_count = 1000};
  options.retry.max_attempts = 1;
  options.breaker.enabled = false;
  std::atomic<std::uint64_t> number{0};
  const auto start = Steady::now();
  Consumer consumer =
      engine
          .consume_outcomes({"failing.#"}, options,
                            [&](Delivery&) {
                              const std::uint64_t n = number.fetch_add(1);
                              return Outcome::fail(
                                  {fmt::format("FailureNumber{}", n % kErrorTypes),
                                   fmt::format("order {} failed: dependency {} refused", n, n % kErrorTypes),
                                   "at handle_order (orders.cpp:100)\nat main (main.cpp:7)"});
                            })
          .value();
  for (std::size_t done = 0; done < count;) {
    std::vector<Message> batch(std::min(kBatch, count - done));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      batch[i].topic = topic_of(static_cast<int>((done + i) % static_cast<std::size_t>(topic_count)));
      batch[i].payload = payload_with(static_cast<std::int64_t>(done + i));
    }
    done += batch.size();
    publish_all(engine, std::move(batch));
  }
  while (consumer.statistics().dead_lettered < count) {
    if (seconds_since(start) > 300) throw std::runtime_error("messages did not become dead letters");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const double rate = static_cast<double>(count) / seconds_since(start);
  (void)consumer.close().value();
  return rate;
}

void dead_letters(Bench& bench) {
  const std::size_t count = bench.size<std::size_t>(100'000, 3'000);
  const int topic_count = std::max(bench.round_count(), 2);
  const Conditions conditions{"sqlite FULL", kPayloadBytes, 0, fmt::format("{} dead letters", count)};
  Engine engine = Engine::open(sqlite_url(bench.new_file("dead"))).value();
  bench.start_sample();
  bench.check_value("publish, fail, keep", make_dead_letters(engine, count, topic_count), "msg/s", conditions,
                    no_bar());
  std::vector<Filter> all = filters(engine);
  std::vector<Series> series;
  std::vector<std::function<void(int)>> sides;
  for (const Filter& filter : all)
    series.push_back({"slowest page by " + filter.name, "ms", conditions});
  for (std::size_t i = 0; i < all.size(); ++i) {
    sides.emplace_back(
        [&, i](int round) { bench.sample(series[i], round, slowest_page(engine, all[i].query)); });
  }
  bench.interleave(sides);
  for (const Series& one : series)
    bench.check("a page of 100", one, at_most(50));
  const Series redrive{"redrive_all() of one topic", "msg/s", conditions};
  bench.interleave({[&](int round) {
    const auto start = Steady::now();
    DeadLetterQuery query;
    query.topic = topic_of(round - 1);
    const RedriveReport report = engine.redrive_all(query).value();
    const double seconds = seconds_since(start);
    if (report.redriven == 0 || report.redriven != report.matched) {
      throw std::runtime_error(fmt::format("{} of {} were redriven", report.redriven, report.matched));
    }
    bench.sample(redrive, round, static_cast<double>(report.redriven) / seconds);
  }});
  bench.check("redrive", redrive, at_least(5'000));
  (void)engine.close().value();
}

}  // namespace towline::bench
