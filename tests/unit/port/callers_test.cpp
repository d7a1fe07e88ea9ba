// Threads for work that blocks: as many as are needed up to the bound, and none is left behind.

#include "port/callers.hpp"

#include <atomic>
#include <latch>
#include <mutex>
#include <semaphore>
#include <set>
#include <thread>

#include <gtest/gtest.h>

namespace towline::port {
namespace {

using Turn = Callers::Turn;

TEST(Callers, WorkThatBlocksDoesNotKeepOtherWorkWaiting) {
  Callers callers(8, 100);
  std::latch all(8);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(callers.run([&](Turn&) { all.arrive_and_wait(); }).ok());
  callers.shut();  // returns only because all eight ran at once
}

TEST(Callers, BeyondTheBoundWorkWaitsAndThenIsRefused) {
  Callers callers(1, 2);
  std::latch started(1), may_end(1);
  ASSERT_TRUE(callers
                  .run([&](Turn&) {
                    started.count_down();
                    may_end.wait();
                  })
                  .ok());
  started.wait();
  std::atomic<int> ran{0};
  ASSERT_TRUE(callers.run([&](Turn&) { ++ran; }).ok());
  ASSERT_TRUE(callers.run([&](Turn&) { ++ran; }).ok());
  EXPECT_EQ(callers.run([&](Turn&) { ++ran; }).error().code, ErrorCode::kOverloaded);
  may_end.count_down();
  callers.shut();
  EXPECT_EQ(ran, 2) << "what waits is run before the end";
  EXPECT_EQ(callers.run([&](Turn&) { ++ran; }).error().code, ErrorCode::kClosed);
}

TEST(Callers, WhoAsksOneThingAfterTheOtherNeedsOneThread) {
  Callers callers(8, 100);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::binary_semaphore told(0), asked_again(0);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(callers
                    .run([&, i](Turn& turn) {
                      {
                        const std::lock_guard lock(mutex);
                        threads.insert(std::this_thread::get_id());
                      }
                      turn.over();
                      told.release();
                      // The slowest way back: the next is asked for before the thread waits again.
                      if (i < 99) asked_again.acquire();
                    })
                    .ok());
    if (i > 0) asked_again.release();
    told.acquire();
  }
  callers.shut();
  EXPECT_EQ(threads.size(), 1U);
}

TEST(Callers, AThreadThatIsFreeOnlyByWordIsNotWaitedFor) {
  Callers callers(8, 100);
  std::binary_semaphore told(0);
  std::latch both(2);
  ASSERT_TRUE(callers
                  .run([&](Turn& turn) {
                    turn.over();
                    told.release();
                  })
                  .ok());
  told.acquire();
  for (int i = 0; i < 2; ++i)
    ASSERT_TRUE(callers.run([&](Turn&) { both.arrive_and_wait(); }).ok());
  callers.shut();  // returns only because the second found a thread of its own
}

}  // namespace
}  // namespace towline::port
