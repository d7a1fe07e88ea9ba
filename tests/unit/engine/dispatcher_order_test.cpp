// What a consumer holds and parks, over the whole way from the intake to the settler: the bounds of both, and
// that a key keeps its order when something of it goes back, is lost, or cannot be asked for.

#include "engine/dispatcher.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using Names = std::vector<std::string>;

ConsumerOptions by_key() {
  ConsumerOptions options = group_options();
  options.order = Order::kKeyOrdered;
  options.retry = retry_after(10s);
  return options;
}

std::function<void(Delivery&)> fails(std::string name, int times) {
  return [name = std::move(name), left = times](Delivery& delivery) mutable {
    if (delivery.payload() == name && left-- > 0) throw HandlerError("Flaky", "again");
  };
}

Message unfinished(std::string payload, std::string dedup_id) {
  Message message;
  message.topic = "t";
  message.payload = std::move(payload);
  message.dedup_id = std::move(dedup_id);
  message.dedup_mode = DedupMode::kWhileUnfinished;
  return message;
}

// ---- parked_count_max ---------------------------------------------------------------------------

TEST(DispatcherOrder, WhatIsParkedStaysWithinItsBoundHoweverLongTheHeadFails) {
  World world;
  ConsumerOptions options = by_key();
  options.parked_count_max = 10;
  options.prefetch_count = 5;
  options.retry.max_attempts = 1000;
  const auto consumer = world.consume(options, fails("A0", 100));
  for (int i = 0; i < 60; ++i)
    world.publish("A" + std::to_string(i), "A");
  for (int round = 0; round < 100; ++round) {
    world.play(*consumer);
    EXPECT_LE(world.parked().size(), 10U) << "in round " << round;
    world.clock->advance(10s);
  }
  for (int round = 0; round < 60; ++round) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  EXPECT_EQ(world.parked().size(), 0U);
  Names once(world.handled.begin() + 100, world.handled.end());
  ASSERT_EQ(once.size(), 60U) << "after its failures the head and all that waited for it";
  for (std::size_t i = 0; i < once.size(); ++i)
    EXPECT_EQ(once[i], "A" + std::to_string(i));
}

TEST(DispatcherOrder, AKeyThatIsReleasedByHandAtTheBoundLetsTheOthersIn) {
  World world;
  ConsumerOptions options = by_key();
  options.parked_count_max = 2;
  const auto consumer = world.consume(options, fails("A0", 1));
  for (const char* name : {"A0", "A1", "A2", "B0"})
    world.publish(name, std::string(name).substr(0, 1));
  world.play(*consumer);
  ASSERT_EQ(world.parked().size(), 2U);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(world.core->release_key("g", "t", "A").ok());
  for (int round = 0; round < 5; ++round) {
    world.clock->advance(10s);
    world.play(*consumer);
  }
  EXPECT_EQ(std::count(world.handled.begin(), world.handled.end(), "B0"), 1);
  EXPECT_EQ(world.group().waiting, 0U);
}

// ---- order when something goes back ---------------------------------------------------------------

TEST(DispatcherOrder, AnErrorWhileAskingForABlockIsNotTheEndOfTheBlock) {
  World world;
  const auto consumer = world.consume(by_key(), fails("A0", 1));
  for (const char* name : {"A0", "A1", "A2"})
    world.publish(name, "A");
  world.play(*consumer);
  world.clock->advance(10s);
  world.script->fail("list_key_blocks", unavailable(), 1);
  for (int round = 0; round < 5; ++round) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  world.publish("A3", "A");
  for (int round = 0; round < 5; ++round) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  EXPECT_EQ(world.handled, (Names{"A0", "A0", "A1", "A2", "A3"}));
  EXPECT_TRUE(world.blocks().empty());
  EXPECT_TRUE(world.parked().empty());
}

// ---- acknowledged first ---------------------------------------------------------------------------

TEST(DispatcherOrder, AFirstAcknowledgementWithoutAnAnswerIsGivenAgainAndNothingStaysInFlight) {
  for (const bool executed : {false, true}) {
    World world;
    ConsumerOptions options = group_options();
    options.ack = AckPolicy::kFirst;
    const auto consumer = world.consume(options);
    world.publish("a");
    // The second receive is the one that acknowledges, and its answer is lost.
    int receives = 0;
    world.script->before("receive", [&] {
      if (++receives == 1) world.script->fail("receive", unavailable(), 1, executed);
    });
    for (int round = 0; round < 5; ++round) {
      world.play(*consumer);
      world.clock->advance(1s);
    }
    EXPECT_EQ(world.handled.size(), executed ? 0U : 1U);
    EXPECT_EQ(world.group().in_flight, 0U);
    EXPECT_EQ(world.counters().in_flight_count.load(), 0U);
  }
}

// ---- dedup ids while unfinished -------------------------------------------------------------------

TEST(DispatcherOrder, AcknowledgedFirstADedupIdIsFreeAtOnce) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kFirst;
  const auto consumer = world.consume(options);
  (void)world.publish(unfinished("a", "d"));
  world.play(*consumer);
  (void)world.publish(unfinished("b", "d"));
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"a", "b"}));
}

TEST(DispatcherOrder, ADeadLetterThatHoldsItsKeyFreesItsDedupId) {
  World world;
  ConsumerOptions options = by_key();
  options.on_key_failure = KeyFailure::kParkKey;
  options.retry.max_attempts = 1;
  const auto consumer = world.consume(options, fails("a", 1));
  Message first = unfinished("a", "d");
  first.key = "A";
  (void)world.publish(std::move(first));
  world.play(*consumer);
  ASSERT_EQ(world.blocks().size(), 1U);
  EXPECT_TRUE(world.blocks()[0].held);
  (void)world.publish(unfinished("b", "d"));
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"a", "b"}));
}

}  // namespace
}  // namespace towline::engine
