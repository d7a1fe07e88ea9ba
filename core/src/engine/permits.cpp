// Permits over one shared gate. A waiter's condition variable lives on its stack, so it is notified only
// under the gate's mutex and only while the waiter is in the queue or holds its verdict unread. The stop
// callback takes that mutex too; it is therefore registered before the mutex is locked and ended after it was
// unlocked.

#include "engine/permits.hpp"

#include <deque>
#include <string>
#include <utility>

#include <towline/clock.hpp>

#include "base/assert.hpp"

namespace towline {

namespace engine {

struct PermitGate::Waiter {
  policy::PermitQueue::Ticket ticket = 0;
  Waiter* prev = nullptr;
  Waiter* next = nullptr;
  Verdict verdict = Verdict::kNone;
  bool stopped = false;
  std::condition_variable changed;
  std::uint64_t weight = 0;
  Granted granted;  ///< empty: a thread waits
};

namespace {

Error impossible_weight(std::uint64_t weight, std::uint64_t limit) {
  return {ErrorCode::kInvalidArgument, "weight " + std::to_string(weight) + " is outside 1.." +
                                           std::to_string(limit) + ", the limit of the gate"};
}

Error bad_limit(std::uint64_t limit) {
  return {ErrorCode::kInvalidConfig,
          "limit " + std::to_string(limit) + " is outside 1.." + std::to_string(PermitGate::kLimitEnd - 1)};
}

Error overloaded(std::uint64_t waiting_max) {
  return {ErrorCode::kOverloaded,
          std::to_string(waiting_max) + " callers wait for a permit already (waiting_max); try again later"};
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
    : clock_(std::move(clock)), waiting_max_(waiting_max), queue_(limit, waiting_max) {}

PermitGate::~PermitGate() { (void)TOWLINE_ASSERT(head_ == nullptr && queue_.in_use() == 0); }

Result<void> PermitGate::acquire(std::optional<Duration> timeout, std::stop_token stop,
                                 std::uint64_t weight) {
  using Answer = policy::PermitQueue::Answer;
  Waiter waiter;
  const std::stop_callback on_stop(std::move(stop), [this, &waiter] {
    const std::lock_guard hold(mutex_);
    waiter.stopped = true;
    waiter.changed.notify_one();
  });
  std::unique_lock lock(mutex_);
  if (weight == 0 || weight > queue_.limit()) return impossible_weight(weight, queue_.limit());
  if (waiter.stopped) return refuse(cancelled());
  if (timeout && *timeout <= Duration::zero()) {
    return queue_.try_acquire(weight) ? Result<void>() : refuse(timed_out());
  }
  const auto [answer, ticket] = queue_.acquire(weight);
  if (answer == Answer::kGranted) return {};
  if (answer != Answer::kQueued) return refuse(overloaded(waiting_max_));
  waiter.ticket = ticket;
  append(waiter);
  Result<void> result = wait(lock, waiter, deadline_after(*clock_, timeout));
  if (waiter.verdict == Verdict::kTooHeavy) result = refuse(impossible_weight(weight, queue_.limit()));
  call_told(lock);  // who gave up passed its turn on
  return result;
}

Result<std::uint64_t> PermitGate::request(std::uint64_t weight, Granted granted) {
  using Answer = policy::PermitQueue::Answer;
  auto waiter = std::make_unique<Waiter>();
  std::unique_lock lock(mutex_);
  if (weight == 0 || weight > queue_.limit()) return impossible_weight(weight, queue_.limit());
  const auto [answer, ticket] = queue_.acquire(weight);
  if (answer == Answer::kGranted) {
    lock.unlock();
    granted({});
    return std::uint64_t{0};
  }
  if (answer != Answer::kQueued) {
    ++refused_;
    return overloaded(waiting_max_);
  }
  waiter->ticket = ticket;
  waiter->weight = weight;
  waiter->granted = std::move(granted);
  append(*waiter.release());
  return std::uint64_t{ticket};
}

bool PermitGate::withdraw(std::uint64_t request) {
  std::unique_lock lock(mutex_);
  Waiter* waiter = head_;
  while (waiter != nullptr && (waiter->ticket != request || !waiter->granted))
    waiter = waiter->next;
  if (waiter == nullptr) return false;
  const std::unique_ptr<Waiter> owned(waiter);
  unlink(*waiter);
  tell(queue_.cancel(waiter->ticket).changes);
  ++refused_;
  call_told(lock);
  return true;
}

void PermitGate::call_told(std::unique_lock<std::mutex>& lock) noexcept {
  if (told_.empty()) return lock.unlock();
  // Who is told may release at once, and so on: the outermost call works through all of it, however many.
  struct Told {
    std::unique_ptr<Waiter> waiter;
    std::uint64_t limit = 0;
  };
  thread_local std::deque<Told>* working = nullptr;
  std::deque<Told> own;
  std::deque<Told>& told = working != nullptr ? *working : own;
  for (Waiter* waiter : std::exchange(told_, {}))
    told.push_back({std::unique_ptr<Waiter>(waiter), queue_.limit()});
  lock.unlock();
  if (working != nullptr) return;
  working = &own;
  while (!own.empty()) {
    const Told next = std::move(own.front());
    own.pop_front();
    const bool granted = next.waiter->verdict == Verdict::kGranted;
    next.waiter->granted(granted ? Result<void>() : impossible_weight(next.waiter->weight, next.limit));
  }
  working = nullptr;
}

Result<void> PermitGate::wait(std::unique_lock<std::mutex>& lock, Waiter& waiter, MonotonicTime deadline) {
  // A verdict is looked at first: what was granted must not be lost to a timeout that came while this thread
  // woke up.
  while (waiter.verdict == Verdict::kNone) {
    const bool late = clock_->monotonic() >= deadline;
    if (waiter.stopped || late) {
      unlink(waiter);
      tell(queue_.cancel(waiter.ticket).changes);
      return refuse(waiter.stopped ? cancelled() : timed_out());
    }
    clock_->wait_until(lock, waiter.changed, deadline);
  }
  return {};
}

bool PermitGate::try_acquire(std::uint64_t weight) {
  const std::lock_guard hold(mutex_);
  if (queue_.try_acquire(weight)) return true;
  if (weight > 0 && weight <= queue_.limit()) ++refused_;
  return false;
}

void PermitGate::release(std::uint64_t weight) noexcept {
  std::unique_lock lock(mutex_);
  tell(queue_.release(weight));
  call_told(lock);
}

Result<void> PermitGate::set_limit(std::uint64_t limit) {
  if (limit < 1 || limit >= kLimitEnd) return bad_limit(limit);
  std::unique_lock lock(mutex_);
  tell(queue_.set_limit(limit));
  call_told(lock);
  return {};
}

PermitStatistics PermitGate::statistics() const {
  const std::lock_guard hold(mutex_);
  PermitStatistics statistics;
  statistics.limit = queue_.limit();
  statistics.in_use = queue_.in_use();
  statistics.waiting = queue_.waiting_count();
  statistics.in_use_max = queue_.in_use_max();
  statistics.granted = queue_.granted_count();
  statistics.refused = refused_;
  return statistics;
}

Result<void> PermitGate::refuse(Error error) {
  ++refused_;
  return error;
}

void PermitGate::append(Waiter& waiter) noexcept {
  waiter.prev = tail_;
  (tail_ == nullptr ? head_ : tail_->next) = &waiter;
  tail_ = &waiter;
}

void PermitGate::unlink(Waiter& waiter) noexcept {
  (waiter.prev == nullptr ? head_ : waiter.prev->next) = waiter.next;
  (waiter.next == nullptr ? tail_ : waiter.next->prev) = waiter.prev;
}

void PermitGate::tell(const policy::PermitQueue::Changes& changes) noexcept {
  // The evicted first: then nobody stands before those who were granted.
  for (const auto ticket : changes.evicted)
    tell(ticket, Verdict::kTooHeavy);
  for (const auto ticket : changes.granted)
    tell(ticket, Verdict::kGranted);
}

void PermitGate::tell(policy::PermitQueue::Ticket ticket, Verdict verdict) noexcept {
  Waiter* waiter = head_;
  while (waiter != nullptr && waiter->ticket != ticket)
    waiter = waiter->next;
  if (!TOWLINE_ASSERT(waiter != nullptr)) return;
  unlink(*waiter);
  waiter->verdict = verdict;
  if (!waiter->granted) return waiter->changed.notify_one();
  if (verdict == Verdict::kTooHeavy) ++refused_;
  told_.push_back(waiter);
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

Result<std::uint64_t> Permits::request(std::uint64_t weight, Granted granted) {
  return gate_->request(weight, [gate = gate_, weight, granted = std::move(granted)](Result<void> result) {
    granted(result ? Result<Permit>(Permit(gate, weight)) : Result<Permit>(std::move(result).error()));
  });
}

bool Permits::withdraw(std::uint64_t request) { return gate_->withdraw(request); }

Result<void> Permits::set_limit(std::uint64_t limit) { return gate_->set_limit(limit); }

PermitStatistics Permits::statistics() const { return gate_->statistics(); }

}  // namespace towline
