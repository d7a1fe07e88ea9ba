#pragma once
// At most so many per second: a token bucket. It fills with `rate` tokens a second up to `burst` and starts
// full; each start takes one. In any span of t seconds at most burst + rate * t are taken. Whole-number
// arithmetic, so nothing drifts however long it runs. Time that goes back is taken as standing still. Not
// thread-safe.

#include <cstdint>

#include <towline/time.hpp>

namespace towline::policy {

class RateLimit {
 public:
  /// `rate_per_second` 0: no limit. `burst` 0: a tenth of a second's worth, at least 1.
  RateLimit(std::uint64_t rate_per_second, std::uint64_t burst = 0) noexcept;

  /// How many may start now; UINT64_MAX without a limit.
  [[nodiscard]] std::uint64_t available(MonotonicTime now) noexcept;
  /// Takes all `count` or nothing.
  [[nodiscard]] bool take(MonotonicTime now, std::uint64_t count = 1) noexcept;
  /// The earliest time at which take(count) may succeed, `now` when it would at once; MonotonicTime::max()
  /// when `count` is more than the bucket holds.
  [[nodiscard]] MonotonicTime ready_at(MonotonicTime now, std::uint64_t count = 1) noexcept;

 private:
  void fill(MonotonicTime now) noexcept;

  std::uint64_t rate_;   // tokens per second, so millionths of a token per microsecond
  std::uint64_t burst_;  // tokens
  std::uint64_t level_;  // millionths of a token
  MonotonicTime filled_at_{};
  bool started_ = false;
};

}  // namespace towline::policy
