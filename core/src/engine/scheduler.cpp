// Scheduler: see the header for the order of publish and erase.

#include "engine/scheduler.hpp"

#include "base/validate.hpp"
#include "engine/dead_letter_entry.hpp"

namespace towline::engine {

Scheduler::Scheduler(std::shared_ptr<Context> context)
    : context_(std::move(context)),
      catch_up_(static_cast<std::uint64_t>(context_->options.catch_up_rate_per_second)) {}

void Scheduler::step(MonotonicTime wait_until) {
  spi::DueRequest request;
  request.count_max = static_cast<std::size_t>(context_->options.promote_count_max);
  request.lease = context_->options.lease;
  request.deadline = wait_until;
  if (context_->options.catch_up_rate_per_second > 0) {
    const MonotonicTime now = context_->clock->monotonic();
    request.count_max =
        static_cast<std::size_t>(std::min<std::uint64_t>(request.count_max, catch_up_.available(now)));
    if (request.count_max == 0) return;
  }
  auto batch = context_->capabilities.is_store ? context_->store->promote_due(request)
                                               : context_->store->claim_due(request);
  if (!batch) {
    if (batch.error().code == ErrorCode::kIoError) context_->fail(batch.error());
    if (!context_->closed()) context_->log(LogLevel::kWarning, "scheduler", batch.error().to_string());
    return;
  }
  context_->counters.fired.fetch_add(batch->promoted_count, std::memory_order_relaxed);
  (void)catch_up_.take(context_->clock->monotonic(), batch->promoted_count + batch->records.size());
  context_->record_lateness(batch->lateness);
  if (batch->records.empty()) return;
  if (auto relayed = relay(batch->records); !relayed) {
    // The claim lapses and the records come due again.
    context_->log(LogLevel::kWarning, "scheduler", relayed.error().to_string());
  }
}

Result<void> Scheduler::relay(std::vector<spi::ScheduleRecord>& records) {
  const TimePoint now = context_->clock->now();
  std::vector<spi::Envelope> envelopes;
  std::vector<spi::Unit> erase;
  for (spi::ScheduleRecord& record : records) {
    auto gave_up = give_up_if_too_late(record, now);
    if (!gave_up) return std::move(gave_up).error();
    if (*gave_up) continue;
    erase.push_back({{spi::EraseSchedule{record.id, record.version}}});
    envelopes.push_back(std::move(record.envelope));
  }
  if (envelopes.empty()) return {};
  const std::size_t count = envelopes.size();
  auto published = context_->transport->publish(
      envelopes, context_->clock->monotonic() + context_->options.publish_timeout);
  if (!published) return std::move(published).error();
  auto erased = context_->store->commit(erase);
  if (!erased) return std::move(erased).error();
  context_->counters.fired.fetch_add(count, std::memory_order_relaxed);
  return {};
}

Result<bool> Scheduler::give_up_if_too_late(const spi::ScheduleRecord& record, TimePoint now) {
  if (record.skip_if_late_by.count() <= 0 || now - record.due_at <= record.skip_if_late_by) return false;
  EntryFacts facts;
  facts.reason = DeadLetterReason::kExpired;
  facts.error = {"Misfire",
                 "it could fire only " + std::to_string((now - record.due_at).count() / 1000) +
                     " ms late, later than its misfire rule allows",
                 {}};
  facts.now = now;
  facts.id = context_->make_id();
  const spi::Unit unit{{spi::EraseSchedule{record.id, record.version},
                        spi::PutDeadLetter{make_dead_letter(record.envelope, record.envelope.group, facts)}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return true;  // a conflict means that somebody else took the record; either way it is not ours to publish
}

Result<ScheduleAnswer> Scheduler::change(const MessageId& id, const spi::Unit& unit) {
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  if (done->empty() || done->front().ok()) return ScheduleAnswer::kDone;
  const Error& error = done->front().error();
  if (error.code != ErrorCode::kNotFound) return error;
  auto fired = context_->store->has_fired(id);
  if (!fired) return std::move(fired).error();
  return *fired ? ScheduleAnswer::kAlreadyFired : ScheduleAnswer::kNotFound;
}

Result<ScheduleAnswer> Scheduler::cancel(const MessageId& id) {
  auto found = context_->store->find_schedule(id);
  if (!found) return std::move(found).error();
  spi::Unit unit{{spi::EraseSchedule{id, 0}}};
  if (*found) {
    const spi::Envelope& envelope = (*found)->envelope;
    if (!envelope.dedup_id.empty() && envelope.dedup_mode == DedupMode::kWhileUnfinished) {
      unit.writes.push_back(spi::ForgetDedup{envelope.topic, envelope.dedup_id, envelope.id});
    }
  }
  return change(id, unit);
}

Result<ScheduleAnswer> Scheduler::reschedule(const MessageId& id, TimePoint due_at) {
  if (auto bad = base::check_due_at(due_at, context_->clock->now(), context_->options.delay_max); !bad) {
    return std::move(bad).error();
  }
  return change(id, spi::Unit{{spi::MoveSchedule{id, 0, due_at}}});
}

Result<Page<Scheduled>> Scheduler::pending(std::string_view topic, std::size_t count_max,
                                           std::string_view cursor) {
  if (count_max < 1 || count_max > 1000) {
    return Error{ErrorCode::kInvalidArgument,
                 "count_max is " + std::to_string(count_max) + ", but must be between 1 and 1000"};
  }
  spi::ScheduleQuery query;
  query.topic = std::string(topic);
  query.count_max = count_max;
  query.cursor = std::string(cursor);
  auto page = context_->store->list_schedule(query);
  if (!page) return std::move(page).error();
  Page<Scheduled> out;
  out.cursor = std::move(page->cursor);
  out.items.reserve(page->items.size());
  for (spi::ScheduleRecord& record : page->items) {
    out.items.push_back({record.id, std::move(record.envelope.topic), std::move(record.envelope.key),
                         record.due_at, std::move(record.envelope.group), record.envelope.attempt,
                         record.payload_size});
  }
  return out;
}

}  // namespace towline::engine
