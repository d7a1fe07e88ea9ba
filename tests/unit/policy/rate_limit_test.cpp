// The token bucket: never more than it promises in any span of time, and no less than it can.

#include "policy/rate_limit.hpp"

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

constexpr MonotonicTime kStart{1000s};

TEST(RateLimit, StartsFullAndThenGivesTheRate) {
  RateLimit limit(100, 5);
  EXPECT_EQ(limit.available(kStart), 5u);
  EXPECT_TRUE(limit.take(kStart, 5));
  EXPECT_FALSE(limit.take(kStart));
  EXPECT_FALSE(limit.take(kStart + 9999us));
  EXPECT_TRUE(limit.take(kStart + 10ms));
  EXPECT_FALSE(limit.take(kStart + 10ms));
}

TEST(RateLimit, TakesAllOrNothing) {
  RateLimit limit(100, 5);
  EXPECT_FALSE(limit.take(kStart, 6));
  EXPECT_EQ(limit.available(kStart), 5u);
  EXPECT_TRUE(limit.take(kStart, 5));
}

TEST(RateLimit, HoldsNoMoreThanItsBurstAfterAnyPause) {
  RateLimit limit(1'000'000, 5);
  ASSERT_TRUE(limit.take(kStart, 5));
  EXPECT_EQ(limit.available(kStart + std::chrono::hours(1'000'000)), 5u);
}

TEST(RateLimit, HoldsATenthOfASecondByDefaultAndAtLeastOne) {
  EXPECT_EQ(RateLimit(1000).available(kStart), 100u);
  EXPECT_EQ(RateLimit(3).available(kStart), 1u);
}

TEST(RateLimit, LetsEverythingThroughWithoutARate) {
  RateLimit limit(0);
  EXPECT_EQ(limit.available(kStart), UINT64_MAX);
  EXPECT_TRUE(limit.take(kStart, UINT64_MAX));
  EXPECT_EQ(limit.ready_at(kStart, 1'000'000), kStart);
}

TEST(RateLimit, SaysExactlyWhenTheNextMayStart) {
  RateLimit limit(3, 2);
  ASSERT_TRUE(limit.take(kStart, 2));
  const MonotonicTime ready = limit.ready_at(kStart);
  EXPECT_EQ(ready, kStart + 333334us);
  EXPECT_FALSE(limit.take(ready - 1us));
  EXPECT_TRUE(limit.take(ready));
  EXPECT_EQ(limit.ready_at(ready, 3), MonotonicTime::max());
}

TEST(RateLimit, GivesTheExactRateOverALongRunWithoutDrift) {
  RateLimit limit(7, 1);
  std::uint64_t taken = 0;
  for (MonotonicTime now = kStart; now < kStart + 10'000s; now = limit.ready_at(now))
    taken += limit.take(now) ? 1 : 0;
  // 70,000, and the one that was there at the beginning.
  EXPECT_NEAR(static_cast<double>(taken), 70'000.0, 1.0);
}

TEST(RateLimit, TakesTimeThatGoesBackForStandingStill) {
  RateLimit limit(10, 1);
  ASSERT_TRUE(limit.take(kStart));
  EXPECT_FALSE(limit.take(kStart - 100s));
  EXPECT_EQ(limit.ready_at(kStart - 100s), kStart + 100ms);
  EXPECT_FALSE(limit.take(kStart + 99ms));
  EXPECT_TRUE(limit.take(kStart + 100ms));
}

TEST(RateLimit, NeverGivesMoreThanBurstAndRateInAnySpan) {
  support::for_all(
      [](std::uint16_t rate, std::uint8_t burst,
         const std::vector<std::pair<std::uint16_t, std::uint8_t>>& steps) {
        RateLimit limit(rate + 1u, burst + 1u);
        MonotonicTime now = kStart;
        std::vector<std::pair<MonotonicTime, std::uint64_t>> taken;
        for (const auto& [wait_us, wanted] : steps) {
          now += Duration(wait_us);
          const std::uint64_t count = limit.available(now) < wanted ? limit.available(now) : wanted;
          RC_ASSERT(limit.take(now, count));
          taken.emplace_back(now, count);
          std::uint64_t sum = 0;
          for (auto entry = taken.rbegin(); entry != taken.rend(); ++entry) {
            sum += entry->second;
            const double span_s = static_cast<double>((now - entry->first).count()) / 1e6;
            RC_ASSERT(static_cast<double>(sum) <= burst + 1.0 + (rate + 1.0) * span_s + 1e-6);
          }
        }
      },
      300);
}

TEST(RateLimit, SurvivesRatesAndBurstsOfAnySize) {
  RateLimit limit(UINT64_MAX, UINT64_MAX);
  EXPECT_GT(limit.available(kStart), 0u);
  EXPECT_TRUE(limit.take(kStart, limit.available(kStart)));
  EXPECT_GT(limit.available(MonotonicTime::max()), 0u);
}

}  // namespace
}  // namespace towline::policy
