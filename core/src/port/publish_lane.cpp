// The engine publishes one batch in one transaction, so the bytes of a batch are bounded as well as its
// count: a long transaction keeps every other writer of the file waiting.

#include "port/publish_lane.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace towline::port {
namespace {

constexpr std::size_t kBatchCountMax = 2'000;
constexpr std::size_t kBatchBytesMax = 1 << 20;

std::size_t bytes_of(const std::vector<Message>& messages) {
  std::size_t bytes = 0;
  for (const Message& message : messages)
    bytes += message.payload.size();
  return bytes;
}

}  // namespace

PublishLane::PublishLane(Engine engine, std::size_t batch_count_max, std::size_t waiting_max, Answer answer)
    : engine_(std::move(engine)),
      batch_count_max_(batch_count_max),
      waiting_max_(waiting_max),
      answer_(std::move(answer)),
      thread_([this] { main(); }) {}

PublishLane::~PublishLane() { shut(); }

void PublishLane::publish(std::uint64_t id, std::vector<Message> messages) {
  std::optional<Error> refused;
  {
    const std::lock_guard lock(mutex_);
    if (shut_) {
      refused = Error{ErrorCode::kClosed, "the engine is closed"};
    } else if (waiting_count_ + messages.size() > waiting_max_ && waiting_count_ > 0) {
      refused = Error{ErrorCode::kOverloaded, std::to_string(waiting_count_) +
                                                  " messages wait to be published; wait for some of them"};
    } else {
      waiting_count_ += messages.size();
      waiting_.push_back({id, std::move(messages)});
    }
  }
  if (refused) return answer_(id, std::move(*refused));
  changed_.notify_one();
}

void PublishLane::main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return !waiting_.empty() || shut_; });
    if (waiting_.empty()) return;
    std::vector<Request> batch;
    std::size_t count = 0;
    std::size_t bytes = 0;
    while (!waiting_.empty()) {
      const std::size_t next_count = waiting_.front().messages.size();
      const std::size_t next_bytes = bytes_of(waiting_.front().messages);
      const bool fits = count + next_count <= std::min(kBatchCountMax, batch_count_max_) &&
                        bytes + next_bytes <= kBatchBytesMax;
      if (!batch.empty() && !fits) break;
      count += next_count;
      bytes += next_bytes;
      batch.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    waiting_count_ -= count;
    lock.unlock();
    run(std::move(batch));
    lock.lock();
  }
}

void PublishLane::run(std::vector<Request> batch) {
  std::vector<std::size_t> counts;
  for (const Request& request : batch)
    counts.push_back(request.messages.size());
  std::vector<Message> messages = std::move(batch.front().messages);
  for (auto more = batch.begin() + 1; more != batch.end(); ++more)
    std::move(more->messages.begin(), more->messages.end(), std::back_inserter(messages));
  auto receipts = engine_.publish_batch(std::move(messages));
  auto from = receipts ? receipts->begin() : std::vector<Receipt>::iterator();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (!receipts) {
      answer_(batch[i].id, receipts.error());
      continue;
    }
    const auto to = from + static_cast<std::ptrdiff_t>(counts[i]);
    answer_(batch[i].id, std::vector<Receipt>(std::make_move_iterator(from), std::make_move_iterator(to)));
    from = to;
  }
}

void PublishLane::shut() {
  {
    const std::lock_guard lock(mutex_);
    shut_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

}  // namespace towline::port
