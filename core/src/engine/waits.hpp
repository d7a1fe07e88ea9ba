#pragma once
// Until when a caller waits.

#include <algorithm>
#include <chrono>

#include <towline/spi/clock.hpp>

namespace towline::engine {

/// `timeout` from now. "As long as it takes" is often said with the largest number there is, which no clock
/// can reach; a negative one does not wait.
[[nodiscard]] inline MonotonicTime deadline_in(spi::Clock& clock, Duration timeout) {
  constexpr Duration kLongest = std::chrono::hours(24 * 3660);
  return clock.monotonic() + std::clamp(timeout, Duration{0}, kLongest);
}

}  // namespace towline::engine
