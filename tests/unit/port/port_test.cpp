// The mailbox between an engine and another language: requests and their answers, deliveries and their
// outcomes, and the order of closing.

#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include <towline/port.hpp>

#include "support/eventually.hpp"

namespace towline {
namespace {

using namespace std::chrono_literals;
using support::eventually;

struct Number : Reply {
  explicit Number(std::uint64_t given) : value(given) {}
  std::uint64_t value;
};

class PortTest : public ::testing::Test {
 protected:
  void open(PortOptions options = {}, EngineOptions engine = {}) {
    port_ = std::make_unique<Port>(std::move(options));
    ASSERT_TRUE(port_->open("memory:", std::move(engine)).ok());
  }
  /// The next event of this kind; others before it are kept for when they are asked for.
  Event next(Event::Kind kind) {
    for (;;) {
      const auto found =
          std::find_if(kept_.begin(), kept_.end(), [&](const Event& e) { return e.kind == kind; });
      if (found != kept_.end()) {
        Event event = std::move(*found);
        kept_.erase(found);
        return event;
      }
      if (!port_->poll(10s)) {
        ADD_FAILURE() << "nothing came";
        return {};
      }
      for (Event& event : port_->drain(100))
        kept_.push_back(std::move(event));
    }
  }
  PortConsumer consume(ConsumerOptions options = {}, bool in_batches = false) {
    if (options.group.empty()) options.group = "g";
    return port_->consume(77, {"t"}, options, in_batches).value();
  }
  void publish(int count) {
    port_->publish(
        1, std::vector<Message>(static_cast<std::size_t>(count), Message{.topic = "t", .payload = "p"}));
    ASSERT_EQ(next(Event::Kind::kReceipts).error, nullptr);
  }
  void finish(std::uint64_t number, Outcome outcome = Outcome::ack()) {
    std::vector<Port::Finish> finished = {{number, std::move(outcome)}};
    port_->finish(finished);
  }
  std::unique_ptr<Port> port_;
  std::deque<Event> kept_;
};

TEST_F(PortTest, ACallIsAnsweredByAnEventWithItsId) {
  open();
  port_->call(5,
              [](Engine& engine) { return std::make_unique<Number>(engine.statistics().value().published); });
  Event event = next(Event::Kind::kReply);
  EXPECT_EQ(event.id, 5U);
  ASSERT_NE(event.reply, nullptr);
  EXPECT_EQ(static_cast<Number&>(*event.reply).value, 0U);
}

TEST_F(PortTest, ACallerWhoWaitsGetsTheReplyOrLeavesWhenInterrupted) {
  open();
  auto reply = port_->wait([](Engine&) { return std::make_unique<Number>(3); }, {});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(static_cast<Number&>(**reply).value, 3U);
  std::atomic<bool> may_end{false};
  std::atomic<bool> ended{false};
  auto interrupted = port_->wait(
      [&](Engine&) {
        may_end.wait(false);
        ended = true;
        return std::make_unique<Number>(4);
      },
      [] { return true; });
  EXPECT_EQ(interrupted.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(ended);
  may_end = true;
  may_end.notify_all();
  EXPECT_TRUE(eventually([&] { return ended.load(); })) << "the work goes on";
}

TEST_F(PortTest, DeliveriesComeUpToTheConcurrencyAndFinishingOneMakesRoom) {
  open();
  ConsumerOptions options;
  options.concurrency = 2;
  PortConsumer consumer = consume(options);
  publish(5);
  std::vector<std::uint64_t> numbers;
  numbers.push_back(next(Event::Kind::kDelivery).delivery.number());
  Event second = next(Event::Kind::kDelivery);
  EXPECT_EQ(second.id, 77U);
  EXPECT_EQ(second.delivery.payload(), "p");
  numbers.push_back(second.delivery.number());
  EXPECT_NE(numbers[0], numbers[1]);
  EXPECT_EQ(port_->open_count(), 2U);
  EXPECT_EQ(consumer.statistics().value().running, 2U);
  EXPECT_FALSE(port_->poll(20ms) || !kept_.empty()) << "there is room for two";
  for (int left = 3; left > 0; --left) {
    finish(numbers.back());
    numbers.back() = next(Event::Kind::kDelivery).delivery.number();
  }
  finish(numbers[0]);
  finish(numbers[1]);
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked == 5; }));
  EXPECT_EQ(consumer.statistics().value().running_max, 2U);
  EXPECT_EQ(port_->open_count(), 0U);
}

TEST_F(PortTest, AFailureIsRetriedAndFinishingTwiceCountsOnce) {
  open();
  ConsumerOptions options;
  options.retry.initial_delay = 0ms;
  options.retry.kind = BackoffKind::kFixed;
  PortConsumer consumer = consume(options);
  publish(1);
  const Event first = next(Event::Kind::kDelivery);
  EXPECT_EQ(first.delivery.attempt(), 1U);
  finish(first.delivery.number(), Outcome::fail({"ValueError", "no", "stack"}));
  finish(first.delivery.number());
  const Event second = next(Event::Kind::kDelivery);
  EXPECT_EQ(second.delivery.attempt(), 2U);
  EXPECT_NE(second.delivery.number(), first.delivery.number());
  finish(second.delivery.number());
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked == 1; }));
  EXPECT_EQ(consumer.statistics().value().running, 0U);
}

TEST_F(PortTest, WhatRanOutOfTimeIsToldToStopAndHoldsItsPlaceUntilItHasReturned) {
  open();
  ConsumerOptions options;
  options.handler_timeout = 20ms;
  options.retry.initial_delay = 0ms;
  options.retry.kind = BackoffKind::kFixed;
  PortConsumer consumer = consume(options);
  publish(1);
  const Event first = next(Event::Kind::kDelivery);
  const Event stop = next(Event::Kind::kStop);
  EXPECT_EQ(stop.id, first.delivery.number());
  EXPECT_EQ(consumer.statistics().value().stuck, 1U);
  EXPECT_FALSE(port_->poll(20ms) || !kept_.empty()) << "its place is taken";
  finish(first.delivery.number());
  const Event again = next(Event::Kind::kDelivery);
  EXPECT_EQ(again.delivery.attempt(), 2U) << "the late result did not count";
  finish(again.delivery.number());
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked == 1; }));
  EXPECT_EQ(consumer.statistics().value().stuck, 0U);
}

TEST_F(PortTest, ManualSettlingIsApartFromReturning) {
  open();
  ConsumerOptions options;
  options.ack = AckPolicy::kManual;
  PortConsumer consumer = consume(options);
  publish(1);
  Event event = next(Event::Kind::kDelivery);
  finish(event.delivery.number());
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().running == 0; }));
  EXPECT_EQ(consumer.statistics().value().in_flight, 1U) << "nobody has settled it";
  ASSERT_TRUE(event.delivery.ack(true).ok());
  EXPECT_EQ(consumer.statistics().value().acked, 1U);
}

TEST_F(PortTest, WhatIsKeptPastItsHandlerIsToldWhenItsTimeIsUpAndNotWhenItIsSettled) {
  open();
  ConsumerOptions options;
  options.ack = AckPolicy::kManual;
  options.concurrency = 2;
  options.handler_timeout = 500ms;
  options.retry.max_attempts = 1;
  const PortConsumer consumer = consume(options);
  publish(2);
  Event settled = next(Event::Kind::kDelivery);
  const Event kept = next(Event::Kind::kDelivery);
  finish(settled.delivery.number());
  finish(kept.delivery.number());
  ASSERT_TRUE(settled.delivery.ack().ok());
  EXPECT_EQ(next(Event::Kind::kStop).id, kept.delivery.number());
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().in_flight == 0; }));
  EXPECT_FALSE(port_->poll(50ms)) << "the other one has been settled";
}

TEST_F(PortTest, ClosingTellsWhatRunsToStopAndCountsWhatDoesNot) {
  open();
  PortConsumer consumer = consume();
  publish(1);
  const Event event = next(Event::Kind::kDelivery);
  EXPECT_EQ(consumer.close(10ms).value(), 1U);
  EXPECT_EQ(next(Event::Kind::kStop).id, event.delivery.number());
  finish(event.delivery.number());
  PortConsumer other = consume();
  const Event again = next(Event::Kind::kDelivery);
  EXPECT_TRUE(again.delivery.redelivered() || again.delivery.attempt() == 1U) << "it went back";
  finish(again.delivery.number());
}

TEST_F(PortTest, ABatchKeepsItsPlaceUntilTheLastOfItIsFinished) {
  open();
  publish(10);
  ConsumerOptions options;
  options.concurrency = 2;
  options.batch_count_max = 4;
  const PortConsumer consumer = consume(options, true);
  std::vector<std::uint64_t> numbers;
  std::vector<std::size_t> left;
  const auto take = [&](std::size_t count) {
    while (count-- > 0) {
      const Event event = next(Event::Kind::kDelivery);
      numbers.push_back(event.delivery.number());
      left.push_back(event.batch_left);
    }
  };
  take(8);
  EXPECT_EQ(left, (std::vector<std::size_t>{3, 2, 1, 0, 3, 2, 1, 0}));
  for (std::size_t i = 0; i < 3; ++i)
    finish(numbers[i]);
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked == 3; }));
  EXPECT_FALSE(port_->poll(50ms)) << "one of the first batch and all of the second are not finished";
  finish(numbers[3], Outcome::fail({"E", "x", ""}));
  finish(numbers[3]);  // a second time: counts nothing
  take(2);
  EXPECT_EQ(left.back(), 0U);
  for (std::size_t i = 4; i < 10; ++i)
    finish(numbers[i]);
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked == 9; }));
}

TEST_F(PortTest, DroppingTheHandleOfAConsumerIsNotClosingIt) {
  open();
  { const PortConsumer dropped = consume(); }
  publish(1);
  finish(next(Event::Kind::kDelivery).delivery.number());
  ASSERT_TRUE(port_->engine().settle_down(10s).ok());
  EXPECT_EQ(port_->engine().backlog().value().at(0).waiting, 0U);
}

TEST_F(PortTest, LogsBelowTheLevelAreDroppedWhereTheyAreMade) {
  PortOptions options;
  options.log_level = LogLevel::kWarning;
  EngineOptions engine;
  engine.alert.depth_count = 1;
  open(options, engine);
  ConsumerOptions consumer_options;
  consumer_options.breaker.throughput_min = 1;
  consumer_options.retry.initial_delay = 0ms;
  consumer_options.retry.kind = BackoffKind::kFixed;
  PortConsumer consumer = consume(consumer_options);
  publish(1);
  finish(next(Event::Kind::kDelivery).delivery.number(), Outcome::fail({"TransientError", "no", {}}));
  const Event log = next(Event::Kind::kLog);
  EXPECT_EQ(log.log->level, LogLevel::kWarning);
  EXPECT_NE(log.log->text.find("circuit breaker"), std::string::npos) << log.log->text;
}

TEST_F(PortTest, AfterShutEveryRequestIsRefusedAndNothingComes) {
  std::atomic<int> rings{0};
  PortOptions options;
  options.ring = [&] { ++rings; };
  EngineOptions engine;
  engine.drain_timeout = 0ms;  // nobody finishes what is out
  open(options, engine);
  PortConsumer consumer = consume();
  publish(3);
  port_->shut();
  port_->shut();
  const int before = rings;
  port_->call(1, [](Engine&) { return std::make_unique<Number>(1); });
  port_->publish(2, {Message{.topic = "t", .payload = ""}});
  EXPECT_EQ(port_->wait([](Engine&) { return std::make_unique<Number>(1); }, {}).error().code,
            ErrorCode::kClosed);
  EXPECT_EQ(port_->consume(1, {"t"}, {}).error().code, ErrorCode::kClosed);
  EXPECT_FALSE(port_->open("memory:", {}).ok());
  for (const Event& event : port_->drain(100))
    EXPECT_NE(event.kind, Event::Kind::kReply);
  EXPECT_TRUE(port_->drain(10).empty());
  EXPECT_FALSE(port_->poll(1h));
  EXPECT_EQ(rings, before);
}

TEST_F(PortTest, AnswersToWhatWasAskedBeforeShutCanStillBeTaken) {
  open();
  for (std::uint64_t id = 1; id <= 50; ++id)
    port_->publish(id, {Message{.topic = "t", .payload = "p"}});
  port_->shut();
  std::uint64_t answered = 0;
  for (const Event& event : port_->drain(1000)) {
    if (event.kind == Event::Kind::kReceipts) ++answered;
  }
  EXPECT_EQ(answered, 50U);
}

TEST_F(PortTest, ClosingDoesNotWaitBehindCallsThatTakeLong) {
  PortOptions options;
  options.thread_count_max = 1;
  open(options);
  std::promise<void> end;
  port_->call(1, [ended = end.get_future().share()](Engine&) {
    ended.wait();
    return std::make_unique<Number>(1);
  });
  port_->call(2, [](Engine&) { return std::make_unique<Number>(2); });
  const auto close = [](Engine& engine) {
    (void)engine.close(0ms);
    return std::make_unique<Number>(3);
  };
  port_->call(3, close, true);
  EXPECT_EQ(next(Event::Kind::kReply).id, 3U);
  end.set_value();
}

TEST_F(PortTest, AfterCloseAConsumerAnswersClosedAndItsHandleKeepsNothing) {
  open();
  PortConsumer consumer = consume();
  EXPECT_EQ(consumer.close(0ms).value(), 0U);
  port_->shut();
  EXPECT_EQ(consumer.pause().error().code, ErrorCode::kClosed);
  EXPECT_EQ(consumer.statistics().error().code, ErrorCode::kClosed);
  EXPECT_EQ(PortConsumer().drain(1s).error().code, ErrorCode::kClosed);
  EXPECT_EQ(consumer.close().value(), 0U) << "closed it is, as was asked for";
}

TEST_F(PortTest, BeforeItIsOpenEveryRequestIsAnsweredWithClosed) {
  port_ = std::make_unique<Port>(PortOptions{});
  port_->publish(2, {Message{.topic = "t", .payload = ""}});
  EXPECT_EQ(next(Event::Kind::kReceipts).error->code, ErrorCode::kClosed);
  EXPECT_EQ(port_->consume(1, {"t"}, {}).error().code, ErrorCode::kClosed);
  EXPECT_EQ(port_->open("nowhere:", {}).error().code, ErrorCode::kInvalidUrl);
  EXPECT_TRUE(port_->open("memory:", {}).ok()) << "a failed opening may be tried again";
}

TEST_F(PortTest, ShutFromManyThreadsWithPublishersAndDeliveriesUnderWay) {
  open();
  ConsumerOptions options;
  options.concurrency = 50;
  PortConsumer consumer = consume(options);
  std::atomic<bool> stop{false};
  std::thread publisher([&] {
    for (std::uint64_t id = 1; !stop; ++id)
      port_->publish(id, {Message{.topic = "t", .payload = "p"}});
  });
  std::thread handler([&] {
    while (!stop) {
      (void)port_->poll(1ms);
      for (Event& event : port_->drain(100)) {
        if (event.kind == Event::Kind::kDelivery) finish(event.delivery.number());
      }
    }
  });
  EXPECT_TRUE(eventually([&] { return consumer.statistics().value().acked > 100; }));
  std::thread other([&] { port_->shut(); });
  port_->shut();
  other.join();
  stop = true;
  publisher.join();
  handler.join();
}

TEST_F(PortTest, AHandlerOfEventsThatRunsElsewhereMovesTheCheckpointWhenItIsDone) {
  open();
  EventStore store = port_->engine().event_store();
  EventSubscriptionOptions options;
  options.name = "reader";
  options.batch_count_max = 2;
  options.retry.kind = BackoffKind::kFixed;
  options.retry.initial_delay = 1ms;
  auto subscription = port_->follow_events(5, options);
  ASSERT_TRUE(subscription.ok());
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(store.append("a", {{.type = "t", .payload = std::to_string(i)}}).ok());
  const auto seen = [&] {
    Event event = next(Event::Kind::kEvents);
    EXPECT_EQ(event.id, 5U);
    return event.events;
  };
  const auto first = seen();
  ASSERT_GE(first.size(), 1U);
  EXPECT_EQ(first[0].payload, "0");
  EXPECT_EQ(subscription->statistics().checkpoint, 0U);
  port_->finish_events(5, ErrorInfo{"ValueError", "no such item", {}});
  std::vector<RecordedEvent> batch = seen();
  EXPECT_EQ(batch[0].payload, "0") << "what failed comes again";
  EXPECT_EQ(subscription->statistics().failures, 1U);
  EXPECT_NE(subscription->statistics().last_error.find("no such item"), std::string::npos);
  for (;;) {
    port_->finish_events(5);
    if (batch.back().payload == "2") break;
    batch = seen();
  }
  EXPECT_TRUE(eventually([&] { return subscription->statistics().handled == 3; }));
  EXPECT_TRUE(subscription->close());
  port_->forget_events(5);
}

TEST_F(PortTest, NobodyWaitsForAHandlerOfEventsWhoseBindingIsGone) {
  open();
  EventSubscriptionOptions options;
  options.name = "reader";
  ASSERT_TRUE(port_->follow_events(5, options).ok());
  ASSERT_TRUE(port_->engine().event_store().append("a", {{.type = "t", .payload = "1"}}).ok());
  (void)next(Event::Kind::kEvents);
  const auto began = std::chrono::steady_clock::now();
  port_->shut();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s) << "drain_timeout is 30 s";
}

}  // namespace
}  // namespace towline
