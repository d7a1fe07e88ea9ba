// The engine's thread waits for what the binding says of a batch, and never for a binding that is gone.

#include "port/event_desk.hpp"

#include <future>

#include <gtest/gtest.h>

#include <towline/consumer.hpp>

namespace towline::port {
namespace {

using namespace std::chrono_literals;

class EventDeskTest : public ::testing::Test {
 protected:
  static RecordedEvent event(std::uint64_t version) {
    RecordedEvent event;
    event.stream = "order-1";
    event.version = version;
    return event;
  }
  /// A batch on its way, as the engine's thread sends it; true: it was handled.
  std::future<bool> send(const EventHandler& handler) {
    return std::async(std::launch::async, [&handler] {
      const std::vector<RecordedEvent> batch = {event(1), event(2)};
      try {
        handler(batch);
        return true;
      } catch (const Exception& error) {
        EXPECT_EQ(error.code(), ErrorCode::kClosed);
        return false;
      }
    });
  }
  std::vector<Event> next() {
    EXPECT_TRUE(mailbox_->poll(10s));
    return mailbox_->drain(10);
  }
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>(nullptr, 10);
  std::shared_ptr<EventDesk> desk_ = std::make_shared<EventDesk>(mailbox_);
};

TEST_F(EventDeskTest, ABatchIsHandledWhenTheBindingSaysSo) {
  const EventHandler handler = desk_->handler(7);
  auto sent = send(handler);
  const std::vector<Event> events = next();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, Event::Kind::kEvents);
  EXPECT_EQ(events[0].id, 7U);
  ASSERT_EQ(events[0].events.size(), 2U);
  EXPECT_EQ(events[0].events[1].version, 2U);
  desk_->finish(8, std::nullopt);  // of another one
  EXPECT_EQ(sent.wait_for(5ms), std::future_status::timeout);
  desk_->finish(7, std::nullopt);
  EXPECT_TRUE(sent.get());
}

TEST_F(EventDeskTest, AFailureOfTheBindingIsOneOfTheHandler) {
  const EventHandler handler = desk_->handler(7);
  auto failed = std::async(std::launch::async, [&]() -> ErrorInfo {
    const std::vector<RecordedEvent> batch = {event(1)};
    try {
      handler(batch);
    } catch (const HandlerError& error) {
      return error.info();
    }
    return {};
  });
  (void)next();
  desk_->finish(7, ErrorInfo{"ValueError", "no such item", {}});
  const ErrorInfo info = failed.get();
  EXPECT_EQ(info.type, "ValueError");
  EXPECT_EQ(info.message, "no such item");
}

TEST_F(EventDeskTest, WhatIsSaidOfABatchThatIsNotOutSaysNothingOfTheNextOne) {
  const EventHandler handler = desk_->handler(7);
  desk_->finish(7, std::nullopt);
  auto sent = send(handler);
  (void)next();
  EXPECT_EQ(sent.wait_for(5ms), std::future_status::timeout);
  desk_->finish(7, std::nullopt);
  EXPECT_TRUE(sent.get());
}

TEST_F(EventDeskTest, NobodyWaitsForABindingThatIsGone) {
  const EventHandler left = desk_->handler(1);
  const EventHandler shut = desk_->handler(2);
  auto of_left = send(left);
  auto of_shut = send(shut);
  desk_->leave(1);
  EXPECT_FALSE(of_left.get());
  EXPECT_EQ(of_shut.wait_for(5ms), std::future_status::timeout);
  desk_->shut();
  EXPECT_FALSE(of_shut.get());
  EXPECT_FALSE(send(shut).get()) << "nothing waits after it, either";
  const EventHandler late = desk_->handler(3);
  EXPECT_FALSE(send(late).get());
}

}  // namespace
}  // namespace towline::port
