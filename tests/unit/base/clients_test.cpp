// Counting at most once, and taking without losing what came meanwhile.

#include "base/clients.hpp"

#include <random>
#include <set>

#include <gtest/gtest.h>

namespace towline::base {
namespace {

using namespace std::chrono_literals;

TimePoint at(std::int64_t seconds) { return TimePoint{} + std::chrono::seconds(seconds); }

TEST(Clients, APositionMovesOnlyForwardUntilItExpires) {
  spi::ClientPosition known;
  advance(known, {"u", "c", "room", 5, at(100)}, at(0));
  EXPECT_EQ(known.sequence, 5U);
  EXPECT_EQ(known.conversation, "room");
  advance(known, {"u", "c", "room", 3, at(200)}, at(50));
  EXPECT_EQ(known.sequence, 5U);
  EXPECT_EQ(known.expires_at, at(200));
  advance(known, {"u", "c", "room", 7, at(150)}, at(50));
  EXPECT_EQ(known.sequence, 7U);
  EXPECT_EQ(known.expires_at, at(200));
  advance(known, {"u", "c", "room", 2, at(400)}, at(200));
  EXPECT_EQ(known.sequence, 2U) << "the old one had expired";
}

TEST(Clients, AMessageCountsOnceInAnyOrderWithinTheWindow) {
  std::mt19937_64 random(5);
  for (int run = 0; run < 200; ++run) {
    spi::MissedMessages missed;
    std::set<std::uint64_t> counted;
    const std::uint64_t base = 1 + random() % 1000;
    for (int i = 0; i < 300; ++i) {
      // Never more than 63 behind the last one.
      const std::uint64_t last = counted.empty() ? base : *counted.rbegin();
      const std::uint64_t low = last > 63 ? last - 63 : 1;
      const std::uint64_t sequence = low + random() % (last - low + 5);
      count_missed(missed, sequence);
      counted.insert(sequence);
      ASSERT_EQ(missed.count, counted.size());
      ASSERT_EQ(missed.first_sequence, *counted.begin());
      ASSERT_EQ(missed.last_sequence, *counted.rbegin());
    }
  }
}

TEST(Clients, FarBehindOnlyWhatIsBeforeTheFirstCounts) {
  spi::MissedMessages missed;
  count_missed(missed, 100);
  count_missed(missed, 300);
  count_missed(missed, 200);
  EXPECT_EQ(missed.count, 2U) << "it may have been counted";
  count_missed(missed, 50);
  EXPECT_EQ(missed.count, 3U);
  EXPECT_EQ(missed.first_sequence, 50U);
  EXPECT_EQ(missed.last_sequence, 300U);
}

TEST(Clients, WhatWasTakenIsNotCountedAgainAndTheRestStays) {
  spi::MissedMessages missed;
  for (const std::uint64_t sequence : {3, 4, 6, 9})
    count_missed(missed, sequence);
  take_missed(missed, 2);
  EXPECT_EQ(missed.count, 4U);
  take_missed(missed, 4);
  EXPECT_EQ(missed.count, 2U);
  EXPECT_EQ(missed.first_sequence, 6U);
  count_missed(missed, 4);
  EXPECT_EQ(missed.count, 2U);
  count_missed(missed, 5);
  EXPECT_EQ(missed.count, 3U) << "that one had not been counted yet";
  take_missed(missed, 9);
  EXPECT_EQ(missed.count, 0U);
  count_missed(missed, 9);
  EXPECT_EQ(missed.count, 0U);
  count_missed(missed, 12);
  EXPECT_EQ(missed.count, 1U);
  EXPECT_EQ(missed.first_sequence, 12U);
  EXPECT_EQ(missed.last_sequence, 12U);
}

TEST(Clients, TakingPartOfALongRangeLeavesTheRest) {
  spi::MissedMessages missed;
  for (std::uint64_t sequence = 1; sequence <= 500; ++sequence)
    count_missed(missed, sequence);
  take_missed(missed, 100);
  EXPECT_EQ(missed.count, 400U);
  EXPECT_EQ(missed.first_sequence, 101U);
  take_missed(missed, 499);
  EXPECT_EQ(missed.count, 1U);
  EXPECT_EQ(missed.first_sequence, 500U);
}

}  // namespace
}  // namespace towline::base
