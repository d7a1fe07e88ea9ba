// The contract for SQL of others: what its triggers refuse, and the inbox that they write to.

#include "drivers/sqlite/contract.hpp"

#include "unit/drivers/sqlite/contract.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

using SqliteContract = Contract;

TEST_F(SqliteContract, WhatSqlCanSeeIsRefusedWithAWordOnWhatToDo) {
  const std::pair<const char*, const char*> refused[] = {{"topic", "''"},
                                                         {"topic", "NULL"},
                                                         {"topic", "5"},
                                                         {"topic", "'a..b'"},
                                                         {"topic", "'.a'"},
                                                         {"topic", "'a.'"},
                                                         {"topic", "'a b'"},
                                                         {"topic", "'a.*'"},
                                                         {"topic", "printf('%250d', 0)"},
                                                         {"payload", "5"},
                                                         {"payload", "zeroblob(67108865)"},
                                                         {"key", "5"},
                                                         {"key", "printf('%256d', 0)"},
                                                         {"headers", "'{'"},
                                                         {"headers", "'[]'"},
                                                         {"headers", "'{\"a\": 1}'"},
                                                         {"headers", "5"},
                                                         {"content_type", "5"},
                                                         {"priority", "10"},
                                                         {"priority", "-1"},
                                                         {"priority", "0.5"},
                                                         {"priority", "'3'"},
                                                         {"delay_ms", "-1"},
                                                         {"delay_ms", "'5'"},
                                                         {"due_at_ms", "'soon'"},
                                                         {"ttl_ms", "-1"},
                                                         {"ttl_ms", "1e300"},
                                                         {"skip_if_late_by_ms", "x'00'"},
                                                         {"dedup_id", "'a b'"},
                                                         {"dedup_id", "7"},
                                                         {"correlation_id", "char(10)"},
                                                         {"causation_id", "'ü'"},
                                                         {"dedup_mode", "'never'"},
                                                         {"message_id", "'5'"},
                                                         {"message_id", "x'00'"},
                                                         {"message_id", "7"},
                                                         {"traceparent", "7"}};
  for (const auto& [column, value] : refused) {
    const std::string topic = std::string(column) == "topic" ? "" : ", topic";
    const std::string said = plain.run("INSERT INTO towline_outbox_v1(" + std::string(column) + topic +
                                       ") VALUES(" + value + (topic.empty() ? ")" : ", 't')"));
    EXPECT_NE(said.find("towline_outbox_v1: "), std::string::npos) << column << " " << value << ": " << said;
    EXPECT_NE(said.find(column), std::string::npos) << column << " " << value << ": " << said;
    EXPECT_EQ(plain.code(), SQLITE_CONSTRAINT_TRIGGER) << column << " " << value;
  }
  EXPECT_NE(plain.run("INSERT INTO towline_outbox_v1(topic, delay_ms, due_at_ms) VALUES('t', 1, 1)"), "");
  EXPECT_NE(plain.run("UPDATE towline_outbox_v1 SET topic = 'u'"), "");
  EXPECT_NE(plain.run("DELETE FROM towline_outbox_v1"), "");
  EXPECT_TRUE(read().empty());
}

// ---- the inbox ----------------------------------------------------------------------------------

struct SqliteInbox : Contract {
  [[nodiscard]] std::string insert(const std::string& id, const std::string& how = "INSERT",
                                   const std::string& more = "NULL, NULL") {
    return plain.run(how +
                     " INTO towline_inbox_v1(\"group\", message_id, window_ms, expires_at_ms) VALUES('g', " +
                     id + ", " + more + ")");
  }
  [[nodiscard]] bool holds(const MessageId& id) {
    return world.store().inbox_contains("g", {&id, 1}).value().at(0);
  }
};

TEST_F(SqliteInbox, AMessageIsTakenInOnceWhicheverFormItsIdHas) {
  const MessageId id = MessageId::parse(kId).value();
  ASSERT_EQ(insert("'" + std::string(kId) + "'"), "");
  EXPECT_TRUE(holds(id));
  for (const char* how : {"INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE"}) {
    for (const char* form :
         {"'01890a5d-ac96-774b-bcce-b302099a8057'", "'01890A5D-AC96-774B-BCCE-B302099A8057'",
          "x'01890a5dac96774bbcceb302099a8057'"}) {
      EXPECT_NE(insert(form, how).find("duplicate"), std::string::npos) << how << form;
      EXPECT_EQ(plain.code(), SQLITE_CONSTRAINT_TRIGGER);
    }
  }
  EXPECT_EQ(code_of(commit({spi::PutInbox{"g", id, world.clock->now() + 1h}})), ErrorCode::kConflict)
      << "and so the engine sees it";
}

TEST_F(SqliteInbox, EveryByteOfAnIdIsTheOneThatItsTextNames) {
  for (int first = 0; first < 256; first += 16) {
    MessageId id;
    for (std::size_t i = 0; i < 16; ++i)
      id.bytes[i] = static_cast<std::uint8_t>(first + static_cast<int>(i));
    ASSERT_EQ(insert("'" + id.to_string() + "'"), "") << id.to_string();
    EXPECT_TRUE(holds(id)) << id.to_string();
  }
}

TEST_F(SqliteInbox, WhatTheEngineTookInIsThereForSqlAndWhatHasExpiredIsNot) {
  const MessageId id = MessageId::parse(kId).value();
  const auto now = std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  ASSERT_TRUE(commit({spi::PutInbox{"g", id, now + 1h}}).ok());
  EXPECT_NE(insert("'" + std::string(kId) + "'"), "");
  ASSERT_TRUE(plain.run("UPDATE inbox SET expires_us = 1").empty());
  EXPECT_EQ(insert("'" + std::string(kId) + "'", "INSERT", "0, NULL"), "") << "an expired one is cleared";
  EXPECT_EQ(insert("'" + std::string(kId) + "'", "INSERT", "NULL, 9000000000000"), "");
  EXPECT_NE(insert("'" + std::string(kId) + "'"), "");
}

TEST_F(SqliteInbox, WhatIsRolledBackCanBeTakenInAgain) {
  ASSERT_EQ(plain.run("BEGIN"), "");
  ASSERT_EQ(insert("zeroblob(16)"), "");
  ASSERT_EQ(plain.run("ROLLBACK"), "");
  EXPECT_EQ(insert("zeroblob(16)"), "");
}

TEST_F(SqliteInbox, WhatSqlCanSeeIsRefused) {
  for (const char* id : {"NULL", "'x'", "x'00'", "5", "'01890a5d-ac96-774b-bcce-b302099a805z'",
                         "'01890a5d-ac96-774b-bcceb302099a-8057'"})
    EXPECT_NE(insert(id).find("message_id must be"), std::string::npos) << id;
  for (const char* times : {"-1, NULL", "NULL, 'x'", "1, 1"})
    EXPECT_NE(insert("zeroblob(16)", "INSERT", times).find("window_ms"), std::string::npos) << times;
  for (const char* group : {"''", "NULL", "'a b'", "5"}) {
    const std::string sql = "INSERT INTO towline_inbox_v1(\"group\", message_id) VALUES(";
    EXPECT_NE(plain.run(sql + group + ", zeroblob(16))").find("group must be"), std::string::npos) << group;
  }
}

TEST_F(SqliteInbox, AGroupThatSqlHasNamedIsTheOneThatSubscribesLater) {
  ASSERT_EQ(insert("zeroblob(16)"), "");
  world.publish(1, 2);
  auto subscription = world.subscribe(member("g"));
  EXPECT_EQ(world.take(*subscription), range(1, 2));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
