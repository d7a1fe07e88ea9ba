// A connection remembers its first failure and does nothing more; what SQLite calls it becomes an error
// that says what towline was doing.

#include "drivers/sqlite/connection.hpp"

#include <gtest/gtest.h>

#include "support/temp_dir.hpp"

namespace towline::drivers::sqlite {
namespace {

class SqliteConnection : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(connection.open(folder.file("a.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr));
    ASSERT_TRUE(connection.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB)"));
  }
  support::TempDir folder;
  Connection connection;
};

TEST_F(SqliteConnection, ValuesComeBackAsTheyWereBound) {
  const std::string bytes("\0\xff", 2);
  const MessageId id{{1, 2, 3}};
  ASSERT_TRUE(execute(connection, "INSERT INTO t VALUES(?1, ?2, ?3)", 7, "grüße", Blob{bytes}));
  ASSERT_TRUE(execute(connection, "INSERT INTO t VALUES(?1, ?2, ?3)", INT64_MIN,
                      std::optional<std::string>(), id));
  Query rows(connection, "SELECT id, name, data FROM t ORDER BY id DESC");
  ASSERT_TRUE(rows.row());
  EXPECT_EQ(rows.integer(0), 7);
  EXPECT_EQ(rows.text(1), "grüße");
  EXPECT_EQ(rows.blob(2), bytes);
  ASSERT_TRUE(rows.row());
  EXPECT_EQ(rows.integer(0), INT64_MIN);
  EXPECT_TRUE(rows.is_null(1));
  EXPECT_EQ(rows.id(2), id);
  EXPECT_FALSE(rows.row());
  EXPECT_TRUE(connection.ok());
}

TEST_F(SqliteConnection, AnEmptyTextAndEmptyBytesAreNotNull) {
  ASSERT_TRUE(execute(connection, "INSERT INTO t VALUES(1, ?1, ?2)", std::string_view(), Blob{}));
  EXPECT_EQ(select_integer(connection, "SELECT name IS NULL OR data IS NULL FROM t"), 0);
}

TEST_F(SqliteConnection, AnIdThatIsTooShortOrTooLongIsReadWithoutReadingPastIt) {
  ASSERT_TRUE(
      execute(connection, "INSERT INTO t VALUES(1, 'short', x'0102'), (2, 'long', ?1), (3, 'none', NULL)",
              Blob{std::string_view("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")}));
  Query rows(connection, "SELECT data FROM t ORDER BY id");
  ASSERT_TRUE(rows.row());
  EXPECT_EQ(rows.id(0), (MessageId{{1, 2}}));
  ASSERT_TRUE(rows.row());
  EXPECT_EQ(rows.id(0).bytes[15], 'a');
  ASSERT_TRUE(rows.row());
  EXPECT_TRUE(rows.id(0).empty());
}

TEST_F(SqliteConnection, AfterItsFirstFailureEveryQueryIsEmptyAndTheFirstOneIsRemembered) {
  ASSERT_TRUE(execute(connection, "INSERT INTO t VALUES(1, 'a', NULL)"));
  EXPECT_FALSE(execute(connection, "INSERT INTO t VALUES(2, 'a', NULL)"));
  EXPECT_FALSE(connection.ok());
  EXPECT_EQ(connection.failure().primary(), SQLITE_CONSTRAINT);
  EXPECT_FALSE(connection.run("DELETE FROM t"));
  EXPECT_EQ(connection.ask("SELECT count(*) FROM t"), std::nullopt);
  EXPECT_EQ(select_integer(connection, "SELECT count(*) FROM t"), std::nullopt);
  connection.fail(SQLITE_FULL);
  EXPECT_EQ(connection.failure().primary(), SQLITE_CONSTRAINT);
  connection.forget_failure();
  EXPECT_EQ(select_integer(connection, "SELECT count(*) FROM t"), 1) << "nothing was done meanwhile";
}

TEST_F(SqliteConnection, AQueryCanRunAgainWithItsBindings) {
  Query insert(connection, "INSERT INTO t(name) VALUES(?1 || (SELECT count(*) FROM t))", "n");
  ASSERT_TRUE(insert.run());
  insert.again();
  ASSERT_TRUE(insert.run());
  EXPECT_EQ(connection.ask("SELECT group_concat(name) FROM t"), "n0,n1");
  EXPECT_EQ(connection.changes(), 1);
}

TEST_F(SqliteConnection, WhatSqliteReportsIsAnErrorThatSaysWhatWasBeingDone) {
  struct Case {
    int code;
    ErrorCode expected;
  };
  for (const Case& one : {Case{SQLITE_FULL, ErrorCode::kStorageFull},
                          Case{SQLITE_BUSY, ErrorCode::kStoreLocked},
                          Case{SQLITE_BUSY_SNAPSHOT, ErrorCode::kStoreLocked},
                          Case{SQLITE_CORRUPT, ErrorCode::kCorruptStore},
                          Case{SQLITE_NOTADB, ErrorCode::kNotAStore},
                          Case{SQLITE_IOERR_FSYNC, ErrorCode::kIoError},
                          Case{SQLITE_READONLY, ErrorCode::kIoError},
                          Case{SQLITE_NOMEM, ErrorCode::kOverloaded},
                          Case{SQLITE_TOOBIG, ErrorCode::kPayloadTooLarge},
                          Case{SQLITE_MISUSE, ErrorCode::kInternal}}) {
    Failure failure;
    failure.code = one.code;
    failure.message = "as told";
    const Error error = to_error(failure, "settling");
    EXPECT_EQ(error.code, one.expected) << one.code;
    EXPECT_EQ(error.native_code, one.code);
    EXPECT_NE(error.message.find("as told"), std::string::npos);
    EXPECT_NE(error.message.find("while settling"), std::string::npos);
  }
}

TEST_F(SqliteConnection, AFileThatCannotBeOpenedLeavesNoHandle) {
  Connection other;
  EXPECT_FALSE(other.open(folder.file("no/such/folder/a.db"), SQLITE_OPEN_READWRITE, nullptr));
  EXPECT_FALSE(other.is_open());
  EXPECT_EQ(other.failure().primary(), SQLITE_CANTOPEN);
}

}  // namespace
}  // namespace towline::drivers::sqlite
