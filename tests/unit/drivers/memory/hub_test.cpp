// The bound on what a location keeps, and the look inside that checkers take.

#include "unit/drivers/memory/world.hpp"

namespace towline::drivers::memory::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class MemoryBound : public ::testing::Test {
 protected:
  static constexpr std::size_t kPayload = 10'000;

  [[nodiscard]] spi::Envelope large(std::uint64_t number) const {
    spi::Envelope envelope = world.envelope(number);
    envelope.payload.assign(kPayload, 'x');
    return envelope;
  }
  /// Publishes until the bound; returns how many were stored.
  std::uint64_t fill() {
    for (std::uint64_t n = 1;; ++n) {
      std::vector<spi::Envelope> one = {large(n)};
      const auto answer = world.transport().publish(one, {});
      if (answer) continue;
      EXPECT_EQ(answer.error().code, ErrorCode::kOverloaded);
      EXPECT_EQ(one[0].payload.size(), kPayload) << "moved from only on success";
      return n - 1;
    }
  }

  World world{"", false, {{"bytes_max", "100000"}}};
};

TEST_F(MemoryBound, PublishingAndSchedulingAreRefusedAtTheBound) {
  auto subscription = world.subscribe();
  const std::uint64_t count = fill();
  EXPECT_EQ(count, 9U);
  EXPECT_LE(world.bytes(), 100'000U);
  spi::ScheduleRecord record = world.record(50, 1s);
  record.envelope.payload.assign(kPayload, 'x');
  EXPECT_EQ(code_of(world.write(spi::PutSchedule{record})), ErrorCode::kOverloaded);
  EXPECT_EQ(code_of(world.write(spi::Publish{large(51)})), ErrorCode::kOverloaded);
  EXPECT_EQ(world.take(*subscription), range(1, count));
}

TEST_F(MemoryBound, ManyWritesOfOneCommitAreMeasuredTogether) {
  std::vector<spi::Unit> units;
  for (std::uint64_t n = 1; n <= 20; ++n)
    units.push_back({{spi::Publish{large(n)}}});
  const auto results = world.store().commit(units).value();
  EXPECT_TRUE(results[8].ok());
  EXPECT_EQ(code_of(results[9]), ErrorCode::kOverloaded);
  EXPECT_LE(world.bytes(), 100'000U);
}

TEST_F(MemoryBound, ADuplicateIsAnsweredEvenBeyondTheBound) {
  spi::Envelope first = large(1);
  first.dedup_id = "d";
  first.dedup_mode = DedupMode::kWhileUnfinished;
  world.publish(first);
  (void)fill();
  DeadLetter letter;
  letter.id = make_id(90);
  letter.payload.assign(200'000, 'x');
  ASSERT_TRUE(world.write(spi::PutDeadLetter{letter}).ok());
  EXPECT_GT(world.bytes(), 100'000U);
  EXPECT_TRUE(world.publish(first).at(0).duplicate);
}

TEST_F(MemoryBound, WhatEndsADeliveryIsNeverRefused) {
  auto subscription = world.subscribe();
  const std::uint64_t count = fill();
  const auto held = world.receive(*subscription);
  ASSERT_EQ(held.size(), count);
  std::vector<spi::Unit> units;
  for (std::uint64_t i = 0; i < count; ++i) {
    spi::Unit unit;
    unit.writes.push_back(spi::Settle{{held[i].token, spi::Verb::kAck}});
    if (i % 2 == 0) {
      spi::ScheduleRecord retry = world.record(100 + i, 1s);
      retry.envelope = *held[i].envelope;
      retry.envelope.group = "g";
      unit.writes.push_back(spi::PutSchedule{retry});
    } else {
      DeadLetter letter;
      letter.id = make_id(200 + i);
      letter.payload = held[i].envelope->payload;
      unit.writes.push_back(spi::PutDeadLetter{letter});
    }
    units.push_back(std::move(unit));
  }
  spi::ReceiveRequest request;
  request.units = units;
  EXPECT_TRUE(subscription->receive(request).value().units.empty());
  EXPECT_EQ(world.store().statistics().value().scheduled, (count + 1) / 2);
}

TEST_F(MemoryBound, RoomComesBackWhenMessagesAreSettled) {
  auto subscription = world.subscribe();
  (void)fill();
  world.settle(*subscription, world.receive(*subscription));
  std::vector<spi::Envelope> one = {large(60)};
  EXPECT_TRUE(world.transport().publish(one, {}).ok());
}

TEST_F(MemoryBound, WhatMayGoGoesBeforeAnythingIsRefused) {
  spi::Topology topology;
  topology.topic = "t";
  topology.retention = 10s;
  ASSERT_TRUE(world.transport().declare(topology).ok());
  auto subscription = world.subscribe();
  (void)fill();
  world.settle(*subscription, world.receive(*subscription));
  std::vector<spi::Envelope> one = {large(60)};
  EXPECT_EQ(code_of(world.transport().publish(one, {})), ErrorCode::kOverloaded)
      << "the retention keeps them";
  world.clock->advance(10s);
  EXPECT_TRUE(world.transport().publish(one, {}).ok());
}

TEST(MemoryInspect, FollowsAMessageFromPlaceToPlace) {
  World world;
  world.publish(1, 1);
  EXPECT_EQ(world.places(1), (std::vector<Place>{{PlaceKind::kKept, "t", ""}}));
  auto a = world.subscribe(member("a"));
  auto b = world.subscribe(ordered("b"));
  const std::vector<Place> waiting = {{PlaceKind::kWaiting, "t", "a"}, {PlaceKind::kWaiting, "t", "b"}};
  EXPECT_EQ(world.places(1), waiting);
  const auto of_a = world.receive(*a);
  const auto of_b = world.receive(*b);
  EXPECT_EQ(world.places(1),
            (std::vector<Place>{{PlaceKind::kInFlight, "t", "a"}, {PlaceKind::kInFlight, "t", "b"}}));
  world.settle(*b, of_b, spi::Verb::kRelease);
  EXPECT_EQ(world.places(1),
            (std::vector<Place>{{PlaceKind::kWaiting, "t", "b"}, {PlaceKind::kInFlight, "t", "a"}}));
  world.settle(*a, of_a);
  world.settle(*b, world.receive(*b));
  EXPECT_TRUE(world.places(1).empty());
  DeadLetter letter;
  letter.id = make_id(9);
  letter.message_id = make_id(1);
  letter.topic = "t";
  letter.group = "a";
  ASSERT_TRUE(world.write(spi::PutDeadLetter{letter}).ok());
  EXPECT_EQ(world.places(1), (std::vector<Place>{{PlaceKind::kDeadLetter, "t", "a"}}));
}

}  // namespace
}  // namespace towline::drivers::memory::testing
