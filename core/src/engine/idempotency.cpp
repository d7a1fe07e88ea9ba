// Idempotency; see the header for the compare-and-sets.

#include "engine/idempotency.hpp"

#include <algorithm>

#include "base/validate.hpp"

namespace towline::engine {
namespace {

constexpr Duration kAskAgain = std::chrono::milliseconds(20);

Result<void> check(std::string_view key, const IdempotencyOptions& options) {
  if (auto bad = validate(options); !bad) return bad;
  if (auto bad = check_idempotency(options.scope, key); !bad) return bad;
  return base::check_key(options.fingerprint, "idempotency.fingerprint");
}

}  // namespace

Result<void> check_idempotency(std::string_view scope, std::string_view key) {
  if (key.empty() || key.size() > base::kKeyLengthMax) {
    return Error{ErrorCode::kInvalidKey, "the idempotency key has " + std::to_string(key.size()) +
                                             " bytes, but must have 1 to " +
                                             std::to_string(base::kKeyLengthMax)};
  }
  return scope.empty() ? Result<void>{} : base::check_name(scope, "idempotency.scope");
}

Result<void> check_result_size(const Context& context, const Bytes& result) {
  const auto max = static_cast<std::size_t>(context.options.payload_bytes_max);
  if (result.size() <= max) return {};
  return Error{ErrorCode::kPayloadTooLarge, "the result has " + std::to_string(result.size()) +
                                                " bytes, but payload_bytes_max is " + std::to_string(max)};
}

Result<void> Idempotency::write(const spi::IdempotencyRecord& record, spi::Version expected) {
  const spi::Unit unit{{spi::PutIdempotency{record, expected}}};
  auto done = context_->store->commit({&unit, 1});
  if (!done) return std::move(done).error();
  return done->empty() ? Result<void>{} : done->front();
}

Result<IdempotencyAnswer> Idempotency::acquire(spi::IdempotencyRecord record,
                                               const IdempotencyOptions& options, TimePoint now) {
  const spi::Version expected = record.version;
  record.state = spi::IdempotencyRecord::State::kInProgress;
  record.fingerprint = options.fingerprint;
  ++record.fence;
  record.lease_until = now + options.lease;
  record.has_result = false;
  record.result.clear();
  record.content_type.clear();
  record.expires_at = now + options.lease + options.ttl;
  if (auto done = write(record, expected); !done) return std::move(done).error();
  IdempotencyAnswer answer;
  answer.kind = IdempotencyAnswer::Kind::kAcquired;
  answer.token = {record.scope, record.key, record.fence, expected + 1};
  return answer;
}

Result<IdempotencyAnswer> Idempotency::begin(std::string_view key, const IdempotencyOptions& options) {
  if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
  if (auto bad = check(key, options); !bad) return std::move(bad).error();
  // A conflict means that somebody was faster; then the record says what became of it. Each round has a
  // winner, so a caller loses many in a row only while others make progress.
  for (int round = 0; round < 100; ++round) {
    auto found = context_->store->find_idempotency(options.scope, key);
    if (!found) return std::move(found).error();
    const TimePoint now = context_->clock->now();
    spi::IdempotencyRecord record;
    if (*found) record = std::move(**found);
    const bool alive = *found && record.expires_at > now;
    if (alive && !options.fingerprint.empty() && !record.fingerprint.empty() &&
        record.fingerprint != options.fingerprint && record.state != spi::IdempotencyRecord::State::kFailed) {
      return Error{ErrorCode::kKeyMismatch,
                   "this idempotency key was used before with another payload (fingerprint)"};
    }
    if (alive && record.state == spi::IdempotencyRecord::State::kDone && record.has_result) {
      IdempotencyAnswer answer;
      answer.kind = IdempotencyAnswer::Kind::kCompleted;
      answer.result = {std::move(record.result), std::move(record.content_type)};
      return answer;
    }
    if (alive && record.state == spi::IdempotencyRecord::State::kInProgress && record.lease_until > now) {
      IdempotencyAnswer answer;
      answer.kind = IdempotencyAnswer::Kind::kInProgress;
      answer.retry_after = record.lease_until - now;
      return answer;
    }
    record.scope = options.scope;
    record.key = std::string(key);
    auto acquired = acquire(std::move(record), options, now);
    if (acquired || acquired.error().code != ErrorCode::kConflict) return acquired;
  }
  return Error{ErrorCode::kOverloaded, "too many callers want this idempotency key at once; ask again"};
}

Result<void> Idempotency::complete(const IdempotencyToken& token, Bytes result,
                                   const IdempotencyOptions& options, std::string content_type) {
  if (auto closed = context_->check_open(); !closed) return closed;
  if (auto bad = check(token.key, options); !bad) return bad;
  if (auto bad = base::check_content_type(content_type); !bad) return bad;
  if (auto bad = check_result_size(*context_, result); !bad) return bad;
  spi::IdempotencyRecord record;
  record.scope = token.scope;
  record.key = token.key;
  record.state = spi::IdempotencyRecord::State::kDone;
  record.fingerprint = options.fingerprint;
  if (record.fingerprint.empty()) {  // then it stays what begin() stored
    auto found = context_->store->find_idempotency(token.scope, token.key);
    if (!found) return std::move(found).error();
    if (*found) record.fingerprint = (*found)->fingerprint;
  }
  record.fence = token.fence;
  record.has_result = true;
  record.result = std::move(result);
  record.content_type = std::move(content_type);
  record.expires_at = context_->clock->now() + options.ttl;
  auto done = write(record, token.version);
  if (done || done.error().code != ErrorCode::kConflict) return done;
  return Error{ErrorCode::kLeaseLost,
               "another caller took this idempotency key over; this result was not stored"};
}

Result<void> Idempotency::fail(const IdempotencyToken& token) {
  if (auto closed = context_->check_open(); !closed) return closed;
  spi::IdempotencyRecord record;
  record.scope = token.scope;
  record.key = token.key;
  record.state = spi::IdempotencyRecord::State::kFailed;
  record.fence = token.fence;
  record.expires_at = context_->clock->now() + IdempotencyOptions{}.ttl;
  auto done = write(record, token.version);
  if (done || done.error().code != ErrorCode::kConflict) return done;
  return Error{ErrorCode::kLeaseLost, "another caller took this idempotency key over"};
}

Result<IdempotencyResult> Idempotency::once(std::string_view key, const std::function<Bytes()>& f,
                                            const IdempotencyOptions& options) {
  if (!f) return Error{ErrorCode::kInvalidArgument, "the function is empty"};
  const MonotonicTime deadline = context_->clock->monotonic() + options.wait_max;
  for (;;) {
    auto answer = begin(key, options);
    if (!answer) return std::move(answer).error();
    if (answer->kind == IdempotencyAnswer::Kind::kCompleted) return std::move(answer->result);
    if (answer->kind == IdempotencyAnswer::Kind::kAcquired) {
      IdempotencyResult result;
      try {
        result.bytes = f();
      } catch (...) {
        (void)fail(answer->token);  // the lease frees the key when this fails, too
        throw;
      }
      if (auto done = complete(answer->token, result.bytes, options, {}); !done)
        return std::move(done).error();
      return result;
    }
    const MonotonicTime now = context_->clock->monotonic();
    if (now >= deadline) {
      return Error{ErrorCode::kInProgress, "another caller runs this idempotency key; ask again in " +
                                               std::to_string(answer->retry_after.count() / 1000) +
                                               " ms at the latest"};
    }
    context_->pause_until(now + std::min<Duration>({kAskAgain, answer->retry_after, deadline - now}));
  }
}

}  // namespace towline::engine
