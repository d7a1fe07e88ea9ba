// The circuit breaker: when it opens, how it probes, and that stragglers and other classes of errors do not
// confuse it.

#include "policy/circuit_breaker.hpp"

#include <chrono>
#include <limits>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

class Breaker : public ::testing::Test {
 protected:
  void feed(BreakerSignal signal, int count = 1) {
    for (int i = 0; i < count; ++i)
      breaker.feed(now, signal, breaker.admit(now));
  }
  void open() {
    feed(BreakerSignal::kFailure, 10);
    ASSERT_EQ(breaker.state(), BreakerState::kOpen);
  }
  void half_open() {
    open();
    now += 30s;
    ASSERT_EQ(breaker.allowance(now), 3u);
    ASSERT_EQ(breaker.state(), BreakerState::kHalfOpen);
  }

  CircuitBreaker breaker{BreakerOptions{}};
  MonotonicTime now{100s};
};

TEST_F(Breaker, LetsEverythingThroughWhileThingsGoWell) {
  feed(BreakerSignal::kSuccess, 1000);
  EXPECT_EQ(breaker.allowance(now), kUnlimited);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  EXPECT_EQ(breaker.probes_at(), std::nullopt);
}

TEST_F(Breaker, OpensWhenHalfOfAtLeastTenResultsAreFailures) {
  feed(BreakerSignal::kSuccess, 5);
  feed(BreakerSignal::kFailure, 4);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  feed(BreakerSignal::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  EXPECT_EQ(breaker.allowance(now), 0u);
  EXPECT_FALSE(breaker.allows(now));
  EXPECT_EQ(breaker.opened_count(), 1u);
}

TEST_F(Breaker, StaysClosedBelowTheMinimumThroughput) {
  feed(BreakerSignal::kFailure, 9);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
}

TEST_F(Breaker, StaysClosedBelowTheRatio) {
  feed(BreakerSignal::kSuccess, 51);
  feed(BreakerSignal::kFailure, 50);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
}

TEST_F(Breaker, ForgetsResultsThatLeftTheWindow) {
  feed(BreakerSignal::kFailure, 9);
  now += 61s;
  feed(BreakerSignal::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  now += 30s;
  feed(BreakerSignal::kFailure, 9);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(Breaker, CountsNeitherPermanentErrorsNorThrottling) {
  feed(BreakerSignal::kIgnored, 1000);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  feed(BreakerSignal::kFailure, 9);  // not 9 of 1,009, and not 10 of 1,010
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  feed(BreakerSignal::kFailure);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(Breaker, LetsProbesThroughWhenTheOpenTimeIsOverAndNotBefore) {
  open();
  EXPECT_EQ(breaker.probes_at(), now + 30s);
  now += 30s - 1us;
  EXPECT_EQ(breaker.allowance(now), 0u);
  now += 1us;
  EXPECT_EQ(breaker.allowance(now), 3u);
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
}

TEST_F(Breaker, AdmitsNoMoreProbesThanItNeeds) {
  half_open();
  breaker.admit(now, 2);
  EXPECT_EQ(breaker.allowance(now), 1u);
  breaker.admit(now);
  EXPECT_EQ(breaker.allowance(now), 0u);
}

TEST_F(Breaker, ClosesWhenEveryProbeSucceeded) {
  half_open();
  const std::uint64_t period = breaker.admit(now, 3);
  breaker.feed(now, BreakerSignal::kSuccess, period);
  breaker.feed(now, BreakerSignal::kSuccess, period);
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
  breaker.feed(now, BreakerSignal::kSuccess, period);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  EXPECT_EQ(breaker.allowance(now), kUnlimited);
}

TEST_F(Breaker, OpensAgainWhenAProbeFails) {
  half_open();
  const std::uint64_t period = breaker.admit(now, 3);
  breaker.feed(now, BreakerSignal::kSuccess, period);
  breaker.feed(now, BreakerSignal::kFailure, period);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  EXPECT_EQ(breaker.probes_at(), now + 30s);
  EXPECT_EQ(breaker.opened_count(), 2u);
  // The third probe's late success says nothing about the time after.
  breaker.feed(now, BreakerSignal::kSuccess, period);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(Breaker, GivesTheProbesPlaceBackWhenNothingWasLearned) {
  half_open();
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t period = breaker.admit(now, 3);
    EXPECT_EQ(breaker.allowance(now), 0u);
    breaker.feed(now, BreakerSignal::kIgnored, period, 3);
    EXPECT_EQ(breaker.allowance(now), 3u);
  }
}

TEST_F(Breaker, IgnoresStragglersFromBeforeItOpened) {
  const std::uint64_t before = breaker.admit(now, 50);
  open();
  breaker.feed(now, BreakerSignal::kSuccess, before, 20);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
  now += 30s;
  ASSERT_EQ(breaker.allowance(now), 3u);
  breaker.feed(now, BreakerSignal::kFailure, before, 10);
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
  breaker.feed(now, BreakerSignal::kSuccess, before, 20);
  EXPECT_EQ(breaker.state(), BreakerState::kHalfOpen);
  EXPECT_EQ(breaker.allowance(now), 3u);
}

TEST_F(Breaker, BeginsWithAnEmptyWindowAfterClosing) {
  half_open();
  breaker.feed(now, BreakerSignal::kSuccess, breaker.admit(now, 3), 3);
  ASSERT_EQ(breaker.state(), BreakerState::kClosed);
  feed(BreakerSignal::kFailure, 9);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
}

TEST_F(Breaker, TakesManyResultsAtOnceLikeOneByOne) {
  const std::uint64_t period = breaker.admit(now, 20);
  breaker.feed(now, BreakerSignal::kSuccess, period, 11);
  breaker.feed(now, BreakerSignal::kFailure, period, 9);
  EXPECT_EQ(breaker.state(), BreakerState::kClosed);
  breaker.feed(now, BreakerSignal::kFailure, period, 2);
  EXPECT_EQ(breaker.state(), BreakerState::kOpen);
}

TEST_F(Breaker, NeverOpensWhenSwitchedOff) {
  BreakerOptions options;
  options.enabled = false;
  CircuitBreaker off(options);
  for (int i = 0; i < 1000; ++i)
    off.feed(now, BreakerSignal::kFailure, off.admit(now));
  EXPECT_EQ(off.allowance(now), kUnlimited);
  EXPECT_EQ(off.state(), BreakerState::kClosed);
}

TEST_F(Breaker, IsNotConfusedByTimeThatGoesBack) {
  open();
  const MonotonicTime opened = now;
  EXPECT_EQ(breaker.allowance(opened - 50s), 0u);
  EXPECT_EQ(breaker.allowance(opened + 30s), 3u);
  EXPECT_EQ(breaker.allowance(opened), 3u);
}

TEST(BreakerForAll, EndsUpClosedOnceTheDependencyIsWellWhateverHappenedBefore) {
  support::for_all(
      [](const std::vector<std::uint8_t>& history) {
        CircuitBreaker breaker{BreakerOptions{}};
        MonotonicTime now{1s};
        for (const std::uint8_t event : history) {
          now += std::chrono::milliseconds(event * 100);
          const std::size_t room = breaker.allowance(now);
          if (room == 0) continue;
          breaker.feed(now, static_cast<BreakerSignal>(event % 3), breaker.admit(now));
        }
        for (int i = 0; i < 3 && breaker.state() != BreakerState::kClosed; ++i) {
          now += 30s;
          RC_ASSERT(breaker.allowance(now) > 0u);
          breaker.feed(now, BreakerSignal::kSuccess, breaker.admit(now));
        }
        RC_ASSERT(breaker.state() == BreakerState::kClosed);
      },
      1000, 300);
}

}  // namespace
}  // namespace towline::policy
