// What every station of one engine shares: whether it is open, its ids, its random numbers, and what it
// remembers of topics.

#include "engine/context.hpp"

#include <set>
#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

TEST(Context, IsOpenUntilItIsClosed) {
  World world;
  Context& context = world.core->context();
  EXPECT_TRUE(context.check_open().ok());
  EXPECT_FALSE(context.stop_token().stop_requested());
  context.mark_closed();
  EXPECT_EQ(code_of(context.check_open()), ErrorCode::kClosed);
  EXPECT_TRUE(context.stop_token().stop_requested());
}

TEST(Context, TheFirstFailureWinsAndIsLoggedOnce) {
  World world;
  Context& context = world.core->context();
  context.fail({ErrorCode::kIoError, "first"});
  context.fail({ErrorCode::kInternal, "second"});
  EXPECT_EQ(code_of(context.check_open()), ErrorCode::kIoError);
  ASSERT_TRUE(context.failure());
  EXPECT_EQ(context.failure()->message, "first");
  EXPECT_EQ(world.log, std::vector<std::string>{"engine: stopped: ERR_IO: first"});
}

TEST(Context, IdsGrowWithTimeAndNeverRepeat) {
  World world;
  Context& context = world.core->context();
  std::set<MessageId> seen;
  MessageId last;
  for (int i = 0; i < 1000; ++i) {
    const MessageId id = context.make_id();
    EXPECT_LT(last, id);
    EXPECT_TRUE(seen.insert(id).second);
    last = id;
    if (i % 100 == 0) world.clock->advance(1ms);
  }
  std::vector<MessageId> many(100);
  context.make_ids(many, context.clock->now());
  EXPECT_LT(last, many.front());
  EXPECT_TRUE(std::is_sorted(many.begin(), many.end()));
}

TEST(Context, TheSameSeedGivesTheSameIdsAndTheSameStreams) {
  World one({.seed = 5});
  World two({.seed = 5});
  World other({.seed = 6});
  const MessageId id = one.core->context().make_id();
  EXPECT_EQ(id, two.core->context().make_id());
  EXPECT_NE(id, other.core->context().make_id());
  base::SeededRng first = one.core->context().make_rng();
  base::SeededRng second = one.core->context().make_rng();
  base::SeededRng again = two.core->context().make_rng();
  const std::uint64_t drawn = first.next();
  EXPECT_EQ(drawn, again.next());
  EXPECT_NE(drawn, second.next()) << "each station has a stream of its own";
}

TEST(Context, ATopicIsAskedForOnce) {
  World world({.engine = {.partition_count = 8}});
  Context& context = world.core->context();
  EXPECT_EQ(context.partition_count("t").value(), 8U);
  EXPECT_EQ(context.partition_count("t").value(), 8U);
  EXPECT_EQ(world.script->count("topology t"), 1);
  EXPECT_EQ(context.partition_count("u").value(), 8U);
  EXPECT_EQ(world.script->count("topology u"), 1);
}

TEST(Context, ATopicThatCouldNotBeAskedForIsAskedForAgain) {
  World world;
  Context& context = world.core->context();
  world.script->fail("topology", unavailable());
  EXPECT_EQ(code_of(context.partition_count("t")), ErrorCode::kUnavailable);
  EXPECT_EQ(context.partition_count("t").value(), 64U);
}

TEST(Context, WhatItRemembersOfTopicsIsBounded) {
  World world;
  Context& context = world.core->context();
  for (int i = 0; i < 10001; ++i)
    ASSERT_TRUE(context.partition_count("topic-" + std::to_string(i)).ok());
  // The first one was forgotten, and is asked for again.
  ASSERT_TRUE(context.partition_count("topic-0").ok());
  EXPECT_EQ(world.script->count("topology topic-0"), 2);
}

TEST(Context, LatenessIsMeasuredAndNeverNegative) {
  World world;
  Context& context = world.core->context();
  context.record_lateness(std::vector<Duration>{100us, 200us, -50us});
  EXPECT_EQ(context.lateness().count(), 3U);
  EXPECT_NEAR(static_cast<double>(context.lateness().max()), 200.0, 10.0);
  EXPECT_EQ(context.lateness().quantile(0.0), 0U);
}

TEST(Context, APauseEndsWithTheClockOrWithTheEngine) {
  RunningWorld world({}, std::make_shared<VirtualClock>());
  auto& clock = static_cast<VirtualClock&>(*world.clock);
  Context& context = world.core->context();
  std::atomic<int> ended = 0;
  std::thread first([&] {
    context.pause_until(clock.monotonic() + 10s);
    ++ended;
  });
  // The pause may not have begun yet; then the clock is moved on until it has.
  EXPECT_TRUE(support::eventually([&] {
    clock.advance(1s);
    return ended == 1;
  }));
  first.join();
  std::thread second([&] {
    context.pause_until(MonotonicTime::max());
    ++ended;
  });
  context.mark_closed();
  second.join();
  EXPECT_EQ(ended, 2);
  context.pause_until(MonotonicTime::max());  // closed already: returns at once
}

}  // namespace
}  // namespace towline::engine
