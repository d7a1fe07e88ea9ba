// What others have written to the outbox, as an engine reads it: in order, whole, each number once, and soon.

#include "drivers/sqlite/outbox.hpp"

#include <thread>

#include "support/eventually.hpp"
#include "unit/drivers/sqlite/contract.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using SqliteOutbox = Contract;

TEST_F(SqliteOutbox, WhatIsWrittenArrivesWithAllItsColumns) {
  ASSERT_EQ(
      plain.run("INSERT INTO towline_outbox_v1(topic, payload, key, headers, content_type, priority, "
                "delay_ms, skip_if_late_by_ms, ttl_ms, dedup_id, dedup_mode, message_id, correlation_id, "
                "causation_id, traceparent) VALUES('orders.created', '{\"id\":1}', 'ann', "
                "'{\"tenant\": \"a\", \"two\": \"lines:\\nü\"}', 'application/json', 3, 1500, 60000, 2.0, "
                "'order-1', 'while_unfinished', '" +
                std::string(kId) + "', 'c', 'd', 't')"),
      "");
  const Entries entries = read();
  ASSERT_EQ(entries.size(), 1U);
  const Message& message = entries[0].message;
  EXPECT_EQ(message.topic, "orders.created");
  EXPECT_EQ(message.payload, "{\"id\":1}");
  EXPECT_EQ(message.key, "ann");
  EXPECT_EQ(message.headers, (Headers{{"tenant", "a"}, {"two", "lines:\nü"}}));
  EXPECT_EQ(message.content_type, "application/json");
  EXPECT_EQ(message.priority, 3);
  EXPECT_EQ(message.delay, 1500ms);
  EXPECT_EQ(message.misfire.skip_if_late_by, 60s);
  EXPECT_EQ(message.ttl, 2ms) << "JavaScript has no other numbers";
  EXPECT_EQ(message.dedup_id, "order-1");
  EXPECT_EQ(message.dedup_mode, DedupMode::kWhileUnfinished);
  EXPECT_EQ(message.id.to_string(), kId);
  EXPECT_EQ(message.correlation_id, "c");
  EXPECT_EQ(message.causation_id, "d");
  EXPECT_EQ(message.traceparent, "t");
  const auto now = std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  EXPECT_LE(entries[0].written_at, now);
  EXPECT_GE(entries[0].written_at, now - 1min);
}

TEST_F(SqliteOutbox, WhatIsLeftOutIsAsInAMessageThatIsPublished) {
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic) VALUES('t')"), "");
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic, payload, key, due_at_ms, message_id)"
                      " VALUES('t', x'00ff', '', 1234, x'000102030405060708090a0b0c0d0e0f')"),
            "");
  const Entries entries = read();
  ASSERT_EQ(entries.size(), 2U);
  const Message none;
  const Message& message = entries[0].message;
  EXPECT_EQ(message.payload, none.payload);
  EXPECT_EQ(message.key, none.key);
  EXPECT_EQ(message.headers, none.headers);
  EXPECT_EQ(message.priority, none.priority);
  EXPECT_EQ(message.delay, none.delay);
  EXPECT_EQ(message.due_at, none.due_at);
  EXPECT_EQ(message.ttl, none.ttl);
  EXPECT_EQ(message.dedup_mode, none.dedup_mode);
  EXPECT_TRUE(message.id.empty());
  EXPECT_EQ(entries[1].message.payload, std::string("\0\xff", 2));
  EXPECT_EQ(entries[1].message.key, "") << "an empty text is a key";
  EXPECT_EQ(entries[1].message.due_at, from_us(1'234'000));
  EXPECT_EQ(entries[1].message.id.bytes[15], 15);
}

TEST_F(SqliteOutbox, WhatIsRolledBackWasNeverThere) {
  ASSERT_EQ(plain.run("CREATE TABLE orders(id); BEGIN; INSERT INTO orders VALUES(1);"
                      "INSERT INTO towline_outbox_v1(topic) VALUES('t'); ROLLBACK"),
            "");
  EXPECT_TRUE(read().empty());
  // A refused message takes nothing else back: the caller decides.
  ASSERT_EQ(plain.run("BEGIN; INSERT INTO orders VALUES(2)"), "");
  EXPECT_NE(plain.run("INSERT INTO towline_outbox_v1(topic) VALUES('')"), "");
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic) VALUES('t'); COMMIT"), "");
  EXPECT_EQ(read().size(), 1U);
}

TEST_F(SqliteOutbox, EntriesComeInTheOrderOfTheirTransactionsAndNoNumberComesAgain) {
  Plain other(world.file());
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic, payload) VALUES('t', '1'), ('t', '2')"), "");
  ASSERT_EQ(other.run("INSERT INTO towline_outbox_v1(topic, payload) VALUES('t', '3')"), "");
  Entries entries = read();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].message.payload, "1");
  EXPECT_EQ(entries[1].message.payload, "2");
  EXPECT_EQ(entries[2].message.payload, "3");
  EXPECT_EQ(read(2).size(), 2U);
  for (const spi::OutboxEntry& entry : entries)
    ASSERT_TRUE(commit({spi::EraseOutboxEntry{entry.number}}).ok());
  // Somebody who read the old one and is late must not erase the new one.
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic, payload) VALUES('t', '4')"), "");
  EXPECT_GT(read().at(0).number, entries[2].number);
}

TEST_F(SqliteOutbox, PublishingAndErasingAreOneAndASecondOneFindsItGone) {
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic) VALUES('t')"), "");
  const spi::EraseOutboxEntry erase{read().at(0).number};
  auto subscription = world.subscribe();
  EXPECT_TRUE(commit({spi::Publish{world.envelope(1)}, erase}).ok());
  EXPECT_EQ(code_of(commit({spi::Publish{world.envelope(2)}, erase})), ErrorCode::kNotFound);
  EXPECT_EQ(world.take(*subscription), range(1, 1));
  EXPECT_TRUE(read().empty());
}

TEST_F(SqliteOutbox, AMegabyteOfPayloadIsReadAtATimeAndAlwaysOneEntry) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic, payload) VALUES('t', zeroblob(700000))"), "");
  }
  EXPECT_EQ(read().size(), 1U);
  ASSERT_TRUE(commit({spi::EraseOutboxEntry{read().at(0).number}}).ok());
  ASSERT_EQ(plain.run("UPDATE outbox SET payload = zeroblob(3000000) WHERE number = 2"), "");
  EXPECT_EQ(read().size(), 1U);
}

TEST_F(SqliteOutbox, ARowThatWasWrittenPastTheViewKeepsNoOtherFromBeingRead) {
  ASSERT_EQ(
      plain.run("INSERT INTO outbox(written_us, topic, payload, headers, priority, message_id, dedup_mode)"
                " VALUES('x', x'ff', 5, 'not JSON', 4000, x'00', 7)"),
      "");
  ASSERT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic, payload) VALUES('t', 'good')"), "");
  const Entries entries = read();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].message.headers.size(), 1U) << "with a name that is refused";
  EXPECT_GT(entries[0].message.priority, 9);
  EXPECT_EQ(entries[1].message.payload, "good");
}

TEST_F(SqliteOutbox, HandlersMayWriteToItInTheirTransactionAndToTheTableOfItNot) {
  const auto run = [&](const char* sql) {
    return world.store().transact(
        [&](spi::SqlSession& session) -> Result<void> {
          auto rows = session.execute(sql, {});
          return rows ? Result<void>{} : Result<void>(rows.error());
        },
        {}, nullptr);
  };
  EXPECT_TRUE(run("INSERT INTO towline_outbox_v1(topic) VALUES('t')").ok());
  EXPECT_TRUE(run("INSERT INTO towline_inbox_v1(\"group\", message_id) VALUES('g', zeroblob(16))").ok());
  EXPECT_EQ(read().size(), 1U);
  for (const char* sql :
       {"INSERT INTO outbox(written_us, topic, payload) VALUES(1, 't', '')", "DELETE FROM outbox",
        "DROP VIEW towline_outbox_v1", "DROP TRIGGER towline_outbox_v1_insert",
        "DROP TRIGGER towline_inbox_v1_insert", "DROP TRIGGER dead_letter_count_insert",
        "CREATE TRIGGER mine INSTEAD OF INSERT ON towline_outbox_v1 BEGIN SELECT 1; END"})
    EXPECT_EQ(code_of(run(sql)), ErrorCode::kInvalidArgument) << sql;
  EXPECT_EQ(read().size(), 1U);
}

TEST(SqliteOutboxWait, WhatOthersWriteIsFoundWithoutABell) {
  World world(true);
  Plain plain(world.file());
  Entries entries;
  std::atomic<bool> began = false;
  std::thread reader([&] {
    began = true;
    entries = world.store().read_outbox(10, world.clock->monotonic() + 1h, {}).value();
  });
  EXPECT_TRUE(support::eventually([&] { return began.load(); }));
  EXPECT_EQ(plain.run("INSERT INTO towline_outbox_v1(topic) VALUES('t')"), "");
  reader.join();  // its clock stands still: nothing but the look can have ended the wait
  EXPECT_EQ(entries.size(), 1U);
}

TEST(SqliteOutboxWait, AStopEndsTheWait) {
  World world(true);
  std::stop_source stop;
  std::thread reader([&] {
    EXPECT_TRUE(
        world.store().read_outbox(10, world.clock->monotonic() + 1h, stop.get_token()).value().empty());
  });
  stop.request_stop();
  reader.join();
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
