// One lock, held for moves and map operations only; ringing happens behind it, once per filling.

#include "port/mailbox.hpp"

#include <algorithm>
#include <chrono>

namespace towline::port {

void Mailbox::leave(std::unique_lock<std::mutex>& lock, bool was_empty) {
  if (!was_empty || events_.empty() || shut_) return;
  lock.unlock();
  filled_.notify_all();
  if (!ring_) return;
  const std::lock_guard ringing(ringing_);
  lock.lock();
  const bool shut = shut_;
  lock.unlock();
  if (!shut) ring_();
}

void Mailbox::put(Event event) {
  std::unique_lock lock(mutex_);
  if (shut_) return;
  const bool was_empty = events_.empty();
  events_.push_back(std::move(event));
  leave(lock, was_empty);
}

void Mailbox::put_log(const LogRecord& record) {
  Event event;
  event.kind = Event::Kind::kLog;
  event.log =
      std::make_unique<Event::Log>(record.level, std::string(record.station), std::string(record.text));
  std::unique_lock lock(mutex_);
  if (shut_) return;
  if (log_count_ >= log_count_max_) {
    ++logs_dropped_;
    return;
  }
  if (logs_dropped_ > 0) {
    event.log->text += " (" + std::to_string(logs_dropped_) + " records before this one were dropped)";
    logs_dropped_ = 0;
  }
  ++log_count_;
  const bool was_empty = events_.empty();
  events_.push_back(std::move(event));
  leave(lock, was_empty);
}

void Mailbox::deliver(std::uint64_t consumer_id, std::span<Delivery> deliveries, bool is_batch) {
  std::unique_lock lock(mutex_);
  if (shut_) return;
  const bool was_empty = events_.empty();
  std::size_t left = deliveries.size();
  for (Delivery& delivery : deliveries) {
    --left;
    const std::uint64_t number = delivery.number();
    out_.emplace(number, delivery);
    Event event;
    event.kind = Event::Kind::kDelivery;
    event.id = consumer_id;
    event.delivery = std::move(delivery);
    if (is_batch) event.batch_left = left;
    events_.push_back(std::move(event));
  }
  leave(lock, was_empty);
}

void Mailbox::stop(const Delivery& delivery) {
  std::unique_lock lock(mutex_);
  if (shut_) return;
  const bool was_empty = events_.empty();
  Event event;
  event.kind = Event::Kind::kStop;
  event.id = delivery.number();
  events_.push_back(std::move(event));
  leave(lock, was_empty);
}

std::vector<Finished> Mailbox::take(std::span<Port::Finish> finished) {
  std::vector<Finished> taken;
  taken.reserve(finished.size());
  const std::lock_guard lock(mutex_);
  for (Port::Finish& one : finished) {
    const auto it = out_.find(one.number);
    if (it == out_.end()) continue;
    taken.push_back({std::move(it->second), std::move(one.outcome)});
    out_.erase(it);
  }
  return taken;
}

std::vector<Event> Mailbox::drain(std::size_t count_max) {
  std::unique_lock lock(mutex_);
  const std::size_t count = std::min(count_max, events_.size());
  std::vector<Event> taken;
  taken.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (events_.front().kind == Event::Kind::kLog) --log_count_;
    taken.push_back(std::move(events_.front()));
    events_.pop_front();
  }
  // Whoever was rung for the first takes so many at a time; what is left needs a ring of its own.
  leave(lock, count > 0);
  return taken;
}

bool Mailbox::poll(Duration timeout) {
  std::unique_lock lock(mutex_);
  filled_.wait_for(lock, timeout, [&] { return !events_.empty() || shut_; });
  return !events_.empty() && !shut_;
}

std::size_t Mailbox::open_count() const {
  const std::lock_guard lock(mutex_);
  return out_.size();
}

void Mailbox::shut() {
  std::unordered_map<std::uint64_t, Delivery> out;
  {
    const std::lock_guard lock(mutex_);
    shut_ = true;
    out.swap(out_);
  }
  filled_.notify_all();
  const std::lock_guard ringing(ringing_);
}

}  // namespace towline::port
