// Two copies of SQLite in one process: what the locks of the other one would ask for is asked for here by
// hand, with the locks that belong to a process.

#include "drivers/sqlite/file_locks.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/resources.hpp"
#include "unit/drivers/sqlite/world.hpp"

namespace towline::drivers::sqlite::testing {
namespace {

constexpr off_t kWriteLock = 120;              // of the index of the log
constexpr off_t kSharedLock = 0x40000000 + 2;  // of the file, any byte of 510

bool lock(int file, short type, off_t at) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = at;
  wanted.l_len = 1;
  return ::fcntl(file, F_SETLK, &wanted) == 0;
}

/// Whether another process would meet a lock of this one there.
bool is_locked(const std::string& path, off_t at) {
  const pid_t child = ::fork();
  if (child == 0) {
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    ::_exit(file >= 0 && lock(file, F_WRLCK, at) ? 0 : 1);
  }
  int state = 0;
  EXPECT_EQ(::waitpid(child, &state, 0), child);
  return WEXITSTATUS(state) != 0;
}

TEST(SqliteFileLocks, AnotherCopyOfSqliteInThisProcessMeetsTheLockOfAWriter) {
  World world;
  const int index = ::open((world.file() + "-shm").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(index, 0);
  EXPECT_TRUE(world.store()
                  .transact(
                      [&](spi::SqlSession&) -> Result<void> {
                        EXPECT_FALSE(lock(index, F_WRLCK, kWriteLock)) << "somebody writes";
                        return {};
                      },
                      {}, nullptr)
                  .ok());
  EXPECT_TRUE(lock(index, F_WRLCK, kWriteLock));
  const auto refused =
      world.store().transact([](spi::SqlSession&) -> Result<void> { return {}; }, {}, nullptr);
  EXPECT_EQ(code_of(refused), ErrorCode::kTimeout) << "and the other way round";
  EXPECT_TRUE(lock(index, F_UNLCK, kWriteLock));
  world.publish(1, 1);
  ::close(index);
}

TEST(SqliteFileLocks, OpeningAndClosingAStoreTakesNoLockFromAnotherCopy) {
  World world;
  const int file = ::open(world.file().c_str(), O_RDWR | O_CLOEXEC);
  const int index = ::open((world.file() + "-shm").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_TRUE(lock(file, F_RDLCK, kSharedLock));
  ASSERT_TRUE(lock(index, F_RDLCK, kWriteLock + 7));
  for (int i = 0; i < 3; ++i) {
    world.shut();
    EXPECT_TRUE(is_locked(world.file(), kSharedLock)) << "round " << i;
    EXPECT_TRUE(is_locked(world.file() + "-shm", kWriteLock + 7)) << "round " << i;
    world.open();
    EXPECT_TRUE(is_locked(world.file(), kSharedLock)) << "round " << i;
  }
  world.publish(1, 1);
  ::close(file);
  ::close(index);
}

TEST(SqliteFileLocks, WhatStaysOpenForTheSakeOfOthersIsUsedAgainAndClosedWhenTheyAreGone) {
  World world;
  world.shut();
  const std::size_t before = support::fd_count();
  const int file = ::open(world.file().c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_TRUE(lock(file, F_RDLCK, kSharedLock));
  world.open();
  world.shut();
  const std::size_t kept = support::fd_count();
  EXPECT_GT(kept, before + 1);
  for (int i = 0; i < 10; ++i) {
    world.open();
    world.shut();
  }
  EXPECT_EQ(support::fd_count(), kept);
  ::close(file);
  world.open();
  world.shut();
  EXPECT_EQ(support::fd_count(), before);
}

TEST(SqliteFileLocks, TheLocksOfAProcessThatDiedAreGoneAlsoWhenItsChildLives) {
  const support::TempDir folder;
  int alive[2], there[2];
  ASSERT_EQ(::pipe2(alive, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(there, O_CLOEXEC), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    Connection sql;
    const bool opened = sql.open(folder.file("a.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    if (!opened || !sql.run("PRAGMA journal_mode = WAL; CREATE TABLE t(x); BEGIN IMMEDIATE")) ::_exit(1);
    if (::fork() == 0) {
      ::close(alive[1]);
      char byte = 0;
      if (::write(there[1], &byte, 1) != 1) ::_exit(1);
      ::_exit(static_cast<int>(::read(alive[0], &byte, 1)));  // until the test lets it go
    }
    ::_exit(0);  // in the middle of a transaction
  }
  int state = -1;
  ASSERT_EQ(::waitpid(parent, &state, 0), parent);
  ASSERT_EQ(state, 0);
  // What a child does with the locks it was born with it does first of all, but not before it is born.
  char byte = 0;
  ASSERT_EQ(::read(there[0], &byte, 1), 1);
  ::close(there[0]);
  ::close(there[1]);
  Connection sql;
  ASSERT_TRUE(sql.open(folder.file("a.db"), SQLITE_OPEN_READWRITE, nullptr));
  EXPECT_TRUE(sql.run("BEGIN IMMEDIATE; INSERT INTO t VALUES(1); COMMIT")) << sql.failure().message;
  ::close(alive[1]);
  ::close(alive[0]);
}

}  // namespace
}  // namespace towline::drivers::sqlite::testing
