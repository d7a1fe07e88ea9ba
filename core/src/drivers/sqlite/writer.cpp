// The leader leaves after one batch, and the first of those who came meanwhile leads the next: nobody waits
// longer than the batch before and its own.

#include "drivers/sqlite/writer.hpp"

namespace towline::drivers::sqlite {

std::vector<Op*> Writer::take() {
  std::vector<Op*> batch;
  std::size_t count = 0;
  std::size_t bytes = 0;
  while (!queue_.empty()) {
    Op* op = queue_.front();
    const bool fits = batch.empty() || (!op->alone && count + op->count <= bounds_.count_max &&
                                        bytes + op->bytes <= bounds_.bytes_max);
    if (!fits) break;
    queue_.pop_front();
    batch.push_back(op);
    count += op->count;
    bytes += op->bytes;
    if (op->alone) break;
  }
  return batch;
}

void Writer::submit(Op& op) {
  std::unique_lock lock(mutex_);
  queue_.push_back(&op);
  if (led_) {
    op.changed_.wait(lock, [&] { return op.state_ != Op::State::kQueued; });
    if (op.state_ == Op::State::kDone) return;
  }
  led_ = true;
  // Whoever leads is the first of the queue, so its own op is in the batch.
  const std::vector<Op*> batch = take();
  lock.unlock();
  run_(batch);
  lock.lock();
  for (Op* other : batch) {
    if (other == &op) continue;
    other->state_ = Op::State::kDone;
    other->changed_.notify_one();
  }
  if (queue_.empty()) {
    led_ = false;
    return;
  }
  queue_.front()->state_ = Op::State::kLead;
  queue_.front()->changed_.notify_one();
}

}  // namespace towline::drivers::sqlite
