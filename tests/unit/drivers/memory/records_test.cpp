// Records that expire: found until their time, swept in bounded steps, and counted to the byte.

#include "drivers/memory/records.hpp"

#include <chrono>

#include <gtest/gtest.h>

namespace towline::drivers::memory {
namespace {

using namespace std::chrono_literals;

TimePoint at(Duration since) { return TimePoint(since); }

TEST(MemoryExpiring, FindsAValueUntilItExpires) {
  Meter meter;
  Expiring<int> records(meter);
  records.put("a", 1, at(10s));
  records.put("b", 2, kNever);
  EXPECT_EQ(*records.find("a", at(10s) - 1us), 1);
  EXPECT_EQ(records.find("a", at(10s)), nullptr);
  EXPECT_EQ(*records.find("b", at(100h)), 2);
  EXPECT_EQ(records.find("c", at(0s)), nullptr);
}

TEST(MemoryExpiring, PuttingAgainReplacesValueAndEnd) {
  Meter meter;
  Expiring<int> records(meter);
  records.put("a", 1, at(10s), 100);
  const std::uint64_t large = meter.used;
  records.put("a", 2, at(20s), 50);
  EXPECT_EQ(meter.used, large - 50);
  EXPECT_EQ(records.size(), 1U);
  EXPECT_EQ(records.sweep(at(10s), 10), 0U) << "the first end is forgotten";
  EXPECT_EQ(*records.find("a", at(10s)), 2);
  records.put("a", 3, kNever);
  EXPECT_EQ(records.sweep(at(100h), 10), 0U);
}

TEST(MemoryExpiring, SweepsTheEarliestFirstAndNoMoreThanAsked) {
  Meter meter;
  Expiring<int> records(meter);
  for (int i = 0; i < 10; ++i)
    records.put(std::to_string(i), i, at(Duration(100 - i)));
  EXPECT_EQ(records.sweep(at(Duration(95)), 3), 3U);
  EXPECT_EQ(records.size(), 7U);
  EXPECT_EQ(records.find("9", at(0s)), nullptr);
  EXPECT_NE(records.find("6", at(0s)), nullptr);
  EXPECT_EQ(records.sweep(at(Duration(95)), 100), 2U);
  EXPECT_EQ(records.sweep(at(Duration(100)), 100), 5U);
  EXPECT_EQ(meter.used, 0U);
}

TEST(MemoryExpiring, ErasingGivesTheBytesBack) {
  Meter meter;
  Expiring<int> records(meter);
  records.put("a", 1, at(10s), 1'000);
  EXPECT_GE(meter.used, 1'000U);
  records.erase("a");
  records.erase("a");
  EXPECT_EQ(meter.used, 0U);
  EXPECT_EQ(records.sweep(at(100s), 10), 0U);
}

TEST(MemoryExpiring, JoinedNamesDifferWhenTheirPartsDo) {
  EXPECT_NE(joined("ab", "c"), joined("a", "bc"));
  EXPECT_NE(joined("", "a"), joined("a", ""));
  EXPECT_EQ(joined("a", "b"), joined("a", "b"));
}

}  // namespace
}  // namespace towline::drivers::memory
