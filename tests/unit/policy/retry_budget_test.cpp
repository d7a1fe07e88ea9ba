// The retry budget: its share, the few that are always free, and the ends of its range.

#include "policy/retry_budget.hpp"

#include <chrono>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

constexpr MonotonicTime kStart{1000s};

int take_all(RetryBudget& budget, MonotonicTime now) {
  int taken = 0;
  while (taken < 100'000 && budget.take(now))
    ++taken;
  return taken;
}

TEST(RetryBudget, GivesItsShareOfTheDeliveries) {
  RetryBudget budget(0.2);
  budget.note_deliveries(kStart, 1000);
  EXPECT_EQ(take_all(budget, kStart), 200);
  EXPECT_TRUE(budget.is_spent(kStart));
  budget.note_deliveries(kStart, 10);
  EXPECT_FALSE(budget.is_spent(kStart));
  EXPECT_EQ(take_all(budget, kStart), 2);
}

TEST(RetryBudget, AlwaysHasAFewForQuietConsumers) {
  RetryBudget budget(0.2);
  EXPECT_EQ(take_all(budget, kStart), 10);
}

TEST(RetryBudget, IsRenewedAfterAMinute) {
  RetryBudget budget(0.2);
  budget.note_deliveries(kStart, 1000);
  ASSERT_EQ(take_all(budget, kStart), 200);
  EXPECT_TRUE(budget.is_spent(kStart + 53s));
  EXPECT_FALSE(budget.is_spent(kStart + 60s));
  EXPECT_EQ(take_all(budget, kStart + 60s), 10);
}

TEST(RetryBudget, GivesNothingAtZeroAndEverythingAtOne) {
  RetryBudget none(0.0), all(1.0);
  none.note_deliveries(kStart, 1000);
  EXPECT_EQ(take_all(none, kStart), 0);
  EXPECT_EQ(take_all(all, kStart), 100'000);
}

TEST(RetryBudget, OnlyLooksWhenAskedWhetherItIsSpent) {
  RetryBudget budget(0.2);
  for (int i = 0; i < 1000; ++i)
    EXPECT_FALSE(budget.is_spent(kStart));
  EXPECT_EQ(take_all(budget, kStart), 10);
}

TEST(RetryBudget, NeverGivesMoreThanItsShareAtTheMomentOfTaking) {
  support::for_all([](const std::vector<std::uint8_t>& steps) {
    RetryBudget budget(0.2);
    std::uint64_t deliveries = 0, retries = 0;  // all within one window
    for (const std::uint8_t step : steps) {
      if (step % 2 == 0) {
        budget.note_deliveries(kStart, step);
        deliveries += step;
      } else if (budget.take(kStart)) {
        ++retries;
        RC_ASSERT(retries <= 10u || static_cast<double>(retries) <= 0.2 * static_cast<double>(deliveries));
      } else {
        RC_ASSERT(static_cast<double>(retries + 1) > 0.2 * static_cast<double>(deliveries));
      }
    }
  });
}

}  // namespace
}  // namespace towline::policy
