// The leader leaves after one batch, and wakes the first of those who came meanwhile; but whoever comes by
// before that one is awake may lead as well, and then takes the others along. A thread that publishes in a
// loop so goes on leading without waiting for another to be scheduled.
//
// The results are handed out without the lock. A waiter's op is gone as soon as its state says so, therefore
// nothing of it is touched afterwards but the address.

#include "drivers/sqlite/writer.hpp"

#include <algorithm>
#include <thread>
#include <utility>

namespace towline::drivers::sqlite {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr Duration kPatienceMax = std::chrono::hours(1);
/// How often one that has lost patience, but is in a batch, looks whether it was put back.
constexpr Duration kPutBackLook = std::chrono::milliseconds(100);

Duration wait_of(SteadyTime patient_until) {
  const auto left = std::chrono::ceil<Duration>(patient_until - std::chrono::steady_clock::now());
  return left > Duration(0) ? std::min(left, kPatienceMax) : kPutBackLook;
}

}  // namespace

Writer::Batch Writer::take(const Op& own) {
  Batch batch;
  std::size_t count = 0;
  std::size_t bytes = 0;
  while (!queue_.empty()) {
    Op* op = queue_.front();
    if (op->alone && (op != &own || !batch.empty())) break;
    const bool fits =
        batch.empty() || (count + op->count <= bounds_.count_max && bytes + op->bytes <= bounds_.bytes_max);
    if (!fits) break;
    queue_.pop_front();
    op->state_.store(Op::kTaken, std::memory_order_relaxed);
    batch.push_back(op);
    count += op->count;
    bytes += op->bytes;
    if (op->alone) break;
  }
  return batch;
}

void Writer::wait_for_company(std::unique_lock<std::mutex>& lock) {
  // Those of the last batch who publish in a loop are about to come back; a commit costs more than letting
  // them run once.
  if (batch_size_last_ < 2 || queue_.size() >= batch_size_last_) return;
  lock.unlock();
  std::this_thread::yield();
  lock.lock();
}

void Writer::finish(Op& op) noexcept {
  Word& state = op.state_;
  state.store(Op::kDone, std::memory_order_release);
  futex_wake(state, 1, Reach::kThreads);
}

void Writer::put_back(std::span<Op* const> ops) {
  const std::lock_guard lock(mutex_);
  for (Op* op : ops)
    op->state_.store(Op::kQueued, std::memory_order_relaxed);
  queue_.insert(queue_.begin(), ops.begin(), ops.end());
}

void Writer::give_up_queued(std::chrono::steady_clock::time_point now, const Error& error) {
  Batch late;
  {
    const std::lock_guard lock(mutex_);
    const auto first_late = std::stable_partition(queue_.begin(), queue_.end(),
                                                  [&](const Op* op) { return op->patient_until_ > now; });
    late.assign(first_late, queue_.end());
    queue_.erase(first_late, queue_.end());
    // From here on they are ours: one that looks at its own watch now must not leave.
    for (Op* op : late)
      op->state_.store(Op::kTaken, std::memory_order_relaxed);
  }
  for (Op* op : late) {
    op->error = error;
    finish(*op);
  }
}

void Writer::let_lead(Op& op) noexcept {
  Word& state = op.state_;
  state.store(Op::kMayLead, std::memory_order_relaxed);
  futex_wake(state, 1, Reach::kThreads);
}

void Writer::lead(std::unique_lock<std::mutex>& lock, Op& own) {
  led_ = true;
  wait_for_company(lock);
  Batch batch = take(own);
  batch_size_last_ = batch.size();
  lock.unlock();
  run_(batch, own);
  lock.lock();
  led_ = false;
  if (!queue_.empty() && queue_.front() != &own) let_lead(*queue_.front());
  lock.unlock();
  for (Op* op : batch) {
    if (op != &own) finish(*op);
  }
  if (std::find(batch.begin(), batch.end(), &own) != batch.end()) {
    own.state_.store(Op::kDone, std::memory_order_relaxed);
  }
}

bool Writer::withdraw(Op& op) {
  if (std::chrono::steady_clock::now() < op.patient_until_) return false;
  const std::lock_guard lock(mutex_);
  // One that may lead has to, or nobody would.
  if (op.state_.load(std::memory_order_relaxed) != Op::kQueued) return false;
  std::erase(queue_, &op);
  op.error = Error{ErrorCode::kTimeout,
                   "another write to the store, such as a handler's transaction, took longer than there was "
                   "time to wait; nothing was changed"};
  return true;
}

void Writer::submit(Op& op) {
  op.patient_until_ = op.patience == kEndlessPatience
                          ? SteadyTime::max()
                          : std::chrono::steady_clock::now() + std::min(op.patience, kPatienceMax);
  std::unique_lock lock(mutex_);
  queue_.push_back(&op);
  for (;;) {
    if (!lock.owns_lock()) lock.lock();
    std::uint32_t state = op.state_.load(std::memory_order_acquire);
    if (state == Op::kMayLead) {
      op.state_.store(Op::kQueued, std::memory_order_relaxed);
      state = Op::kQueued;
    }
    if (state == Op::kQueued && !led_) {
      // It is in the queue, so the queue is not empty.
      if (!queue_.front()->alone || queue_.front() == &op) {
        lead(lock, op);
        // Another batch may have taken it, when it did not fit into this one.
        if (op.state_.load(std::memory_order_acquire) == Op::kDone) return;
        continue;
      }
      let_lead(*queue_.front());
    }
    lock.unlock();
    // A batch that takes it changes its state without waking; the end of that batch wakes.
    while (state == Op::kQueued || state == Op::kTaken) {
      if (state == Op::kQueued && withdraw(op)) return;
      futex_wait(op.state_, state, wait_of(op.patient_until_).count(), Reach::kThreads);
      state = op.state_.load(std::memory_order_acquire);
    }
    if (state == Op::kDone) return;
  }
}

}  // namespace towline::drivers::sqlite
