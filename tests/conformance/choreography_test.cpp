// Choreographies: sagas of steps that listen to events, among them events of other services.

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(ChoreographySuite);

using Names = std::vector<std::string>;

/// What ran, in order.
class Effects {
 public:
  void add(std::string name) {
    const std::lock_guard lock(mutex_);
    names_.push_back(std::move(name));
  }
  [[nodiscard]] Names all() const {
    const std::lock_guard lock(mutex_);
    return names_;
  }
  [[nodiscard]] SagaHandler note(std::string name) {
    return [this, name = std::move(name)](SagaCall& call) {
      add(name);
      call.set_output(call.context() + ">" + name).value();
    };
  }
  [[nodiscard]] SagaHandler fail(std::string name) {
    return [this, name = std::move(name)](SagaCall&) {
      add(name);
      throw HandlerError("Never", "no");
    };
  }

 private:
  mutable std::mutex mutex_;
  Names names_;
};

SagaStepOptions once() {
  SagaStepOptions options;
  options.retry.max_attempts = 1;
  return options;
}

/// Reserves, charges and ships; what was reserved is released when the rest fails.
Choreography order(Effects& effects, const SagaHandler& charge) {
  Choreography order("order", "order.placed");
  order.on("order.placed", effects.note("reserve"), "stock.reserved", "stock.refused")
      .on("stock.reserved", charge, "payment.done", "payment.failed", once())
      .on("payment.failed", effects.note("release"), "stock.released")
      .on("payment.done", effects.note("ship"), "order.shipped");
  return order;
}

/// Reserves, and waits for the payment that somebody else takes.
Choreography awaiting(Effects& effects, Duration timeout) {
  Choreography order("order", "order.placed");
  order.on("order.placed", effects.note("reserve"), "stock.reserved")
      .expect("stock.reserved", "payment.done", "payment.failed", timeout)
      .on("payment.failed", effects.note("release"), "stock.released")
      .on("payment.done", effects.note("ship"), "order.shipped");
  return order;
}

Names marks_of(Engine& engine, const std::string& id) {
  Names marks;
  const auto timeline = engine.sagas().timeline("order", id);
  if (!timeline.ok()) return {timeline.error().to_string()};
  for (const SagaEntry& entry : *timeline)
    marks.push_back(std::string(name_of(entry.mark)) + " " + entry.step + " " + entry.event);
  return marks;
}

TEST_P(ChoreographySuite, Conf106_EventsJoinStepsAndEachRunsOnce) {
  Engine engine = open();
  Effects effects;
  const Choreography saga = order(effects, effects.note("charge"));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  std::atomic<int> with_id{0};
  const auto shipped = engine.consume("order.shipped", member("mail"), [&](Delivery& delivery) {
    if (delivery.header("saga-id") == "o-1" && delivery.key() == "o-1") ++with_id;
    EXPECT_EQ(delivery.payload(), "three books>reserve>charge>ship");
  });
  ASSERT_OK(shipped);
  ASSERT_TRUE(engine.publish(Sagas::event("order.placed", "o-1", "three books")).acked());
  ASSERT_TRUE(eventually([&] { return with_id.load() == 1; }));
  const auto result = engine.sagas().result("order", "o-1", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(effects.all(), (Names{"reserve", "charge", "ship"}));
  EXPECT_EQ(with_id.load(), 1);
  EXPECT_EQ(marks_of(engine, "o-1"),
            (Names{"begun  ", "started stock.reserved ", "done stock.reserved stock.reserved",
                   "started payment.done ", "done payment.done payment.done", "started order.shipped ",
                   "done order.shipped order.shipped"}));
}

TEST_P(ChoreographySuite, Conf106_ItsFlowIsDrawn) {
  Effects effects;
  EXPECT_EQ(visualize(awaiting(effects, 1s).definition()),
            "flowchart TD\n"
            "  e1([order.placed])\n"
            "  e2([stock.reserved])\n"
            "  s1[stock.reserved]\n"
            "  e1 --> s1\n"
            "  s1 --> e2\n"
            "  e3([payment.done])\n"
            "  s2[waits for payment.done]\n"
            "  e2 --> s2\n"
            "  s2 --> e3\n"
            "  e4([payment.failed])\n"
            "  s2 -. fails .-> e4\n"
            "  e5([stock.released])\n"
            "  s3[stock.released]\n"
            "  e4 --> s3\n"
            "  s3 --> e5\n"
            "  e6([order.shipped])\n"
            "  s4[order.shipped]\n"
            "  e3 --> s4\n"
            "  s4 --> e6\n");
}

TEST_P(ChoreographySuite, Conf106_WhatIsJsonSaysSo) {
  Engine engine = open();
  Choreography saga("order", "order.placed");
  const auto answer = [](Bytes output) {
    return [output = std::move(output)](SagaCall& call) { call.set_output(output).value(); };
  };
  saga.on("order.placed", answer(R"({"stock": 1})"), "stock.reserved")
      .on("stock.reserved", answer("{no"), "payment.done")
      .on("payment.done", answer(""), "order.shipped")
      .on("order.shipped", answer(Bytes("1\0\0\0", 4)), "order.counted");
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  std::mutex mutex;
  std::map<std::string, std::string> types;
  const std::vector<std::string> events = {"stock.reserved", "payment.done", "order.shipped",
                                           "order.counted"};
  const auto mail = engine.consume(events, member("mail"), [&](Delivery& delivery) {
    const std::lock_guard lock(mutex);
    types[std::string(delivery.topic())] = delivery.content_type();
  });
  ASSERT_OK(mail);
  ASSERT_OK(engine.sagas().start(saga, "o-1", ""));
  ASSERT_OK(engine.sagas().result("order", "o-1", 10s));
  ASSERT_OK(engine.settle_down());
  const std::lock_guard lock(mutex);
  EXPECT_EQ(types, (std::map<std::string, std::string>{{"stock.reserved", "application/json"},
                                                       {"payment.done", ""},
                                                       {"order.shipped", ""},
                                                       {"order.counted", ""}}));
}

TEST_P(ChoreographySuite, Conf106_AFailureEventLeadsToWhatUndoesTheOthers) {
  Engine engine = open();
  Effects effects;
  const Choreography saga = order(effects, effects.fail("charge"));
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  std::atomic<int> failures{0};
  const auto failed = engine.consume("payment.failed", member("mail"), [&](Delivery& delivery) {
    EXPECT_EQ(delivery.header("saga-error"), "Never: no");
    EXPECT_EQ(delivery.payload(), "books>reserve") << "what the step got";
    ++failures;
  });
  ASSERT_OK(failed);
  // Begun by hand, and by a message that has no saga's id: then its own is the saga's.
  ASSERT_OK(engine.sagas().start(saga, "o-1", "books"));
  const Receipt receipt = engine.publish({.topic = "order.placed", .payload = "books"});
  ASSERT_TRUE(receipt.acked());
  const std::string second = receipt.id.to_string();
  ASSERT_TRUE(eventually([&] { return failures.load() == 2; }));
  for (const std::string& id : {std::string("o-1"), second}) {
    ASSERT_TRUE(eventually([&] { return engine.sagas().find("order", id).value().has_value(); }));
    const auto result = engine.sagas().result("order", id, 10s);
    ASSERT_OK(result);
    EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
    EXPECT_EQ(result->saga.error, "payment.done: Never: no");
  }
  ASSERT_OK(engine.settle_down());
  Names all = effects.all();
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, (Names{"charge", "charge", "release", "release", "reserve", "reserve"}));
}

TEST_P(ChoreographySuite, Conf106_WhatUndoesAndFailsIsStuckUntilAPersonHelps) {
  Engine engine = open();
  Effects effects;
  std::atomic<bool> works{false};
  Choreography saga("order", "order.placed");
  saga.on("order.placed", effects.note("reserve"), "stock.reserved")
      .on("stock.reserved", effects.fail("charge"), "payment.done", "payment.failed", once())
      .on(
          "payment.failed",
          [&](SagaCall& call) {
            EXPECT_EQ(call.cause(), "payment.done: Never: no");
            EXPECT_EQ(call.output_of("stock.reserved"), "books>reserve");
            if (!works.load()) throw HandlerError("Never", "the stock is closed");
          },
          "stock.released", {}, once());
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o-1", "books"));
  const auto stuck = engine.sagas().result("order", "o-1", 10s);
  ASSERT_OK(stuck);
  EXPECT_EQ(stuck->saga.status, SagaStatus::kStuck);
  EXPECT_EQ(stuck->saga.step, "stock.released");
  works.store(true);
  ASSERT_OK(engine.sagas().retry("order", "o-1", "stock.released"));
  ASSERT_TRUE(eventually(
      [&] { return engine.sagas().find("order", "o-1").value()->status == SagaStatus::kCompensated; }));
}

TEST_P(ChoreographySuite, Conf106_ADefinitionThatCannotFlowIsRefused) {
  Engine engine = open();
  const auto refusal = [&](const Choreography& saga) { return engine.sagas().run(saga).error(); };
  const auto nothing = [](SagaCall&) {};
  Choreography lost("order", "order.placed");
  lost.on("payment.done", nothing, "order.shipped");
  EXPECT_EQ(refusal(lost).code, ErrorCode::kInvalidSaga);
  EXPECT_NE(refusal(lost).message.find("'payment.done', to which nothing leads"), std::string::npos);
  Choreography same("order", "order.placed");
  same.on("order.placed", nothing, "a", "a");
  EXPECT_EQ(refusal(same).code, ErrorCode::kInvalidSaga);
  Choreography round("order", "order.placed");
  round.on("order.placed", nothing, "order.placed", {}, {}, "again");
  EXPECT_EQ(refusal(round).code, ErrorCode::kInvalidSaga);
  Choreography bad("order", "order placed");
  bad.on("order placed", nothing, "a");
  EXPECT_EQ(refusal(bad).code, ErrorCode::kInvalidTopic);
  Choreography empty("order", "order.placed");
  empty.on("order.placed", {}, "a");
  EXPECT_EQ(refusal(empty).code, ErrorCode::kInvalidSaga);
  EXPECT_EQ(refusal(Choreography("order", "order.placed")).code, ErrorCode::kInvalidSaga);
}

TEST_P(ChoreographySuite, Conf107_AnEarlyEventWaitsASecondOneIsVoidAndALateOneIsCounted) {
  Engine engine = open();
  Effects effects;
  const Choreography saga = awaiting(effects, 1h);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_TRUE(engine.publish(Sagas::event("payment.done", "o-1", "9 EUR")).acked());
  ASSERT_TRUE(engine.publish({.topic = "payment.done", .payload = "whose?"}).acked());
  ASSERT_TRUE(eventually([&] { return runner->statistics().early > 0; }));
  ASSERT_TRUE(eventually([&] { return runner->statistics().strangers == 1; }));
  EXPECT_EQ(effects.all(), Names{});
  ASSERT_TRUE(engine.publish(Sagas::event("order.placed", "o-1", "books")).acked());
  ASSERT_TRUE(eventually([&] { return effects.all().size() == 2; }));
  const auto result = engine.sagas().result("order", "o-1", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
  // What is there early enough does not wait for the step before.
  Names ran = effects.all();
  std::sort(ran.begin(), ran.end());
  EXPECT_EQ(ran, (Names{"reserve", "ship"}));
  const auto marks = marks_of(engine, "o-1");
  EXPECT_NE(std::find(marks.begin(), marks.end(), "heard  payment.done"), marks.end());
  // Once more what it knows, and then what it does not.
  ASSERT_TRUE(engine.publish(Sagas::event("payment.done", "o-1", "again")).acked());
  ASSERT_TRUE(engine.publish(Sagas::event("order.placed", "o-1", "again")).acked());
  ASSERT_TRUE(engine.publish(Sagas::event("payment.failed", "o-1", "late")).acked());
  ASSERT_TRUE(eventually([&] { return runner->statistics().late == 1; }));
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(marks_of(engine, "o-1"), marks);
  EXPECT_EQ(effects.all().size(), 2U);
}

TEST_P(ChoreographySuite, Conf107_AnEventWhoseSagaNeverBeginsIsADeadLetter) {
  Engine engine = open();
  Effects effects;
  SagaOptions options;
  options.early_event_ttl = 300ms * support::slack();
  Choreography saga("order", "order.placed", 1, options);
  saga.on("order.placed", effects.note("reserve"), "stock.reserved")
      .expect("stock.reserved", "payment.done", "payment.failed", 1h);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_TRUE(engine.publish(Sagas::event("payment.done", "nobody", "9 EUR")).acked());
  ASSERT_TRUE(engine.publish({.topic = "payment.done", .payload = "9 EUR", .headers = {{"saga-id", "no/id"}}})
                  .acked());
  ASSERT_TRUE(eventually([&] { return engine.dead_letters().value().items.size() == 2; }));
  for (const DeadLetter& entry : engine.dead_letters().value().items)
    EXPECT_EQ(entry.group, "towline.saga.order");
  EXPECT_EQ(effects.all(), Names{});
}

TEST_P(ChoreographySuite, Conf107_AnEventComesWhileACallRuns) {
  Engine engine = open();
  Effects effects;
  std::atomic<bool> goes_on{false};
  Choreography saga("order", "order.placed");
  saga.on(
          "order.placed",
          [&](SagaCall&) {
            effects.add("slow");
            EXPECT_TRUE(eventually([&] { return goes_on.load(); }));
          },
          "slow.done")
      .expect("order.placed", "payment.done", "payment.failed", 1h)
      .on("payment.done", effects.note("ship"), "order.shipped");
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  ASSERT_OK(engine.sagas().start(saga, "o-1", "books"));
  ASSERT_TRUE(eventually([&] { return effects.all() == Names{"slow"}; }));
  ASSERT_TRUE(engine.publish(Sagas::event("payment.done", "o-1", "9 EUR")).acked());
  EXPECT_TRUE(eventually([&] { return effects.all().size() == 2; })) << "it does not wait for the other";
  goes_on.store(true);
  const auto result = engine.sagas().result("order", "o-1", 10s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompleted);
}

TEST_P(ChoreographySuite, Conf108_AMissingEventBecomesItsFailureEvent) {
  Engine engine = open();
  Effects effects;
  const Choreography saga = awaiting(effects, 300ms);
  const auto runner = engine.sagas().run(saga);
  ASSERT_OK(runner);
  std::atomic<int> failures{0};
  const auto failed = engine.consume("payment.failed", member("mail"), [&](Delivery& delivery) {
    EXPECT_EQ(delivery.header("saga-error"), "EventTimeout: no event came in time");
    ++failures;
  });
  ASSERT_OK(failed);
  ASSERT_OK(engine.sagas().start(saga, "o-1", "books"));
  const auto result = engine.sagas().result("order", "o-1", 20s);
  ASSERT_OK(result);
  EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
  EXPECT_EQ(effects.all(), (Names{"reserve", "release"}));
  ASSERT_TRUE(eventually([&] { return failures.load() == 1; }));
}

TEST_P(ChoreographySuite, Conf108_CancelledOrBehindItsDeadlineItUndoesItself) {
  Engine engine = open();
  Effects effects;
  std::atomic<bool> goes_on{false};
  SagaOptions options;
  options.deadline = 400ms;
  for (const bool by_hand : {true, false}) {
    const std::string type = by_hand ? "cancelled" : "late";
    Choreography saga(type, type + ".placed", 1, by_hand ? SagaOptions{} : options);
    saga.on(type + ".placed", effects.note("reserve"), type + ".reserved")
        .on(
            type + ".reserved",
            [&](SagaCall&) {
              effects.add("charge");
              EXPECT_TRUE(eventually([&] { return goes_on.load(); }));
            },
            type + ".paid", type + ".unpaid")
        .on(type + ".paid", effects.note("ship"), type + ".shipped", type + ".unshipped")
        .on(type + ".unshipped", effects.note("refund"), type + ".refunded", type + ".unrefunded")
        .on(type + ".refunded", effects.note("release"), type + ".released");
    const auto runner = engine.sagas().run(saga);
    ASSERT_OK(runner);
    ASSERT_OK(engine.sagas().start(saga, "o-1", "books"));
    const std::size_t before = by_hand ? 0 : 4;
    ASSERT_TRUE(eventually([&] { return effects.all().size() == before + 2; }));
    if (by_hand) {
      ASSERT_OK(engine.sagas().cancel(type, "o-1", "the customer\nleft " + std::string(4000, '.')));
    } else {
      const auto deadline = engine.sagas().find(type, "o-1").value()->deadline_at;
      ASSERT_TRUE(eventually([&] { return system_clock()->now() > deadline; }));
    }
    goes_on.store(true);
    const auto result = engine.sagas().result(type, "o-1", 20s);
    ASSERT_OK(result);
    EXPECT_EQ(result->saga.status, SagaStatus::kCompensated);
    goes_on.store(false);
  }
  const Names undone = {"reserve", "charge", "refund", "release"};
  Names twice = undone;
  twice.insert(twice.end(), undone.begin(), undone.end());
  EXPECT_EQ(effects.all(), twice);
}

}  // namespace
}  // namespace towline::conformance
