// Sagas: forwards, backwards, by hand, over commands, and through the death of whoever runs them.

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include <signal.h>

#include "conformance/fixture.hpp"
#include "support/child_process.hpp"
#include "support/ledger.hpp"

namespace {
struct Counted {
  int number = 0;
};
}  // namespace

template <>
struct towline::Codec<Counted> {
  static Bytes encode(const Counted& counted) { return std::to_string(counted.number); }
  static Counted decode(const Bytes& bytes) { return {std::stoi(bytes)}; }
};

namespace towline::conformance {
namespace {

TOWLINE_SUITE(SagaSuite);

using Names = std::vector<std::string>;

/// What the steps of a saga did, in order; a compensation with a minus before it.
class Effects {
 public:
  void add(const SagaCall& call) {
    const std::lock_guard lock(mutex_);
    names_.push_back((call.phase() == SagaPhase::kCompensate ? "-" : "") + call.step());
  }
  [[nodiscard]] Names all() const {
    const std::lock_guard lock(mutex_);
    return names_;
  }
  [[nodiscard]] std::size_t count(const std::string& name) const {
    const Names names = all();
    return static_cast<std::size_t>(std::count(names.begin(), names.end(), name));
  }
  [[nodiscard]] SagaHandler note() {
    return [this](SagaCall& call) { add(call); };
  }
  /// Fails as often as it is said, then succeeds.
  [[nodiscard]] SagaHandler fail(int times = 1'000'000) {
    return [this, left = std::make_shared<std::atomic<int>>(times)](SagaCall& call) {
      add(call);
      if (left->fetch_sub(1) > 0) throw HandlerError("NotNow", "no");
    };
  }

 private:
  mutable std::mutex mutex_;
  Names names_;
};

SagaStepOptions quick(std::int64_t max_attempts = 3) {
  SagaStepOptions options;
  for (RetryOptions* retry : {&options.retry, &options.compensation_retry}) {
    retry->kind = BackoffKind::kFixed;
    retry->initial_delay = 5ms;
    retry->jitter = JitterKind::kNone;
    retry->max_attempts = max_attempts;
  }
  return options;
}

/// Steps a, b, c, ..., each with a compensation.
Saga letters(Effects& effects, int count, const std::string& type = "order", std::uint32_t version = 1) {
  Saga saga(type, version);
  for (int i = 0; i < count; ++i)
    saga.step(std::string(1, static_cast<char>('a' + i)), effects.note(), effects.note(), quick());
  return saga;
}

TEST_P(SagaSuite, Conf58_FiveStepsRunOnceEachAndHandOnTheContext) {
  Engine engine = open();
  Effects effects;
  Saga saga("order");
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    saga.step(
        name,
        [&](SagaCall& call) {
          effects.add(call);
          EXPECT_EQ(call.attempt(), 1U);
          EXPECT_EQ(call.key(), "order/o-1/" + call.step() + "/execute");
          if (call.step() == "d") {
            EXPECT_EQ(call.output_of("b"), "output of b");
          }
          call.set_context(call.context() + call.step()).value();
          call.set_output("output of " + call.step()).value();
          call.publish({.topic = "done", .payload = call.step()}).value();
        },
        effects.note());
  }
  Recorder recorder;
  const auto consumer = engine.consume("done", member(), recorder.handler());
  ASSERT_OK(consumer);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  const auto started = engine.sagas().start(saga, "o-1", ">");
  ASSERT_OK(started);
  EXPECT_TRUE(started->is_new);
  const auto result = engine.sagas().result("order", "o-1", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  EXPECT_EQ(result->context, ">abcde");
  EXPECT_EQ(effects.all(), (Names{"a", "b", "c", "d", "e"}));
  ASSERT_TRUE(recorder.reaches(5));
  const auto again = engine.sagas().start(saga, "o-1", ">");
  ASSERT_OK(again);
  EXPECT_FALSE(again->is_new);
  EXPECT_ERROR(engine.sagas().start(saga, "o-1", "other"), ErrorCode::kConflict);
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(effects.all().size(), 5U);
  Names marks;
  const auto timeline = engine.sagas().timeline("order", "o-1");
  ASSERT_OK(timeline);
  for (const SagaEntry& entry : *timeline)
    marks.push_back(std::string(name_of(entry.mark)) + entry.step);
  EXPECT_EQ(marks, (Names{"begun", "starteda", "donea", "startedb", "doneb", "startedc", "donec", "startedd",
                          "doned", "startede", "donee"}));
}

TEST_P(SagaSuite, Conf58_BranchesRunSideBySideAndWhatFollowsWaitsForAll) {
  Engine engine = open();
  Effects effects;
  std::atomic<int> here{0};
  const auto meet = [&](SagaCall& call) {
    ++here;
    if (!eventually([&] { return here.load() == 2; })) throw HandlerError("Alone");
    EXPECT_ERROR(call.set_context("no"), ErrorCode::kInvalidArgument);
    effects.add(call);
  };
  Saga saga("trip");
  saga.step("plan", effects.note(), effects.note())
      .parallel({{"hotel", meet, effects.note()}, {"flight", meet, effects.note()}})
      .step("pay", effects.note(), effects.note());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "t", ""));
  EXPECT_EQ(engine.sagas().result("trip", "t", 10s)->saga.status, SagaStatus::kCompleted);
  const Names names = effects.all();
  ASSERT_EQ(names.size(), 4U);
  EXPECT_EQ(names.front(), "plan");
  EXPECT_EQ(names.back(), "pay");
}

TEST_P(SagaSuite, Conf59_AFailedStepIsUndoneAndThenTheOthersInReverse) {
  Engine engine = open();
  Effects effects;
  Saga saga("order");
  for (const char* name : {"a", "b", "c"}) {
    saga.step(
        name, [](SagaCall& call) { call.set_output("of " + call.step()).value(); },
        [&](SagaCall& call) {
          effects.add(call);
          EXPECT_EQ(call.output(), "of " + call.step());
          EXPECT_EQ(call.cause(), "d: NotNow: no");
        });
  }
  saga.step(
      "d", effects.fail(),
      [&](SagaCall& call) {
        effects.add(call);
        EXPECT_EQ(call.output(), std::nullopt) << "it never succeeded";
      },
      quick(2));
  saga.step("e", effects.note(), effects.note());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  for (const char* id : {"first", "second"}) {
    ASSERT_OK(engine.sagas().start(saga, id, ""));
    const auto result = engine.sagas().result("order", id, 10s);
    ASSERT_OK(result);
    EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
    EXPECT_EQ(result->saga.error, "d: NotNow: no");
  }
  ASSERT_OK(engine.settle_down());
  const Names once = {"d", "d", "-d", "-c", "-b", "-a"};
  Names twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  EXPECT_EQ(effects.all(), twice);
}

TEST_P(SagaSuite, Conf59_ACancelledSagaIsUndoneAndOnePastItsPivotIsNot) {
  Engine engine = open();
  Effects effects;
  std::atomic<bool> hold{true};
  Saga saga("order");
  saga.step("a", effects.note(), effects.note())
      .step(
          "b",
          [&](SagaCall& call) {
            effects.add(call);
            EXPECT_TRUE(eventually([&] { return !hold.load(); }));
          },
          effects.note())
      .step("c", effects.note(), [&] {
        SagaStepOptions options;
        options.pivot = true;
        return options;
      }());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  ASSERT_TRUE(eventually([&] { return effects.count("b") == 1; }));
  ASSERT_OK(engine.sagas().cancel("order", "o", "the customer left"));
  hold.store(false);
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
  EXPECT_EQ(result->saga.error, "the customer left");
  EXPECT_EQ(effects.all(), (Names{"a", "b", "-b", "-a"}));
  ASSERT_OK(engine.sagas().start(saga, "p", ""));
  ASSERT_OK(engine.sagas().result("order", "p", 10s));
  EXPECT_ERROR(engine.sagas().cancel("order", "p", "too late"), ErrorCode::kConflict);
  EXPECT_ERROR(engine.sagas().cancel("order", "q", "nobody"), ErrorCode::kNotFound);
}

TEST_P(SagaSuite, Conf60_KilledAtEachBoundaryItComesToTheSameEnd) {
  TOWLINE_NEEDS(row().shared_between_processes);
  // The child writes each effect of a saga of its own once, and dies at a point of its first life.
  const auto end_of = [&](int dies_at) {
    const std::string name = "life-" + std::to_string(dies_at);
    support::Ledger ledger(folder().file(name));
    const std::string store = row().make_url(folder().path(), name);
    for (int life = 0; life < 3; ++life) {
      support::ChildProcess child(support::sibling_program("conformance_child"),
                                  {"saga", store, ledger.path(), std::to_string(life == 0 ? dies_at : 0)});
      const auto status = child.wait(30s);
      if (!status) {
        ADD_FAILURE() << "it came to no end";
        break;
      }
      if (status->clean()) break;
      EXPECT_EQ(status->signal, SIGKILL) << name;
    }
    return ledger.lines();
  };
  Names wanted;
  for (const char* step : {"a/execute", "b/execute", "c/execute", "d/execute", "d/compensate", "c/compensate",
                           "b/compensate", "a/compensate"})
    wanted.push_back("order/o/" + std::string(step));
  wanted.push_back("compensated");
  EXPECT_EQ(end_of(0), wanted);
  constexpr int kPoints = 16;  // before and after each effect
  for (int dies_at = 1; dies_at <= kPoints; ++dies_at)
    EXPECT_EQ(end_of(dies_at), wanted) << dies_at;
}

TEST_P(SagaSuite, Conf61_OfTwoRunnersEachStepIsRunByOne) {
  std::vector<Engine> engines = {open(), open()};
  Effects effects;
  const Saga saga = letters(effects, 3);
  std::vector<SagaRunner> runners;
  for (Engine& engine : engines) {
    auto runner = engine.sagas().run(saga);
    ASSERT_OK(runner);
    runners.push_back(*runner);
  }
  constexpr int kSagas = 40;
  for (int i = 0; i < kSagas; ++i)
    ASSERT_OK(engines[static_cast<std::size_t>(i) % 2].sagas().start(saga, "o-" + std::to_string(i), ""));
  for (int i = 0; i < kSagas; ++i) {
    const auto result = engines[0].sagas().result("order", "o-" + std::to_string(i), 20s);
    ASSERT_OK(result);
    EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  }
  for (const char* step : {"a", "b", "c"})
    EXPECT_EQ(effects.count(step), static_cast<std::size_t>(kSagas)) << step;
  // A runner counts a saga right after everybody can see its end.
  EXPECT_TRUE(eventually([&] {
    std::uint64_t completed = 0;
    for (const SagaRunner& runner : runners)
      completed += runner.statistics().completed;
    return completed == static_cast<std::uint64_t>(kSagas);
  }));
}

TEST_P(SagaSuite, Conf61_WhatALateCallDoesDoesNotCount) {
  Engine engine = open();
  Effects effects;
  std::atomic<bool> hold{true};
  Saga saga("order");
  SagaStepOptions timed = quick(5);
  timed.timeout = 100ms;
  saga.step(
          "a",
          [&](SagaCall& call) {
            effects.add(call);
            call.set_output("of attempt " + std::to_string(call.attempt())).value();
            if (call.attempt() == 1) {
              EXPECT_TRUE(eventually([&] { return !hold.load(); }));
            }
          },
          effects.note(), timed)
      .step("b", effects.note(), effects.note());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  hold.store(false);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  EXPECT_EQ(effects.all(), (Names{"a", "a", "b"}));
  ASSERT_TRUE(eventually([&] { return engine.settle_down().ok(); }));
  const auto timeline = engine.sagas().timeline("order", "o");
  ASSERT_OK(timeline);
  for (const SagaEntry& entry : *timeline) {
    if (entry.mark == SagaMark::kDone && entry.step == "a") {
      EXPECT_EQ(entry.output, "of attempt 2");
    }
    if (entry.mark == SagaMark::kFailed) {
      EXPECT_NE(entry.error.find("StepTimeout"), std::string::npos);
    }
  }
}

TEST_P(SagaSuite, Conf62_ACompensationThatKeepsFailingEndsStuckAndTheOthersRun) {
  std::mutex mutex;
  Names alerts;
  EngineOptions options = quick_options();
  options.sweep_interval = 10ms;
  options.on_alert = [&](const Alert& alert) {
    const std::lock_guard lock(mutex);
    alerts.push_back((alert.recovered ? "-" : "") + std::string(name_of(alert.kind)) + " " + alert.saga_type +
                     "/" + alert.saga_id + "/" + alert.saga_step);
  };
  const auto has_alerts = [&](const Names& wanted) {
    return eventually([&] {
      const std::lock_guard lock(mutex);
      return alerts == wanted;
    });
  };
  Engine engine = open(options);
  Effects effects;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note(), quick())
      .step("b", effects.note(), effects.fail(3), quick(3))
      .step("c", effects.fail(), effects.note(), quick(1));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kStuck);
  EXPECT_EQ(result->saga.step, "b");
  EXPECT_EQ(effects.all(), (Names{"a", "b", "c", "-c", "-b", "-b", "-b", "-a"}));
  SagaQuery query;
  query.status = SagaStatus::kStuck;
  ASSERT_EQ(engine.sagas().list(query)->items.size(), 1U);
  EXPECT_TRUE(has_alerts({"saga_stuck order/o/b"}));
  EXPECT_ERROR(engine.sagas().retry("order", "o", "a"), ErrorCode::kNotFound);
  ASSERT_OK(engine.sagas().annotate("order", "o", "called the bank"));
  ASSERT_OK(engine.sagas().retry("order", "o", "b"));
  ASSERT_TRUE(
      eventually([&] { return (*engine.sagas().find("order", "o"))->status == SagaStatus::kCompensated; }));
  EXPECT_EQ(effects.count("-b"), 4U);
  EXPECT_EQ(effects.count("-a"), 1U);
  EXPECT_TRUE(has_alerts({"saga_stuck order/o/b", "-saga_stuck order/o/b"}));
}

TEST_P(SagaSuite, Conf62_APersonCanSkipAndForce) {
  Engine engine = open();
  Effects effects;
  Saga saga("order");
  saga.step("a", effects.note(), effects.fail(), quick(1))
      .step("b", effects.fail(), effects.note(), quick(1));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  for (const char* id : {"skipped", "forced"}) {
    ASSERT_OK(engine.sagas().start(saga, id, ""));
    EXPECT_EQ(engine.sagas().result("order", id, 10s)->saga.status, SagaStatus::kStuck);
  }
  ASSERT_OK(engine.sagas().skip("order", "skipped", "a"));
  EXPECT_EQ(engine.sagas().result("order", "skipped", 10s)->saga.status, SagaStatus::kCompensated);
  EXPECT_ERROR(engine.sagas().force("order", "forced", SagaStatus::kRunning), ErrorCode::kInvalidArgument);
  ASSERT_OK(engine.sagas().force("order", "forced", SagaStatus::kCompleted));
  EXPECT_EQ(engine.sagas().result("order", "forced", 10s)->saga.status, SagaStatus::kCompleted);
  EXPECT_ERROR(engine.sagas().skip("order", "forced", "a"), ErrorCode::kConflict);
}

TEST_P(SagaSuite, Conf58_AContextCanBeATypeOfTheProgram) {
  Engine engine = open();
  Effects effects;
  std::atomic<int> seen{0};
  Saga saga("order");
  saga.step("a", with_context<Counted>([](SagaCall&, Counted& counted) { counted.number *= 10; }),
            effects.note(), quick())
      .step("b", with_context<Counted>([&](SagaCall&, const Counted& counted) { seen = counted.number; }),
            effects.note(), quick())
      .step("c", with_context<Counted>([](SagaCall&, Counted& counted) { ++counted.number; }), effects.note(),
            quick());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", Codec<Counted>::encode({4})));
  auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->context, "41");
  EXPECT_EQ(seen.load(), 40);
  // What cannot be read fails the attempt, as any exception does.
  ASSERT_OK(engine.sagas().start(saga, "none", "no number"));
  result = engine.sagas().result("order", "none", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
  EXPECT_TRUE(result->saga.error.starts_with("a: ")) << result->saga.error;
  EXPECT_EQ(effects.all(), Names{"-a"});
}

TEST_P(SagaSuite, Conf58_AContextThatCannotChangeIsRefusedBeforeAnythingHappens) {
  Engine engine = open();
  Effects effects;
  Saga saga("order");
  saga.step("a", effects.note(), with_context<Counted>([&](SagaCall& call, Counted&) { effects.add(call); }),
            quick(1))
      .step("b", effects.fail(), effects.note(), quick(1));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", "4"));
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kStuck);
  EXPECT_EQ(effects.all(), (Names{"a", "b", "-b"})) << "a compensation cannot change it";
}

/// A saga whose step "charge" is a command to the topic "payments".
Saga with_command(Effects& effects, Duration timeout) {
  SagaStepOptions command = quick(2);
  command.command = "payments";
  command.compensation_command = "refunds";
  command.timeout = timeout;
  Saga saga("order");
  saga.step("reserve", effects.note(), effects.note(), quick())
      .step("charge", {}, {}, command)
      .step("ship", effects.note(), effects.note(), quick());
  return saga;
}

TEST_P(SagaSuite, Conf58_AStepCanBeACommandToAnotherService) {
  Engine engine = open(), other = open();
  Effects effects;
  const Saga saga = with_command(effects, 20s);
  const auto service = other.consume("payments", member("payments"), [&](Delivery& delivery) {
    EXPECT_EQ(delivery.payload(), R"({"order": "o"})");
    EXPECT_EQ(delivery.content_type(), "application/json") << "what a saga keeps is JSON when it is some";
    const bool first = delivery.header("saga-call")->ends_with("#1");
    const Message answer =
        (first ? Sagas::reply_failed(delivery, "try again") : Sagas::reply(delivery, "receipt 7")).value();
    for (int twice = 0; twice < 2; ++twice)
      other.publish(answer).value();
  });
  ASSERT_OK(service);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", R"({"order": "o"})"));
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  EXPECT_EQ(effects.all(), (Names{"reserve", "ship"}));
  const auto timeline = engine.sagas().timeline("order", "o");
  const auto done = std::find_if(timeline->begin(), timeline->end(), [](const SagaEntry& entry) {
    return entry.mark == SagaMark::kDone && entry.step == "charge";
  });
  ASSERT_NE(done, timeline->end());
  EXPECT_EQ(done->output, "receipt 7");
  EXPECT_EQ(done->attempt, 2U);
  EXPECT_ERROR(Sagas::reply(Delivery(), ""), ErrorCode::kInvalidArgument);
}

TEST_P(SagaSuite, Conf63_AReplyThatNeverCameIsFoundMissingAfterTheRestart) {
  Effects effects;
  const Saga saga = with_command(effects, 300ms);
  {
    Engine engine = open();
    const auto runner = engine.sagas().run(saga);
    ASSERT_OK(runner);
    ASSERT_OK(engine.sagas().start(saga, "o", ""));
    ASSERT_TRUE(eventually([&] { return (*engine.sagas().find("order", "o"))->step == "charge"; }));
    close(engine);
  }
  std::this_thread::sleep_for(400ms);  // sleeps: nobody is there when the reply is due
  Engine engine = open();
  Recorder refunds;
  const auto service = engine.consume("refunds", member("refunds"), [&](Delivery& delivery) {
    refunds.add(delivery);
    engine.publish(Sagas::reply(delivery, "").value()).value();
  });
  ASSERT_OK(service);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  const auto result = engine.sagas().result("order", "o", 20s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
  EXPECT_EQ(result->saga.error, "charge: ReplyTimeout: no reply came in time");
  EXPECT_EQ(refunds.count(), 1U) << "nobody knows whether the command was carried out";
  EXPECT_EQ(effects.all(), (Names{"reserve", "-reserve"}));
}

TEST_P(SagaSuite, Conf63_ADeadlineOfTheSagaPassesWhileItWaits) {
  Engine engine = open();
  Effects effects;
  SagaOptions options;
  options.deadline = 200ms;
  SagaStepOptions patient = quick(100);
  patient.retry.initial_delay = 1h;
  patient.retry.delay_max = 1h;
  Saga saga("order", 1, options);
  saga.step("a", effects.note(), effects.note(), quick()).step("b", effects.fail(), effects.note(), patient);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.all(), (Names{"a", "b", "-b", "-a"}));
}

TEST_P(SagaSuite, Conf59_BehindItsPivotItOnlyGoesForward) {
  Engine engine = open();
  Effects effects;
  SagaStepOptions pivot = quick();
  pivot.pivot = true;
  Saga saga("order");
  saga.step("a", effects.note(), effects.note(), quick())
      .step("b", effects.note(), pivot)
      .step("c", effects.fail(2), quick(2));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kStuck) << "nothing is undone";
  EXPECT_EQ(result->saga.step, "c");
  EXPECT_EQ(effects.all(), (Names{"a", "b", "c", "c"}));
  ASSERT_OK(engine.sagas().retry("order", "o", "c"));
  EXPECT_TRUE(
      eventually([&] { return (*engine.sagas().find("order", "o"))->status == SagaStatus::kCompleted; }));
  EXPECT_EQ(effects.all(), (Names{"a", "b", "c", "c", "c"}));
}

TEST_P(SagaSuite, Conf62_TheyAreListedByTypeStateAndAge) {
  Engine engine = open();
  Effects effects;
  const Saga order = letters(effects, 1), ride = letters(effects, 1, "ride");
  const auto orders = engine.sagas().run(order);
  ASSERT_OK(orders);
  for (const char* id : {"o-1", "o-2"}) {
    ASSERT_OK(engine.sagas().start(order, id, ""));
    ASSERT_OK(engine.sagas().result("order", id, 10s));
    const TimePoint now = system_clock()->now();
    ASSERT_TRUE(eventually([&] { return system_clock()->now() > now; }));
  }
  ASSERT_OK(engine.sagas().start(ride, "r-1", ""));
  const auto ids = [&](const SagaQuery& query) {
    Names listed;
    const auto page = engine.sagas().list(query);
    EXPECT_OK(page);
    for (const SagaInfo& saga : page->items)
      listed.push_back(saga.id);
    return listed;
  };
  SagaQuery query;
  query.type = "order";
  EXPECT_EQ(ids(query), (Names{"o-1", "o-2"}));
  query.started_before = (*engine.sagas().find("order", "o-2"))->started_at;
  EXPECT_EQ(ids(query), Names{"o-1"});
  SagaQuery unfinished;
  unfinished.unfinished = true;
  EXPECT_EQ(ids(unfinished), Names{"r-1"});
  SagaQuery running;
  running.status = SagaStatus::kRunning;
  EXPECT_EQ(ids(running), Names{"r-1"});
}

TEST_P(SagaSuite, Conf63_AReplyThatCameWhileNobodyRanCounts) {
  Effects effects;
  const Saga saga = with_command(effects, 1h);
  {
    Engine engine = open();
    auto runner = engine.sagas().run(saga);
    ASSERT_OK(runner);
    ASSERT_OK(engine.sagas().start(saga, "o", ""));
    ASSERT_TRUE(eventually([&] { return (*engine.sagas().find("order", "o"))->step == "charge"; }));
    ASSERT_OK(runner->close());
    Recorder commands;
    const auto service = engine.consume("payments", member("payments"), [&](Delivery& delivery) {
      engine.publish(Sagas::reply(delivery, "receipt").value()).value();
      commands.add(delivery);
    });
    ASSERT_OK(service);
    ASSERT_TRUE(commands.reaches(1));
    close(engine);
  }
  Engine engine = open();
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  const auto result = engine.sagas().result("order", "o", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted) << result->saga.error;
  EXPECT_EQ(effects.all(), (Names{"reserve", "ship"}));
}

TEST_P(SagaSuite, Bad34_ADefinitionThatBreaksARuleIsRefused) {
  Engine engine = open();
  const SagaHandler nothing = [](SagaCall&) {};
  const auto refused = [&](const Saga& saga) {
    EXPECT_ERROR(engine.sagas().start(saga, "o", ""), ErrorCode::kInvalidSaga);
    EXPECT_ERROR(engine.sagas().run(saga), ErrorCode::kInvalidSaga);
  };
  refused(Saga("order"));
  refused(Saga("or der").step("a", nothing, nothing));
  refused(Saga("").step("a", nothing, nothing));
  refused(Saga("order").step("a", nothing, nothing).step("a", nothing, nothing));
  refused(Saga("order").step("a", nothing));
  refused(Saga("order").parallel({}));
  SagaStepOptions pivot;
  pivot.pivot = true;
  refused(Saga("order").step("a", nothing, pivot).step("b", nothing, pivot));
  refused(Saga("order").parallel({{"a", nothing, nothing, pivot}, {"b", nothing, nothing}}));
  Saga large("order");
  for (int i = 0; i < 10'001; ++i)
    large.step("s" + std::to_string(i), nothing, nothing);
  refused(large);
  EXPECT_ERROR(engine.sagas().run(Saga("order").step("a", {}, nothing)), ErrorCode::kInvalidSaga);
  SagaStepOptions wrong;
  wrong.timeout = 0ms;
  EXPECT_ERROR(engine.sagas().run(Saga("order").step("a", nothing, nothing, wrong)),
               ErrorCode::kInvalidConfig);
  EXPECT_EQ(engine.sagas().list()->items.size(), 0U);
}

TEST_P(SagaSuite, Bad34_AChangedDefinitionIsToldAndItsSagasAreKept) {
  Engine engine = open();
  Effects effects;
  const Saga old = letters(effects, 2), changed = letters(effects, 3), next = letters(effects, 3, "order", 2);
  ASSERT_OK(engine.sagas().start(old, "o", ""));
  EXPECT_ERROR(engine.sagas().run(changed), ErrorCode::kDefinitionMismatch);
  const auto newer = engine.sagas().run(next);
  ASSERT_OK(newer);
  ASSERT_OK(engine.sagas().start(next, "n", ""));
  EXPECT_EQ(engine.sagas().result("order", "n", 10s)->saga.status, SagaStatus::kCompleted);
  EXPECT_EQ((*engine.sagas().find("order", "o"))->status, SagaStatus::kRunning) << "it waits for its version";
  SagaQuery parked;
  parked.definition_version = 1;
  parked.unfinished = true;
  EXPECT_EQ(engine.sagas().list(parked)->items.size(), 1U);
  const auto warned = [&] {
    return logged("1 unfinished sagas wait for towline.saga.order.v1", LogLevel::kWarning);
  };
  EXPECT_EQ(warned(), 1U);
  const auto older = engine.sagas().run(old);
  ASSERT_OK(older);
  EXPECT_EQ(warned(), 1U);
  EXPECT_EQ(engine.sagas().result("order", "o", 10s)->saga.status, SagaStatus::kCompleted);
}

TEST_P(SagaSuite, Bad35_WhatIsTooLargeIsRefusedBeforeTheStepRuns) {
  EngineOptions options = quick_options();
  options.payload_bytes_max = 1000;
  Engine engine = open(options);
  Effects effects;
  Saga saga("order");
  saga.step(
      "a",
      [&](SagaCall& call) {
        effects.add(call);
        EXPECT_ERROR(call.set_context(Bytes(1001, 'x')), ErrorCode::kPayloadTooLarge);
        EXPECT_ERROR(call.set_output(Bytes(1001, 'x')), ErrorCode::kPayloadTooLarge);
        EXPECT_ERROR(call.publish({.topic = "t", .payload = Bytes(1001, 'x')}), ErrorCode::kPayloadTooLarge);
      },
      effects.note());
  EXPECT_ERROR(engine.sagas().start(saga, "o", Bytes(1001, 'x')), ErrorCode::kPayloadTooLarge);
  EXPECT_ERROR(engine.sagas().start(saga, "with space", ""), ErrorCode::kInvalidId);
  EXPECT_ERROR(engine.sagas().start(saga, std::string(129, 'x'), ""), ErrorCode::kInvalidId);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o", ""));
  EXPECT_EQ(engine.sagas().result("order", "o", 10s)->saga.status, SagaStatus::kCompleted);
  EXPECT_EQ(effects.all(), Names{"a"});
  EXPECT_ERROR(engine.sagas().result("order", "nobody", 10ms), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace towline::conformance
