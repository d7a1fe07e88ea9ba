// SagaRunner; see the header for the order of events.

#include "engine/saga_runner.hpp"

#include <algorithm>
#include <utility>

#include <towline/clock.hpp>
#include <towline/engine.hpp>

#include "engine/saga_decider.hpp"
#include "engine/saga_workers.hpp"

namespace towline::engine {
namespace {

/// A saga that began under other steps is looked at this often: perhaps they come back.
constexpr Duration kMismatchDelay = std::chrono::minutes(1);
constexpr Duration kBackoffFirst = std::chrono::milliseconds(10);
constexpr Duration kBackoffMax = std::chrono::seconds(5);
/// The message of a saga is held as long as its calls run; each has a time of its own.
constexpr std::int64_t kCrashesMax = 1000;
constexpr Duration kHoldMax = std::chrono::hours(24);
/// An event that comes before its saga looks for it again after so long.
constexpr Duration kEarlyDelayMin = std::chrono::milliseconds(20);
constexpr Duration kEarlyDelayMax = std::chrono::seconds(30);
/// So long behind its time what is awaited is missing, even if the listener has not come so far.
constexpr Duration kListenerGrace = std::chrono::seconds(30);
/// The listener's backlog is looked at this often.
constexpr Duration kBacklogInterval = std::chrono::milliseconds(100);
/// An event that could not be written.
constexpr Duration kHearAgain = std::chrono::seconds(1);
constexpr Duration kLookInterval = std::chrono::seconds(1);
constexpr Duration kLookAgain = std::chrono::milliseconds(50);

thread_local const SagaRunner* t_lane = nullptr;

std::uint64_t next_call_number() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

/// An event that waits for its saga comes back well before anybody misses it.
Duration early_delay_max(const std::vector<const SagaStep*>& steps) {
  Duration most = kEarlyDelayMax;
  for (const SagaStep* step : steps) {
    if (step->is_awaited) most = std::min<Duration>(most, step->options.timeout / 4);
  }
  return std::max<Duration>(most, kLookInterval);
}

void acknowledge(Delivery delivery, Outcome outcome) {
  Finished finished{std::move(delivery), std::move(outcome)};
  Engine::finish({&finished, 1});
}

}  // namespace

SagaRunner::SagaRunner(std::shared_ptr<SagaRecords> records, SagaDefinition definition, saga::Shape shape,
                       SagaRemote remote)
    : records_(std::move(records)),
      context_(records_->context_ptr()),
      definition_(std::move(definition)),
      shape_(std::move(shape)),
      fingerprint_(saga::fingerprint_of(shape_)),
      remote_(std::move(remote)),
      steps_(steps_of(definition_)),
      early_delay_max_(early_delay_max(steps_)),
      made_at_(context_->clock->now()),
      rng_(context_->make_rng()) {}

SagaRunner::~SagaRunner() { abandon(); }

ConsumerOptions SagaRunner::consumer_options() const {
  ConsumerOptions options;
  options.group = kSagaGroup;
  options.order = Order::kKeyOrdered;
  options.concurrency = definition_.options.concurrency;
  options.handler_timeout = kHoldMax;
  // Deaths are counted by the saga's log, step by step.
  options.dead_letters.max_crashes = kCrashesMax;
  return options;
}

RemoteHandler SagaRunner::handler() {
  RemoteHandler handler;
  handler.deliver = [weak = weak_from_this()](std::span<Delivery> deliveries) {
    const auto runner = weak.lock();
    if (runner == nullptr) {
      for (Delivery& delivery : deliveries)
        acknowledge(std::move(delivery), {Outcome::Kind::kRelease, std::nullopt, {}});
      return;
    }
    const std::lock_guard lock(runner->mutex_);
    for (Delivery& delivery : deliveries)
      runner->inbox_.arrived.push_back(std::move(delivery));
    runner->changed_.notify_all();
  };
  handler.stop = [weak = weak_from_this()](const Delivery& delivery) {
    const auto runner = weak.lock();
    if (runner == nullptr) return;
    const std::lock_guard lock(runner->mutex_);
    runner->inbox_.stopped.push_back(delivery.number());
    runner->changed_.notify_all();
  };
  return handler;
}

// ---- events -------------------------------------------------------------------------------------

std::vector<std::string> SagaRunner::listens_to() const {
  return shape_.is_flow() ? events_of(definition_) : std::vector<std::string>();
}

ConsumerOptions SagaRunner::listener_options() const {
  ConsumerOptions options;
  options.group = std::string(kSagaGroup) + "." + definition_.type;
  options.concurrency = definition_.options.concurrency;
  return options;
}

OutcomeHandler SagaRunner::listener() {
  return [weak = weak_from_this()](Delivery& event) {
    const auto runner = weak.lock();
    return runner == nullptr ? Outcome{Outcome::Kind::kRelease, std::nullopt, {}} : runner->hear(event);
  };
}

Outcome SagaRunner::hear(const Delivery& event) {
  auto heard = records_->hear(definition_, event);
  if (!heard) {
    const ErrorCode code = heard.error().code;
    context_->log(LogLevel::kWarning, "sagas", heard.error().to_string());
    if (code == ErrorCode::kInvalidId || code == ErrorCode::kPayloadTooLarge ||
        code == ErrorCode::kCorruptStore)
      return Outcome::dead_letter(heard.error().message);
    return Outcome::defer(kHearAgain);
  }
  {
    const std::lock_guard lock(mutex_);
    statistics_.early += heard->as == Heard::kEarly ? 1 : 0;
    statistics_.late += heard->as == Heard::kLate ? 1 : 0;
    statistics_.strangers += heard->as == Heard::kStranger ? 1 : 0;
    // Also what was known: the answer to the first hearing may have been lost.
    if (heard->as <= Heard::kKnown) inbox_.heard.push_back(heard->id);
  }
  if (heard->as == Heard::kEarly) return wait_for_saga(event);
  if (heard->as <= Heard::kKnown) changed_.notify_all();
  return Outcome::ack();
}

Outcome SagaRunner::wait_for_saga(const Delivery& event) const {
  const Duration age = context_->clock->now() - event.published_at();
  const Duration left = definition_.options.early_event_ttl - age;
  if (left.count() <= 0) {
    return Outcome::dead_letter("no saga '" + std::string(event.header(kSagaIdHeader).value_or("")) +
                                "' of the type '" + definition_.type + "' has begun in time");
  }
  // The longer it has waited the less often it looks.
  return Outcome::defer(std::min(left, std::clamp<Duration>(age / 4, kEarlyDelayMin, early_delay_max_)));
}

bool SagaRunner::may_be_unheard(const SagaStep& step, TimePoint due) {
  const TimePoint now = context_->clock->now();
  if (now >= std::max(due, made_at_) + kListenerGrace) return false;
  // What was published before `due` is in a backlog that was looked at behind it.
  if (backlog_as_of_ <= due || context_->clock->monotonic() >= backlog_at_) look_at_backlog(now);
  return !backlog_ || backlog_->contains(step.on_success) || backlog_->contains(step.on_failure);
}

void SagaRunner::look_at_backlog(TimePoint now) {
  const MonotonicTime from = context_->clock->monotonic();
  auto groups = context_->transport->statistics();
  const MonotonicTime to = context_->clock->monotonic();
  backlog_as_of_ = now;
  backlog_at_ = to + std::max(kBacklogInterval, 10 * (to - from));
  backlog_.reset();
  if (!groups) return;
  const std::string group = listener_options().group;
  backlog_.emplace();
  for (spi::GroupStatistics& one : *groups) {
    if (one.group == group && one.waiting + one.in_flight > 0) backlog_->insert(std::move(one.topic));
  }
}

/// A saga in hand learns of an event at once; another process that has it in hand looks once a second.
void SagaRunner::look_again(const std::string& id) {
  const auto found = hands_.find(id);
  if (found == hands_.end()) return;
  found->second.record.reset();
  due_.insert(id);
}

void SagaRunner::start() {
  thread_ = std::thread([this] { main(); });
}

void SagaRunner::main() {
  t_lane = this;
  const auto stopping = [this] {
    const std::lock_guard lock(mutex_);
    return stopping_;
  };
  while (!stopping())
    step(context_->clock->monotonic() + kLookInterval);
}

void SagaRunner::retire() {
  {
    const std::lock_guard lock(mutex_);
    retired_.store(true);
  }
  changed_.notify_all();
  // Or what is given back would be taken again.
  for (const auto& consumer : {listener_, consumer_}) {
    if (consumer != nullptr) (void)consumer->pause();
  }
}

void SagaRunner::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool SagaRunner::is_inside() const noexcept {
  return t_lane == this || (workers_ != nullptr && workers_->is_inside());
}

std::uint64_t SagaRunner::close(MonotonicTime deadline) {
  if (context_->forked()) return 0;
  retire();
  if (is_inside()) return 0;
  const std::lock_guard lock(close_mutex_);
  if (closed_.load()) return stuck_;
  for (const auto& consumer : {listener_, consumer_}) {
    const auto left = std::max(Duration{0}, deadline - system_clock()->monotonic());
    if (consumer != nullptr) (void)consumer->close(left);
  }
  stop();
  stuck_ = workers_ != nullptr ? workers_->stop(deadline) : open_calls_.load();
  closed_.store(true);
  return stuck_;
}

void SagaRunner::abandon() {
  stop();
  if (workers_ != nullptr) (void)workers_->stop(MonotonicTime::min());
}

SagaRunnerStatistics SagaRunner::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

bool SagaRunner::busy() const {
  const std::lock_guard lock(mutex_);
  return statistics_.in_hand > 0 || !inbox_.empty();
}

// ---- calls --------------------------------------------------------------------------------------

void SagaRunner::begin(SagaCall& call) {
  const auto runner = call.state_->runner.lock();
  if (runner == nullptr) return;
  call.state_->begun_us.store(runner->context_->clock->monotonic().time_since_epoch().count());
}

void SagaRunner::finish(SagaCall& call, Outcome outcome) {
  if (call.state_ == nullptr || call.state_->finished.exchange(true)) return;
  const auto runner = call.state_->runner.lock();
  if (runner == nullptr) return;
  runner->open_calls_.fetch_sub(1);
  const std::lock_guard lock(runner->mutex_);
  runner->inbox_.returned.push_back({std::move(call), std::move(outcome)});
  runner->changed_.notify_all();
}

// ---- the lane -----------------------------------------------------------------------------------

SagaRunner::Inbox SagaRunner::wait_for_work(MonotonicTime until) {
  std::unique_lock lock(mutex_);
  while (inbox_.empty() && !stopping_ && context_->clock->monotonic() < until)
    context_->clock->wait_until(lock, changed_, until);
  return std::exchange(inbox_, {});
}

MonotonicTime SagaRunner::next_time() const {
  MonotonicTime next = MonotonicTime::max();
  for (const auto& [id, hand] : hands_) {
    next = std::min(next, hand.look_at);
    if (due_.contains(id)) next = std::min(next, hand.not_before);
    for (const auto& [number, call] : hand.running) {
      const std::int64_t begun = state_of(call)->begun_us.load();
      const MonotonicTime from = begun == 0 ? context_->clock->monotonic() : MonotonicTime(Duration(begun));
      next = std::min(next, from + steps_[state_of(call)->call.step]->options.timeout);
    }
  }
  return next;
}

void SagaRunner::step(MonotonicTime until) {
  Inbox inbox = wait_for_work(std::min(until, next_time()));
  for (Delivery& delivery : inbox.arrived)
    arrive(std::move(delivery));
  for (Returned& returned : inbox.returned)
    note_returned(std::move(returned));
  for (const std::uint64_t number : inbox.stopped)
    drop(number);
  for (const std::string& id : inbox.heard)
    look_again(id);
  const MonotonicTime now = context_->clock->monotonic();
  end_overdue(now);
  for (auto& [id, hand] : hands_) {
    if (hand.look_at > now) continue;
    hand.look_at = MonotonicTime::max();
    if (shape_.is_flow()) hand.record.reset();
    due_.insert(id);
  }
  std::vector<Plan> plans;
  for (const std::string& id : std::vector<std::string>(due_.begin(), due_.end())) {
    Hand& hand = hands_.at(id);
    if (hand.not_before > now) continue;
    if (!hand.record && !read(id, hand)) continue;
    if (auto planned = plan(id, hand)) plans.push_back(std::move(*planned));
  }
  carry_out(plans);
  const std::lock_guard lock(mutex_);
  statistics_.in_hand = hands_.size();
}

void SagaRunner::arrive(Delivery delivery) {
  if (retired_.load()) return acknowledge(std::move(delivery), {Outcome::Kind::kRelease, std::nullopt, {}});
  const std::string id(delivery.key().value_or(std::string()));
  // Its lease was lost before: what ran under it does not count, and `stop` for it may still come.
  if (const auto known = hands_.find(id); known != hands_.end()) drop(known->second.delivery.number());
  by_delivery_[delivery.number()] = id;
  Hand& hand = hands_[id];
  hand.delivery = std::move(delivery);
  due_.insert(id);
}

void SagaRunner::note_returned(Returned returned) {
  const auto owner = by_call_.find(state_of(returned.call)->number);
  if (owner == by_call_.end()) return;  // too late
  const std::string id = owner->second;
  by_call_.erase(owner);
  Hand& hand = hands_.at(id);
  hand.running.erase(state_of(returned.call)->number);
  hand.returned.push_back(std::move(returned));
  due_.insert(id);
}

void SagaRunner::drop(std::uint64_t delivery_number) {
  const auto owner = by_delivery_.find(delivery_number);
  if (owner == by_delivery_.end()) return;
  const std::string id = owner->second;
  for (auto& [number, call] : hands_.at(id).running) {
    state_of(call)->stop.request_stop();
    if (remote_.stop) remote_.stop(call);
  }
  leave(id, {Outcome::Kind::kRelease, std::nullopt, {}});
}

void SagaRunner::leave(const std::string& id, Outcome outcome) {
  const auto it = hands_.find(id);
  Delivery delivery = std::move(it->second.delivery);
  by_delivery_.erase(delivery.number());
  for (const auto& [number, call] : it->second.running)
    by_call_.erase(number);
  const std::string gone = id;  // may be the key of what is erased
  hands_.erase(it);
  due_.erase(gone);
  acknowledge(std::move(delivery), std::move(outcome));
}

void SagaRunner::end_overdue(MonotonicTime now) {
  std::vector<SagaCall> overdue;
  for (auto& [id, hand] : hands_) {
    for (auto& [number, call] : hand.running) {
      const std::int64_t begun = state_of(call)->begun_us.load();
      const Duration timeout = steps_[state_of(call)->call.step]->options.timeout;
      if (begun != 0 && MonotonicTime(Duration(begun)) + timeout <= now) overdue.push_back(call);
    }
  }
  for (SagaCall& call : overdue) {
    state_of(call)->stop.request_stop();
    if (remote_.stop) remote_.stop(call);
    // What it still changes must not be taken: it may be at it right now.
    note_returned({call, Outcome::fail({"StepTimeout", "the call did not return in time", {}})});
  }
}

bool SagaRunner::read(const std::string& id, Hand& hand) {
  auto record = records_->load(definition_.type, id);
  if (!record) {
    if (record.error().code == ErrorCode::kNotFound) {
      leave(id, Outcome::ack());  // it was over, and is swept
    } else if (record.error().code == ErrorCode::kCorruptStore) {
      leave(id, Outcome::dead_letter(record.error().message));
    } else {
      put_off(hand, record.error());
    }
    return false;
  }
  if (record->info.fingerprint != fingerprint_) {
    {
      const std::lock_guard lock(mutex_);
      ++statistics_.mismatched;
    }
    context_->log(LogLevel::kWarning, "sagas",
                  "saga '" + id + "' began under other steps of " + topic() + " and waits for them");
    leave(id, Outcome::defer(kMismatchDelay));
    return false;
  }
  if (!hand.unsure.empty()) {
    const bool happened = std::find(record->ids.begin(), record->ids.end(), hand.unsure) != record->ids.end();
    hand.unsure = {};
    if (happened) {
      // What returned meanwhile is still to be written; what the unit had is void by now.
      hand.fresh = false;
      hand.record = std::move(*record);
      std::erase_if(hand.unsure_begins,
                    [&](const saga::Call& call) { return !hand.record->state.is_running(call); });
      dispatch(id, hand, hand.unsure_begins);
      return true;
    }
  }
  if (hand.conflict && record->version == hand.conflict_version) {
    // Nobody has changed the saga: something that a step publishes cannot be stored beside what is there.
    const Error error = *std::exchange(hand.conflict, std::nullopt);
    bool known = false;
    for (Returned& returned : hand.returned) {
      if (returned.outcome.kind != Outcome::Kind::kAck || state_of(returned.call)->published.empty())
        continue;
      returned.outcome = Outcome::fail({std::string(error.wire_code()), error.message, {}});
      known = true;
    }
    if (!known) {
      put_off(hand, error);
      return false;
    }
  }
  hand.conflict.reset();
  hand.record = std::move(*record);
  return true;
}

void SagaRunner::put_off(Hand& hand, const Error& error) {
  hand.backoff = std::clamp(hand.backoff * 2, kBackoffFirst, kBackoffMax);
  hand.not_before = context_->clock->monotonic() + hand.backoff;
  hand.record.reset();
  context_->log(LogLevel::kWarning, "sagas", error.to_string());
}

// ---- deciding and committing --------------------------------------------------------------------

std::optional<SagaRunner::Plan> SagaRunner::plan(const std::string& id, Hand& hand) {
  Plan plan{id, *hand.record, {}, {}, false, false, {}};
  const auto woken_at = hand.fresh ? SagaRecords::woken_at(hand.delivery) : std::nullopt;
  const TimePoint now = context_->clock->now();
  SagaDecider decider(plan.after, steps_, *records_, rng_, std::max(now, woken_at.value_or(now)));
  if (hand.fresh) {
    decider.take_reply(hand.delivery);
    decider.end_lost_calls(woken_at);
  }
  for (const Returned& returned : hand.returned) {
    SagaCallState& call = *state_of(returned.call);
    const bool done = returned.outcome.kind == Outcome::Kind::kAck;
    // Copied: when the unit conflicts it is all decided once more.
    decider.take(call.call, returned.outcome, done ? call.output : std::nullopt,
                 done ? call.new_context : std::nullopt, done ? call.published : std::vector<spi::Write>());
  }
  decider.end_missed_events(
      [this](const SagaStep& step, TimePoint due) { return may_be_unheard(step, due); });
  decider.check_deadline();
  // What has killed a process is not begun under the same message: that one would soon count as a killer, and
  // nothing else is handed out beside a suspect.
  const bool suspect = hand.fresh && hand.delivery.redelivered();
  if (!retired_.load() && !suspect) decider.begin_ready();
  plan.begins = std::move(decider.begins);
  plan.leaves = hand.running.empty() && plan.begins.empty();
  const bool over = is_final(plan.after.state.status());
  auto wake_at = over ? std::nullopt : decider.wake_at();
  if (wake_at && decider.waits_for_listener) {
    const Duration soon = plan.leaves ? Duration(kLookInterval) : Duration(kBacklogInterval);
    wake_at = std::max(*wake_at, now + soon);
  }
  hand.look_at = MonotonicTime::max();
  if (plan.leaves) {
    decider.change.wake_at = wake_at;
  } else {
    // Nobody else looks while calls of it run here. What is due already waits for one of them to return.
    const Duration wait = wake_at.value_or(kNever) - now;
    const bool is_due = wait <= Duration{0};
    Duration look = is_due ? kLookInterval : std::max(kLookAgain, wait);
    if (shape_.is_flow()) look = std::min(look, kLookInterval);  // others may have heard something
    if (wake_at || shape_.is_flow()) hand.look_at = context_->clock->monotonic() + look;
  }
  if (decider.change.entries.empty()) {
    hand.returned.clear();
    hand.fresh = false;
    if (!plan.leaves) {
      due_.erase(id);
      return std::nullopt;
    }
    if (over) {
      leave(id, Outcome::ack());
      return std::nullopt;
    }
    plan.only_wakes = true;
  }
  {
    const std::lock_guard lock(mutex_);
    statistics_.failures += decider.failures;
    statistics_.taken_over += decider.taken_over;
  }
  auto unit = plan.only_wakes ? records_->wake(plan.after, *decider.change.wake_at)
                              : records_->to_unit(plan.after, std::move(decider.change));
  if (!unit) {
    put_off(hand, unit.error());
    return std::nullopt;
  }
  plan.unit = std::move(*unit);
  if (!plan.only_wakes) plan.first_entry = plan.after.ids[hand.record->ids.size()];
  return plan;
}

void SagaRunner::carry_out(std::vector<Plan>& plans) {
  if (plans.empty()) return;
  std::vector<spi::Unit> units;
  units.reserve(plans.size());
  for (Plan& plan : plans)
    units.push_back(std::move(plan.unit));
  auto done = context_->store->commit(units);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    Plan& plan = plans[i];
    Hand& hand = hands_.at(plan.id);
    if (!done) {
      // Unknown whether it happened: the log will say.
      hand.unsure = plan.first_entry;
      hand.unsure_begins = std::move(plan.begins);
      put_off(hand, done.error());
      continue;
    }
    const bool ok = done->empty() || (*done)[i].ok();
    const bool conflict = !ok && (*done)[i].error().code == ErrorCode::kConflict;
    if (ok || (conflict && plan.only_wakes)) {
      committed(plan);
    } else if (conflict) {
      // Somebody has changed the saga: look again, at once.
      hand.conflict = (*done)[i].error();
      hand.conflict_version = hand.record->version;
      hand.record.reset();
    } else {
      put_off(hand, (*done)[i].error());
    }
  }
  if (!done && done.error().code == ErrorCode::kIoError) context_->fail(done.error());
}

void SagaRunner::committed(Plan& plan) {
  Hand& hand = hands_.at(plan.id);
  hand.record = std::move(plan.after);
  hand.returned.clear();
  hand.fresh = false;
  hand.backoff = Duration{0};
  due_.erase(plan.id);
  {
    const std::lock_guard lock(mutex_);
    const SagaStatus status = hand.record->info.status;
    statistics_.completed += status == SagaStatus::kCompleted ? 1 : 0;
    statistics_.compensated += status == SagaStatus::kCompensated ? 1 : 0;
    statistics_.stuck += status == SagaStatus::kStuck ? 1 : 0;
  }
  if (hand.record->info.status == SagaStatus::kStuck) {
    context_->log(LogLevel::kWarning, "sagas",
                  "saga '" + plan.id + "' of " + topic() + " is stuck at step '" + hand.record->info.step +
                      "': " + hand.record->info.error);
  }
  if (plan.leaves) return leave(plan.id, Outcome::ack());
  dispatch(plan.id, hand, plan.begins);
}

void SagaRunner::dispatch(const std::string& id, Hand& hand, std::span<const saga::Call> begun) {
  if (begun.empty()) return;
  const SagaRecord& record = *hand.record;
  std::vector<SagaCall> calls;
  for (const saga::Call& which : begun) {
    auto state = std::make_shared<SagaCallState>();
    state->runner = weak_from_this();
    state->number = next_call_number();
    state->type = record.info.type;
    state->id = record.info.id;
    state->step = record.state.name_of_step(which.step);
    state->key = key_of(record.info, state->step, which.phase);
    state->cause = record.state.cause();
    state->call = which;
    state->context = record.state.input(which.step);
    for (std::size_t step = 0; step < steps_.size(); ++step) {
      const auto& output = record.state.output(step);
      if (output) state->outputs.emplace_back(record.state.name_of_step(step), *output);
    }
    state->may_change_context = which.phase == SagaPhase::kExecute && !record.state.is_parallel(which.step);
    state->payload_bytes_max = static_cast<std::size_t>(context_->options.payload_bytes_max);
    // Elsewhere it begins when it is given away.
    if (workers_ == nullptr) state->begun_us.store(context_->clock->monotonic().time_since_epoch().count());
    SagaCall call(std::move(state));
    by_call_[call.number()] = id;
    hand.running.emplace(call.number(), call);
    calls.push_back(std::move(call));
  }
  {
    const std::lock_guard lock(mutex_);
    statistics_.calls += calls.size();
  }
  open_calls_.fetch_add(calls.size());
  (void)hand.delivery.extend(kHoldMax);
  remote_.deliver(calls);
}

}  // namespace towline::engine
