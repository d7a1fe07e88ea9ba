// Death of a process, for providers that several processes share: what was acknowledged stays so, a message
// that kills its process is found out and nobody else is blamed, and nothing is ever in two places or in
// none.

#include <set>

#include <signal.h>

#include "conformance/fixture.hpp"
#include "support/child_process.hpp"
#include "support/ledger.hpp"

namespace towline::conformance {
namespace {

using support::ChildProcess;
using support::ExitStatus;
using support::Ledger;

class Crash : public ConformanceTest {
 protected:
  void SetUp() override {
    ConformanceTest::SetUp();
    if (row().shared_between_processes) ledger_.emplace(folder().file("ledger"));
  }
  void TearDown() override {
    ledger_.reset();
    ConformanceTest::TearDown();
  }
  [[nodiscard]] ChildProcess start(const std::string& mode) {
    ChildProcess child(support::sibling_program("conformance_child"), {mode, url(), ledger().path()});
    EXPECT_EQ(child.read_line(10s), "ready") << mode;
    return child;
  }
  [[nodiscard]] Ledger& ledger() { return *ledger_; }
  /// The dead letters wait, and nothing else is left of the topic.
  static bool only_dead_letters_left(Engine& engine, std::size_t count) {
    return dead_letters(engine, "orders").size() == count && is_done(engine, "orders");
  }

 private:
  std::optional<Ledger> ledger_;
};
INSTANTIATE_TEST_SUITE_P(Provider, Crash, ::testing::ValuesIn(providers()), provider_name);

TEST_P(Crash, Conf04_WhatWasAcknowledgedStaysSoWhenTheProcessDiesAtOnce) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open(short_lease());
  make_group(engine, "orders");
  for (int i = 0; i < 5; ++i) {
    publish_numbers(engine, "orders", 1, i);
    ChildProcess child = start("ack");
    const auto status = child.wait(10s);
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->signal, SIGKILL);
    EXPECT_EQ(ledger().lines().back(), "acked " + std::to_string(i));
  }
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  EXPECT_TRUE(holds_for([&] { return seen.count() == 0; }, 2 * kLease));
  EXPECT_EQ(waiting(engine, "orders"), 0U);
}

TEST_P(Crash, Conf36_AMessageThatKillsItsProcessEndsInTheDeadLetters) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  make_group(engine, "orders");
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "kill"}).acked());
  const int max_crashes = static_cast<int>(DeadLettersOptions().max_crashes);
  int deaths = 0;
  while (dead_letters(engine, "orders").empty()) {
    ASSERT_LE(deaths, max_crashes + 1) << "it kills for ever";
    ChildProcess child = start("work");
    ASSERT_TRUE(eventually([&] { return child.wait(0ms).has_value() || only_dead_letters_left(engine, 1); }));
    if (child.running()) {
      child.kill();
    } else {
      ++deaths;
    }
  }
  EXPECT_GE(deaths, max_crashes) << "blamed too early";
  const DeadLetter entry = dead_letters(engine, "orders")[0];
  EXPECT_EQ(entry.reason, DeadLetterReason::kCrashLoop);
  EXPECT_EQ(entry.crashes, static_cast<std::uint32_t>(max_crashes));
  EXPECT_EQ(entry.payload, "kill");
  EXPECT_EQ(ledger().count("start kill"), static_cast<std::size_t>(deaths));
  EXPECT_TRUE(only_dead_letters_left(engine, 1));
}

TEST_P(Crash, Conf37_TheNeighboursOfAKillerAreHandledAndNotBlamed) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  make_group(engine, "orders");
  std::vector<Message> batch = {{.topic = "orders", .payload = "kill"}};
  for (int i = 1; i < 10; ++i)
    batch.push_back({.topic = "orders", .payload = "innocent " + std::to_string(i)});
  for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
    ASSERT_TRUE(receipt.acked());
  int deaths = 0;
  ChildProcess child = start("work");
  const auto over = [&] { return ledger().count("done innocent") >= 9 && only_dead_letters_left(engine, 1); };
  ASSERT_TRUE(eventually(
      [&] {
        if (over()) return true;
        if (!child.wait(0ms)) return false;
        ++deaths;
        if (deaths <= 10) child = start("work");
        return deaths > 10;
      },
      20s));
  child.kill();
  EXPECT_LE(deaths, static_cast<int>(DeadLettersOptions().max_crashes) + 1);
  const auto entries = dead_letters(engine, "orders");
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].payload, "kill");
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kCrashLoop);
  for (int i = 1; i < 10; ++i) {
    const std::string name = "innocent " + std::to_string(i);
    EXPECT_EQ(ledger().count("done " + name), 1U) << name;
    EXPECT_EQ(ledger().count("done " + name + " attempt 1 crashes 0"), 1U)
        << name << " was charged for its neighbour";
  }
}

TEST_P(Crash, Conf40_ARedriveThatIsKilledLeavesEachMessageInOnePlace) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  const int count = 300;
  make_dead_letters(engine, "orders", count);
  int killed = 0;
  const std::vector<Duration> delays = {0us, 500us, 1ms, 2ms, 3ms, 5ms, 8ms, 13ms};
  for (const Duration delay : delays) {
    ChildProcess child = start("redrive");
    const support::Stopwatch watch;
    (void)eventually([&] { return watch.elapsed() >= delay; });
    if (!child.wait(0ms)) {
      child.kill();
      ++killed;
    }
    // Pending, leased by the dead one, or resolved and waiting in the topic: together every one, none twice.
    const auto statistics = engine.statistics().value();
    EXPECT_EQ(statistics.dead_letters[2], waiting(engine, "orders")) << "resolved, but not in the topic";
  }
  EXPECT_GT(killed, 0) << "no child was killed at work";
  // None is stuck after its lease: the next redrive takes the rest.
  DeadLetterQuery query;
  query.topic = "orders";
  ASSERT_TRUE(eventually([&] {
    (void)engine.redrive_all(query).value();
    return engine.statistics().value().dead_letters[2] == static_cast<std::uint64_t>(count);
  }));
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(static_cast<std::size_t>(count)));
  EXPECT_TRUE(holds_for([&] { return seen.count() == static_cast<std::size_t>(count); }, 200ms));
  EXPECT_EQ(seen.times().size(), static_cast<std::size_t>(count));
}

TEST_P(Crash, Conf50_AKeyWhoseRunnerDiedIsRunAgainAfterItsLeaseAndItsResultStoredOnce) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  ChildProcess first = start("once");
  const auto death = first.wait(10s);
  ASSERT_TRUE(death.has_value());
  EXPECT_EQ(death->signal, SIGKILL);
  EXPECT_ERROR(engine.once("charge", [] { return Bytes("stolen"); }), ErrorCode::kInProgress)
      << "the dead one's lease protects the key until it ends";
  ChildProcess second = start("once");
  ChildProcess third = start("once");
  for (ChildProcess* child : {&second, &third}) {
    const auto status = child->wait(10s);
    ASSERT_TRUE(status.has_value());
    EXPECT_TRUE(status->clean()) << status->code << " " << status->signal;
  }
  EXPECT_EQ(ledger().count("run"), 2U) << "once by the one that died, once by one of the others";
  EXPECT_EQ(ledger().count("result charged"), 2U);
  EXPECT_EQ(engine.once("charge", [] { return Bytes("again"); }).value().bytes, "charged");
}

/// Creates and reads the table of effects, through the handler transactions of a consumer of its own.
class EffectTable {
 public:
  EffectTable(Engine& engine, const ConsumerOptions& options) : engine_(engine) {
    consumer_ =
        engine
            .consume("table", options,
                     [this](Delivery& delivery) {
                       EXPECT_OK(delivery.transaction([this](SqlTransaction& sql) -> Result<void> {
                         (void)sql.execute("CREATE TABLE IF NOT EXISTS effect(name TEXT NOT NULL)").value();
                         std::map<std::string, int> names;
                         for (const auto& record : sql.execute("SELECT name FROM effect").value()) {
                           ++names[std::get<std::string>(record.at(0))];
                         }
                         const std::lock_guard guard(mutex_);
                         names_ = std::move(names);
                         ++reads_;
                         return {};
                       }));
                     })
            .value();
  }
  /// Name to how often it is there.
  std::map<std::string, int> read() {
    const int before = reads_;
    EXPECT_TRUE(engine_.publish({.topic = "table", .payload = "read"}).acked());
    EXPECT_TRUE(eventually([&] { return reads_ > before; }));
    const std::lock_guard guard(mutex_);
    return names_;
  }

 private:
  Engine& engine_;
  std::mutex mutex_;
  std::map<std::string, int> names_;
  std::atomic<int> reads_{0};
  Consumer consumer_;
};

TEST_P(Crash, Conf52_EffectMessageAndRecordOfAHandlerTransactionAreOneWhereverItDies) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  make_group(engine, "effects");
  make_group(engine, "follow-ups");
  EffectTable table(engine, manual_member("table"));
  EXPECT_TRUE(table.read().empty());
  std::set<std::string> wanted;
  for (int round = 0; round < scaled(10); ++round) {
    for (const char* point : {"begin", "effect", "publish", "complete", "end"}) {
      const std::string name = std::to_string(round) + " " + point;
      wanted.insert(name);
      ASSERT_TRUE(engine.publish({.topic = "effects", .payload = name}).acked());
    }
  }
  std::size_t deaths = 0;
  ChildProcess child = start("transaction");
  ASSERT_TRUE(eventually(
      [&] {
        if (child.wait(0ms)) {
          ++deaths;
          child = start("transaction");
        }
        return deaths == wanted.size() && is_done(engine, "effects");
      },
      40s))
      << deaths << " deaths";
  child.kill();
  EXPECT_EQ(deaths, wanted.size());
  Recorder follow_ups;
  Consumer consumer = engine.consume("follow-ups", member(), follow_ups.handler()).value();
  ASSERT_TRUE(follow_ups.reaches(wanted.size()));
  EXPECT_TRUE(holds_for([&] { return follow_ups.count() == wanted.size(); }, 200ms))
      << "a follow-up was doubled";
  IdempotencyOptions options;
  options.scope = "effects";
  for (const std::string& name : wanted) {
    EXPECT_EQ(engine.begin(name, options).value().kind, IdempotencyAnswer::Kind::kCompleted) << name;
  }
  const auto effects = table.read();
  EXPECT_EQ(effects.size(), wanted.size());
  for (const auto& [name, times] : effects)
    EXPECT_EQ(times, 1) << name;
}

TEST_P(Crash, Conf67_AProcessWhoseHandlerClosesTheEngineExitsCleanly) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  make_group(engine, "orders");
  publish_numbers(engine, "orders", 1);
  ChildProcess child = start("close");
  const auto status = child.wait(20s);
  ASSERT_TRUE(status.has_value()) << "it hangs";
  EXPECT_TRUE(status->clean()) << status->code << " " << status->signal;
  EXPECT_EQ(ledger().count("closed after"), 1U);
  EXPECT_TRUE(eventually([&] { return is_done(engine, "orders"); })) << "its message was not acknowledged";
}

TEST_P(Crash, Conf86_MessagesThatComeDueWhileTheirSchedulerIsKilledFireOnceEach) {
  TOWLINE_NEEDS(row().shared_between_processes);
  const int count = 2000;
  {
    Engine engine = open();
    make_group(engine, "later");
    std::vector<Message> batch;
    const TimePoint start = system_clock()->now() + 200ms;
    for (int i = 0; i < count; ++i) {
      batch.push_back(
          {.topic = "later", .payload = std::to_string(i), .due_at = start + i * Duration(250us)});
    }
    for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
      ASSERT_TRUE(receipt.acked());
    close(engine);
  }
  for (int round = 0; round < 12; ++round) {
    ChildProcess child = start("fire");
    (void)holds_for([] { return true; }, 5ms * (round + 1));
    child.kill();
  }
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("later", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(count)) << seen.count();
  EXPECT_TRUE(holds_for([&] { return seen.count() == count; }, 300ms));
  EXPECT_EQ(seen.times().size(), static_cast<std::size_t>(count));
  EXPECT_TRUE(engine.pending().value().items.empty());
}

TEST_P(Crash, Conf85_InTheChildOfAForkTheEngineIsDeadAndInTheParentAlive) {
  TOWLINE_NEEDS(row().shared_between_processes);
  TOWLINE_NEEDS(row().refuses_after_fork);
  Engine engine = open();
  make_group(engine, "orders");
  ChildProcess child = start("fork");
  const auto status = child.wait(20s);
  ASSERT_TRUE(status.has_value()) << "it hangs";
  EXPECT_TRUE(status->clean()) << status->code << " " << status->signal;
  EXPECT_EQ(ledger().count("handled 20"), 1U) << (ledger().lines().empty() ? "" : ledger().lines().back());
  EXPECT_EQ(waiting(engine, "orders"), 0U);
  EXPECT_TRUE(engine.health().ok);
}

TEST_P(Crash, Conf94_WhatAnotherProcessPublishesReachesAnIdleConsumerAtOnceHoweverManyWait) {
  TOWLINE_NEEDS(row().shared_between_processes);
  Engine engine = open();
  ChildProcess child = start("echo");
  for (const int waiting_count : {1, 6}) {
    std::vector<std::unique_ptr<Recorder>> seen;
    std::vector<Consumer> consumers;
    for (int i = 0; i < waiting_count; ++i) {
      seen.push_back(std::make_unique<Recorder>());
      consumers.push_back(
          engine.consume("pong-" + std::to_string(i), member(), seen.back()->handler()).value());
    }
    std::vector<Duration> there_and_back;
    for (int round = 0; round < 18; ++round) {
      const int i = round % waiting_count;
      const int before = seen[static_cast<std::size_t>(i)]->count();
      const auto start = std::chrono::steady_clock::now();
      (void)engine.publish({.topic = "ping", .payload = "pong-" + std::to_string(i)}).value();
      ASSERT_TRUE(seen[static_cast<std::size_t>(i)]->reaches(before + 1)) << waiting_count << " wait";
      there_and_back.push_back(
          std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - start));
    }
    // Who only looks once a second takes one on average, on the way there and back.
    std::sort(there_and_back.begin(), there_and_back.end());
    EXPECT_LT(there_and_back[there_and_back.size() / 2], 250ms) << waiting_count << " wait";
  }
}

}  // namespace
}  // namespace towline::conformance
