// A change of state begins a new period and an empty window: what is known of the circuit before says nothing
// about it now.

#include "policy/circuit_breaker.hpp"

#include <algorithm>
#include <limits>

namespace towline::policy {

MonotonicTime CircuitBreaker::not_before(MonotonicTime now) noexcept {
  latest_ = std::max(latest_, now);
  return latest_;
}

bool CircuitBreaker::has_tripped(MonotonicTime now) noexcept {
  const auto totals = window_.totals(now);
  const std::uint64_t results = totals[kSuccesses] + totals[kFailures];
  return results >= static_cast<std::uint64_t>(options_.throughput_min) &&
         static_cast<double>(totals[kFailures]) >= options_.failure_ratio * static_cast<double>(results);
}

void CircuitBreaker::enter(BreakerState state, MonotonicTime now) noexcept {
  state_ = state;
  ++period_;
  probes_out_ = 0;
  probes_succeeded_ = 0;
  window_.clear();
  if (state == BreakerState::kOpen) {
    open_until_ = now + options_.open;
    ++opened_count_;
  }
}

std::size_t CircuitBreaker::allowance(MonotonicTime now) noexcept {
  now = not_before(now);
  if (state_ == BreakerState::kOpen && now >= open_until_) enter(BreakerState::kHalfOpen, now);
  switch (state_) {
    case BreakerState::kClosed:
      return std::numeric_limits<std::size_t>::max();
    case BreakerState::kOpen:
      return 0;
    case BreakerState::kHalfOpen:
      break;
  }
  const auto places = static_cast<std::uint64_t>(options_.probe_count);
  const std::uint64_t taken = probes_out_ + probes_succeeded_;
  return taken < places ? static_cast<std::size_t>(places - taken) : 0;
}

std::uint64_t CircuitBreaker::admit(MonotonicTime now, std::size_t count) noexcept {
  not_before(now);
  if (state_ == BreakerState::kHalfOpen) probes_out_ += count;
  return period_;
}

void CircuitBreaker::feed_probe(MonotonicTime now, BreakerSignal signal) noexcept {
  if (probes_out_ > 0) --probes_out_;
  if (signal == BreakerSignal::kFailure) {
    enter(BreakerState::kOpen, now);
  } else if (signal == BreakerSignal::kSuccess) {
    ++probes_succeeded_;
    if (probes_succeeded_ >= static_cast<std::uint64_t>(options_.probe_count))
      enter(BreakerState::kClosed, now);
  }
}

void CircuitBreaker::feed(MonotonicTime now, BreakerSignal signal, std::uint64_t period,
                          std::size_t count) noexcept {
  now = not_before(now);
  if (!options_.enabled || period != period_ || count == 0) return;
  if (state_ == BreakerState::kHalfOpen) {
    // The probe that decides ends the period, and with it the worth of those after it.
    for (std::size_t i = 0; i < count && period == period_; ++i)
      feed_probe(now, signal);
  } else if (signal == BreakerSignal::kSuccess) {
    window_.add(now, kSuccesses, count);
  } else if (signal == BreakerSignal::kFailure) {
    window_.add(now, kFailures, count);
    if (has_tripped(now)) enter(BreakerState::kOpen, now);
  }
}

std::optional<MonotonicTime> CircuitBreaker::probes_at() const noexcept {
  if (state_ != BreakerState::kOpen) return std::nullopt;
  return open_until_;
}

}  // namespace towline::policy
