// Where every message is, as the checkers ask: one place per group that is not done with it, and none when
// all are.

#include "drivers/memory/inspect.hpp"

#include "drivers/sqlite/sqlite.hpp"
#include "support/temp_dir.hpp"
#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

using Places = std::vector<Place>;

TEST(MemoryInspect, AMessageIsKeptThenWaitsThenIsInFlightThenNowhere) {
  World world;
  world.publish(1, 1);
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kKept, "t", ""}}));
  auto subscription = world.subscribe();
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kWaiting, "t", "g"}}));
  const auto held = world.receive(*subscription);
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kInFlight, "t", "g"}}));
  EXPECT_TRUE(world.settle(*subscription, held).empty());
  EXPECT_EQ(world.places(1), Places{});
}

TEST(MemoryInspect, EveryGroupHasItsOwnPlace) {
  World world;
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(member("b"));
  world.publish(1, 1);
  const auto held = world.receive(*a);
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kWaiting, "t", "b"}, {PlaceKind::kInFlight, "t", "a"}}));
  EXPECT_TRUE(world.settle(*a, held, spi::Verb::kRelease).empty());
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kWaiting, "t", "a"}, {PlaceKind::kWaiting, "t", "b"}}));
}

TEST(MemoryInspect, RecordsAreFoundByTheirMessage) {
  World world;
  spi::ScheduleRecord retry = world.record(1, 1h);
  retry.id = make_id(1000);
  retry.envelope.group = "g";
  DeadLetter letter;
  letter.id = make_id(2000);
  letter.message_id = make_id(1);
  letter.topic = "t";
  letter.group = "h";
  ASSERT_TRUE(world.write(spi::PutSchedule{retry}, spi::PutDeadLetter{letter}).ok());
  EXPECT_EQ(world.places(1), (Places{{PlaceKind::kScheduled, "t", "g"}, {PlaceKind::kDeadLetter, "t", "h"}}));
  EXPECT_EQ(world.places(1000), Places{}) << "the id of a record names no message";
  EXPECT_EQ(world.places(2000), Places{});
}

TEST(MemoryInspect, AParkedMessageIsBehindItsKey) {
  World world;
  spi::KeyBlock block;
  block.group = "g";
  block.topic = "t";
  block.key = "k";
  spi::ScheduleRecord parked = world.record(3, 0s);
  parked.envelope.group = "g";
  parked.parked = true;
  parked.order_key = "k";
  ASSERT_TRUE(world.write(spi::PutKeyBlock{block}, spi::PutSchedule{parked}).ok());
  EXPECT_EQ(world.places(3), (Places{{PlaceKind::kParked, "t", "g"}}));
}

TEST(MemoryInspect, WhatRetentionKeepsButNobodyIsOwedIsNowhere) {
  World world;
  spi::Topology topology;
  topology.topic = "t";
  topology.retention = 1h;
  ASSERT_TRUE(world.transport().declare(topology).ok());
  auto subscription = world.subscribe();
  world.publish(1, 1);
  EXPECT_TRUE(world.settle(*subscription, world.receive(*subscription)).empty());
  EXPECT_EQ(world.places(1), Places{});
}

TEST(MemoryInspect, ATransportOfAnotherDriverIsNotLookedInto) {
  const support::TempDir folder;
  spi::DriverOptions options;
  options.location = folder.file("a.db");
  options.clock = std::make_shared<VirtualClock>();
  options.threads = false;
  const spi::Provider other = open_sqlite(options).value();
  EXPECT_EQ(inspect(*other.transport), std::nullopt);
}

}  // namespace
}  // namespace towline::drivers::memory::testing
