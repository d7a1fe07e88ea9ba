#pragma once
// The seam to time and chance. Engine code never asks the machine for either: it asks these two, and so a
// test or the simulator decides what time it is and which random numbers come.

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include <towline/time.hpp>

namespace towline::spi {

/// Thread-safe. The engine and its drivers share one clock, which outlives them.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Wall-clock time of this machine. May jump. Decides what is due and which stored lease has ended.
  [[nodiscard]] virtual TimePoint now() noexcept = 0;
  /// Never jumps. Decides how long something took and when a wait ends.
  [[nodiscard]] virtual MonotonicTime monotonic() noexcept = 0;
  /// Waits on `changed` until somebody notifies it or `deadline` comes; may also return early for no reason.
  /// Every timed wait of the engine goes through here, so a virtual clock can end it by being advanced.
  virtual void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                          MonotonicTime deadline) = 0;
};

/// Not thread-safe: one per lane. Seeded, so that a run can be replayed.
class Rng {
 public:
  virtual ~Rng() = default;
  [[nodiscard]] virtual std::uint64_t next() noexcept = 0;
  /// Uniform in [0, 1).
  [[nodiscard]] double uniform() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
};

}  // namespace towline::spi
