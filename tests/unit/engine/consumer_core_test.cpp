// The lane of one consumer, stepped by hand: what it refuses to begin with, how much it takes in, what never
// reaches a handler, and that an outage of the provider makes it wait instead of run.

#include "engine/consumer_core.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using Names = std::vector<std::string>;

std::optional<ErrorCode> refusal(World& world, const ConsumerOptions& options,
                                 std::vector<std::string> patterns = {"t"}) {
  return code_of(world.core->consume(std::move(patterns), options, Handler([](Delivery&) {})));
}

// ---- what cannot begin --------------------------------------------------------------------------

TEST(ConsumerCore, OptionsThatContradictEachOtherAreRefusedBeforeItSubscribes) {
  World world;
  ConsumerOptions options = group_options("");
  options.order = Order::kKeyOrdered;
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidConfig) << "no group, so no order to keep";
  options = group_options("");
  options.inbox_window = 24h;
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidConfig) << "no group, so no inbox";
  options = key_ordered();
  options.ack = AckPolicy::kFirst;
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidConfig) << "at most once cannot keep order";
  options = group_options();
  options.filter = "a =";
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidFilter);
  EXPECT_EQ(refusal(world, group_options("a b")), ErrorCode::kInvalidName);
  EXPECT_EQ(refusal(world, group_options(), {}), ErrorCode::kInvalidTopic);
  EXPECT_EQ(refusal(world, group_options(), {"t", "a..b"}), ErrorCode::kInvalidTopic);
  EXPECT_EQ(world.script->count("subscribe"), 0);
}

TEST(ConsumerCore, AnInboxMustRememberLongerThanAMessageCanComeAgain) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(1s, 3);
  options.retry.delay_max = 10s;
  options.handler_timeout = 5s;
  // Two leases of 30 s, the handler's 5 s, two waits of 10 s at most.
  const Duration horizon = 60s + 5s + 20s;
  options.inbox_window = horizon - 1ms;
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidConfig);
  options.inbox_window = horizon;
  EXPECT_EQ(refusal(world, options), std::nullopt);
}

TEST(ConsumerCore, APartitionThatATopicDoesNotHaveIsRefused) {
  World world;
  ASSERT_TRUE(world.core->declare_topic("t", {.partition_count = 8}).ok());
  ConsumerOptions options = group_options();
  options.partitions = {0, 8};
  EXPECT_EQ(refusal(world, options), ErrorCode::kInvalidConfig);
  options.partitions = {0, 7};
  EXPECT_EQ(refusal(world, options), std::nullopt);
}

TEST(ConsumerCore, ATransportThatRefusesTheSubscriptionIsTheAnswer) {
  World world;
  world.script->fail("subscribe", unavailable());
  EXPECT_EQ(refusal(world, group_options()), ErrorCode::kUnavailable);
  EXPECT_TRUE(world.core->consumers().empty());
  EXPECT_EQ(refusal(world, group_options()), std::nullopt);
}

TEST(ConsumerCore, AGroupThatNamesATopicGetsWhatIsPublishedWhileItIsAway) {
  World world;
  {
    const auto consumer = world.consume(group_options());
    ASSERT_TRUE(consumer->close(Duration{0}).ok());
  }
  world.publish("a");
  const auto consumer = world.consume(group_options());
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
}

// ---- how much it takes in -----------------------------------------------------------------------

TEST(ConsumerCore, ItTakesInWhatConcurrencyAndPrefetchAllowAndNoMore) {
  World world;
  ConsumerOptions options = group_options();
  options.concurrency = 2;
  options.prefetch_count = 3;
  const auto consumer = world.consume(options);
  for (int i = 0; i < 20; ++i)
    world.publish("m");
  for (int round = 0; round < 3; ++round)
    world.step(*consumer);
  EXPECT_EQ(consumer->statistics().in_flight, 5U);
  EXPECT_EQ(world.group().in_flight, 5U);
  EXPECT_EQ(world.group().waiting, 15U);
}

TEST(ConsumerCore, ItTakesInNothingWhenItHoldsTheBytesItMayAndOnceInAWhileOneMessageTooLarge) {
  World world;
  ConsumerOptions options = group_options();
  options.prefetch_count = 100;
  options.prefetch_bytes_max = 2500;
  const auto consumer = world.consume(options);
  world.publish(std::string(5000, 'x'));
  for (int i = 0; i < 10; ++i)
    world.publish(std::string(1000, 'x'));
  for (int round = 0; round < 5; ++round)
    world.step(*consumer);
  EXPECT_EQ(consumer->statistics().in_flight, 1U) << "it is larger than the limit, and alone";
  auto first = consumer->take_one();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->payload().size(), 5000U);
  consumer->run_one(*first);
  for (int round = 0; round < 10; ++round)
    world.step(*consumer);
  EXPECT_EQ(consumer->statistics().in_flight, 3U) << "the one that goes over the limit is the last";
}

TEST(ConsumerCore, AllConsumersOfTheEngineTogetherHoldNoMoreThanItsLimit) {
  WorldOptions options;
  options.engine.in_flight_count_max = 6;
  World world(options);
  ConsumerOptions member = group_options();
  member.prefetch_count = 100;
  const auto one = world.consume(member);
  const auto two = world.consume(member);
  for (int i = 0; i < 20; ++i)
    world.publish("m");
  for (int round = 0; round < 5; ++round) {
    world.step(*one);
    world.step(*two);
    EXPECT_LE(one->statistics().in_flight + two->statistics().in_flight, 6U);
  }
  // Whoever is through makes room for the other.
  for (int round = 0; round < 50; ++round) {
    for (const auto& consumer : {one, two}) {
      if (auto delivery = consumer->take_one()) consumer->run_one(*delivery);
      world.step(*consumer);
      EXPECT_LE(one->statistics().in_flight + two->statistics().in_flight, 6U);
    }
  }
  EXPECT_EQ(world.handled.size(), 20U);
}

TEST(ConsumerCore, APausedOneTakesInNothingAndGoesOnWhenItIsResumed) {
  World world;
  const auto consumer = world.consume(group_options());
  world.publish("a");
  world.step(*consumer);
  auto running = consumer->take_one();
  ASSERT_TRUE(running.has_value());
  ASSERT_TRUE(consumer->pause().ok());
  world.publish("b");
  consumer->run_one(*running);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"}) << "what was in flight is finished, nothing new begins";
  EXPECT_TRUE(consumer->statistics().paused);
  EXPECT_EQ(world.group().waiting, 1U);
  ASSERT_TRUE(consumer->resume().ok());
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"a", "b"}));
}

TEST(ConsumerCore, WhatComesInWhileItIsBeingPausedGoesBack) {
  World world;
  const auto consumer = world.consume(group_options());
  world.publish("a");
  world.script->before("receive", [&] { (void)consumer->pause(); });
  world.step(*consumer);
  world.script->before("receive", [] {});
  world.step(*consumer);
  EXPECT_FALSE(consumer->take_one().has_value());
  EXPECT_EQ(world.group().waiting, 1U);
  EXPECT_EQ(world.group().in_flight, 0U);
}

// ---- what never reaches a handler ---------------------------------------------------------------

TEST(ConsumerCore, WhatTheFilterRefusesIsAcknowledgedAndCounted) {
  World world;
  ConsumerOptions options = group_options();
  options.filter = "region = 'eu'";
  const auto consumer = world.consume(options);
  const MessageId other =
      world.publish(Message{.topic = "t", .payload = "us", .headers = {{"region", "us"}}});
  world.publish(Message{.topic = "t", .payload = "eu", .headers = {{"region", "eu"}}});
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"eu"});
  EXPECT_EQ(consumer->statistics().filtered, 1U);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_TRUE(world.is_done(other));
}

TEST(ConsumerCore, WhoseTimeIsOverBecomesADeadLetterAndNoHandlerSeesIt) {
  World world;
  const auto consumer = world.consume(group_options());
  world.publish(Message{.topic = "t", .payload = "late", .ttl = 5s});
  world.clock->advance(5s);
  world.play(*consumer);
  EXPECT_TRUE(world.handled.empty());
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kExpired);
  EXPECT_EQ(consumer->statistics().expired, 1U);
}

TEST(ConsumerCore, WhatTheInboxRemembersIsPassedOver) {
  World world;
  ConsumerOptions options = group_options();
  options.inbox_window = 24h;
  options.retry = retry_after(1s, 2);
  const auto consumer = world.consume(options);
  Message message{.topic = "t", .payload = "a"};
  message.id = MessageId{{1, 2, 3}};
  world.publish(message);
  world.play(*consumer);
  world.publish(message);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
  EXPECT_EQ(consumer->statistics().duplicates, 1U);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  world.clock->advance(25h);
  world.core->step_janitor();
  world.publish(message);
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"a", "a"})) << "it remembers for its window and no longer";
}

TEST(ConsumerCore, AnInboxThatCannotBeReadHandlesNothingTwiceAndLosesNothing) {
  World world;
  ConsumerOptions options = group_options();
  options.inbox_window = 24h;
  options.retry = retry_after(1s, 2);
  const auto consumer = world.consume(options);
  Message message{.topic = "t", .payload = "a"};
  message.id = MessageId{{1, 2, 3}};
  world.publish(message);
  world.script->fail("inbox_contains", unavailable());
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
  world.publish(message);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
}

TEST(ConsumerCore, NothingOfAPartitionStartsWhileItsBlockedKeysAreUnknown) {
  World world;
  const auto consumer = world.consume(key_ordered());
  world.publish("A1", "A");
  world.script->fail("list_key_blocks", unavailable(), 2);
  world.step(*consumer);
  EXPECT_FALSE(consumer->take_one().has_value());
  for (int round = 0; round < 5; ++round) {
    world.play(*consumer);
    world.clock->advance(200ms);
  }
  EXPECT_EQ(world.handled, Names{"A1"});
}

TEST(ConsumerCore, AMessageThatKillsItsProcessTooOftenBecomesADeadLetter) {
  World world;
  ConsumerOptions options = group_options();
  options.dead_letters.max_crashes = 2;
  world.publish("a");
  for (int crash = 0; crash < 2; ++crash) {
    const auto consumer = world.consume(options);
    for (int round = 0; round < 3; ++round)
      world.step(*consumer);
    auto running = consumer->take_one();
    ASSERT_TRUE(running.has_value()) << "after " << crash << " crashes";
    EXPECT_EQ(running->crashes(), static_cast<std::uint32_t>(crash));
    consumer->abandon();
    world.clock->advance(31s);
  }
  const auto consumer = world.consume(options);
  world.play(*consumer);
  EXPECT_TRUE(world.handled.empty());
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kCrashLoop);
}

// ---- outages ------------------------------------------------------------------------------------

TEST(ConsumerCore, AfterAnErrorOfTheProviderItWaitsAMomentAndLosesNothing) {
  World world;
  const auto consumer = world.consume(group_options());
  world.publish("a");
  int receives = 0;
  world.script->before("receive", [&] { ++receives; });
  world.script->fail("receive", unavailable());
  for (int round = 0; round < 5; ++round)
    world.step(*consumer);
  EXPECT_EQ(receives, 1) << "it does not run against a provider that is away";
  EXPECT_FALSE(world.log.empty());
  world.clock->advance(1s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
}

TEST(ConsumerCore, AnErrorThatDoesNotPassStopsTheEngine) {
  World world;
  const auto consumer = world.consume(group_options());
  world.script->fail("receive", Error{ErrorCode::kIoError, "the disk is gone"});
  world.step(*consumer);
  EXPECT_EQ(code_of(world.core->context().check_open()), ErrorCode::kIoError);
}

TEST(ConsumerCore, AFailingDependencyPausesIntakeUntilProbesSucceed) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(1s, 1000);
  options.breaker = {};
  options.breaker.throughput_min = 5;
  options.breaker.open = 30s;
  options.breaker.probe_count = 2;
  bool down = true;
  const auto consumer = world.consume(options, [&](Delivery&) {
    if (down) throw HandlerError("ConnectionRefused", "away");
  });
  for (int i = 0; i < 50; ++i)
    world.publish("m");
  world.play(*consumer);
  const std::size_t tried = world.handled.size();
  EXPECT_LT(tried, 20U);
  EXPECT_TRUE(consumer->statistics().breaker_open);
  EXPECT_EQ(world.group().in_flight, 0U) << "what was held and not started goes back";
  world.clock->advance(20s);
  world.play(*consumer);
  EXPECT_EQ(world.handled.size(), tried) << "no attempt is spent while it is open";
  down = false;
  for (int round = 0; round < 20; ++round) {
    world.clock->advance(10s);
    world.play(*consumer);
  }
  EXPECT_FALSE(consumer->statistics().breaker_open);
  EXPECT_EQ(consumer->statistics().acked, 50U);
  EXPECT_TRUE(world.dead_letters().empty());
}

TEST(ConsumerCore, RenewingKeepsTheLeaseAndTellsAHandlerThatLostIt) {
  World world;
  ConsumerOptions options = group_options();
  options.handler_timeout = 1h;
  const auto consumer = world.consume(options);
  const auto other = world.consume(group_options());
  world.publish("a");
  world.step(*consumer);
  auto running = consumer->take_one();
  ASSERT_TRUE(running.has_value());
  const std::stop_token token = running->stop_token();
  for (int i = 0; i < 10; ++i) {
    world.clock->advance(20s);
    consumer->renew();
    world.play(*other);
  }
  EXPECT_TRUE(world.handled.empty()) << "it is still the first one's";
  EXPECT_FALSE(token.stop_requested());
  world.clock->advance(31s);
  world.play(*other);
  EXPECT_EQ(world.handled, Names{"a"});
  consumer->renew();
  EXPECT_TRUE(token.stop_requested());
  EXPECT_EQ(code_of(running->extend(1s)), ErrorCode::kLeaseLost);
}

}  // namespace
}  // namespace towline::engine
