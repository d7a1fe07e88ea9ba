// The two clocks. The order of events that matters is in VirtualClock: a waiter holds its own mutex from its
// look at the time until the condition variable lets go of it, so whoever moves the time must lock that same
// mutex once between moving and notifying, or the notification could fall into the gap. Waiters lock their
// own mutex first and the clock's second; advance() therefore never holds the clock's mutex while it locks a
// waiter's. It pins the waiter instead, and a pinned waiter does not leave wait_until (its mutex and
// condition variable stay alive) before it was notified.

#include <towline/clock.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace towline {

namespace {

class SystemClock final : public spi::Clock {
 public:
  TimePoint now() noexcept override {
    return std::chrono::floor<Duration>(std::chrono::system_clock::now());
  }

  MonotonicTime monotonic() noexcept override {
    return MonotonicTime(std::chrono::floor<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
  }

  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    using Steady = std::chrono::steady_clock;
    // Steady time counts in nanoseconds and ends earlier than ours: what lies behind its end is "for ever".
    constexpr auto end = std::chrono::floor<Duration>(Steady::duration::max());
    if (deadline.time_since_epoch() >= end) {
      changed.wait(lock);
    } else if (deadline.time_since_epoch() > Duration::zero()) {
      changed.wait_until(lock, Steady::time_point(Steady::duration(deadline.time_since_epoch())));
    }
  }
};

// Both operands may be anything; the sum stays within the range of Duration.
Duration saturating_add(Duration a, Duration b) noexcept {
  Duration::rep sum = 0;
  if (!__builtin_add_overflow(a.count(), b.count(), &sum)) return Duration(sum);
  return b > Duration::zero() ? Duration::max() : Duration::min();
}

}  // namespace

std::shared_ptr<spi::Clock> system_clock() {
  static const std::shared_ptr<spi::Clock> clock = std::make_shared<SystemClock>();
  return clock;
}

struct VirtualClock::State {
  struct Waiter {
    std::mutex* mutex;
    std::condition_variable* changed;
    MonotonicTime deadline;
    std::size_t index;     // in waiters
    std::size_t pins = 0;  // how many advances are about to notify it
  };

  void add(Waiter& waiter) {
    waiter.index = waiters.size();
    waiters.push_back(&waiter);
  }

  void remove(Waiter& waiter) noexcept {
    waiters[waiter.index] = waiters.back();
    waiters[waiter.index]->index = waiter.index;
    waiters.pop_back();
  }

  // Pins every waiter whose deadline is not after `until`. Called with the mutex held.
  std::vector<Waiter*> pin_until(MonotonicTime until) {
    std::vector<Waiter*> pinned;
    for (Waiter* waiter : waiters) {
      if (waiter->deadline > until) continue;
      pinned.push_back(waiter);
    }
    for (Waiter* waiter : pinned) ++waiter->pins;
    return pinned;
  }

  // Called with no mutex held, neither the clock's nor a waiter's.
  void notify(const std::vector<Waiter*>& pinned) {
    for (Waiter* waiter : pinned) {
      // Under its own mutex throughout: it cannot leave wait_until, so it is there until the last of these
      // lines.
      const std::lock_guard own(*waiter->mutex);
      const std::lock_guard hold(mutex);
      if (--waiter->pins == 0) unpinned.notify_all();
      waiter->changed->notify_all();
    }
  }

  std::mutex mutex;
  std::condition_variable unpinned;
  std::chrono::sys_time<Duration> wall = std::chrono::sys_days(std::chrono::year(2026) / 1 / 1);
  MonotonicTime steady{std::chrono::hours(1)};
  std::vector<Waiter*> waiters;
};

VirtualClock::VirtualClock() : state_(std::make_unique<State>()) {}
VirtualClock::~VirtualClock() = default;

TimePoint VirtualClock::now() noexcept {
  const std::lock_guard hold(state_->mutex);
  return state_->wall;
}

MonotonicTime VirtualClock::monotonic() noexcept {
  const std::lock_guard hold(state_->mutex);
  return state_->steady;
}

void VirtualClock::wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                              MonotonicTime deadline) {
  State::Waiter waiter{lock.mutex(), &changed, deadline, 0};
  {
    const std::lock_guard hold(state_->mutex);
    if (deadline <= state_->steady) return;
    state_->add(waiter);
  }
  changed.wait(lock);
  std::unique_lock hold(state_->mutex);
  state_->remove(waiter);
  if (waiter.pins == 0) return;
  // Woken by somebody else while an advance is on its way to us, which needs our mutex first.
  lock.unlock();
  state_->unpinned.wait(hold, [&] { return waiter.pins == 0; });
  hold.unlock();
  lock.lock();
}

void VirtualClock::advance(Duration by) {
  if (by <= Duration::zero()) return;
  std::vector<State::Waiter*> pinned;
  {
    const std::lock_guard hold(state_->mutex);
    state_->wall = TimePoint(saturating_add(state_->wall.time_since_epoch(), by));
    state_->steady = MonotonicTime(saturating_add(state_->steady.time_since_epoch(), by));
    pinned = state_->pin_until(state_->steady);
  }
  state_->notify(pinned);
}

void VirtualClock::step_wall(Duration by) {
  std::vector<State::Waiter*> pinned;
  {
    const std::lock_guard hold(state_->mutex);
    state_->wall = TimePoint(saturating_add(state_->wall.time_since_epoch(), by));
    pinned = state_->pin_until(MonotonicTime::max());
  }
  state_->notify(pinned);
}

}  // namespace towline
