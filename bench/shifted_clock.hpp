#pragma once
// The machine's clock, with the wall clock moved once and for good: it starts at a given time and then runs
// as fast as the true one. A store that is filled for a day in the future can so be opened on that day.

#include <memory>

#include <towline/clock.hpp>

namespace towline::bench {

class ShiftedClock final : public spi::Clock {
 public:
  explicit ShiftedClock(TimePoint start)
      : clock_(system_clock()), start_(start), origin_(clock_->monotonic()) {}
  [[nodiscard]] TimePoint now() noexcept override { return start_ + (clock_->monotonic() - origin_); }
  [[nodiscard]] MonotonicTime monotonic() noexcept override { return clock_->monotonic(); }
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override {
    clock_->wait_until(lock, changed, deadline);
  }

 private:
  const std::shared_ptr<spi::Clock> clock_;
  const TimePoint start_;
  const MonotonicTime origin_;
};

}  // namespace towline::bench
