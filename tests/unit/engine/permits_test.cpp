// The gate and the permits over it. Time is virtual, and the clock tells which threads wait: a thread enters
// wait_until with the gate's mutex held and its place in the queue taken, so from then on its turn is
// settled, whatever the scheduler does.

#include "engine/permits.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <towline/clock.hpp>
#include <towline/permits.hpp>

namespace towline {
namespace {

using namespace std::chrono_literals;
using engine::PermitGate;

// Never used twice, unlike the ids of threads.
thread_local int waiter_number = 0;
std::atomic<int> waiter_number_last = 0;

class WatchedClock final : public spi::Clock {
 public:
  TimePoint now() noexcept override { return clock_.now(); }
  MonotonicTime monotonic() noexcept override { return clock_.monotonic(); }
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    {
      const std::lock_guard hold(mutex_);
      waited_.insert(waiter_number);
      entered_.notify_all();
    }
    clock_.wait_until(lock, changed, deadline);
  }
  void advance(Duration by) { clock_.advance(by); }
  void await_wait_of(int number) {
    std::unique_lock lock(mutex_);
    entered_.wait(lock, [&] { return waited_.contains(number); });
  }

 private:
  VirtualClock clock_;
  std::mutex mutex_;
  std::condition_variable entered_;
  std::set<int> waited_;
};

struct Gate {
  explicit Gate(std::uint64_t limit, std::uint64_t waiting_max = 10000)
      : clock(std::make_shared<WatchedClock>()), gate(limit, waiting_max, clock) {}
  std::shared_ptr<WatchedClock> clock;
  PermitGate gate;
};

// A thread in the queue of a gate. It exists once it waits; `then` runs in it when it was granted.
class Waiter {
 public:
  Waiter(Gate& at, std::uint64_t weight, std::optional<Duration> timeout = std::nullopt,
         std::function<void()> then = {})
      : thread_([this, &at, weight, timeout, then = std::move(then)] {
          waiter_number = number_;
          result_ = at.gate.acquire(timeout, stop_.get_token(), weight);
          if (result_ && then) then();
        }) {
    at.clock->await_wait_of(number_);
  }
  ~Waiter() {
    if (!thread_.joinable()) return;
    stop_.request_stop();
    thread_.join();
  }
  void stop() { stop_.request_stop(); }
  Result<void> result() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  const int number_ = ++waiter_number_last;
  std::stop_source stop_;
  Result<void> result_;
  std::thread thread_;
};

ErrorCode code_of(const Result<void>& result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? ErrorCode::kInternal : result.error().code;
}

TEST(Permits, TheLimitIsReachedAndNeverExceeded) {
  constexpr int kLimit = 7;
  auto permits = Permits::create(kLimit).value();
  std::atomic<int> jobs = 0, running = 0, running_max = 0;
  std::latch all_seven(kLimit);
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      for (int job = jobs++; job < 1000; job = jobs++) {
        const Permit permit = permits.acquire().value();
        const int now = ++running;
        for (int seen = running_max; seen < now && !running_max.compare_exchange_weak(seen, now);) {
        }
        // The first jobs hold their permits until seven run at once.
        if (job < kLimit) all_seven.arrive_and_wait();
        --running;
      }
    });
  }
  for (auto& thread : threads)
    thread.join();
  EXPECT_EQ(running_max, kLimit);
  EXPECT_EQ(permits.statistics().in_use_max, 7U);
  EXPECT_EQ(permits.statistics().granted, 1000U);
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

TEST(Permits, AThousandWaitersOfWhomHalfGiveUpAreServedInTheOrderInWhichTheyCame) {
  constexpr std::size_t kCount = 1000;
  Gate at(3);
  ASSERT_TRUE(at.gate.acquire(std::nullopt, {}, 3).ok());
  std::vector<std::size_t> order;  // one runs at a time, handed on through the gate
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto timeout = i % 4 == 3 ? std::optional<Duration>(5s) : std::nullopt;
    waiters.push_back(std::make_unique<Waiter>(at, 3, timeout, [&, i] {
      order.push_back(i);
      at.gate.release(3);
    }));
  }
  EXPECT_EQ(at.gate.statistics().waiting, kCount);
  for (std::size_t i = 1; i < kCount; i += 4)
    waiters[i]->stop();
  at.clock->advance(5s);
  for (std::size_t i = 1; i < kCount; i += 2) {
    EXPECT_EQ(code_of(waiters[i]->result()), i % 4 == 1 ? ErrorCode::kCancelled : ErrorCode::kTimeout);
  }
  EXPECT_EQ(at.gate.statistics().waiting, kCount / 2);
  EXPECT_EQ(at.gate.statistics().in_use, 3U);
  at.gate.release(3);
  for (std::size_t i = 0; i < kCount; i += 2)
    EXPECT_TRUE(waiters[i]->result().ok());
  std::vector<std::size_t> expected;
  for (std::size_t i = 0; i < kCount; i += 2)
    expected.push_back(i);
  EXPECT_EQ(order, expected);
  const PermitStatistics after = at.gate.statistics();
  EXPECT_EQ(after.in_use, 0U);
  EXPECT_EQ(after.waiting, 0U);
  EXPECT_EQ(after.in_use_max, 3U);
  EXPECT_EQ(after.granted, 1 + kCount / 2);
  EXPECT_EQ(after.refused, kCount / 2);
}

TEST(Permits, NothingLeaksWhenGivingUpRacesWithBeingGranted) {
  constexpr std::uint64_t kLimit = 3;
  auto permits = Permits::create(kLimit, 6).value();
  std::atomic<std::uint64_t> running = 0, asked = 0;
  std::atomic<bool> exceeded = false;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 400; ++i) {
        const std::uint64_t weight = 1 + random() % kLimit;
        std::stop_source stop;
        std::thread stopper;
        if (i % 8 == 0) stopper = std::thread([&stop] { stop.request_stop(); });
        const auto timeout = i % 2 == 0 ? std::nullopt : std::optional<Duration>(Duration(random() % 60));
        ++asked;
        if (auto permit = permits.acquire(timeout, stop.get_token(), weight)) {
          if (running.fetch_add(weight) + weight > kLimit) exceeded = true;
          std::this_thread::yield();
          running -= weight;
        }
        if (stopper.joinable()) stopper.join();
      }
    });
  }
  for (auto& thread : threads)
    thread.join();
  EXPECT_FALSE(exceeded);
  const PermitStatistics after = permits.statistics();
  EXPECT_EQ(after.in_use, 0U);
  EXPECT_EQ(after.waiting, 0U);
  EXPECT_LE(after.in_use_max, kLimit);
  EXPECT_EQ(after.granted + after.refused, asked);
  EXPECT_TRUE(permits.try_acquire(kLimit).has_value());
}

TEST(PermitGate, ANewcomerCannotSlipInBetweenReleaseAndWakeUp) {
  Gate at(1);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter waiter(at, 1);
  EXPECT_FALSE(at.gate.try_acquire(1));
  // Whether the waiter has woken up by the next line does not matter: the permit is its own already.
  at.gate.release(1);
  EXPECT_FALSE(at.gate.try_acquire(1));
  EXPECT_EQ(at.gate.acquire(0s, {}, 1).error().code, ErrorCode::kTimeout);
  EXPECT_EQ(at.gate.statistics().in_use, 1U);
  EXPECT_EQ(at.gate.statistics().waiting, 0U);
  EXPECT_TRUE(waiter.result().ok());
  at.gate.release(1);
  EXPECT_EQ(at.gate.statistics().in_use_max, 1U);
}

TEST(PermitGate, AGrantWinsOverATimeoutAndAStopThatComeBeforeTheWaiterLooks) {
  Gate at(1);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter waiter(at, 1, 5s);
  at.gate.release(1);
  at.clock->advance(5s);
  waiter.stop();
  EXPECT_TRUE(waiter.result().ok());
  EXPECT_EQ(at.gate.statistics().in_use, 1U);
  at.gate.release(1);
}

TEST(PermitGate, AHeavyHeadBlocksLighterOnesBehindItEvenIfTheyWouldFit) {
  Gate at(4);
  ASSERT_TRUE(at.gate.try_acquire(3));
  Waiter heavy(at, 2), light(at, 1);
  EXPECT_FALSE(at.gate.try_acquire(1));
  EXPECT_EQ(at.gate.statistics().waiting, 2U);
  at.gate.release(1);  // 2 in use: the heavy one fits exactly
  EXPECT_TRUE(heavy.result().ok());
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.gate.release(2);
  EXPECT_TRUE(light.result().ok());
  at.gate.release(3);
}

TEST(PermitGate, OneReleaseServesAsManyWaitersAsFit) {
  Gate at(5);
  ASSERT_TRUE(at.gate.try_acquire(5));
  Waiter one(at, 2), two(at, 3), three(at, 1);
  at.gate.release(5);
  EXPECT_TRUE(one.result().ok());
  EXPECT_TRUE(two.result().ok());
  EXPECT_EQ(at.gate.statistics().in_use, 5U);
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.gate.release(5);
  EXPECT_TRUE(three.result().ok());
  at.gate.release(1);
}

TEST(PermitGate, AHeadThatGivesUpPassesTheTurnOn) {
  Gate at(4);
  ASSERT_TRUE(at.gate.try_acquire(2));
  {
    Waiter head(at, 4), next(at, 2);
    head.stop();
    EXPECT_EQ(code_of(head.result()), ErrorCode::kCancelled);
    EXPECT_TRUE(next.result().ok());
    at.gate.release(2);
  }
  Waiter head(at, 4, 1s), next(at, 2);
  at.clock->advance(1s);
  EXPECT_EQ(code_of(head.result()), ErrorCode::kTimeout);
  EXPECT_TRUE(next.result().ok());
  at.gate.release(4);
}

TEST(PermitGate, ATimeoutEndsAWaitNeitherEarlyNorLeaky) {
  Gate at(1);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter waiter(at, 1, 10s);
  at.clock->advance(10s - 1us);
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.clock->advance(1us);
  EXPECT_EQ(code_of(waiter.result()), ErrorCode::kTimeout);
  EXPECT_EQ(at.gate.statistics().waiting, 0U);
  at.gate.release(1);
  EXPECT_EQ(at.gate.statistics().in_use, 0U);
}

TEST(PermitGate, ATimeoutBeyondTheEndOfTimeIsForEver) {
  Gate at(1);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter waiter(at, 1, Duration::max() - 1us);
  at.clock->advance(24h * 365 * 100);
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.gate.release(1);
  EXPECT_TRUE(waiter.result().ok());
  at.gate.release(1);
}

TEST(PermitGate, AStopThatWasRequestedBeforeTakesNothing) {
  Gate at(1);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(code_of(at.gate.acquire(std::nullopt, stop.get_token(), 1)), ErrorCode::kCancelled);
  EXPECT_EQ(at.gate.statistics().in_use, 0U);
}

TEST(PermitGate, OneWaiterTooManyIsRefusedAtOnce) {
  Gate at(1, 2);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter one(at, 1), two(at, 1);
  EXPECT_EQ(code_of(at.gate.acquire(std::nullopt, {}, 1)), ErrorCode::kOverloaded);
  one.stop();
  EXPECT_EQ(code_of(one.result()), ErrorCode::kCancelled);
  Waiter three(at, 1);
  EXPECT_EQ(at.gate.statistics().waiting, 2U);
  EXPECT_EQ(at.gate.statistics().refused, 2U);
  at.gate.release(1);
  EXPECT_TRUE(two.result().ok());
  at.gate.release(1);
  EXPECT_TRUE(three.result().ok());
  at.gate.release(1);
}

TEST(PermitGate, AShrinkStopsNobodyAndLetsNobodyInUntilEnoughCameBack) {
  Gate at(4);
  ASSERT_TRUE(at.gate.try_acquire(4));
  Waiter waiter(at, 1);
  ASSERT_TRUE(at.gate.set_limit(2).ok());
  at.gate.release(1);
  at.gate.release(1);
  EXPECT_EQ(at.gate.statistics().in_use, 2U);
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.gate.release(1);
  EXPECT_TRUE(waiter.result().ok());
  EXPECT_EQ(at.gate.statistics().in_use, 2U);
  EXPECT_FALSE(at.gate.try_acquire(1));
  at.gate.release(2);
}

TEST(PermitGate, AGrowthServesWaitersAtOnce) {
  Gate at(1);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter one(at, 1), two(at, 1), three(at, 1);
  ASSERT_TRUE(at.gate.set_limit(3).ok());
  EXPECT_TRUE(one.result().ok());
  EXPECT_TRUE(two.result().ok());
  EXPECT_EQ(at.gate.statistics().waiting, 1U);
  at.gate.release(3);
  EXPECT_TRUE(three.result().ok());
  at.gate.release(1);
}

TEST(PermitGate, AShrinkBelowAWaitersWeightRefusesItInsteadOfBlockingAllBehindIt) {
  Gate at(4);
  ASSERT_TRUE(at.gate.try_acquire(1));
  Waiter heavy(at, 4), light(at, 1);
  ASSERT_TRUE(at.gate.set_limit(2).ok());
  EXPECT_EQ(code_of(heavy.result()), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(light.result().ok());
  at.gate.release(2);
}

TEST(Permits, ImpossibleArgumentsAreRefusedWithTheirBound) {
  EXPECT_EQ(Permits::create(0).error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(Permits::create(std::uint64_t{1} << 31).error().code, ErrorCode::kInvalidConfig);
  auto permits = Permits::create((std::uint64_t{1} << 31) - 1).value();
  EXPECT_EQ(permits.set_limit(0).error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(permits.set_limit(std::uint64_t{1} << 31).error().code, ErrorCode::kInvalidConfig);
  ASSERT_TRUE(permits.set_limit(5).ok());
  EXPECT_EQ(permits.acquire(0s, {}, 0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(permits.acquire(0s, {}, 6).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(permits.acquire(0s, {}, UINT64_MAX).error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(permits.try_acquire(0).has_value());
  EXPECT_FALSE(permits.try_acquire(6).has_value());
  EXPECT_EQ(permits.statistics().granted + permits.statistics().refused, 0U);
}

TEST(Permits, ATimeoutWorksOnTheMachinesClockToo) {
  auto permits = Permits::create(1).value();
  const Permit held = permits.acquire().value();
  EXPECT_EQ(permits.acquire(2ms).error().code, ErrorCode::kTimeout);
  EXPECT_EQ(permits.statistics().waiting, 0U);
}

TEST(Permit, IsGivenBackExactlyOnce) {
  auto permits = Permits::create(5).value();
  {
    Permit permit = permits.acquire(std::nullopt, {}, 3).value();
    EXPECT_TRUE(permit.held());
    permit.release();
    EXPECT_FALSE(permit.held());
    permit.release();
    EXPECT_EQ(permits.statistics().in_use, 0U);
    const auto other = permits.try_acquire(5);
    ASSERT_TRUE(other.has_value());
    permit.release();
    EXPECT_EQ(permits.statistics().in_use, 5U);
  }
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

TEST(Permit, MovesWithItsWeight) {
  auto permits = Permits::create(5).value();
  Permit from = permits.acquire(std::nullopt, {}, 3).value();
  Permit to = std::move(from);
  EXPECT_FALSE(from.held());  // NOLINT: the state after a move is the point
  EXPECT_TRUE(to.held());
  from.release();
  EXPECT_EQ(permits.statistics().in_use, 3U);
  Permit& same = to;
  to = std::move(same);
  EXPECT_TRUE(to.held());
  EXPECT_EQ(permits.statistics().in_use, 3U);
  Permit other = permits.acquire(std::nullopt, {}, 2).value();
  to = std::move(other);
  EXPECT_EQ(permits.statistics().in_use, 2U);
  to = Permit();
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

TEST(Permit, MayOutliveItsPermits) {
  Permit left;
  {
    auto permits = Permits::create(2).value();
    left = permits.acquire().value();
    const Permit dropped_first = permits.acquire().value();
    auto moved = std::move(permits);
    EXPECT_EQ(moved.statistics().in_use, 2U);
  }
  EXPECT_TRUE(left.held());
  left.release();
  EXPECT_FALSE(left.held());
}

// ---- asking without waiting

TEST(Permits, ARequestIsGrantedAtOnceWhenThereIsRoomAndElseByWhoMakesRoom) {
  Permits permits = Permits::create(1).value();
  std::vector<Permit> held;
  std::vector<int> order;
  const auto ask = [&](int number) {
    return permits
        .request(1,
                 [&, number](Result<Permit> permit) {
                   order.push_back(number);
                   held.push_back(std::move(permit).value());
                 })
        .value();
  };
  ask(1);
  EXPECT_EQ(order, std::vector<int>{1});
  ask(2);
  const std::uint64_t third = ask(3);
  ask(4);
  EXPECT_EQ(permits.statistics().waiting, 3U);
  EXPECT_TRUE(permits.withdraw(third));
  EXPECT_FALSE(permits.withdraw(third)) << "once";
  held[0].release();
  EXPECT_EQ(order, (std::vector<int>{1, 2})) << "the permit goes to one";
  held[1].release();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 4})) << "past the one who left";
  held[2].release();
  EXPECT_EQ(permits.statistics().in_use, 0U);
  EXPECT_EQ(permits.statistics().refused, 1U);
}

TEST(Permits, WhoWithdrawsLetsThoseBehindThroughThatFit) {
  Permits permits = Permits::create(2).value();
  Permit one = permits.try_acquire().value();
  const std::uint64_t heavy =
      permits.request(2, [](Result<Permit>) { FAIL() << "it was withdrawn"; }).value();
  std::optional<Permit> light;
  ASSERT_TRUE(permits.request(1, [&](Result<Permit> permit) { light = std::move(permit).value(); }).ok());
  EXPECT_FALSE(light) << "no one passes the one before";
  EXPECT_TRUE(permits.withdraw(heavy));
  EXPECT_TRUE(light);
}

TEST(Permits, ARequestThatCanNeverBeGrantedIsToldSo) {
  Permits permits = Permits::create(2, 1).value();
  Permit one = permits.try_acquire().value();
  std::optional<ErrorCode> told;
  const auto note = [&](Result<Permit> permit) { told = permit.error().code; };
  EXPECT_EQ(permits.request(3, note).error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(told) << "refused at once: nobody is called";
  ASSERT_TRUE(permits.request(2, note).ok());
  EXPECT_EQ(permits.request(1, note).error().code, ErrorCode::kOverloaded);
  ASSERT_TRUE(permits.set_limit(1).ok());
  EXPECT_EQ(told, ErrorCode::kInvalidArgument);
}

TEST(Permits, ALongChainOfThoseWhoReleaseAtOnceDoesNotGrowTheStack) {
  Permits permits = Permits::create(1, 100'000).value();
  Permit first = permits.try_acquire().value();
  int granted = 0;
  int depth = 0;
  int depth_max = 0;
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_TRUE(permits
                    .request(1,
                             [&](Result<Permit> permit) {
                               depth_max = std::max(depth_max, ++depth);
                               ++granted;
                               permit.value().release();
                               --depth;
                             })
                    .ok());
  }
  first.release();
  EXPECT_EQ(granted, 100'000);
  EXPECT_EQ(depth_max, 1);
}

TEST(Permits, ARequestMayAskAndReleaseInsideItsOwnCallback) {
  Permits permits = Permits::create(1).value();
  int granted = 0;
  std::function<void(Result<Permit>)> again = [&](Result<Permit> permit) {
    if (++granted == 100) return;
    ASSERT_TRUE(permits.request(1, again).ok());
    permit.value().release();
  };
  ASSERT_TRUE(permits.request(1, again).ok());
  EXPECT_EQ(granted, 100);
  EXPECT_EQ(permits.statistics().in_use, 0U);
}

}  // namespace
}  // namespace towline
