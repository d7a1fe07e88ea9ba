#pragma once
// The two clocks: the machine's, and one that a test moves by hand.

#include <memory>

#include <towline/spi/clock.hpp>

namespace towline {

/// The machine's clock. Thread-safe; shared by every engine that is not given another.
[[nodiscard]] std::shared_ptr<spi::Clock> system_clock();

/// A clock that stands still until it is advanced. Give it to Engine::open in tests: `clock->advance(30s)`
/// makes every delay, retry, lease and timeout of the next 30 seconds happen at once. Thread-safe.
///
/// Time begins at 2026-01-01T00:00:00Z. Advancing wakes everything that waits for a time that has come; it
/// does not wait until that work is done: use Engine::settle_down() for that.
class VirtualClock final : public spi::Clock {
 public:
  VirtualClock();
  ~VirtualClock() override;
  [[nodiscard]] TimePoint now() noexcept override;
  [[nodiscard]] MonotonicTime monotonic() noexcept override;
  void wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                  MonotonicTime deadline) override;
  /// Moves both clocks forward. Negative durations are ignored.
  void advance(Duration by);
  /// Moves only the wall clock, forward or back, as an operator or a time server would.
  void step_wall(Duration by);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace towline
