// The contract for SQL of others: what a program writes with a connection of its own, beside rows of its own,
// and what a handler takes in the same way.

#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "conformance/fixture.hpp"

namespace towline::conformance {
namespace {

TOWLINE_SUITE(Outbox);

std::string order(int number, const std::string& more = "") {
  const std::string id = std::to_string(number);
  return "BEGIN IMMEDIATE; INSERT INTO orders VALUES(" + id +
         "); INSERT INTO towline_outbox_v1(topic, key, payload) VALUES('orders', 'k" +
         std::to_string(number % 3) + "', '" + id + "');" + more;
}

TEST_P(Outbox, Conf104_WhatWasCommittedIsHandledOnceInOrderOfItsKeyAndWhatWasRolledBackNever) {
  TOWLINE_NEEDS(row().runs_sql);
  std::vector<Engine> engines = {open(), open()};
  Recorder seen;
  ConsumerOptions ordered = member();
  ordered.order = Order::kKeyOrdered;
  Consumer consumer = engines[0].consume("orders", ordered, seen.handler()).value();
  Sql sql = row().connect(url());
  sql("CREATE TABLE orders(id INTEGER PRIMARY KEY)");
  std::size_t committed = 0;
  constexpr int kOrders = 150;
  for (int i = 0; i < kOrders; ++i) {
    const bool good = i % 3 != 1 || i % 2 == 0;
    sql(order(i, good ? "COMMIT" : "ROLLBACK"));
    committed += good ? 1 : 0;
  }
  EXPECT_TRUE(seen.reaches(committed));
  ASSERT_OK(engines[0].settle_down());
  std::map<std::string, int> last;
  std::set<std::string> handled;
  for (const Handled& one : seen.all()) {
    EXPECT_TRUE(handled.insert(one.payload).second) << one.payload << " came twice";
    EXPECT_EQ(sql("SELECT count(*) FROM orders WHERE id = " + one.payload), "1") << one.payload;
    const int number = std::stoi(one.payload);
    EXPECT_TRUE(!last.contains(*one.key) || last[*one.key] < number) << number << " after " << last[*one.key];
    last[*one.key] = number;
  }
  EXPECT_EQ(handled.size(), committed);
  EXPECT_EQ(sql("SELECT count(*) FROM towline_outbox_v1"), "0");
  const std::uint64_t relayed =
      engines[0].statistics().value().relayed + engines[1].statistics().value().relayed;
  EXPECT_EQ(relayed, committed) << "by either engine";
}

TEST_P(Outbox, Conf104_WhatWasWrittenWhileNoEngineRanIsPublishedByTheNext) {
  TOWLINE_NEEDS(row().runs_sql);
  {
    Engine engine = open();
    make_group(engine, "orders");
    close(engine);
  }
  Sql sql = row().connect(url());
  sql("INSERT INTO towline_outbox_v1(topic, payload) VALUES('orders', 'kept')");
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  EXPECT_TRUE(seen.reaches(1));
  EXPECT_EQ(seen.payloads(), std::vector<std::string>{"kept"});
}

TEST_P(Outbox, Conf104_DelaysDedupIdsAndIdsAreThoseOfAPublish) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  Sql sql = row().connect(url());
  const MessageId id = MessageId::parse("018f0000-0000-7000-8000-000000000001").value();
  sql("BEGIN; INSERT INTO towline_outbox_v1(topic, payload, message_id, delay_ms) VALUES('orders', 'later', "
      "'" +
      id.to_string() +
      "', 3600000); INSERT INTO towline_outbox_v1(topic, payload, dedup_id) VALUES"
      "('orders', 'one', 'd'), ('orders', 'again', 'd'); COMMIT");
  EXPECT_TRUE(seen.reaches(1));
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(seen.payloads(), std::vector<std::string>{"one"});
  EXPECT_TRUE(engine.publish({.topic = "orders", .payload = "and again", .dedup_id = "d"}).duplicate);
  const auto cancelled = engine.cancel(id);
  ASSERT_OK(cancelled);
  EXPECT_EQ(*cancelled, ScheduleAnswer::kDone);
}

TEST_P(Outbox, Conf104_WhatSqlCanSeeIsRefusedAtOnceAndTheRestBecomesADeadLetter) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  Recorder seen;
  Consumer consumer = engine.consume("orders", member(), seen.handler()).value();
  Sql sql = row().connect(url());
  EXPECT_THROW(sql("INSERT INTO towline_outbox_v1(topic) VALUES('')"), std::runtime_error);
  EXPECT_THROW(sql("INSERT INTO towline_outbox_v1(topic, headers) VALUES('t', 'no JSON')"),
               std::runtime_error);
  sql("BEGIN; INSERT INTO towline_outbox_v1(topic, payload) VALUES('amq.reserved', 'never');"
      "INSERT INTO towline_outbox_v1(topic, payload) VALUES('orders', 'good'); COMMIT");
  EXPECT_TRUE(seen.reaches(1));
  ASSERT_OK(engine.settle_down());
  const auto entries = dead_letters(engine);
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].topic, "amq.reserved");
  EXPECT_EQ(entries[0].payload, "never");
  EXPECT_EQ(entries[0].reason, DeadLetterReason::kPublishFailed);
  EXPECT_EQ(engine.statistics().value().refused, 1U);
}

TEST_P(Outbox, Conf104_AHandlersOwnTransactionMayWriteToItAsWell) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  Recorder seen;
  Consumer follow = engine.consume("follow-ups", member(), seen.handler()).value();
  Consumer consumer =
      engine
          .consume("orders", manual_member(),
                   [](Delivery& delivery) {
                     EXPECT_OK(delivery.transaction([](SqlTransaction& sql) -> Result<void> {
                       auto rows = sql.execute(
                           "INSERT INTO towline_outbox_v1(topic, payload) VALUES('follow-ups', 'a')");
                       return rows ? Result<void>{} : Result<void>(rows.error());
                     }));
                   })
          .value();
  EXPECT_TRUE(engine.publish({.topic = "orders", .payload = "1"}).acked());
  EXPECT_TRUE(seen.reaches(1));
}

TEST_P(Outbox, Conf105_AMessageIsTakenInOnceHoweverOftenItIsDelivered) {
  TOWLINE_NEEDS(row().runs_sql);
  Engine engine = open();
  Sql setup = row().connect(url());
  setup("CREATE TABLE paid(id TEXT)");
  Recorder seen;
  std::atomic<int> duplicates{0};
  Consumer consumer =
      engine
          .consume("orders", member(),
                   [&, sql = row().connect(url())](Delivery& delivery) {
                     seen.add(delivery);
                     try {
                       sql("BEGIN IMMEDIATE; INSERT INTO towline_inbox_v1(\"group\", message_id) "
                           "VALUES('group', '" +
                           delivery.id().to_string() + "'); INSERT INTO paid VALUES('" +
                           std::string(delivery.payload()) + "'); COMMIT");
                     } catch (const std::runtime_error& refused) {
                       sql("ROLLBACK");
                       EXPECT_NE(std::string(refused.what()).find("duplicate"), std::string::npos)
                           << refused.what();
                       ++duplicates;
                     }
                     // The first attempt dies after its commit, so the message comes again.
                     if (delivery.attempt() == 1) throw std::runtime_error("after the commit");
                   })
          .value();
  constexpr int kOrders = 20;
  publish_numbers(engine, "orders", kOrders);
  EXPECT_TRUE(seen.reaches(2 * kOrders));
  ASSERT_OK(engine.settle_down());
  EXPECT_EQ(setup("SELECT count(*) || ' ' || count(DISTINCT id) FROM paid"), "20 20");
  EXPECT_EQ(duplicates.load(), kOrders);
}

}  // namespace
}  // namespace towline::conformance
