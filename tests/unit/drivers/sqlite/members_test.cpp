// Members of groups: who counts as one, and what becomes of what they hold when they leave, die or come back.

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

TEST(SqliteMembers, WhatALeavingMemberHeldIsHandedOutAtOnceAndNobodyIsCharged) {
  World world;
  auto leaving = world.subscribe();
  auto staying = world.subscribe();
  world.publish(1, 5);
  ASSERT_EQ(world.take(*leaving), range(1, 5));
  ASSERT_TRUE(leaving->close().ok());
  const auto again = world.receive(*staying);
  EXPECT_EQ(numbers_of(again), range(1, 5));
  for (const spi::Delivery& delivery : again)
    EXPECT_EQ(delivery.crashes, 0U);
}

TEST(SqliteMembers, WhatADeadMemberHeldWaitsForTheEndOfItsLease) {
  World world;
  auto dead = world.subscribe();
  auto other = world.subscribe();
  world.publish(1, 1);
  ASSERT_EQ(world.take(*dead), range(1, 1));
  dead.reset();
  world.clock->advance(30s - 1us);
  EXPECT_TRUE(world.take(*other).empty());
  world.clock->advance(1us);
  EXPECT_EQ(world.take(*other), range(1, 1));
}

TEST(SqliteMembers, AMemberThatHoldsNothingLosesNothingByBeingLate) {
  World world;
  auto late = world.subscribe();
  world.clock->advance(10min);
  world.publish(1, 1);
  EXPECT_EQ(world.take(*late), range(1, 1));
  EXPECT_TRUE(late->renew().value().empty());
}

TEST(SqliteMembers, ClosingTwiceIsTheSameAsOnceAndAClosedOneReceivesNothing) {
  World world;
  auto subscription = world.subscribe();
  auto keeper = world.subscribe(member("other"));
  world.publish(1, 1);
  ASSERT_TRUE(subscription->close().ok());
  ASSERT_TRUE(subscription->close().ok());
  spi::ReceiveRequest request;
  request.count_max = 1;
  const auto received = subscription->receive(request);
  EXPECT_TRUE(!received.ok() || received->deliveries.empty());
  EXPECT_EQ(world.group().waiting, 1U);
}

TEST(SqliteMembers, EachMemberGetsWhatIsNotInTheHandsOfAnother) {
  World world;
  std::vector<std::unique_ptr<spi::Subscription>> members;
  for (int i = 0; i < 10; ++i)
    members.push_back(world.subscribe());
  world.publish(1, 100);
  std::vector<std::uint64_t> all;
  for (int round = 0; round < 10; ++round) {
    for (const auto& member : members) {
      for (const std::uint64_t number : world.take(*member, 1))
        all.push_back(number);
    }
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, range(1, 100));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
