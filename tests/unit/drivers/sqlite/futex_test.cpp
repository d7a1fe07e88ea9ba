// Waiting for a word: not at all when it has changed, no longer than asked, and until it is woken, also from
// another process.

#include "drivers/sqlite/futex.hpp"

#include <climits>
#include <new>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/eventually.hpp"

namespace towline::drivers::sqlite {
namespace {

using namespace std::chrono_literals;

TEST(SqliteFutex, AWordThatHasChangedIsNotWaitedFor) {
  Word word{1};
  futex_wait(word, 0, -1, Reach::kThreads);
  futex_wait(word, 0, -1, Reach::kProcesses);
}

TEST(SqliteFutex, AWaitThatNobodyEndsEndsByItself) {
  Word word{0};
  const support::Stopwatch watch;
  // It may return for no reason, but not each time.
  for (int i = 0; i < 3; ++i)
    futex_wait(word, 0, 10'000, Reach::kThreads);
  EXPECT_GE(watch.elapsed(), 10ms);
}

TEST(SqliteFutex, AWakeReachesEveryThreadThatWaits) {
  Word word{0};
  std::atomic<int> waiting{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ++waiting;
      while (word.load() == 0)
        futex_wait(word, 0, -1, Reach::kThreads);
    });
  }
  ASSERT_TRUE(support::eventually([&] { return waiting == 4; }));
  word = 1;
  futex_wake(word, INT_MAX, Reach::kThreads);
  for (std::thread& thread : threads)
    thread.join();
}

TEST(SqliteFutex, AWakeReachesAnotherProcess) {
  void* shared = ::mmap(nullptr, sizeof(Word) * 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* words = new (shared) Word[2]{};
  Word& waits = words[0];
  Word& go = words[1];
  const pid_t child = ::fork();
  if (child == 0) {
    waits = 1;
    while (go.load() == 0)
      futex_wait(go, 0, -1, Reach::kProcesses);
    ::_exit(0);
  }
  EXPECT_TRUE(support::eventually([&] { return waits == 1; }));
  go = 1;
  futex_wake(go, INT_MAX, Reach::kProcesses);
  int state = -1;
  EXPECT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
  ::munmap(shared, sizeof(Word) * 2);
}

}  // namespace
}  // namespace towline::drivers::sqlite
