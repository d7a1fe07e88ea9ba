// Ephemeral subscribers of a file: each sees what is published while it is there and fits its patterns,
// nothing is kept for it, and what is addressed to a group is not for it.

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

spi::SubscribeOptions watching(std::vector<std::string> patterns) {
  spi::SubscribeOptions options = ephemeral();
  options.patterns = std::move(patterns);
  return options;
}

TEST(SqliteEphemeral, EverySubscriberSeesEveryMessageOfItsTime) {
  World world;
  world.publish(1, 2);
  auto a = world.subscribe(ephemeral());
  auto b = world.subscribe(ephemeral());
  world.publish(3, 5);
  EXPECT_EQ(world.take(*a), range(3, 5));
  EXPECT_EQ(world.take(*b), range(3, 5));
  EXPECT_EQ(world.take(*a), Numbers{});
}

TEST(SqliteEphemeral, OnlyTopicsOfItsPatternsAreSeen) {
  World world;
  spi::SubscribeOptions options = watching({"orders.*", "audit"});
  options.matches = [](std::string_view topic) { return topic == "orders.eu" || topic == "audit"; };
  auto some = world.subscribe(options);
  ASSERT_TRUE(world.publish(world.envelope(1, "orders.eu")).empty());
  ASSERT_TRUE(world.publish(world.envelope(2, "orders.eu.paid")).empty());
  ASSERT_TRUE(world.publish(world.envelope(3, "audit")).empty());
  ASSERT_TRUE(world.publish(world.envelope(4, "other")).empty());
  Numbers seen = world.take(*some);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (Numbers{1, 3}));
}

TEST(SqliteEphemeral, WhatIsAddressedToAGroupIsNotForIt) {
  World world;
  auto watcher = world.subscribe(ephemeral());
  spi::Envelope addressed = world.envelope(1);
  addressed.group = "g";
  ASSERT_TRUE(world.publish(addressed).empty());
  ASSERT_TRUE(world.publish(world.envelope(2)).empty());
  EXPECT_EQ(world.take(*watcher), Numbers{2});
}

TEST(SqliteEphemeral, TheGroupsAreNotConcernedByWhatItSees) {
  World world;
  auto group = world.subscribe();
  auto watcher = world.subscribe(ephemeral());
  world.publish(1, 3);
  EXPECT_EQ(world.take(*watcher), range(1, 3));
  EXPECT_EQ(world.group().waiting, 3U);
  EXPECT_EQ(world.take(*group), range(1, 3));
}

TEST(SqliteEphemeral, OneThatLeftIsOwedNothing) {
  World world;
  auto watcher = world.subscribe(ephemeral());
  world.publish(1, 3);
  ASSERT_TRUE(watcher->close().ok());
  auto next = world.subscribe(ephemeral());
  EXPECT_EQ(world.take(*next), Numbers{});
  for (const spi::GroupStatistics& group : world.transport().statistics().value())
    EXPECT_EQ(group.group, "") << "it has made no group";
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
