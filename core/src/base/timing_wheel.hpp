#pragma once
// A hierarchical timing wheel: timers that are mostly cancelled before they fire, such as leases and handler
// timeouts.
//
// Six levels of 64 slots with a tick of 1 ms. A timer stands in the lowest level whose turn has not come yet:
// level 0 holds the ticks of the current block of 64, level 1 the other blocks of the current 64 * 64 ticks,
// and so on, so every timer of a level is due before every timer of the next one. When time enters a slot of
// a higher level, its timers move down (cascade). The top level is a ring; what lies beyond its 795 days
// waits in its farthest slot and is placed again when that slot's turn comes. Each slot remembers a lower
// bound of its timers' times, so next() never has to look at timers, and a bit per slot says where timers
// are, so empty time is crossed in one step.
//
// Arming and cancelling are O(1); nothing is allocated. Not thread-safe: the owner of the wheel serialises
// all calls.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include <towline/time.hpp>

#include "base/assert.hpp"

namespace towline::base {

/// What the wheel links: derive from it, or embed it. The owner keeps it alive and in place while it is
/// armed, and cancels it before it goes.
struct Timer {
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { (void)TOWLINE_ASSERT(!armed()); }

  [[nodiscard]] bool armed() const noexcept { return next != nullptr; }

  // Written by the wheel only.
  Timer* prev = nullptr;
  Timer* next = nullptr;
  /// When it is armed for; stays readable after it has fired.
  MonotonicTime at{};
  std::uint32_t place = 0;
};

class TimingWheel {
 public:
  /// `start` is the present; an empty wheel that begins at 0 may as well be advanced to it, in one step.
  explicit TimingWheel(MonotonicTime start = MonotonicTime{}) noexcept;
  /// Disarms what is still armed; nothing fires.
  ~TimingWheel();
  TimingWheel(const TimingWheel&) = delete;
  TimingWheel& operator=(const TimingWheel&) = delete;

  /// Arms the timer for `at`, or moves it there if this wheel has it already. A time that has come already
  /// fires at the next advance.
  void arm(Timer& timer, MonotonicTime at) noexcept;
  /// Does nothing if the timer is not armed.
  void cancel(Timer& timer) noexcept;

  /// Calls `fired(Timer&)` for every timer with at <= now, ordered by tick (the millisecond in which `at`
  /// lies); within one tick the order is not promised. Timers that were armed after their time had come are
  /// first, in the order of arming. The timer is no longer armed when `fired` is called, which may arm,
  /// cancel and destroy any timer of the wheel, but must neither throw nor call advance. What it arms for a
  /// time up to `now` fires in the next advance, not in this one, so a timer that always arms itself again
  /// cannot hold the caller. Time never goes back: a `now` before that of an earlier call counts as the
  /// earlier one.
  template <typename F>
  void advance(MonotonicTime now, F&& fired);

  /// When to call advance() next: never later than the earliest timer, and after an advance always later than
  /// its `now` unless `fired` armed a timer for the past. May be too early after cancels. nullopt when
  /// nothing is armed.
  [[nodiscard]] std::optional<MonotonicTime> next() const noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

 private:
  static constexpr std::uint32_t kLevelCount = 6;
  static constexpr std::uint32_t kSlotBits = 6;
  static constexpr std::uint32_t kSlotCount = 1U << kSlotBits;
  static constexpr std::uint32_t kTopShift = kSlotBits * (kLevelCount - 1);
  // Behind the slots: timers that came too late for the wheel, and those about to be fired.
  static constexpr std::uint32_t kLate = kLevelCount * kSlotCount;
  static constexpr std::uint32_t kRunning = kLate + 1;
  static constexpr std::uint32_t kPlaceCount = kRunning + 1;

  // A circular list, closed by a head that is not a timer of anybody; `head.at` is the lower bound of the
  // times in it.
  struct Slot {
    Timer head;
  };

  [[nodiscard]] static std::uint64_t tick_of(MonotonicTime t) noexcept;
  [[nodiscard]] static MonotonicTime time_of(std::uint64_t tick) noexcept;
  [[nodiscard]] bool empty_at(std::uint32_t place) const noexcept;
  void insert(Timer& timer) noexcept;
  void append(std::uint32_t place, Timer& timer, MonotonicTime bound) noexcept;
  void unlink(Timer& timer) noexcept;
  void move_all(std::uint32_t from, std::uint32_t to) noexcept;
  void take_due() noexcept;
  [[nodiscard]] Timer* pop_due() noexcept;
  [[nodiscard]] bool step(std::uint64_t target) noexcept;
  void cascade(std::uint32_t place) noexcept;

  MonotonicTime now_;
  // Every tick before this one has fired; between two advances it is the tick of now_.
  std::uint64_t tick_ = 0;
  std::size_t size_ = 0;
  bool advancing_ = false;
  std::array<std::uint64_t, kLevelCount> occupied_{};
  std::array<Slot, kPlaceCount> slots_;
};

template <typename F>
void TimingWheel::advance(MonotonicTime now, F&& fired) {
  if (!TOWLINE_ASSERT(!advancing_)) return;
  advancing_ = true;
  if (now > now_) now_ = now;
  const std::uint64_t target = tick_of(now_);
  move_all(kLate, kRunning);
  do {
    take_due();
    while (Timer* timer = pop_due()) fired(*timer);
  } while (step(target));
  advancing_ = false;
}

}  // namespace towline::base
