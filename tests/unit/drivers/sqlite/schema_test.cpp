// The schema of a file: an empty one becomes one of this version, an older one is taken forward step by
// step or not at all, and what is newer or somebody else's is left alone.

#include "drivers/sqlite/schema.hpp"

#include <fstream>
#include <iterator>
#include <thread>

#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

constexpr Migration kFirst[] = {{"CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
                                 "CREATE TABLE thing(id INTEGER PRIMARY KEY, name TEXT);"}};
constexpr Migration kSecond[] = {kFirst[0],
                                 {"ALTER TABLE thing ADD COLUMN weight INTEGER NOT NULL DEFAULT 7;"
                                  "CREATE INDEX thing_weight ON thing(weight);"}};
constexpr Migration kBroken[] = {kFirst[0],
                                 {"ALTER TABLE thing ADD COLUMN weight INTEGER NOT NULL DEFAULT 7;"
                                  "INSERT INTO nowhere VALUES(1);"}};

class SqliteSchema : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(connect(connection)); }
  bool connect(Connection& to) const {
    return to.open(file(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  }
  [[nodiscard]] std::string file() const { return folder.file("store.db"); }
  [[nodiscard]] std::string bytes() const {
    std::ifstream in(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  [[nodiscard]] std::string ask(const char* sql) { return connection.ask(sql).value_or("nothing"); }

  support::TempDir folder;
  Connection connection;
};

TEST_F(SqliteSchema, AnEmptyFileBecomesOneOfThisVersion) {
  EXPECT_EQ(inspect_schema(connection, migrations()).state, SchemaState::kEmpty);
  ASSERT_TRUE(migrate(connection, migrations(), 42));
  const SchemaFound found = inspect_schema(connection, migrations());
  EXPECT_EQ(found.state, SchemaState::kCurrent);
  EXPECT_EQ(found.version, static_cast<std::int64_t>(migrations().size()));
  EXPECT_EQ(ask("PRAGMA application_id"), std::to_string(kApplicationId));
  EXPECT_EQ(ask("SELECT value FROM meta WHERE name = 'created_us'"), "42");
}

TEST_F(SqliteSchema, TheTableOfDeadLettersHasTheColumnsThatPeopleQuery) {
  ASSERT_TRUE(migrate(connection, migrations(), 0));
  for (const char* column :
       {"id", "original_message_id", "topic", "payload", "error_type", "error_message", "error_stack",
        "retry_count", "first_failed_at", "last_failed_at", "reprocess_count", "status", "metadata",
        "created_at"}) {
    const std::string sql =
        "SELECT count(*) FROM pragma_table_info('dead_letter') WHERE name = '" + std::string(column) + "'";
    EXPECT_EQ(ask(sql.c_str()), "1") << column;
  }
  for (const char* column : {"topic", "status", "error_type", "created_at"}) {
    const std::string sql =
        "SELECT count(*) > 0 FROM pragma_index_list('dead_letter') AS list,"
        " pragma_index_info(list.name) AS info WHERE info.name = '" +
        std::string(column) + "'";
    EXPECT_EQ(ask(sql.c_str()), "1") << "no index on " << column;
  }
}

TEST_F(SqliteSchema, MigratingAgainChangesNothing) {
  ASSERT_TRUE(migrate(connection, migrations(), 42));
  ASSERT_TRUE(migrate(connection, migrations(), 99));
  EXPECT_EQ(ask("SELECT value FROM meta WHERE name = 'created_us'"), "42");
  EXPECT_EQ(ask("SELECT value FROM meta WHERE name = 'schema_us'"), "42");
}

TEST_F(SqliteSchema, AnOlderFileIsTakenForwardAndKeepsItsRows) {
  ASSERT_TRUE(migrate(connection, kFirst, 1));
  ASSERT_TRUE(connection.run("INSERT INTO thing VALUES(1, 'anchor')"));
  EXPECT_EQ(inspect_schema(connection, kSecond).state, SchemaState::kOld);
  ASSERT_TRUE(migrate(connection, kSecond, 2));
  const SchemaFound found = inspect_schema(connection, kSecond);
  EXPECT_EQ(found.state, SchemaState::kCurrent);
  EXPECT_EQ(found.version, 2);
  EXPECT_EQ(ask("SELECT name || weight FROM thing"), "anchor7");
  EXPECT_EQ(ask("SELECT value FROM meta WHERE name = 'created_us'"), "1");
  EXPECT_EQ(ask("SELECT value FROM meta WHERE name = 'schema_us'"), "2");
}

TEST_F(SqliteSchema, WhatWasCancelledBeforeVersionTwoNeverFiresAfterIt) {
  ASSERT_TRUE(migrate(connection, migrations().first(1), 1));
  ASSERT_TRUE(connection.run(
      "INSERT INTO topic VALUES(1, 't', 'queue', 64, 0, 0); INSERT INTO log VALUES(5, 1, 4, 0, 0, 0);"));
  for (int n = 1; n <= 9; ++n) {
    ASSERT_TRUE(execute(connection,
                        "INSERT INTO body(body_id, record_id, topic_id, priority, partition, due_us, version,"
                        " payload) VALUES(?1, ?2, 1, 4, 0, 1000 * ?1, 1, 'p')",
                        n, make_id(static_cast<std::uint64_t>(n))));
    ASSERT_TRUE(execute(connection, "INSERT INTO schedule VALUES(1000 * ?1, ?1, 5)", n));
  }
  ASSERT_TRUE(connection.run("INSERT INTO cancelled VALUES(3), (4), (9), (77);"
                             "UPDATE counter SET value = 6 WHERE name = 'scheduled'"));
  ASSERT_TRUE(migrate(connection, migrations(), 2));
  EXPECT_EQ(ask("SELECT group_concat(body_id) FROM schedule"), "1,2,5,6,7,8");
  EXPECT_EQ(ask("SELECT group_concat(body_id) FROM body"), "1,2,5,6,7,8");
  EXPECT_EQ(ask("SELECT count(*) FROM cancelled"), "0");
  EXPECT_EQ(ask("SELECT value FROM counter WHERE name = 'scheduled'"), "6");
  EXPECT_EQ(ask("SELECT value FROM counter WHERE name = 'cancelled'"), "0");
}

TEST_F(SqliteSchema, AMigrationThatFailsHalfwayLeavesTheFileAsItWas) {
  ASSERT_TRUE(migrate(connection, kFirst, 1));
  ASSERT_TRUE(connection.run("INSERT INTO thing VALUES(1, 'anchor')"));
  EXPECT_FALSE(migrate(connection, kBroken, 2));
  EXPECT_FALSE(connection.ok());
  Connection next;
  ASSERT_TRUE(connect(next));
  const SchemaFound found = inspect_schema(next, kBroken);
  EXPECT_EQ(found.state, SchemaState::kOld);
  EXPECT_EQ(found.version, 1);
  EXPECT_EQ(next.ask("SELECT count(*) FROM pragma_table_info('thing')"), "2")
      << "the first half is gone, too";
  EXPECT_EQ(next.ask("SELECT name FROM thing"), "anchor");
}

TEST_F(SqliteSchema, OnlyOneOfManyProcessesMigrates) {
  ASSERT_TRUE(migrate(connection, kFirst, 1));
  std::vector<std::thread> threads;
  std::array<bool, 4> done{};
  for (std::size_t i = 0; i < done.size(); ++i) {
    threads.emplace_back([&, i] {
      Connection own;
      done[i] = connect(own) && sqlite3_busy_timeout(own.raw(), 20'000) == SQLITE_OK &&
                migrate(own, kSecond, static_cast<std::int64_t>(10 + i));
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(done, (std::array<bool, 4>{true, true, true, true}));
  EXPECT_EQ(inspect_schema(connection, kSecond).state, SchemaState::kCurrent);
}

TEST_F(SqliteSchema, ANewerFileIsNeitherOpenedNorTouched) {
  ASSERT_TRUE(migrate(connection, migrations(), 1));
  ASSERT_TRUE(connection.run("PRAGMA user_version = 99"));
  EXPECT_EQ(inspect_schema(connection, migrations()).state, SchemaState::kTooNew);
  connection.close(true);
  const std::string before = bytes();
  spi::DriverOptions options;
  options.location = file();
  options.clock = std::make_shared<VirtualClock>();
  options.threads = false;
  const auto opened = open_sqlite(options);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kSchemaTooNew) << opened.error().to_string();
  EXPECT_NE(opened.error().message.find("99"), std::string::npos) << opened.error().message;
  EXPECT_EQ(bytes(), before);
}

TEST_F(SqliteSchema, TheFileOfAnotherProgramIsNeitherOpenedNorTouched) {
  ASSERT_TRUE(connection.run("CREATE TABLE recipe(name TEXT); INSERT INTO recipe VALUES('soup');"));
  EXPECT_EQ(inspect_schema(connection, migrations()).state, SchemaState::kForeign);
  connection.close(true);
  const std::string before = bytes();
  spi::DriverOptions options;
  options.location = file();
  options.clock = std::make_shared<VirtualClock>();
  options.threads = false;
  EXPECT_EQ(code_of(open_sqlite(options)), ErrorCode::kNotAStore);
  EXPECT_EQ(bytes(), before);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
