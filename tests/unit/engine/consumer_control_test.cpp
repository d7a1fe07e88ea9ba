// Pausing, draining, resizing and closing one consumer, with its threads: each call returns when what it
// waits for has happened or its time is over, and says which.

#include <atomic>
#include <thread>

#include "engine/consumer_core.hpp"
#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using support::eventually;

TEST(ConsumerControl, DrainingAnIdleConsumerReturnsSoonAndLeavesItPaused) {
  RunningWorld world;
  std::atomic<int> handled{0};
  const auto consumer = world.consume(group_options(), [&](Delivery&) { ++handled; });
  const support::Stopwatch watch;
  ASSERT_TRUE(consumer->drain(20s).ok());
  EXPECT_LT(watch.elapsed(), 900ms * support::slack()) << "it waited for a poll instead of being told";
  EXPECT_TRUE(consumer->statistics().paused);
  world.publish("a");
  EXPECT_TRUE(support::holds_for([&] { return handled == 0; }, 50ms));
  ASSERT_TRUE(consumer->resume().ok());
  EXPECT_TRUE(eventually([&] { return handled == 1; }));
}

TEST(ConsumerControl, DrainWaitsForWhatIsInHandAndTakesInNothingMore) {
  RunningWorld world;
  Gate gate;
  std::atomic<int> handled{0};
  ConsumerOptions options = group_options();
  options.prefetch_count = 4;
  const auto consumer = world.consume(options, [&](Delivery&) {
    gate.wait();
    ++handled;
  });
  for (int i = 0; i < 20; ++i)
    world.publish("m");
  gate.await_waiting();
  ASSERT_TRUE(eventually([&] { return consumer->statistics().in_flight == 5; }));
  std::atomic<bool> drained{false};
  std::thread drainer([&] {
    EXPECT_TRUE(consumer->drain(20s).ok());
    drained = true;
  });
  ASSERT_TRUE(eventually([&] { return consumer->statistics().paused; }));
  EXPECT_FALSE(drained);
  gate.open();
  drainer.join();
  EXPECT_EQ(consumer->statistics().in_flight, 0U);
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_EQ(static_cast<std::uint64_t>(handled.load()) + world.group().waiting, 20U);
  EXPECT_LE(handled, 5);
}

TEST(ConsumerControl, DrainGivesUpAtItsDeadlineAndStaysPaused) {
  RunningWorld world;
  Gate gate;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  EXPECT_EQ(code_of(consumer->drain(20ms)), ErrorCode::kTimeout);
  EXPECT_TRUE(consumer->statistics().paused);
  gate.open();
  EXPECT_TRUE(consumer->drain(20s).ok());
}

TEST(ConsumerControl, WhoeverWaitsWithoutEndWaits) {
  RunningWorld world;
  Gate gate;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { gate.wait(); });
  world.publish("a");
  gate.await_waiting();
  std::thread opener([&] {
    EXPECT_TRUE(eventually([&] { return consumer->statistics().paused; }));
    gate.open();
  });
  EXPECT_TRUE(consumer->drain(Duration::max()).ok());
  opener.join();
  EXPECT_EQ(consumer->close(Duration::max()).value(), 0U);
}

TEST(ConsumerControl, PausingAndResumingTwiceIsTheSameAsOnce) {
  RunningWorld world;
  std::atomic<int> handled{0};
  const auto consumer = world.consume(group_options(), [&](Delivery&) { ++handled; });
  EXPECT_TRUE(consumer->pause().ok());
  EXPECT_TRUE(consumer->pause().ok());
  EXPECT_TRUE(consumer->resume().ok());
  EXPECT_TRUE(consumer->resume().ok());
  world.publish("a");
  EXPECT_TRUE(eventually([&] { return handled == 1; }));
}

TEST(ConsumerControl, AHigherConcurrencyIsUsedAtOnceAndALowerOneFromTheNextHandlerOn) {
  RunningWorld world;
  Gate first, second;
  std::atomic<int> running{0}, running_max{0};
  std::atomic<bool> lowered{false};
  ConsumerOptions options = group_options();
  options.prefetch_count = 50;
  const auto consumer = world.consume(options, [&](Delivery&) {
    const int now = ++running;
    if (lowered && now > running_max) running_max = now;
    (lowered ? second : first).wait();
    --running;
  });
  for (int i = 0; i < 12; ++i)
    world.publish("m");
  first.await_waiting(1);
  ASSERT_TRUE(consumer->set_concurrency(4).ok());
  first.await_waiting(4);
  ASSERT_TRUE(consumer->set_concurrency(1).ok());
  lowered = true;
  second.open();
  first.open();
  EXPECT_TRUE(eventually([&] { return consumer->statistics().acked == 12; }));
  EXPECT_EQ(consumer->statistics().running_max, 4U);
}

TEST(ConsumerControl, AConcurrencyBeyondItsBoundsIsRefusedAndNothingChanges) {
  World world;
  const auto consumer = world.consume(group_options());
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{4097}})
    EXPECT_EQ(code_of(consumer->set_concurrency(count)), ErrorCode::kInvalidConfig) << count;
  EXPECT_TRUE(consumer->set_concurrency(4096).ok());
}

TEST(ConsumerControl, CloseWaitsForTheHandlerAndHandsBackTheRest) {
  RunningWorld world;
  Gate gate;
  ConsumerOptions options = group_options();
  options.prefetch_count = 10;
  const auto consumer = world.consume(options, [&](Delivery&) { gate.wait(); });
  for (int i = 0; i < 5; ++i)
    world.publish("m");
  gate.await_waiting();
  ASSERT_TRUE(eventually([&] { return consumer->statistics().in_flight == 5; }));
  std::thread closer([&] { EXPECT_EQ(consumer->close(20s).value(), 0U); });
  EXPECT_TRUE(eventually([&] { return world.group().waiting == 4; })) << "before the handler returns";
  gate.open();
  closer.join();
  EXPECT_TRUE(consumer->closed());
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_EQ(consumer->statistics().acked, 1U);
}

TEST(ConsumerControl, ClosingTwiceAndFromManyThreadsIsOneClosing) {
  RunningWorld world;
  Gate stuck;
  const auto consumer = world.consume(group_options(), [&](Delivery&) { stuck.wait(); });
  world.publish("a");
  stuck.await_waiting();
  std::vector<std::thread> threads;
  std::array<std::uint64_t, 4> answers{};
  for (std::uint64_t& answer : answers)
    threads.emplace_back([&] { answer = consumer->close(10ms).value(); });
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(answers, (std::array<std::uint64_t, 4>{1, 1, 1, 1})) << "one handler is stuck";
  EXPECT_EQ(world.script->count("close"), 1);
  EXPECT_EQ(consumer->close(std::nullopt).value(), 1U);
  stuck.open();
}

TEST(ConsumerControl, AClosedConsumerAnswersClosedToEverything) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  const auto consumer = world.consume(options);
  world.publish("a");
  world.step(*consumer);
  auto held = consumer->take_one();
  ASSERT_TRUE(held.has_value());
  ASSERT_TRUE(consumer->close(0s).ok());
  EXPECT_EQ(code_of(consumer->pause()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->resume()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->drain(1s)), ErrorCode::kClosed);
  EXPECT_EQ(code_of(consumer->set_concurrency(2)), ErrorCode::kClosed);
  EXPECT_EQ(code_of(held->ack()), ErrorCode::kClosed);
  EXPECT_EQ(code_of(held->extend(1s)), ErrorCode::kClosed);
  EXPECT_TRUE(held->stop_token().stop_requested());
  EXPECT_EQ(held->payload(), "a") << "what it says stays readable";
}

TEST(ConsumerControl, AHandlerThatListensToItsStopTokenIsToldWhenItsTimeToCloseIsOver) {
  RunningWorld world;
  std::atomic<bool> told{false}, running{false};
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    const std::stop_token token = delivery.stop_token();
    running = true;
    Gate gate;
    const std::stop_callback open(token, [&] { gate.open(); });
    gate.wait();
    told = true;
  });
  world.publish("a");
  ASSERT_TRUE(eventually([&] { return running.load(); }));
  EXPECT_EQ(consumer->close(10ms).value(), 0U) << "it left in time";
  EXPECT_TRUE(told);
}

TEST(ConsumerControl, StatisticsTellWhatIsInHandAndWhatRuns) {
  World world;
  ConsumerOptions options = group_options();
  options.concurrency = 2;
  options.prefetch_count = 2;
  const auto consumer = world.consume(options);
  for (int i = 0; i < 3; ++i)
    world.publish("m");
  world.step(*consumer);
  auto running = consumer->take_one();
  ASSERT_TRUE(running.has_value());
  ConsumerStatistics statistics = consumer->statistics();
  EXPECT_EQ(statistics.received, 3U);
  EXPECT_EQ(statistics.in_flight, 3U);
  EXPECT_EQ(statistics.running, 1U);
  EXPECT_EQ(statistics.acked, 0U);
  consumer->run_one(*running);
  world.play(*consumer);
  statistics = consumer->statistics();
  EXPECT_EQ(statistics.acked, 3U);
  EXPECT_EQ(statistics.in_flight, 0U);
  EXPECT_EQ(statistics.running, 0U);
}

}  // namespace
}  // namespace towline::engine
