// What becomes of a handler's ending: returning, throwing anything at all, settling by hand, taking too long,
// failing as a batch; and what a handler may do with its delivery meanwhile.

#include <atomic>
#include <map>
#include <stdexcept>

#include "engine/consumer_core.hpp"
#include "support/eventually.hpp"
#include "unit/engine/world.hpp"

namespace towline::engine {
namespace {

using namespace testing;
using Names = std::vector<std::string>;

/// The error that one handling leaves behind.
DeadLetter dead_letter_of(std::function<void(Delivery&)> handler) {
  World world;
  ConsumerOptions options = group_options();
  options.retry.max_attempts = 1;
  const auto consumer = world.consume(options, std::move(handler));
  world.publish("a");
  world.play(*consumer);
  const auto entries = world.dead_letters();
  EXPECT_EQ(entries.size(), 1U);
  return entries.empty() ? DeadLetter{} : entries.front();
}

struct OwnError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct SilentError : std::exception {
  [[nodiscard]] const char* what() const noexcept override { return nullptr; }
};

// ---- exceptions ---------------------------------------------------------------------------------

TEST(ConsumerWork, AnExceptionIsAFailureNamedByItsClass) {
  const DeadLetter entry = dead_letter_of([](Delivery&) { throw std::out_of_range("no such order"); });
  EXPECT_EQ(entry.error_type, "std::out_of_range");
  EXPECT_EQ(entry.error_message, "no such order");
  const DeadLetter own = dead_letter_of([](Delivery&) { throw OwnError("mine"); });
  EXPECT_NE(own.error_type.find("OwnError"), std::string::npos) << own.error_type;
}

TEST(ConsumerWork, AHandlerErrorNamesItsTypeItself) {
  const DeadLetter entry =
      dead_letter_of([](Delivery&) { throw HandlerError("CardDeclined", "by the bank"); });
  EXPECT_EQ(entry.error_type, "CardDeclined");
  EXPECT_EQ(entry.error_message, "by the bank");
}

TEST(ConsumerWork, AnErrorOfTheEngineKeepsItsCode) {
  const DeadLetter entry = dead_letter_of([](Delivery&) {
    throw Exception(Error{ErrorCode::kStorageFull, "the disk is full"});
  });
  EXPECT_EQ(entry.error_type, wire_code(ErrorCode::kStorageFull));
}

TEST(ConsumerWork, WhateverIsThrownStaysInside) {
  EXPECT_EQ(dead_letter_of([](Delivery&) { throw 42; }).error_type, "int");
  EXPECT_EQ(dead_letter_of([](Delivery&) { throw std::string("text"); }).error_message, "text");
  EXPECT_EQ(dead_letter_of([](Delivery&) { throw "literal"; }).error_message, "literal");
  EXPECT_EQ(dead_letter_of([](Delivery&) { throw SilentError(); }).error_message, "");
}

TEST(ConsumerWork, AThrottledDependencyNamesTheWaitAndCountsNoFailure) {
  World world;
  int calls = 0;
  const auto consumer = world.consume(group_options(), [&](Delivery&) {
    if (calls++ == 0) throw HandlerError("TooMany").retry_after(7s);
  });
  world.publish("a");
  world.play(*consumer);
  ASSERT_EQ(world.scheduled("g").size(), 1U);
  EXPECT_EQ(world.scheduled("g")[0].due_at, world.clock->now() + 7s);
  EXPECT_EQ(world.scheduled("g")[0].envelope.attempt, 1U);
  EXPECT_EQ(consumer->statistics().failed, 0U);
  world.clock->advance(7s);
  world.play(*consumer);
  EXPECT_EQ(calls, 2);
}

// ---- settling by hand ---------------------------------------------------------------------------

TEST(ConsumerWork, InManualModeReturningSettlesNothing) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  std::optional<Delivery> kept;
  const auto consumer = world.consume(options, [&](Delivery& delivery) { kept = delivery; });
  world.publish("a");
  world.play(*consumer);
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ(world.group().in_flight, 1U);
  EXPECT_TRUE(kept->ack().ok());
  world.play(*consumer);
  EXPECT_EQ(world.group().in_flight, 0U);
  EXPECT_EQ(consumer->statistics().acked, 1U);
}

TEST(ConsumerWork, ASecondSettlementIsRefusedAndChangesNothing) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  const auto consumer = world.consume(options, [&](Delivery& delivery) {
    EXPECT_TRUE(delivery.ack().ok());
    EXPECT_EQ(code_of(delivery.nak()), ErrorCode::kAlreadySettled);
    EXPECT_EQ(code_of(delivery.dead_letter("no")), ErrorCode::kAlreadySettled);
    EXPECT_EQ(code_of(delivery.extend(1s)), ErrorCode::kAlreadySettled);
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_TRUE(world.scheduled("g").empty());
  EXPECT_TRUE(world.dead_letters().empty());
}

TEST(ConsumerWork, AnExceptionAfterASettlementByHandDoesNotUndoIt) {
  World world;
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    EXPECT_TRUE(delivery.ack().ok());
    throw std::runtime_error("too late");
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_EQ(consumer->statistics().failed, 0U);
}

TEST(ConsumerWork, AHandlerMayMoveItsHandleAway) {
  RunningWorld world;
  std::optional<Delivery> kept;
  const auto consumer =
      world.consume(group_options(), [&](Delivery& delivery) { kept = std::move(delivery); });
  world.publish("a");
  EXPECT_TRUE(support::eventually([&] { return consumer->statistics().acked == 1; }))
      << "returning acknowledges, whatever became of the handle";
  EXPECT_EQ(code_of(kept->ack()), ErrorCode::kAlreadySettled);
}

TEST(ConsumerWork, AHandlerThatIsSteppedMayMoveItsHandleAway) {
  World world;
  std::optional<Delivery> kept;
  const auto consumer =
      world.consume(group_options(), [&](Delivery& delivery) { kept = std::move(delivery); });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_EQ(code_of(kept->ack()), ErrorCode::kAlreadySettled);
}

TEST(ConsumerWork, WhatAHandlerSaysIsWhatHappens) {
  World world;
  std::vector<Outcome> outcomes = {Outcome::nak(3s, "not ready"), Outcome::defer(4s),
                                   Outcome::dead_letter("unknown customer"), Outcome::ack()};
  const auto consumer = world.consume_as(
      group_options(), OutcomeHandler([&](Delivery& delivery) {
        return outcomes.at(static_cast<std::size_t>(std::stoi(std::string(delivery.payload()))));
      }));
  for (int i = 0; i < 4; ++i)
    world.publish(std::to_string(i));
  world.play(*consumer);
  std::map<std::string, std::pair<Duration, std::uint32_t>> scheduled;
  for (const spi::ScheduleRecord& record : world.scheduled("g")) {
    const auto found = world.inner.store->find_schedule(record.id).value();
    scheduled[found->envelope.payload] = {record.due_at - world.clock->now(), record.envelope.attempt};
  }
  EXPECT_EQ(scheduled["0"], (std::pair<Duration, std::uint32_t>(3s, 2U)));
  EXPECT_EQ(scheduled["1"], (std::pair<Duration, std::uint32_t>(4s, 1U)));
  const auto entries = world.dead_letters();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kManual);
  EXPECT_EQ(entries[0].error_message, "unknown customer");
  EXPECT_EQ(consumer->statistics().acked, 1U);
}

TEST(ConsumerWork, BadWaitsAreRefusedAndTheDeliveryStaysOpen) {
  World world;
  ConsumerOptions options = group_options();
  options.ack = AckPolicy::kManual;
  const auto consumer = world.consume(options, [&](Delivery& delivery) {
    EXPECT_EQ(code_of(delivery.nak(-1us)), ErrorCode::kInvalidDelay);
    EXPECT_EQ(code_of(delivery.defer(Duration::max())), ErrorCode::kInvalidDelay);
    EXPECT_EQ(code_of(delivery.extend(0s)), ErrorCode::kInvalidArgument);
    EXPECT_EQ(code_of(delivery.extend(24h + 1us)), ErrorCode::kInvalidArgument);
    EXPECT_TRUE(delivery.extend(24h).ok());
    EXPECT_TRUE(delivery.ack().ok());
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
}

// ---- time ---------------------------------------------------------------------------------------

TEST(ConsumerWork, AHandlerPastItsTimeHasFailedAndItsLateResultIsVoid) {
  World world;
  ConsumerOptions options = group_options();
  options.handler_timeout = 5s;
  const auto consumer = world.consume(options);
  world.publish("a");
  world.step(*consumer);
  auto slow = consumer->take_one();
  ASSERT_TRUE(slow.has_value());
  const std::stop_token token = slow->stop_token();
  world.clock->advance(5s);
  world.step(*consumer);
  EXPECT_TRUE(token.stop_requested());
  EXPECT_EQ(consumer->statistics().timed_out, 1U);
  EXPECT_EQ(consumer->statistics().stuck, 1U);
  ASSERT_EQ(world.scheduled("g").size(), 1U);
  EXPECT_EQ(world.scheduled("g")[0].envelope.attempt, 2U);
  EXPECT_EQ(code_of(slow->ack()), ErrorCode::kLeaseLost);
  consumer->finish(*slow, Outcome::ack());
  world.step(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 0U);
  EXPECT_EQ(consumer->statistics().stuck, 0U) << "it has returned";
  world.clock->advance(10s);
  world.play(*consumer);
  EXPECT_EQ(world.handled, Names{"a"}) << "the next attempt";
}

TEST(ConsumerWork, ExtendingAndProgressGiveAHandlerMoreTime) {
  World world;
  ConsumerOptions options = group_options();
  options.handler_timeout = 5s;
  const auto consumer = world.consume(options);
  world.publish("a");
  world.step(*consumer);
  auto slow = consumer->take_one();
  ASSERT_TRUE(slow.has_value());
  world.clock->advance(4s);
  EXPECT_TRUE(slow->extend(10s).ok());
  world.clock->advance(9s);
  world.step(*consumer);
  EXPECT_EQ(consumer->statistics().timed_out, 0U);
  EXPECT_TRUE(slow->progress("half").ok());
  world.clock->advance(4s);
  world.step(*consumer);
  EXPECT_EQ(consumer->statistics().timed_out, 0U);
  world.clock->advance(1s);
  world.step(*consumer);
  EXPECT_EQ(consumer->statistics().timed_out, 1U);
  consumer->finish(*slow, Outcome::ack());
}

// ---- batches ------------------------------------------------------------------------------------

TEST(ConsumerWork, ABatchHandlerGetsManyAtOnceAndAThrowFailsThoseThatWereNotSettled) {
  RunningWorld world;
  ConsumerOptions options = group_options();
  options.batch_count_max = 10;
  std::atomic<int> calls{0};
  for (int i = 0; i < 4; ++i)
    world.publish(std::to_string(i));
  auto made = world.core->consume({"t"}, options, BatchHandler([&](std::span<Delivery> batch) {
                                    if (calls++ > 0) return;
                                    EXPECT_TRUE(batch.front().ack().ok());
                                    throw HandlerError("Flaky", "the rest");
                                  }));
  // The group came after the messages, and starts at the earliest.
  ASSERT_TRUE(made.ok());
  const auto consumer = *made;
  EXPECT_TRUE(support::eventually([&] {
    const ConsumerStatistics statistics = consumer->statistics();
    return statistics.acked + statistics.failed == 4 && statistics.in_flight == 0;
  }));
  EXPECT_GE(consumer->statistics().acked, 1U);
  EXPECT_GE(consumer->statistics().failed, 1U);
  EXPECT_EQ(consumer->statistics().retried, consumer->statistics().failed);
}

// ---- transactions -------------------------------------------------------------------------------

WorldOptions with_sql() {
  WorldOptions options;
  options.runs_sql = true;
  return options;
}

TEST(ConsumerWork, ATransactionWithoutSqlIsUnsupportedAndTheDeliveryIsOpen) {
  World world;
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    EXPECT_EQ(code_of(delivery.transaction([](SqlTransaction&) -> Result<void> { return {}; })),
              ErrorCode::kUnsupported);
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
}

TEST(ConsumerWork, ATransactionPublishesAndAcknowledgesTogether) {
  World world(with_sql());
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    if (delivery.topic() != "t") return;
    EXPECT_TRUE(delivery
                    .transaction([](SqlTransaction& transaction) -> Result<void> {
                      auto id = transaction.publish({.topic = "out", .payload = "b"});
                      if (!id) return id.error();
                      return transaction.complete("scope", "key", "result");
                    })
                    .ok());
    EXPECT_EQ(code_of(delivery.ack()), ErrorCode::kAlreadySettled);
  });
  const auto out = world.consume_as(group_options("out"), Handler([&](Delivery& delivery) {
                                      world.handled.emplace_back("out " + std::string(delivery.payload()));
                                    }),
                                    {"out"});
  world.publish("a");
  world.play(*consumer);
  world.play(*out);
  EXPECT_EQ(world.handled, (Names{"a", "out b"}));
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_EQ(world.group().in_flight, 0U);
  IdempotencyOptions options;
  options.scope = "scope";
  EXPECT_EQ(world.core->idempotency().begin("key", options).value().result.bytes, "result");
}

TEST(ConsumerWork, ATransactionStoresNoResultThatTheEngineItselfWouldRefuse) {
  WorldOptions options = with_sql();
  options.engine.payload_bytes_max = 1024;
  World world(options);
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    EXPECT_TRUE(delivery
                    .transaction([](SqlTransaction& transaction) -> Result<void> {
                      EXPECT_EQ(code_of(transaction.complete("two\nlines", "key", "r")),
                                ErrorCode::kInvalidName);
                      EXPECT_EQ(code_of(transaction.complete("scope", "", "r")), ErrorCode::kInvalidKey);
                      EXPECT_EQ(code_of(transaction.complete("scope", "key", Bytes(1025, 'r'))),
                                ErrorCode::kPayloadTooLarge);
                      return transaction.complete("", "key", Bytes(1024, 'r'));
                    })
                    .ok());
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(world.core->idempotency().begin("key", {}).value().result.bytes.size(), 1024U);
}

TEST(ConsumerWork, ATransactionThatFailsOrThrowsLeavesTheDeliveryOpenAndPublishesNothing) {
  World world(with_sql());
  const auto consumer = world.consume(group_options(), [&](Delivery& delivery) {
    const auto failed = delivery.transaction([](SqlTransaction& transaction) -> Result<void> {
      (void)transaction.publish({.topic = "out", .payload = "b"});
      return Error{ErrorCode::kConflict, "no"};
    });
    EXPECT_EQ(code_of(failed), ErrorCode::kConflict);
    EXPECT_THROW((void)delivery.transaction(
                     [](SqlTransaction&) -> Result<void> { throw std::runtime_error("thrown"); }),
                 std::runtime_error);
    world.clock->advance(29s);
    EXPECT_TRUE(delivery.extend(1s).ok()) << "it is open, and its time began anew";
  });
  world.publish("a");
  world.play(*consumer);
  EXPECT_EQ(consumer->statistics().acked, 1U);
  EXPECT_EQ(world.core->context().counters.published.load(), 1U);
  for (const spi::GroupStatistics& group : world.inner.transport->statistics().value())
    EXPECT_NE(group.topic, "out");
}

}  // namespace
}  // namespace towline::engine
