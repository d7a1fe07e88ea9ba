// Counts over the last seconds: what is inside the window, what has left it, and nothing in between is lost.

#include "policy/sliding_window.hpp"

#include <chrono>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/property.hpp"

namespace towline::policy {
namespace {

using namespace std::chrono_literals;

TEST(SlidingWindow, CountsEachKindForItself) {
  SlidingWindow<2> window(10s);
  const MonotonicTime now{50s};
  window.add(now, 0);
  window.add(now, 1, 5);
  EXPECT_EQ(window.totals(now), (std::array<std::uint64_t, 2>{1, 5}));
}

TEST(SlidingWindow, KeepsForNineTenthsOfItsLengthAndForgetsAfterAllOfIt) {
  for (int offset_ms = 0; offset_ms < 1000; offset_ms += 37) {
    SlidingWindow<1> window(10s);
    const MonotonicTime start{100s + std::chrono::milliseconds(offset_ms)};
    window.add(start, 0);
    EXPECT_EQ(window.totals(start + 9s)[0], 1u) << offset_ms;
    EXPECT_EQ(window.totals(start + 10s)[0], 0u) << offset_ms;
  }
}

TEST(SlidingWindow, ForgetsAcrossAPauseOfAnyLength) {
  SlidingWindow<1> window(10s);
  window.add(MonotonicTime{1s}, 0, 7);
  EXPECT_EQ(window.totals(MonotonicTime{1s} + std::chrono::hours(10'000))[0], 0u);
  window.add(MonotonicTime{1s} + std::chrono::hours(10'000), 0, 2);
  EXPECT_EQ(window.totals(MonotonicTime{1s} + std::chrono::hours(10'000))[0], 2u);
}

TEST(SlidingWindow, TakesTimeThatGoesBackForStandingStill) {
  SlidingWindow<1> window(10s);
  window.add(MonotonicTime{100s}, 0);
  window.add(MonotonicTime{50s}, 0);
  EXPECT_EQ(window.totals(MonotonicTime{50s})[0], 2u);
  EXPECT_EQ(window.totals(MonotonicTime{108s})[0], 2u);
}

TEST(SlidingWindow, StartsAnewWhenCleared) {
  SlidingWindow<1> window(10s);
  window.add(MonotonicTime{100s}, 0);
  window.clear();
  EXPECT_EQ(window.totals(MonotonicTime{100s})[0], 0u);
}

TEST(SlidingWindow, LiesBetweenTheCountsOfNineTenthsAndOfAllOfItsLength) {
  support::for_all(
      [](const std::vector<std::pair<std::uint16_t, std::uint8_t>>& steps) {
        SlidingWindow<1> window(10s);
        std::vector<std::pair<MonotonicTime, std::uint64_t>> all;
        MonotonicTime now{1s};
        for (const auto& [wait_ms, count] : steps) {
          now += std::chrono::milliseconds(wait_ms % 3000);
          window.add(now, 0, count);
          all.emplace_back(now, count);
          std::uint64_t at_least = 0, at_most = 0;
          for (const auto& [at, some] : all) {
            if (now - at <= 9s) at_least += some;
            if (now - at < 10s) at_most += some;
          }
          const std::uint64_t total = window.totals(now)[0];
          RC_ASSERT(total >= at_least);
          RC_ASSERT(total <= at_most);
        }
      },
      500);
}

}  // namespace
}  // namespace towline::policy
