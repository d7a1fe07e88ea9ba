#pragma once
// Waiting in tests: always for a condition and always with a deadline, so that a test is as fast as the code
// it waits for and never hangs. A span of time in which nothing may happen is watched, not slept through.

#include <chrono>
#include <thread>

#include <towline/time.hpp>

namespace towline::support {

using namespace std::chrono_literals;

/// How much slower this build is than an ordinary one: upper bounds of a test are multiplied by it, lower
/// bounds never.
[[nodiscard]] constexpr int slack() noexcept {
#if defined(__SANITIZE_THREAD__)
  return 4;
#elif defined(__SANITIZE_ADDRESS__)
  return 2;
#else
  return 1;
#endif
}

/// `count` divided by the slack, for scenarios whose size is only there to find races.
[[nodiscard]] constexpr int scaled(int count) noexcept {
  return slack() == 1 ? count : (count + slack() - 1) / slack();
}

/// Whether `condition` became true within `within` (times the slack). Polls; the condition is tried once more
/// at the end.
template <typename Condition>
[[nodiscard]] bool eventually(Condition&& condition, std::chrono::microseconds within = 10s) {
  const auto end = std::chrono::steady_clock::now() + within * slack();
  auto pause = 200us;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return condition();
    std::this_thread::sleep_for(pause);
    if (pause < 4ms) pause *= 2;
  }
  return true;
}

/// Whether `condition` stayed true for the whole of `span`. Ends at the first breach.
template <typename Condition>
[[nodiscard]] bool holds_for(Condition&& condition, std::chrono::microseconds span) {
  const auto end = std::chrono::steady_clock::now() + span;
  while (condition()) {
    if (std::chrono::steady_clock::now() >= end) return true;
    std::this_thread::sleep_for(2ms);
  }
  return false;
}

/// Measures from its making.
class Stopwatch {
 public:
  [[nodiscard]] Duration elapsed() const {
    return std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - start_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace towline::support
