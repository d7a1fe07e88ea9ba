#pragma once
// Circuit breaker: when a dependency is down, stop taking messages in instead of burning their attempts. A
// pure state machine; the caller says what time it is.
//
//     closed ---- failures / results >= failure_ratio, of at least throughput_min results in the window ---->
//     open open ------ the open time is over
//     --------------------------------------------------------------------> half-open half-open - probe_count
//     probes succeeded -------------------------------------------------------------> closed half-open - one
//     probe failed -------------------------------------------------------------------------> open
//
// Only transient failures count as failures; a success is a handled message; everything else (permanent
// errors, throttling, cancellation) counts as neither. Messages that were in flight when the circuit opened
// still report; those late results are ignored, so a burst of stragglers cannot reopen a circuit that is
// being probed: each admission carries the number of the circuit's period, and only results of the present
// period count.
//
// Every admitted message must be fed exactly once, with kIgnored when nothing is known of it (lease lost,
// released): a probe that is never heard of again keeps its place.
//
// Cost and memory do not depend on the number of results (see sliding_window.hpp). Time that goes back is
// taken as standing still. Not thread-safe: one per subscription, on its lane.

#include <cstddef>
#include <cstdint>
#include <optional>

#include <towline/options.hpp>
#include <towline/time.hpp>

#include "policy/sliding_window.hpp"

namespace towline::policy {

enum class BreakerSignal : std::uint8_t {
  kSuccess,
  kFailure,  ///< a transient failure
  kIgnored   ///< neither; gives a probe's place back
};

enum class BreakerState : std::uint8_t { kClosed, kOpen, kHalfOpen };

class CircuitBreaker {
 public:
  /// `options` were validated; with `enabled` false everything is allowed and the state stays closed.
  explicit CircuitBreaker(const BreakerOptions& options) noexcept
      : options_(options), window_(options.sampling) {}

  /// How many messages may be taken in now: SIZE_MAX when closed, 0 when open, the free probe places when
  /// half-open. Moves from open to half-open when the time has come. Taking them in is admit().
  [[nodiscard]] std::size_t allowance(MonotonicTime now) noexcept;
  [[nodiscard]] bool allows(MonotonicTime now) noexcept { return allowance(now) > 0; }
  /// Notes that `count` messages were taken in, at most the allowance; returns the period that their results
  /// belong to.
  std::uint64_t admit(MonotonicTime now, std::size_t count = 1) noexcept;
  /// The results of `count` admitted messages. `period` is what admit() answered.
  void feed(MonotonicTime now, BreakerSignal signal, std::uint64_t period, std::size_t count = 1) noexcept;

  /// As of the last call with a time.
  [[nodiscard]] BreakerState state() const noexcept { return state_; }
  /// When an open circuit lets probes through, so that a lane can sleep until then; nullopt unless open.
  [[nodiscard]] std::optional<MonotonicTime> probes_at() const noexcept;
  /// How often it has opened.
  [[nodiscard]] std::uint64_t opened_count() const noexcept { return opened_count_; }

 private:
  enum Kind : std::size_t { kSuccesses, kFailures, kKindCount };

  MonotonicTime not_before(MonotonicTime now) noexcept;
  [[nodiscard]] bool has_tripped(MonotonicTime now) noexcept;
  void feed_probe(MonotonicTime now, BreakerSignal signal) noexcept;
  void enter(BreakerState state, MonotonicTime now) noexcept;

  BreakerOptions options_;
  BreakerState state_ = BreakerState::kClosed;
  SlidingWindow<kKindCount> window_;
  MonotonicTime latest_ = MonotonicTime::min();
  MonotonicTime open_until_{};
  std::uint64_t period_ = 1;
  std::uint64_t probes_out_ = 0;
  std::uint64_t probes_succeeded_ = 0;
  std::uint64_t opened_count_ = 0;
};

}  // namespace towline::policy
