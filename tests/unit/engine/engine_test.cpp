// The public handles: what copies share, what a delivery tells of its message, and that a handle outlives
// what it pointed to.

#include <atomic>
#include <future>
#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include <towline/clock.hpp>
#include <towline/engine.hpp>

#include "support/eventually.hpp"

namespace towline {
namespace {

using namespace std::chrono_literals;
using support::eventually;

TEST(EngineHandle, ADeliveryTellsWhatThePublisherGave) {
  Engine engine = Engine::open("memory:").value();
  std::mutex mutex;
  std::optional<Delivery> seen;
  Consumer consumer = engine
                          .consume("orders", {.group = "billing"},
                                   [&](Delivery& delivery) {
                                     const std::lock_guard lock(mutex);
                                     seen = delivery;
                                   })
                          .value();
  Message message{.topic = "orders", .payload = std::string("\0p", 2), .key = "k"};
  message.headers = {{"region", "eu"}, {"empty", ""}};
  message.content_type = "text/plain";
  message.correlation_id = "corr";
  message.causation_id = "caus";
  message.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const MessageId id = engine.publish(message).value();
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return seen.has_value();
  }));
  EXPECT_EQ(seen->id(), id);
  EXPECT_EQ(seen->topic(), "orders");
  EXPECT_EQ(seen->group(), "billing");
  EXPECT_EQ(seen->key(), "k");
  EXPECT_EQ(seen->payload(), std::string("\0p", 2));
  EXPECT_EQ(seen->headers(), message.headers);
  EXPECT_EQ(seen->header("region"), "eu");
  EXPECT_EQ(seen->header("empty"), "");
  EXPECT_EQ(seen->header("Region"), std::nullopt);
  EXPECT_EQ(seen->content_type(), "text/plain");
  EXPECT_EQ(seen->correlation_id(), "corr");
  EXPECT_EQ(seen->causation_id(), "caus");
  EXPECT_EQ(seen->traceparent(), message.traceparent);
  EXPECT_EQ(seen->attempt(), 1U);
  EXPECT_EQ(seen->crashes(), 0U);
  EXPECT_EQ(seen->redrives(), 0U);
  EXPECT_FALSE(seen->redelivered());
  EXPECT_LT(seen->partition(), 64U);
}

TEST(EngineHandle, AKeptDeliveryIsReadableWhenItsConsumerAndItsEngineAreGone) {
  std::mutex mutex;
  std::optional<Delivery> kept;
  {
    Engine engine = Engine::open("memory:").value();
    ConsumerOptions options{.group = "g"};
    options.ack = AckPolicy::kManual;
    Consumer consumer = engine
                            .consume("t", options,
                                     [&](Delivery& delivery) {
                                       const std::lock_guard lock(mutex);
                                       kept = delivery;
                                     })
                            .value();
    ASSERT_TRUE(engine.publish({.topic = "t", .payload = "still here"}).acked());
    ASSERT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex);
      return kept.has_value();
    }));
    ASSERT_TRUE(engine.close(0ms).ok());
  }
  EXPECT_EQ(kept->payload(), "still here");
  EXPECT_EQ(kept->group(), "g");
  EXPECT_TRUE(kept->stop_token().stop_requested());
  const auto late = kept->ack();
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kClosed);
}

TEST(EngineHandle, TheLastCopyOfAConsumerClosesIt) {
  Engine engine = Engine::open("memory:").value();
  std::atomic<int> handled{0};
  {
    Consumer consumer = engine.consume("t", {.group = "g"}, [&](Delivery&) { ++handled; }).value();
    const Consumer copy = consumer;
    consumer = Consumer();
    ASSERT_TRUE(engine.publish({.topic = "t", .payload = "p"}).acked());
    EXPECT_TRUE(eventually([&] { return handled == 1; })) << "a copy is left";
  }
  ASSERT_TRUE(engine.publish({.topic = "t", .payload = "p"}).acked());
  EXPECT_TRUE(support::holds_for([&] { return handled == 1; }, 50ms));
  EXPECT_EQ(engine.backlog().value().at(0).waiting, 1U);
}

TEST(EngineHandle, TimeLimitsWithoutEndAreReachedBeforeTheyRunOver) {
  Engine engine = Engine::open("memory:").value();
  Consumer consumer = engine.consume("t", {.group = "g"}, [](Delivery&) {}).value();
  EXPECT_TRUE(engine.settle_down(Duration::max()).ok());
  EXPECT_TRUE(consumer.drain(Duration::max()).ok());
  EXPECT_TRUE(consumer.close(Duration::max()).ok());
  EXPECT_TRUE(engine.close(Duration::max()).ok());
}

TEST(EngineHandle, WhatHandlersHoldOfAnAbandonedEngineComesAgainAsAfterADeath) {
  const std::string url = "memory:abandoned";
  Engine other = Engine::open(url).value();
  std::promise<void> let_go;
  std::atomic<int> running = 0;
  {
    EngineOptions options;
    options.lease = 1s;
    Engine engine = Engine::open(url, options).value();
    ConsumerOptions member{.group = "g"};
    member.concurrency = 1;
    member.prefetch_count = 5;
    Consumer consumer = engine
                            .consume("t", member,
                                     [&, done = let_go.get_future().share()](Delivery&) {
                                       ++running;
                                       done.wait();
                                     })
                            .value();
    for (const char* payload : {"held", "not begun"})
      ASSERT_TRUE(engine.publish({.topic = "t", .payload = payload}).acked());
    ASSERT_TRUE(eventually([&] { return running == 1; }));
    ASSERT_TRUE(eventually([&] { return consumer.statistics().in_flight == 2; }));
    EXPECT_EQ(engine.abandon().value(), 1U);
    EXPECT_EQ(engine.publish({.topic = "t", .payload = "late"}).error.code, ErrorCode::kClosed);
    EXPECT_EQ(other.backlog().value().at(0).waiting, 1U) << "what had not begun went back at once";
  }
  std::mutex mutex;
  std::map<std::string, std::uint32_t> crashes;
  Consumer consumer = other
                          .consume("t", {.group = "g"},
                                   [&](Delivery& delivery) {
                                     const std::lock_guard lock(mutex);
                                     crashes[std::string(delivery.payload())] = delivery.crashes();
                                   })
                          .value();
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return crashes.size() == 2;
  }));
  EXPECT_EQ(crashes, (std::map<std::string, std::uint32_t>{{"held", 1}, {"not begun", 0}}));
  let_go.set_value();
}

TEST(EngineHandle, AConsumerIsNotDrainedFromInsideItsHandler) {
  Engine engine = Engine::open("memory:").value();
  std::atomic<int> refused = 0;
  Consumer consumer;
  consumer = engine
                 .consume("t", {.group = "g"},
                          [&](Delivery&) {
                            const auto drained = consumer.drain(1h);
                            if (!drained && drained.error().code == ErrorCode::kInvalidArgument) ++refused;
                          })
                 .value();
  ASSERT_TRUE(engine.publish({.topic = "t", .payload = "p"}).acked());
  ASSERT_TRUE(engine.settle_down().ok());
  EXPECT_EQ(refused, 1);
}

TEST(EngineHandle, TheKeysOfAGroupWithABadNameAreNotLookedFor) {
  Engine engine = Engine::open("memory:").value();
  EXPECT_EQ(engine.blocked_keys("no spaces", "t").error().code, ErrorCode::kInvalidName);
  EXPECT_EQ(engine.blocked_keys("g", "a..b").error().code, ErrorCode::kInvalidTopic);
  EXPECT_TRUE(engine.blocked_keys("nobody", "t").value().empty());
}

TEST(EngineHandle, ADelayedMessageWithTheIdOfOneThatWaitsIsRefusedWithAdvice) {
  Engine engine = Engine::open("memory:").value();
  const MessageId id = engine.publish({.topic = "t", .payload = "p", .delay = 1h}).value();
  const Receipt again = engine.publish({.topic = "t", .payload = "p", .delay = 1h, .id = id});
  EXPECT_EQ(again.error.code, ErrorCode::kConflict);
  EXPECT_NE(again.error.message.find("dedup id"), std::string::npos) << again.error.message;
}

TEST(EngineHandle, TheBacklogTellsWhatWaitsForEachGroup) {
  Engine engine = Engine::open("memory:").value();
  Consumer first = engine.consume("t", {.group = "a"}, [](Delivery&) {}).value();
  ASSERT_TRUE(first.drain(10s).ok());
  Consumer second = engine.consume("t", {.group = "b"}, [](Delivery&) {}).value();
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(engine.publish({.topic = "t", .payload = "p"}).acked());
  EXPECT_TRUE(eventually([&] {
    std::uint64_t a = 0, b = 1;
    for (const GroupBacklog& group : engine.backlog().value()) {
      EXPECT_EQ(group.topic, "t");
      (group.group == "a" ? a : b) = group.waiting + group.in_flight;
    }
    return a == 3 && b == 0;
  }));
}

}  // namespace
}  // namespace towline
