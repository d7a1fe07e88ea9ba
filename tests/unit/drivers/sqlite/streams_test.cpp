// How events are found in the file; what streams do is in ../streams_test.cpp.

#include "drivers/sqlite/streams.hpp"

#include <string>

#include <gtest/gtest.h>

#include "drivers/sqlite/schema.hpp"
#include "support/temp_dir.hpp"

namespace towline::drivers::sqlite {
namespace {

/// How SQLite runs the prepared statement that has this text in it.
std::string plan_of(Connection& sql, std::string_view part) {
  for (sqlite3_stmt* one = sqlite3_next_stmt(sql.raw(), nullptr); one != nullptr;
       one = sqlite3_next_stmt(sql.raw(), one)) {
    const std::string text = sqlite3_sql(one);
    if (text.find(part) == std::string::npos) continue;
    sqlite3_stmt* explain = nullptr;
    const std::string asked = "EXPLAIN QUERY PLAN " + text;
    sqlite3_prepare_v2(sql.raw(), asked.c_str(), -1, &explain, nullptr);
    std::string plan;
    while (sqlite3_step(explain) == SQLITE_ROW)
      plan += reinterpret_cast<const char*>(sqlite3_column_text(explain, 3));
    sqlite3_finalize(explain);
    return plan;
  }
  return "no such statement";
}

TEST(SqliteStreams, AnIdIsLookedForAmongTheIdsAndNotInItsWholeStream) {
  const support::TempDir folder;
  Connection sql;
  ASSERT_TRUE(sql.open(folder.file("store.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
  ASSERT_TRUE(migrate(sql, migrations(), 0));
  ASSERT_TRUE(
      sql.run("INSERT INTO event_stream(name) VALUES('a');"
              "INSERT INTO conversation_stream(name) VALUES('a');"));
  for (const spi::StreamSpace space : {spi::StreamSpace::kEvents, spi::StreamSpace::kConversations}) {
    spi::AppendEvents write;
    write.space = space;
    write.stream = "a";
    write.events.emplace_back().type = "happened";
    EXPECT_TRUE(check_append(sql, write).ok());
  }
  EXPECT_NE(plan_of(sql, "FROM event_record WHERE id =").find("event_record_id"), std::string::npos);
  EXPECT_NE(plan_of(sql, "FROM conversation_record WHERE id =").find("conversation_record_id"),
            std::string::npos);
}

}  // namespace
}  // namespace towline::drivers::sqlite
