// Bad input of the calls that look after messages, topics, keys and consumers: what they refuse, that nothing
// changes, and that time limits of any size are taken for what they mean.

#include <atomic>
#include <limits>
#include <thread>

#include "conformance/bad_input.hpp"
#include "support/child_process.hpp"

namespace towline::conformance {
namespace {

class BadCall : public BadInput {
 protected:
  /// A dead letter of the topic "orders".
  DeadLetter make_dead_letter() {
    make_dead_letters(engine(), "orders", 1);
    return dead_letters(engine(), "orders").at(0);
  }
};
INSTANTIATE_TEST_SUITE_P(Provider, BadCall, ::testing::ValuesIn(providers()), provider_name);

TEST_P(BadCall, Bad08_ResultsAndReplacementsOverTheLimit) {
  const DeadLetter entry = make_dead_letter();
  const IdempotencyToken token = engine().begin("key").value().token;
  const std::string before = state();
  const Bytes huge(1048577, 'x');
  const auto refused = engine().redrive(entry.id, {.payload = huge});
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kPayloadTooLarge, {"payload", "1048577", "1048576"});
  const auto completed = engine().complete(token, huge);
  ASSERT_FALSE(completed.ok());
  expect_error(completed.error(), ErrorCode::kPayloadTooLarge, {"1048577", "1048576"});
  EXPECT_ERROR(engine().once("other", [&] { return huge; }), ErrorCode::kPayloadTooLarge);
  EXPECT_OK(engine().fail(token)) << "the key is still held";
  EXPECT_OK(engine().redrive(entry.id)) << "the entry is still there";
  EXPECT_NE(before, state());
}

TEST_P(BadCall, Bad15_ReschedulingToATimeThatIsNone) {
  const TimePoint due_at = system_clock()->now() + 1h;
  const MessageId id = engine().publish({.topic = "orders", .payload = "p", .due_at = due_at}).value();
  const std::string before = state();
  for (const TimePoint time : {kNever, due_at + 24h * 367, TimePoint::max() - 1us}) {
    const auto moved = engine().reschedule(id, time);
    ASSERT_FALSE(moved.ok());
    expect_error(moved.error(), ErrorCode::kInvalidDelay, {"due_at"});
  }
  EXPECT_EQ(engine().pending("orders").value().items.at(0).due_at, due_at);
  for (const MessageId& unknown : {MessageId{}, MessageId{{1, 2, 3}}}) {
    EXPECT_EQ(engine().reschedule(unknown, due_at).value(), ScheduleAnswer::kNotFound);
    EXPECT_EQ(engine().cancel(unknown).value(), ScheduleAnswer::kNotFound);
  }
  EXPECT_EQ(state(), before);
  EXPECT_EQ(engine().cancel(id).value(), ScheduleAnswer::kDone);
  EXPECT_EQ(engine().cancel(id).value(), ScheduleAnswer::kNotFound) << "it did not fire";
}

TEST_P(BadCall, Bad18_NumbersOfARunningConsumer) {
  Consumer consumer = engine().consume("orders", member(), [](Delivery&) {}).value();
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{4097},
                                   std::numeric_limits<std::int64_t>::max()}) {
    const auto refused = consumer.set_concurrency(count);
    ASSERT_FALSE(refused.ok()) << count;
    expect_error(refused.error(), ErrorCode::kInvalidConfig, {"concurrency", std::to_string(count), "4096"});
  }
  EXPECT_OK(consumer.set_concurrency(4096));
  EXPECT_OK(consumer.set_concurrency(1));
}

TEST_P(BadCall, Bad18_TimeLimitsOfAnySizeMeanWhatTheySay) {
  Consumer consumer = engine().consume("orders", member(), [](Delivery&) {}).value();
  // As long as it takes: these end because there is nothing to wait for, not because the sum ran over.
  EXPECT_OK(engine().settle_down(Duration::max()));
  EXPECT_OK(consumer.drain(Duration::max()));
  EXPECT_OK(consumer.resume());
  Permits permits = Permits::create(1).value();
  EXPECT_OK(permits.acquire(Duration::max()));
  // Not at all.
  auto held = permits.acquire(0ms);
  ASSERT_OK(held);
  for (const Duration none : {Duration(0), Duration(-1), Duration::min()})
    EXPECT_ERROR(permits.acquire(none), ErrorCode::kTimeout);
  EXPECT_TRUE(engine().publish_with_retry({.topic = "orders", .payload = "p"}, {}, Duration::max()).acked());
  EXPECT_TRUE(engine().publish_with_retry({.topic = "orders", .payload = "p"}, {}, Duration::min()).acked());
  EXPECT_OK(consumer.close(Duration::max()));
  Consumer other = engine().consume("orders", member(), [](Delivery&) {}).value();
  EXPECT_OK(other.close(Duration::min()));
}

TEST_P(BadCall, Bad27_FunctionsThatAreNotThere) {
  const std::string before = state();
  const auto refused = engine().once("key", std::function<Bytes()>());
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kInvalidArgument, {"function"});
  EXPECT_EQ(state(), before) << "the key is not taken";
  std::atomic<bool> done{false};
  Consumer consumer =
      engine()
          .consume("orders", manual_member(),
                   [&](Delivery& delivery) {
                     EXPECT_ERROR(delivery.transaction({}), ErrorCode::kInvalidArgument);
                     EXPECT_OK(delivery.ack()) << "it is still unsettled";
                     done = true;
                   })
          .value();
  ASSERT_TRUE(engine().publish({.topic = "orders", .payload = "p"}).acked());
  EXPECT_TRUE(eventually([&] { return done && consumer.statistics().acked == 1; }));
  EXPECT_ERROR(engine().consume(std::vector<std::string>{}, member(), [](Delivery&) {}),
               ErrorCode::kInvalidTopic)
      << "no topic at all";
}

TEST_P(BadCall, Bad28_AHandlersAnswerWithABadDelayIsAFailureThatIsRetried) {
  ConsumerOptions options = member();
  options.retry = quick_retry(3);
  Recorder seen;
  std::atomic<int> calls{0};
  Consumer consumer = engine()
                          .consume_outcomes({"orders"}, options,
                                            [&](Delivery& delivery) {
                                              seen.add(delivery);
                                              if (calls++ == 0) return Outcome::nak(Duration(-1s));
                                              return Outcome::ack();
                                            })
                          .value();
  ASSERT_TRUE(engine().publish({.topic = "orders", .payload = "p"}).acked());
  EXPECT_TRUE(seen.reaches(2)) << "a wait before now means now";
  EXPECT_TRUE(eventually([&] { return consumer.statistics().acked == 1; }));
}

TEST_P(BadCall, Bad28_AnEndlessWaitThatAHandlerAsksForIsBounded) {
  std::atomic<int> calls{0};
  Consumer consumer = engine()
                          .consume("orders", member(),
                                   [&](Delivery&) {
                                     if (calls++ > 0) return;
                                     throw HandlerError("Busy").retry_after(Duration::max());
                                   })
                          .value();
  ASSERT_TRUE(engine().publish({.topic = "orders", .payload = "p"}).acked());
  ASSERT_TRUE(eventually([&] { return engine().statistics().value().scheduled_now == 1; }));
  EXPECT_TRUE(holds_for([&] { return calls == 1; }, 100ms)) << "the sum ran over, so it came at once";
  EXPECT_TRUE(dead_letters(engine()).empty());
}

TEST_P(BadCall, Bad29_HandlesThatHoldNothing) {
  Engine nothing;
  EXPECT_EQ(nothing.publish({.topic = "orders", .payload = "p"}).error.code, ErrorCode::kClosed);
  EXPECT_EQ(nothing.publish_with_retry({.topic = "orders", .payload = "p"}).error.code, ErrorCode::kClosed);
  EXPECT_ERROR(nothing.publish_batch({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.cancel({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.reschedule({}, kNever), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.pending(), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.declare_topic("orders"), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.consume("orders", member(), [](Delivery&) {}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.consume_outcomes({"orders"}, member(), [](Delivery&) { return Outcome::ack(); }),
               ErrorCode::kClosed);
  EXPECT_ERROR(nothing.consume_batches({"orders"}, member(), [](std::span<Delivery>) {}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.backlog(), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.blocked_keys("group", "orders"), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.release_key("group", "orders", "k"), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.dead_letters(), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.find_dead_letter({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.dead_letter_groups(), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.redrive({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.redrive_all({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.discard_dead_letter({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.begin("key"), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.complete({}, "r"), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.fail({}), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.once("key", [] { return Bytes(); }), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.statistics(), ErrorCode::kClosed);
  EXPECT_ERROR(nothing.settle_down(), ErrorCode::kClosed);
  EXPECT_FALSE(nothing.health().ok);
  EXPECT_TRUE(nothing.findings().empty());
  EXPECT_OK(nothing.close());
  Consumer idle;
  EXPECT_ERROR(idle.pause(), ErrorCode::kClosed);
  EXPECT_ERROR(idle.resume(), ErrorCode::kClosed);
  EXPECT_ERROR(idle.drain(1s), ErrorCode::kClosed);
  EXPECT_ERROR(idle.set_concurrency(2), ErrorCode::kClosed);
  EXPECT_EQ(idle.statistics().received, 0U);
  EXPECT_OK(idle.close());
  Delivery none;
  EXPECT_ERROR(none.transaction([](SqlTransaction&) -> Result<void> { return {}; }),
               ErrorCode::kInvalidToken);
  EXPECT_ERROR(none.progress("half"), ErrorCode::kInvalidToken);
  EXPECT_TRUE(none.stop_token().stop_requested());
  EXPECT_FALSE(none.header("x").has_value());
  Permit permit;
  permit.release();
  EXPECT_FALSE(permit.held());
}

TEST_P(BadCall, Bad33_PublishingWhileTheProgramEndsIsRefusedAndNothingCrashes) {
  support::ChildProcess child(support::sibling_program("conformance_child"),
                              {"exit", url(), folder().file("ledger")});
  EXPECT_EQ(child.read_line(10s), "ready");
  EXPECT_EQ(child.read_line(10s), "closed") << "what a function at the program's end was answered";
  const auto status = child.wait(20s);
  ASSERT_TRUE(status.has_value()) << "it still runs";
  EXPECT_TRUE(status->clean()) << "exit code " << status->code << ", signal " << status->signal;
}

TEST_P(BadCall, Bad37_FingerprintsAndContentTypesOfResults) {
  const std::string before = state();
  IdempotencyOptions options;
  options.fingerprint = std::string(256, 'f');
  const auto refused = engine().begin("key", options);
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kInvalidKey, {"fingerprint", "255"});
  EXPECT_EQ(state(), before);
  const IdempotencyToken token = engine().begin("key").value().token;
  EXPECT_ERROR(engine().complete(token, "r", {}, "text/plain\r\nX: 1"), ErrorCode::kInvalidHeader);
  options = {};
  options.ttl = -1s;
  EXPECT_ERROR(engine().complete(token, "r", options), ErrorCode::kInvalidConfig)
      << "it would have been forgotten before it was stored";
  EXPECT_EQ(engine().begin("key").value().kind, IdempotencyAnswer::Kind::kInProgress) << "still held";
  EXPECT_OK(engine().complete(token, "r"));
}

TEST_P(BadCall, Bad38_QueriesAndRedrivesThatCannotBeMeant) {
  const DeadLetter entry = make_dead_letter();
  const std::string before = state();
  for (const char* topic : {"a.*", "a.#", "$SYS.x", "a b", ".."}) {
    const auto refused = engine().redrive(entry.id, {.destination = topic});
    ASSERT_FALSE(refused.ok()) << topic;
    expect_error(refused.error(), ErrorCode::kInvalidTopic, {"destination"});
    EXPECT_ERROR(engine().redrive_all({}, {.destination = topic}), ErrorCode::kInvalidTopic);
  }
  for (const Duration delay : {Duration(-1), Duration::max(), Duration(24h * 367)}) {
    const auto refused = engine().redrive(entry.id, {.delay = delay});
    ASSERT_FALSE(refused.ok());
    expect_error(refused.error(), ErrorCode::kInvalidDelay, {"delay"});
    EXPECT_ERROR(engine().redrive_all({}, {.delay = delay}), ErrorCode::kInvalidDelay);
  }
  const auto refused = engine().redrive_all({}, {.payload = "one for all"});
  ASSERT_FALSE(refused.ok());
  expect_error(refused.error(), ErrorCode::kInvalidArgument, {"payload", "single"});
  EXPECT_ERROR(engine().redrive(entry.id, {.redrive_max = 0}), ErrorCode::kLimitExceeded);
  for (const std::size_t count : {std::size_t{0}, std::size_t{1001}}) {
    DeadLetterQuery query;
    query.count_max = count;
    EXPECT_ERROR(engine().dead_letter_groups(query), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(state(), before);
  ASSERT_OK(engine().discard_dead_letter(entry.id));
  EXPECT_ERROR(engine().discard_dead_letter(entry.id), ErrorCode::kConflict) << "it is given up already";
  EXPECT_ERROR(engine().redrive(entry.id), ErrorCode::kConflict);
}

TEST_P(BadCall, Bad06_KeysGroupsAndTopicsThatNobodyBlocked) {
  const std::string before = state();
  for (const std::string& odd : {std::string("x'; drop table m;--"), std::string(10000, 'k'),
                                 std::string("a\0b", 3), std::string("\xff\n"), std::string()}) {
    const auto refused = engine().release_key("group", "orders", odd);
    ASSERT_FALSE(refused.ok());
    expect_error(refused.error(), ErrorCode::kNotFound, {"blocked"});
    EXPECT_ERROR(engine().release_key(odd, "orders", "k"), ErrorCode::kNotFound);
    EXPECT_ERROR(engine().release_key("group", odd, "k"), ErrorCode::kNotFound);
    EXPECT_TRUE(engine().blocked_keys(odd, odd).value_or({}).empty());
    EXPECT_TRUE(engine().pending(odd.empty() ? "nowhere" : odd).value_or({}).items.empty());
  }
  EXPECT_EQ(state(), before);
}

TEST_P(BadCall, Bad54_ATopicThatIsThereButOtherwiseKeepsItsSettings) {
  ASSERT_OK(engine().declare_topic("laid", {.type = TopicType::kLog, .partition_count = 8, .retention = 1h}));
  const std::string before = state();
  const auto other_count = engine().declare_topic(
      "laid", {.type = TopicType::kLog, .partition_count = 16, .retention = 1h});
  ASSERT_FALSE(other_count.ok());
  expect_error(other_count.error(), ErrorCode::kTopologyMismatch, {"laid", "8", "16"});
  const auto other_type =
      engine().declare_topic("laid", {.type = TopicType::kQueue, .partition_count = 8, .retention = 1h});
  ASSERT_FALSE(other_type.ok());
  expect_error(other_type.error(), ErrorCode::kTopologyMismatch, {"laid"});
  for (const char* topic : {"a.*", "", "$SYS.x", "a b"})
    EXPECT_ERROR(engine().declare_topic(topic), ErrorCode::kInvalidTopic);
  EXPECT_EQ(state(), before);
  EXPECT_OK(engine().declare_topic("laid", {.type = TopicType::kLog, .partition_count = 8, .retention = 1h}));
}

TEST_P(BadCall, Bad55_WhatATransactionRefusesIsRolledBackAndTheDeliveryStays) {
  TOWLINE_NEEDS(row().runs_sql);
  std::atomic<bool> done{false};
  const auto in_transaction = [](Delivery& delivery, auto body) {
    return delivery.transaction([&](SqlTransaction& sql) -> Result<void> { return body(sql); });
  };
  const auto sql_of = [](std::string text, std::vector<SqlTransaction::Value> values = {}) {
    return [text = std::move(text), values = std::move(values)](SqlTransaction& sql) -> Result<void> {
      auto rows = sql.execute(text, values);
      return rows ? Result<void>{} : Result<void>(rows.error());
    };
  };
  Consumer consumer =
      engine()
          .consume("orders", manual_member(),
                   [&](Delivery& delivery) {
                     for (const char* text : {"", "nonsense", "SELECT * FROM nowhere", "BEGIN", "COMMIT",
                                              "ROLLBACK", "PRAGMA synchronous = OFF", "ATTACH 'x' AS y",
                                              "DELETE FROM message", "UPDATE meta SET value = 0",
                                              "DROP TABLE message", "SELECT ?1"}) {
                       EXPECT_ERROR(in_transaction(delivery, sql_of(text)), ErrorCode::kInvalidArgument)
                           << text;
                     }
                     EXPECT_ERROR(in_transaction(delivery, sql_of("SELECT 1", {std::int64_t{1}})),
                                  ErrorCode::kInvalidArgument);
                     EXPECT_ERROR(in_transaction(delivery,
                                                 [](SqlTransaction& sql) -> Result<void> {
                                                   auto id = sql.publish({.topic = "a.*", .payload = "p"});
                                                   return id ? Result<void>{} : Result<void>(id.error());
                                                 }),
                                  ErrorCode::kInvalidTopic);
                     const auto no_key = [](SqlTransaction& sql) { return sql.complete("", "", "r"); };
                     EXPECT_ERROR(in_transaction(delivery, no_key), ErrorCode::kInvalidKey);
                     EXPECT_OK(delivery.ack()) << "it is still unsettled";
                     done = true;
                   })
          .value();
  ASSERT_TRUE(engine().publish({.topic = "orders", .payload = "p"}).acked());
  EXPECT_TRUE(eventually([&] { return done && consumer.statistics().acked == 1; }));
}

}  // namespace
}  // namespace towline::conformance
