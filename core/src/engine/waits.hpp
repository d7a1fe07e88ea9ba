#pragma once
// How long callers may want to wait.

#include <chrono>

#include <towline/time.hpp>

namespace towline::engine {

/// Further away than any program runs, and still a time: what a caller gives may be Duration::max().
inline constexpr Duration kWaitMax = std::chrono::hours(24 * 3660);

}  // namespace towline::engine
