// What is refused before the first byte, what becomes of a message, and that the three ends of a publish are
// never taken for each other.

#include "engine/publisher.hpp"

#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

struct Press : World {
  using World::World;
  Publisher& publisher() { return core->publisher(); }
  Receipt send(Message message) { return publisher().publish(std::move(message)); }
  static Message message(std::string payload = "p", const std::string& topic = "t") {
    Message message;
    message.topic = topic;
    message.payload = std::move(payload);
    return message;
  }
  /// What the group "g" gets of the topic, which must have been read by it before.
  std::vector<spi::Envelope> read() {
    if (subscription == nullptr) {
      spi::SubscribeOptions options;
      options.group = "g";
      options.lease = 1h;
      options.matches = [](std::string_view) { return true; };
      subscription = inner.transport->subscribe(options).value();
    }
    spi::ReceiveRequest request;
    request.count_max = 1000;
    std::vector<spi::Envelope> envelopes;
    for (const spi::Delivery& delivery : subscription->receive(request).value().deliveries)
      envelopes.push_back(*delivery.envelope);
    return envelopes;
  }
  std::unique_ptr<spi::Subscription> subscription;
};

// ---- plain publishing ---------------------------------------------------------------------------

TEST(Publisher, AMessageArrivesWithEverythingThatThePublisherGaveIt) {
  Press press;
  Message message = Press::message(std::string("\0\xff", 2));
  message.key = "k";
  message.headers = {{"b", "2"}, {"a", "1"}};
  message.content_type = "text/plain";
  message.priority = 4;
  message.ttl = 10s;
  message.correlation_id = "corr";
  message.causation_id = "cause";
  message.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const Receipt receipt = press.send(message);
  ASSERT_TRUE(receipt.acked());
  EXPECT_FALSE(receipt.duplicate);
  const auto all = press.read();
  ASSERT_EQ(all.size(), 1U);
  const spi::Envelope& got = all.front();
  EXPECT_EQ(got.id, receipt.id);
  EXPECT_EQ(got.topic, "t");
  EXPECT_EQ(got.payload, message.payload);
  EXPECT_EQ(got.key, "k");
  EXPECT_EQ(got.headers, message.headers);
  EXPECT_EQ(got.content_type, "text/plain");
  EXPECT_EQ(got.priority, 4);
  EXPECT_EQ(got.correlation_id, "corr");
  EXPECT_EQ(got.causation_id, "cause");
  EXPECT_EQ(got.traceparent, message.traceparent);
  EXPECT_EQ(got.published_at, press.clock->now());
  EXPECT_EQ(got.expires_at, press.clock->now() + 10s);
  EXPECT_EQ(got.attempt, 1U);
  EXPECT_TRUE(got.group.empty());
  EXPECT_EQ(press.counters().published.load(), 1U);
}

TEST(Publisher, MessagesOfOneKeyGoToOnePartitionAndThoseWithoutAreSpread) {
  Press press;
  for (int i = 0; i < 50; ++i) {
    Message keyed = Press::message("keyed");
    keyed.key = "same";
    ASSERT_TRUE(press.send(keyed).acked());
    ASSERT_TRUE(press.send(Press::message("plain")).acked());
  }
  std::set<std::uint32_t> of_key, of_none;
  for (const spi::Envelope& envelope : press.read())
    (envelope.key ? of_key : of_none).insert(envelope.partition);
  EXPECT_EQ(of_key.size(), 1U);
  EXPECT_GT(of_none.size(), 20U);
}

TEST(Publisher, AnIdThatTheCallerGivesIsKept) {
  Press press;
  Message message = Press::message();
  message.id = press.core->context().make_id();
  const MessageId id = message.id;
  EXPECT_EQ(press.send(message).id, id);
  EXPECT_EQ(press.read().front().id, id);
}

TEST(Publisher, WhatIsWrongWithAMessageIsSaidBeforeAnythingIsWritten) {
  Press press({.engine = {.payload_bytes_max = 100}});
  const auto refusal = [&](const std::function<void(Message&)>& spoil) {
    Message message = Press::message();
    spoil(message);
    const Receipt receipt = press.send(std::move(message));
    EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
    return receipt.error.code;
  };
  EXPECT_EQ(refusal([](Message& m) { m.topic = ""; }), ErrorCode::kInvalidTopic);
  EXPECT_EQ(refusal([](Message& m) { m.topic = "a.*"; }), ErrorCode::kInvalidTopic);
  EXPECT_EQ(refusal([](Message& m) { m.payload = Bytes(101, 'x'); }), ErrorCode::kPayloadTooLarge);
  EXPECT_EQ(refusal([](Message& m) { m.key = std::string(256, 'k'); }), ErrorCode::kInvalidKey);
  EXPECT_EQ(refusal([](Message& m) { m.headers = {{"bad name", "v"}}; }), ErrorCode::kInvalidHeader);
  EXPECT_EQ(refusal([](Message& m) { m.delay = -1s; }), ErrorCode::kInvalidDelay);
  EXPECT_EQ(refusal([](Message& m) { m.priority = 10; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal([](Message& m) { m.dedup_id = std::string(256, 'd'); }), ErrorCode::kInvalidId);
  EXPECT_TRUE(press.script->events().empty());
  EXPECT_EQ(press.counters().rejected.load(), 8U);
  EXPECT_TRUE(press.send(Press::message(Bytes(100, 'x'))).acked());
}

TEST(Publisher, ABatchStoresTheGoodOnesTogetherAndRejectsTheOthersOneByOne) {
  Press press;
  std::vector<Message> messages{Press::message("1"), Press::message("2", "bad topic!"), Press::message("3"),
                                Press::message("4")};
  messages[3].delay = 5s;
  const std::vector<Receipt> receipts = press.publisher().publish_batch(messages).value();
  ASSERT_EQ(receipts.size(), 4U);
  EXPECT_TRUE(receipts[0].acked());
  EXPECT_EQ(receipts[1].error.code, ErrorCode::kInvalidTopic);
  EXPECT_TRUE(receipts[2].acked());
  EXPECT_TRUE(receipts[3].acked());
  EXPECT_EQ(press.script->count("publish 2"), 1) << "in one call";
  EXPECT_EQ(press.script->count("commit PutSchedule"), 1);
  EXPECT_EQ(press.read().size(), 2U);
  EXPECT_LT(receipts[0].id, receipts[2].id) << "ids are in the order of the batch";
}

TEST(Publisher, ABatchThatIsTooLargeIsRefusedWhole) {
  Press press({.engine = {.batch_count_max = 3}});
  EXPECT_EQ(code_of(press.publisher().publish_batch(std::vector<Message>(4, Press::message()))),
            ErrorCode::kBatchTooLarge);
  EXPECT_EQ(press.publisher().publish_batch(std::vector<Message>(3, Press::message())).value().size(), 3U);
  EXPECT_TRUE(press.publisher().publish_batch({}).value().empty());
}

// ---- the three ends -----------------------------------------------------------------------------

TEST(Publisher, AfterAnOutageDuringTheWriteTheOutcomeIsUnknown) {
  for (const ErrorCode code : {ErrorCode::kUnavailable, ErrorCode::kInternal}) {
    Press press;
    press.script->fail("publish", {code, "gone"});
    const Receipt receipt = press.send(Press::message());
    EXPECT_EQ(receipt.outcome, PublishOutcome::kUnknown);
    EXPECT_EQ(receipt.error.code, code);
    EXPECT_THROW((void)receipt.value(), Exception);
    EXPECT_EQ(press.counters().unknown.load(), 1U);
    EXPECT_EQ(press.counters().published.load(), 0U);
  }
}

TEST(Publisher, ALostAnswerIsUnknownAlthoughTheMessageIsThere) {
  Press press;
  press.script->fail("publish", unavailable(), 1, true);
  EXPECT_EQ(press.send(Press::message()).outcome, PublishOutcome::kUnknown);
  EXPECT_EQ(press.read().size(), 1U);
}

TEST(Publisher, AStoreThatIsFullOrLockedRejectsAndSaysThatNothingWasStored) {
  for (const ErrorCode code :
       {ErrorCode::kStorageFull, ErrorCode::kOverloaded, ErrorCode::kPayloadTooLarge, ErrorCode::kTimeout}) {
    Press press;
    press.script->fail("publish", {code, "no room"});
    const Receipt receipt = press.send(Press::message());
    EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
    EXPECT_EQ(receipt.error.code, code);
  }
}

TEST(Publisher, WhatFailsBeforeTheWriteIsRejectedWhateverTheError) {
  Press press;
  press.script->fail("topology", unavailable());
  const Receipt receipt = press.send(Press::message());
  EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(receipt.error.code, ErrorCode::kUnavailable);
  EXPECT_EQ(press.counters().unknown.load(), 0U);
  EXPECT_TRUE(press.send(Press::message()).acked());
}

TEST(Publisher, OneRejectedEnvelopeDoesNotTouchTheOthersOfItsBatch) {
  Press press;
  press.script->reject_envelopes([](const spi::Envelope& envelope) -> std::optional<Error> {
    if (envelope.payload != "2") return std::nullopt;
    return Error{ErrorCode::kPayloadTooLarge, "the broker says no"};
  });
  const auto receipts = press.publisher()
                            .publish_batch({Press::message("1"), Press::message("2"), Press::message("3")})
                            .value();
  EXPECT_TRUE(receipts[0].acked());
  EXPECT_EQ(receipts[1].outcome, PublishOutcome::kRejected);
  EXPECT_EQ(receipts[1].error.message, "the broker says no");
  EXPECT_TRUE(receipts[2].acked());
  EXPECT_EQ(press.counters().published.load(), 2U);
  EXPECT_EQ(press.counters().rejected.load(), 1U);
}

TEST(Publisher, ADiskErrorStopsTheEngine) {
  Press press;
  press.script->fail("publish", {ErrorCode::kIoError, "broken"});
  EXPECT_EQ(press.send(Press::message()).outcome, PublishOutcome::kUnknown);
  EXPECT_EQ(press.send(Press::message()).error.code, ErrorCode::kIoError);
  EXPECT_EQ(press.script->count("publish 1"), 0) << "the second never reached the disk";

  Press other;
  other.script->fail("commit", {ErrorCode::kIoError, "broken"});
  Message later = Press::message();
  later.delay = 1s;
  EXPECT_EQ(other.send(later).outcome, PublishOutcome::kUnknown);
  EXPECT_EQ(code_of(other.core->context().check_open()), ErrorCode::kIoError);
}

// ---- dedup ids ----------------------------------------------------------------------------------

TEST(Publisher, ASecondPublishWithTheSameDedupIdAnswersTheFirstId) {
  Press press;
  Message message = Press::message("1");
  message.dedup_id = "d";
  const Receipt first = press.send(message);
  message.payload = "2";
  const Receipt second = press.send(message);
  EXPECT_TRUE(second.acked());
  EXPECT_TRUE(second.duplicate);
  EXPECT_EQ(second.id, first.id);
  EXPECT_EQ(press.read().size(), 1U);
  EXPECT_EQ(press.counters().published.load(), 1U);
  EXPECT_EQ(press.counters().duplicates.load(), 1U);
  message.topic = "u";
  EXPECT_FALSE(press.send(message).duplicate) << "ids of different topics never meet";
}

TEST(Publisher, ADedupIdIsFreeAgainWhenItsWindowIsOver) {
  Press press({.engine = {.dedup_window = 10s}});
  Message message = Press::message();
  message.dedup_id = "d";
  (void)press.send(message);
  press.clock->advance(9s);
  EXPECT_TRUE(press.send(message).duplicate);
  press.clock->advance(1s);
  EXPECT_FALSE(press.send(message).duplicate);
}

TEST(Publisher, ADelayedMessageIsADuplicateOfADelayedOneAndAnswersItsId) {
  Press press;
  Message message = Press::message();
  message.dedup_id = "d";
  message.delay = 5s;
  const Receipt first = press.send(message);
  const Receipt second = press.send(message);
  EXPECT_TRUE(second.acked());
  EXPECT_TRUE(second.duplicate);
  EXPECT_EQ(second.id, first.id);
  EXPECT_EQ(press.scheduled().size(), 1U);
  message.delay = 0s;
  EXPECT_EQ(press.send(message).id, first.id) << "also of one that is published at once";
}

TEST(Publisher, TheSameIdTwiceInTheScheduleIsAConflict) {
  Press press;
  Message message = Press::message();
  message.id = press.core->context().make_id();
  message.delay = 5s;
  ASSERT_TRUE(press.send(message).acked());
  const Receipt again = press.send(message);
  EXPECT_EQ(again.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(again.error.code, ErrorCode::kConflict);
}

// ---- dedup ids where the transport is not the store ---------------------------------------------

struct TwoSystems : Press {
  TwoSystems() : Press({.is_store = false}) {}
  static Message deduplicated(std::string payload = "p", std::string dedup_id = "d") {
    Message message = Press::message(std::move(payload));
    message.dedup_id = std::move(dedup_id);
    return message;
  }
  std::vector<std::string> payloads() {
    std::vector<std::string> all;
    for (const spi::Envelope& envelope : read())
      all.push_back(envelope.payload);
    return all;
  }
};

using Payloads = std::vector<std::string>;

TEST(PublisherOfTwoSystems, TheStoreHoldsTheDedupIdBeforeTheTransportHasTheMessage) {
  TwoSystems press;
  const Receipt first = press.send(TwoSystems::deduplicated("1"));
  EXPECT_TRUE(first.acked() && !first.duplicate);
  const std::vector<std::string> steps = {"commit PutSchedule", "publish 1", "commit EraseSchedule"};
  std::vector<std::string> seen = press.script->events();
  std::erase_if(seen, [&](const std::string& event) {
    return std::find(steps.begin(), steps.end(), event) == steps.end();
  });
  EXPECT_EQ(seen, steps);
  const Receipt second = press.send(TwoSystems::deduplicated("2"));
  EXPECT_TRUE(second.acked() && second.duplicate);
  EXPECT_EQ(second.id, first.id);
  EXPECT_EQ(press.payloads(), Payloads{"1"});
  EXPECT_TRUE(press.scheduled().empty());
  EXPECT_EQ(press.counters().published.load(), 1U);
  EXPECT_EQ(press.counters().duplicates.load(), 1U);
}

TEST(PublisherOfTwoSystems, DelayedMessagesAndOthersShareTheirDedupIds) {
  TwoSystems press;
  Message delayed = TwoSystems::deduplicated("delayed");
  delayed.delay = 5s;
  const Receipt first = press.send(delayed);
  EXPECT_EQ(press.send(TwoSystems::deduplicated("at once")).id, first.id);
  press.clock->advance(5s);
  press.core->step_scheduler();
  EXPECT_EQ(press.payloads(), Payloads{"delayed"}) << "what the store let through, the transport carries";
}

TEST(PublisherOfTwoSystems, ABatchKeepsItsOrderAndLeavesOutItsDuplicates) {
  TwoSystems press;
  (void)press.send(TwoSystems::deduplicated("first", "b"));
  std::vector<Message> batch = {Press::message("1"), TwoSystems::deduplicated("2", "a"),
                                TwoSystems::deduplicated("3", "b"), TwoSystems::deduplicated("4", "a"),
                                Press::message("5")};
  for (Message& message : batch)
    message.key = "k";
  const auto receipts = press.publisher().publish_batch(std::move(batch)).value();
  std::vector<bool> duplicates;
  for (const Receipt& receipt : receipts) {
    EXPECT_TRUE(receipt.acked());
    duplicates.push_back(receipt.duplicate);
  }
  EXPECT_EQ(duplicates, (std::vector<bool>{false, false, true, true, false}));
  EXPECT_EQ(press.payloads(), (Payloads{"first", "1", "2", "5"}));
  EXPECT_EQ(press.counters().published.load(), 4U);
}

TEST(PublisherOfTwoSystems, WhatTheStoreHasIsAckedAndPublishedLaterWhenTheTransportIsAway) {
  TwoSystems press;
  press.script->fail("publish", unavailable());
  const Receipt receipt = press.send(TwoSystems::deduplicated());
  EXPECT_TRUE(receipt.acked()) << "it waits in the schedule";
  press.core->step_scheduler();
  EXPECT_TRUE(press.payloads().empty());
  press.clock->advance(30s);
  press.core->step_scheduler();
  EXPECT_EQ(press.payloads(), Payloads{"p"});
  EXPECT_TRUE(press.send(TwoSystems::deduplicated()).duplicate);
}

TEST(PublisherOfTwoSystems, WhatTheTransportRejectsForGoodIsRejectedAndFreesItsDedupId) {
  TwoSystems press;
  press.script->reject_envelopes([](const spi::Envelope&) -> std::optional<Error> {
    return Error{ErrorCode::kPayloadTooLarge, "larger than the broker takes"};
  });
  const Receipt receipt = press.send(TwoSystems::deduplicated());
  EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(receipt.error.code, ErrorCode::kPayloadTooLarge);
  EXPECT_TRUE(press.scheduled().empty());
  EXPECT_EQ(press.counters().published.load(), 0U);
  press.script->reject_envelopes({});
  EXPECT_FALSE(press.send(TwoSystems::deduplicated()).duplicate);
  EXPECT_EQ(press.payloads(), Payloads{"p"});
}

TEST(PublisherOfTwoSystems, WhatTheTransportRejectsForNowIsAckedAndGoesLater) {
  TwoSystems press;
  press.script->reject_envelopes([](const spi::Envelope&) -> std::optional<Error> {
    return Error{ErrorCode::kOverloaded, "the queue is full"};
  });
  EXPECT_TRUE(press.send(TwoSystems::deduplicated()).acked());
  press.script->reject_envelopes({});
  press.clock->advance(30s);
  press.core->step_scheduler();
  EXPECT_EQ(press.payloads(), Payloads{"p"});
}

TEST(PublisherOfTwoSystems, AnUnknownCommitOfTheStoreIsUnknownAndNothingIsPublishedTwice) {
  TwoSystems press;
  press.script->fail("commit", unavailable(), 1, true);
  EXPECT_EQ(press.send(TwoSystems::deduplicated()).outcome, PublishOutcome::kUnknown);
  EXPECT_TRUE(press.send(TwoSystems::deduplicated()).duplicate) << "it is in the store";
  press.clock->advance(30s);
  press.core->step_scheduler();
  EXPECT_EQ(press.payloads(), Payloads{"p"});
}

// ---- delays -------------------------------------------------------------------------------------

TEST(Publisher, ADelayedMessageWaitsInTheScheduleWithItsTimeToLiveFromItsDueTime) {
  Press press;
  Message message = Press::message();
  message.delay = 10s;
  message.ttl = 3s;
  message.misfire.skip_if_late_by = 7s;
  const Receipt receipt = press.send(message);
  ASSERT_TRUE(receipt.acked());
  const auto waiting = press.scheduled();
  ASSERT_EQ(waiting.size(), 1U);
  EXPECT_EQ(waiting.front().id, receipt.id);
  EXPECT_EQ(waiting.front().due_at, press.clock->now() + 10s);
  EXPECT_EQ(waiting.front().skip_if_late_by, 7s);
  EXPECT_EQ(waiting.front().envelope.expires_at, press.clock->now() + 13s);
  EXPECT_TRUE(press.read().empty());
}

TEST(Publisher, ADueTimeInThePastMeansNow) {
  Press press;
  Message message = Press::message();
  message.due_at = press.clock->now() - 1h;
  message.ttl = 3s;
  ASSERT_TRUE(press.send(message).acked());
  const auto all = press.read();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all.front().expires_at, press.clock->now() + 3s);
  EXPECT_TRUE(press.scheduled().empty());
}

TEST(Publisher, ADelayBeyondTheLimitIsRefused) {
  Press press({.engine = {.delay_max = 1h}});
  Message message = Press::message();
  message.delay = 1h;
  EXPECT_TRUE(press.send(message).acked());
  message.delay += 1us;
  EXPECT_EQ(press.send(message).error.code, ErrorCode::kInvalidDelay);
  message.delay = 0s;
  message.due_at = kNever;
  EXPECT_EQ(press.send(message).error.code, ErrorCode::kInvalidDelay);
}

TEST(Publisher, AnOutageOfTheScheduleIsUnknownAndARefusalIsRejected) {
  Press press;
  Message message = Press::message();
  message.delay = 10s;
  press.script->fail("commit", unavailable());
  EXPECT_EQ(press.send(message).outcome, PublishOutcome::kUnknown);
  press.script->refuse_units([](const spi::Unit&) { return storage_full(); });
  const Receipt receipt = press.send(message);
  EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(receipt.error.code, ErrorCode::kStorageFull);
}

// ---- for somebody else's transaction ------------------------------------------------------------

TEST(Publisher, AsAWriteItIsAPublishOrAScheduleRecordAndBadMessagesAreRefused) {
  Press press;
  Message message = Press::message();
  const auto now = press.publisher().as_write(message).value();
  ASSERT_TRUE(std::holds_alternative<spi::Publish>(now));
  EXPECT_EQ(std::get<spi::Publish>(now).envelope.payload, "p");
  message.delay = 5s;
  message.misfire.skip_if_late_by = 2s;
  const auto later = press.publisher().as_write(message).value();
  ASSERT_TRUE(std::holds_alternative<spi::PutSchedule>(later));
  const spi::ScheduleRecord& record = std::get<spi::PutSchedule>(later).record;
  EXPECT_EQ(record.due_at, press.clock->now() + 5s);
  EXPECT_EQ(record.id, record.envelope.id);
  EXPECT_EQ(record.skip_if_late_by, 2s);
  message.topic = "";
  EXPECT_EQ(code_of(press.publisher().as_write(message)), ErrorCode::kInvalidTopic);
  EXPECT_EQ(press.counters().published.load(), 0U);
}

// ---- publish_with_retry -------------------------------------------------------------------------

struct Patient : Press {
  explicit Patient(WorldOptions options = {}) : Press(std::move(options)) {
    clock->on_wait = [this](MonotonicTime until) {
      waits.push_back(
          std::chrono::duration_cast<std::chrono::milliseconds>(until - clock->monotonic()).count());
      clock->advance(until - clock->monotonic());
    };
  }
  Receipt retry(Message message, std::int64_t attempts = 4, std::optional<Duration> timeout = std::nullopt) {
    return publisher().publish_with_retry(std::move(message), retry_after(2s, attempts), timeout);
  }
  std::vector<std::int64_t> waits;
};

TEST(Publisher, WithRetryAMessageThatIsAckedAtOnceWaitsForNothing) {
  Patient press;
  EXPECT_TRUE(press.retry(Press::message()).acked());
  EXPECT_TRUE(press.waits.empty());
  EXPECT_EQ(press.read().size(), 1U);
}

TEST(Publisher, WithRetryAnOutageIsWaitedOut) {
  Patient press;
  press.script->fail("publish", unavailable(), 2);
  const Receipt receipt = press.retry(Press::message());
  EXPECT_TRUE(receipt.acked());
  EXPECT_EQ(press.waits, (std::vector<std::int64_t>{2000, 2000}));
  EXPECT_EQ(press.read().size(), 1U);
  EXPECT_TRUE(press.dead_letters().empty());
}

TEST(Publisher, WithRetryAnUnknownOutcomeIsRepeatedOnlyUnderADedupId) {
  Patient press;
  press.script->fail("publish", unavailable(), 1, true);  // it is stored, but nobody says so
  const Receipt receipt = press.retry(Press::message());
  EXPECT_TRUE(receipt.acked());
  const auto all = press.read();
  ASSERT_EQ(all.size(), 1U) << "once, although it was sent twice";
  EXPECT_EQ(receipt.id, all.front().id) << "the receipt names the one that is stored";
  EXPECT_TRUE(all.front().dedup_id.starts_with("towline-"));
}

TEST(Publisher, WithRetryTheCallersOwnDedupIdIsKept) {
  Patient press;
  Message message = Press::message();
  message.dedup_id = "mine";
  press.script->fail("publish", unavailable());
  ASSERT_TRUE(press.retry(message).acked());
  EXPECT_EQ(press.read().front().dedup_id, "mine");
}

TEST(Publisher, WithRetryAMessageThatNeverGetsThroughBecomesADeadLetter) {
  Patient press;
  press.script->fail("publish", unavailable(), 4);
  Message message = Press::message("lost?");
  message.key = "k";
  const Receipt receipt = press.retry(message);
  EXPECT_EQ(receipt.outcome, PublishOutcome::kUnknown);
  EXPECT_EQ(receipt.error.code, ErrorCode::kUnavailable);
  EXPECT_EQ(press.waits.size(), 3U) << "four attempts";
  const auto letters = press.dead_letters();
  ASSERT_EQ(letters.size(), 1U);
  EXPECT_EQ(letters.front().reason, DeadLetterReason::kPublishFailed);
  EXPECT_EQ(letters.front().group, "");
  EXPECT_EQ(letters.front().payload, "lost?");
  EXPECT_EQ(letters.front().key, "k");
  EXPECT_EQ(letters.front().error_type, "ERR_UNAVAILABLE");
  EXPECT_NE(receipt.error.message.find(letters.front().id.to_string()), std::string::npos)
      << "the error says where it is: " << receipt.error.message;
}

TEST(Publisher, WithRetryTheErrorSaysWhenNotEvenADeadLetterCouldBeWritten) {
  Patient press;
  press.script->fail("publish", unavailable(), 4);
  press.script->fail("commit", storage_full());
  const Receipt receipt = press.retry(Press::message());
  EXPECT_NE(receipt.error.message.find("could not be dead-lettered either: the disk is full"),
            std::string::npos);
  EXPECT_TRUE(press.dead_letters().empty());
}

TEST(Publisher, WithRetryAMessageThatIsWrongIsNotTriedAgain) {
  Patient press;
  const Receipt receipt = press.retry(Press::message("p", "bad topic!"));
  EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected);
  EXPECT_EQ(receipt.error.code, ErrorCode::kInvalidTopic);
  EXPECT_TRUE(press.waits.empty());
  EXPECT_TRUE(press.dead_letters().empty());
}

TEST(Publisher, WithRetryARejectionThatPassesIsTriedAgain) {
  Patient press;
  press.script->fail("publish", storage_full(), 1);
  EXPECT_TRUE(press.retry(Press::message()).acked());
  EXPECT_EQ(press.waits.size(), 1U);
}

TEST(Publisher, WithRetryNoWaitGoesBeyondTheTimeout) {
  Patient press;
  press.script->fail("publish", unavailable(), 100);
  const Receipt receipt = press.retry(Press::message(), 100, 5s);
  EXPECT_EQ(receipt.error.code, ErrorCode::kUnavailable);
  EXPECT_EQ(press.waits.size(), 2U) << "a third one would end after 6 s";
  EXPECT_EQ(press.dead_letters().size(), 1U);
}

TEST(Publisher, WithRetryADiskErrorEndsItAtOnce) {
  Patient press;
  press.script->fail("publish", {ErrorCode::kIoError, "broken"});
  EXPECT_EQ(press.retry(Press::message()).error.code, ErrorCode::kIoError);
  EXPECT_TRUE(press.waits.empty());
}

TEST(Publisher, WithRetryBadRetryOptionsAreRefused) {
  Patient press;
  RetryOptions retry;
  retry.max_attempts = 0;
  EXPECT_EQ(press.publisher().publish_with_retry(Press::message(), retry, {}).error.code,
            ErrorCode::kInvalidConfig);
  retry = {};
  retry.kind = BackoffKind::kSequence;
  EXPECT_EQ(press.publisher().publish_with_retry(Press::message(), retry, {}).error.code,
            ErrorCode::kInvalidConfig);
  EXPECT_TRUE(press.script->events().empty());
}

TEST(Publisher, WithRetryADelayedMessageThatIsStoredTwiceIsStoredOnce) {
  Patient press;
  Message message = Press::message();
  message.delay = 1h;
  press.script->fail("commit", unavailable(), 1, true);
  const Receipt receipt = press.retry(message);
  EXPECT_TRUE(receipt.acked());
  const auto waiting = press.scheduled();
  ASSERT_EQ(waiting.size(), 1U);
  EXPECT_EQ(waiting.front().id, receipt.id) << "so the receipt cancels it";
}

// ---- the bound on calls in flight ---------------------------------------------------------------

TEST(Publisher, NoMoreCallsThanTheLimitAreInTheProviderAtOnce) {
  EngineOptions options;
  options.publish_in_flight_count_max = 2;
  RunningWorld world(options);
  Gate gate;
  std::atomic<int> inside = 0, most = 0;
  world.script->before("publish", [&] {
    const int now = ++inside;
    int seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    gate.wait();
    --inside;
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&] { EXPECT_TRUE(world.core->publisher().publish(Press::message()).acked()); });
  gate.await_waiting(2);
  EXPECT_TRUE(support::holds_for([&] { return inside == 2; }, 30ms));
  gate.open();
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(most, 2);
}

TEST(Publisher, AWaitForATurnEndsAtThePublishTimeoutAndNothingWasStored) {
  EngineOptions options;
  options.publish_in_flight_count_max = 1;
  options.publish_timeout = 50ms;
  RunningWorld world(options);
  Gate gate;
  world.script->before("publish", [&] { gate.wait(); });
  std::thread first([&] { (void)world.core->publisher().publish(Press::message()); });
  gate.await_waiting();
  const Receipt receipt = world.core->publisher().publish(Press::message());
  EXPECT_FALSE(receipt.acked());
  EXPECT_EQ(receipt.outcome, PublishOutcome::kRejected) << "it never began";
  gate.open();
  first.join();
}

TEST(Publisher, ClosingEndsTheWaitForATurn) {
  EngineOptions options;
  options.publish_in_flight_count_max = 1;
  options.publish_timeout = 1h;
  RunningWorld world(options);
  Gate gate;
  world.script->before("publish", [&] { gate.wait(); });
  std::thread first([&] { (void)world.core->publisher().publish(Press::message()); });
  gate.await_waiting();
  std::atomic<bool> ended = false;
  std::thread second([&] {
    EXPECT_EQ(world.core->publisher().publish(Press::message()).outcome, PublishOutcome::kRejected);
    ended = true;
  });
  (void)world.core->close(std::nullopt);
  EXPECT_TRUE(support::eventually([&] { return ended.load(); }));
  second.join();
  gate.open();
  first.join();
}

}  // namespace
}  // namespace towline::engine
