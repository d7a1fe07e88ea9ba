// The share is computed for the count that the retry would make it, so the ratio is never exceeded at the
// moment of taking.

#include "policy/retry_budget.hpp"

namespace towline::policy {

void RetryBudget::note_deliveries(MonotonicTime now, std::uint64_t count) noexcept {
  if (ratio_ < 1.0) window_.add(now, kDeliveries, count);
}

bool RetryBudget::is_spent(MonotonicTime now) noexcept {
  if (ratio_ >= 1.0) return false;
  if (!(ratio_ > 0.0)) return true;
  const auto totals = window_.totals(now);
  const std::uint64_t wanted = totals[kRetries] + 1;
  if (wanted <= kFreeRetryCount) return false;
  return static_cast<double>(wanted) > ratio_ * static_cast<double>(totals[kDeliveries]);
}

bool RetryBudget::take(MonotonicTime now) noexcept {
  if (is_spent(now)) return false;
  if (ratio_ < 1.0) window_.add(now, kRetries);
  return true;
}

}  // namespace towline::policy
