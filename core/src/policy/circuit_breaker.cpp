// The window is a ring of slices, each knowing which slice of time it holds; one that holds an older slice is emptied when
// its turn comes again, so nothing needs to run when time merely passes.

#include "policy/circuit_breaker.hpp"

#include <algorithm>
#include <limits>

namespace towline::policy {

MonotonicTime CircuitBreaker::not_before(MonotonicTime now) noexcept {
  latest_ = std::max(latest_, now);
  return latest_;
}

std::int64_t CircuitBreaker::slice_number(MonotonicTime now) const noexcept {
  const std::int64_t length = std::max<std::int64_t>(options_.sampling.count() / static_cast<std::int64_t>(kSliceCount), 1);
  return std::max<std::int64_t>(now.time_since_epoch().count(), 0) / length;
}

CircuitBreaker::Slice& CircuitBreaker::slice_at(MonotonicTime now) noexcept {
  const std::int64_t number = slice_number(now);
  Slice& slice = slices_[static_cast<std::size_t>(number) % kSliceCount];
  if (slice.number != number) slice = Slice{number, 0, 0};
  return slice;
}

bool CircuitBreaker::has_tripped(MonotonicTime now) const noexcept {
  const std::int64_t oldest = slice_number(now) - static_cast<std::int64_t>(kSliceCount) + 1;
  std::uint64_t successes = 0;
  std::uint64_t failures = 0;
  for (const Slice& slice : slices_) {
    if (slice.number < oldest) continue;
    successes += slice.successes;
    failures += slice.failures;
  }
  const std::uint64_t results = successes + failures;
  return results >= static_cast<std::uint64_t>(options_.throughput_min) &&
         static_cast<double>(failures) >= options_.failure_ratio * static_cast<double>(results);
}

void CircuitBreaker::enter(BreakerState state, MonotonicTime now) noexcept {
  state_ = state;
  ++period_;
  probes_out_ = 0;
  probes_succeeded_ = 0;
  slices_ = {};
  if (state == BreakerState::kOpen) {
    open_until_ = now + options_.open;
    ++opened_count_;
  }
}

std::size_t CircuitBreaker::allowance(MonotonicTime now) noexcept {
  now = not_before(now);
  if (state_ == BreakerState::kOpen && now >= open_until_) enter(BreakerState::kHalfOpen, now);
  switch (state_) {
    case BreakerState::kClosed: return std::numeric_limits<std::size_t>::max();
    case BreakerState::kOpen: return 0;
    case BreakerState::kHalfOpen: break;
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

void CircuitBreaker::feed(MonotonicTime now, BreakerSignal signal, std::uint64_t period) noexcept {
  now = not_before(now);
  if (!options_.enabled || period != period_) return;
  if (state_ == BreakerState::kHalfOpen) {
    if (probes_out_ > 0) --probes_out_;
    if (signal == BreakerSignal::kFailure) {
      enter(BreakerState::kOpen, now);
    } else if (signal == BreakerSignal::kSuccess &&
               ++probes_succeeded_ >= static_cast<std::uint64_t>(options_.probe_count)) {
      enter(BreakerState::kClosed, now);
    }
    return;
  }
  if (signal == BreakerSignal::kIgnored) return;
  Slice& slice = slice_at(now);
  if (signal == BreakerSignal::kSuccess) {
    ++slice.successes;
    return;
  }
  ++slice.failures;
  if (has_tripped(now)) enter(BreakerState::kOpen, now);
}

std::optional<MonotonicTime> CircuitBreaker::probes_at() const noexcept {
  if (state_ != BreakerState::kOpen) return std::nullopt;
  return open_until_;
}

}  // namespace towline::policy
