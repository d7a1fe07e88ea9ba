#pragma once
// The machine's clock with a stop lever. While it is frozen, time stands still for the engine that was given
// it: it renews no lease and no timer of it fires, as if its process were suspended, while other engines on
// the same store go on. That makes a zombie holder inside one test process.

#include <atomic>
#include <condition_variable>
#include <mutex>

#include <towline/clock.hpp>

namespace towline::support {

class FreezableClock final : public spi::Clock {
 public:
  void freeze() {
    const std::lock_guard guard(mutex_);
    wall_ = real_->now();
    monotonic_ = real_->monotonic();
    frozen_ = true;
  }
  /// Moves the wall clock, as an operator or a time server would.
  void step_wall(Duration by) {
    const std::lock_guard guard(mutex_);
    step_ += by;
  }
  /// Time goes on from where the machine's clock is now, as for a process that is continued.
  void thaw() { frozen_ = false; }

  [[nodiscard]] TimePoint now() noexcept override {
    const std::lock_guard guard(mutex_);
    return (frozen_ ? wall_ : real_->now()) + step_;
  }
  [[nodiscard]] MonotonicTime monotonic() noexcept override {
    const std::lock_guard guard(mutex_);
    return frozen_ ? monotonic_ : real_->monotonic();
  }
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    // In slices, so that freezing and thawing are noticed; a wait may end early for no reason.
    const MonotonicTime slice = real_->monotonic() + std::chrono::milliseconds(5);
    real_->wait_until(lock, changed, frozen_ || slice < deadline ? slice : deadline);
  }

 private:
  std::shared_ptr<spi::Clock> real_ = system_clock();
  std::mutex mutex_;
  std::atomic<bool> frozen_{false};
  TimePoint wall_{};
  Duration step_{0};
  MonotonicTime monotonic_{};
};

}  // namespace towline::support
