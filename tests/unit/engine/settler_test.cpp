// From outcomes to durable changes. What counts is the order: an outcome's records are committed first, then
// the delivery is settled, then its key and its waiters are told; and whatever the store refuses or loses on
// the way, a message is neither lost nor overtaken.

#include "engine/settler.hpp"

#include <atomic>
#include <thread>

#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using support::eventually;
using Names = std::vector<std::string>;

/// A handler that fails the first `times` times it sees a message of this name.
std::function<void(Delivery&)> fails(std::string name, int times) {
  return [name = std::move(name), left = times](Delivery& delivery) mutable {
    if (delivery.payload() == name && left-- > 0) throw HandlerError("Flaky", "again");
  };
}

WorldOptions two_systems() {
  WorldOptions options;
  options.is_store = false;
  return options;
}

// ---- the order of commit and settlement ---------------------------------------------------------

TEST(Settler, AckIsSentOnlyAfterTheOutcomeIsCommitted) {
  World world(two_systems());
  const auto consumer = world.consume(group_options(), fails("a", 1));
  world.publish("a");
  world.script->forget_events();
  world.play(*consumer);
  ASSERT_EQ(world.script->count("commit PutSchedule"), 1);
  ASSERT_EQ(world.script->count("settle ack"), 1);
  EXPECT_LT(world.script->place("commit PutSchedule"), world.script->place("settle ack"));
}

TEST(Settler, WhereTheTransportIsTheStoreRecordsAndSettlementAreOneUnit) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 1));
  world.publish("a");
  world.script->forget_events();
  world.play(*consumer);
  EXPECT_EQ(world.script->count("receive Settle+PutSchedule"), 1);
  EXPECT_EQ(world.script->count("settle ack"), 0) << "a second settlement would come after the commit";
}

TEST(Settler, WhatNeedsNoRecordIsAcknowledgedWithoutAUnit) {
  World world;
  const auto consumer = world.consume(group_options());
  world.publish("a");
  world.script->forget_events();
  world.play(*consumer);
  EXPECT_EQ(world.script->count("settle ack"), 1);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_EQ(world.group().in_flight, 0U);
}

TEST(Settler, NothingIsSettledWhileTheCommitFails) {
  World world(two_systems());
  const auto consumer = world.consume(group_options(), fails("a", 1));
  world.publish("a");
  world.script->fail("commit", unavailable(), 3);
  for (int round = 0; round < 3; ++round) {
    world.play(*consumer);
    EXPECT_EQ(world.script->count("settle ack"), 0) << "in round " << round;
    EXPECT_EQ(world.group().in_flight, 1U);
    world.clock->advance(1s);
  }
  world.play(*consumer);
  EXPECT_EQ(world.script->count("settle ack"), 1);
  EXPECT_EQ(world.scheduled("g").size(), 1U) << "stored once";
}

TEST(Settler, ACommitWhoseAnswerIsLostLosesNothing) {
  World world(two_systems());
  const auto consumer = world.consume(group_options(), fails("a", 1));
  world.publish("a");
  world.script->fail("commit", unavailable(), 1, true);
  for (int round = 0; round < 10 && consumer->statistics().acked == 0; ++round) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  world.play(*consumer);
  EXPECT_GE(world.handled.size(), 2U) << "its retry came";
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_TRUE(world.scheduled("g").empty());
  EXPECT_TRUE(world.dead_letters().empty());
}

TEST(Settler, AReceiveWhoseAnswerIsLostSettlesAgainAndLosesNothing) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 1));
  world.publish("a");
  world.step(*consumer);
  auto delivery = consumer->take_one();
  ASSERT_TRUE(delivery.has_value());
  consumer->run_one(*delivery);
  world.script->fail("receive", unavailable(), 1, true);
  for (int round = 0; round < 10; ++round) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  EXPECT_EQ(world.handled, (Names{"a", "a"}));
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_TRUE(world.scheduled("g").empty());
}

TEST(Settler, ADeliveryStaysOursUntilAFullStoreTakesItsRecord) {
  for (const bool is_store : {true, false}) {
    World world({.is_store = is_store});
    const auto consumer = world.consume(group_options(), fails("a", 1));
    world.publish("a");
    world.script->refuse_units([](const spi::Unit& unit) {
      return find_write<spi::PutSchedule>(unit) ? std::optional(storage_full()) : std::nullopt;
    });
    for (int round = 0; round < 3; ++round) {
      world.play(*consumer);
      world.clock->advance(1s);
      EXPECT_EQ(world.group().in_flight, 1U) << "neither settled nor given back";
      EXPECT_EQ(world.counters().in_flight_count.load(), 1U);
    }
    EXPECT_EQ(world.handled.size(), 1U);
    world.script->refuse_units({});
    world.play(*consumer);
    EXPECT_EQ(world.group().in_flight, 0U) << "is_store " << is_store;
    EXPECT_EQ(world.scheduled("g").size(), 1U);
  }
}

TEST(Settler, AHeadThatTheTransportRejectsForGoodLetsItsKeyGoOn) {
  World world(two_systems());
  ConsumerOptions options = group_options();
  options.order = Order::kKeyOrdered;
  const auto consumer = world.consume(std::move(options), fails("a", 1));
  for (const char* name : {"a", "b", "c"})
    world.publish(name, "k");
  world.play(*consumer);
  world.script->reject_envelopes([](const spi::Envelope& envelope) -> std::optional<Error> {
    if (envelope.payload != "a") return std::nullopt;
    return Error{ErrorCode::kPayloadTooLarge, "with its history it is larger than the broker takes"};
  });
  for (int round = 0; round < 3; ++round) {
    world.clock->advance(10s);
    world.play(*consumer);
  }
  EXPECT_EQ(world.handled, (Names{"a", "b", "c"}));
  EXPECT_EQ(world.dead_letters().size(), 1U);
  EXPECT_TRUE(world.blocks().empty());
}

TEST(Settler, OfTwoSystemsWhatTheInboxHasByALostAnswerIsStillSettled) {
  World world(two_systems());
  ConsumerOptions options = group_options();
  options.inbox_window = 1h;
  const auto consumer = world.consume(std::move(options));
  world.publish("a");
  world.script->fail("commit", unavailable(), 1, true);
  for (int round = 0; round < 5; ++round) {
    world.play(*consumer);
    world.clock->advance(1s);
  }
  EXPECT_EQ(world.handled, Names{"a"});
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_EQ(world.script->count("settle ack"), 1);
}

TEST(Settler, WhatCanNeverBeWrittenIsHandedBackInsteadOfBeingHeldForEver) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 1000));
  world.publish("a");
  world.script->refuse_units([](const spi::Unit& unit) {
    return find_write<spi::PutSchedule>(unit) ? std::optional(Error{ErrorCode::kInvalidArgument, "no"})
                                              : std::nullopt;
  });
  world.play(*consumer);
  world.clock->advance(1s);
  world.play(*consumer);
  EXPECT_GE(world.script->count("settle release"), 1);
  EXPECT_TRUE(std::any_of(world.log.begin(), world.log.end(), [](const std::string& line) {
    return line.find("ERR_INVALID_ARGUMENT: no") != std::string::npos;
  })) << "and says why";
}

TEST(Settler, ALostLeaseIsCountedAndChangesNothing) {
  World world;
  const auto slow = world.consume(group_options());
  world.publish("a");
  world.step(*slow);
  auto held = slow->take_one();
  ASSERT_TRUE(held.has_value());
  world.clock->advance(31s);  // the lease, which nobody renewed
  const auto other = world.consume(group_options());
  world.play(*other);
  EXPECT_EQ(world.handled, Names{"a"});
  slow->finish(*held, Outcome::ack());
  world.step(*slow);
  world.step(*slow);
  EXPECT_EQ(slow->statistics().acked, 0U);
  EXPECT_EQ(slow->statistics().lease_lost, 1U);
  EXPECT_EQ(slow->statistics().in_flight, 0U) << "its books are closed";
  EXPECT_EQ(other->statistics().acked, 1U);
}

TEST(Settler, WhoWaitsForItsSettlementIsToldWhenItIsDurableAndNotBefore) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  const auto consumer = world.consume(options);
  world.publish("a");
  world.step(*consumer);
  auto delivery = consumer->take_one();
  ASSERT_TRUE(delivery.has_value());
  world.script->fail("receive", unavailable());
  std::atomic<bool> told{false};
  std::thread waiter([&] {
    EXPECT_TRUE(delivery->ack(true).ok());
    told = true;
  });
  // The first round fails, so the answer comes from a later one.
  EXPECT_TRUE(eventually([&] {
    EXPECT_TRUE(!told || world.script->count("settle ack") > 0);
    world.step(*consumer);
    world.clock->advance(200ms);
    return told.load();
  }));
  waiter.join();
  EXPECT_EQ(world.group().in_flight, 0U);
}

// ---- what is written ----------------------------------------------------------------------------

TEST(Settler, ARetryIsForTheGroupThatFailedAndRemembersItsFailures) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 2));
  const MessageId id = world.publish("a");
  world.play(*consumer);
  const TimePoint first = world.clock->now();
  world.clock->advance(10s);
  world.play(*consumer);
  const auto scheduled = world.scheduled("g");
  ASSERT_EQ(scheduled.size(), 1U);
  const spi::Envelope& next = scheduled.front().envelope;
  EXPECT_EQ(next.id, id);
  EXPECT_EQ(next.group, "g");
  EXPECT_EQ(next.attempt, 3U);
  EXPECT_EQ(next.first_failed_at, first);
  EXPECT_EQ(scheduled.front().due_at, world.clock->now() + 10s);
  ASSERT_EQ(next.history.size(), 2U);
  EXPECT_EQ(next.history[0].attempt, 1U);
  EXPECT_EQ(next.history[1].attempt, 2U);
  EXPECT_EQ(next.history[1].error_type, "Flaky");
}

TEST(Settler, ADeferralCountsNoFailureAndKeepsTheAttempt) {
  World world;
  int calls = 0;
  const auto consumer = world.consume_as(group_options(), OutcomeHandler([&](Delivery&) {
                                           return calls++ == 0 ? Outcome::defer(5s) : Outcome::ack();
                                         }));
  world.publish("a");
  world.play(*consumer);
  const auto scheduled = world.scheduled("g");
  ASSERT_EQ(scheduled.size(), 1U);
  EXPECT_EQ(scheduled.front().envelope.attempt, 1U);
  EXPECT_TRUE(scheduled.front().envelope.history.empty());
  EXPECT_EQ(scheduled.front().due_at, world.clock->now() + 5s);
  EXPECT_EQ(consumer->statistics().deferred, 1U);
  EXPECT_EQ(consumer->statistics().failed, 0U);
}

TEST(Settler, AfterTheLastAttemptItIsADeadLetterWithItsWholeStory) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(10s, 3);
  const auto consumer = world.consume(options, fails("a", 1000));
  const MessageId id = world.publish("a", "k");
  for (int attempt = 1; attempt <= 3; ++attempt) {
    world.play(*consumer);
    world.clock->advance(10s);
  }
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].message_id, id);
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kExhausted);
  EXPECT_EQ(entries[0].attempt, 3U);
  EXPECT_EQ(entries[0].payload, "a");
  EXPECT_EQ(entries[0].key, "k");
  EXPECT_EQ(entries[0].error_type, "Flaky");
  EXPECT_EQ(entries[0].last_failed_at - entries[0].first_failed_at, 20s);
  EXPECT_EQ(world.group().waiting, 0U);
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_TRUE(world.scheduled("g").empty());
  const ConsumerStatistics statistics = consumer->statistics();
  EXPECT_EQ(statistics.failed, 3U);
  EXPECT_EQ(statistics.retried, 2U);
  EXPECT_EQ(statistics.dead_lettered, 1U);
  ASSERT_EQ(world.log.size(), 3U);
  EXPECT_EQ(world.log[0], "consumer: g/t: message " + id.to_string() +
                              ", attempt 1: Flaky: " + entries[0].error_message + "; again in 10 s");
  EXPECT_EQ(world.log[2], "consumer: g/t: message " + id.to_string() +
                              ", attempt 3: Flaky: " + entries[0].error_message + "; it is dead letter " +
                              entries[0].id.to_string() + " (exhausted)");
}

TEST(Settler, OfFailuresThatComeAllAtOnceMostAreOnlyCountedInTheLog) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(1s);
  const auto consumer = world.consume(options, fails("a", 1000));
  for (int i = 0; i < 25; ++i)
    world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(world.log.size(), 10U);
  world.clock->advance(2s);
  world.play(*consumer);
  ASSERT_GT(world.log.size(), 10U);
  EXPECT_NE(world.log[10].find("(15 more failed before)"), std::string::npos) << world.log[10];
}

TEST(Settler, RetriesDoNotKeepADeadLetterOutOfTheLog) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 1000));
  for (int i = 0; i < 25; ++i)
    world.publish("a");
  world.play(*consumer);
  ASSERT_EQ(world.log.size(), 10U);
  Message expired;
  expired.topic = "t";
  expired.payload = "late";
  expired.ttl = 1us;
  world.publish(std::move(expired));
  world.clock->advance(1ms);
  world.play(*consumer);
  ASSERT_EQ(world.log.size(), 11U);
  EXPECT_NE(world.log[10].find("(expired)"), std::string::npos) << world.log[10];
}

TEST(Settler, WhatAHandlerSaysOfItsErrorIsKeptUpToABound) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(10s, 2);
  const auto consumer = world.consume(
      options, [](Delivery&) { throw HandlerError(std::string(5000, 't'), std::string(1 << 20, 'm')); });
  world.publish("a");
  world.play(*consumer);
  const auto scheduled = world.scheduled("g");
  ASSERT_EQ(scheduled.size(), 1U);
  ASSERT_EQ(scheduled[0].envelope.history.size(), 1U);
  EXPECT_LE(scheduled[0].envelope.history[0].error_type.size(), 300U);
  EXPECT_LE(scheduled[0].envelope.history[0].error_message.size(), 1100U);
  world.clock->advance(10s);
  world.play(*consumer);
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_LE(entries[0].error_type.size(), 300U);
  EXPECT_LE(entries[0].error_message.size(), 9000U);
  EXPECT_GE(entries[0].error_message.size(), 4096U) << "cut, not dropped";
}

TEST(Settler, OnlyTheLastTenFailuresAreKept) {
  World world;
  ConsumerOptions options = group_options();
  options.retry = retry_after(1s, 100);
  const auto consumer = world.consume(options, fails("a", 1000));
  world.publish("a");
  for (int attempt = 0; attempt < 15; ++attempt) {
    world.play(*consumer);
    world.clock->advance(1s);
  }
  const auto scheduled = world.scheduled("g");
  ASSERT_EQ(scheduled.size(), 1U);
  const auto& history = scheduled[0].envelope.history;
  ASSERT_EQ(history.size(), 10U);
  EXPECT_EQ(history.front().attempt, 6U);
  EXPECT_EQ(history.back().attempt, 15U);
}

TEST(Settler, APermanentErrorIsADeadLetterAtOnce) {
  World world;
  ConsumerOptions options = group_options();
  options.classify.permanent_types = {"Broken"};
  const auto consumer = world.consume(options, [](Delivery&) { throw HandlerError("Broken", "for good"); });
  world.publish("a");
  world.play(*consumer);
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kPermanent);
  EXPECT_EQ(world.handled.size(), 1U);
}

TEST(Settler, WithoutDeadLettersAFailureIsDiscardedAndCounted) {
  World world;
  ConsumerOptions options = group_options();
  options.retry.max_attempts = 1;
  options.dead_letters.enabled = false;
  const auto consumer = world.consume(options, fails("a", 1000));
  const MessageId id = world.publish("a");
  world.play(*consumer);
  EXPECT_TRUE(world.dead_letters().empty());
  EXPECT_TRUE(world.is_done(id));
  EXPECT_EQ(consumer->statistics().discarded, 1U);
}

TEST(Settler, AnEphemeralSubscribersFailureLeavesNoTrace) {
  World world;
  ConsumerOptions options = group_options("");
  const auto consumer = world.consume(options, fails("a", 1000));
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
  EXPECT_TRUE(world.scheduled().empty());
  EXPECT_TRUE(world.dead_letters().empty());
  EXPECT_EQ(consumer->statistics().discarded, 1U);
  world.clock->advance(1h);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
}

TEST(Settler, WhatWasAcknowledgedFirstIsNotTriedAgain) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kFirst;
  const auto consumer = world.consume(options, fails("a", 1000));
  const MessageId id = world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"});
  EXPECT_TRUE(world.is_done(id));
  EXPECT_TRUE(world.scheduled("g").empty());
  EXPECT_EQ(consumer->statistics().discarded, 1U);
}

TEST(Settler, ADedupIdIsHeldWhileItsMessageIsUnfinishedAndFreeAfterwards) {
  World world;
  const auto consumer = world.consume(group_options(), fails("a", 1));
  const auto publish = [&] {
    Message message{.topic = "t", .payload = "a"};
    message.dedup_id = "d";
    message.dedup_mode = DedupMode::kWhileUnfinished;
    return world.core->publisher().publish(std::move(message));
  };
  ASSERT_TRUE(publish().acked());
  world.play(*consumer);
  EXPECT_TRUE(publish().duplicate) << "it failed and waits for its retry";
  world.clock->advance(10s);
  world.play(*consumer);
  ASSERT_EQ(world.handled.size(), 2U);
  EXPECT_FALSE(publish().duplicate) << "it is done";
}

TEST(Settler, ADeadLetterFreesItsDedupId) {
  World world;
  ConsumerOptions options = group_options();
  options.retry.max_attempts = 1;
  const auto consumer = world.consume(options, fails("a", 1));
  const auto publish = [&] {
    Message message{.topic = "t", .payload = "a"};
    message.dedup_id = "d";
    message.dedup_mode = DedupMode::kWhileUnfinished;
    return world.core->publisher().publish(std::move(message));
  };
  ASSERT_TRUE(publish().acked());
  world.play(*consumer);
  ASSERT_EQ(world.dead_letters().size(), 1U);
  EXPECT_FALSE(publish().duplicate);
}

TEST(Settler, BeyondTheRetryBudgetARetryWaitsTheLongest) {
  World world;
  ConsumerOptions options = group_options();
  options.prefetch_count = 100;
  options.retry = retry_after(1s);
  options.retry.delay_max = 1h;
  options.retry.budget_ratio = 0.1;
  const auto consumer = world.consume(options, [](Delivery&) { throw HandlerError("Flaky", ""); });
  for (int i = 0; i < 50; ++i)
    world.publish("m");
  world.play(*consumer);
  int soon = 0, late = 0;
  for (const spi::ScheduleRecord& record : world.scheduled("g")) {
    if (record.due_at == world.clock->now() + 1s) ++soon;
    if (record.due_at == world.clock->now() + 1h) ++late;
  }
  EXPECT_EQ(soon + late, 50);
  EXPECT_GE(soon, 1);
  EXPECT_GE(late, 30);
}

// ---- ordered keys -------------------------------------------------------------------------------

TEST(Settler, BehindAFailedHeadItsKeyIsParkedAndComesAfterItInOrder) {
  World world;
  const auto consumer = world.consume(key_ordered(), fails("A1", 1));
  for (const char* name : {"A1", "A2", "B1", "A3"})
    world.publish(name, std::string(name).substr(0, 1));
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "B1"}));
  ASSERT_EQ(world.blocks().size(), 1U);
  EXPECT_EQ(world.blocks()[0].key, "A");
  EXPECT_FALSE(world.blocks()[0].held);
  EXPECT_EQ(world.parked().size(), 2U);
  EXPECT_EQ(world.group().in_flight, 0U) << "nothing of the key is kept in hand";
  world.publish("A4", "A");
  world.play(*consumer);
  EXPECT_EQ(world.parked().size(), 3U) << "what comes later queues behind them";
  world.clock->advance(10s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "B1", "A1", "A2", "A3", "A4"}));
  EXPECT_TRUE(world.blocks().empty());
  EXPECT_TRUE(world.parked().empty());
}

TEST(Settler, AHeadThatBecomesADeadLetterLetsItsKeyGoOn) {
  World world;
  ConsumerOptions options = key_ordered();
  options.retry = retry_after(10s, 2);
  const auto consumer = world.consume(options, fails("A1", 1000));
  for (const char* name : {"A1", "A2", "A3"})
    world.publish(name, "A");
  world.play(*consumer);
  world.clock->advance(10s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "A1", "A2", "A3"}));
  EXPECT_EQ(world.dead_letters().size(), 1U);
  EXPECT_TRUE(world.blocks().empty());
}

TEST(Settler, AParkedKeyWaitsForAPersonAfterItsDeadLetter) {
  World world;
  ConsumerOptions options = key_ordered(KeyFailure::kParkKey);
  options.retry = retry_after(10s, 1);
  const auto consumer = world.consume(options, fails("A1", 1000));
  for (const char* name : {"A1", "A2", "A3"})
    world.publish(name, "A");
  world.play(*consumer);
  world.clock->advance(24h);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"A1"});
  ASSERT_EQ(world.blocks().size(), 1U);
  EXPECT_TRUE(world.blocks()[0].held);
  ASSERT_TRUE(world.core->release_key("g", "t", "A").ok());
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "A2", "A3"}));
  EXPECT_TRUE(world.blocks().empty());
}

TEST(Settler, AHeadLetsItsKeyGoOnThoughAnotherProcessHasBlockedItLate) {
  World world(two_systems());
  std::uint32_t partition = 0;
  const auto consumer =
      world.consume(key_ordered(), [&](Delivery& delivery) { partition = delivery.partition(); });
  world.publish("A0", "A");
  world.play(*consumer);
  // Another one has lost the lease on A1, and then stored its retry and its block all the same.
  spi::ScheduleRecord retry;
  retry.id = world.core->context().make_id();
  retry.envelope.id = world.core->context().make_id();
  retry.envelope.topic = "t";
  retry.envelope.group = "g";
  retry.envelope.key = "A";
  retry.envelope.partition = partition;
  retry.envelope.payload = "A1";
  retry.envelope.attempt = 2;
  retry.envelope.heads_key = true;
  retry.due_at = world.clock->now();
  spi::ScheduleRecord behind = retry;
  behind.id = world.core->context().make_id();
  behind.envelope.id = world.core->context().make_id();
  behind.envelope.payload = "A2";
  behind.envelope.attempt = 1;
  behind.envelope.heads_key = false;
  behind.parked = true;
  behind.order_key = "A";
  const spi::KeyBlock block{"g", "t", partition, "A", retry.envelope.id, world.clock->now()};
  const spi::Unit unit{{spi::PutKeyBlock{block}, spi::PutSchedule{retry}, spi::PutSchedule{behind}}};
  ASSERT_TRUE(world.inner.store->commit({&unit, 1}).value().front().ok());
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A0", "A1", "A2"}));
  EXPECT_TRUE(world.blocks().empty());
  world.publish("A3", "A");
  world.play(*consumer);
  EXPECT_EQ(world.handled.back(), "A3");
}

TEST(Settler, SkippingAFailureLetsItsKeyGoOnAtOnce) {
  World world;
  const auto consumer = world.consume(key_ordered(KeyFailure::kSkip), fails("A1", 1000));
  for (const char* name : {"A1", "A2"})
    world.publish(name, "A");
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "A2"}));
  EXPECT_EQ(world.dead_letters().size(), 1U);
  EXPECT_TRUE(world.blocks().empty());
}

TEST(Settler, TheHeadOfAKeyThatWasReleasedByHandIsAcknowledgedAllTheSame) {
  World world;
  const auto consumer = world.consume(key_ordered(), fails("A1", 1));
  const MessageId id = world.publish("A1", "A");
  world.play(*consumer);
  ASSERT_EQ(world.blocks().size(), 1U);
  ASSERT_TRUE(world.core->release_key("g", "t", "A").ok());
  EXPECT_TRUE(world.blocks().empty());
  world.clock->advance(10s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "A1"}));
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_TRUE(world.is_done(id));
  world.publish("A2", "A");
  world.play(*consumer);
  EXPECT_EQ(world.handled.back(), "A2") << "and its key goes on";
}

TEST(Settler, NothingIsOvertakenWhileTheStoreRefusesRecordsForAWhile) {
  for (int refusals = 1; refusals <= 6; ++refusals) {
    World world;
    const auto consumer = world.consume(key_ordered(), fails("A1", 1));
    for (const char* name : {"A1", "A2", "A3", "A4"})
      world.publish(name, "A");
    int left = refusals;
    world.script->refuse_units([&](const spi::Unit& unit) -> std::optional<Error> {
      if (!find_write<spi::PutSchedule>(unit) || left-- <= 0) return std::nullopt;
      return storage_full();
    });
    for (int round = 0; round < 20; ++round) {
      world.play(*consumer);
      world.clock->advance(1s);
    }
    EXPECT_EQ(world.handled, (Names{"A1", "A1", "A2", "A3", "A4"})) << refusals << " refusals";
    EXPECT_EQ(world.group().in_flight, 0U);
  }
}

TEST(Settler, NothingIsOvertakenWhereCommitsAndSettlementsAreTwoSystemsAndCommitsFail) {
  for (int failures = 1; failures <= 6; ++failures) {
    World world(two_systems());
    const auto consumer = world.consume(key_ordered(), fails("A1", 1));
    for (const char* name : {"A1", "A2", "A3", "A4"})
      world.publish(name, "A");
    world.script->fail("commit", unavailable(), failures);
    for (int round = 0; round < 30; ++round) {
      world.play(*consumer);
      world.clock->advance(1s);
    }
    EXPECT_EQ(world.handled, (Names{"A1", "A1", "A2", "A3", "A4"})) << failures << " failures";
    EXPECT_EQ(world.group().in_flight, 0U);
  }
}

TEST(Settler, AFailedMessageOfAPartitionHoldsThePartition) {
  World world;
  ConsumerOptions options = key_ordered();
  options.order = Order::kPartitionOrdered;
  ASSERT_TRUE(world.core->declare_topic("t", {.partition_count = 1}).ok());
  const auto consumer = world.consume(options, fails("A1", 1));
  for (const char* name : {"A1", "B1"})
    world.publish(name, std::string(name).substr(0, 1));
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"A1"});
  world.clock->advance(10s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, (Names{"A1", "A1", "B1"}));
}

}  // namespace
}  // namespace towline::engine
