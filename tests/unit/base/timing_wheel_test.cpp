// The wheel against a plain ordered map, and the corners by hand: borders of levels, times beyond the top,
// callbacks that change the wheel while it fires.

#include "base/timing_wheel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <vector>

namespace towline::base {
namespace {

using namespace std::chrono_literals;

constexpr MonotonicTime at_us(std::int64_t us) { return MonotonicTime(Duration(us)); }
constexpr MonotonicTime at_ms(std::int64_t ms) { return at_us(ms * 1000); }

struct NumberedTimer : Timer {
  int number = 0;
};

std::vector<int> numbers_fired(TimingWheel& wheel, MonotonicTime now) {
  std::vector<int> fired;
  wheel.advance(now, [&](Timer& t) { fired.push_back(static_cast<NumberedTimer&>(t).number); });
  return fired;
}

TEST(TimingWheel, IsEmptyAtFirst) {
  TimingWheel wheel;
  EXPECT_EQ(wheel.size(), 0U);
  EXPECT_EQ(wheel.next(), std::nullopt);
  EXPECT_TRUE(numbers_fired(wheel, at_ms(1'000'000'000)).empty());
}

TEST(TimingWheel, FiresExactlyWhenTheTimeHasComeAndNotAMicrosecondBefore) {
  TimingWheel wheel(at_us(3'600'000'123));
  NumberedTimer timer;
  wheel.arm(timer, at_us(3'600'000'723));
  EXPECT_EQ(wheel.next(), at_us(3'600'000'723));
  EXPECT_TRUE(numbers_fired(wheel, at_us(3'600'000'722)).empty());
  EXPECT_TRUE(timer.armed());
  EXPECT_EQ(numbers_fired(wheel, at_us(3'600'000'723)).size(), 1U);
  EXPECT_FALSE(timer.armed());
  EXPECT_TRUE(wheel.empty());
}

TEST(TimingWheel, FiresAtTheBordersOfEveryLevel) {
  for (int level = 1; level <= 6; ++level) {
    for (std::int64_t off : {-1, 0, 1}) {
      const std::int64_t due_ms = (std::int64_t{1} << (6 * level)) + off;
      TimingWheel wheel(at_ms(63));
      NumberedTimer timer;
      wheel.arm(timer, at_ms(due_ms));
      ASSERT_LE(wheel.next().value(), at_ms(due_ms));
      const bool due_at_once = due_ms <= 63;
      if (!due_at_once) {
        EXPECT_TRUE(numbers_fired(wheel, at_us(due_ms * 1000 - 1)).empty()) << due_ms;
      }
      EXPECT_EQ(numbers_fired(wheel, at_ms(due_ms)).size(), 1U) << due_ms;
    }
  }
}

TEST(TimingWheel, TimesBeyondTheTopLevelWaitAndFireInOrderWithNearerOnesArmedLater) {
  constexpr std::int64_t ring_ms = std::int64_t{1} << 36;
  TimingWheel wheel;
  NumberedTimer far, farther, near, last;
  far.number = 1, farther.number = 2, near.number = 0, last.number = 3;
  wheel.arm(farther, at_ms(3 * ring_ms + 7));
  wheel.arm(far, at_ms(3 * ring_ms + 5));
  wheel.arm(last, MonotonicTime::max());
  EXPECT_TRUE(numbers_fired(wheel, at_ms(ring_ms / 2)).empty());
  wheel.arm(near, at_ms(ring_ms + ring_ms / 3));
  EXPECT_LE(wheel.next().value(), at_ms(ring_ms + ring_ms / 3));
  std::vector<int> order;
  // Only as far as next() allows each time: it must never lie behind a timer.
  while (wheel.size() > 1) {
    for (int number : numbers_fired(wheel, wheel.next().value())) order.push_back(number);
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(numbers_fired(wheel, MonotonicTime::max()), std::vector<int>{3});
}

TEST(TimingWheel, NeedsOneWakeUpForEachTimerAndNoneForCascades) {
  TimingWheel wheel(at_ms(1));
  NumberedTimer timer;
  wheel.arm(timer, at_ms(30'000));
  EXPECT_EQ(wheel.next(), at_ms(30'000));
  EXPECT_EQ(numbers_fired(wheel, at_ms(30'000)).size(), 1U);
}

TEST(TimingWheel, ATimerArmedForThePastFiresAtTheNextAdvanceEvenIfTimeStandsStill) {
  TimingWheel wheel(at_ms(500));
  NumberedTimer timer;
  wheel.arm(timer, at_ms(-4));
  EXPECT_EQ(wheel.next(), at_ms(-4));
  EXPECT_EQ(numbers_fired(wheel, at_ms(500)).size(), 1U);
}

TEST(TimingWheel, ArmingAgainMovesTheTimer) {
  TimingWheel wheel;
  NumberedTimer timer;
  wheel.arm(timer, at_ms(10));
  wheel.arm(timer, at_ms(5000));
  EXPECT_EQ(wheel.size(), 1U);
  EXPECT_TRUE(numbers_fired(wheel, at_ms(4999)).empty());
  wheel.arm(timer, at_ms(5001));
  wheel.arm(timer, at_ms(5000));
  EXPECT_EQ(numbers_fired(wheel, at_ms(5000)).size(), 1U);
}

TEST(TimingWheel, CancelTwiceIsHarmlessAndACancelledTimerNeverFires) {
  TimingWheel wheel;
  NumberedTimer timer;
  wheel.arm(timer, at_ms(10));
  wheel.cancel(timer);
  wheel.cancel(timer);
  EXPECT_EQ(wheel.size(), 0U);
  EXPECT_EQ(wheel.next(), std::nullopt);
  EXPECT_TRUE(numbers_fired(wheel, at_ms(20)).empty());
}

TEST(TimingWheel, FiredMayCancelAndDestroyTimersThatAreDueInTheSameAdvance) {
  TimingWheel wheel;
  NumberedTimer first, same_tick;
  auto later_tick = std::make_unique<NumberedTimer>();
  wheel.arm(first, at_ms(10));
  wheel.arm(same_tick, at_ms(10));
  wheel.arm(*later_tick, at_ms(11));
  int calls = 0;
  wheel.advance(at_ms(100), [&](Timer& t) {
    ++calls;
    EXPECT_EQ(&t, &first);
    wheel.cancel(same_tick);
    wheel.cancel(*later_tick);
    later_tick.reset();
  });
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(wheel.empty());
}

TEST(TimingWheel, ATimerThatAlwaysArmsItselfForNowCannotHoldTheCaller) {
  for (std::int64_t again_ms : {50, 100}) {
    TimingWheel wheel;
    NumberedTimer timer;
    wheel.arm(timer, at_ms(10));
    for (int round = 1; round <= 3; ++round) {
      int calls = 0;
      wheel.advance(at_ms(100), [&](Timer& t) { ++calls, wheel.arm(t, at_ms(again_ms)); });
      EXPECT_EQ(calls, 1);
      EXPECT_LE(wheel.next().value(), at_ms(100));
    }
    wheel.cancel(timer);
  }
}

TEST(TimingWheel, FiredMayArmTimersForLaterWhileTimeCrossesLevels) {
  TimingWheel wheel;
  NumberedTimer seed, soon, late;
  wheel.arm(seed, at_ms(10));
  wheel.advance(at_ms(5000), [&](Timer&) {
    wheel.arm(soon, at_ms(5001));
    wheel.arm(late, at_us(5'000'001));
  });
  EXPECT_EQ(wheel.next(), at_us(5'000'001));
  EXPECT_EQ(numbers_fired(wheel, at_us(5'000'001)).size(), 1U);
  EXPECT_FALSE(late.armed());
  EXPECT_EQ(numbers_fired(wheel, at_ms(5001)).size(), 1U);
}

TEST(TimingWheel, TimeThatGoesBackChangesNothing) {
  TimingWheel wheel(at_ms(1000));
  NumberedTimer timer;
  wheel.arm(timer, at_ms(1500));
  EXPECT_TRUE(numbers_fired(wheel, at_ms(3)).empty());
  EXPECT_TRUE(numbers_fired(wheel, at_ms(1499)).empty());
  EXPECT_EQ(numbers_fired(wheel, at_ms(1500)).size(), 1U);
}

TEST(TimingWheel, DisarmsWhatIsLeftWhenItGoes) {
  NumberedTimer timer;
  {
    TimingWheel wheel;
    wheel.arm(timer, at_ms(10));
  }
  EXPECT_FALSE(timer.armed());
}

// The same random history for the wheel and for a map ordered by time.
class Twin {
 public:
  explicit Twin(std::uint32_t seed) : random_(seed), now_(Duration(random_() % 5'000'000'000)), wheel_(now_) {
    places_.assign(kTimers, model_.end());
    for (int i = 0; i < kTimers; ++i) timers_[static_cast<std::size_t>(i)].number = i;
  }
  ~Twin() {
    for (auto& timer : timers_) wheel_.cancel(timer);
  }

  void arm_one() {
    const auto i = static_cast<std::size_t>(random_() % kTimers);
    arm(i, now_ + span());
  }

  void cancel_one() {
    const auto i = static_cast<std::size_t>(random_() % kTimers);
    wheel_.cancel(timers_[i]);
    forget(i);
  }

  void advance(bool to_next) {
    const auto bound = wheel_.next();
    ASSERT_EQ(bound.has_value(), !model_.empty());
    if (bound) {
      ASSERT_LE(*bound, model_.begin()->first);
    }
    now_ = to_next && bound ? std::max(now_, *bound) : now_ + span();
    const MonotonicTime late_until = late_until_;
    std::int64_t tick_before = -1;
    armed_late_.clear();
    wheel_.advance(now_, [&](Timer& t) {
      const auto i = static_cast<std::size_t>(static_cast<NumberedTimer&>(t).number);
      ASSERT_LE(t.at, now_);
      ASSERT_NE(places_[i], model_.end()) << "fired without being armed";
      const std::int64_t tick = t.at.time_since_epoch() / 1ms;
      if (t.at > late_until) {
        ASSERT_GE(tick, tick_before);
        tick_before = tick;
      }
      forget(i);
      change_something();
    });
    late_until_ = now_;
    // What the callbacks armed for the past is all that may be left of it.
    for (auto it = model_.begin(); it != model_.end() && it->first <= now_; ++it) {
      ASSERT_NE(std::find(armed_late_.begin(), armed_late_.end(), it->second), armed_late_.end());
    }
    if (armed_late_.empty() && wheel_.next()) {
      ASSERT_GT(*wheel_.next(), now_) << "would spin";
    }
    ASSERT_EQ(wheel_.size(), model_.size());
  }

 private:
  static constexpr int kTimers = 300;

  // From a microsecond to some thousand years, every magnitude equally often; now and then the past.
  Duration span() {
    const auto bits = random_() % 56;
    const auto us = static_cast<std::int64_t>(random_() & ((std::uint64_t{1} << bits) - 1));
    return Duration(us);
  }

  void change_something() {
    const auto dice = random_() % 8;
    const auto i = static_cast<std::size_t>(random_() % kTimers);
    if (dice == 0) arm(i, now_ - Duration(random_() % 5000)), armed_late_.push_back(i);
    if (dice == 1) arm(i, now_ + Duration(1) + span());
    if (dice == 2) wheel_.cancel(timers_[i]), forget(i);
  }

  void arm(std::size_t i, MonotonicTime at) {
    wheel_.arm(timers_[i], at);
    forget(i);
    places_[i] = model_.emplace(at, i);
  }

  void forget(std::size_t i) {
    if (places_[i] != model_.end()) model_.erase(places_[i]);
    places_[i] = model_.end();
  }

  std::mt19937_64 random_;
  MonotonicTime now_;
  MonotonicTime late_until_ = now_;
  std::array<NumberedTimer, kTimers> timers_;
  TimingWheel wheel_;
  std::multimap<MonotonicTime, std::size_t> model_;
  std::vector<std::multimap<MonotonicTime, std::size_t>::iterator> places_;
  std::vector<std::size_t> armed_late_;
};

TEST(TimingWheel, BehavesLikeAnOrderedMapInRandomHistories) {
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Twin twin(seed);
    std::mt19937 dice(seed);
    for (int step = 0; step < 3000; ++step) {
      const auto roll = dice() % 10;
      if (roll < 6) twin.arm_one();
      if (roll == 6) twin.cancel_one();
      if (roll == 7) twin.advance(false);
      if (roll > 7) twin.advance(true);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace towline::base
