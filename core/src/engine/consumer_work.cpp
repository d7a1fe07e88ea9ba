// The workers of a consumer: running handlers, and what a handler may do with its delivery meanwhile.

#include <algorithm>
#include <cstdlib>
#include <typeinfo>

#include <cxxabi.h>

#include "base/validate.hpp"
#include "engine/consumer_core.hpp"
#include "engine/events.hpp"
#include "engine/idempotency.hpp"
#include "engine/publisher.hpp"
#include "engine/thrown.hpp"
#include "policy/classify.hpp"

namespace towline::engine {
namespace {

thread_local ConsumerCore* t_current = nullptr;

constexpr Duration kExtendMax = std::chrono::hours(24);

Result<void> refused(const DeliveryState& state) {
  if (state.timed_out.load()) {
    return Error{ErrorCode::kLeaseLost, "the handler's time was up before this call; its attempt has failed"};
  }
  if (state.phase.load() == Phase::kLost) {
    return Error{ErrorCode::kLeaseLost, "the lease of this delivery ended; another consumer has the message"};
  }
  return Error{ErrorCode::kAlreadySettled, "this delivery was settled before; nothing was changed"};
}

}  // namespace

ConsumerCore* current_consumer() noexcept { return t_current; }

void ConsumerCore::worker_main(std::size_t index) {
  t_current = this;
  std::vector<DeliveryPtr> chunk;
  while (dispatcher_.take(index, chunk))
    run_chunk(index, chunk);
  t_current = nullptr;
  const std::lock_guard lock(control_);
  --workers_running_;
  control_changed_.notify_all();
}

Outcome ConsumerCore::call(Delivery& delivery) {
  try {
    if (const auto* handler = std::get_if<Handler>(&handler_)) {
      (*handler)(delivery);
      return Outcome::ack();
    }
    return std::get<OutcomeHandler>(handler_)(delivery);
  } catch (abi::__forced_unwind&) {
    throw;  // the thread is being cancelled: not ours to stop
  } catch (...) {
    return outcome_of_thrown();
  }
}

void ConsumerCore::note_result(DeliveryPtr& state, Outcome outcome, std::vector<DeliveryPtr>& acked,
                               std::vector<Decided>& others) {
  const bool returned_plainly = outcome.kind == Outcome::Kind::kAck;
  state->occupies_worker.store(false, std::memory_order_release);
  if (options_.ack == AckPolicy::kManual && returned_plainly) {
    if (state->timed_out.load()) dispatcher_.returned_late(*state);
    return;
  }
  if (!state->move_to(Phase::kDecided, {Phase::kRunning})) {  // settled by hand, timed out or lost
    if (state->timed_out.load()) dispatcher_.returned_late(*state);
    return;
  }
  if (returned_plainly) {
    acked.push_back(std::move(state));
  } else {
    others.push_back(Decided{std::move(state), std::move(outcome)});
  }
}

void ConsumerCore::run_chunk(std::size_t worker, std::vector<DeliveryPtr>& chunk) {
  std::vector<DeliveryPtr> acked;
  std::vector<Decided> others;
  if (is_remote()) return run_remote(chunk);
  const MonotonicTime begin = context_->clock->monotonic();
  std::size_t ran = 0;
  if (std::holds_alternative<BatchHandler>(handler_)) {
    ran = chunk.size();
    run_batch(chunk, acked, others);
  } else {
    acked.reserve(chunk.size());
    for (DeliveryPtr& state : chunk) {
      if (!state->move_to(Phase::kRunning, {Phase::kTaken}))
        continue;  // taken back, or given to an idle worker
      ++ran;
      state->occupies_worker.store(true, std::memory_order_release);
      state->started_at.store(context_->clock->monotonic(), std::memory_order_relaxed);
      Delivery delivery(state);  // a copy: the handler may move its handle away
      Outcome outcome = call(delivery);
      note_result(state, std::move(outcome), acked, others);
    }
  }
  dispatcher_.hand_back(worker, acked, others, ran, context_->clock->monotonic() - begin);
}

void ConsumerCore::run_batch(std::vector<DeliveryPtr>& chunk, std::vector<DeliveryPtr>& acked,
                             std::vector<Decided>& others) {
  std::vector<Delivery> batch;
  batch.reserve(chunk.size());
  for (DeliveryPtr& state : chunk) {
    if (!state->move_to(Phase::kRunning, {Phase::kTaken})) continue;
    state->occupies_worker.store(true, std::memory_order_release);
    batch.push_back(Delivery(state));
  }
  Outcome outcome = Outcome::ack();
  try {
    if (!batch.empty()) std::get<BatchHandler>(handler_)(batch);
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    outcome = outcome_of_thrown();
  }
  acked.reserve(chunk.size());
  for (DeliveryPtr& state : chunk) {
    if (state->occupies_worker.load()) note_result(state, outcome, acked, others);
  }
}

void ConsumerCore::run_remote(std::vector<DeliveryPtr>& chunk) {
  std::vector<Delivery> batch;
  batch.reserve(chunk.size());
  const MonotonicTime now = context_->clock->monotonic();
  for (DeliveryPtr& state : chunk) {
    // Before the phase: whoever sees it run and asks it to stop tells where it runs.
    state->occupies_worker.store(true, std::memory_order_release);
    if (!state->move_to(Phase::kRunning, {Phase::kTaken})) {
      state->occupies_worker.store(false, std::memory_order_release);
      continue;
    }
    state->started_at.store(now, std::memory_order_relaxed);
    batch.push_back(Delivery(state));
  }
  std::vector<DeliveryPtr> skipped;
  std::erase_if(chunk, [&](DeliveryPtr& state) {
    if (state->occupies_worker.load()) return false;
    skipped.push_back(std::move(state));
    return true;
  });
  if (!skipped.empty()) {
    std::vector<DeliveryPtr> none;
    std::vector<Decided> no_others;
    dispatcher_.leave_batches(skipped);
    dispatcher_.hand_back(SIZE_MAX, none, no_others, skipped.size(), Duration{0});
  }
  if (batch.empty()) return;
  std::get<RemoteHandlerPtr>(handler_)->deliver(batch);
  dispatcher_.note_there(chunk);
}

void ConsumerCore::finish_remote(std::span<Finished* const> finished) {
  std::vector<DeliveryPtr> acked;
  std::vector<Decided> others;
  std::vector<DeliveryPtr> of_batches;
  acked.reserve(finished.size());
  std::size_t returned = 0;
  const bool in_batches = std::get<RemoteHandlerPtr>(handler_)->in_batches;
  Duration busy_for{0};
  const MonotonicTime now = context_->clock->monotonic();
  if (in_batches) of_batches.reserve(finished.size());
  for (Finished* one : finished) {
    DeliveryPtr state = one->delivery.state_;
    // Only the first counts; it gives the place back.
    if (!state->occupies_worker.exchange(false, std::memory_order_acq_rel)) continue;
    ++returned;
    if (in_batches) of_batches.push_back(state);
    busy_for += now - state->started_at.load(std::memory_order_relaxed);
    note_result(state, std::move(one->outcome), acked, others);
  }
  if (returned == 0) return;
  if (in_batches) dispatcher_.leave_batches(of_batches);
  dispatcher_.hand_back(SIZE_MAX, acked, others, returned, busy_for);
}

std::optional<Delivery> ConsumerCore::take_one() {
  std::vector<DeliveryPtr> chunk;
  dispatcher_.try_take(1, chunk);
  if (chunk.empty()) return std::nullopt;
  (void)chunk.front()->move_to(Phase::kRunning, {Phase::kTaken});
  chunk.front()->occupies_worker.store(true);
  return Delivery(std::move(chunk.front()));
}

void ConsumerCore::run_one(Delivery& delivery) {
  t_current = this;
  Delivery handed(delivery.state_);  // a copy: the handler may move its handle away
  Outcome outcome = call(handed);
  t_current = nullptr;
  finish(delivery, std::move(outcome));
}

void ConsumerCore::finish(Delivery& delivery, Outcome outcome) {
  std::vector<DeliveryPtr> acked;
  std::vector<Decided> others;
  DeliveryPtr state = delivery.state_;
  note_result(state, std::move(outcome), acked, others);
  dispatcher_.hand_back(SIZE_MAX, acked, others, 1, Duration{1});
}

// ---- what a handler may do ----------------------------------------------------------------------

Result<void> ConsumerCore::settle(DeliveryState& state, Outcome outcome, bool wait) {
  if (context_->forked()) return context_->check_open();
  if (closed_.load()) return Error{ErrorCode::kClosed, "the consumer is closed"};
  if (outcome.delay && (outcome.delay->count() < 0 || *outcome.delay > context_->options.delay_max)) {
    return Error{ErrorCode::kInvalidDelay, "delay is " + std::to_string(outcome.delay->count() / 1000) +
                                               " ms, but must be between 0 ms and " +
                                               std::to_string(context_->options.delay_max.count() / 1000) +
                                               " ms"};
  }
  if (!state.move_to(Phase::kDecided, {Phase::kRunning})) return refused(state);
  Decided decided{self(state), std::move(outcome)};
  std::shared_ptr<Completion> completion;
  if (wait) decided.completion = completion = std::make_shared<Completion>();
  dispatcher_.decide(std::move(decided));
  return completion ? completion->wait() : Result<void>{};
}

Result<void> ConsumerCore::extend(DeliveryState& state, Duration by) {
  if (by.count() <= 0 || by > kExtendMax) {
    return Error{ErrorCode::kInvalidArgument, "by is " + std::to_string(by.count() / 1000) +
                                                  " ms, but must be more than 0 and at most 24 hours"};
  }
  if (context_->forked()) return context_->check_open();
  if (closed_.load()) return Error{ErrorCode::kClosed, "the consumer is closed"};
  if (state.phase.load() != Phase::kRunning) return refused(state);
  dispatcher_.extend(state, context_->clock->monotonic() + by);
  return {};
}

Result<void> ConsumerCore::progress(DeliveryState& state, std::string note) {
  if (auto extended = extend(state, options_.handler_timeout); !extended) return extended;
  dispatcher_.note_progress(state, std::move(note));
  return {};
}

std::stop_token ConsumerCore::stop_token(DeliveryState& state) { return dispatcher_.stop_token(state); }

namespace {

/// Collects what the handler publishes; the units are committed behind its SQL, in the same transaction.
class TransactionBody final : public SqlTransaction {
 public:
  TransactionBody(Context& context, Publisher& publisher, spi::SqlSession& session)
      : context_(context), publisher_(publisher), session_(session) {}

  Result<std::vector<std::vector<Value>>> execute(std::string_view sql,
                                                  std::span<const Value> parameters) override {
    return session_.execute(sql, parameters);
  }

  Result<MessageId> publish(Message message) override {
    auto write = publisher_.as_write(std::move(message));
    if (!write) return std::move(write).error();
    const MessageId id = std::holds_alternative<spi::Publish>(*write)
                             ? std::get<spi::Publish>(*write).envelope.id
                             : std::get<spi::PutSchedule>(*write).record.id;
    if (auto done = session_.write(*write); !done) return std::move(done).error();
    return id;
  }

  Result<void> append(std::string_view stream, std::vector<NewEvent> events,
                      std::optional<std::uint64_t> expected) override {
    auto write = Events::as_write(context_, stream, std::move(events), expected);
    if (!write) return std::move(write).error();
    return session_.write(std::move(*write));
  }

  Result<void> complete(std::string_view scope, std::string_view key, Bytes result) override {
    if (auto bad = check_idempotency(scope, key); !bad) return bad;
    if (auto bad = check_result_size(context_, result); !bad) return bad;
    spi::PutIdempotency put;
    put.record.scope = std::string(scope);
    put.record.key = std::string(key);
    put.record.state = spi::IdempotencyRecord::State::kDone;
    put.record.has_result = true;
    put.record.result = std::move(result);
    put.record.expires_at = context_.clock->now() + IdempotencyOptions{}.ttl;
    return session_.write(put);
  }

 private:
  Context& context_;
  Publisher& publisher_;
  spi::SqlSession& session_;
};

}  // namespace

Result<void> ConsumerCore::transaction(DeliveryState& state,
                                       const std::function<Result<void>(SqlTransaction&)>& body) {
  if (!context_->capabilities.runs_sql) {
    return Error{ErrorCode::kUnsupported, "handler transactions need a provider with SQL, such as sqlite:"};
  }
  if (closed_.load()) return Error{ErrorCode::kClosed, "the consumer is closed"};
  // Decided from here on: the timer and a second settlement must not get in between the commit and the books.
  if (!state.move_to(Phase::kDecided, {Phase::kRunning})) return refused(state);
  spi::Unit unit{{spi::Settle{{state.delivery.token, spi::Verb::kAck}}}};
  settler_.add_finish_records(unit, state);
  Publisher publisher(context_);
  const auto take_back = [&] {
    // Its timer may have run out meanwhile and found it decided: the handler's time begins anew.
    state.phase.store(Phase::kRunning);
    dispatcher_.extend(state, context_->clock->monotonic() + options_.handler_timeout);
  };
  Result<void> done;
  try {
    done = context_->store->transact(
        [&](spi::SqlSession& session) -> Result<void> {
          TransactionBody transaction(*context_, publisher, session);
          return body(transaction);
        },
        {&unit, 1}, subscription_.get());
  } catch (...) {
    take_back();
    throw;
  }
  if (!done) {
    // Rolled back: the delivery is as it was, unless the store says that it was lost.
    if (done.error().code == ErrorCode::kLeaseLost) {
      dispatcher_.decide(
          Decided{self(state), Outcome{Outcome::Kind::kRelease}});  // its settlement will be refused, too
    } else {
      take_back();
    }
    return done;
  }
  Decided decided{self(state), Outcome::ack()};
  decided.settled_already = true;
  dispatcher_.decide(std::move(decided));
  return {};
}

}  // namespace towline::engine
