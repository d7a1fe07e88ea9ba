// Permits over one shared gate. A waiter's condition variable lives on its stack, so it is notified only
// under the gate's mutex and only while the waiter is in the queue or holds its verdict unread. The stop
// callback takes that mutex too; it is therefore registered before the mutex is locked and ended after it was
// unlocked.

#include "engine/permits.hpp"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include <towline/clock.hpp>

namespace towline {

namespace engine {

struct PermitGate::Waiter {
  explicit Waiter(std::uint64_t wanted) : weight(wanted) {}
  const std::uint64_t weight;
  Waiter* prev = nullptr;
  Waiter* next = nullptr;
  Verdict verdict = Verdict::kNone;
  bool stopped = false;
  std::condition_variable changed;
};

namespace {

Error impossible_weight(std::uint64_t weight, std::uint64_t limit) {
  return {ErrorCode::kInvalidArgument, "weight " + std::to_string(weight) + " is outside 1.." +
                                           std::to_string(limit) + ", the limit of the gate"};
}

Error bad_limit(std::uint64_t limit) {
  return {ErrorCode::kInvalidConfig, "limit " + std::to_string(limit) + " is outside 1.." +
                                         std::to_string(PermitGate::kLimitEnd - 1)};
}

Error overloaded(std::uint64_t waiting_max) {
  return {ErrorCode::kOverloaded, std::to_string(waiting_max) +
                                      " callers wait for a permit already (waiting_max); try again later"};
}

Error cancelled() { return {ErrorCode::kCancelled, "the caller stopped waiting for a permit"}; }
Error timed_out() { return {ErrorCode::kTimeout, "no permit became free before the timeout"}; }

MonotonicTime deadline_after(spi::Clock& clock, std::optional<Duration> timeout) {
  if (!timeout) return MonotonicTime::max();
  const MonotonicTime now = clock.monotonic();
  return *timeout < MonotonicTime::max() - now ? now + *timeout : MonotonicTime::max();
}

}  // namespace

PermitGate::PermitGate(std::uint64_t limit, std::uint64_t waiting_max, std::shared_ptr<spi::Clock> clock)
    : clock_(std::move(clock)), waiting_max_(waiting_max), limit_(limit) {
  assert(limit >= 1 && limit < kLimitEnd);
}

PermitGate::~PermitGate() { assert(head_ == nullptr && in_use_ == 0); }

Result<void> PermitGate::acquire(std::optional<Duration> timeout, std::stop_token stop,
                                 std::uint64_t weight) {
  Waiter waiter(weight);
  const std::stop_callback on_stop(std::move(stop), [this, &waiter] {
    const std::lock_guard hold(mutex_);
    waiter.stopped = true;
    waiter.changed.notify_one();
  });
  std::unique_lock lock(mutex_);
  if (weight == 0 || weight > limit_) return impossible_weight(weight, limit_);
  if (waiter.stopped) return refuse(cancelled());
  if (head_ == nullptr && fits(weight)) {
    grant(weight);
    return {};
  }
  if (timeout && *timeout <= Duration::zero()) return refuse(timed_out());
  if (waiting_ >= waiting_max_) return refuse(overloaded(waiting_max_));
  enqueue(waiter);
  return wait(lock, waiter, deadline_after(*clock_, timeout));
}

Result<void> PermitGate::wait(std::unique_lock<std::mutex>& lock, Waiter& waiter, MonotonicTime deadline) {
  // A verdict is looked at first: what was granted must not be lost to a timeout that came while this thread
  // woke up.
  while (waiter.verdict == Verdict::kNone) {
    const bool late = clock_->monotonic() >= deadline;
    if (waiter.stopped || late) {
      dequeue(waiter);
      serve_queue();
      return refuse(waiter.stopped ? cancelled() : timed_out());
    }
    clock_->wait_until(lock, waiter.changed, deadline);
  }
  if (waiter.verdict == Verdict::kTooHeavy) return refuse(impossible_weight(waiter.weight, limit_));
  return {};
}

bool PermitGate::try_acquire(std::uint64_t weight) {
  const std::lock_guard hold(mutex_);
  if (weight == 0 || weight > limit_) return false;
  if (head_ != nullptr || !fits(weight)) {
    ++refused_;
    return false;
  }
  grant(weight);
  return true;
}

void PermitGate::release(std::uint64_t weight) noexcept {
  const std::lock_guard hold(mutex_);
  assert(weight <= in_use_);
  in_use_ -= weight;
  serve_queue();
}

Result<void> PermitGate::set_limit(std::uint64_t limit) {
  if (limit < 1 || limit >= kLimitEnd) return bad_limit(limit);
  const std::lock_guard hold(mutex_);
  limit_ = limit;
  for (Waiter* waiter = head_; waiter != nullptr;) {
    Waiter* const following = waiter->next;
    if (waiter->weight > limit_) {
      dequeue(*waiter);
      waiter->verdict = Verdict::kTooHeavy;
      waiter->changed.notify_one();
    }
    waiter = following;
  }
  serve_queue();
  return {};
}

PermitStatistics PermitGate::statistics() const {
  const std::lock_guard hold(mutex_);
  PermitStatistics statistics;
  statistics.limit = limit_;
  statistics.in_use = in_use_;
  statistics.waiting = waiting_;
  statistics.in_use_max = in_use_max_;
  statistics.granted = granted_;
  statistics.refused = refused_;
  return statistics;
}

Result<void> PermitGate::refuse(Error error) {
  ++refused_;
  return error;
}

void PermitGate::grant(std::uint64_t weight) noexcept {
  in_use_ += weight;
  in_use_max_ = std::max(in_use_max_, in_use_);
  ++granted_;
}

void PermitGate::serve_queue() noexcept {
  while (head_ != nullptr && fits(head_->weight)) {
    Waiter& waiter = *head_;
    dequeue(waiter);
    grant(waiter.weight);
    waiter.verdict = Verdict::kGranted;
    waiter.changed.notify_one();
  }
}

void PermitGate::enqueue(Waiter& waiter) noexcept {
  waiter.prev = tail_;
  (tail_ == nullptr ? head_ : tail_->next) = &waiter;
  tail_ = &waiter;
  ++waiting_;
}

void PermitGate::dequeue(Waiter& waiter) noexcept {
  (waiter.prev == nullptr ? head_ : waiter.prev->next) = waiter.next;
  (waiter.next == nullptr ? tail_ : waiter.next->prev) = waiter.prev;
  waiter.prev = waiter.next = nullptr;
  --waiting_;
}

}  // namespace engine

Permit::Permit(Permit&& other) noexcept
    : gate_(std::move(other.gate_)), weight_(std::exchange(other.weight_, 0)) {}

Permit& Permit::operator=(Permit&& other) noexcept {
  if (this == &other) return *this;
  release();
  gate_ = std::move(other.gate_);
  weight_ = std::exchange(other.weight_, 0);
  return *this;
}

Permit::~Permit() { release(); }

void Permit::release() noexcept {
  // The gate leaves the member first: it may end with this very permit, after its mutex was unlocked.
  const std::shared_ptr<engine::PermitGate> gate = std::move(gate_);
  if (gate) gate->release(std::exchange(weight_, 0));
}

Result<Permits> Permits::create(std::uint64_t limit, std::uint64_t waiting_max) {
  if (limit < 1 || limit >= engine::PermitGate::kLimitEnd) return engine::bad_limit(limit);
  return Permits(std::make_shared<engine::PermitGate>(limit, waiting_max, system_clock()));
}

Result<Permit> Permits::acquire(std::optional<Duration> timeout, std::stop_token stop, std::uint64_t weight) {
  const std::shared_ptr<engine::PermitGate> gate = gate_;
  Result<void> granted = gate->acquire(timeout, std::move(stop), weight);
  if (!granted) return std::move(granted).error();
  return Permit(gate, weight);
}

std::optional<Permit> Permits::try_acquire(std::uint64_t weight) {
  if (!gate_->try_acquire(weight)) return std::nullopt;
  return Permit(gate_, weight);
}

Result<void> Permits::set_limit(std::uint64_t limit) { return gate_->set_limit(limit); }

PermitStatistics Permits::statistics() const { return gate_->statistics(); }

}  // namespace towline
