// Both clocks. "Waiting" is never guessed: a thread that waits has given its mutex away, so whoever can lock
// that mutex after the thread said (under it) that it is about to wait knows that it waits.

#include <towline/clock.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "support/eventually.hpp"

namespace towline {
namespace {

using namespace std::chrono_literals;

// A thread that waits on the clock until a deadline has come or it was told to stop.
class Sleeper {
 public:
  Sleeper(spi::Clock& clock, MonotonicTime deadline)
      : thread_([this, &clock, deadline] { run(clock, deadline); }) {}
  ~Sleeper() {
    {
      const std::lock_guard hold(mutex_);
      told_ = true;
      changed_.notify_all();
    }
    join();
  }

  void await_waiting() {
    std::unique_lock lock(mutex_);
    started_.wait(lock, [this] { return begun_; });
  }
  void poke() {
    const std::lock_guard hold(mutex_);
    told_ = true;
    changed_.notify_all();
  }
  void await_returns(int count) {
    std::unique_lock lock(mutex_);
    started_.wait(lock, [&] { return returns_ >= count; });
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] int returns() {
    const std::lock_guard hold(mutex_);
    return returns_;
  }
  // After join.
  [[nodiscard]] MonotonicTime ended() const { return ended_; }

 private:
  void run(spi::Clock& clock, MonotonicTime deadline) {
    std::unique_lock lock(mutex_);
    begun_ = true;
    started_.notify_all();
    while (!told_ && clock.monotonic() < deadline) {
      clock.wait_until(lock, changed_, deadline);
      ++returns_;
      started_.notify_all();
    }
    ended_ = clock.monotonic();
  }

  std::mutex mutex_;
  std::condition_variable changed_, started_;
  bool begun_ = false, told_ = false;
  int returns_ = 0;
  MonotonicTime ended_{};
  std::thread thread_;
};

TEST(SystemClock, IsOneForAllAndTellsTheTimeOfTheMachine) {
  const auto clock = system_clock();
  EXPECT_EQ(clock, system_clock());
  const auto before = std::chrono::floor<Duration>(std::chrono::system_clock::now());
  const TimePoint now = clock->now();
  EXPECT_LE(before - 1s, now);
  EXPECT_LE(now, std::chrono::system_clock::now() + 1s);
}

TEST(SystemClock, MonotonicTimeNeverGoesBack) {
  const auto clock = system_clock();
  MonotonicTime last = clock->monotonic();
  EXPECT_GT(last, MonotonicTime{});
  for (int i = 0; i < 10000; ++i) {
    const MonotonicTime now = clock->monotonic();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(SystemClock, AWaitEndsOnceItsDeadlineHasCome) {
  const auto clock = system_clock();
  const MonotonicTime deadline = clock->monotonic() + 5ms;
  Sleeper sleeper(*clock, deadline);
  sleeper.join();
  EXPECT_GE(sleeper.ended(), deadline);
}

TEST(SystemClock, AWaitForADeadlineThatHasPassedReturnsAtOnce) {
  const auto clock = system_clock();
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_lock lock(mutex);
  clock->wait_until(lock, changed, clock->monotonic());
  clock->wait_until(lock, changed, MonotonicTime::min());
  EXPECT_TRUE(lock.owns_lock());
}

TEST(SystemClock, AWaitForEverEndsWhenNotifiedAndDoesNotSpinUntilThen) {
  for (const MonotonicTime deadline : {MonotonicTime::max(), MonotonicTime(Duration::max() - 1us)}) {
    Sleeper sleeper(*system_clock(), deadline);
    sleeper.await_waiting();
    EXPECT_TRUE(support::holds_for([&] { return sleeper.returns() <= 3; }, 10ms));
    sleeper.poke();
    sleeper.join();
  }
}

TEST(VirtualClock, BeginsWith2026AndStandsStill) {
  VirtualClock clock;
  EXPECT_EQ(to_us(clock.now()), 1'767'225'600'000'000);
  EXPECT_EQ(clock.monotonic(), MonotonicTime(1h));
  EXPECT_EQ(clock.now(), clock.now());
}

TEST(VirtualClock, AdvanceMovesBothTimesForwardAndNeverBack) {
  VirtualClock clock;
  const TimePoint wall = clock.now();
  clock.advance(30s);
  clock.advance(-10s);
  clock.advance(0s);
  EXPECT_EQ(clock.now(), wall + 30s);
  EXPECT_EQ(clock.monotonic(), MonotonicTime(1h + 30s));
}

TEST(VirtualClock, StepWallMovesTheWallClockAloneEitherWay) {
  VirtualClock clock;
  const TimePoint wall = clock.now();
  clock.step_wall(-24h);
  EXPECT_EQ(clock.now(), wall - 24h);
  clock.step_wall(48h);
  EXPECT_EQ(clock.now(), wall + 24h);
  EXPECT_EQ(clock.monotonic(), MonotonicTime(1h));
}

TEST(VirtualClock, StopsAtTheEndOfTime) {
  VirtualClock clock;
  clock.advance(Duration::max());
  EXPECT_EQ(clock.monotonic(), MonotonicTime::max());
  EXPECT_EQ(clock.now(), TimePoint::max());
  clock.step_wall(Duration::min());
  clock.step_wall(Duration::min());
  EXPECT_EQ(clock.now(), TimePoint::min());
}

TEST(VirtualClock, AdvanceEndsTheWaitsWhoseTimeHasComeAndNoOther) {
  VirtualClock clock;
  Sleeper early(clock, clock.monotonic() + 10s);
  Sleeper late(clock, clock.monotonic() + 20s);
  early.await_waiting();
  late.await_waiting();
  clock.advance(10s - 1us);
  EXPECT_TRUE(support::holds_for([&] { return early.returns() == 0 && late.returns() == 0; }, 20ms));
  clock.advance(1us);
  early.join();
  EXPECT_EQ(early.ended(), MonotonicTime(1h + 10s));
  EXPECT_EQ(early.returns(), 1);
  clock.advance(10s);
  late.join();
  EXPECT_EQ(late.ended(), MonotonicTime(1h + 20s));
  EXPECT_EQ(late.returns(), 1);
}

TEST(VirtualClock, AWaitForATimeThatHasComeReturnsAtOnce) {
  VirtualClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_lock lock(mutex);
  clock.wait_until(lock, changed, clock.monotonic());
  clock.wait_until(lock, changed, MonotonicTime::min());
  EXPECT_TRUE(lock.owns_lock());
}

TEST(VirtualClock, SomebodyElseMayNotifyAWaiter) {
  VirtualClock clock;
  Sleeper sleeper(clock, MonotonicTime::max());
  sleeper.await_waiting();
  sleeper.poke();
  sleeper.join();
  EXPECT_EQ(sleeper.ended(), MonotonicTime(1h));
}

TEST(VirtualClock, AStepOfTheWallClockWakesEverybody) {
  VirtualClock clock;
  Sleeper one(clock, clock.monotonic() + 10s);
  Sleeper two(clock, MonotonicTime::max());
  one.await_waiting();
  two.await_waiting();
  clock.step_wall(-1s);
  one.await_returns(1);
  two.await_returns(1);
}

// Each round a waiter says that it is about to look at the time, and the clock moves a random few
// instructions later. One wake-up that falls between the look and the wait hangs the test.
TEST(VirtualClock, NoWakeUpIsLostBetweenTheLookAtTheTimeAndTheWait) {
  const int rounds = support::scaled(20'000);
  VirtualClock clock;
  const MonotonicTime start = clock.monotonic();
  std::atomic<int> arrived = 0;
  std::thread waiter([&] {
    std::mutex own;
    std::condition_variable changed;
    for (int round = 1; round <= rounds; ++round) {
      std::unique_lock lock(own);
      const MonotonicTime deadline = start + round * 1ms;
      arrived = round;
      while (clock.monotonic() < deadline) clock.wait_until(lock, changed, deadline);
    }
  });
  std::minstd_rand random(1);
  for (int round = 1; round <= rounds; ++round) {
    while (arrived < round) std::this_thread::yield();
    for (auto spins = random() % 400; spins > 0; --spins) std::atomic_signal_fence(std::memory_order_seq_cst);
    clock.advance(1ms);
  }
  waiter.join();
  EXPECT_EQ(clock.monotonic(), start + rounds * 1ms);
}

// What closes the gap between a waiter's look at the time and its wait: it has its mutex all the while.
TEST(VirtualClock, AdvanceNotifiesAWaiterOnlyWithTheWaitersOwnMutexInHand) {
  VirtualClock clock;
  const MonotonicTime deadline = clock.monotonic() + 1ms;
  std::mutex own;
  std::condition_variable changed;
  bool waiting = false;
  std::thread waiter([&] {
    std::unique_lock lock(own);
    waiting = true;
    changed.notify_all();
    while (clock.monotonic() < deadline) clock.wait_until(lock, changed, deadline);
  });
  std::unique_lock lock(own);
  changed.wait(lock, [&] { return waiting; });
  std::atomic<bool> advanced = false;
  std::thread mover([&] {
    clock.advance(1ms);
    advanced = true;
  });
  EXPECT_TRUE(support::holds_for([&] { return !advanced; }, 20ms));
  lock.unlock();
  mover.join();
  waiter.join();
}

TEST(VirtualClock, OneAdvanceWakesAllWaitersOfOneMutexAndOfManyMutexes) {
  constexpr int kRounds = 500;
  VirtualClock clock;
  const MonotonicTime start = clock.monotonic();
  std::mutex shared;
  std::array<std::atomic<int>, 4> arrived{};
  std::vector<std::thread> threads;
  for (std::size_t w = 0; w < arrived.size(); ++w) {
    threads.emplace_back([&, w] {
      std::mutex own;
      std::condition_variable changed;
      for (int round = 1; round <= kRounds; ++round) {
        std::unique_lock lock(w % 2 == 0 ? own : shared);
        arrived[w] = round;
        arrived[w].notify_one();
        const MonotonicTime deadline = start + round * 1ms;
        while (clock.monotonic() < deadline) clock.wait_until(lock, changed, deadline);
      }
    });
  }
  for (int round = 1; round <= kRounds; ++round) {
    for (auto& at : arrived) {
      for (int seen = at; seen < round; seen = at) at.wait(seen);
    }
    clock.advance(1ms);
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(clock.monotonic(), start + kRounds * 1ms);
}

// The mutex and the condition variable of a wait may go as soon as it has returned, whoever woke it.
TEST(VirtualClock, NeverTouchesAWaiterThatHasLeft) {
  constexpr int kRounds = 2000;
  struct Seat {
    std::mutex mutex;
    std::condition_variable changed;
    bool poked = false;
  };
  VirtualClock clock;
  std::atomic<bool> done = false;
  std::mutex seats_mutex;
  Seat* seat_taken = nullptr;
  std::thread poker([&] {
    while (!done) {
      const std::lock_guard hold(seats_mutex);
      if (seat_taken == nullptr) continue;
      const std::lock_guard own(seat_taken->mutex);
      seat_taken->poked = true;
      seat_taken->changed.notify_all();
    }
  });
  std::thread mover([&] {
    while (!done) clock.advance(1ms), clock.step_wall(1ms);
  });
  for (int round = 0; round < kRounds; ++round) {
    auto seat = std::make_unique<Seat>();
    {
      const std::lock_guard hold(seats_mutex);
      seat_taken = seat.get();
    }
    {
      std::unique_lock lock(seat->mutex);
      const MonotonicTime deadline = clock.monotonic() + 2ms;
      while (!seat->poked && clock.monotonic() < deadline) clock.wait_until(lock, seat->changed, deadline);
    }
    const std::lock_guard hold(seats_mutex);
    seat_taken = nullptr;
  }
  done = true;
  poker.join();
  mover.join();
}

}  // namespace
}  // namespace towline
