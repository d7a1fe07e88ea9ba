// Every call that frees something ends with grant_heads(), and nothing else grants to waiters.

#include "policy/permits.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace towline::policy {

bool PermitQueue::fits(std::uint64_t weight) const noexcept {
  return in_use_ <= limit_ && weight <= limit_ - in_use_;
}

std::uint64_t PermitQueue::available() const noexcept {
  return waiting_.empty() && in_use_ < limit_ ? limit_ - in_use_ : 0;
}

void PermitQueue::grant(std::uint64_t weight) noexcept {
  in_use_ += weight;
  in_use_max_ = std::max(in_use_max_, in_use_);
  ++granted_count_;
}

void PermitQueue::grant_heads(std::vector<Ticket>& granted) {
  while (!waiting_.empty() && fits(waiting_.begin()->second)) {
    grant(waiting_.begin()->second);
    granted.push_back(waiting_.begin()->first);
    waiting_.erase(waiting_.begin());
  }
}

PermitQueue::Acquired PermitQueue::acquire(std::uint64_t weight) {
  if (weight == 0 || weight > limit_) {
    ++refused_count_;
    return {Answer::kInvalidWeight};
  }
  if (waiting_.empty() && fits(weight)) {
    grant(weight);
    return {Answer::kGranted};
  }
  if (waiting_.size() >= waiting_max_) {
    ++refused_count_;
    return {Answer::kQueueFull};
  }
  waiting_.emplace_hint(waiting_.end(), ++last_ticket_, weight);
  return {Answer::kQueued, last_ticket_};
}

bool PermitQueue::try_acquire(std::uint64_t weight) {
  if (weight == 0 || !waiting_.empty() || !fits(weight)) return false;
  grant(weight);
  return true;
}

PermitQueue::Changes PermitQueue::release(std::uint64_t weight) {
  Changes changes;
  if (!TOWLINE_ASSERT(weight <= in_use_)) weight = in_use_;
  in_use_ -= weight;
  grant_heads(changes.granted);
  return changes;
}

PermitQueue::Cancelled PermitQueue::cancel(Ticket ticket) {
  Cancelled answer;
  answer.cancelled = waiting_.erase(ticket) == 1;
  // A heavy head that gives up may have been all that held back those behind it.
  if (answer.cancelled) grant_heads(answer.changes.granted);
  return answer;
}

PermitQueue::Changes PermitQueue::set_limit(std::uint64_t limit) {
  Changes changes;
  limit_ = limit;
  for (auto waiter = waiting_.begin(); waiter != waiting_.end();) {
    if (waiter->second > limit_) {
      changes.evicted.push_back(waiter->first);
      waiter = waiting_.erase(waiter);
    } else {
      ++waiter;
    }
  }
  grant_heads(changes.granted);
  return changes;
}

}  // namespace towline::policy
