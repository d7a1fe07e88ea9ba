// The event store beside the table that somebody would write for it: appends in batches, appends of one event
// from many threads, and a reader that catches up.

#include <array>
#include <atomic>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

#include "flow.hpp"
#include "reference.hpp"
#include "scenarios.hpp"

namespace towline::bench {
namespace {

constexpr std::size_t kAppended = 100;
constexpr std::size_t kStreams = 100;
constexpr std::size_t kPage = 1'000;
constexpr int kThreads = 32;

/// Positions, versions that are unique in their stream, and nothing else: no ids, no types, no check of what
/// is expected.
class PlainEvents {
 public:
  explicit PlainEvents(const std::filesystem::path& file)
      : database_(file),
        made_(make(database_)),
        begin_(database_, "BEGIN IMMEDIATE"),
        commit_(database_, "COMMIT"),
        insert_(database_, "INSERT INTO event(stream, version, payload) VALUES(?1, ?2, ?3)"),
        page_(database_,
              "SELECT position, stream, version, payload FROM event WHERE position > ?1 LIMIT 1000") {}

  void append(std::int64_t stream, std::string_view payload) {
    begin_.run();
    for (std::size_t i = 0; i < kAppended; ++i)
      insert_.bind(1, stream).bind(2, ++versions_[static_cast<std::size_t>(stream)]).bind(3, payload).run();
    commit_.run();
  }
  /// How many it read behind `position`, which it moves.
  std::size_t read(std::int64_t& position) {
    std::size_t count = 0;
    page_.bind(1, position);
    for (; page_.step(); ++count) {
      position = page_.integer(0);
      bytes_ += page_.bytes(3).size();
    }
    page_.reset();
    return count;
  }

 private:
  static bool make(Database& database) {
    database.run(
        "CREATE TABLE event(position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL,"
        " payload BLOB NOT NULL, UNIQUE(stream, version))");
    return true;
  }
  Database database_;
  bool made_;
  Statement begin_, commit_, insert_, page_;
  std::array<std::int64_t, kStreams> versions_{};
  std::size_t bytes_ = 0;
};

std::string stream_name(std::size_t number) { return fmt::format("order-{}", number % kStreams); }

double append_batches(EventStore events, std::size_t count, const std::string& payload) {
  const auto start = Steady::now();
  for (std::size_t done = 0; done < count; done += kAppended) {
    std::vector<NewEvent> batch(kAppended, NewEvent{"order.changed", payload});
    (void)events.append(stream_name(done / kAppended), std::move(batch)).value();
  }
  return static_cast<double>(count) / seconds_since(start);
}

double catch_up(EventStore events, std::size_t count) {
  EventSubscriptionOptions options;
  options.name = "reader";
  EventSubscription subscription = events.subscribe(options).value();
  const auto start = Steady::now();
  for (std::size_t seen = 0; seen < count;) {
    const auto batch = subscription.receive(kPage, std::chrono::seconds(5)).value();
    if (batch.empty()) throw std::runtime_error("the reader stands still");
    seen += batch.size();
    subscription.checkpoint(batch.back().position).value();
  }
  return static_cast<double>(count) / seconds_since(start);
}

double append_singles(EventStore events, std::size_t count, const std::string& payload) {
  std::atomic<std::size_t> left{count};
  std::vector<std::thread> threads;
  const auto start = Steady::now();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string stream = stream_name(static_cast<std::size_t>(t));
      for (std::size_t now = left.load(); now > 0;) {
        if (left.compare_exchange_weak(now, now - 1))
          (void)events.append(stream, {{"order.changed", payload}}).value();
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  return static_cast<double>(count) / seconds_since(start);
}

}  // namespace

void event_store(Bench& bench) {
  const auto count = bench.size<std::size_t>(200'000, 2'000);
  const auto single_count = bench.size<std::size_t>(40'000, 500);
  const std::string payload = payload_with(0);
  const Conditions full{"sqlite FULL", kPayloadBytes, kAppended};
  const Conditions one{"sqlite FULL", kPayloadBytes, 1, fmt::format("{} threads", kThreads)};
  const Conditions pages{"sqlite FULL", kPayloadBytes, 0, "pages of 1,000, checkpoint after each"};
  const Series ours{"append of 100", "events/s", full},
      plain{"plain table, 100 a transaction", "events/s", full};
  const Series read{"receive and checkpoint", "events/s", pages};
  const Series plain_read{
      "plain table read by position", "events/s", {"sqlite FULL", kPayloadBytes, 0, "pages of 1,000"}};
  const Series singles{"append of one", "events/s", one}, commits{"plain group commit", "rows/s", one};
  bench.interleave({[&](int round) {
                      Engine engine = Engine::open(sqlite_url(bench.new_file("events"))).value();
                      bench.sample(ours, round, append_batches(engine.event_store(), count, payload));
                      bench.sample(read, round, catch_up(engine.event_store(), count));
                      (void)engine.close().value();
                    },
                    [&](int round) {
                      PlainEvents table(bench.new_file("plain"));
                      auto start = Steady::now();
                      for (std::size_t done = 0; done < count; done += kAppended)
                        table.append(static_cast<std::int64_t>(done / kAppended % kStreams), payload);
                      bench.sample(plain, round, static_cast<double>(count) / seconds_since(start));
                      start = Steady::now();
                      std::int64_t position = 0;
                      while (table.read(position) > 0) {
                      }
                      bench.sample(plain_read, round, static_cast<double>(count) / seconds_since(start));
                    },
                    [&](int round) {
                      Engine engine = Engine::open(sqlite_url(bench.new_file("single"))).value();
                      bench.sample(singles, round,
                                   append_singles(engine.event_store(), single_count, payload));
                      (void)engine.close().value();
                    },
                    [&](int round) {
                      GroupCommit commit(bench.new_file("commit"));
                      std::atomic<std::size_t> left{single_count};
                      std::vector<std::thread> threads;
                      const auto start = Steady::now();
                      for (int t = 0; t < kThreads; ++t) {
                        threads.emplace_back([&] {
                          for (std::size_t now = left.load(); now > 0;) {
                            if (left.compare_exchange_weak(now, now - 1)) commit.put(payload);
                          }
                        });
                      }
                      for (std::thread& thread : threads)
                        thread.join();
                      bench.sample(commits, round, static_cast<double>(single_count) / seconds_since(start));
                    }});
  bench.compare("append, 100 events a call", ours, plain, no_bar());
  bench.compare("append, one event a call", singles, commits, no_bar());
  bench.compare("catching up", read, plain_read, no_bar());
}

}  // namespace towline::bench
