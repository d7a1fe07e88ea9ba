#pragma once
// Time in the simulated world: one monotonic time for all, and per process a wall clock that may be wrong.

#include <condition_variable>
#include <mutex>

#include <towline/spi/clock.hpp>

namespace towline::simulation {

/// The true time. Only the world moves it.
struct WorldTime {
  MonotonicTime monotonic{std::chrono::hours(1)};
  TimePoint wall{std::chrono::sys_days(std::chrono::year(2026) / 1 / 1)};

  void advance(Duration by) noexcept {
    monotonic += by;
    wall += by;
  }
};

/// What one process sees. Never waits: in the simulator a wait is a step that comes again.
class ProcessClock final : public spi::Clock {
 public:
  explicit ProcessClock(const WorldTime& time) noexcept : time_(time) {}
  [[nodiscard]] TimePoint now() noexcept override { return time_.wall + skew; }
  [[nodiscard]] MonotonicTime monotonic() noexcept override { return time_.monotonic; }
  void wait_until(std::unique_lock<std::mutex>&, std::condition_variable&, MonotonicTime) override {}

  Duration skew{0};

 private:
  const WorldTime& time_;
};

}  // namespace towline::simulation
