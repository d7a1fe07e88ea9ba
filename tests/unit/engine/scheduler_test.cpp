// Due records on their way to their topics: once, in order, never early, and never lost between the schedule
// and the transport, also where these are two systems.

#include "engine/scheduler.hpp"

#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;

struct Timetable : World {
  using World::World;
  Scheduler& scheduler() { return core->scheduler(); }
  MonotonicTime step() { return scheduler().step(clock->monotonic()); }
  MessageId later(Duration delay, std::string payload = "p", Duration skip_if_late_by = 0s) {
    Message message;
    message.topic = "t";
    message.payload = std::move(payload);
    message.delay = delay;
    message.misfire.skip_if_late_by = skip_if_late_by;
    return publish(std::move(message));
  }
  std::vector<std::string> read() {
    if (subscription == nullptr) {
      spi::SubscribeOptions options;
      options.group = "g";
      options.lease = 24h;
      options.matches = [](std::string_view) { return true; };
      subscription = inner.transport->subscribe(options).value();
    }
    spi::ReceiveRequest request;
    request.count_max = 1000;
    std::vector<std::string> payloads;
    for (const spi::Delivery& delivery : subscription->receive(request).value().deliveries)
      payloads.push_back(delivery.envelope->payload);
    return payloads;
  }
  std::unique_ptr<spi::Subscription> subscription;
};

using Payloads = std::vector<std::string>;

// ---- where the transport is the store -----------------------------------------------------------

TEST(Scheduler, NothingFiresBeforeItsTimeAndEverythingAtIt) {
  Timetable table;
  table.later(10s);
  table.clock->advance(10s - 1us);
  table.step();
  EXPECT_TRUE(table.read().empty());
  EXPECT_EQ(table.counters().fired.load(), 0U);
  table.clock->advance(1us);
  table.step();
  EXPECT_EQ(table.read(), Payloads{"p"});
  EXPECT_EQ(table.counters().fired.load(), 1U);
  table.step();
  EXPECT_TRUE(table.read().empty()) << "once";
}

TEST(Scheduler, WhatIsOverdueFiresInTheOrderOfDueTimes) {
  Timetable table;
  table.later(3s, "3");
  table.later(1s, "1");
  table.later(2s, "2");
  table.later(2s, "2b");
  table.clock->advance(1h);
  table.step();
  EXPECT_EQ(table.read(), (Payloads{"1", "2", "2b", "3"}));
}

TEST(Scheduler, OneRoundMovesNoMoreThanItsLimit) {
  Timetable table({.engine = {.promote_count_max = 3}});
  for (int i = 0; i < 5; ++i)
    table.later(1s);
  table.clock->advance(1s);
  table.step();
  EXPECT_EQ(table.read().size(), 3U);
  table.step();
  EXPECT_EQ(table.read().size(), 2U);
}

TEST(Scheduler, AfterDowntimeTheCatchUpRateIsKept) {
  Timetable table({.engine = {.catch_up_rate_per_second = 100}});
  for (int i = 0; i < 35; ++i)
    table.later(1s);
  table.clock->advance(24h);
  table.step();
  EXPECT_EQ(table.read().size(), 10U) << "a tenth of a second's worth at once";
  const MonotonicTime next = table.step();
  EXPECT_TRUE(table.read().empty());
  EXPECT_EQ(next - table.clock->monotonic(), 10ms) << "it says when it may go on";
  std::size_t fired = 0;
  const MonotonicTime begin = table.clock->monotonic();
  while (fired < 25) {
    const MonotonicTime at = table.step();
    fired += table.read().size();
    table.clock->advance(std::max<Duration>(at - table.clock->monotonic(), 1us));
  }
  EXPECT_NEAR(static_cast<double>((table.clock->monotonic() - begin).count()), 250000.0, 12000.0);
}

TEST(Scheduler, LatenessIsMeasuredFromTheDueTime) {
  Timetable table;
  table.later(10s);
  table.clock->advance(10s + 300ms);
  table.step();
  EXPECT_NEAR(static_cast<double>(table.core->context().lateness().max()), 300000.0, 20000.0);
}

TEST(Scheduler, AfterAnErrorItWantsTheNextRoundLaterAndNothingIsLost) {
  Timetable table;
  table.later(1s);
  table.clock->advance(1s);
  table.script->fail("promote_due", unavailable());
  EXPECT_EQ(table.step() - table.clock->monotonic(), 100ms);
  EXPECT_EQ(table.log, Payloads{"scheduler: ERR_UNAVAILABLE: the provider is away"});
  EXPECT_LE(table.step(), table.clock->monotonic()) << "and after a good one at once";
  EXPECT_EQ(table.read(), Payloads{"p"});
}

TEST(Scheduler, ALostAnswerToAPromotionLosesAndRepeatsNothing) {
  Timetable table;
  table.later(1s);
  table.clock->advance(1s);
  table.script->fail("promote_due", unavailable(), 1, true);
  table.step();
  table.step();
  EXPECT_EQ(table.read(), Payloads{"p"});
}

// ---- misfires -----------------------------------------------------------------------------------

TEST(Scheduler, AMessageThatIsTooLateByItsOwnRuleBecomesADeadLetter) {
  for (const bool is_store : {true, false}) {
    Timetable table({.is_store = is_store});
    const MessageId id = table.later(10s, "late", 5s);
    table.later(10s, "no rule");
    table.clock->advance(15s + 1us);
    table.step();
    EXPECT_EQ(table.read(), Payloads{"no rule"});
    const auto letters = table.dead_letters();
    ASSERT_EQ(letters.size(), 1U);
    EXPECT_EQ(letters.front().message_id, id);
    EXPECT_EQ(letters.front().reason, DeadLetterReason::kExpired);
    EXPECT_EQ(letters.front().error_type, "Misfire");
    EXPECT_EQ(letters.front().error_message,
              "it could fire only 5000 ms late, later than its misfire rule allows");
    EXPECT_TRUE(table.scheduled().empty());
  }
}

TEST(Scheduler, AMessageThatIsJustInTimeByItsRuleFires) {
  for (const bool is_store : {true, false}) {
    Timetable table({.is_store = is_store});
    table.later(10s, "p", 5s);
    table.clock->advance(15s);
    table.step();
    EXPECT_EQ(table.read(), Payloads{"p"});
    EXPECT_TRUE(table.dead_letters().empty());
  }
}

TEST(Scheduler, AMisfireFreesItsDedupId) {
  Timetable table;
  Message message;
  message.topic = "t";
  message.delay = 10s;
  message.misfire.skip_if_late_by = 1s;
  message.dedup_id = "d";
  message.dedup_mode = DedupMode::kWhileUnfinished;
  table.publish(message);
  table.clock->advance(1h);
  table.step();
  ASSERT_EQ(table.dead_letters().size(), 1U);
  EXPECT_FALSE(table.core->publisher().publish(message).duplicate);
}

TEST(Scheduler, AMisfireThatCannotBeWrittenIsTriedAgain) {
  Timetable table;
  table.later(10s, "late", 5s);
  table.clock->advance(20s);
  table.script->fail("commit", unavailable());
  EXPECT_EQ(table.step() - table.clock->monotonic(), 100ms);
  EXPECT_TRUE(table.dead_letters().empty());
  EXPECT_EQ(table.scheduled().size(), 1U);
  table.clock->advance(31s);  // its claim has lapsed
  table.step();
  EXPECT_EQ(table.dead_letters().size(), 1U);
  EXPECT_TRUE(table.scheduled().empty());
}

// ---- where the transport is not the store -------------------------------------------------------

TEST(Scheduler, WithoutASharedTransactionTheRecordIsErasedOnlyAfterTheMessageIsPublished) {
  Timetable table({.is_store = false});
  table.later(1s);
  table.script->forget_events();
  table.clock->advance(1s);
  table.step();
  EXPECT_EQ(table.script->events(), (Payloads{"publish 1", "commit EraseSchedule"}));
  EXPECT_EQ(table.read(), Payloads{"p"});
  EXPECT_TRUE(table.scheduled().empty());
  EXPECT_EQ(table.counters().fired.load(), 1U);
  EXPECT_EQ(table.core->context().lateness().count(), 1U);
}

TEST(Scheduler, APublishThatFailsLeavesTheRecordAndItFiresWhenItsClaimHasLapsed) {
  Timetable table({.is_store = false});
  table.later(1s);
  table.clock->advance(1s);
  table.script->fail("publish", unavailable());
  EXPECT_EQ(table.step() - table.clock->monotonic(), 100ms);
  EXPECT_TRUE(table.read().empty());
  EXPECT_EQ(table.counters().fired.load(), 0U);
  table.step();
  EXPECT_TRUE(table.read().empty()) << "claimed for the length of a lease";
  table.clock->advance(30s);
  table.step();
  EXPECT_EQ(table.read(), Payloads{"p"});
  EXPECT_TRUE(table.scheduled().empty());
}

TEST(Scheduler, AMessageThatTheTransportRejectsForNowStaysInTheSchedule) {
  Timetable table({.is_store = false});
  table.later(1s, "rejected");
  table.later(1s, "taken");
  table.script->reject_envelopes([](const spi::Envelope& envelope) -> std::optional<Error> {
    if (envelope.payload != "rejected") return std::nullopt;
    return Error{ErrorCode::kOverloaded, "the queue is full"};
  });
  table.clock->advance(1s);
  table.step();
  EXPECT_EQ(table.read(), Payloads{"taken"});
  EXPECT_EQ(table.counters().fired.load(), 1U);
  EXPECT_EQ(table.scheduled().size(), 1U);
  table.script->reject_envelopes({});
  table.clock->advance(30s);
  table.step();
  EXPECT_EQ(table.read(), Payloads{"rejected"});
  EXPECT_TRUE(table.scheduled().empty());
}

TEST(Scheduler, AMessageThatTheTransportRejectsForGoodBecomesADeadLetter) {
  Timetable table({.is_store = false});
  const MessageId id = table.later(1s, "rejected");
  table.script->reject_envelopes([](const spi::Envelope&) -> std::optional<Error> {
    return Error{ErrorCode::kPayloadTooLarge, "larger than the broker takes"};
  });
  table.clock->advance(1s);
  table.step();
  EXPECT_TRUE(table.scheduled().empty());
  const auto letters = table.dead_letters();
  ASSERT_EQ(letters.size(), 1U);
  EXPECT_EQ(letters.front().message_id, id);
  EXPECT_EQ(letters.front().payload, "rejected");
  EXPECT_EQ(letters.front().reason, DeadLetterReason::kPublishFailed);
  EXPECT_EQ(letters.front().error_message, "larger than the broker takes");
  EXPECT_EQ(table.counters().fired.load(), 0U);
}

// ---- cancel, reschedule, pending ----------------------------------------------------------------

TEST(Scheduler, CancelAnswersDoneAndTheMessageNeverFires) {
  Timetable table;
  const MessageId id = table.later(1s);
  EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kDone);
  table.clock->advance(1h);
  table.step();
  EXPECT_TRUE(table.read().empty());
  EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kNotFound);
}

TEST(Scheduler, ABatchIsCancelledByOneCommitAndAnswersEachByItself) {
  Timetable table;
  const MessageId fired = table.later(1s, "fired");
  table.clock->advance(1s);
  table.step();
  const MessageId first = table.later(1s, "first");
  const MessageId kept = table.later(1s, "kept");
  const MessageId last = table.later(1s, "last");
  const std::vector<MessageId> ids = {last, fired, table.core->context().make_id(), first, last};
  EXPECT_EQ(table.scheduler().cancel_batch(ids).value(),
            (std::vector{ScheduleAnswer::kDone, ScheduleAnswer::kAlreadyFired, ScheduleAnswer::kNotFound,
                         ScheduleAnswer::kDone, ScheduleAnswer::kNotFound}));
  EXPECT_EQ(table.scheduler().cancel_batch({}).value().size(), 0U);
  table.clock->advance(1h);
  table.step();
  EXPECT_EQ(table.read(), (Payloads{"fired", "kept"}));
  EXPECT_EQ(table.scheduler().cancel_batch({kept}).value(), std::vector{ScheduleAnswer::kAlreadyFired});
}

TEST(Scheduler, ABatchThatIsTooLargeCancelsNothing) {
  Timetable table({.engine = {.batch_count_max = 2}});
  const MessageId id = table.later(1s);
  EXPECT_EQ(code_of(table.scheduler().cancel_batch({id, id, id})), ErrorCode::kBatchTooLarge);
  EXPECT_EQ(table.scheduler().cancel_batch({id, id}).value(),
            (std::vector{ScheduleAnswer::kDone, ScheduleAnswer::kNotFound}));
}

TEST(Scheduler, WhatHasFiredCannotBeCancelledOrRescheduled) {
  Timetable table;
  const MessageId id = table.later(1s);
  table.clock->advance(1s);
  table.step();
  EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kAlreadyFired);
  EXPECT_EQ(table.scheduler().reschedule(id, table.clock->now() + 1s).value(), ScheduleAnswer::kAlreadyFired);
  EXPECT_EQ(table.scheduler().cancel(table.core->context().make_id()).value(), ScheduleAnswer::kNotFound);
}

TEST(Scheduler, WhatIsBeingPublishedCannotBeCancelledOrRescheduled) {
  Timetable table({.is_store = false});
  const MessageId id = table.later(1s);
  table.clock->advance(1s);
  table.script->fail("publish", unavailable(), 1, true);  // it is there, and nobody knows
  table.step();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kAlreadyFired);
    EXPECT_EQ(table.scheduler().reschedule(id, table.clock->now() + 1h).value(),
              ScheduleAnswer::kAlreadyFired);
    table.clock->advance(30s);  // the claim ends, and it is due again
  }
  EXPECT_EQ(table.read(), Payloads{"p"});
}

TEST(Scheduler, RescheduleMovesTheDueTimeBothWays) {
  Timetable table;
  const MessageId sooner = table.later(1h, "sooner");
  const MessageId later = table.later(1s, "later");
  EXPECT_EQ(table.scheduler().reschedule(sooner, table.clock->now() + 2s).value(), ScheduleAnswer::kDone);
  EXPECT_EQ(table.scheduler().reschedule(later, table.clock->now() + 2h).value(), ScheduleAnswer::kDone);
  table.clock->advance(2s);
  table.step();
  EXPECT_EQ(table.read(), Payloads{"sooner"});
}

TEST(Scheduler, RescheduleRefusesATimeBeyondTheLimit) {
  Timetable table({.engine = {.delay_max = 1h}});
  const MessageId id = table.later(1s);
  EXPECT_EQ(code_of(table.scheduler().reschedule(id, kNever)), ErrorCode::kInvalidDelay);
  EXPECT_EQ(code_of(table.scheduler().reschedule(id, table.clock->now() + 61min)), ErrorCode::kInvalidDelay);
  EXPECT_EQ(table.scheduler().reschedule(id, TimePoint::min()).value(), ScheduleAnswer::kDone);
}

TEST(Scheduler, ACancelledMessageFreesItsDedupIdOnlyWhileItIsUnfinished) {
  Timetable table;
  for (const DedupMode mode : {DedupMode::kWhileUnfinished, DedupMode::kWindow}) {
    Message message;
    message.topic = "t";
    message.delay = 10s;
    message.dedup_id = mode == DedupMode::kWindow ? "window" : "unfinished";
    message.dedup_mode = mode;
    const MessageId id = table.publish(message);
    EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kDone);
    EXPECT_EQ(table.core->publisher().publish(message).duplicate, mode == DedupMode::kWindow);
  }
}

TEST(Scheduler, AnOutageIsNeverAnAnswer) {
  Timetable table;
  const MessageId id = table.later(1s);
  table.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(table.scheduler().cancel(id)), ErrorCode::kUnavailable);
  table.script->fail("commit", unavailable());
  EXPECT_EQ(code_of(table.scheduler().cancel_batch({id})), ErrorCode::kUnavailable);
  table.script->fail("has_fired", unavailable());
  EXPECT_EQ(code_of(table.scheduler().cancel(table.core->context().make_id())), ErrorCode::kUnavailable);
  EXPECT_EQ(table.scheduler().cancel(id).value(), ScheduleAnswer::kDone);
}

TEST(Scheduler, PendingListsWhatUsersDelayedByDueTimeInPages) {
  Timetable table;
  for (int i = 5; i > 0; --i)
    table.later(std::chrono::seconds(i), std::string(static_cast<std::size_t>(i), 'x'));
  spi::ScheduleRecord retry;
  retry.id = table.core->context().make_id();
  retry.envelope.topic = "t";
  retry.envelope.group = "g";
  retry.due_at = table.clock->now() + 1ms;
  const spi::Unit unit{{spi::PutSchedule{retry}}};
  ASSERT_TRUE(table.inner.store->commit({&unit, 1}).ok());

  std::vector<std::size_t> sizes;
  std::string cursor;
  do {
    const Page<Scheduled> page = table.scheduler().pending("t", 2, cursor).value();
    EXPECT_LE(page.items.size(), 2U);
    for (const Scheduled& one : page.items)
      sizes.push_back(one.payload_size);
    cursor = page.cursor;
  } while (!cursor.empty());
  EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 2, 3, 4, 5})) << "retries are not the user's";
  EXPECT_TRUE(table.scheduler().pending("other", 100, {}).value().items.empty());
  EXPECT_EQ(code_of(table.scheduler().pending({}, 0, {})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(table.scheduler().pending({}, 1001, {})), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(table.scheduler().pending({}, 10, "nonsense")), ErrorCode::kInvalidCursor);
}

}  // namespace
}  // namespace towline::engine
