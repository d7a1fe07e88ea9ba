// The disk that loses its power, looked at through SQLite itself: what SQLite promises is kept on it, and
// where SQLite promises nothing the loss is seen. The second half proves that the first can fail.

#include "simulation/crash_vfs.hpp"

#include <gtest/gtest.h>

namespace towline::simulation {
namespace {

/// A connection of one machine to the one database of these tests.
class Base {
 public:
  explicit Base(CrashMachine& machine, const char* setup = "") {
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXRESCODE;
    opened_ = sqlite3_open_v2("base.db", &raw_, flags, machine.name().c_str());
    if (opened_ == SQLITE_OK) opened_ = run(setup);
  }
  ~Base() { sqlite3_close_v2(raw_); }
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  [[nodiscard]] int opened() const noexcept { return opened_; }
  int run(const std::string& sql) { return sqlite3_exec(raw_, sql.c_str(), nullptr, nullptr, nullptr); }
  std::string ask(const char* sql) {
    std::string answer;
    const auto note = [](void* into, int, char** values, char**) {
      *static_cast<std::string*>(into) = values[0] == nullptr ? "" : values[0];
      return 0;
    };
    const int code = sqlite3_exec(raw_, sql, note, &answer, nullptr);
    return code == SQLITE_OK ? answer : "error " + std::to_string(code);
  }

 private:
  sqlite3* raw_ = nullptr;
  int opened_ = SQLITE_OK;
};

constexpr const char* kLog =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 20;";
constexpr const char* kHasty =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 20;";
constexpr const char* kJournal = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;";
constexpr const char* kCareful = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA;";

/// Transaction number `n`: a row, and many others changed, so that half of it would show.
std::string transaction(std::uint64_t n, Dice& dice) {
  const std::string number = std::to_string(n);
  std::string sql = "BEGIN IMMEDIATE; INSERT INTO t VALUES (" + number + ", " + number + ", zeroblob(" +
                    std::to_string(dice.below(6000)) + ")); UPDATE t SET last = " + number + ";";
  if (dice.chance(0.3)) sql += "DELETE FROM t WHERE n < " + number + " - 3;";
  return sql + "COMMIT";
}

struct Loss {
  bool damaged = false;
  std::uint64_t acknowledged = 0;
  std::uint64_t begun = 0;
  std::uint64_t found = 0;
  [[nodiscard]] bool lost() const noexcept { return damaged || found < acknowledged; }
  [[nodiscard]] bool made_up() const noexcept { return found > begun; }
};

/// Some transactions, the power gone in the middle of one, and what is there afterwards.
Loss lose_power(std::uint64_t seed, const char* setup) {
  Dice dice(seed);
  CrashDisk disk(seed);
  Loss loss;
  {
    CrashMachine machine(disk, true);
    Base base(machine, setup);
    if (base.run("CREATE TABLE t (n INTEGER PRIMARY KEY, last, body)") != SQLITE_OK) loss.damaged = true;
    const std::uint64_t count = dice.between(1, 40);
    for (std::uint64_t n = 1; n < count; ++n) {
      if (base.run(transaction(n, dice)) == SQLITE_OK) loss.acknowledged = n;
      if (dice.chance(0.05)) base.run("PRAGMA wal_checkpoint(TRUNCATE)");
    }
    loss.begun = count;
    disk.begin_recording();
    EXPECT_EQ(base.run(transaction(count, dice)), SQLITE_OK);
    const std::size_t cut = dice.below(disk.recorded() + 1);
    if (cut == disk.recorded()) loss.acknowledged = count;
    disk.power_loss_after(cut, dice.next());
  }
  CrashMachine machine(disk, true);
  Base base(machine, setup);
  if (base.ask("PRAGMA integrity_check") != "ok") loss.damaged = true;
  const std::string last = base.ask("SELECT max(last) FROM t");
  if (last != base.ask("SELECT min(last) FROM t")) loss.damaged = true;
  // Without its table it has none of them.
  loss.found = last.starts_with("error") ? 0 : std::strtoull(last.c_str(), nullptr, 10);
  return loss;
}

TEST(CrashDisk, KeepsEveryCommittedTransactionOfASyncedLogThroughAThousandLosses) {
  std::uint64_t unfinished_survived = 0;
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    const Loss loss = lose_power(seed, kLog);
    ASSERT_FALSE(loss.lost()) << "seed " << seed << ": " << loss.found << " of " << loss.acknowledged;
    ASSERT_FALSE(loss.made_up()) << "seed " << seed;
    if (loss.found > loss.acknowledged) ++unfinished_survived;
  }
  // One that was not acknowledged may be there all the same; if none ever is, nothing unsynced is ever kept.
  EXPECT_GT(unfinished_survived, 0U);
}

TEST(CrashDisk, KeepsWhatARollbackJournalPromisesWhenTheFolderIsSyncedAsWell) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const Loss loss = lose_power(seed, kCareful);
    ASSERT_FALSE(loss.lost()) << "seed " << seed << ": " << loss.found << " of " << loss.acknowledged;
    ASSERT_FALSE(loss.made_up()) << "seed " << seed;
  }
}

TEST(CrashDisk, ShowsTheLossesOfABaseThatIsNeverSynced) {
  std::uint64_t lost = 0;
  std::uint64_t damaged = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const Loss loss = lose_power(seed, kHasty);
    lost += loss.lost();
    damaged += loss.damaged;
  }
  EXPECT_GT(lost, 20U);
  EXPECT_GT(damaged, 0U);
}

TEST(CrashDisk, ShowsThatADeletedJournalMayBeBackWhenTheFolderWasNotSynced) {
  std::uint64_t rolled_back = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const Loss loss = lose_power(seed, kJournal);
    EXPECT_FALSE(loss.damaged) << "seed " << seed;
    rolled_back += loss.found < loss.acknowledged;
  }
  EXPECT_GT(rolled_back, 0U);
}

TEST(CrashDisk, LosesTheSameForTheSameSeed) {
  const auto content = [](std::uint64_t seed) {
    CrashDisk disk(1);
    CrashMachine machine(disk, true);
    {
      // Logs and journals are salted by chance; without them the bytes are the same each time.
      Base base(machine, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
      base.run("CREATE TABLE t (n); INSERT INTO t VALUES (zeroblob(50000)); INSERT INTO t VALUES (2)");
      disk.power_loss(seed);
    }
    return disk.content("base.db").value_or("");
  };
  bool differs = false;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_TRUE(content(seed) == content(seed)) << seed;
    differs = differs || content(seed) != content(seed + 1);
  }
  EXPECT_TRUE(differs);
}

TEST(CrashDisk, KeepsOnlyWhatWasThereWhenThePowerGoesBeforeTheFirstWrite) {
  CrashDisk disk(3);
  {
    CrashMachine machine(disk, true);
    Base base(machine, kLog);
    base.run("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    disk.begin_recording();
    base.run("INSERT INTO t VALUES (2)");
    EXPECT_GT(disk.recorded(), 1U);
    disk.power_loss_after(0, 5);
    EXPECT_NE(base.run("INSERT INTO t VALUES (3)"), SQLITE_OK) << "a dead machine writes";
  }
  CrashMachine machine(disk, true);
  EXPECT_EQ(Base(machine, kLog).ask("SELECT max(n) FROM t"), "1");
}

TEST(CrashDisk, BringsNothingBackThatAFailedSyncHasLost) {
  CrashDisk disk(4);
  CrashMachine other(disk, false);
  {
    CrashMachine machine(disk, true);
    Base base(machine, kLog);
    Base undisturbed(other, kLog);
    base.run("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    disk.plant({.bad_write = 0, .bad_sync = 1.0});
    EXPECT_EQ(base.run("INSERT INTO t VALUES (2)"), SQLITE_IOERR_FSYNC);
    EXPECT_TRUE(machine.has_failed());
    EXPECT_EQ(undisturbed.ask("SELECT max(n) FROM t"), "1") << "it was not committed";
    EXPECT_EQ(undisturbed.run("CREATE TABLE u (n); INSERT INTO u VALUES (7)"), SQLITE_OK);
    EXPECT_EQ(disk.figures().bad_syncs, 1U);
    disk.power_loss(6);
  }
  CrashMachine machine(disk, true);
  Base base(machine, kLog);
  EXPECT_EQ(base.ask("SELECT max(n) FROM t"), "1");
  EXPECT_EQ(base.ask("SELECT max(n) FROM u"), "7");
  EXPECT_EQ(base.ask("PRAGMA integrity_check"), "ok");
}

TEST(CrashDisk, StopsATornWriteFromBecomingATransaction) {
  CrashDisk disk(5);
  CrashMachine machine(disk, true);
  Base base(machine, kLog);
  base.run("CREATE TABLE t (n)");
  disk.plant({.bad_write = 1.0, .bad_sync = 0});
  EXPECT_EQ(base.run("INSERT INTO t VALUES (1)") & 0xff, SQLITE_IOERR);
  EXPECT_TRUE(machine.has_failed());
  disk.plant({});
  EXPECT_EQ(base.ask("SELECT count(*) FROM t"), "0");
}

TEST(CrashDisk, RefusesToGrowWhenItIsFullAndGoesOnWhenThereIsRoom) {
  CrashDisk disk(7);
  CrashMachine machine(disk, true);
  Base base(machine, kLog);
  base.run("CREATE TABLE t (n, body); INSERT INTO t VALUES (1, '')");
  const std::uint64_t capacity = disk.used() + 5000;
  disk.set_capacity(capacity);
  EXPECT_EQ(base.run("INSERT INTO t VALUES (2, zeroblob(100000))"), SQLITE_FULL);
  EXPECT_LE(disk.used(), capacity);
  EXPECT_FALSE(machine.has_failed()) << "everybody knows what a full disk holds";
  EXPECT_EQ(base.ask("SELECT max(n) FROM t"), "1");
  disk.set_capacity(UINT64_MAX);
  EXPECT_EQ(base.run("INSERT INTO t VALUES (3, zeroblob(100000))"), SQLITE_OK);
  EXPECT_EQ(base.ask("PRAGMA integrity_check"), "ok");
}

TEST(CrashDisk, LetsOneWriterInAtATimeAndReadersBesideHim) {
  CrashDisk disk(8);
  CrashMachine one(disk, true);
  CrashMachine two(disk, true);
  Base a(one, kLog);
  a.run("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
  Base b(two, kLog);
  ASSERT_EQ(b.opened(), SQLITE_OK);
  ASSERT_EQ(b.run("BEGIN"), SQLITE_OK);
  EXPECT_EQ(b.ask("SELECT max(n) FROM t"), "1");
  ASSERT_EQ(a.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
  Base c(two, "");
  EXPECT_EQ(c.run("BEGIN IMMEDIATE"), SQLITE_BUSY);
  ASSERT_EQ(a.run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(b.ask("SELECT max(n) FROM t"), "1") << "its snapshot is older";
  EXPECT_EQ(b.run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(b.ask("SELECT max(n) FROM t"), "2");
  EXPECT_EQ(c.run("BEGIN IMMEDIATE; COMMIT"), SQLITE_OK);
}

TEST(CrashDisk, KeepsAReaderOfARollbackJournalOutWhileSomebodyCommits) {
  CrashDisk disk(9);
  CrashMachine machine(disk, true);
  Base a(machine, kJournal);
  a.run("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
  Base b(machine, kJournal);
  ASSERT_EQ(b.run("BEGIN; SELECT * FROM t"), SQLITE_OK);
  ASSERT_EQ(a.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
  EXPECT_EQ(a.run("COMMIT"), SQLITE_BUSY) << "a reader is in";
  Base c(machine, "");
  EXPECT_EQ(c.ask("SELECT max(n) FROM t"), "error " + std::to_string(SQLITE_BUSY))
      << "a writer waits to come in";
  EXPECT_EQ(b.run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(a.run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(c.ask("SELECT max(n) FROM t"), "2");
}

TEST(CrashDisk, FreesTheLocksOfAMachineThatIsKilledAndForgetsItsTransaction) {
  CrashDisk disk(10);
  CrashMachine one(disk, true);
  CrashMachine two(disk, true);
  Base a(one, kLog);
  a.run("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
  Base b(two, kLog);
  ASSERT_EQ(a.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
  ASSERT_EQ(b.run("BEGIN IMMEDIATE"), SQLITE_BUSY);
  one.kill();
  EXPECT_FALSE(one.alive());
  EXPECT_EQ(b.run("BEGIN IMMEDIATE; INSERT INTO t VALUES (3); COMMIT"), SQLITE_OK);
  EXPECT_NE(a.run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(b.ask("SELECT group_concat(n) FROM t"), "1,3");
}

TEST(CrashDisk, CountsTheTransactionsOfALog) {
  CrashDisk disk(11);
  CrashMachine machine(disk, true);
  Base base(machine, kLog);
  base.run("CREATE TABLE t (n)");
  const auto before = disk.wal_head("base.db");
  base.run("INSERT INTO t VALUES (1)");
  base.run("INSERT INTO t VALUES (2)");
  base.ask("SELECT * FROM t");
  const auto after = disk.wal_head("base.db");
  EXPECT_EQ(after.commits - before.commits, 2U);
  EXPECT_GT(after.frames, before.frames);
  EXPECT_EQ(after.salt, before.salt);
}

}  // namespace
}  // namespace towline::simulation
