// Publisher: everything that can be refused is refused before the first byte is written; after that there are
// three outcomes and none is ever reported as another.

#include "engine/publisher.hpp"

#include "base/validate.hpp"
#include "engine/dead_letter_entry.hpp"
#include "policy/backoff.hpp"
#include "policy/partition.hpp"

namespace towline::engine {
namespace {

/// Publishers that may wait for their turn; one more is told so at once.
constexpr std::uint64_t kWaitingMax = 100000;

/// After these the write may or may not be there; after kTimeout it never began.
bool leaves_unknown(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kIoError || code == ErrorCode::kInternal;
}

}  // namespace

Publisher::Publisher(std::shared_ptr<Context> context)
    : context_(std::move(context)),
      in_flight_(static_cast<std::uint64_t>(context_->options.publish_in_flight_count_max), kWaitingMax,
                 context_->clock) {}

Result<Publisher::Prepared> Publisher::prepare(Message&& message, const MessageId& id, TimePoint now,
                                               MonotonicTime begin_by) {
  const EngineOptions& options = context_->options;
  std::size_t payload_max = static_cast<std::size_t>(options.payload_bytes_max);
  if (context_->capabilities.payload_bytes_max > 0) {
    payload_max = std::min(payload_max, context_->capabilities.payload_bytes_max);
  }
  if (auto bad = base::check_message(message, {payload_max, options.delay_max}, now); !bad)
    return std::move(bad).error();
  auto partitions = context_->partition_count(message.topic, begin_by);
  if (!partitions) return std::move(partitions).error();

  Prepared prepared;
  spi::Envelope& envelope = prepared.envelope;
  envelope.id = message.id.empty() ? id : message.id;
  envelope.partition = policy::partition_of(message.key, envelope.id, *partitions);
  envelope.topic = std::move(message.topic);
  envelope.key = std::move(message.key);
  envelope.headers = std::move(message.headers);
  envelope.content_type = std::move(message.content_type);
  envelope.payload = std::move(message.payload);
  envelope.priority = message.priority;
  envelope.correlation_id = std::move(message.correlation_id);
  envelope.causation_id = std::move(message.causation_id);
  envelope.traceparent = std::move(message.traceparent);
  envelope.published_at = now;

  TimePoint due = now;
  if (message.due_at) due = *message.due_at;
  if (message.delay.count() > 0) due = now + message.delay;
  if (due > now) prepared.due_at = due;
  prepared.skip_if_late_by = message.misfire.skip_if_late_by;
  if (message.ttl.count() > 0) envelope.expires_at = std::max(due, now) + message.ttl;
  if (!message.dedup_id.empty()) {
    envelope.dedup_id = std::move(message.dedup_id);
    envelope.dedup_mode = message.dedup_mode;
    envelope.dedup_until = message.dedup_mode == DedupMode::kWindow ? now + options.dedup_window : kNever;
  }
  return prepared;
}

void Publisher::note(Receipt& receipt, const Error& error) {
  if (!leaves_unknown(error.code)) return reject(receipt, error);
  receipt.error = error;
  receipt.outcome = PublishOutcome::kUnknown;
  context_->counters.unknown.fetch_add(1, std::memory_order_relaxed);
}

void Publisher::reject(Receipt& receipt, const Error& error) {
  receipt.error = error;
  receipt.outcome = PublishOutcome::kRejected;
  context_->counters.rejected.fetch_add(1, std::memory_order_relaxed);
}

void Publisher::hold(std::vector<Receipt>& receipts, Direct& direct, TimePoint now, MonotonicTime begin_by) {
  std::vector<spi::Unit> units;
  std::vector<std::size_t> places;
  std::vector<std::optional<spi::ForgetDedup>> held(direct.envelopes.size());
  for (std::size_t i = 0; i < direct.envelopes.size(); ++i) {
    const spi::Envelope& envelope = direct.envelopes[i];
    if (envelope.dedup_id.empty()) continue;
    spi::ScheduleRecord record;
    record.id = envelope.id;
    record.envelope = envelope;
    // If this engine dies before it has published it, another one does then.
    record.due_at = now + context_->options.lease;
    units.push_back({{spi::PutSchedule{std::move(record)}}});
    places.push_back(direct.places[i]);
    held[i] = spi::ForgetDedup{envelope.topic, envelope.dedup_id, envelope.id};
  }
  if (units.empty()) return;
  store_later(receipts, units, places, begin_by);
  Direct left;
  for (std::size_t i = 0; i < direct.envelopes.size(); ++i) {
    const Receipt& receipt = receipts[direct.places[i]];
    if (held[i] && (!receipt.acked() || receipt.duplicate)) continue;
    left.envelopes.push_back(std::move(direct.envelopes[i]));
    left.places.push_back(direct.places[i]);
    left.held.push_back(std::move(held[i]));
  }
  direct = std::move(left);
}

void Publisher::let_go(std::vector<Receipt>& receipts, const Direct& direct,
                       const std::vector<spi::PublishAnswer>& answers) {
  std::vector<spi::Unit> units;
  std::vector<std::size_t> refused;  // of each unit: which of them was rejected for good; SIZE_MAX: none
  for (std::size_t i = 0; i < direct.held.size(); ++i) {
    if (!direct.held[i]) continue;
    const bool rejected = !answers.empty() && answers[i].rejected;
    if (rejected && answers[i].rejected->retryable()) continue;  // it waits in the schedule, and goes later
    spi::Unit& unit = units.emplace_back();
    unit.writes.push_back(spi::EraseSchedule{direct.held[i]->message_id, 1});
    if (rejected) unit.writes.push_back(*direct.held[i]);
    refused.push_back(rejected ? i : SIZE_MAX);
  }
  if (units.empty()) return;
  const auto erased = context_->store->commit(units);
  if (!erased) {
    // They are published once more when they come due; what was rejected becomes a dead letter then.
    context_->log(LogLevel::kWarning, "publisher", erased.error().to_string());
    return;
  }
  for (std::size_t u = 0; u < units.size(); ++u) {
    if (refused[u] == SIZE_MAX || !(erased->empty() || (*erased)[u].ok())) continue;
    note(receipts[direct.places[refused[u]]], *answers[refused[u]].rejected);
    context_->counters.published.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Publisher::store_now(std::vector<Receipt>& receipts, Direct& direct, MonotonicTime begin_by) {
  if (direct.envelopes.empty()) return;
  auto answers = context_->transport->publish(direct.envelopes, begin_by);
  if (!answers) {
    if (answers.error().code == ErrorCode::kIoError) context_->fail(answers.error());
    for (std::size_t i = 0; i < direct.places.size(); ++i) {
      if (!direct.is_held(i)) note(receipts[direct.places[i]], answers.error());
    }
    return;
  }
  std::uint64_t published = 0;
  for (std::size_t i = 0; i < direct.places.size(); ++i) {
    if (direct.is_held(i)) continue;
    Receipt& receipt = receipts[direct.places[i]];
    receipt.outcome = PublishOutcome::kAcked;
    ++published;
    if (answers->empty()) continue;
    spi::PublishAnswer& answer = (*answers)[i];
    if (answer.rejected) {
      note(receipt, *answer.rejected);
      --published;
    } else if (answer.duplicate) {
      receipt.duplicate = true;
      receipt.id = answer.original;
      context_->counters.duplicates.fetch_add(1, std::memory_order_relaxed);
      --published;
    }
  }
  context_->counters.published.fetch_add(published, std::memory_order_relaxed);
  let_go(receipts, direct, *answers);
}

void Publisher::store_later(std::vector<Receipt>& receipts, std::vector<spi::Unit>& units,
                            const std::vector<std::size_t>& places, MonotonicTime begin_by) {
  if (units.empty()) return;
  auto results = context_->store->commit(units, begin_by);
  if (!results) {
    if (results.error().code == ErrorCode::kIoError) context_->fail(results.error());
    for (const std::size_t place : places)
      note(receipts[place], results.error());
    return;
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    Receipt& receipt = receipts[places[i]];
    if (results->empty() || (*results)[i].ok()) {
      receipt.outcome = PublishOutcome::kAcked;
      context_->counters.published.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    const Error& error = (*results)[i].error();
    if (error.code == ErrorCode::kConflict) {
      // The dedup id is known, or this very record is: ask which message was there first.
      const auto& record = std::get<spi::PutSchedule>(units[i].writes.front()).record;
      auto original = context_->store->find_dedup(record.envelope.topic, record.envelope.dedup_id);
      if (original && *original) {
        receipt.outcome = PublishOutcome::kAcked;
        receipt.duplicate = true;
        receipt.id = **original;
        context_->counters.duplicates.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      note(receipt, {error.code, "a message with the id " + record.envelope.id.to_string() +
                                     " waits already; leave the id out, or give a dedup id when a second "
                                     "publish is to count as the first"});
      continue;
    }
    note(receipt, error);
  }
}

Result<std::vector<Receipt>> Publisher::publish_batch(std::vector<Message> messages) {
  if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
  if (auto bad = base::check_batch_count(messages.size(), context_->options.batch_count_max); !bad) {
    return std::move(bad).error();
  }
  std::vector<Receipt> receipts(messages.size());
  if (messages.empty()) return receipts;
  const TimePoint now = context_->clock->now();
  const MonotonicTime begin_by = context_->clock->monotonic() + context_->options.publish_timeout;
  std::vector<MessageId> ids(messages.size());
  context_->make_ids(ids, now);
  Direct direct;
  std::vector<spi::Unit> units;
  std::vector<std::size_t> later_places;
  direct.envelopes.reserve(messages.size());
  direct.places.reserve(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    auto prepared = prepare(std::move(messages[i]), ids[i], now, begin_by);
    if (!prepared) {
      reject(receipts[i], prepared.error());
      continue;
    }
    receipts[i].id = prepared->envelope.id;
    if (!prepared->due_at) {
      direct.envelopes.push_back(std::move(prepared->envelope));
      direct.places.push_back(i);
      continue;
    }
    spi::ScheduleRecord record;
    record.id = prepared->envelope.id;
    record.envelope = std::move(prepared->envelope);
    record.due_at = *prepared->due_at;
    record.skip_if_late_by = prepared->skip_if_late_by;
    units.push_back({{spi::PutSchedule{std::move(record)}}});
    later_places.push_back(i);
  }
  if (auto turn = in_flight_.acquire(context_->options.publish_timeout, context_->stop_token(), 1); !turn) {
    if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
    // Nothing was written, so this is a refusal and not an unknown outcome.
    const Error busy{ErrorCode::kOverloaded,
                     "too many publishers wait (publish_in_flight_count_max is " +
                         std::to_string(context_->options.publish_in_flight_count_max) +
                         "); slow down or raise it"};
    for (const std::size_t place : direct.places)
      note(receipts[place], busy);
    for (const std::size_t place : later_places)
      note(receipts[place], busy);
    return receipts;
  }
  if (!context_->capabilities.is_store) hold(receipts, direct, now, begin_by);
  store_now(receipts, direct, begin_by);
  store_later(receipts, units, later_places, begin_by);
  in_flight_.release(1);
  return receipts;
}

Receipt Publisher::publish(Message message) {
  std::vector<Message> one;
  one.push_back(std::move(message));
  auto receipts = publish_batch(std::move(one));
  if (receipts) return std::move(receipts->front());
  Receipt receipt;
  receipt.error = std::move(receipts).error();
  return receipt;
}

Result<spi::Write> Publisher::as_write(Message message, TimePoint at) {
  const TimePoint now = context_->clock->now();
  auto prepared = prepare(std::move(message), context_->make_id(now), at);
  if (!prepared) return std::move(prepared).error();
  // Others that come with its dedup id are told from now on.
  if (!prepared->envelope.dedup_id.empty() && prepared->envelope.dedup_until != kNever)
    prepared->envelope.dedup_until += now - at;
  return to_write(std::move(*prepared), at);
}

spi::Write Publisher::to_write(Prepared&& prepared, TimePoint now) const {
  if (!prepared.due_at && context_->capabilities.is_store) return spi::Publish{std::move(prepared.envelope)};
  spi::ScheduleRecord record;
  record.id = prepared.envelope.id;
  record.envelope = std::move(prepared.envelope);
  record.due_at = prepared.due_at.value_or(now);
  record.skip_if_late_by = prepared.skip_if_late_by;
  return spi::PutSchedule{std::move(record)};
}

Result<std::vector<spi::Write>> Publisher::as_writes(
    std::span<const RecordedEvent> events, const std::function<std::string(const RecordedEvent&)>& topic_of) {
  const TimePoint now = context_->clock->now();
  std::vector<spi::Write> writes;
  writes.reserve(events.size());
  for (const RecordedEvent& event : events) {
    Message message;
    message.topic = topic_of(event);
    message.payload = event.payload;
    message.key = event.stream;
    message.headers = event.headers;
    message.content_type = event.content_type;
    auto prepared = prepare(std::move(message), event.id, now);
    if (!prepared) return std::move(prepared).error();
    Headers& headers = prepared->envelope.headers;
    headers.emplace_back("towline-stream", event.stream);
    headers.emplace_back("towline-version", std::to_string(event.version));
    headers.emplace_back("towline-position", std::to_string(event.position));
    headers.emplace_back("towline-event-type", event.type);
    writes.push_back(to_write(std::move(*prepared), now));
  }
  return writes;
}

Result<spi::Envelope> Publisher::as_copy(std::string_view conversation, const RecordedEvent& message,
                                         const std::string& topic) {
  Message copy;
  copy.topic = topic;
  copy.payload = message.payload;
  copy.key = std::string(conversation);
  copy.headers = message.headers;
  copy.content_type = message.content_type;
  auto prepared = prepare(std::move(copy), message.id, message.recorded_at);
  if (!prepared) return std::move(prepared).error();
  Headers& headers = prepared->envelope.headers;
  headers.emplace_back("towline-conversation", conversation);
  headers.emplace_back("towline-sender", message.type);
  return std::move(prepared->envelope);
}

Receipt Publisher::publish_with_retry(Message message, const RetryOptions& retry,
                                      std::optional<Duration> timeout) {
  Receipt receipt;
  if (auto bad = validate(retry); !bad) {
    receipt.error = std::move(bad).error();
    return receipt;
  }
  if (auto bad = policy::check_retry(retry); !bad) {
    receipt.error = std::move(bad).error();
    return receipt;
  }
  // What is unknown may only be repeated when the repetition is recognised.
  if (message.dedup_id.empty()) message.dedup_id = "towline-" + context_->make_id().to_string();
  const MonotonicTime begin = context_->clock->monotonic();
  base::SeededRng rng = context_->make_rng();
  Duration previous{0};
  for (std::uint32_t failures = 1;; ++failures) {
    receipt = publish(message);
    if (receipt.acked() || !receipt.error.retryable()) {
      if (receipt.acked() || receipt.outcome == PublishOutcome::kRejected) return receipt;
    }
    const ErrorInfo error{std::string(receipt.error.wire_code()), receipt.error.message, {}};
    const auto wait = policy::retry_delay(retry, failures, previous, error, rng);
    const bool in_time =
        !timeout || (context_->clock->monotonic() - begin) + wait.value_or(Duration{0}) <= *timeout;
    const bool stopped = context_->closed() || receipt.error.code == ErrorCode::kIoError;
    if (!wait || failures >= retry.max_attempts || !in_time || stopped) break;
    previous = *wait;
    context_->pause_until(context_->clock->monotonic() + *wait);
  }
  give_up(std::move(message), receipt);
  return receipt;
}

void Publisher::give_up(Message message, Receipt& receipt) {
  const TimePoint now = context_->clock->now();
  auto prepared = prepare(std::move(message), receipt.id.empty() ? context_->make_id(now) : receipt.id, now);
  if (!prepared) return;
  EntryFacts facts;
  facts.id = context_->make_id();
  facts.reason = DeadLetterReason::kPublishFailed;
  facts.error = {std::string(receipt.error.wire_code()), receipt.error.message, {}};
  facts.now = now;
  const spi::Unit unit{{spi::PutDeadLetter{make_dead_letter(prepared->envelope, "", facts)}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done || (!done->empty() && !done->front().ok())) {
    receipt.error.message += "; it could not be dead-lettered either: " +
                             (done ? done->front().error().message : done.error().message);
  } else {
    receipt.error.message += "; it is dead letter " + facts.id.to_string();
  }
}

}  // namespace towline::engine
