// EventDesk; see the header. Each subscription has one batch out at most, so its id is enough to tell which.

#include "port/event_desk.hpp"

#include <utility>

#include <towline/consumer.hpp>

namespace towline::port {

EventHandler EventDesk::handler(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  if (!shut_) seats_.insert_or_assign(id, Seat{});
  return [desk = shared_from_this(), id](std::span<const RecordedEvent> events) { desk->work(id, events); };
}

void EventDesk::work(std::uint64_t id, std::span<const RecordedEvent> events) {
  Event event;
  event.kind = Event::Kind::kEvents;
  event.id = id;
  event.events.assign(events.begin(), events.end());
  std::unique_lock lock(mutex_);
  const auto find = [&] {
    const auto found = seats_.find(id);
    return found == seats_.end() ? nullptr : &found->second;
  };
  if (Seat* seat = find()) {
    seat->is_out = true;  // before it can be finished
    lock.unlock();
    mailbox_->put(std::move(event));
    lock.lock();
  }
  Seat* seat = nullptr;
  changed_.wait(lock, [&] { return (seat = find()) == nullptr || !seat->is_out; });
  if (seat == nullptr) throw Exception({ErrorCode::kClosed, "nobody handles these events any more"});
  if (auto error = std::exchange(seat->error, std::nullopt))
    throw HandlerError(std::move(error->type), std::move(error->message));
}

void EventDesk::finish(std::uint64_t id, std::optional<ErrorInfo> error) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = seats_.find(id);
    if (found == seats_.end() || !std::exchange(found->second.is_out, false)) return;
    found->second.error = std::move(error);
  }
  changed_.notify_all();
}

void EventDesk::leave(std::uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    seats_.erase(id);
  }
  changed_.notify_all();
}

void EventDesk::shut() {
  {
    const std::lock_guard lock(mutex_);
    shut_ = true;
    seats_.clear();
  }
  changed_.notify_all();
}

}  // namespace towline::port
