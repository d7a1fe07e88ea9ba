// The table of decisions, row by row, and what must hold for every combination of facts.

#include "policy/decide.hpp"

#include <chrono>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

constexpr TimePoint kNow = from_us(1'767'225'600'000'000);

class Decide : public ::testing::Test {
 protected:
  Decide() {
    options.retry.jitter = JitterKind::kNone;
    facts.now = kNow;
    facts.published_at = kNow - 1min;
  }

  Decision of(const Outcome& outcome) { return decide(outcome, facts, DecisionRules::of(options), rng); }
  Decision intake() { return decide_intake(facts, DecisionRules::of(options)); }
  static Outcome failed(std::string type) { return Outcome::fail({std::move(type), "message", ""}); }

  ConsumerOptions options;
  DeliveryFacts facts;
  base::SeededRng rng{1};
};

void expect_dead(const Decision& decision, DeadLetterReason reason) {
  EXPECT_EQ(decision.action, Action::kDeadLetter);
  EXPECT_EQ(decision.reason, reason);
}

// ---- before the handler ---------------------------------------------------------------------------------

TEST_F(Decide, LetsAnOrdinaryMessageIn) {
  const Decision decision = intake();
  EXPECT_EQ(decision.action, Action::kHandle);
  EXPECT_EQ(decision.key_effect, KeyEffect::kNone);
}

TEST_F(Decide, DoesNotStartAHandlerAtOrAfterExpiry) {
  facts.expires_at = kNow + 1us;
  EXPECT_EQ(intake().action, Action::kHandle);
  facts.expires_at = kNow;
  expect_dead(intake(), DeadLetterReason::kExpired);
}

TEST_F(Decide, StopsACrashLoopAtTheLimit) {
  facts.crashes = 2;
  EXPECT_EQ(intake().action, Action::kHandle);
  facts.crashes = 3;
  expect_dead(intake(), DeadLetterReason::kCrashLoop);
  EXPECT_FALSE(intake().counts_failure);
  options.dead_letters.max_crashes = 4;
  EXPECT_EQ(intake().action, Action::kHandle);
}

TEST_F(Decide, KeepsWhatCannotBeReadAndNamesThatReasonFirst) {
  facts.undecodable = true;
  facts.crashes = 9;
  facts.expires_at = kNow - 1s;
  expect_dead(intake(), DeadLetterReason::kDecode);
  facts.undecodable = false;
  expect_dead(intake(), DeadLetterReason::kCrashLoop);
}

TEST_F(Decide, TellsHowOftenItFailedBeforeItBecameADeadLetterUnhandled) {
  facts.attempt = 3;
  facts.expires_at = kNow;
  EXPECT_EQ(intake().failures, 2u);
}

// ---- ack, release, defer, dead letter -------------------------------------------------------------------

TEST_F(Decide, AcknowledgesSuccess) {
  const Decision decision = of(Outcome::ack());
  EXPECT_EQ(decision.action, Action::kAck);
  EXPECT_EQ(decision.breaker, BreakerSignal::kSuccess);
  EXPECT_FALSE(decision.counts_failure);
}

TEST_F(Decide, AcknowledgesSuccessAlsoWhenTheTimeToLiveEndedMeanwhile) {
  facts.expires_at = kNow - 1s;
  EXPECT_EQ(of(Outcome::ack()).action, Action::kAck);
}

TEST_F(Decide, ReleasesWithoutCounting) {
  facts.attempt = 3;
  const Decision decision = of({Outcome::Kind::kRelease});
  EXPECT_EQ(decision.action, Action::kRelease);
  EXPECT_EQ(decision.attempt, 3u);
  EXPECT_FALSE(decision.counts_failure);
  EXPECT_EQ(decision.breaker, BreakerSignal::kIgnored);
}

TEST_F(Decide, DefersWithoutCountingHoweverOften) {
  facts.attempt = 6;  // one failure more would exhaust it
  options.dead_letters.age_max = 1s;
  const Decision decision = of(Outcome::defer(10s));
  EXPECT_EQ(decision.action, Action::kAgain);
  EXPECT_EQ(decision.delay, 10s);
  EXPECT_EQ(decision.attempt, 6u);
  EXPECT_FALSE(decision.counts_failure);
  EXPECT_FALSE(decision.is_retry);
  EXPECT_EQ(decision.breaker, BreakerSignal::kIgnored);
}

TEST_F(Decide, DefersWithoutADelayOrWithANegativeOneToNow) {
  EXPECT_EQ(of({Outcome::Kind::kDefer}).delay, 0s);
  EXPECT_EQ(of(Outcome::defer(-5s)).delay, 0s);
}

TEST_F(Decide, SendsToTheDeadLettersWhatTheHandlerRejects) {
  const Decision decision = of(Outcome::dead_letter("not ours"));
  expect_dead(decision, DeadLetterReason::kManual);
  EXPECT_FALSE(decision.counts_failure);
  EXPECT_EQ(decision.failures, 0u);
}

// ---- failures -------------------------------------------------------------------------------------------

TEST_F(Decide, RetriesATransientFailureAfterThePolicysWait) {
  const Decision decision = of(failed("Boom"));
  EXPECT_EQ(decision.action, Action::kAgain);
  EXPECT_EQ(decision.delay, 1s);
  EXPECT_EQ(decision.attempt, 2u);
  EXPECT_EQ(decision.failures, 1u);
  EXPECT_TRUE(decision.counts_failure);
  EXPECT_TRUE(decision.is_retry);
  EXPECT_EQ(decision.failure_class, FailureClass::kTransient);
  EXPECT_EQ(decision.breaker, BreakerSignal::kFailure);
}

TEST_F(Decide, WaitsLongerAfterEachFailureAndGivesUpAfterMaxAttempts) {
  const Duration expected[] = {1s, 2s, 4s, 8s, 16s};
  for (std::uint32_t attempt = 1; attempt <= 5; ++attempt) {
    facts.attempt = attempt;
    const Decision decision = of(failed("Boom"));
    EXPECT_EQ(decision.action, Action::kAgain) << attempt;
    EXPECT_EQ(decision.delay, expected[attempt - 1]) << attempt;
  }
  facts.attempt = 6;
  const Decision last = of(failed("Boom"));
  expect_dead(last, DeadLetterReason::kExhausted);
  EXPECT_EQ(last.failures, 6u);
  EXPECT_TRUE(last.counts_failure);
  EXPECT_FALSE(last.is_retry);
  EXPECT_EQ(last.breaker, BreakerSignal::kFailure);
}

TEST_F(Decide, GivesUpAfterTheFirstFailureWithOneAttempt) {
  options.retry.max_attempts = 1;
  expect_dead(of(failed("Boom")), DeadLetterReason::kExhausted);
}

TEST_F(Decide, SendsPermanentAndUnreadableOnesToTheDeadLettersAtOnce) {
  options.classify.permanent_types = {"BadOrder"};
  const Decision permanent = of(failed("BadOrder"));
  expect_dead(permanent, DeadLetterReason::kPermanent);
  EXPECT_EQ(permanent.failures, 1u);
  EXPECT_EQ(permanent.breaker, BreakerSignal::kIgnored);
  expect_dead(of(failed("ERR_CORRUPT_ENVELOPE")), DeadLetterReason::kDecode);
}

TEST_F(Decide, SendsListedErrorTypesToTheDeadLettersThoughTheyAreTransient) {
  options.dead_letters.error_types = {"TimeoutError"};
  const Decision decision = of(failed("asyncio.TimeoutError"));
  expect_dead(decision, DeadLetterReason::kPermanent);
  EXPECT_EQ(decision.failure_class, FailureClass::kTransient);
}

TEST_F(Decide, WaitsAsAskedWhenThrottledAndCountsNothing) {
  facts.attempt = 6;
  Outcome outcome = failed("TooManyRequests");
  outcome.delay = 90s;
  const Decision decision = of(outcome);
  EXPECT_EQ(decision.action, Action::kAgain);
  EXPECT_EQ(decision.delay, 90s);
  EXPECT_EQ(decision.attempt, 6u);
  EXPECT_FALSE(decision.counts_failure);
  EXPECT_FALSE(decision.is_retry);
  EXPECT_EQ(decision.breaker, BreakerSignal::kIgnored);
  EXPECT_EQ(decision.failure_class, FailureClass::kThrottled);
}

TEST_F(Decide, WaitsAsThePolicySaysWhenThrottledWithoutAWait) {
  options.classify.predicate = [](const ErrorInfo&) { return FailureClass::kThrottled; };
  facts.attempt = 3;
  EXPECT_EQ(of(failed("Busy")).delay, 4s);
}

TEST_F(Decide, GivesBackWhatIsNotAFailure) {
  facts.attempt = 5;
  const Decision running = of(failed("CancelledError"));
  EXPECT_EQ(running.action, Action::kAgain);
  EXPECT_EQ(running.delay, 1s);
  EXPECT_EQ(running.attempt, 5u);
  EXPECT_FALSE(running.counts_failure);
  EXPECT_EQ(running.breaker, BreakerSignal::kIgnored);
  facts.stopping = true;
  EXPECT_EQ(of(failed("CancelledError")).action, Action::kRelease);
  EXPECT_EQ(of(failed("Boom")).action, Action::kAgain);
}

TEST_F(Decide, CountsANakAndTakesItsDelay) {
  const Decision plain = of(Outcome::nak());
  EXPECT_EQ(plain.action, Action::kAgain);
  EXPECT_EQ(plain.delay, 1s);
  EXPECT_EQ(plain.attempt, 2u);
  EXPECT_TRUE(plain.counts_failure);
  EXPECT_EQ(plain.breaker, BreakerSignal::kFailure);
  EXPECT_EQ(of(Outcome::nak(5min)).delay, 5min);
  EXPECT_EQ(of(Outcome::nak(-1s)).delay, 0s);
  facts.attempt = 6;
  expect_dead(of(Outcome::nak(5min)), DeadLetterReason::kExhausted);
}

TEST_F(Decide, DoesNotRetryWhatIsOlderThanTheAgeLimit) {
  options.dead_letters.age_max = 1min;
  EXPECT_EQ(of(failed("Boom")).action, Action::kAgain);
  facts.published_at = kNow - 1min - 1us;
  expect_dead(of(failed("Boom")), DeadLetterReason::kMaxAge);
  facts.published_at = kNow + 1h;  // another machine's clock
  EXPECT_EQ(of(failed("Boom")).action, Action::kAgain);
}

TEST_F(Decide, NeverWaitsBeyondTheTimeToLive) {
  facts.expires_at = kNow + 300ms;
  EXPECT_EQ(of(failed("Boom")).delay, 300ms);
  EXPECT_EQ(of(Outcome::defer(1h)).delay, 300ms);
  facts.expires_at = kNow + 2s;
  EXPECT_EQ(of(failed("Boom")).delay, 1s);
  facts.expires_at = kNow;
  expect_dead(of(failed("Boom")), DeadLetterReason::kExpired);
}

TEST_F(Decide, GivesUpWhenTheCustomBackoffSaysStop) {
  options.retry.kind = BackoffKind::kCustom;
  options.retry.custom = [](std::uint32_t failures, const ErrorInfo&) -> std::optional<Duration> {
    if (failures >= 2) return std::nullopt;
    return 7s;
  };
  EXPECT_EQ(of(failed("Boom")).delay, 7s);
  facts.attempt = 2;
  expect_dead(of(failed("Boom")), DeadLetterReason::kExhausted);
}

TEST_F(Decide, WaitsTheLongestDelayWhenTheRetryBudgetIsSpent) {
  facts.budget_spent = true;
  EXPECT_EQ(of(failed("Boom")).delay, 60s);
  EXPECT_EQ(of(Outcome::nak(5min)).delay, 5min);
  EXPECT_EQ(of(Outcome::nak(1s)).delay, 60s);
  EXPECT_EQ(of(Outcome::defer(1s)).delay, 1s);
}

TEST_F(Decide, HandsThePreviousWaitToDecorrelatedJitter) {
  options.retry.jitter = JitterKind::kDecorrelated;
  facts.attempt = 3;
  facts.previous_delay = 20s;
  bool above_plain = false;
  for (int i = 0; i < 100; ++i) {
    const Duration delay = of(failed("Boom")).delay;
    EXPECT_GE(delay, 1s);
    EXPECT_LE(delay, 60s);
    above_plain = above_plain || delay > 6s;
  }
  EXPECT_TRUE(above_plain);
}

TEST_F(Decide, DiscardsWhereDeadLettersAreOff) {
  options.dead_letters.enabled = false;
  facts.attempt = 6;
  const Decision decision = of(failed("Boom"));
  EXPECT_EQ(decision.action, Action::kDiscard);
  EXPECT_EQ(decision.reason, DeadLetterReason::kExhausted);
  facts.expires_at = kNow;
  EXPECT_EQ(intake().action, Action::kDiscard);
}

// ---- keys -----------------------------------------------------------------------------------------------

TEST_F(Decide, BlocksTheKeyForEverythingThatComesAgain) {
  facts.ordered = true;
  for (const auto policy : {KeyFailure::kBlockKey, KeyFailure::kParkKey}) {
    options.on_key_failure = policy;
    EXPECT_EQ(of(failed("Boom")).key_effect, KeyEffect::kBlock);
    EXPECT_EQ(of(Outcome::nak()).key_effect, KeyEffect::kBlock);
  }
  for (const auto policy : {KeyFailure::kBlockKey, KeyFailure::kParkKey, KeyFailure::kSkip}) {
    options.on_key_failure = policy;
    EXPECT_EQ(of(Outcome::defer(1s)).key_effect, KeyEffect::kBlock);
    EXPECT_EQ(of(failed("CancelledError")).key_effect, KeyEffect::kBlock);
  }
}

TEST_F(Decide, LetsTheNextOneOfTheKeyThroughWhenTheHeadIsDone) {
  facts.ordered = true;
  facts.heads_key = true;
  EXPECT_EQ(of(Outcome::ack()).key_effect, KeyEffect::kAdvance);
  EXPECT_EQ(of(Outcome::dead_letter("x")).key_effect, KeyEffect::kAdvance);
  facts.expires_at = kNow;
  EXPECT_EQ(intake().key_effect, KeyEffect::kAdvance);
}

TEST_F(Decide, TouchesNoBlockWhenThereIsNone) {
  facts.ordered = true;
  EXPECT_EQ(of(Outcome::ack()).key_effect, KeyEffect::kNone);
  EXPECT_EQ(of(Outcome::dead_letter("x")).key_effect, KeyEffect::kNone);
  EXPECT_EQ(of({Outcome::Kind::kRelease}).key_effect, KeyEffect::kNone);
}

TEST_F(Decide, HoldsTheKeyAfterADeadLetterWhereItIsParked) {
  facts.ordered = true;
  options.on_key_failure = KeyFailure::kParkKey;
  for (const bool heads_key : {false, true}) {
    facts.heads_key = heads_key;
    EXPECT_EQ(of(Outcome::dead_letter("x")).key_effect, KeyEffect::kHold);
    facts.attempt = 6;
    EXPECT_EQ(of(failed("Boom")).key_effect, KeyEffect::kHold);
  }
  // Nothing is left that a person could look at, so nobody would ever release the key.
  options.dead_letters.enabled = false;
  EXPECT_EQ(of(failed("Boom")).key_effect, KeyEffect::kAdvance);
}

TEST_F(Decide, SkipsAFailedMessageOfAnOrderedKeyAtOnce) {
  facts.ordered = true;
  options.on_key_failure = KeyFailure::kSkip;
  const Decision decision = of(failed("Boom"));
  expect_dead(decision, DeadLetterReason::kExhausted);
  EXPECT_EQ(decision.key_effect, KeyEffect::kNone);
  facts.ordered = false;  // a message without a key
  EXPECT_EQ(of(failed("Boom")).action, Action::kAgain);
}

TEST_F(Decide, KnowsNoKeysWithoutOrder) {
  facts.heads_key = true;
  options.on_key_failure = KeyFailure::kParkKey;
  EXPECT_EQ(of(Outcome::ack()).key_effect, KeyEffect::kNone);
  EXPECT_EQ(of(failed("Boom")).key_effect, KeyEffect::kNone);
  EXPECT_EQ(of(Outcome::dead_letter("x")).key_effect, KeyEffect::kNone);
}

// ---- every combination ----------------------------------------------------------------------------------

TEST(DecideForAll, HoldsItsPromisesForEveryCombinationOfFacts) {
  support::for_all(
      [](std::uint64_t seed, std::uint32_t attempt, std::int64_t published, std::int64_t expires,
         std::int64_t delay) {
        ConsumerOptions options;
        options.retry.max_attempts = *rc::gen::inRange<std::int64_t>(1, 10);
        options.retry.jitter = static_cast<JitterKind>(*rc::gen::inRange(0, 5));
        options.on_key_failure = static_cast<KeyFailure>(*rc::gen::inRange(0, 3));
        options.dead_letters.enabled = *rc::gen::arbitrary<bool>();
        options.dead_letters.age_max = Duration(*rc::gen::inRange<std::int64_t>(0, 1'000'000));
        DeliveryFacts facts;
        facts.now = kNow;
        facts.published_at = from_us(published);
        facts.expires_at = *rc::gen::arbitrary<bool>() ? kNever : from_us(expires);
        facts.attempt = *rc::gen::element(attempt, 0u, 1u, 2u, UINT32_MAX);
        facts.ordered = *rc::gen::arbitrary<bool>();
        facts.heads_key = *rc::gen::arbitrary<bool>();
        facts.budget_spent = *rc::gen::arbitrary<bool>();
        facts.stopping = *rc::gen::arbitrary<bool>();
        Outcome outcome;
        outcome.kind = static_cast<Outcome::Kind>(*rc::gen::inRange(0, 6));
        outcome.error.type =
            *rc::gen::element<std::string>("Boom", "CancelledError", "ERR_CORRUPT_ENVELOPE", "Timeout");
        if (*rc::gen::arbitrary<bool>()) outcome.delay = Duration(delay);
        base::SeededRng rng(seed);
        const Decision decision = decide(outcome, facts, DecisionRules::of(options), rng);

        RC_ASSERT(decision.action != Action::kHandle);
        RC_ASSERT(decision.delay >= Duration::zero());
        RC_ASSERT(decision.attempt >= 1u);
        RC_ASSERT(decision.attempt >= facts.attempt);
        if (facts.expires_at != kNever && decision.action == Action::kAgain && facts.expires_at > facts.now) {
          RC_ASSERT(decision.delay <= facts.expires_at - facts.now);
        }
        const bool again = decision.action == Action::kAgain;
        RC_ASSERT((decision.key_effect == KeyEffect::kBlock) == (again && facts.ordered));
        RC_ASSERT(decision.is_retry == (again && decision.counts_failure));
        if (again && decision.counts_failure) RC_ASSERT(decision.failures < options.retry.max_attempts);
        if (!facts.ordered) RC_ASSERT(decision.key_effect == KeyEffect::kNone);
        if (decision.action == Action::kDeadLetter) RC_ASSERT(options.dead_letters.enabled);
        if (outcome.kind == Outcome::Kind::kAck) RC_ASSERT(decision.action == Action::kAck);
        // A block that is headed by this message never stays behind without a head.
        const bool done = decision.action == Action::kAck || decision.action == Action::kDeadLetter ||
                          decision.action == Action::kDiscard;
        if (done && facts.ordered && facts.heads_key) {
          RC_ASSERT(decision.key_effect == KeyEffect::kAdvance || decision.key_effect == KeyEffect::kHold);
        }
      },
      5000);
}

}  // namespace
}  // namespace towline::policy
