// One running execution per key, and its result for everybody who asks again. The store is the memory
// provider, tripped up where an error matters; time is virtual.

#include "engine/idempotency.hpp"

#include <atomic>
#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using Kind = IdempotencyAnswer::Kind;

struct Keys : World {
  using World::World;
  Idempotency& keys() { return core->idempotency(); }
  IdempotencyAnswer begin(const std::string& key, const IdempotencyOptions& options = {}) {
    return keys().begin(key, options).value();
  }
};

IdempotencyOptions with_fingerprint(std::string fingerprint) {
  IdempotencyOptions options;
  options.fingerprint = std::move(fingerprint);
  return options;
}

TEST(Idempotency, TheFirstCallerMayRunAndTheOthersAreToldWhenToAskAgain) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k");
  ASSERT_EQ(first.kind, Kind::kAcquired);
  EXPECT_EQ(first.token.key, "k");
  EXPECT_EQ(first.token.fence, 1U);
  world.clock->advance(20s);
  const IdempotencyAnswer second = world.begin("k");
  ASSERT_EQ(second.kind, Kind::kInProgress);
  EXPECT_EQ(second.retry_after, 40s) << "what is left of the lease of 60 s";
}

TEST(Idempotency, AResultIsHandedToEverybodyWhoAsksLater) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k");
  ASSERT_TRUE(world.keys().complete(first.token, "the result", {}, "text/plain").ok());
  const IdempotencyAnswer again = world.begin("k");
  ASSERT_EQ(again.kind, Kind::kCompleted);
  EXPECT_EQ(again.result.bytes, "the result");
  EXPECT_EQ(again.result.content_type, "text/plain");
}

TEST(Idempotency, AnEmptyResultAndOneOfZeroBytesAreResults) {
  Keys world;
  ASSERT_TRUE(world.keys().complete(world.begin("empty").token, "", {}, {}).ok());
  ASSERT_TRUE(world.keys().complete(world.begin("zeros").token, Bytes(4, '\0'), {}, {}).ok());
  ASSERT_TRUE(world.keys().complete(world.begin("false").token, "false", {}, {}).ok());
  EXPECT_EQ(world.begin("empty").kind, Kind::kCompleted);
  EXPECT_EQ(world.begin("empty").result.bytes, "");
  EXPECT_EQ(world.begin("zeros").result.bytes, Bytes(4, '\0'));
  EXPECT_EQ(world.begin("false").result.bytes, "false");
}

TEST(Idempotency, ALeaseThatEndedIsTakenOverWithAHigherFenceAndTheOldHolderCanChangeNothing) {
  Keys world;
  const IdempotencyAnswer dead = world.begin("k");
  world.clock->advance(60s);
  const IdempotencyAnswer next = world.begin("k");
  ASSERT_EQ(next.kind, Kind::kAcquired);
  EXPECT_GT(next.token.fence, dead.token.fence);
  EXPECT_EQ(code_of(world.keys().complete(dead.token, "late", {}, {})), ErrorCode::kLeaseLost);
  EXPECT_EQ(code_of(world.keys().fail(dead.token)), ErrorCode::kLeaseLost);
  EXPECT_EQ(world.begin("k").kind, Kind::kInProgress) << "the late calls changed nothing";
  ASSERT_TRUE(world.keys().complete(next.token, "mine", {}, {}).ok());
  EXPECT_EQ(world.begin("k").result.bytes, "mine");
}

TEST(Idempotency, AHolderThatIsLateButWasNotReplacedStillCompletes) {
  Keys world;
  const IdempotencyAnswer slow = world.begin("k");
  world.clock->advance(61s);
  EXPECT_TRUE(world.keys().complete(slow.token, "late but mine", {}, {}).ok());
  EXPECT_EQ(world.begin("k").result.bytes, "late but mine");
}

TEST(Idempotency, AFailedRunFreesTheKeyAtOnceAndTheFenceGrows) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k");
  ASSERT_TRUE(world.keys().fail(first.token).ok());
  const IdempotencyAnswer second = world.begin("k");
  ASSERT_EQ(second.kind, Kind::kAcquired);
  EXPECT_EQ(second.token.fence, first.token.fence + 1);
  EXPECT_EQ(code_of(world.keys().fail(first.token)), ErrorCode::kLeaseLost) << "once is enough";
}

TEST(Idempotency, ATokenCompletesOnce) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k");
  ASSERT_TRUE(world.keys().complete(first.token, "one", {}, {}).ok());
  EXPECT_EQ(code_of(world.keys().complete(first.token, "two", {}, {})), ErrorCode::kLeaseLost);
  EXPECT_EQ(world.begin("k").result.bytes, "one");
}

TEST(Idempotency, TheSameKeyWithAnotherPayloadIsAMistake) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k", with_fingerprint("p1"));
  EXPECT_EQ(code_of(world.keys().begin("k", with_fingerprint("p2"))), ErrorCode::kKeyMismatch);
  EXPECT_EQ(world.begin("k", with_fingerprint("p1")).kind, Kind::kInProgress);
  EXPECT_EQ(world.begin("k").kind, Kind::kInProgress) << "none given: not compared";
  ASSERT_TRUE(world.keys().complete(first.token, "r", with_fingerprint("p1"), {}).ok());
  EXPECT_EQ(code_of(world.keys().begin("k", with_fingerprint("p2"))), ErrorCode::kKeyMismatch);
}

TEST(Idempotency, CompletingWithoutAFingerprintKeepsTheOneThatWasStored) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k", with_fingerprint("p1"));
  ASSERT_TRUE(world.keys().complete(first.token, "r", {}, {}).ok());
  EXPECT_EQ(code_of(world.keys().begin("k", with_fingerprint("p2"))), ErrorCode::kKeyMismatch);
  EXPECT_EQ(world.begin("k", with_fingerprint("p1")).kind, Kind::kCompleted);
}

TEST(Idempotency, AfterAFailureAnotherPayloadMayUseTheKey) {
  Keys world;
  ASSERT_TRUE(world.keys().fail(world.begin("k", with_fingerprint("p1")).token).ok());
  EXPECT_EQ(world.begin("k", with_fingerprint("p2")).kind, Kind::kAcquired);
}

TEST(Idempotency, AResultIsForgottenAfterItsTimeToLiveFromCompletion) {
  Keys world;
  IdempotencyOptions options;
  options.ttl = 10s;
  const IdempotencyAnswer first = world.begin("k", options);
  world.clock->advance(5s);
  ASSERT_TRUE(world.keys().complete(first.token, "r", options, {}).ok());
  world.clock->advance(9s);
  EXPECT_EQ(world.begin("k", options).kind, Kind::kCompleted);
  world.clock->advance(1s);
  EXPECT_EQ(world.begin("k", options).kind, Kind::kAcquired);
}

TEST(Idempotency, KeysOfDifferentScopesNeverMeet) {
  Keys world;
  IdempotencyOptions a, b;
  a.scope = "a";
  b.scope = "b";
  const IdempotencyAnswer of_a = world.begin("k", a);
  ASSERT_TRUE(world.keys().complete(of_a.token, "a's", a, {}).ok());
  EXPECT_EQ(world.begin("k", b).kind, Kind::kAcquired);
  EXPECT_EQ(world.begin("k", a).result.bytes, "a's");
}

TEST(Idempotency, BadKeysAndOptionsAreRefusedBeforeTheStoreIsAsked) {
  Keys world;
  std::atomic<int> asked = 0;
  world.script->before("find_idempotency", [&] { ++asked; });
  EXPECT_EQ(code_of(world.keys().begin("", {})), ErrorCode::kInvalidKey);
  EXPECT_EQ(code_of(world.keys().begin(std::string(256, 'k'), {})), ErrorCode::kInvalidKey);
  IdempotencyOptions bad;
  bad.lease = 1ms;
  EXPECT_EQ(code_of(world.keys().begin("k", bad)), ErrorCode::kInvalidConfig);
  bad = {};
  bad.scope = "two words";
  EXPECT_EQ(code_of(world.keys().begin("k", bad)), ErrorCode::kInvalidName);
  EXPECT_EQ(code_of(world.keys().once("k", nullptr, {})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(world.begin(std::string(255, 'k')).kind, Kind::kAcquired);
}

TEST(Idempotency, AResultThatIsTooLargeIsRefusedAndTheKeyStaysInProgress) {
  Keys world({.engine = {.payload_bytes_max = 10}});
  const IdempotencyAnswer first = world.begin("k");
  EXPECT_EQ(code_of(world.keys().complete(first.token, Bytes(11, 'x'), {}, {})), ErrorCode::kPayloadTooLarge);
  EXPECT_TRUE(world.keys().complete(first.token, Bytes(10, 'x'), {}, {}).ok());
}

TEST(Idempotency, AStoreThatIsAwayIsAnErrorAndNeverAnAnswer) {
  Keys world;
  world.script->fail("find_idempotency", unavailable());
  EXPECT_EQ(code_of(world.keys().begin("k", {})), ErrorCode::kUnavailable);
  world.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(world.keys().begin("k", {})), ErrorCode::kUnavailable);
  const IdempotencyAnswer first = world.begin("k");
  ASSERT_EQ(first.kind, Kind::kAcquired) << "nothing was written before";
  world.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(world.keys().complete(first.token, "r", {}, {})), ErrorCode::kUnavailable);
  world.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(world.keys().fail(first.token)), ErrorCode::kUnavailable);
  EXPECT_TRUE(world.keys().complete(first.token, "r", {}, {}).ok()) << "the token is still good";
}

TEST(Idempotency, WhoLosesTheRaceForAKeyLearnsWhoWonIt) {
  Keys world;
  bool raced = false;
  world.script->before("commit", [&] {
    if (std::exchange(raced, true)) return;
    EXPECT_EQ(world.begin("k").kind, Kind::kAcquired);  // another caller, just before our write
  });
  const IdempotencyAnswer loser = world.begin("k");
  EXPECT_EQ(loser.kind, Kind::kInProgress);
}

// ---- once ---------------------------------------------------------------------------------------

TEST(Idempotency, OnceRunsTheFunctionOnceAndReturnsItsResultEachTime) {
  Keys world;
  int runs = 0;
  const auto f = [&] { return "run " + std::to_string(++runs); };
  EXPECT_EQ(world.keys().once("k", f, {}).value().bytes, "run 1");
  EXPECT_EQ(world.keys().once("k", f, {}).value().bytes, "run 1");
  EXPECT_EQ(runs, 1);
}

TEST(Idempotency, AnExceptionPassesThroughAndLeavesTheKeyFree) {
  Keys world;
  EXPECT_THROW((void)world.keys().once("k", []() -> Bytes { throw std::runtime_error("no"); }, {}),
               std::runtime_error);
  EXPECT_THROW((void)world.keys().once("k", []() -> Bytes { throw 42; }, {}), int);
  EXPECT_EQ(world.keys().once("k", [] { return Bytes("yes"); }, {}).value().bytes, "yes");
}

TEST(Idempotency, OnceThatLostItsLeaseMeanwhileSaysSoAndStoresNothing) {
  Keys world;
  IdempotencyToken other;
  const auto slow = [&] {
    world.clock->advance(61s);
    other = world.begin("k").token;
    return Bytes("late");
  };
  EXPECT_EQ(code_of(world.keys().once("k", slow, {})), ErrorCode::kLeaseLost);
  ASSERT_TRUE(world.keys().complete(other, "theirs", {}, {}).ok());
  EXPECT_EQ(world.keys().once("k", slow, {}).value().bytes, "theirs");
}

TEST(Idempotency, OnceDoesNotWaitUnlessAskedTo) {
  Keys world;
  (void)world.begin("k");
  const auto answer = world.keys().once("k", [] { return Bytes(); }, {});
  ASSERT_EQ(code_of(answer), ErrorCode::kInProgress);
  EXPECT_TRUE(answer.error().retryable());
  EXPECT_FALSE(world.clock->last_wait);
}

TEST(Idempotency, OnceWaitsForAnotherCallersResultUpToItsLimit) {
  Keys world;
  const IdempotencyAnswer first = world.begin("k");
  IdempotencyOptions options;
  options.wait_max = 1s;
  const MonotonicTime begin = world.clock->monotonic();
  int waits = 0;
  world.clock->on_wait = [&](MonotonicTime until) {
    world.clock->advance(until - world.clock->monotonic());
    ++waits;
    if (waits == 3) world.keys().complete(first.token, "theirs", {}, {}).value();
  };
  EXPECT_EQ(world.keys()
                .once(
                    "k", [] { return Bytes("mine"); }, options)
                .value()
                .bytes,
            "theirs");
  EXPECT_EQ(waits, 3);

  (void)world.begin("other");
  const auto answer = world.keys().once(
      "other", [] { return Bytes(); }, options);
  EXPECT_EQ(code_of(answer), ErrorCode::kInProgress);
  EXPECT_GE(world.clock->monotonic() - begin, 1s);
  EXPECT_LE(world.clock->monotonic() - begin, 1s + 100ms);
}

TEST(Idempotency, OnceTakesOverWhenTheLeaseEndsDuringItsWait) {
  Keys world;
  (void)world.begin("k");  // and its caller dies
  IdempotencyOptions options;
  options.wait_max = 10min;
  world.clock->on_wait = [&](MonotonicTime until) { world.clock->advance(until - world.clock->monotonic()); };
  EXPECT_EQ(world.keys()
                .once(
                    "k", [] { return Bytes("mine"); }, options)
                .value()
                .bytes,
            "mine");
}

TEST(Idempotency, ManyThreadsWithOneKeyRunItOnce) {
  RunningWorld world;
  IdempotencyOptions options;
  options.wait_max = 10s;
  std::atomic<int> runs = 0;
  std::vector<std::thread> threads;
  std::array<Bytes, 8> results;
  for (Bytes& result : results) {
    threads.emplace_back([&] {
      result = world.core->idempotency()
                   .once(
                       "k", [&] { return std::to_string(++runs); }, options)
                   .value()
                   .bytes;
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(runs, 1);
  for (const Bytes& result : results)
    EXPECT_EQ(result, "1");
}

}  // namespace
}  // namespace towline::engine
