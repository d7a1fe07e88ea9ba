// The store half: commits, due records, reads.

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "drivers/memory/provider.hpp"

namespace towline::drivers::memory {
namespace {

// Due times are of the wall clock, waits of the monotonic one: a step of the wall clock is noticed within
// this.
constexpr Duration kWallCheck = std::chrono::seconds(1);

}  // namespace

MemoryStore::MemoryStore(Handle handle) : handle_(std::move(handle)) {
  const std::lock_guard lock(handle_.hub->mutex);
  handle_.hub->due_waiters.push_back(&waiter_);
}

MemoryStore::~MemoryStore() {
  const std::lock_guard lock(handle_.hub->mutex);
  std::erase(handle_.hub->due_waiters, &waiter_);
}

Result<std::vector<Result<void>>> MemoryStore::commit(std::span<const spi::Unit> units, spi::Deadline) {
  const Moment now = handle_.now();
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->commit(units, nullptr, now);
}

Result<spi::DueBatch> MemoryStore::wait_for_due(const spi::DueRequest& request, bool promote) {
  Hub& hub = *handle_.hub;
  std::unique_lock lock(hub.mutex);
  for (;;) {
    const Moment now = handle_.now();
    spi::DueBatch batch;
    if (promote) {
      hub.promote_due(request, now, batch);
    } else {
      hub.schedule.take_due(request, now, nullptr, batch);
    }
    const bool found = batch.promoted_count > 0 || !batch.records.empty();
    if (found || request.count_max == 0 || !handle_.waits || now.monotonic >= request.deadline) return batch;
    if (waiter_.woken) {
      waiter_.woken = false;
      return batch;
    }
    Duration wait = kWallCheck;
    if (batch.next_due_at && *batch.next_due_at - now.wall < wait) wait = *batch.next_due_at - now.wall;
    waiter_.waiting = true;
    handle_.clock->wait_until(lock, waiter_.changed, std::min(request.deadline, after(now.monotonic, wait)));
    waiter_.waiting = false;
  }
}

Result<spi::DueBatch> MemoryStore::claim_due(const spi::DueRequest& request) {
  return wait_for_due(request, false);
}

Result<spi::DueBatch> MemoryStore::promote_due(const spi::DueRequest& request) {
  return wait_for_due(request, true);
}

void MemoryStore::wake() noexcept {
  const std::lock_guard lock(handle_.hub->mutex);
  waiter_.woken = true;
  waiter_.changed.notify_all();
}

Result<std::optional<spi::ScheduleRecord>> MemoryStore::find_schedule(const MessageId& id) {
  const std::lock_guard lock(handle_.hub->mutex);
  const spi::ScheduleRecord* record = handle_.hub->schedule.find(id);
  return record == nullptr ? std::nullopt : std::optional(*record);
}

Result<Page<spi::ScheduleRecord>> MemoryStore::list_schedule(const spi::ScheduleQuery& query) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->schedule.list(query);
}

Result<bool> MemoryStore::has_fired(const MessageId& id) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->schedule.has_fired(id);
}

Result<std::vector<spi::KeyBlock>> MemoryStore::list_key_blocks(std::string_view group,
                                                                std::string_view topic,
                                                                std::optional<std::uint32_t> partition) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->schedule.list_blocks(group, topic, partition);
}

Result<std::optional<DeadLetter>> MemoryStore::find_dead_letter(const MessageId& id) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  handle_.hub->dead_letters.end_leases(now);
  const DeadLetter* letter = handle_.hub->dead_letters.find(id);
  return letter == nullptr ? std::nullopt : std::optional(*letter);
}

Result<Page<DeadLetter>> MemoryStore::list_dead_letters(const DeadLetterQuery& query) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  handle_.hub->dead_letters.end_leases(now);
  return handle_.hub->dead_letters.list(query);
}

Result<std::vector<DeadLetterGroup>> MemoryStore::group_dead_letters(const DeadLetterQuery& query) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  handle_.hub->dead_letters.end_leases(now);
  return handle_.hub->dead_letters.group(query);
}

Result<std::optional<MessageId>> MemoryStore::find_dedup(std::string_view topic, std::string_view dedup_id) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->find_dedup(topic, dedup_id, now);
}

Result<std::vector<bool>> MemoryStore::inbox_contains(std::string_view group,
                                                      std::span<const MessageId> ids) {
  const TimePoint now = handle_.clock->now();
  std::vector<bool> contains;
  contains.reserve(ids.size());
  const std::lock_guard lock(handle_.hub->mutex);
  for (const MessageId& id : ids) {
    contains.push_back(handle_.hub->inbox.find(joined(group, bytes_of(id)), now) != nullptr);
  }
  return contains;
}

Result<std::optional<spi::IdempotencyRecord>> MemoryStore::find_idempotency(std::string_view scope,
                                                                            std::string_view key) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  const spi::IdempotencyRecord* record = handle_.hub->idempotency.find(joined(scope, key), now);
  return record == nullptr ? std::nullopt : std::optional(*record);
}

Result<spi::StreamSlice> MemoryStore::read_stream(const spi::StreamRead& read) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->streams(read.space).read(read);
}

Result<Page<StreamInfo>> MemoryStore::list_streams(spi::StreamSpace space, std::string_view prefix,
                                                   std::size_t count_max, std::string_view cursor) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->streams(space).list(prefix, count_max, cursor);
}

Result<std::optional<Snapshot>> MemoryStore::find_snapshot(std::string_view stream) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->events.find_snapshot(stream);
}

Result<std::optional<spi::EventCursor>> MemoryStore::find_event_cursor(std::string_view name) {
  const std::lock_guard lock(handle_.hub->mutex);
  const auto it = handle_.hub->event_cursors.find(std::string(name));
  return it == handle_.hub->event_cursors.end() ? std::nullopt : std::optional(it->second);
}

Result<std::uint64_t> MemoryStore::wait_for_events(spi::StreamSpace space, std::uint64_t after,
                                                   spi::Deadline deadline, const std::stop_token& stop) {
  Hub& hub = *handle_.hub;
  // Takes the mutex, so that it cannot come between looking at `stop` and waiting.
  const std::stop_callback wake(stop, [&hub] {
    const std::lock_guard lock(hub.mutex);
    hub.streams_changed.notify_all();
  });
  std::unique_lock lock(hub.mutex);
  while (handle_.waits && !stop.stop_requested() && hub.streams(space).position_last() <= after &&
         handle_.clock->monotonic() < deadline) {
    handle_.clock->wait_until(lock, hub.streams_changed, deadline);
  }
  return hub.streams(space).position_last();
}

Result<std::optional<SagaInfo>> MemoryStore::find_saga(std::string_view type, std::string_view id) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->sagas.find(type, id);
}

Result<Page<SagaInfo>> MemoryStore::list_sagas(const SagaQuery& query) {
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->sagas.list(query);
}

Result<std::vector<spi::ClientPosition>> MemoryStore::client_positions(std::string_view user,
                                                                       std::string_view client,
                                                                       std::string_view from,
                                                                       std::size_t count_max) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->clients.positions(user, client, from, count_max, now);
}

Result<std::vector<spi::MissedMessages>> MemoryStore::missed_messages(std::string_view user,
                                                                      std::string_view from,
                                                                      std::size_t count_max) {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  return handle_.hub->clients.missed(user, from, count_max, now);
}

Result<std::vector<spi::OutboxEntry>> MemoryStore::read_outbox(std::size_t, spi::Deadline,
                                                               const std::stop_token&) {
  return Error{ErrorCode::kUnsupported, "the memory provider has no SQL, so nobody can write to its outbox"};
}

Result<spi::StoreStatistics> MemoryStore::statistics() {
  const TimePoint now = handle_.clock->now();
  const std::lock_guard lock(handle_.hub->mutex);
  Hub& hub = *handle_.hub;
  hub.dead_letters.end_leases(now);
  spi::StoreStatistics statistics;
  statistics.scheduled = hub.schedule.scheduled_count();
  statistics.parked = hub.schedule.parked_count();
  std::copy(hub.dead_letters.counts().begin(), hub.dead_letters.counts().end(), statistics.dead_letters);
  statistics.idempotency_records = hub.idempotency.size();
  statistics.bytes = hub.meter.used;
  return statistics;
}

Result<spi::SweepReport> MemoryStore::sweep(const spi::SweepRequest& request) {
  const Moment now{request.now, handle_.clock->monotonic()};
  const std::lock_guard lock(handle_.hub->mutex);
  handle_.hub->queue.expire(now);
  handle_.hub->dead_letters.end_leases(now.wall);
  return handle_.hub->sweep(request, now);
}

Result<void> MemoryStore::transact(const std::function<Result<void>(spi::SqlSession&)>&,
                                   std::span<const spi::Unit>, spi::Subscription*) {
  return Error{ErrorCode::kUnsupported,
               "the memory provider has no SQL; open a sqlite: URL for handler transactions"};
}

}  // namespace towline::drivers::memory
