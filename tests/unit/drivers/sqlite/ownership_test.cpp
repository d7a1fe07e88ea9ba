// Who reads which partition: the plan by itself, which shares evenly, moves little and takes nothing away
// that is in flight; then the same in a file whose members come, die and name what they want.

#include "drivers/sqlite/ownership.hpp"

#include <map>
#include <set>

#include <rapidcheck.h>

#include "world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

std::map<std::int64_t, std::set<std::uint32_t>> owners(const std::vector<Ownership>& partitions) {
  std::map<std::int64_t, std::set<std::uint32_t>> of;
  for (std::uint32_t p = 0; p < partitions.size(); ++p) {
    if (partitions[p].member_id != 0) of[partitions[p].member_id].insert(p);
  }
  return of;
}

TEST(SqlitePartitionPlan, SharesEvenlyAndMovesNoMoreThanItMust) {
  std::vector<Ownership> partitions(64);
  const std::vector<std::uint32_t> idle(64, 0);
  plan_partitions(partitions, std::vector<LiveMember>{{1, {}}}, idle);
  EXPECT_EQ(owners(partitions)[1].size(), 64U);
  const std::vector<LiveMember> three = {{1, {}}, {2, {}}, {3, {}}};
  const std::vector<Ownership> before = partitions;
  plan_partitions(partitions, three, idle);
  EXPECT_EQ(owners(partitions)[1].size(), 22U);
  EXPECT_EQ(owners(partitions)[2].size(), 21U);
  EXPECT_EQ(owners(partitions)[3].size(), 21U);
  for (std::uint32_t p = 0; p < 22; ++p)
    EXPECT_EQ(partitions[p], before[p]);
  EXPECT_EQ(partitions[63].epoch, 2U);
}

TEST(SqlitePartitionPlan, WhatIsInFlightStaysUntilItIsSettled) {
  std::vector<Ownership> partitions(4);
  std::vector<std::uint32_t> in_flight(4, 0);
  plan_partitions(partitions, std::vector<LiveMember>{{1, {}}}, in_flight);
  in_flight[3] = 1;
  const std::vector<LiveMember> two = {{1, {}}, {2, {}}};
  plan_partitions(partitions, two, in_flight);
  EXPECT_EQ(partitions[2].member_id, 2);
  EXPECT_EQ(partitions[3].member_id, 1);
  EXPECT_TRUE(partitions[3].revoking);
  in_flight[3] = 0;
  plan_partitions(partitions, two, in_flight);
  EXPECT_EQ(partitions[3].member_id, 2);
  EXPECT_FALSE(partitions[3].revoking);
}

TEST(SqlitePartitionPlan, NamedPartitionsAreReserved) {
  std::vector<Ownership> partitions(6);
  const std::vector<std::uint32_t> idle(6, 0);
  plan_partitions(partitions, std::vector<LiveMember>{{1, {}}, {2, {4, 5}}, {3, {}}}, idle);
  EXPECT_EQ(owners(partitions)[2], (std::set<std::uint32_t>{4, 5}));
  EXPECT_EQ(owners(partitions)[1].size(), 2U);
  EXPECT_EQ(owners(partitions)[3].size(), 2U);
}

TEST(SqlitePartitionPlan, EveryPartitionThatSomebodyMayReadHasOneOwnerOnceNothingIsInFlight) {
  rc::check([] {
    const auto count = *rc::gen::inRange<std::size_t>(1, 20);
    std::vector<Ownership> partitions(count);
    for (int round = 0; round < 6; ++round) {
      std::vector<LiveMember> members;
      for (std::int64_t id = 1; id <= 5; ++id) {
        if (!*rc::gen::arbitrary<bool>()) continue;
        LiveMember member{id, {}};
        if (*rc::gen::inRange(0, 3) == 0) {
          member.partitions.push_back(static_cast<std::uint32_t>(*rc::gen::inRange<std::size_t>(0, count)));
        }
        members.push_back(member);
      }
      std::vector<std::uint32_t> in_flight(count, 0);
      for (auto& one : in_flight)
        one = *rc::gen::inRange(0, 4) == 0 ? 1 : 0;
      const std::vector<Ownership> before = partitions;
      plan_partitions(partitions, members, in_flight);
      for (std::size_t p = 0; p < count; ++p) {
        // Never from one living member to another while something is in flight.
        if (in_flight[p] > 0) {
          RC_ASSERT(partitions[p].member_id == before[p].member_id || partitions[p].member_id == 0);
        }
        if (partitions[p].member_id != before[p].member_id && partitions[p].member_id != 0) {
          RC_ASSERT(partitions[p].epoch == before[p].epoch + 1);
        }
      }
      plan_partitions(partitions, members, std::vector<std::uint32_t>(count, 0));
      const bool anybody = std::any_of(members.begin(), members.end(),
                                       [](const LiveMember& m) { return m.partitions.empty(); });
      for (std::size_t p = 0; p < count; ++p) {
        RC_ASSERT(!partitions[p].revoking);
        if (anybody) RC_ASSERT(partitions[p].member_id != 0);
      }
      // A plan that was carried out is not changed by planning again.
      const std::vector<Ownership> settled = partitions;
      plan_partitions(partitions, members, std::vector<std::uint32_t>(count, 0));
      RC_ASSERT(partitions == settled);
    }
  });
}

spi::Envelope in_partition(World& world, std::uint64_t number, std::uint32_t partition) {
  spi::Envelope e = world.envelope(number);
  e.partition = partition;
  return e;
}

TEST(SqliteOwnership, EachPartitionIsReadByOneMemberAndEverythingIsRead) {
  World world;
  auto a = world.subscribe(ordered());
  auto b = world.subscribe(ordered());
  for (std::uint64_t n = 0; n < 128; ++n) {
    world.publish(in_partition(world, n, static_cast<std::uint32_t>(n % 64)));
  }
  (void)world.receive(*a, 0);
  (void)world.receive(*b, 0);
  const auto of_a = world.receive(*a);
  const auto of_b = world.receive(*b);
  EXPECT_EQ(of_a.size(), 64U);
  EXPECT_EQ(of_b.size(), 64U);
  std::set<std::uint32_t> partitions_of_a;
  for (const auto& d : of_a)
    partitions_of_a.insert(d.envelope->partition);
  EXPECT_EQ(partitions_of_a.size(), 32U);
  for (const auto& d : of_b)
    EXPECT_FALSE(partitions_of_a.contains(d.envelope->partition));
  EXPECT_EQ(of_a[0].epoch, 1U);
}

TEST(SqliteOwnership, APartitionMovesOnlyWhenNothingOfItIsInHand) {
  World world;
  auto a = world.subscribe(ordered());
  for (std::uint64_t n = 0; n < 64; ++n) {
    world.publish(in_partition(world, n, static_cast<std::uint32_t>(n)));
  }
  const auto held = world.receive(*a);
  ASSERT_EQ(held.size(), 64U);
  auto b = world.subscribe(ordered());
  for (std::uint64_t n = 64; n < 128; ++n) {
    world.publish(in_partition(world, n, static_cast<std::uint32_t>(n % 64)));
  }
  EXPECT_TRUE(world.take(*b).empty());
  const auto more = world.receive(*a);
  // What is to be given up gets nothing new.
  EXPECT_EQ(more.size(), 32U);
  world.settle(*a, held);
  const auto of_b = world.receive(*b);
  EXPECT_EQ(of_b.size(), 32U);
  for (const auto& d : of_b) {
    EXPECT_GE(d.envelope->partition, 32U);
    EXPECT_EQ(d.epoch, 2U);
  }
}

TEST(SqliteOwnership, WhatADeadOwnerHeldComesFirstAndInOrder) {
  World world;
  auto a = world.subscribe(ordered());
  for (std::uint64_t n = 1; n <= 4; ++n)
    world.publish(in_partition(world, n, 7));
  EXPECT_EQ(world.take(*a, 1), range(1, 1));
  EXPECT_EQ(world.take(*a, 1), range(2, 2));
  a.reset();
  auto b = world.subscribe(ordered());
  EXPECT_TRUE(world.take(*b).empty());
  world.clock->advance(31s);
  b->renew().value();
  for (std::uint64_t n = 1; n <= 2; ++n) {
    const auto got = world.receive(*b);
    ASSERT_EQ(numbers_of(got), range(n, n));
    world.settle(*b, got);
  }
  EXPECT_EQ(world.take(*b), range(3, 4));
}

TEST(SqliteOwnership, MembersMayNameTheirPartitions) {
  World world;
  auto options = ordered();
  options.partitions = {3, 5};
  auto a = world.subscribe(options);
  auto b = world.subscribe(ordered());
  for (std::uint64_t n = 0; n < 64; ++n) {
    world.publish(in_partition(world, n, static_cast<std::uint32_t>(n)));
  }
  (void)world.receive(*a, 0);
  (void)world.receive(*b, 0);
  EXPECT_EQ(world.take(*a), (std::vector<std::uint64_t>{3, 5}));
  EXPECT_EQ(world.receive(*b).size(), 62U);
}

TEST(SqliteOwnership, AGroupThatBecomesOrderedKeepsWhatItHasReadAndWhatIsInHand) {
  World world;
  auto a = world.subscribe(member());
  for (std::uint64_t n = 1; n <= 6; ++n)
    world.publish(in_partition(world, n, 9));
  const auto held = world.receive(*a, 2);
  world.settle(*a, held[0]);
  ASSERT_TRUE(a->close().ok());
  auto b = world.subscribe(ordered());
  EXPECT_EQ(world.take(*b), range(2, 6));
}

TEST(SqliteOwnership, SettledMessagesOfAnOrderedGroupAreRemoved) {
  World world;
  auto a = world.subscribe(ordered());
  for (std::uint64_t n = 0; n < 20; ++n) {
    world.publish(in_partition(world, n, static_cast<std::uint32_t>(n % 3)));
  }
  world.settle(*a, world.receive(*a));
  EXPECT_EQ(world.sweep().messages, 20U);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
