// Publishes that go down together: each request gets its own receipts, whatever its neighbours were.

#include "port/publish_lane.hpp"

#include <map>

#include <gtest/gtest.h>

#include "support/eventually.hpp"

namespace towline::port {
namespace {

using Receipts = Result<std::vector<Receipt>>;

class PublishLanes : public ::testing::Test {
 protected:
  PublishLane::Answer answer() {
    return [this](std::uint64_t id, Receipts receipts) {
      const std::lock_guard lock(mutex_);
      answers_.emplace(id, std::move(receipts));
    };
  }
  [[nodiscard]] bool has(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    return answers_.contains(id);
  }
  Engine engine_ = Engine::open("memory:").value();
  std::mutex mutex_;
  std::map<std::uint64_t, Receipts> answers_;
};

TEST_F(PublishLanes, EachRequestIsAnsweredWithItsOwnReceipts) {
  PublishLane lane(engine_, 10'000, 100'000, answer());
  for (std::uint64_t id = 1; id <= 500; ++id) {
    std::vector<Message> messages(id % 3 + 1, Message{.topic = "t", .payload = "p"});
    if (id % 5 == 0) messages[0].topic = "not a topic";
    lane.publish(id, std::move(messages));
  }
  lane.shut();
  ASSERT_EQ(answers_.size(), 500U);
  for (const auto& [id, receipts] : answers_) {
    ASSERT_TRUE(receipts.ok());
    ASSERT_EQ(receipts->size(), id % 3 + 1);
    EXPECT_EQ((*receipts)[0].acked(), id % 5 != 0);
    for (std::size_t i = 1; i < receipts->size(); ++i)
      EXPECT_TRUE((*receipts)[i].acked());
  }
}

TEST_F(PublishLanes, ARequestThatIsTooLargeIsRefusedAloneAndOneAfterTheEndAsClosed) {
  PublishLane lane(engine_, 10'000, 100'000, answer());
  lane.publish(1, std::vector<Message>(10'001, Message{.topic = "t", .payload = ""}));
  lane.publish(2, {Message{.topic = "t", .payload = ""}});
  lane.shut();
  lane.publish(3, {Message{.topic = "t", .payload = ""}});
  EXPECT_EQ(answers_.at(1).error().code, ErrorCode::kBatchTooLarge);
  EXPECT_TRUE(answers_.at(2).ok());
  EXPECT_EQ(answers_.at(3).error().code, ErrorCode::kClosed);
}

TEST_F(PublishLanes, WhatWaitsIsBounded) {
  PublishLane lane(engine_, 10'000, 5, answer());
  std::uint64_t id = 0;
  // Until one is refused: the thread takes what waits from time to time.
  ASSERT_TRUE(support::eventually([&] {
    for (int i = 0; i < 50; ++i)
      lane.publish(++id, {Message{.topic = "t", .payload = ""}});
    const std::lock_guard lock(mutex_);
    for (const auto& [known, receipts] : answers_) {
      if (!receipts && receipts.error().code == ErrorCode::kOverloaded) return true;
    }
    return false;
  }));
}

}  // namespace
}  // namespace towline::port
