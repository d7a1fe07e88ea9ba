// The idempotency store: one execution per key at a time, its result for everybody who asks again, and a
// failure is never a result.

#include <set>
#include <thread>

#include "conformance/fixture.hpp"
#include "support/gauge.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Idempotency);

TEST_P(Idempotency, Conf49_SixteenCallersOfOneKeyRunItOnceAndShareTheResult) {
  std::vector<Engine> engines = {open(), open()};
  support::Gauge gauge;
  std::atomic<int> runs{0};
  std::vector<std::string> results(16);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < results.size(); ++i) {
    callers.emplace_back([&, i] {
      IdempotencyOptions options;
      options.wait_max = 10s;
      const auto work = [&]() -> Bytes {
        const support::Gauge::Scope scope(gauge);
        (void)holds_for([] { return true; }, 50ms);
        return "result " + std::to_string(++runs);
      };
      const auto result = engines[i % 2].once("charge-17", work, options);
      EXPECT_TRUE(is_ok(result));
      if (result.ok()) results[i] = result->bytes;
    });
  }
  for (std::thread& caller : callers)
    caller.join();
  EXPECT_EQ(runs.load(), 1);
  EXPECT_EQ(gauge.max(), 1);
  EXPECT_EQ(std::set<std::string>(results.begin(), results.end()), std::set<std::string>{"result 1"});
}

TEST_P(Idempotency, Conf49_WithoutWaitingTheOthersAreToldThatItIsInProgress) {
  Engine engine = open();
  Engine other = open();
  const IdempotencyAnswer mine = engine.begin("charge").value();
  ASSERT_EQ(mine.kind, IdempotencyAnswer::Kind::kAcquired);
  for (Engine* each : {&engine, &other}) {
    const IdempotencyAnswer answer = each->begin("charge").value();
    EXPECT_EQ(answer.kind, IdempotencyAnswer::Kind::kInProgress);
    EXPECT_GT(answer.retry_after, 0us);
    EXPECT_ERROR(each->once("charge", [] { return Bytes("no"); }), ErrorCode::kInProgress);
  }
  ASSERT_OK(engine.complete(mine.token, "done", {}, "text/plain"));
  const IdempotencyAnswer answer = other.begin("charge").value();
  EXPECT_EQ(answer.kind, IdempotencyAnswer::Kind::kCompleted);
  EXPECT_EQ(answer.result.bytes, "done");
  EXPECT_EQ(answer.result.content_type, "text/plain");
}

TEST_P(Idempotency, Conf49_NothingIsAResultToo) {
  Engine engine = open();
  for (const std::string& value :
       {std::string(), std::string("0"), std::string("false"), std::string("null"), std::string(1, '\0')}) {
    int runs = 0;
    for (int i = 0; i < 3; ++i) {
      IdempotencyOptions options;
      options.scope = "scope-" + std::to_string(std::hash<std::string>{}(value));
      const auto result = engine
                              .once(
                                  "falsy", [&] { return ++runs, Bytes(value); }, options)
                              .value();
      EXPECT_EQ(result.bytes, value);
    }
    EXPECT_EQ(runs, 1) << "'" << value << "'";
  }
}

TEST_P(Idempotency, Conf49_ScopesNeverMeet) {
  Engine engine = open();
  IdempotencyOptions a, b;
  a.scope = "a";
  b.scope = "b";
  EXPECT_EQ(engine
                .once(
                    "key", [] { return Bytes("of a"); }, a)
                .value()
                .bytes,
            "of a");
  EXPECT_EQ(engine
                .once(
                    "key", [] { return Bytes("of b"); }, b)
                .value()
                .bytes,
            "of b");
  EXPECT_EQ(engine.once("key", [] { return Bytes("of none"); }).value().bytes, "of none");
  EXPECT_EQ(engine
                .once(
                    "key", [] { return Bytes("again"); }, a)
                .value()
                .bytes,
            "of a");
  EXPECT_EQ(engine.statistics().value().idempotency_records, 3U);
}

TEST_P(Idempotency, Conf49_AResultOutlivesARestartAndEndsWithItsTimeToLive) {
  Engine engine = open();
  IdempotencyOptions options;
  options.ttl = 1s;
  const support::Stopwatch watch;
  ASSERT_OK(engine.once(
      "key", [] { return Bytes("first"); }, options));
  close(engine);
  engine = open();
  int runs = 0;
  const auto again = [&] { return ++runs, Bytes("second"); };
  EXPECT_EQ(engine.once("key", again, options).value().bytes, "first");
  ASSERT_TRUE(eventually([&] { return engine.once("key", again, options).value().bytes == "second"; }));
  EXPECT_GE(watch.elapsed(), 1s);
  EXPECT_EQ(runs, 1);
}

TEST_P(Idempotency, Conf49_AHolderThatIsLateLosesItsKeyAndItsTokenIsOld) {
  Engine engine = open();
  Engine other = open();
  IdempotencyOptions options;
  options.lease = 100ms;
  const support::Stopwatch watch;  // the lease begins within begin(), which takes its time
  const IdempotencyToken late = engine.begin("key", options).value().token;
  IdempotencyAnswer taken;
  ASSERT_TRUE(eventually([&] {
    taken = other.begin("key", options).value();
    return taken.kind == IdempotencyAnswer::Kind::kAcquired;
  }));
  EXPECT_GE(watch.elapsed(), 99ms) << "taken over before the lease ended";
  EXPECT_GT(taken.token.fence, late.fence) << "the fence grows with every acquisition";
  EXPECT_ERROR(engine.complete(late, "late"), ErrorCode::kLeaseLost);
  EXPECT_ERROR(engine.fail(late), ErrorCode::kLeaseLost);
  ASSERT_OK(other.complete(taken.token, "right"));
  EXPECT_EQ(engine.begin("key", options).value().result.bytes, "right");
}

TEST_P(Idempotency, Conf51_TheSameKeyWithAnotherPayloadIsAMistake) {
  Engine engine = open();
  IdempotencyOptions first, second;
  first.fingerprint = "sha-of-payload-1";
  second.fingerprint = "sha-of-payload-2";
  int runs = 0;
  const auto work = [&] { return ++runs, Bytes("done"); };
  const IdempotencyToken token = engine.begin("key", first).value().token;
  EXPECT_ERROR(engine.begin("key", second), ErrorCode::kKeyMismatch) << "while it runs";
  ASSERT_OK(engine.complete(token, "done", first));
  EXPECT_ERROR(engine.once("key", work, second), ErrorCode::kKeyMismatch) << "after it ran";
  EXPECT_EQ(engine.once("key", work, first).value().bytes, "done");
  EXPECT_EQ(engine.once("key", work).value().bytes, "done") << "without a fingerprint it is not compared";
  EXPECT_EQ(runs, 0);
}

TEST_P(Idempotency, Conf53_AFailureIsNotAResult) {
  Engine engine = open();
  int runs = 0;
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW((void)engine.once(
                     "key", [&]() -> Bytes { throw std::runtime_error("no " + std::to_string(++runs)); }),
                 std::runtime_error);
  }
  EXPECT_EQ(runs, 3) << "the key is free at once";
  EXPECT_EQ(engine.once("key", [&] { return ++runs, Bytes("yes"); }).value().bytes, "yes");
  EXPECT_EQ(engine.once("key", [&] { return ++runs, Bytes("again"); }).value().bytes, "yes");
  EXPECT_EQ(runs, 4);
  const IdempotencyToken token = engine.begin("other").value().token;
  ASSERT_OK(engine.fail(token));
  EXPECT_EQ(engine.begin("other").value().kind, IdempotencyAnswer::Kind::kAcquired);
}

TEST_P(Idempotency, Conf53_AFirstAttemptThatFailedIsRetriedAndNotTakenForADuplicate) {
  Engine engine = open();
  Recorder seen;
  ConsumerOptions options = member();
  options.inbox_window = 24h;
  Consumer consumer = engine
                          .consume("orders", options,
                                   [&](Delivery& delivery) {
                                     seen.add(delivery);
                                     if (delivery.attempt() == 1) throw HandlerError("Flaky");
                                   })
                          .value();
  ASSERT_TRUE(engine.publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
  EXPECT_EQ(seen.count(), 2U);
  EXPECT_EQ(consumer.statistics().duplicates, 0U);
  EXPECT_TRUE(dead_letters(engine).empty());
}

}  // namespace
}  // namespace towline::conformance
