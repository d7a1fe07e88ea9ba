// Threads for work that blocks: as many as are needed up to the bound, and none is left behind.

#include "port/callers.hpp"

#include <atomic>
#include <latch>

#include <gtest/gtest.h>

namespace towline::port {
namespace {

TEST(Callers, WorkThatBlocksDoesNotKeepOtherWorkWaiting) {
  Callers callers(8, 100);
  std::latch all(8);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(callers.run([&] { all.arrive_and_wait(); }).ok());
  callers.shut();  // returns only because all eight ran at once
}

TEST(Callers, BeyondTheBoundWorkWaitsAndThenIsRefused) {
  Callers callers(1, 2);
  std::latch started(1), may_end(1);
  ASSERT_TRUE(callers
                  .run([&] {
                    started.count_down();
                    may_end.wait();
                  })
                  .ok());
  started.wait();
  std::atomic<int> ran{0};
  ASSERT_TRUE(callers.run([&] { ++ran; }).ok());
  ASSERT_TRUE(callers.run([&] { ++ran; }).ok());
  EXPECT_EQ(callers.run([&] { ++ran; }).error().code, ErrorCode::kOverloaded);
  may_end.count_down();
  callers.shut();
  EXPECT_EQ(ran, 2) << "what waits is run before the end";
  EXPECT_EQ(callers.run([&] { ++ran; }).error().code, ErrorCode::kClosed);
}

}  // namespace
}  // namespace towline::port
