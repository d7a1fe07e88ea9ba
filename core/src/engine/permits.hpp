#pragma once
// The gate behind Permits: policy::PermitQueue, which decides whose turn it is, with threads that wait for
// it.
//
// One mutex guards it all. In one hold of it a release takes the weight back, hands it to whoever waited
// longest and wakes that one; so the permit is granted while its new owner still sleeps, and no newcomer
// finds the place free in between. A waiter that gives up leaves the queue under the same mutex and passes
// the turn on.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include <towline/permits.hpp>
#include <towline/result.hpp>
#include <towline/spi/clock.hpp>
#include <towline/time.hpp>

#include "policy/permits.hpp"

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
  /// As Permits::request; a grant is success.
  using Granted = std::function<void(Result<void>)>;
  Result<std::uint64_t> request(std::uint64_t weight, Granted granted);
  [[nodiscard]] bool withdraw(std::uint64_t request);
  void release(std::uint64_t weight) noexcept;
  Result<void> set_limit(std::uint64_t limit);
  /// Every call that asked for a possible weight is counted once: as granted, as refused (overloaded, timed
  /// out, cancelled or nothing free), or it waits still.
  [[nodiscard]] PermitStatistics statistics() const;

 private:
  enum class Verdict { kNone, kGranted, kTooHeavy };
  struct Waiter;

  Result<void> wait(std::unique_lock<std::mutex>& lock, Waiter& waiter, MonotonicTime deadline);
  Result<void> refuse(Error error);
  void append(Waiter& waiter) noexcept;
  void unlink(Waiter& waiter) noexcept;
  void tell(const policy::PermitQueue::Changes& changes) noexcept;
  void tell(policy::PermitQueue::Ticket ticket, Verdict verdict) noexcept;
  /// Calls those who asked without waiting and were told since; unlocks first.
  void call_told(std::unique_lock<std::mutex>& lock) noexcept;

  mutable std::mutex mutex_;
  const std::shared_ptr<spi::Clock> clock_;
  const std::uint64_t waiting_max_;
  policy::PermitQueue queue_;
  // Whoever waits, in the order of tickets, so those granted are always the first: on the stack of its
  // thread, or, who asked without waiting, owned by the list.
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
  std::vector<Waiter*> told_;  ///< owned, and to be called once the mutex is free
  std::uint64_t refused_ = 0;
};

}  // namespace towline::engine
