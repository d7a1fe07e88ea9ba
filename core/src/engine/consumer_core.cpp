// The lane and the workers of one consumer. See the header for the round of the lane.

#include "engine/consumer_core.hpp"

#include <algorithm>

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
  limits.batch_count_max = std::holds_alternative<BatchHandler>(handler) ? options.batch_count_max : 0;
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
  const bool callable = std::visit([](const auto& f) { return static_cast<bool>(f); }, handler);
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
      identity_(options_.group + "/" + join(patterns_) + "/" + options_.name),
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
  for (std::int64_t i = 0; i < options_.concurrency; ++i) {
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

std::size_t ConsumerCore::intake_credit(MonotonicTime now) {
  if (paused_.load() || closing_.load() || now < retry_receive_at_) return 0;
  std::size_t credit = dispatcher_.credit();
  // One at a time beyond the bound: with nothing at all the heads that would unblock the keys never came in.
  if (dispatcher_.parked_total() >= static_cast<std::uint64_t>(options_.parked_count_max)) {
    credit = idle() ? std::min<std::size_t>(credit, 1) : 0;
  }
  const auto in_flight =
      static_cast<std::int64_t>(context_->counters.in_flight_count.load(std::memory_order_relaxed));
  const std::int64_t room = context_->options.in_flight_count_max - in_flight;
  const auto bytes =
      static_cast<std::int64_t>(context_->counters.in_flight_bytes.load(std::memory_order_relaxed));
  if (room <= 0 || bytes >= context_->options.in_flight_bytes_max) return 0;
  credit = std::min(credit, static_cast<std::size_t>(room));
  const std::size_t probes = breaker_.allowance(now);
  const bool open = breaker_.state() == policy::BreakerState::kOpen;
  if (open && !breaker_open_.exchange(true)) {
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": circuit breaker open, intake paused");
    for (DeliveryPtr& state : dispatcher_.take_back())
      settler_.add_released(std::move(state));
  } else if (!open) {
    breaker_open_.store(false);
  }
  return std::min(credit, probes);
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
  std::size_t credit = intake_credit(now);
  // One message is always let through when nothing is in hand, however large it is.
  const auto bytes_max = static_cast<std::size_t>(options_.prefetch_bytes_max);
  const std::size_t held_bytes = dispatcher_.bytes_in_hand();
  const std::size_t free_bytes = held_bytes >= bytes_max ? 0 : bytes_max - held_bytes;
  if (free_bytes == 0) credit = 0;
  if (auto timer = dispatcher_.next_timer()) wait_until = std::min(wait_until, *timer);
  if (auto probes = breaker_.probes_at()) wait_until = std::min(wait_until, *probes);
  if (now < retry_receive_at_) wait_until = std::min(wait_until, retry_receive_at_);
  if (settler_.empty() && credit == 0) {
    dispatcher_.wait_for_outcomes(wait_until);
    return;
  }
  if (now < retry_receive_at_) {  // the provider failed a moment ago: do not run against it
    dispatcher_.wait_for_outcomes(wait_until);
    return;
  }
  if (auto committed = settler_.commit_units(); !committed) {
    retry_receive_at_ = now + kErrorPause;
    return;
  }
  spi::ReceiveRequest request;
  request.count_max = credit;
  request.payload_bytes_max = free_bytes;
  request.settlements = settler_.settlements();
  request.units = context_->capabilities.is_store ? settler_.units() : std::span<const spi::Unit>();
  const bool may_wait = dispatcher_.enter_receive();
  request.deadline = may_wait ? wait_until : now;
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

bool ConsumerCore::admit_one(DeliveryPtr& state) {
  const policy::Decision decision =
      policy::decide_intake(settler_.facts_of(*state), policy::DecisionRules::of(options_));
  if (decision.action == policy::Action::kHandle) {
    if (!filter_ || filter_->matches(state->envelope())) return true;
    state->phase.store(Phase::kDecided);
    settler_.add_passed_over(std::move(state), false);
    return false;
  }
  Decided decided{state, Outcome::fail(intake_error(decision.reason, state->delivery))};
  decided.intake = decision;
  state->phase.store(Phase::kDecided);
  settler_.add(std::move(decided));
  return false;
}

void ConsumerCore::take_in(std::vector<spi::Delivery> deliveries) {
  const std::uint64_t period = breaker_.admit(context_->clock->monotonic(), deliveries.size());
  auto hand_out = std::make_shared<HandOut>(deliveries.size(), link_);
  std::vector<DeliveryPtr> fresh;
  fresh.reserve(deliveries.size());
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < deliveries.size(); ++i) {
    DeliveryState& state = hand_out->states[i];
    state.hand_out = hand_out.get();
    state.breaker_period = period;
    bytes += deliveries[i].envelope->payload.size();
    state.delivery = std::move(deliveries[i]);
    fresh.emplace_back(hand_out, &state);
  }
  received_.fetch_add(fresh.size(), std::memory_order_relaxed);
  account(fresh.size(), bytes);
  settler_.note_deliveries(fresh.size());
  dispatcher_.attach(fresh);
  std::vector<DeliveryPtr> back = without_blocks(fresh);
  for (DeliveryPtr& state : back) {
    state->phase.store(Phase::kDecided);
    dispatcher_.pass(*state);
    settler_.add_released(std::move(state));
  }
  if (!back.empty()) retry_receive_at_ = context_->clock->monotonic() + kErrorPause;
  drop_handled_before(fresh);
  std::erase_if(fresh, [&](DeliveryPtr& state) { return !admit_one(state); });
  if (options_.ack == AckPolicy::kFirst) ack_first(fresh);
  for (DeliveryPtr& state : dispatcher_.admit(std::move(fresh)))
    settler_.add_parked(std::move(state));
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
    state->phase.store(Phase::kDecided);
    settler_.add_passed_over(std::move(state), true);
    return true;
  });
}

void ConsumerCore::ack_first(std::vector<DeliveryPtr>& fresh) {
  std::vector<spi::Settlement> settlements;
  settlements.reserve(fresh.size());
  for (const DeliveryPtr& state : fresh)
    settlements.push_back({state->delivery.token, spi::Verb::kAck});
  spi::ReceiveRequest request;
  request.settlements = settlements;
  request.deadline = context_->clock->monotonic();
  auto received = subscription_->receive(request);
  if (!received) {
    // Unknown whether they are acknowledged, so none may run: at most once is what was asked for.
    context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + received.error().to_string());
    settler_.forget(fresh);
    fresh.clear();
    return;
  }
  std::vector<DeliveryPtr> lost;
  for (const std::uint32_t index : received->lost)
    lost.push_back(fresh[index]);
  settler_.forget(lost);
  std::erase_if(fresh, [&](const DeliveryPtr& state) {
    return std::find(lost.begin(), lost.end(), state) != lost.end();
  });
  for (const DeliveryPtr& state : fresh)
    state->settled_first = true;
}

void ConsumerCore::account(std::size_t count, std::size_t bytes) {
  context_->counters.in_flight_count.fetch_add(count, std::memory_order_relaxed);
  context_->counters.in_flight_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

}  // namespace towline::engine
