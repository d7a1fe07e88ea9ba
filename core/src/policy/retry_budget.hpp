#pragma once
// Retry budget: when a dependency is down, every message fails, and every failure asks for a retry; the
// retries must not become most of the load. Within the last minute retries may be at most `ratio` of the
// deliveries; beyond it a retry waits the longest delay of its policy (decide.hpp, `budget_spent`). Nothing
// is ever dropped by it.
//
// A few retries a minute are always allowed, because a share of next to nothing is nothing: a consumer with
// one message a minute must be able to retry it. Pure; not thread-safe; constant memory (sliding_window.hpp).

#include <cstdint>

#include <towline/time.hpp>

#include "policy/sliding_window.hpp"

namespace towline::policy {

class RetryBudget {
 public:
  static constexpr Duration kWindow = std::chrono::minutes(1);
  /// Allowed in each window whatever the deliveries; not with a ratio of 0, which allows none.
  static constexpr std::uint64_t kFreeRetryCount = 10;

  /// 1 or more: no budget.
  explicit RetryBudget(double ratio, Duration window = kWindow) noexcept : ratio_(ratio), window_(window) {}

  /// `count` messages were handed to handlers, retries included.
  void note_deliveries(MonotonicTime now, std::uint64_t count = 1) noexcept;
  /// Asks for one retry. True: take it, it is counted. False: the budget is spent.
  [[nodiscard]] bool take(MonotonicTime now) noexcept;
  /// Whether take() would refuse; counts nothing.
  [[nodiscard]] bool is_spent(MonotonicTime now) noexcept;

 private:
  enum Kind : std::size_t { kDeliveries, kRetries, kKindCount };

  double ratio_;
  SlidingWindow<kKindCount> window_;
};

}  // namespace towline::policy
