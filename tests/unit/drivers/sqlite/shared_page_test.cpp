// The page that processes share: a ring wakes whoever wants it, the turn is one process's at a time, and a
// process that dies leaves neither a turn nor company behind. Two pages of one file stand for two
// processes, a forked child for one that dies.

#include "drivers/sqlite/shared_page.hpp"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/eventually.hpp"
#include "support/temp_dir.hpp"

namespace towline::drivers::sqlite {
namespace {

using namespace std::chrono_literals;
using support::eventually;
constexpr std::int64_t kLongUs = 20'000'000;

class SqliteSharedPage : public ::testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<SharedPage> open() const {
    return SharedPage::open(folder.file("page")).value();
  }
  support::TempDir folder;
};

TEST_F(SqliteSharedPage, AFileThatCannotBeMadeIsAnError) {
  const auto refused = SharedPage::open(folder.file("no/such/folder/page"));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kIoError);
}

TEST_F(SqliteSharedPage, AnswersWhenNobodyRings) {
  const auto page = open();
  page->want_ring();
  EXPECT_FALSE(page->listen(1'000));
}

TEST_F(SqliteSharedPage, AListenerCanBeToldToStop) {
  const auto page = open();
  std::atomic<bool> returned{false};
  std::thread listener([&] {
    (void)page->listen(kLongUs);
    returned = true;
  });
  EXPECT_TRUE(eventually([&] {
    page->stop_listening();
    return returned.load();
  }));
  listener.join();
}

TEST_F(SqliteSharedPage, TheTurnOfADeadProcessIsFree) {
  // The child takes the turn, says so, and is killed with it.
  int says[2];
  ASSERT_EQ(::pipe(says), 0);
  const std::string path = folder.file("page");
  const pid_t child = ::fork();
  if (child == 0) {
    auto page = SharedPage::open(path);
    const char answer = page.ok() && (*page)->try_turn() ? 'y' : 'n';
    (void)!::write(says[1], &answer, 1);
    for (;;)
      ::pause();
  }
  char answer = 0;
  ASSERT_EQ(::read(says[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  const auto page = open();
  EXPECT_FALSE(page->try_turn()) << "it is the other's";
  ::kill(child, SIGKILL);
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_TRUE(eventually([&] { return page->try_turn(); }));
  page->end_turn();
  ::close(says[0]);
  ::close(says[1]);
}

TEST_F(SqliteSharedPage, AChildThatRingsWakesItsNeighbourAndIsSweptWhenItIsDead) {
  const auto page = open();
  int go[2], says[2];
  ASSERT_EQ(::pipe(go), 0);
  ASSERT_EQ(::pipe(says), 0);
  const std::string path = folder.file("page");
  const pid_t child = ::fork();
  if (child == 0) {
    auto mine = SharedPage::open(path);
    char byte = mine.ok() ? 'y' : 'n';
    (void)!::write(says[1], &byte, 1);
    while (::read(go[0], &byte, 1) == 1)
      (*mine)->ring();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(says[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  EXPECT_TRUE(page->has_company());
  page->want_ring();
  ASSERT_EQ(::write(go[1], "r", 1), 1);
  EXPECT_TRUE(page->listen(kLongUs)) << "the ring came from another process";
  ::kill(child, SIGKILL);
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_TRUE(eventually([&] {
    page->sweep();
    return !page->has_company();
  }));
  for (const int file : {go[0], go[1], says[0], says[1]})
    ::close(file);
}

}  // namespace
}  // namespace towline::drivers::sqlite
