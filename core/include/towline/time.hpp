#pragma once
// Time as the engine speaks it: microseconds, because a stored due time must be an integer that people can
// read.

#include <chrono>
#include <cstdint>

namespace towline {

/// A span of time. Assign any std::chrono literal: `Duration d = 5s;`
using Duration = std::chrono::microseconds;

/// Wall-clock time of the store (UTC, microseconds since 1970). Due times and stored leases are of this kind.
using TimePoint = std::chrono::time_point<std::chrono::system_clock, Duration>;

/// Time that never jumps, for waiting and for measuring inside one process. Never stored.
struct MonotonicTag {
  using duration = Duration;
  using rep = Duration::rep;
  using period = Duration::period;
  using time_point = std::chrono::time_point<MonotonicTag, Duration>;
  static constexpr bool is_steady = true;
};
using MonotonicTime = std::chrono::time_point<MonotonicTag, Duration>;

/// "Never": later than any due time that a caller may ask for.
inline constexpr TimePoint kNever = TimePoint::max();

[[nodiscard]] constexpr std::int64_t to_us(TimePoint t) noexcept { return t.time_since_epoch().count(); }
[[nodiscard]] constexpr TimePoint from_us(std::int64_t us) noexcept { return TimePoint(Duration(us)); }

}  // namespace towline
