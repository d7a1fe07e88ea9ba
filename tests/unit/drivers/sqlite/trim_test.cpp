// What is removed of the file and when: rows, bodies, and what was noted of messages that are gone.

#include "drivers/sqlite/trim.hpp"

#include <algorithm>
#include <set>

#include "drivers/sqlite/connection.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

/// What a person sees who opens the file.
std::int64_t count(const World& world, const char* query) {
  Connection look;
  EXPECT_TRUE(look.open(world.file(), SQLITE_OPEN_READWRITE, nullptr));
  return select_integer(look, query).value_or(-1);
}

TEST(SqliteTrim, MessagesGoWhenEveryGroupHasSettledThem) {
  World world;
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  world.publish(1, 10);
  const auto of_a = world.receive(*a);
  world.settle(*a, of_a);
  EXPECT_EQ(world.sweep().messages, 0U);
  const auto of_b = world.receive(*b);
  world.settle(*b, {of_b.begin() + 4, of_b.end()});
  EXPECT_EQ(world.sweep().messages, 0U);
  world.settle(*b, {of_b.begin(), of_b.begin() + 3});
  EXPECT_EQ(world.sweep().messages, 3U);
  world.settle(*b, of_b[3]);
  EXPECT_EQ(world.sweep(2).messages, 2U);
  EXPECT_TRUE(world.sweep(2).more);
  EXPECT_EQ(world.sweep().messages, 3U);
  // Positions are not used again.
  world.publish(11, 12);
  EXPECT_EQ(world.take(*a), range(11, 12));
}

TEST(SqliteTrim, ARunGoesWhenAllOfItMayGo) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 10);
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription, 9)).empty());
  EXPECT_EQ(world.sweep().messages, 9U);
  EXPECT_EQ(count(world, "SELECT count FROM message"), 10);
  EXPECT_EQ(world.take(*world.subscribe(member("late"))), range(10, 10)) << "what was removed is not seen";
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  auto late = world.subscribe(member("late"));
  world.clock->advance(31s);
  EXPECT_TRUE(world.settle(*late, world.receive(*late)).empty());
  EXPECT_EQ(world.sweep().messages, 1U);
  EXPECT_EQ(count(world, "SELECT count(*) FROM message"), 0);
}

TEST(SqliteTrim, WhatIsHeldForLongKeepsNothingButItsRun) {
  World world;
  auto holder = world.subscribe();
  auto other = world.subscribe();
  world.publish(1, 300);
  ASSERT_EQ(world.take(*holder, 1), range(1, 1));
  EXPECT_TRUE(world.settle(*other, world.receive(*other)).empty());
  for (std::uint64_t first = 301; first < 3'300; first += 300) {
    world.publish(first, first + 299);
    if (first == 601) {
      ASSERT_EQ(world.take(*holder, 100), range(601, 700));
    }
    EXPECT_TRUE(world.settle(*other, world.receive(*other)).empty());
    (void)world.sweep();
  }
  EXPECT_EQ(count(world, "SELECT count(*) FROM message"), 3) << "the two runs, and the newest one";
  EXPECT_EQ(world.group().waiting, 0U);
  // A group that begins with the earliest gets what is kept.
  auto late = world.subscribe(member("late"));
  const auto kept = world.take(*late);
  EXPECT_EQ(kept.size(), 256U + 256U + 44U);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  ASSERT_TRUE(late->close().ok());
  // What was held comes again, and goes with the rest; positions are not used again.
  holder.reset();
  world.clock->advance(31s);
  EXPECT_EQ(world.group().waiting, 101U);
  world.publish(3'301, 3'302);
  std::vector<std::uint64_t> again;
  while (again.size() < 103) {
    const auto some = world.receive(*other);
    ASSERT_FALSE(some.empty());
    for (const std::uint64_t number : numbers_of(some))
      again.push_back(number);
    EXPECT_TRUE(world.settle(*other, some).empty());
  }
  EXPECT_EQ(std::set(again.begin(), again.end()).size(), 103U);
  EXPECT_EQ(again.back(), 3'302U);
}

TEST(SqliteTrim, BehindOneThatIsHeldGoWhatWasPublishedAloneAndInTheEndWhatFired) {
  World world;
  auto holder = world.subscribe();
  auto other = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*holder);
  for (std::uint64_t n = 2; n <= 50; ++n) {
    if (n % 10 == 0) {
      ASSERT_TRUE(world.write(spi::PutSchedule{world.record(n, 1us)}).ok());
      world.clock->advance(1us);
      ASSERT_EQ(world.promote().promoted_count, 1U);
    } else {
      world.publish(n, n);
    }
    EXPECT_TRUE(world.settle(*other, world.receive(*other)).empty());
    EXPECT_TRUE(holder->renew().value().empty());
  }
  EXPECT_FALSE(world.sweep().more);
  EXPECT_EQ(count(world, "SELECT count(*) FROM message WHERE body_id IS NULL"), 1);
  EXPECT_EQ(count(world, "SELECT count(*) FROM message"), 6) << "rows of what fired go with their bodies";
  EXPECT_TRUE(world.settle(*holder, held).empty());
  for (int rest = 0; rest < 2; ++rest)
    (void)world.sweep();
  EXPECT_EQ(count(world, "SELECT count(*) FROM message"), 0);
}

TEST(SqliteTrim, MuchThatIsSettledGoesWithoutASweep) {
  World world;
  auto subscription = world.subscribe();
  for (std::uint64_t n = 0; n < 3; ++n) {
    world.publish(1'000 * n + 1, 1'000 * n + 1'000);
    EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  }
  EXPECT_LT(count(world, "SELECT coalesce(sum(coalesce(count, 1)), 0) FROM message"), 1'100);
}

TEST(SqliteTrim, TheBodyOfWhatHasFiredGoesWithItsMessageAndItsIdIsRemembered) {
  World world;
  auto subscription = world.subscribe();
  ASSERT_TRUE(world.write(spi::PutSchedule{world.record(1, 1s)}).ok());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.sweep().messages, 0U);
  EXPECT_EQ(count(world, "SELECT count(*) FROM body"), 1);
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  EXPECT_EQ(world.sweep().messages, 1U);
  EXPECT_TRUE(world.store().has_fired(make_id(1)).value()) << "its body may go later";
  (void)world.sweep();
  EXPECT_EQ(count(world, "SELECT count(*) FROM body"), 0);
  EXPECT_EQ(count(world, "SELECT count(*) FROM fired"), 1);
  EXPECT_TRUE(world.store().has_fired(make_id(1)).value());
}

TEST(SqliteTrim, WhatALogDidNotKeepIsNeitherOwedNorGivenBack) {
  World world;
  spi::Topology topology;
  topology.topic = "t";
  topology.kind = spi::TopicKind::kLog;
  topology.retention = 10s;
  ASSERT_TRUE(world.transport().declare(topology).ok());
  auto dies = world.subscribe();
  world.publish(1, 4);
  const auto held = world.receive(*dies, 2);
  EXPECT_TRUE(world.settle(*dies, held[0], spi::Verb::kRelease).empty());
  EXPECT_EQ(world.group().waiting, 3U);
  world.clock->advance(10s);
  world.publish(5, 5);
  EXPECT_EQ(world.sweep().messages, 4U);
  EXPECT_EQ(world.group().waiting, 1U) << "what came back to it is gone as well";
  dies.reset();
  world.clock->advance(20s);
  auto next = world.subscribe();
  EXPECT_EQ(world.group().waiting, 1U) << "and what was in its hands when it died";
  EXPECT_EQ(world.take(*next), range(5, 5));
  EXPECT_EQ(count(world, "SELECT count(*) FROM redelivery"), 0);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
