// Publishing: what goes in comes out, byte for byte; what is refused is refused before anything is stored;
// ids are unique and a dedup id keeps the second publish away.

#include <algorithm>
#include <set>
#include <thread>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Publish);

std::string all_bytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i)
    bytes += static_cast<char>(i);
  return bytes;
}

TEST_P(Publish, Conf01_PayloadsOfEverySizeAndByteComeOutEqual) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("bytes", member(), seen.handler()).value();
  std::string pattern;
  for (int i = 0; i < 64; ++i)
    pattern += all_bytes();
  const std::vector<std::string> payloads = {
      "",      std::string(1, '\0'),        "x", all_bytes(), std::string(64 * 1024, 'k'),
      pattern, std::string(1048576, '\xff')};
  std::map<MessageId, std::string> published;
  for (const std::string& payload : payloads) {
    const Receipt receipt = engine.publish({.topic = "bytes", .payload = payload});
    ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
    published[receipt.id] = payload;
  }
  ASSERT_TRUE(seen.reaches(payloads.size()));
  for (const Handled& handled : seen.all()) {
    ASSERT_TRUE(published.contains(handled.id)) << handled.id.to_string();
    EXPECT_TRUE(published[handled.id] == handled.payload) << "of " << handled.payload.size() << " bytes";
  }
  EXPECT_EQ(seen.times().size(), payloads.size());
}

TEST_P(Publish, Conf01_EveryFieldOfAMessageComesOutEqual) {
  Engine engine = open();
  Message message{.topic = "fields", .payload = "body"};
  message.key = std::string("k\0ey", 4);
  message.headers = {{"plain", "value"}, {"Unicode", "grüße 漢字 🚀"}, {"empty", ""}, {"ce-id", "A234-1234"}};
  message.content_type = "application/json; charset=utf-8";
  message.correlation_id = "corr-1";
  message.causation_id = "cause-1";
  message.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  message.priority = 3;
  const auto before = system_clock()->now();
  const Receipt receipt = engine.publish(message);
  ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
  Recorder seen;
  Delivery kept;
  Consumer consumer = engine
                          .consume("fields", manual_member(),
                                   [&](Delivery& delivery) {
                                     kept = delivery;
                                     seen.add(delivery);
                                     EXPECT_OK(delivery.ack());
                                   })
                          .value();
  ASSERT_TRUE(seen.reaches(1));
  ASSERT_OK(consumer.close());
  EXPECT_EQ(kept.id(), receipt.id);
  EXPECT_EQ(kept.topic(), "fields");
  EXPECT_EQ(kept.group(), "group");
  EXPECT_EQ(kept.key(), message.key);
  EXPECT_EQ(kept.headers(), message.headers);
  EXPECT_EQ(kept.header("Unicode"), "grüße 漢字 🚀");
  EXPECT_EQ(kept.header("empty"), "");
  EXPECT_EQ(kept.header("absent"), std::nullopt);
  EXPECT_EQ(kept.content_type(), message.content_type);
  EXPECT_EQ(kept.correlation_id(), "corr-1");
  EXPECT_EQ(kept.causation_id(), "cause-1");
  EXPECT_EQ(kept.traceparent(), message.traceparent);
  EXPECT_EQ(kept.payload(), "body") << "stays valid as long as the handle lives";
  EXPECT_GE(kept.published_at(), before);
  EXPECT_LE(kept.published_at(), system_clock()->now());
  EXPECT_EQ(kept.attempt(), 1U);
  EXPECT_EQ(kept.crashes(), 0U);
  EXPECT_EQ(kept.redrives(), 0U);
  EXPECT_FALSE(kept.redelivered());
}

TEST_P(Publish, Conf01_NoKeyAndTheEmptyKeyAreDifferent) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("keys", member(), seen.handler()).value();
  ASSERT_TRUE(engine.publish({.topic = "keys", .payload = "none"}).acked());
  ASSERT_TRUE(engine.publish({.topic = "keys", .payload = "empty", .key = ""}).acked());
  ASSERT_TRUE(seen.reaches(2));
  for (const Handled& handled : seen.all())
    EXPECT_EQ(handled.key.has_value(), handled.payload == "empty");
}

TEST_P(Publish, Conf02_WhatIsPublishedBeforeTheConsumerStartsIsDelivered) {
  Engine engine = open();
  make_group(engine, "orders");
  publish_numbers(engine, "orders", 100);
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(100));
  ASSERT_OK(consumer.drain(5s));
  EXPECT_EQ(seen.count(), 100U);
  EXPECT_EQ(seen.times().size(), 100U);
}

TEST_P(Publish, Conf12_ABatchAnswersForEachMessageInOrder) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("batch", member(), seen.handler()).value();
  std::vector<Message> batch;
  for (int i = 0; i < 100; ++i)
    batch.push_back({.topic = "batch", .payload = std::to_string(i)});
  batch[0].topic = "not a topic";
  batch[42].headers = {{"towline-attempt", "9"}};
  batch[99].delay = -1s;
  const auto receipts = engine.publish_batch(std::move(batch)).value();
  ASSERT_EQ(receipts.size(), 100U);
  const std::map<std::size_t, ErrorCode> invalid = {
      {0, ErrorCode::kInvalidTopic}, {42, ErrorCode::kReservedHeader}, {99, ErrorCode::kInvalidDelay}};
  for (std::size_t i = 0; i < receipts.size(); ++i) {
    const auto found = invalid.find(i);
    EXPECT_EQ(receipts[i].acked(), found == invalid.end()) << i;
    if (found == invalid.end()) continue;
    EXPECT_EQ(receipts[i].outcome, PublishOutcome::kRejected) << i;
    EXPECT_EQ(receipts[i].error.code, found->second) << i << " " << receipts[i].error.to_string();
  }
  ASSERT_TRUE(seen.reaches(97));
  ASSERT_OK(consumer.drain(5s));
  const auto times = seen.times();
  EXPECT_EQ(times.size(), 97U);
  for (const auto& [i, code] : invalid)
    EXPECT_FALSE(times.contains(std::to_string(i))) << i;
}

TEST_P(Publish, Conf14_EightProducersNeverMakeTheSameIdTwice) {
  Engine engine = open();
  const int per_thread = scaled(25) * 500;
  std::vector<std::vector<MessageId>> ids(8);
  std::vector<std::thread> producers;
  for (auto& mine : ids) {
    producers.emplace_back([&engine, &mine, per_thread] {
      for (int sent = 0; sent < per_thread; sent += 500) {
        std::vector<Message> batch(500, Message{.topic = "ids", .payload = "p"});
        for (const Receipt& receipt : engine.publish_batch(std::move(batch)).value())
          mine.push_back(receipt.value());
      }
    });
  }
  for (std::thread& producer : producers)
    producer.join();
  std::vector<MessageId> all;
  for (const auto& mine : ids)
    all.insert(all.end(), mine.begin(), mine.end());
  ASSERT_EQ(all.size(), static_cast<std::size_t>(8 * per_thread));
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  EXPECT_FALSE(all.front().empty());
}

TEST_P(Publish, Conf16_APayloadOverTheLimitIsRejectedAndTheNextIsNot) {
  EngineOptions options = quick_options();
  options.payload_bytes_max = 1000;
  Engine engine = open(options);
  make_group(engine, "sizes");
  const Receipt refused = engine.publish({.topic = "sizes", .payload = std::string(1001, 'x')});
  EXPECT_EQ(refused.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(refused.error.code, ErrorCode::kPayloadTooLarge);
  EXPECT_NE(refused.error.message.find("1001"), std::string::npos) << refused.error.message;
  EXPECT_NE(refused.error.message.find("1000"), std::string::npos) << refused.error.message;
  EXPECT_EQ(waiting(engine, "sizes"), 0U);
  EXPECT_TRUE(engine.publish({.topic = "sizes", .payload = std::string(1000, 'x')}).acked());
  EXPECT_EQ(waiting(engine, "sizes"), 1U);
}

TEST_P(Publish, Conf18_OneDedupIdFromFiveThreadsIsOneMessage) {
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("dedup", member(), seen.handler()).value();
  const int rounds = 20;
  for (int round = 0; round < rounds; ++round) {
    std::vector<Receipt> receipts(5);
    std::vector<std::thread> threads;
    for (Receipt& receipt : receipts) {
      threads.emplace_back([&engine, &receipt, round] {
        receipt =
            engine.publish({.topic = "dedup", .payload = "p", .dedup_id = "once-" + std::to_string(round)});
      });
    }
    for (std::thread& thread : threads)
      thread.join();
    int first_count = 0;
    for (const Receipt& receipt : receipts) {
      ASSERT_TRUE(receipt.acked()) << receipt.error.to_string();
      EXPECT_EQ(receipt.id, receipts[0].id) << "a duplicate answers the id that was there first";
      first_count += receipt.duplicate ? 0 : 1;
    }
    EXPECT_EQ(first_count, 1);
  }
  ASSERT_TRUE(seen.reaches(rounds));
  EXPECT_TRUE(holds_for([&] { return seen.count() == rounds; }, 200ms));
  EXPECT_EQ(engine.statistics().value().duplicates, 4U * rounds);
}

TEST_P(Publish, Conf18_ADedupIdIsKnownInOneBatchAfterARestartAndOnlyInItsTopic) {
  Engine engine = open();
  make_group(engine, "dedup");
  std::vector<Message> batch(3, Message{.topic = "dedup", .payload = "p", .dedup_id = "twin"});
  const auto receipts = engine.publish_batch(std::move(batch)).value();
  EXPECT_FALSE(receipts[0].duplicate);
  EXPECT_TRUE(receipts[1].duplicate);
  EXPECT_TRUE(receipts[2].duplicate);
  EXPECT_EQ(receipts[2].id, receipts[0].id);
  close(engine);
  engine = open();
  const Receipt again = engine.publish({.topic = "dedup", .payload = "p", .dedup_id = "twin"});
  EXPECT_TRUE(again.acked());
  EXPECT_TRUE(again.duplicate);
  EXPECT_EQ(again.id, receipts[0].id);
  const Receipt elsewhere = engine.publish({.topic = "other", .payload = "p", .dedup_id = "twin"});
  EXPECT_TRUE(elsewhere.acked());
  EXPECT_FALSE(elsewhere.duplicate);
  EXPECT_EQ(waiting(engine, "dedup"), 1U);
}

TEST_P(Publish, Conf18_TheDedupWindowEnds) {
  EngineOptions options = quick_options();
  options.dedup_window = 1s;
  Engine engine = open(options);
  const Receipt first = engine.publish({.topic = "dedup", .payload = "p", .dedup_id = "window"});
  ASSERT_TRUE(first.acked());
  support::Stopwatch watch;
  Receipt receipt;
  ASSERT_TRUE(eventually([&] {
    receipt = engine.publish({.topic = "dedup", .payload = "p", .dedup_id = "window"});
    return !receipt.duplicate;
  }));
  EXPECT_TRUE(receipt.acked());
  EXPECT_NE(receipt.id, first.id);
  EXPECT_GE(watch.elapsed(), 900ms) << "the window was shorter than asked for";
}

TEST_P(Publish, Conf18_WhileUnfinishedEndsWithTheAcknowledgement) {
  Engine engine = open();
  Message message{
      .topic = "jobs", .payload = "p", .dedup_id = "nightly", .dedup_mode = DedupMode::kWhileUnfinished};
  make_group(engine, "jobs");
  const Receipt first = engine.publish(message);
  ASSERT_TRUE(first.acked());
  EXPECT_TRUE(engine.publish(message).duplicate);
  Recorder seen;
  Consumer consumer = engine.consume("jobs", member(), seen.handler()).value();
  ASSERT_TRUE(seen.reaches(1));
  ASSERT_OK(consumer.drain(5s));
  const Receipt second = engine.publish(message);
  ASSERT_TRUE(second.acked());
  EXPECT_FALSE(second.duplicate) << "the first one is finished";
  EXPECT_NE(second.id, first.id);
}

TEST_P(Publish, Conf18_ADelayedMessageIsADuplicateTooAndCancellingItFreesItsId) {
  Engine engine = open();
  Message message{
      .topic = "jobs", .payload = "p", .dedup_id = "later", .dedup_mode = DedupMode::kWhileUnfinished};
  message.delay = 1h;
  const Receipt first = engine.publish(message);
  ASSERT_TRUE(first.acked());
  const Receipt second = engine.publish(message);
  EXPECT_TRUE(second.duplicate);
  EXPECT_EQ(second.id, first.id);
  EXPECT_EQ(engine.pending().value().items.size(), 1U);
  ASSERT_EQ(engine.cancel(first.id).value(), ScheduleAnswer::kDone);
  const Receipt third = engine.publish(message);
  EXPECT_FALSE(third.duplicate);
  EXPECT_EQ(engine.cancel(third.id).value(), ScheduleAnswer::kDone);
}

}  // namespace
}  // namespace towline::conformance
