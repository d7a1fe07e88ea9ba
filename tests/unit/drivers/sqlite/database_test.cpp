// One batch after another: what is answered when, what a failure takes back, what it ends for good, and that
// a reader sees only what is committed.

#include "drivers/sqlite/database.hpp"

#include <atomic>
#include <filesystem>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "drivers/sqlite/ops.hpp"
#include "support/eventually.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

class SqliteDatabase : public ::testing::Test {
 protected:
  SqliteDatabase() {
    EXPECT_TRUE(database.open(now()).ok());
    EXPECT_TRUE(write([](Tx& tx) { execute(tx.sql, "CREATE TABLE mine(a INTEGER PRIMARY KEY)"); }).ok());
  }
  [[nodiscard]] Settings settings() const {
    Settings settings;
    settings.path = folder.file("store.db");
    return settings;
  }
  [[nodiscard]] Moment now() { return {clock.now(), clock.monotonic()}; }
  template <typename F>
  Result<void> write(F f) {
    auto op = write_op<bool>(now(), [&](Tx& tx, const Error*) {
      f(tx);
      return true;
    });
    database.run(op);
    if (op.error) return *op.error;
    return {};
  }
  Result<void> insert(std::int64_t number) {
    return write([&](Tx& tx) { execute(tx.sql, "INSERT INTO mine VALUES(?1)", number); });
  }
  Result<std::int64_t> count() {
    return database.read<std::int64_t>([](Connection& sql) -> Result<std::int64_t> {
      return select_integer(sql, "SELECT count(*) FROM mine").value_or(-1);
    });
  }

  support::TempDir folder;
  VirtualClock clock;
  Database database{settings()};
};

TEST_F(SqliteDatabase, WhatWasAnsweredIsCommittedAndReadersSeeNothingElse) {
  ASSERT_TRUE(insert(1).ok());
  EXPECT_EQ(count().value(), 1);
  ASSERT_TRUE(write([&](Tx& tx) {
                execute(tx.sql, "INSERT INTO mine VALUES(2)");
                EXPECT_EQ(count().value(), 1) << "it is not committed yet";
              }).ok());
  EXPECT_EQ(count().value(), 2);
}

TEST_F(SqliteDatabase, AnOpThatFailsTakesBackOnlyItself) {
  // While the first is at work three more queue up and become one batch; the second of them cannot be.
  std::atomic<bool> leads = false;
  std::atomic<bool> go = false;
  std::thread first([&] {
    EXPECT_TRUE(write([&](Tx&) {
                  leads = true;
                  EXPECT_TRUE(support::eventually([&] { return go.load(); }));
                }).ok());
  });
  ASSERT_TRUE(support::eventually([&] { return leads.load(); }));
  std::atomic<int> failed = 0;
  std::vector<std::thread> others;
  for (const int number : {1, 2, 3}) {
    others.emplace_back([&, number] {
      const auto done = write([&](Tx& tx) {
        execute(tx.sql, "INSERT INTO mine VALUES(?1)", number);
        if (number == 2) execute(tx.sql, "INSERT INTO mine VALUES(2)");
      });
      if (!done.ok()) ++failed;
      EXPECT_EQ(done.ok(), number != 2);
    });
  }
  go = true;
  first.join();
  for (std::thread& other : others)
    other.join();
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(count().value(), 2);
  EXPECT_TRUE(insert(2).ok()) << "what failed left nothing behind";
}

TEST_F(SqliteDatabase, ADiskErrorEndsItForGood) {
  ASSERT_TRUE(insert(1).ok());
  const auto failed = write([](Tx& tx) { tx.sql.fail(SQLITE_IOERR_WRITE); });
  EXPECT_EQ(code_of(failed), ErrorCode::kIoError);
  EXPECT_EQ(code_of(insert(2)), ErrorCode::kIoError) << "nothing is tried again on the same file";
  EXPECT_EQ(code_of(count()), ErrorCode::kIoError);
  Database again{settings()};
  ASSERT_TRUE(again.open(now()).ok());
  const auto found = again.read<std::int64_t>([](Connection& sql) -> Result<std::int64_t> {
    return select_integer(sql, "SELECT count(*) FROM mine").value_or(-1);
  });
  EXPECT_EQ(found.value(), 1) << "what was acknowledged is there";
}

TEST_F(SqliteDatabase, AFileThatANewerBuildHasChangedIsLeftAloneFromThenOn) {
  ASSERT_TRUE(insert(1).ok());
  Connection newer;
  ASSERT_TRUE(newer.open(settings().path, SQLITE_OPEN_READWRITE, nullptr));
  ASSERT_TRUE(newer.run("PRAGMA user_version = 99"));
  const auto refused = insert(2);
  EXPECT_EQ(code_of(refused), ErrorCode::kSchemaTooNew);
  EXPECT_NE(refused.error().message.find("99"), std::string::npos) << refused.error().message;
  ASSERT_TRUE(newer.run("PRAGMA user_version = 1"));
  EXPECT_EQ(code_of(insert(3)), ErrorCode::kSchemaTooNew) << "what it knows of the file is not true any more";
  EXPECT_EQ(code_of(count()), ErrorCode::kSchemaTooNew) << "nor what it would read";
  EXPECT_EQ(select_integer(newer, "SELECT count(*) FROM mine"), 1);
}

TEST_F(SqliteDatabase, AFullDiskIsTriedOnceMoreWithoutWhatGrowsAndEndsNothing) {
  std::vector<bool> was_full;
  auto op = write_op<bool>(now(), [&](Tx& tx, const Error* full) {
    was_full.push_back(full != nullptr);
    if (full == nullptr) tx.sql.fail(SQLITE_FULL);
    return true;
  });
  database.run(op);
  EXPECT_FALSE(op.error) << op.error->to_string();
  EXPECT_EQ(was_full, (std::vector<bool>{false, true}));
  EXPECT_TRUE(insert(1).ok());
}

TEST_F(SqliteDatabase, OnAFullDiskTheRoomOfTheLogIsGivenBack) {
  Settings full = settings();
  full.path = folder.file("full.db");
  full.disk_reserve_bytes = std::uint64_t{1} << 60;
  Database small(full);
  ASSERT_TRUE(small.open(now()).ok());
  // A reader that is in the way, such as the checkpoint thread that begins, puts it off until the next look.
  EXPECT_TRUE(support::eventually([&] {
    auto op = write_op<bool>(now(), [](Tx& tx, const Error* refused) {
      execute(tx.sql, "CREATE TABLE IF NOT EXISTS mine(a INTEGER PRIMARY KEY)");
      return refused != nullptr;
    });
    small.run(op);
    EXPECT_EQ(op.result, true) << "what grows is refused";
    return std::filesystem::file_size(full.path + "-wal") == 0;
  }));
}

TEST_F(SqliteDatabase, ItsLogBeginsAnewWhileCommitFollowsCommit) {
  // Each commit adds at least a page to the log, and the checkpoint thread alone never catches up with them.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  std::int64_t commits = 0;
  for (; commits < 6'000 || std::chrono::steady_clock::now() < end; ++commits)
    ASSERT_TRUE(insert(commits).ok());
  const auto written = static_cast<std::uintmax_t>(commits * settings().page_size);
  EXPECT_LT(std::filesystem::file_size(settings().path + "-wal"), written / 2);
}

TEST_F(SqliteDatabase, AReadThatFailsIsItsCallersAloneAndItsConnectionIsUsedAgain) {
  for (int i = 0; i < 10; ++i) {
    const auto failed = database.read<bool>([](Connection& sql) -> Result<bool> {
      return select_integer(sql, "SELECT a FROM nowhere").has_value();
    });
    EXPECT_FALSE(failed.ok());
    EXPECT_EQ(count().value(), 0);
  }
}

TEST_F(SqliteDatabase, ManyReadersTakeTurns) {
  ASSERT_TRUE(insert(1).ok());
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k)
        EXPECT_EQ(count().value(), 1);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

TEST_F(SqliteDatabase, WhatWaitsForAFileThatAnotherProgramHoldsEndsWithItsPatience) {
  Connection other;
  ASSERT_TRUE(other.open(settings().path, SQLITE_OPEN_READWRITE, nullptr));
  ASSERT_TRUE(other.run("BEGIN IMMEDIATE"));
  auto op = write_op<bool>(now(), [](Tx& tx, const Error*) {
    execute(tx.sql, "INSERT INTO mine VALUES(1)");
    return true;
  });
  op.patience = 20ms;
  database.run(op);
  ASSERT_TRUE(op.error);
  EXPECT_EQ(op.error->code, ErrorCode::kTimeout);
  EXPECT_EQ(count().value(), 0) << "and who only reads is not kept";
  ASSERT_TRUE(other.run("COMMIT"));
  EXPECT_TRUE(insert(1).ok());
}

TEST_F(SqliteDatabase, OfManyThatWaitForALockedFileEachEndsWithItsPatienceWhoeverLeads) {
  Connection other;
  ASSERT_TRUE(other.open(settings().path, SQLITE_OPEN_READWRITE, nullptr));
  ASSERT_TRUE(other.run("BEGIN IMMEDIATE"));
  std::atomic<int> timed_out{0};
  const auto wait_often = [&](bool alone) {
    for (int i = 0; i < 50; ++i) {
      auto op = write_op<bool>(now(), [](Tx&, const Error*) { return true; });
      op.patience = Duration(500 + 100 * (i % 7));
      op.alone = alone;  // such a one leads others without being of their batch
      database.run(op);
      if (op.error && op.error->code == ErrorCode::kTimeout) ++timed_out;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back(wait_often, i % 2 == 0);
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(timed_out.load(), 300);
  ASSERT_TRUE(other.run("COMMIT"));
  EXPECT_TRUE(insert(1).ok());
}

TEST_F(SqliteDatabase, AChildOfAForkIsRefusedEverything) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = code_of(insert(1)) == ErrorCode::kForked && code_of(count()) == ErrorCode::kForked;
    ::_exit(refused && database.forked() ? 0 : 1);
  }
  int state = -1;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
  EXPECT_TRUE(insert(1).ok());
}

TEST_F(SqliteDatabase, ItsSizeOnTheDiskIsThatOfTheFileAndItsLog) {
  const std::uint64_t before = database.bytes_on_disk();
  ASSERT_TRUE(write([](Tx& tx) {
                execute(tx.sql, "CREATE TABLE large(a)");
                execute(tx.sql, "INSERT INTO large VALUES(zeroblob(1000000))");
              }).ok());
  EXPECT_GE(database.bytes_on_disk(), before + 1'000'000);
}

TEST(SqliteRestart, EverythingIsThereAfterTheProcessDied) {
  World world;
  auto subscription = world.subscribe();
  world.publish(1, 4);
  const auto got = world.receive(*subscription, 3);
  world.settle(*subscription, got[0]);
  subscription.reset();
  world.shut();
  world.open();
  subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(4, 4));
  const auto second = world.receive(*subscription);
  EXPECT_TRUE(second.empty());
  world.clock->advance(31s);
  subscription = world.subscribe();
  EXPECT_EQ(world.take(*subscription), range(2, 2));
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
