// What is kept of topics, by the bytes it costs.

#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

using Kind = spi::TopicKind;

spi::Topology topology(Kind kind) {
  spi::Topology topology;
  topology.topic = "t";
  topology.kind = kind;
  return topology;
}

TEST(MemoryTopics, AMessageGoesWhenTheLastGroupHasSettledIt) {
  World world;
  (void)world.transport().topology("t", 64);
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  const std::uint64_t empty = world.bytes();
  world.publish(1, 10);
  world.settle(*a, world.receive(*a));
  EXPECT_GT(world.bytes(), empty);
  world.settle(*b, world.receive(*b));
  EXPECT_EQ(world.bytes(), empty);
}

TEST(MemoryTopics, AHeldMessagePinsOnlyItsOwnBatch) {
  World world;
  (void)world.transport().topology("t", 64);
  auto subscription = world.subscribe();
  const std::uint64_t empty = world.bytes();
  world.publish(1, 1);
  const std::uint64_t one = world.bytes() - empty;
  const auto held = world.receive(*subscription);
  for (std::uint64_t n = 2; n <= 100; ++n) {
    world.publish(n, n);
    world.settle(*subscription, world.receive(*subscription));
  }
  EXPECT_EQ(world.bytes(), empty + one);
  world.settle(*subscription, held);
  EXPECT_EQ(world.bytes(), empty);
}

TEST(MemoryTopics, ADeadEphemeralSubscriberIsNotWaitedFor) {
  World world;
  auto group = world.subscribe();
  world.publish(1, 1);
  world.settle(*group, world.receive(*group));
  const std::uint64_t empty = world.bytes();
  spi::SubscribeOptions options = ephemeral();
  options.lease = 2s;
  auto listener = world.subscribe(options);
  listener.reset();
  world.publish(2, 2);
  world.settle(*group, world.receive(*group));
  EXPECT_GT(world.bytes(), empty);
  world.clock->advance(2s);
  (void)world.store().sweep({world.clock->now()});
  EXPECT_EQ(world.bytes(), empty);
}

TEST(MemoryTopics, ABusKeepsNothingForTheAbsent) {
  World world;
  ASSERT_TRUE(world.transport().declare(topology(Kind::kBus)).ok());
  const std::uint64_t empty = world.bytes();
  world.publish(1, 1);
  EXPECT_EQ(world.bytes(), empty);
  auto listener = world.subscribe(ephemeral());
  world.publish(2, 3);
  EXPECT_EQ(world.take(*listener), range(2, 3));
  EXPECT_EQ(world.bytes(), empty);
  auto group = world.subscribe();
  world.publish(4, 4);
  EXPECT_EQ(world.take(*group), range(4, 4));
}

TEST(MemoryTopics, AGroupOnABusGetsWhatComesWhileAMemberLives) {
  World world;
  ASSERT_TRUE(world.transport().declare(topology(Kind::kBus)).ok());
  auto group = world.subscribe();
  const std::uint64_t empty = world.bytes();
  world.publish(1, 2);
  const auto held = world.receive(*group, 1);
  EXPECT_TRUE(group->close().ok());
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(world.bytes(), empty);
  world.publish(3, 3);
  group = world.subscribe();
  world.publish(4, 4);
  EXPECT_EQ(world.take(*group), range(4, 4));
}

}  // namespace
}  // namespace towline::drivers::memory::testing
