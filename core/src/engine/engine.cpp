// The public handles: Engine, Consumer and Delivery hand on to the stations.

#include <map>

#include <towline/engine.hpp>

#include "base/validate.hpp"
#include "engine/core.hpp"

namespace towline {
namespace {

Error not_open() { return Error{ErrorCode::kClosed, "this handle holds no engine; use Engine::open"}; }

Receipt rejected(Error error) {
  Receipt receipt;
  receipt.error = std::move(error);
  return receipt;
}

/// The handle's copies share this pointer: the last one to go closes the consumer.
std::shared_ptr<engine::ConsumerCore> closing(std::shared_ptr<engine::ConsumerCore> core) {
  engine::ConsumerCore* raw = core.get();
  return {raw, [core = std::move(core)](engine::ConsumerCore*) mutable {
            (void)core->close(std::nullopt);
            core.reset();
          }};
}

}  // namespace

// ---- Engine -------------------------------------------------------------------------------------

#define TOWLINE_REQUIRE_CORE()             \
  if (core_ == nullptr) return not_open(); \
  if (auto open = core_->context().check_open(); !open) return std::move(open).error()

Receipt Engine::publish(Message message) {
  if (core_ == nullptr) return rejected(not_open());
  return core_->publisher().publish(std::move(message));
}

Result<std::vector<Receipt>> Engine::publish_batch(std::vector<Message> messages) {
  TOWLINE_REQUIRE_CORE();
  return core_->publisher().publish_batch(std::move(messages));
}

Receipt Engine::publish_with_retry(Message message, const RetryOptions& retry,
                                   std::optional<Duration> timeout) {
  if (core_ == nullptr) return rejected(not_open());
  return core_->publisher().publish_with_retry(std::move(message), retry, timeout);
}

Result<ScheduleAnswer> Engine::cancel(const MessageId& id) {
  TOWLINE_REQUIRE_CORE();
  return core_->scheduler().cancel(id);
}

Result<std::vector<ScheduleAnswer>> Engine::cancel_batch(const std::vector<MessageId>& ids) {
  TOWLINE_REQUIRE_CORE();
  return core_->scheduler().cancel_batch(ids);
}

Result<ScheduleAnswer> Engine::reschedule(const MessageId& id, TimePoint due_at) {
  TOWLINE_REQUIRE_CORE();
  return core_->scheduler().reschedule(id, due_at);
}

Result<Page<Scheduled>> Engine::pending(std::string_view topic, std::size_t count_max,
                                        std::string_view cursor) {
  TOWLINE_REQUIRE_CORE();
  return core_->scheduler().pending(topic, count_max, cursor);
}

Result<void> Engine::declare_topic(std::string_view topic, const TopicOptions& options) {
  TOWLINE_REQUIRE_CORE();
  return core_->declare_topic(topic, options);
}

Result<Consumer> Engine::consume(std::string_view pattern, const ConsumerOptions& options, Handler handler) {
  return consume(std::vector<std::string>{std::string(pattern)}, options, std::move(handler));
}

Result<Consumer> Engine::consume(const std::vector<std::string>& patterns, const ConsumerOptions& options,
                                 Handler handler) {
  TOWLINE_REQUIRE_CORE();
  auto consumer = core_->consume(patterns, options, engine::AnyHandler(std::move(handler)));
  if (!consumer) return std::move(consumer).error();
  return Consumer(closing(std::move(*consumer)));
}

Result<Consumer> Engine::consume_outcomes(const std::vector<std::string>& patterns,
                                          const ConsumerOptions& options, OutcomeHandler handler) {
  TOWLINE_REQUIRE_CORE();
  auto consumer = core_->consume(patterns, options, engine::AnyHandler(std::move(handler)));
  if (!consumer) return std::move(consumer).error();
  return Consumer(closing(std::move(*consumer)));
}

Result<Consumer> Engine::consume_batches(const std::vector<std::string>& patterns,
                                         const ConsumerOptions& options, BatchHandler handler) {
  TOWLINE_REQUIRE_CORE();
  auto consumer = core_->consume(patterns, options, engine::AnyHandler(std::move(handler)));
  if (!consumer) return std::move(consumer).error();
  return Consumer(closing(std::move(*consumer)));
}

Result<Consumer> Engine::consume_remote(const std::vector<std::string>& patterns,
                                        const ConsumerOptions& options, RemoteHandler handler) {
  TOWLINE_REQUIRE_CORE();
  auto consumer =
      core_->consume(patterns, options, std::make_shared<const RemoteHandler>(std::move(handler)));
  if (!consumer) return std::move(consumer).error();
  return Consumer(std::move(*consumer));
}

void Engine::finish(std::span<Finished> finished) {
  // By consumer, each once; those of one are mostly neighbours.
  std::map<const engine::ConsumerLink*, std::vector<Finished*>> by_consumer;
  for (Finished& one : finished) {
    if (const engine::DeliveryState* state = engine::ConsumerCore::state_of(one.delivery); state != nullptr)
      by_consumer[state->hand_out->link.get()].push_back(&one);
  }
  for (const auto& [link, of_it] : by_consumer) {
    if (const auto core = link->core.lock()) core->finish_remote(of_it);
  }
}

Result<std::vector<GroupBacklog>> Engine::backlog() {
  TOWLINE_REQUIRE_CORE();
  auto groups = core_->context().transport->statistics();
  if (!groups) return std::move(groups).error();
  std::vector<GroupBacklog> out;
  out.reserve(groups->size());
  for (spi::GroupStatistics& group : *groups) {
    out.push_back(
        {std::move(group.topic), std::move(group.group), group.waiting, group.in_flight, group.member_count});
  }
  return out;
}

Result<std::vector<BlockedKey>> Engine::blocked_keys(std::string_view group, std::string_view topic) {
  TOWLINE_REQUIRE_CORE();
  if (auto bad = base::check_name(group, "group"); !bad) return std::move(bad).error();
  if (auto bad = base::check_topic(topic); !bad) return std::move(bad).error();
  auto blocks = core_->context().store->list_key_blocks(group, topic, std::nullopt);
  if (!blocks) return std::move(blocks).error();
  std::vector<BlockedKey> out;
  out.reserve(blocks->size());
  for (spi::KeyBlock& block : *blocks) {
    out.push_back({std::move(block.topic), std::move(block.group), std::move(block.key), block.partition,
                   block.since, block.parked_count, block.held});
  }
  return out;
}

Result<void> Engine::release_key(std::string_view group, std::string_view topic, std::string_view key) {
  TOWLINE_REQUIRE_CORE();
  return core_->release_key(group, topic, key);
}

Result<Page<DeadLetter>> Engine::dead_letters(const DeadLetterQuery& query) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().list(query);
}

Result<std::optional<DeadLetter>> Engine::find_dead_letter(const MessageId& id) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().find(id);
}

Result<std::vector<DeadLetterGroup>> Engine::dead_letter_groups(const DeadLetterQuery& query) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().groups(query);
}

Result<void> Engine::redrive(const MessageId& entry, const RedriveOptions& options) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().redrive(entry, options);
}

Result<RedriveReport> Engine::redrive_all(const DeadLetterQuery& query, const RedriveOptions& options) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().redrive_all(query, options);
}

Result<void> Engine::discard_dead_letter(const MessageId& entry) {
  TOWLINE_REQUIRE_CORE();
  return core_->dead_letters().discard(entry);
}

Result<IdempotencyAnswer> Engine::begin(std::string_view key, const IdempotencyOptions& options) {
  TOWLINE_REQUIRE_CORE();
  return core_->idempotency().begin(key, options);
}

Result<void> Engine::complete(const IdempotencyToken& token, Bytes result, const IdempotencyOptions& options,
                              std::string content_type) {
  TOWLINE_REQUIRE_CORE();
  return core_->idempotency().complete(token, std::move(result), options, std::move(content_type));
}

Result<void> Engine::fail(const IdempotencyToken& token) {
  TOWLINE_REQUIRE_CORE();
  return core_->idempotency().fail(token);
}

Result<IdempotencyResult> Engine::once(std::string_view key, const std::function<Bytes()>& f,
                                       const IdempotencyOptions& options) {
  TOWLINE_REQUIRE_CORE();
  return core_->idempotency().once(key, f, options);
}

Result<EngineStatistics> Engine::statistics() {
  if (core_ == nullptr) return not_open();
  return core_->statistics();
}

Health Engine::health() { return core_ == nullptr ? Health{false, not_open().to_string()} : core_->health(); }

std::vector<std::string> Engine::findings() const {
  return core_ == nullptr ? std::vector<std::string>{} : core_->context().findings;
}

Result<void> Engine::settle_down(Duration timeout) {
  if (core_ == nullptr) return not_open();
  return core_->settle_down(timeout);
}

Result<std::uint64_t> Engine::close(std::optional<Duration> timeout) {
  if (core_ == nullptr) return std::uint64_t{0};
  return core_->close(timeout);
}

Result<std::uint64_t> Engine::abandon() {
  if (core_ == nullptr) return std::uint64_t{0};
  core_->context().mark_dying();
  return core_->close(Duration(0));
}

// ---- Consumer -----------------------------------------------------------------------------------

#define TOWLINE_REQUIRE_CONSUMER()                                             \
  if (core_ == nullptr) return Error {                                         \
      ErrorCode::kClosed, "this handle holds no consumer; use Engine::consume" \
    }

Result<void> Consumer::pause() {
  TOWLINE_REQUIRE_CONSUMER();
  return core_->pause();
}

Result<void> Consumer::resume() {
  TOWLINE_REQUIRE_CONSUMER();
  return core_->resume();
}

Result<void> Consumer::drain(Duration timeout) {
  TOWLINE_REQUIRE_CONSUMER();
  return core_->drain(timeout);
}

Result<void> Consumer::set_concurrency(std::int64_t concurrency) {
  TOWLINE_REQUIRE_CONSUMER();
  return core_->set_concurrency(concurrency);
}

ConsumerStatistics Consumer::statistics() const {
  return core_ == nullptr ? ConsumerStatistics{} : core_->statistics();
}

bool Consumer::closed() const noexcept { return core_ == nullptr || core_->closed(); }

Result<std::uint64_t> Consumer::close(std::optional<Duration> timeout) {
  if (core_ == nullptr) return std::uint64_t{0};
  return core_->close(timeout);
}

// ---- Delivery -----------------------------------------------------------------------------------

namespace {

const spi::Envelope& envelope_of(const std::shared_ptr<engine::DeliveryState>& state) noexcept {
  static const spi::Envelope kNone;
  return state == nullptr ? kNone : state->envelope();
}

Result<std::shared_ptr<engine::ConsumerCore>> consumer_of(
    const std::shared_ptr<engine::DeliveryState>& state) {
  if (state == nullptr) return Error{ErrorCode::kInvalidToken, "this handle holds no delivery"};
  auto core = state->hand_out->link->core.lock();
  if (core == nullptr) return Error{ErrorCode::kClosed, "the consumer of this delivery is gone"};
  return core;
}

}  // namespace

const MessageId& Delivery::id() const noexcept { return envelope_of(state_).id; }
std::string_view Delivery::topic() const noexcept { return envelope_of(state_).topic; }
std::string_view Delivery::group() const noexcept {
  return state_ == nullptr ? std::string_view() : std::string_view(state_->hand_out->link->group);
}
const std::optional<std::string>& Delivery::key() const noexcept { return envelope_of(state_).key; }
std::uint32_t Delivery::partition() const noexcept { return envelope_of(state_).partition; }
std::string_view Delivery::payload() const noexcept { return envelope_of(state_).payload; }
const Headers& Delivery::headers() const noexcept { return envelope_of(state_).headers; }

std::optional<std::string_view> Delivery::header(std::string_view name) const noexcept {
  for (const auto& [known, value] : headers()) {
    if (known == name) return value;
  }
  return std::nullopt;
}

std::string_view Delivery::content_type() const noexcept { return envelope_of(state_).content_type; }
std::string_view Delivery::correlation_id() const noexcept { return envelope_of(state_).correlation_id; }
std::string_view Delivery::causation_id() const noexcept { return envelope_of(state_).causation_id; }
std::string_view Delivery::traceparent() const noexcept { return envelope_of(state_).traceparent; }
TimePoint Delivery::published_at() const noexcept { return envelope_of(state_).published_at; }
std::uint32_t Delivery::attempt() const noexcept { return envelope_of(state_).attempt; }
std::uint32_t Delivery::crashes() const noexcept { return state_ == nullptr ? 0 : state_->delivery.crashes; }
bool Delivery::redelivered() const noexcept {
  return state_ != nullptr && (state_->delivery.redelivered || state_->envelope().attempt > 1);
}
std::uint32_t Delivery::redrives() const noexcept { return envelope_of(state_).redrives; }

std::uint64_t Delivery::number() const noexcept {
  return state_ == nullptr ? 0 : state_->hand_out->number_of(*state_);
}

std::stop_token Delivery::stop_token() const noexcept {
  auto core = consumer_of(state_);
  if (core) return (*core)->stop_token(*state_);
  std::stop_source gone;
  gone.request_stop();
  return gone.get_token();
}

Result<void> Delivery::settle(Outcome outcome, bool wait) {
  auto core = consumer_of(state_);
  if (!core) return std::move(core).error();
  return (*core)->settle(*state_, std::move(outcome), wait);
}

Result<void> Delivery::ack(bool wait) { return settle(Outcome::ack(), wait); }
Result<void> Delivery::nak(std::optional<Duration> delay, std::string why) {
  return settle(Outcome::nak(delay, std::move(why)));
}
Result<void> Delivery::defer(Duration delay) { return settle(Outcome::defer(delay)); }
Result<void> Delivery::dead_letter(std::string reason) {
  return settle(Outcome::dead_letter(std::move(reason)));
}

Result<void> Delivery::extend(Duration by) {
  auto core = consumer_of(state_);
  if (!core) return std::move(core).error();
  return (*core)->extend(*state_, by);
}

Result<void> Delivery::progress(std::string note) {
  auto core = consumer_of(state_);
  if (!core) return std::move(core).error();
  return (*core)->progress(*state_, std::move(note));
}

Result<void> Delivery::transaction(const std::function<Result<void>(SqlTransaction&)>& body) {
  if (!body) {
    return Error{ErrorCode::kInvalidArgument, "the body of the transaction is empty; give a function"};
  }
  auto core = consumer_of(state_);
  if (!core) return std::move(core).error();
  return (*core)->transaction(*state_, body);
}

}  // namespace towline
