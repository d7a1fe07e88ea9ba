// Scheduler: see the header for the order of publish and erase.

#include "engine/scheduler.hpp"

#include "base/validate.hpp"

namespace towline::engine {
namespace {

/// After an error of the provider.
constexpr Duration kErrorPause = std::chrono::milliseconds(100);

}  // namespace

Scheduler::Scheduler(std::shared_ptr<Context> context)
    : context_(std::move(context)),
      catch_up_(static_cast<std::uint64_t>(context_->options.catch_up_rate_per_second)) {}

MonotonicTime Scheduler::step(MonotonicTime wait_until) {
  spi::DueRequest request;
  request.count_max = static_cast<std::size_t>(context_->options.promote_count_max);
  request.lease = context_->options.lease;
  request.deadline = wait_until;
  const MonotonicTime begin = context_->clock->monotonic();
  request.count_max =
      static_cast<std::size_t>(std::min<std::uint64_t>(request.count_max, catch_up_.available(begin)));
  if (request.count_max == 0) return catch_up_.ready_at(begin);
  auto batch = context_->capabilities.is_store ? context_->store->promote_due(request)
                                               : context_->store->claim_due(request);
  const MonotonicTime now = context_->clock->monotonic();
  if (!batch) {
    if (batch.error().code == ErrorCode::kIoError) context_->fail(batch.error());
    if (!context_->closed()) context_->log(LogLevel::kWarning, "scheduler", batch.error().to_string());
    return now + kErrorPause;
  }
  context_->counters.fired.fetch_add(batch->promoted_count, std::memory_order_relaxed);
  (void)catch_up_.take(now, batch->promoted_count + batch->records.size());
  context_->record_lateness(batch->lateness);
  if (batch->records.empty()) return now;
  if (auto relayed = relay(batch->records); !relayed) {
    // The claim lapses and the records come due again.
    context_->log(LogLevel::kWarning, "scheduler", relayed.error().to_string());
    return now + kErrorPause;
  }
  return now;
}

Result<void> Scheduler::relay(std::vector<spi::ScheduleRecord>& records) {
  const TimePoint now = context_->clock->now();
  std::vector<spi::Envelope> envelopes;
  std::vector<spi::Unit> erase;
  std::vector<Duration> lateness;
  for (spi::ScheduleRecord& record : records) {
    auto gave_up = give_up_if_too_late(record, now);
    if (!gave_up) return std::move(gave_up).error();
    if (*gave_up) continue;
    erase.push_back({{spi::EraseSchedule{record.id, record.version}}});
    lateness.push_back(now - record.due_at);
    envelopes.push_back(std::move(record.envelope));
  }
  if (envelopes.empty()) return {};
  auto published = context_->transport->publish(
      envelopes, context_->clock->monotonic() + context_->options.publish_timeout);
  if (!published) return std::move(published).error();
  // What the transport rejected is nowhere but in the schedule, so it must not be erased.
  for (std::size_t i = published->size(); i-- > 0;) {
    if (!(*published)[i].rejected) continue;
    give_up_if_rejected(std::get<spi::EraseSchedule>(erase[i].writes.front()), *(*published)[i].rejected);
    erase.erase(erase.begin() + static_cast<std::ptrdiff_t>(i));
    lateness.erase(lateness.begin() + static_cast<std::ptrdiff_t>(i));
  }
  auto erased = context_->store->commit(erase);
  if (!erased) return std::move(erased).error();
  context_->counters.fired.fetch_add(erase.size(), std::memory_order_relaxed);
  context_->record_lateness(lateness);
  return {};
}

void Scheduler::give_up_if_rejected(const spi::EraseSchedule& claimed, const Error& error) {
  context_->log(LogLevel::kWarning, "scheduler", error.to_string());
  if (error.retryable()) return;  // the claim lapses and the record comes due again
  auto record = context_->store->find_schedule(claimed.id);
  if (!record || !*record) return;
  EntryFacts facts;
  facts.reason = DeadLetterReason::kPublishFailed;
  facts.error = {std::string(error.wire_code()), error.message, {}};
  if (auto done = give_up(**record, claimed.version, std::move(facts)); !done)
    context_->log(LogLevel::kWarning, "scheduler", done.error().to_string());
}

Result<void> Scheduler::give_up(const spi::ScheduleRecord& record, spi::Version version, EntryFacts facts) {
  const spi::Envelope& envelope = record.envelope;
  facts.now = context_->clock->now();
  facts.id = context_->make_id();
  spi::Unit unit{{spi::EraseSchedule{record.id, version},
                  spi::PutDeadLetter{make_dead_letter(envelope, envelope.group, facts)}}};
  if (envelope.dedup_mode == DedupMode::kWhileUnfinished && !envelope.dedup_id.empty())
    unit.writes.push_back(spi::ForgetDedup{envelope.topic, envelope.dedup_id, envelope.id});
  if (envelope.heads_key) {
    // Its key waits for it, and it does not come any more.
    auto blocks = context_->store->list_key_blocks(envelope.group, envelope.topic, envelope.partition);
    if (!blocks) return std::move(blocks).error();
    for (const spi::KeyBlock& block : *blocks) {
      if (block.head != envelope.id) continue;
      unit.writes.push_back(spi::UnparkNext{block.group, block.topic, block.key, block.partition,
                                            context_->clock->now(), envelope.id});
    }
  }
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  // A conflict means that somebody else took the record, and then it is theirs.
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
  if (auto done = give_up(record, record.version, std::move(facts)); !done) return std::move(done).error();
  return true;
}

namespace {

spi::Unit cancelling(const MessageId& id) { return {{spi::EraseSchedule{id, 0, true}}}; }

}  // namespace

Result<ScheduleAnswer> Scheduler::change(const MessageId& id, const spi::Unit& unit) {
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return answer_of(id, done->empty() ? Result<void>{} : done->front());
}

Result<ScheduleAnswer> Scheduler::answer_of(const MessageId& id, const Result<void>& done) {
  if (done.ok()) return ScheduleAnswer::kDone;
  const Error& error = done.error();
  // Claimed: its claimer publishes it, or has done so and could not say it yet. Nobody can take that back.
  if (error.code == ErrorCode::kConflict) return ScheduleAnswer::kAlreadyFired;
  if (error.code != ErrorCode::kNotFound) return error;
  auto fired = context_->store->has_fired(id);
  if (!fired) return std::move(fired).error();
  return *fired ? ScheduleAnswer::kAlreadyFired : ScheduleAnswer::kNotFound;
}

Result<ScheduleAnswer> Scheduler::cancel(const MessageId& id) { return change(id, cancelling(id)); }

Result<std::vector<ScheduleAnswer>> Scheduler::cancel_batch(const std::vector<MessageId>& ids) {
  if (auto bad = base::check_batch_count(ids.size(), context_->options.batch_count_max); !bad) {
    return std::move(bad).error();
  }
  std::vector<ScheduleAnswer> answers;
  if (ids.empty()) return answers;
  std::vector<spi::Unit> units;
  units.reserve(ids.size());
  for (const MessageId& id : ids)
    units.push_back(cancelling(id));
  auto done = context_->store->commit(units);
  if (!done) return std::move(done).error();
  answers.reserve(ids.size());
  for (std::size_t at = 0; at < ids.size(); ++at) {
    auto answer = answer_of(ids[at], done->empty() ? Result<void>{} : done->at(at));
    if (!answer) return std::move(answer).error();
    answers.push_back(*answer);
  }
  return answers;
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
