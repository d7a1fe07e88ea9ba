// Units are all or nothing; dedup ids, idempotency records and inbox entries change by compare-and-set.

#include "unit/drivers/world.hpp"

namespace towline::drivers::testing {
namespace {

using Numbers = std::vector<std::uint64_t>;

class Units : public OverDrivers {
 protected:
  /// Hands units to a receive that takes nothing.
  [[nodiscard]] static std::vector<Result<void>> settle_with(spi::Subscription& subscription,
                                                             const std::vector<spi::Unit>& units) {
    spi::ReceiveRequest request;
    request.units = units;
    return subscription.receive(request).value().units;
  }
  [[nodiscard]] static spi::Settle ack(const spi::Delivery& delivery) {
    return {{delivery.token, spi::Verb::kAck}};
  }
  [[nodiscard]] spi::IdempotencyRecord idempotency(const std::string& key,
                                                   const std::string& result = {}) const {
    spi::IdempotencyRecord record;
    record.scope = "s";
    record.key = key;
    record.result = result;
    record.has_result = true;
    record.expires_at = world.clock->now() + 60s;
    return record;
  }
  [[nodiscard]] DeadLetter dead_letter(std::uint64_t number) const {
    DeadLetter letter;
    letter.id = make_id(number);
    letter.message_id = make_id(number);
    letter.created_at = world.clock->now();
    return letter;
  }
};

TEST_P(Units, AllWritesOfAUnitHappenOrNone) {
  auto subscription = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*subscription);
  const std::vector<spi::Unit> bad = {
      {{ack(held[0]), spi::PutSchedule{world.record(2, 1s)}, spi::Publish{world.envelope(3)},
        spi::PutDeadLetter{dead_letter(4)}, spi::PutIdempotency{idempotency("k"), 0}, spi::PutKeyBlock{},
        spi::PutInbox{"g", make_id(1), kNever}, spi::EraseSchedule{make_id(99)}}}};
  const auto results = settle_with(*subscription, bad);
  ASSERT_EQ(results.size(), 1U);
  EXPECT_EQ(code_of(results[0]), ErrorCode::kNotFound);
  EXPECT_EQ(world.group().in_flight, 1U);
  EXPECT_FALSE(world.store().find_schedule(make_id(2)).value());
  EXPECT_FALSE(world.store().find_dead_letter(make_id(4)).value());
  EXPECT_FALSE(world.store().find_idempotency("s", "k").value());
  EXPECT_FALSE(world.store().inbox_contains("g", std::vector{make_id(1)}).value()[0]);
  EXPECT_EQ(world.take(*subscription), Numbers{});
}

TEST_P(Units, UnitsOfOneCallAreJudgedOneByOne) {
  const std::vector<spi::Unit> units = {{{spi::PutSchedule{world.record(1, 1s)}}},
                                        {{spi::PutSchedule{world.record(1, 1s)}}},
                                        {{spi::EraseSchedule{make_id(1), 1}}}};
  const auto results = world.store().commit(units).value();
  ASSERT_EQ(results.size(), 3U);
  EXPECT_TRUE(results[0].ok());
  EXPECT_EQ(code_of(results[1]), ErrorCode::kConflict);
  EXPECT_TRUE(results[2].ok());
}

TEST_P(Units, AnOutcomeItsMessagesAndItsSettlementAreOneStep) {
  auto subscription = world.subscribe();
  world.publish(1, 1);
  const auto held = world.receive(*subscription);
  spi::ReceiveRequest request;
  const std::vector<spi::Unit> units = {{{ack(held[0]), spi::Publish{world.envelope(2)}}}};
  request.units = units;
  request.count_max = 10;
  const spi::Received received = subscription->receive(request).value();
  EXPECT_TRUE(received.units.empty()) << "all were applied";
  EXPECT_EQ(numbers_of(received.deliveries), range(2, 2));
}

TEST_P(Units, ASettlementInAUnitNeedsItsLease) {
  auto subscription = world.subscribe();
  world.publish(1, 2);
  const auto held = world.receive(*subscription);
  auto results =
      settle_with(*subscription, {{{ack(held[0])}}, {{ack(held[0]), spi::PutSchedule{world.record(5, 1s)}}}});
  ASSERT_EQ(results.size(), 2U);
  EXPECT_TRUE(results[0].ok());
  EXPECT_EQ(code_of(results[1]), ErrorCode::kLeaseLost);
  EXPECT_FALSE(world.store().find_schedule(make_id(5)).value());
  world.clock->advance(30s);
  results = settle_with(*subscription, {{{ack(held[1])}}});
  EXPECT_EQ(code_of(results.at(0)), ErrorCode::kLeaseLost);
  EXPECT_EQ(code_of(world.write(ack(held[1]))), ErrorCode::kInvalidArgument)
      << "a commit has no subscription";
}

TEST_P(Units, ASecondPublishWithADedupIdStoresNothing) {
  auto subscription = world.subscribe();
  const auto with_dedup = [&](std::uint64_t number, Duration window) {
    spi::Envelope envelope = world.envelope(number);
    envelope.dedup_id = "d";
    envelope.dedup_until = world.clock->now() + window;
    return envelope;
  };
  EXPECT_TRUE(world.publish(with_dedup(1, 60s)).empty());
  auto answers = world.publish({with_dedup(2, 60s), world.envelope(3), with_dedup(4, 60s)});
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_TRUE(answers[0].duplicate);
  EXPECT_EQ(answers[0].original, make_id(1));
  EXPECT_FALSE(answers[1].duplicate);
  EXPECT_TRUE(answers[2].duplicate);
  EXPECT_EQ(world.store().find_dedup("t", "d").value(), make_id(1));
  EXPECT_FALSE(world.store().find_dedup("u", "d").value());
  EXPECT_FALSE(world.store().find_dedup("t", "").value());
  spi::ScheduleRecord delayed = world.record(5, 1s);
  delayed.envelope = with_dedup(5, 60s);
  EXPECT_EQ(code_of(world.write(spi::PutSchedule{delayed})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::Publish{with_dedup(6, 60s)}).ok());
  EXPECT_EQ(world.take(*subscription), (Numbers{1, 3}));
  world.clock->advance(60s);
  EXPECT_FALSE(world.store().find_dedup("t", "d").value());
  EXPECT_TRUE(world.publish(with_dedup(7, 60s)).empty());
}

TEST_P(Units, TwoInOneBatchWithOneDedupIdAreOne) {
  auto subscription = world.subscribe();
  spi::Envelope first = world.envelope(1);
  first.dedup_id = "d";
  first.dedup_mode = DedupMode::kWhileUnfinished;
  spi::Envelope second = first;
  second.id = make_id(2);
  const auto answers = world.publish({first, second});
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_FALSE(answers[0].duplicate);
  EXPECT_EQ(answers[1].original, make_id(1));
  EXPECT_EQ(world.take(*subscription), range(1, 1));
  spi::ScheduleRecord a = world.record(11, 1s);
  a.envelope.dedup_id = "e";
  spi::ScheduleRecord b = world.record(12, 1s);
  b.envelope.dedup_id = "e";
  EXPECT_EQ(code_of(world.write(spi::PutSchedule{a}, spi::PutSchedule{b})), ErrorCode::kConflict);
}

TEST_P(Units, ARetryIsNotADuplicateOfItsOwnMessage) {
  auto subscription = world.subscribe();
  spi::Envelope envelope = world.envelope(1);
  envelope.dedup_id = "d";
  envelope.dedup_mode = DedupMode::kWhileUnfinished;
  world.publish(envelope);
  const auto held = world.receive(*subscription);
  spi::ScheduleRecord retry = world.record(100, 1s);
  retry.envelope = *held[0].envelope;
  retry.envelope.group = "g";
  EXPECT_TRUE(settle_with(*subscription, {{{ack(held[0]), spi::PutSchedule{retry}}}}).empty());
  world.clock->advance(1s);
  EXPECT_EQ(world.promote().promoted_count, 1U);
  EXPECT_EQ(world.take(*subscription), range(1, 1));
}

TEST_P(Units, AnUnfinishedDedupIdIsHeldUntilItsOwnMessageGivesItUp) {
  spi::Envelope envelope = world.envelope(1);
  envelope.dedup_id = "d";
  envelope.dedup_mode = DedupMode::kWhileUnfinished;
  world.publish(envelope);
  world.clock->advance(24h * 365);
  EXPECT_TRUE(world.write(spi::ForgetDedup{"t", "d", make_id(2)}).ok());
  EXPECT_TRUE(world.store().find_dedup("t", "d").value());
  EXPECT_TRUE(world.write(spi::ForgetDedup{"t", "d", make_id(1)}).ok());
  EXPECT_FALSE(world.store().find_dedup("t", "d").value());
  EXPECT_TRUE(world.write(spi::ForgetDedup{"t", "d", make_id(1)}).ok());
}

TEST_P(Units, IdempotencyRecordsChangeByCompareAndSet) {
  EXPECT_TRUE(world.write(spi::PutIdempotency{idempotency("k"), 0}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{idempotency("k"), 0})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::PutIdempotency{idempotency("k", std::string("\0", 1)), 1}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{idempotency("k"), 1})), ErrorCode::kConflict);
  const auto found = world.store().find_idempotency("s", "k").value();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->version, 2U);
  EXPECT_EQ(found->result, std::string("\0", 1));
  EXPECT_FALSE(world.store().find_idempotency("other", "k").value());
  EXPECT_EQ(world.store().statistics().value().idempotency_records, 1U);
  EXPECT_EQ(code_of(world.write(spi::EraseIdempotency{"s", "k", 1})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::EraseIdempotency{"s", "k", 2}).ok());
  EXPECT_EQ(code_of(world.write(spi::EraseIdempotency{"s", "k", 0})), ErrorCode::kNotFound);
}

TEST_P(Units, AnExpiredIdempotencyRecordIsAbsentSweptOrNot) {
  ASSERT_TRUE(world.write(spi::PutIdempotency{idempotency("k"), 0}).ok());
  ASSERT_TRUE(world.write(spi::PutIdempotency{idempotency("other"), 0}).ok());
  world.clock->advance(60s);
  EXPECT_FALSE(world.store().find_idempotency("s", "k").value());
  EXPECT_EQ(code_of(world.write(spi::PutIdempotency{idempotency("k"), 1})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::PutIdempotency{idempotency("k"), 0}).ok());
  EXPECT_EQ(world.store().find_idempotency("s", "k").value()->version, 1U);
  EXPECT_EQ(world.store().sweep({world.clock->now()}).value().idempotency_records, 1U);
  EXPECT_TRUE(world.store().find_idempotency("s", "k").value());
}

TEST_P(Units, NamesOfTwoPartsAreNotMixedUp) {
  spi::IdempotencyRecord record = idempotency("bc");
  record.scope = "a";
  ASSERT_TRUE(world.write(spi::PutIdempotency{record, 0}).ok());
  EXPECT_FALSE(world.store().find_idempotency("ab", "c").value());
}

TEST_P(Units, TheInboxTakesAMessageOncePerGroupUntilItExpires) {
  const TimePoint end = world.clock->now() + 10s;
  EXPECT_TRUE(world.write(spi::PutInbox{"g", make_id(1), end}).ok());
  EXPECT_EQ(code_of(world.write(spi::PutInbox{"g", make_id(1), end})), ErrorCode::kConflict);
  EXPECT_TRUE(world.write(spi::PutInbox{"h", make_id(1), end}).ok());
  const std::vector<MessageId> ids = {make_id(1), make_id(2)};
  EXPECT_EQ(world.store().inbox_contains("g", ids).value(), (std::vector<bool>{true, false}));
  world.clock->advance(10s);
  EXPECT_EQ(world.store().inbox_contains("g", ids).value(), (std::vector<bool>{false, false}));
  EXPECT_TRUE(world.write(spi::PutInbox{"g", make_id(1), end + 10s}).ok());
  EXPECT_EQ(world.store().sweep({world.clock->now()}).value().inbox_records, 1U);
}

TEST_P(Units, DeadLettersChangeByVersion) {
  ASSERT_TRUE(world.write(spi::PutDeadLetter{dead_letter(1)}).ok());
  spi::UpdateDeadLetter lease{make_id(1), 1, DeadLetterStatus::kReprocessing, world.clock->now() + 5s, 1};
  EXPECT_TRUE(world.write(lease).ok());
  EXPECT_EQ(code_of(world.write(lease)), ErrorCode::kConflict);
  EXPECT_EQ(code_of(world.write(spi::UpdateDeadLetter{make_id(2), 1, {}, {}, 0})), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(world.write(spi::EraseDeadLetter{make_id(1), 1})), ErrorCode::kConflict);
  const auto found = world.store().find_dead_letter(make_id(1)).value();
  EXPECT_EQ(found->version, 2U);
  EXPECT_EQ(found->status, DeadLetterStatus::kReprocessing);
  EXPECT_EQ(found->reprocess_count, 1U);
  EXPECT_TRUE(world.write(spi::EraseDeadLetter{make_id(1), 2}).ok());
  EXPECT_FALSE(world.store().find_dead_letter(make_id(1)).value());
}

TOWLINE_OVER_DRIVERS(Units);

}  // namespace
}  // namespace towline::drivers::testing
