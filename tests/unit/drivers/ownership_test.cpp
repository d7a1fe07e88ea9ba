// Partitions of ordered groups: who owns which, when they move, and in which order what is left behind comes.

#include <map>
#include <set>

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class Ownership : public OverDrivers {
 protected:
  Ownership() {
    spi::Topology topology;
    topology.topic = "t";
    topology.partition_count = 4;
    EXPECT_TRUE(world.transport().declare(topology).ok());
  }

  /// One message for each partition: number 10 * round + partition.
  void publish_round(std::uint64_t round) {
    std::vector<spi::Envelope> envelopes;
    for (std::uint32_t p = 0; p < 4; ++p) {
      envelopes.push_back(world.envelope(10 * round + p));
      envelopes.back().partition = p;
    }
    EXPECT_TRUE(world.publish(std::move(envelopes)).empty());
  }
  static std::set<std::uint32_t> partitions_of(const std::vector<spi::Delivery>& deliveries) {
    std::set<std::uint32_t> partitions;
    for (const spi::Delivery& delivery : deliveries)
      partitions.insert(delivery.envelope->partition);
    return partitions;
  }
  [[nodiscard]] static spi::SubscribeOptions only(std::vector<std::uint32_t> partitions) {
    spi::SubscribeOptions options = ordered();
    options.partitions = std::move(partitions);
    return options;
  }
};

TEST_P(Ownership, OneMemberOwnsAllAndReadsInOrder) {
  auto a = world.subscribe(ordered());
  publish_round(1);
  publish_round(2);
  const auto got = world.receive(*a);
  EXPECT_EQ(numbers_of(got), (Numbers{10, 11, 12, 13, 20, 21, 22, 23}));
  for (const spi::Delivery& delivery : got)
    EXPECT_EQ(delivery.epoch, 1U);
}

TEST_P(Ownership, MembersShareEvenly) {
  auto a = world.subscribe(ordered());
  auto b = world.subscribe(ordered());
  auto c = world.subscribe(ordered());
  publish_round(1);
  const auto of_a = partitions_of(world.receive(*a));
  const auto of_b = partitions_of(world.receive(*b));
  const auto of_c = partitions_of(world.receive(*c));
  EXPECT_EQ(of_a.size(), 2U);
  EXPECT_EQ(of_b.size(), 1U);
  EXPECT_EQ(of_c.size(), 1U);
  EXPECT_EQ(world.group().waiting, 0U);
}

TEST_P(Ownership, ASurplusIsGivenUpOnlyWhenNothingOfItIsHeld) {
  auto a = world.subscribe(ordered());
  publish_round(1);
  const auto held = world.receive(*a);
  auto b = world.subscribe(ordered());
  publish_round(2);
  EXPECT_EQ(world.take(*b), Numbers{});
  EXPECT_EQ(world.take(*a), (Numbers{20, 21})) << "what it is about to give up gets nothing more";
  world.settle(*a, held[2]);
  auto got = world.receive(*b);
  EXPECT_EQ(numbers_of(got), (Numbers{22}));
  EXPECT_EQ(got[0].epoch, 2U);
  world.settle(*a, held[3]);
  got = world.receive(*b);
  EXPECT_EQ(numbers_of(got), (Numbers{23}));
  EXPECT_EQ(world.take(*a), Numbers{});
}

TEST_P(Ownership, WhatAnOwnerReleasesOnLeavingComesFirstForTheNext) {
  auto a = world.subscribe(ordered());
  auto b = world.subscribe(ordered());
  publish_round(1);
  publish_round(2);
  const auto of_a = world.receive(*a, 3);
  EXPECT_EQ(numbers_of(of_a), (Numbers{10, 11, 20}));
  world.settle(*a, of_a[0]);
  EXPECT_TRUE(a->close().ok());
  const auto of_b = world.receive(*b);
  EXPECT_EQ(numbers_of(of_b), (Numbers{11, 20, 12, 13, 21, 22, 23}));
  EXPECT_TRUE(of_b[0].redelivered);
  EXPECT_EQ(of_b[0].epoch, 2U);
}

TEST_P(Ownership, ADeadOwnersPartitionsMoveWhenItsLeaseEnds) {
  auto a = world.subscribe(ordered());
  auto b = world.subscribe(ordered());
  publish_round(1);
  EXPECT_EQ(world.take(*a, 1), (Numbers{10}));
  a.reset();
  EXPECT_EQ(world.take(*b), (Numbers{12, 13}));
  world.clock->advance(30s - 1us);
  EXPECT_TRUE(b->renew().value().empty());
  EXPECT_EQ(world.take(*b), Numbers{});
  world.clock->advance(1us);
  // It was alone in dead hands, so it comes alone, and only to empty hands.
  EXPECT_EQ(world.take(*b), Numbers{});
  EXPECT_TRUE(b->close().ok());
  b = world.subscribe(ordered());
  const auto first = world.receive(*b);
  EXPECT_EQ(numbers_of(first), (Numbers{10}));
  EXPECT_EQ(first[0].crashes, 1U);
  EXPECT_EQ(first[0].epoch, 3U) << "the first owner, the member that closed, and this one";
  world.settle(*b, first);
  EXPECT_EQ(world.take(*b), (Numbers{12, 13, 11}));
}

TEST_P(Ownership, NamedPartitionsAreReserved) {
  auto shares = world.subscribe(ordered());
  auto names = world.subscribe(only({2}));
  publish_round(1);
  EXPECT_EQ(partitions_of(world.receive(*shares)), (std::set<std::uint32_t>{0, 1, 3}));
  EXPECT_EQ(partitions_of(world.receive(*names)), (std::set<std::uint32_t>{2}));
  auto second = world.subscribe(only({2, 3}));
  publish_round(2);
  EXPECT_EQ(world.take(*second), Numbers{}) << "2 has its owner, 3 is still held";
  EXPECT_TRUE(shares->close().ok());
  EXPECT_EQ(world.take(*second), (Numbers{13, 23}));
  EXPECT_TRUE(names->close().ok());
  EXPECT_EQ(world.take(*second), (Numbers{12, 22}));
}

TEST_P(Ownership, PartitionsThatNobodyReadsKeepTheirMessages) {
  auto names = world.subscribe(only({1}));
  publish_round(1);
  world.settle(*names, world.receive(*names));
  EXPECT_EQ(world.group().waiting, 3U);
  EXPECT_TRUE(names->close().ok());
  auto all = world.subscribe();
  EXPECT_EQ(world.take(*all), (Numbers{10, 12, 13}));
}

TEST_P(Ownership, AGroupThatBecomesOrderedKeepsWhatItHolds) {
  auto plain = world.subscribe();
  publish_round(1);
  const auto held = world.receive(*plain, 2);
  publish_round(2);
  world.settle(*plain, held[1]);
  ASSERT_TRUE(plain->close().ok());
  auto strict = world.subscribe(ordered());
  EXPECT_EQ(world.take(*strict), (Numbers{10, 12, 13, 20, 21, 22, 23}));
}

TEST_P(Ownership, PrioritiesHaveTheirOwnOrderWithinAPartition) {
  auto a = world.subscribe(ordered());
  publish_round(1);
  spi::Envelope urgent = world.envelope(99);
  urgent.priority = 3;
  urgent.partition = 2;
  world.publish(urgent);
  EXPECT_EQ(world.take(*a), (Numbers{99, 10, 11, 12, 13}));
}

TEST_P(Ownership, MoreMembersThanPartitionsLeaveSomeIdle) {
  std::vector<std::unique_ptr<spi::Subscription>> members;
  for (int i = 0; i < 6; ++i)
    members.push_back(world.subscribe(ordered()));
  publish_round(1);
  std::size_t busy = 0;
  for (auto& member : members)
    busy += world.take(*member).size();
  EXPECT_EQ(busy, 4U);
  members.erase(members.begin(), members.begin() + 5);
  world.clock->advance(30s);
  EXPECT_EQ(world.take(*members[0]).size(), 1U) << "each was alone in dead hands: one at a time";
}

TEST_P(Ownership, APayloadBudgetDoesNotSkipAnything) {
  auto a = world.subscribe(ordered());
  publish_round(1);
  publish_round(2);
  spi::ReceiveRequest request;
  request.count_max = 100;
  request.payload_bytes_max = 20;
  Numbers all;
  for (int i = 0; i < 10; ++i) {
    for (const std::uint64_t n : numbers_of(a->receive(request).value().deliveries))
      all.push_back(n);
  }
  EXPECT_EQ(all, (Numbers{10, 11, 12, 13, 20, 21, 22, 23}));
}

TOWLINE_OVER_DRIVERS(Ownership);

}  // namespace
}  // namespace towline::drivers::testing
