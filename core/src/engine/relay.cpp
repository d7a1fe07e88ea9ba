// Relay: a batch of entries is one unit. When that is refused because of one of them, they are tried one by
// one, in order, up to the first that has to wait.

#include "engine/relay.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/dead_letter_entry.hpp"
#include "policy/backoff.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kBatchCountMax = 256;

/// From a tenth of a second on, as everything that waits for its provider to come back.
RetryOptions retry_of_outages() {
  RetryOptions retry;
  retry.initial_delay = std::chrono::milliseconds(100);
  retry.delay_max = std::chrono::seconds(10);
  return retry;
}

/// Whether it is the message that cannot be published, and not the store or the engine that cannot do it now.
bool blames_message(const Error& error) noexcept {
  switch (error.code) {
    case ErrorCode::kInvalidTopic:
    case ErrorCode::kInvalidKey:
    case ErrorCode::kInvalidId:
    case ErrorCode::kInvalidHeader:
    case ErrorCode::kReservedHeader:
    case ErrorCode::kHeadersTooLarge:
    case ErrorCode::kPayloadTooLarge:
    case ErrorCode::kInvalidDelay:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kConflict:
      return true;
    default:
      return false;
  }
}

/// Somebody else has relayed the entry.
bool is_gone(const Result<void>& done) noexcept { return !done && done.error().code == ErrorCode::kNotFound; }

const spi::Envelope& envelope_of(const spi::Write& write) {
  const auto* publish = std::get_if<spi::Publish>(&write);
  return publish != nullptr ? publish->envelope : std::get<spi::PutSchedule>(write).record.envelope;
}

/// For a dead letter: what the entry says, as it is.
spi::Envelope envelope_of(const spi::OutboxEntry& entry, const MessageId& id) {
  const Message& message = entry.message;
  spi::Envelope envelope;
  envelope.id = message.id.empty() ? id : message.id;
  envelope.topic = message.topic;
  envelope.key = message.key;
  envelope.headers = message.headers;
  envelope.content_type = message.content_type;
  envelope.payload = message.payload;
  envelope.priority = message.priority;
  envelope.correlation_id = message.correlation_id;
  envelope.causation_id = message.causation_id;
  envelope.traceparent = message.traceparent;
  envelope.published_at = entry.written_at;
  return envelope;
}

}  // namespace

Relay::Relay(std::shared_ptr<Context> context, Publisher& publisher)
    : context_(std::move(context)),
      publisher_(publisher),
      retry_(retry_of_outages()) {}

MonotonicTime Relay::step(MonotonicTime wait_until) {
  if (context_->clock->monotonic() < not_before_) return not_before_;
  auto entries = context_->store->read_outbox(kBatchCountMax, wait_until, context_->stop_token());
  if (!entries) return fail(entries.error());
  if (!entries->empty()) {
    if (auto done = relay(*entries); !done) return fail(done.error());
  }
  failures_ = 0;
  backoff_ = Duration{0};
  return context_->clock->monotonic();
}

bool Relay::busy() const {
  const auto entries = context_->store->read_outbox(1, MonotonicTime::min(), context_->stop_token());
  return entries && !entries->empty();
}

MonotonicTime Relay::fail(const Error& error) {
  if (error.code == ErrorCode::kIoError) context_->fail(error);
  if (!context_->closed()) context_->log(LogLevel::kWarning, "relay", error.to_string());
  failures_ = std::min<std::uint32_t>(failures_ + 1, 1000);
  const ErrorInfo info{std::string(error.wire_code()), error.message, {}};
  if (!rng_) rng_.emplace(context_->make_rng());
  backoff_ = policy::retry_delay(retry_, failures_, backoff_, info, *rng_).value_or(retry_.delay_max);
  not_before_ = context_->clock->monotonic() + backoff_;
  return not_before_;
}

Result<void> Relay::relay(std::vector<spi::OutboxEntry>& entries) {
  const TimePoint now = context_->clock->now();
  Plan plan;
  for (spi::OutboxEntry& entry : entries) {
    // The clock of who wrote it may be ahead of ours, and then a delay would last longer than it should.
    entry.written_at = std::min(entry.written_at, now);
    if (auto added = add(plan, entry); !added) return added;
  }
  auto done = commit(plan);
  if (!done) return std::move(done).error();
  // What others have relayed meanwhile is not there at the next look.
  if (*done || is_gone(*done)) return {};
  return done->error().retryable() ? *done : relay_each(entries);
}

Result<void> Relay::relay_each(std::span<const spi::OutboxEntry> entries) {
  for (const spi::OutboxEntry& entry : entries) {
    Plan plan;
    if (auto added = add(plan, entry); !added) return added;
    auto done = commit(plan);
    if (!done) return std::move(done).error();
    if (*done || is_gone(*done)) continue;
    if (done->error().retryable() || plan.refused > 0) return *done;
    Plan refusal;
    add_dead_letter(refusal, entry, done->error());
    auto kept = commit(refusal);
    if (!kept) return std::move(kept).error();
    if (!*kept && !is_gone(*kept)) return *kept;
  }
  return {};
}

Result<void> Relay::add(Plan& plan, const spi::OutboxEntry& entry) {
  auto write = publisher_.as_write(entry.message, entry.written_at);
  if (!write) {
    if (!blames_message(write.error())) return std::move(write).error();
    add_dead_letter(plan, entry, write.error());
    return {};
  }
  auto known = is_known(plan, envelope_of(*write));
  if (!known) return std::move(known).error();
  if (!*known) plan.unit.writes.push_back(std::move(*write));
  plan.unit.writes.emplace_back(spi::EraseOutboxEntry{entry.number});
  ++plan.relayed;
  return {};
}

Result<bool> Relay::is_known(const Plan& plan, const spi::Envelope& envelope) {
  if (envelope.dedup_id.empty()) return false;
  for (const spi::Write& write : plan.unit.writes) {
    if (!std::holds_alternative<spi::Publish>(write) && !std::holds_alternative<spi::PutSchedule>(write))
      continue;
    const spi::Envelope& other = envelope_of(write);
    if (other.topic == envelope.topic && other.dedup_id == envelope.dedup_id) return true;
  }
  auto holder = context_->store->find_dedup(envelope.topic, envelope.dedup_id);
  if (!holder) return std::move(holder).error();
  return holder->has_value();
}

void Relay::add_dead_letter(Plan& plan, const spi::OutboxEntry& entry, const Error& error) {
  EntryFacts facts;
  facts.now = context_->clock->now();
  facts.id = context_->make_id(facts.now);
  facts.reason = DeadLetterReason::kPublishFailed;
  facts.error = {std::string(error.wire_code()), error.message, {}};
  const spi::Envelope envelope = envelope_of(entry, context_->make_id(facts.now));
  plan.unit.writes.emplace_back(spi::PutDeadLetter{make_dead_letter(envelope, "", facts)});
  plan.unit.writes.emplace_back(spi::EraseOutboxEntry{entry.number});
  ++plan.refused;
}

Result<Result<void>> Relay::commit(const Plan& plan) {
  auto done = context_->store->commit({&plan.unit, 1});
  if (!done) return std::move(done).error();
  if (!done->empty() && !done->front()) return Result<void>(std::move(done->front()).error());
  context_->counters.relayed.fetch_add(plan.relayed, std::memory_order_relaxed);
  context_->counters.refused.fetch_add(plan.refused, std::memory_order_relaxed);
  return Result<void>{};
}

}  // namespace towline::engine
