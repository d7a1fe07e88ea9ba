// The lane and the workers of one consumer. See the header for the round of the lane.

#include "engine/consumer_core.hpp"

#include <algorithm>
#include <type_traits>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "policy/backoff.hpp"

namespace towline::engine {
namespace {

/// How long the lane waits at most before it looks around, and after an error of the provider.
constexpr Duration kSafetyPoll = std::chrono::seconds(1);
constexpr Duration kErrorPause = std::chrono::milliseconds(100);

std::string join(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts)
    all += (all.empty() ? "" : ",") + part;
  return all;
}

Dispatcher::Limits limits_of(const ConsumerOptions& options, const AnyHandler& handler) {
  Dispatcher::Limits limits;
  limits.concurrency = options.concurrency;
  limits.prefetch_count = options.prefetch_count;
  const auto* remote = std::get_if<RemoteHandlerPtr>(&handler);
  limits.manual = options.ack == AckPolicy::kManual;
  limits.remote = remote != nullptr;
  const bool in_batches =
      remote != nullptr ? (*remote)->in_batches : std::holds_alternative<BatchHandler>(handler);
  limits.batch_count_max = in_batches ? options.batch_count_max : 0;
  limits.order = options.order;
  limits.handler_timeout = options.handler_timeout;
  limits.rate_per_second = options.rate_per_second;
  return limits;
}

ErrorInfo intake_error(DeadLetterReason reason, const spi::Delivery& delivery) {
  switch (reason) {
    case DeadLetterReason::kDecode:
      return {"CorruptEnvelope", "the stored bytes could not be decoded", {}};
    case DeadLetterReason::kExpired:
      return {"Expired", "its time to live ended before a handler started", {}};
    default:
      return {"CrashLoop",
              "the process died " + std::to_string(delivery.crashes) + " times while it handled this message",
              {}};
  }
}

template <typename F>
bool is_callable(const F& handler) {
  if constexpr (std::is_same_v<F, RemoteHandlerPtr>) {
    return static_cast<bool>(handler->deliver);
  } else {
    return static_cast<bool>(handler);
  }
}

Result<void> contradiction(std::string text) { return Error{ErrorCode::kInvalidConfig, std::move(text)}; }

Result<void> check(const Context& context, const std::vector<std::string>& patterns,
                   const ConsumerOptions& options, const AnyHandler& handler) {
  if (patterns.empty())
    return Error{ErrorCode::kInvalidTopic, "no topic was given; name at least one topic or pattern"};
  for (const std::string& pattern : patterns) {
    if (auto bad = base::check_topic_pattern(pattern); !bad) return bad;
  }
  if (auto bad = validate(options); !bad) return bad;
  if (!options.group.empty()) {
    if (auto bad = base::check_name(options.group, "consumer.group"); !bad) return bad;
  }
  if (!options.name.empty()) {
    if (auto bad = base::check_name(options.name, "consumer.name"); !bad) return bad;
  }
  const bool callable = std::visit([](const auto& f) { return is_callable(f); }, handler);
  if (!callable) return Error{ErrorCode::kInvalidArgument, "the handler is empty; give a function"};
  const bool ephemeral = options.group.empty();
  if (ephemeral && options.order != Order::kUnordered) {
    return contradiction(
        "consumer.order: an ephemeral subscriber (no group) has no order to keep; name a group");
  }
  if (ephemeral && options.inbox_window.count() > 0) {
    return contradiction(
        "consumer.inbox_window_ms: an ephemeral subscriber (no group) keeps no inbox; name a group");
  }
  if (options.on_key_failure != KeyFailure::kBlockKey && options.order == Order::kUnordered) {
    return contradiction(
        "consumer.on_key_failure: without an order no key waits for anything; set consumer.order");
  }
  for (const std::string& type : options.classify.transient_types) {
    const auto& others = options.classify.permanent_types;
    if (std::find(others.begin(), others.end(), type) == others.end()) continue;
    return contradiction("classify.permanent_types: '" + base::escape(type, 64) +
                         "' is one of classify.transient_types, too; an error type has one class");
  }
  if (options.ack == AckPolicy::kFirst && options.order != Order::kUnordered) {
    return contradiction("consumer.ack: kFirst cannot keep order, since a failed message is not tried again");
  }
  if (auto bad = policy::check_retry(options.retry); !bad) return bad;
  // A message comes again at most until its lease has ended, its process is back and its retries are through.
  const Duration horizon = 2 * context.options.lease + options.handler_timeout +
                           options.retry.delay_max * (options.retry.max_attempts - 1);
  if (options.inbox_window.count() > 0 && options.inbox_window < horizon) {
    return contradiction(
        "consumer.inbox_window_ms is " + std::to_string(options.inbox_window.count() / 1000) +
        " ms, shorter than the redelivery horizon of " + std::to_string(horizon.count() / 1000) +
        " ms (leases, handler timeout and retries); a late redelivery would be handled twice");
  }
  return {};
}

}  // namespace

ConsumerCore::ConsumerCore(std::shared_ptr<Context> context, std::vector<std::string> patterns,
                           ConsumerOptions options, AnyHandler handler)
    : context_(std::move(context)),
      patterns_(std::move(patterns)),
      options_(std::move(options)),
      handler_(std::move(handler)),
      identity_(options_.group + "/" + join(patterns_) + (options_.name.empty() ? "" : "/" + options_.name)),
      link_(std::make_shared<ConsumerLink>()),
      breaker_(options_.breaker),
      dispatcher_(context_->clock, limits_of(options_, handler_)),
      settler_(context_, options_, dispatcher_) {}

ConsumerCore::~ConsumerCore() {
  // Only a simulation drops a consumer without closing it, and then it has no threads: this is its crash.
  abandon();
}

Result<std::shared_ptr<ConsumerCore>> ConsumerCore::create(std::shared_ptr<Context> context,
                                                           std::vector<std::string> patterns,
                                                           ConsumerOptions options, AnyHandler handler) {
  if (auto bad = check(*context, patterns, options, handler); !bad) return std::move(bad).error();
  std::shared_ptr<ConsumerCore> core(
      new ConsumerCore(std::move(context), std::move(patterns), std::move(options), std::move(handler)));
  if (auto failed = core->subscribe(); !failed) return std::move(failed).error();
  return core;
}

Result<void> ConsumerCore::subscribe() {
  auto compiled = policy::TopicPatternSet::compile(patterns_);
  if (!compiled) return std::move(compiled).error();
  pattern_set_ = std::move(*compiled);
  if (!options_.filter.empty()) {
    auto filter = policy::Filter::compile(options_.filter);
    if (!filter) return std::move(filter).error();
    filter_ = std::move(*filter);
  }
  if (auto bad = make_topics(); !bad) return bad;
  spi::SubscribeOptions request;
  request.patterns = patterns_;
  // The transport may ask after this consumer is gone, so it gets a copy.
  request.matches = [patterns = pattern_set_](std::string_view topic) { return patterns.matches(topic); };
  request.group = options_.group;
  request.consumer = options_.name;
  request.start = options_.start;
  request.order = static_cast<spi::OrderMode>(options_.order);
  request.partitions = options_.partitions;
  request.lease = context_->options.lease;
  auto subscription = context_->transport->subscribe(request);
  if (!subscription) return std::move(subscription).error();
  subscription_ = std::move(*subscription);
  link_->core = weak_from_this();
  link_->group = options_.group;
  dispatcher_.set_waker([this] { subscription_->wake(); });
  if (const auto* remote = std::get_if<RemoteHandlerPtr>(&handler_); remote != nullptr && (*remote)->stop) {
    dispatcher_.set_stop_listener(
        [remote = *remote](DeliveryPtr state) { remote->stop(Delivery(std::move(state))); });
  }
  return {};
}

Result<void> ConsumerCore::make_topics() {
  // A group that subscribes to a topic by name exists from now on, also when nobody has published yet.
  for (const std::string& topic : pattern_set_.topics()) {
    auto topology =
        context_->transport->topology(topic, static_cast<std::uint32_t>(context_->options.partition_count));
    if (!topology) return std::move(topology).error();
    for (const std::uint32_t partition : options_.partitions) {
      if (partition < topology->partition_count) continue;
      return Error{ErrorCode::kInvalidConfig,
                   "consumer.partitions: " + std::to_string(partition) + " is not one of the " +
                       std::to_string(topology->partition_count) + " partitions of topic " + topic};
    }
    if (auto bad = context_->transport->declare(*topology); !bad) return bad;
  }
  return {};
}

void ConsumerCore::start() {
  const std::lock_guard lock(control_);
  if (closing_.load()) return;
  lane_running_ = true;
  lane_ = std::thread([core = shared_from_this()] { core->lane_main(); });
  const std::int64_t worker_count = is_remote() ? 1 : options_.concurrency;
  for (std::int64_t i = 0; i < worker_count; ++i) {
    ++workers_running_;
    workers_.emplace_back([core = shared_from_this(), i] { core->worker_main(static_cast<std::size_t>(i)); });
  }
}

// ---- lane ---------------------------------------------------------------------------------------

void ConsumerCore::lane_main() {
  while (!stopping_.load(std::memory_order_acquire)) {
    step(context_->clock->monotonic() + kSafetyPoll);
    tell_watchers();
  }
  const std::lock_guard lock(control_);
  lane_running_ = false;
  control_changed_.notify_all();
}

InFlight::Room ConsumerCore::engine_room() {
  InFlight::Room room = context_->in_flight.room();
  if (room.count > 0) return room;
  // Rung when another consumer gives something back; what was given back before that is seen here.
  context_->in_flight.wait(this, [this] { dispatcher_.wake_lane(); });
  return context_->in_flight.room();
}

std::size_t ConsumerCore::parking_credit(std::size_t credit) const {
  if (options_.order == Order::kUnordered) return credit;
  // All that is in hand may have to be parked at once, when the one before it fails.
  const std::uint64_t taken = dispatcher_.parked_total() + dispatcher_.gauge().in_hand;
  const auto max = static_cast<std::uint64_t>(options_.parked_count_max);
  return taken >= max ? 0 : std::min(credit, static_cast<std::size_t>(max - taken));
}

void ConsumerCore::recount_parked(MonotonicTime now) {
  if (now < recount_at_) return;
  recount_at_ = now + kSafetyPoll;
  for (const Dispatcher::PartitionName& at : dispatcher_.blocked_partitions()) {
    auto blocks = context_->store->list_key_blocks(options_.group, at.topic, at.partition);
    if (!blocks) return;
    // Nothing is in hand, so nothing can have to be parked by them.
    (void)dispatcher_.install_blocks(at.topic, at.partition, at.epoch, *blocks);
  }
}

ConsumerCore::Intake ConsumerCore::intake(MonotonicTime now) {
  Intake intake;
  if (paused_.load() || closing_.load() || now < retry_receive_at_ || !unacked_first_.empty()) return intake;
  // One message is always let through when nothing is in hand, however large it is.
  const auto bytes_max = static_cast<std::size_t>(options_.prefetch_bytes_max);
  const std::size_t held_bytes = dispatcher_.bytes_in_hand();
  std::size_t credit = held_bytes >= bytes_max ? 0 : dispatcher_.credit();
  if (credit > 0) {
    const InFlight::Room room = engine_room();
    intake.bytes = std::min(bytes_max - held_bytes, room.bytes);
    credit = std::min(credit, room.count);
  }
  // With nothing at all the heads that unblock the keys would never come in.
  const std::size_t parking = parking_credit(credit);
  intake.heads_only = credit > 0 && parking == 0 && context_->capabilities.finds_heads;
  // A transport that cannot look for heads hands out what comes first, one at a time and with nothing in
  // hand; then the bound is soft.
  if (parking == 0 && !intake.heads_only && credit > 0)
    credit = idle() ? std::min<std::size_t>(credit, 1) : 0;
  if (parking > 0) credit = parking;
  if (credit > 0 && parking == 0 && idle() && settler_.empty()) recount_parked(now);
  const std::size_t probes = breaker_.allowance(now);
  const bool open = breaker_.state() == policy::BreakerState::kOpen;
  if (open && !breaker_open_.exchange(true)) {
    context_->log(LogLevel::kWarning, "consumer",
                  identity_ +
                      ": circuit breaker open: too many handlings failed (options breaker.*); intake "
                      "is paused for " +
                      base::duration_text(options_.breaker.open) + " at least");
    for (DeliveryPtr& state : dispatcher_.take_back())
      settler_.add_released(std::move(state));
  } else if (!open && breaker_open_.exchange(false)) {
    context_->log(LogLevel::kInfo, "consumer", identity_ + ": circuit breaker lets messages in again");
  }
  intake.count = std::min(credit, probes);
  return intake;
}

void ConsumerCore::step(MonotonicTime wait_until) {
  rounds_.fetch_add(1, std::memory_order_relaxed);
  tell_watchers();
  const MonotonicTime now = context_->clock->monotonic();
  if (closing_.load()) {
    settler_.set_stopping();
    for (DeliveryPtr& state : dispatcher_.take_back())
      settler_.add_released(std::move(state));
  }
  Dispatcher::Collected collected = dispatcher_.collect(now);
  settler_.add_acked(std::move(collected.acked));
  for (Decided& decided : collected.others)
    settler_.add(std::move(decided));
  feed_breaker(now);
  acknowledge_again(now);
  const Intake intake = this->intake(now);
  if (auto probes = breaker_.probes_at()) wait_until = std::min(wait_until, *probes);
  if (now < retry_receive_at_) wait_until = std::min(wait_until, retry_receive_at_);
  if (settler_.empty() && intake.count == 0) {
    dispatcher_.wait_for_outcomes(wait_until);
    return;
  }
  if (now < retry_receive_at_) {  // the provider failed a moment ago: do not run against it
    dispatcher_.wait_for_outcomes(wait_until);
    return;
  }
  settler_.prepare();
  if (auto committed = settler_.commit_units(); !committed) {
    retry_receive_at_ = now + kErrorPause;
    return;
  }
  spi::ReceiveRequest request;
  request.count_max = intake.count;
  request.payload_bytes_max = intake.bytes;
  request.heads_only = intake.heads_only;
  request.settlements = settler_.settlements();
  request.units = context_->capabilities.is_store ? settler_.units() : std::span<const spi::Unit>();
  request.deadline = dispatcher_.enter_receive(wait_until).value_or(now);
  auto received = subscription_->receive(request);
  dispatcher_.leave_receive();
  if (!received) {
    retry_receive_at_ = now + kErrorPause;
    if (!closing_.load())
      context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + received.error().to_string());
    if (!received.error().retryable()) {
      context_->fail(received.error());
      settler_.abandon(received.error());
    }
    return;
  }
  settler_.apply(*received);
  if (settler_.take_must_pause()) retry_receive_at_ = now + kErrorPause;
  feed_breaker(now);
  for (const DeadLetter& entry : settler_.take_new_entries()) {
    if (entry_listener_) entry_listener_(entry);
  }
  if (received->deliveries.empty()) return;
  take_in(std::move(received->deliveries));
  if (paused_.load()) {  // paused while this receive was under way: nothing of it may start
    for (DeliveryPtr& state : dispatcher_.take_back())
      settler_.add_released(std::move(state));
  }
}

void ConsumerCore::feed_breaker(MonotonicTime now) {
  for (const Settler::Tally& tally : settler_.take_tally()) {
    for (std::uint64_t i = 0; i < tally.count; ++i)
      breaker_.feed(now, tally.signal, tally.period);
  }
}

bool ConsumerCore::load_blocks(const spi::Delivery& delivery) {
  if (options_.order == Order::kUnordered) return true;
  const spi::Envelope& envelope = *delivery.envelope;
  if (delivery.epoch <= dispatcher_.epoch_of(envelope.topic, envelope.partition)) return true;
  auto blocks = context_->store->list_key_blocks(options_.group, envelope.topic, envelope.partition);
  if (!blocks) {
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + blocks.error().to_string());
    return false;
  }
  auto to_park = dispatcher_.install_blocks(envelope.topic, envelope.partition, delivery.epoch, *blocks);
  for (DeliveryPtr& state : to_park)
    settler_.add_parked(std::move(state));
  return true;
}

std::vector<DeliveryPtr> ConsumerCore::without_blocks(std::vector<DeliveryPtr>& fresh) {
  // Without its blocks the order of a partition's keys cannot be kept, so nothing of it may start: it goes
  // back.
  std::vector<std::pair<std::string_view, std::uint32_t>> unknown;
  std::vector<DeliveryPtr> back;
  std::erase_if(fresh, [&](DeliveryPtr& state) {
    const std::pair<std::string_view, std::uint32_t> partition(state->envelope().topic,
                                                               state->envelope().partition);
    if (std::find(unknown.begin(), unknown.end(), partition) == unknown.end()) {
      if (load_blocks(state->delivery)) return false;
      unknown.push_back(partition);
    }
    back.push_back(std::move(state));
    return true;
  });
  return back;
}

bool ConsumerCore::claim(DeliveryState& state) { return state.move_to(Phase::kDecided, {Phase::kHeld}); }

bool ConsumerCore::admit_one(DeliveryPtr& state, TimePoint now) {
  const policy::Decision decision =
      policy::decide_intake(settler_.facts_of(*state, now), policy::DecisionRules::of(options_));
  if (decision.action == policy::Action::kHandle) {
    if (!filter_ || filter_->matches(state->envelope())) return true;
    if (claim(*state)) settler_.add_passed_over(std::move(state), false);
    return false;
  }
  Decided decided{state, Outcome::fail(intake_error(decision.reason, state->delivery))};
  decided.intake = decision;
  if (claim(*state)) settler_.add(std::move(decided));
  return false;
}

void ConsumerCore::take_places(std::vector<spi::Delivery>& deliveries) {
  std::size_t taken = 0;
  while (taken < deliveries.size() && context_->in_flight.take(deliveries[taken].envelope->payload.size()))
    ++taken;
  // Another lane of the engine was faster. An ephemeral subscriber cannot give anything back.
  for (std::size_t i = taken; i < deliveries.size(); ++i) {
    if (options_.group.empty()) {
      context_->in_flight.take_anyway(deliveries[i].envelope->payload.size());
    } else {
      settler_.give_back(deliveries[i].token);
    }
  }
  if (!options_.group.empty()) deliveries.resize(taken);
}

void ConsumerCore::take_in(std::vector<spi::Delivery> deliveries) {
  take_places(deliveries);
  if (deliveries.empty()) return;
  const std::uint64_t period = breaker_.admit(context_->clock->monotonic(), deliveries.size());
  auto hand_out = std::make_shared<HandOut>(deliveries.size(), link_);
  std::vector<DeliveryPtr> fresh;
  fresh.reserve(deliveries.size());
  for (std::size_t i = 0; i < deliveries.size(); ++i) {
    DeliveryState& state = hand_out->states[i];
    state.hand_out = hand_out.get();
    state.breaker_period = period;
    state.delivery = std::move(deliveries[i]);
    fresh.emplace_back(hand_out, &state);
  }
  received_.fetch_add(fresh.size(), std::memory_order_relaxed);
  settler_.note_deliveries(fresh.size());
  dispatcher_.attach(fresh);
  std::vector<DeliveryPtr> back = without_blocks(fresh);
  for (DeliveryPtr& state : back) {
    if (!claim(*state)) continue;
    dispatcher_.pass(*state);
    settler_.add_released(std::move(state));
  }
  if (!back.empty()) retry_receive_at_ = context_->clock->monotonic() + kErrorPause;
  drop_handled_before(fresh);
  const TimePoint now = context_->clock->now();
  std::erase_if(fresh, [&](DeliveryPtr& state) { return !admit_one(state, now); });
  if (options_.ack == AckPolicy::kFirst) ack_first(fresh);
  admit(std::move(fresh));
}

void ConsumerCore::admit(std::vector<DeliveryPtr> fresh) {
  for (DeliveryPtr& state : dispatcher_.admit(std::move(fresh)))
    settler_.add_parked(std::move(state));
  for (DeliveryPtr& state : dispatcher_.take_followers())
    settler_.add_released(std::move(state));
}

void ConsumerCore::drop_handled_before(std::vector<DeliveryPtr>& fresh) {
  if (options_.inbox_window.count() <= 0 || fresh.empty()) return;
  std::vector<MessageId> ids;
  ids.reserve(fresh.size());
  for (const DeliveryPtr& state : fresh)
    ids.push_back(state->envelope().id);
  auto known = context_->store->inbox_contains(options_.group, ids);
  if (!known) {
    // Unsure is not handled: the unit that settles it checks again.
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + known.error().to_string());
    return;
  }
  std::size_t i = 0;
  std::erase_if(fresh, [&](DeliveryPtr& state) {
    if (!(*known)[i++]) return false;
    if (claim(*state)) settler_.add_passed_over(std::move(state), true);
    return true;
  });
}

void ConsumerCore::ack_first(std::vector<DeliveryPtr>& fresh) {
  // What lost its lease while it waited here is finished by its own way.
  std::erase_if(fresh, [](const DeliveryPtr& state) { return state->phase.load() != Phase::kHeld; });
  if (fresh.empty()) return;
  std::vector<spi::Settlement> settlements;
  std::vector<spi::Unit> units;
  std::vector<DeliveryPtr> in_order, with_unit;
  for (DeliveryPtr& state : fresh) {
    const spi::Settlement settlement{state->delivery.token, spi::Verb::kAck};
    spi::Unit unit;
    Settler::add_forgetting(unit, state->envelope());
    if (unit.writes.empty() || !context_->capabilities.is_store) {
      settlements.push_back(settlement);
      in_order.push_back(std::move(state));
    } else {
      unit.writes.insert(unit.writes.begin(), spi::Settle{settlement});
      units.push_back(std::move(unit));
      with_unit.push_back(std::move(state));
    }
  }
  fresh.clear();
  spi::ReceiveRequest request;
  request.settlements = settlements;
  request.units = units;
  request.deadline = context_->clock->monotonic();
  auto received = subscription_->receive(request);
  if (!received) {
    // Unknown whether they are acknowledged, so none may run yet: at most once is what was asked for. They
    // are acknowledged again, and those that were already turn out to be lost.
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + received.error().to_string());
    unacked_first_ = std::move(in_order);
    unacked_first_.insert(unacked_first_.end(), with_unit.begin(), with_unit.end());
    retry_receive_at_ = context_->clock->monotonic() + kErrorPause;
    return;
  }
  std::vector<DeliveryPtr> lost;
  for (std::uint32_t i = 0; i < in_order.size(); ++i) {
    const bool is_lost = std::find(received->lost.begin(), received->lost.end(), i) != received->lost.end();
    (is_lost ? lost : fresh).push_back(std::move(in_order[i]));
  }
  for (std::size_t i = 0; i < with_unit.size(); ++i) {
    const Result<void> result = received->units.empty() ? Result<void>{} : received->units[i];
    if (!result && result.error().code != ErrorCode::kLeaseLost) {
      unacked_first_.push_back(std::move(with_unit[i]));
      retry_receive_at_ = context_->clock->monotonic() + kErrorPause;
      continue;
    }
    (result ? fresh : lost).push_back(std::move(with_unit[i]));
  }
  settler_.forget(lost);
  for (const DeliveryPtr& state : fresh)
    state->settled_first = true;
  if (!context_->capabilities.is_store) forget_dedup_ids(fresh);
}

void ConsumerCore::forget_dedup_ids(const std::vector<DeliveryPtr>& states) {
  std::vector<spi::Unit> units;
  for (const DeliveryPtr& state : states) {
    spi::Unit unit;
    Settler::add_forgetting(unit, state->envelope());
    if (!unit.writes.empty()) units.push_back(std::move(unit));
  }
  if (units.empty()) return;
  if (auto done = context_->store->commit(units); !done)
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + done.error().to_string());
}

void ConsumerCore::acknowledge_again(MonotonicTime now) {
  if (unacked_first_.empty() || now < retry_receive_at_ || closing_.load()) return;
  std::vector<DeliveryPtr> again = std::exchange(unacked_first_, {});
  ack_first(again);
  admit(std::move(again));
}

}  // namespace towline::engine
