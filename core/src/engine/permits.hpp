#pragma once
// The gate behind Permits: a counting limit with a first-come-first-served queue.
//
// One mutex guards it all, and in one hold of it a release takes the weight back and hands it to whoever
// waited longest; so between a release and the wake-up of the waiter there is no moment in which a newcomer
// finds the place free. The waiter is granted where it stands in the queue and merely learns of it when it
// wakes. While anybody waits nobody overtakes: a heavy waiter at the head blocks lighter ones behind it, or
// it would starve. A waiter that gives up leaves the queue under the same mutex and passes the turn on.

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>

#include <towline/permits.hpp>
#include <towline/result.hpp>
#include <towline/spi/clock.hpp>
#include <towline/time.hpp>

namespace towline::engine {

/// Thread-safe. Outlives every call on it and every permit: whoever holds a permit shares its ownership.
class PermitGate {
 public:
  static constexpr std::uint64_t kLimitEnd = std::uint64_t{1} << 31;

  /// `limit` is within [1, kLimitEnd). The clock decides when a wait ends.
  PermitGate(std::uint64_t limit, std::uint64_t waiting_max, std::shared_ptr<spi::Clock> clock);
  ~PermitGate();
  PermitGate(const PermitGate&) = delete;
  PermitGate& operator=(const PermitGate&) = delete;

  /// As Permits::acquire; after success `weight` must be released once. If the limit sinks below `weight`
  /// during the wait the answer is kInvalidArgument: it could never be granted and would block everybody
  /// behind it. A grant wins over a timeout or a stop that comes at the same moment.
  Result<void> acquire(std::optional<Duration> timeout, std::stop_token stop, std::uint64_t weight);
  [[nodiscard]] bool try_acquire(std::uint64_t weight);
  void release(std::uint64_t weight) noexcept;
  Result<void> set_limit(std::uint64_t limit);
  /// Every call that asked for a possible weight is counted once: as granted, as refused (overloaded, timed
  /// out, cancelled or nothing free), or it waits still.
  [[nodiscard]] PermitStatistics statistics() const;

 private:
  enum class Verdict { kNone, kGranted, kTooHeavy };
  struct Waiter;

  [[nodiscard]] bool fits(std::uint64_t weight) const noexcept {
    return weight <= limit_ && in_use_ <= limit_ - weight;
  }
  void grant(std::uint64_t weight) noexcept;
  void enqueue(Waiter& waiter) noexcept;
  void dequeue(Waiter& waiter) noexcept;
  void serve_queue() noexcept;
  Result<void> wait(std::unique_lock<std::mutex>& lock, Waiter& waiter, MonotonicTime deadline);
  Result<void> refuse(Error error);

  mutable std::mutex mutex_;
  const std::shared_ptr<spi::Clock> clock_;
  const std::uint64_t waiting_max_;
  std::uint64_t limit_;
  std::uint64_t in_use_ = 0;
  // Waiters live on the stacks of those who wait.
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
  std::uint64_t waiting_ = 0;
  std::uint64_t in_use_max_ = 0;
  std::uint64_t granted_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace towline::engine
