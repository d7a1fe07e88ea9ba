// Members of groups: who counts as one, and what becomes of what they hold when they leave, die or come back.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

class Members : public OverDrivers {};

TEST_P(Members, AreCountedWhileTheyLive) {
  auto one = world.subscribe();
  auto two = world.subscribe();
  world.publish(1, 1);
  EXPECT_EQ(world.group().member_count, 2U);
  ASSERT_TRUE(two->close().ok());
  EXPECT_EQ(world.group().member_count, 1U);
  one.reset();
  world.clock->advance(31s);
  EXPECT_EQ(world.group().member_count, 0U) << "dropped without a word, until its lease has ended";
  EXPECT_EQ(world.group().waiting, 1U) << "the group is still owed its messages";
}

TEST_P(Members, OfOneGroupKeepOneOrderWhileTheyLive) {
  auto first = world.subscribe(ordered());
  const auto refused = world.transport().subscribe(member());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kTopologyMismatch);
  EXPECT_EQ(world.group().member_count, 0U) << "no topic yet";
  world.publish(1, 1);
  EXPECT_EQ(world.group().member_count, 1U) << "the refused one is none";
  EXPECT_TRUE(world.transport().subscribe(member("other")).ok());
  EXPECT_TRUE(world.transport().subscribe(ordered()).ok());
  ASSERT_TRUE(first->close().ok());
  world.clock->advance(31s);
  EXPECT_TRUE(world.transport().subscribe(member()).ok()) << "nobody is left that keeps an order";
}

TEST_P(Members, OneThatWasTakenForDeadComesBackWhenNobodyKeepsAnotherOrder) {
  auto first = world.subscribe(ordered());
  world.publish(1, 2);
  ASSERT_EQ(world.take(*first, 1), range(1, 1));
  world.clock->advance(31s);
  auto other = world.subscribe(member());
  EXPECT_EQ(first->renew().value().size(), 1U) << "what it lost is told in any case";
  EXPECT_EQ(code_of(first->renew()), ErrorCode::kTopologyMismatch);
  EXPECT_TRUE(world.take(*first).empty()) << "it would break the order of its keys, or the other would";
  EXPECT_EQ(world.group().member_count, 1U);
  EXPECT_EQ(world.take(*other, 1).size(), 1U);
  ASSERT_TRUE(other->close().ok());
  EXPECT_TRUE(first->renew().ok());
  EXPECT_FALSE(world.take(*first).empty());
}

TEST_P(Members, WhatALeavingMemberHeldIsHandedOutAtOnceAndNobodyIsCharged) {
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

TEST_P(Members, WhatADeadMemberHeldWaitsForTheEndOfItsLease) {
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

TEST_P(Members, AMemberThatHoldsNothingLosesNothingByBeingLate) {
  auto late = world.subscribe();
  world.clock->advance(10min);
  world.publish(1, 1);
  EXPECT_EQ(world.take(*late), range(1, 1));
  EXPECT_TRUE(late->renew().value().empty());
}

TEST_P(Members, ClosingTwiceIsTheSameAsOnceAndAClosedOneReceivesNothing) {
  auto subscription = world.subscribe();
  auto keeper = world.subscribe(member("other"));
  world.publish(1, 1);
  ASSERT_TRUE(subscription->close().ok());
  ASSERT_TRUE(subscription->close().ok());
  spi::ReceiveRequest request;
  request.count_max = 1;
  EXPECT_EQ(code_of(subscription->receive(request)), ErrorCode::kClosed);
  EXPECT_EQ(code_of(subscription->renew()), ErrorCode::kClosed);
  EXPECT_EQ(world.group().waiting, 1U);
}

TEST_P(Members, EachMemberGetsWhatIsNotInTheHandsOfAnother) {
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

TOWLINE_OVER_DRIVERS(Members);

}  // namespace
}  // namespace towline::drivers::testing
