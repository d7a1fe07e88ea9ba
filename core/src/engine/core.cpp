// Core; see the header for its threads. The order of shutting down: no new calls -> consumers (intake,
// handlers, outcomes, subscriptions) -> scheduler, keeper, janitor -> store. Never the store before a thread
// that uses it.

#include "engine/core.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "engine/saga_workers.hpp"
#include "engine/waits.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kConsumersMax = 10000;
constexpr std::size_t kFollowersMax = 1000;
constexpr Duration kSafetyPoll = std::chrono::seconds(1);

thread_local const Core* t_engine_thread = nullptr;

}  // namespace

Core::Core(EngineOptions options, spi::Provider provider, std::shared_ptr<spi::Clock> clock,
           std::uint64_t seed)
    : context_(std::make_shared<Context>(std::move(options), std::move(provider), std::move(clock), seed)),
      publisher_(context_),
      scheduler_(context_),
      relay_(context_, publisher_),
      dead_letters_(context_),
      idempotency_(context_),
      events_(context_),
      conversations_(context_, publisher_),
      sagas_(std::make_shared<SagaRecords>(context_)),
      janitor_(context_, dead_letters_, conversations_, *sagas_) {}

std::shared_ptr<Core> Core::create(EngineOptions options, spi::Provider provider,
                                   std::shared_ptr<spi::Clock> clock, std::uint64_t seed, bool threads) {
  std::shared_ptr<Core> core(new Core(std::move(options), std::move(provider), std::move(clock), seed));
  if (threads) core->start();
  return core;
}

Core::~Core() {
  // The facade closes the engine before the last handle goes; what is left here is a simulation's crash.
  abandon();
  if (closer_.joinable()) {
    closer_.get_id() == std::this_thread::get_id() ? closer_.detach() : closer_.join();
  }
}

void Core::start() {
  threads_.emplace_back([this] { scheduler_main(); });
  if (context_->capabilities.runs_sql) threads_.emplace_back([this] { relay_main(); });
  threads_.emplace_back([this] { keeper_main(); });
  threads_.emplace_back([this] { janitor_main(); });
  threads_.emplace_back([this] { usher_main(); });
}

bool Core::wait(MonotonicTime until) {
  std::unique_lock lock(mutex_);
  while (!stopping_ && context_->clock->monotonic() < until)
    context_->clock->wait_until(lock, changed_, until);
  return !stopping_;
}

void Core::scheduler_main() {
  t_engine_thread = this;
  for (MonotonicTime next = context_->clock->monotonic(); wait(next);) {
    next = scheduler_.step(context_->clock->monotonic() + kSafetyPoll);
    scheduler_rounds_.fetch_add(1);
  }
}

void Core::relay_main() {
  t_engine_thread = this;
  for (MonotonicTime next = context_->clock->monotonic(); wait(next);)
    next = relay_.step(context_->clock->monotonic() + kSafetyPoll);
}

void Core::keeper_main() {
  t_engine_thread = this;
  MonotonicTime renew_at = context_->clock->monotonic() + context_->options.lease / 3;
  while (wait(renew_at)) {
    step_keeper();
    renew_at = context_->clock->monotonic() + context_->options.lease / 3;
  }
}

void Core::usher_main() {
  t_engine_thread = this;
  while (wait_for_leaver()) {
    for (const auto& consumer : consumers()) {
      if (consumer->close_requested() && !consumer->closed()) (void)consumer->close(std::nullopt);
    }
    for (const auto& follower : followers()) {
      if (follower->left())
        (void)follower->close(system_clock()->monotonic() + context_->options.drain_timeout);
    }
  }
}

bool Core::wait_for_leaver() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || somebody_leaves_; });
  somebody_leaves_ = false;
  return !stopping_;
}

void Core::note_leaver() {
  {
    const std::lock_guard lock(mutex_);
    somebody_leaves_ = true;
  }
  changed_.notify_all();
}

void Core::janitor_main() {
  t_engine_thread = this;
  MonotonicTime next = context_->clock->monotonic() + context_->options.sweep_interval;
  while (wait(next))
    next = janitor_.step(context_->clock->monotonic());
}

void Core::step_scheduler() { (void)scheduler_.step(context_->clock->monotonic()); }

void Core::step_relay() {
  if (context_->capabilities.runs_sql) (void)relay_.step(context_->clock->monotonic());
}

void Core::step_keeper() {
  for (const auto& consumer : consumers())
    consumer->renew();
  for (const auto& follower : followers())
    follower->renew();
}

void Core::step_janitor() { (void)janitor_.step(context_->clock->monotonic()); }

std::vector<std::shared_ptr<ConsumerCore>> Core::consumers() {
  const std::lock_guard lock(mutex_);
  std::erase_if(consumers_, [](const auto& consumer) { return consumer->closed(); });
  return consumers_;
}

Result<std::shared_ptr<ConsumerCore>> Core::consume(std::vector<std::string> patterns,
                                                    ConsumerOptions options, AnyHandler handler) {
  if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
  {
    // What closes takes in nothing new, and a group must not be left with it for nothing.
    const std::lock_guard lock(mutex_);
    if (closing_ || closer_.joinable()) return Error{ErrorCode::kClosed, "the engine is closing"};
  }
  const std::string group = options.group;
  const DeadLettersOptions policy = options.dead_letters;
  const bool named = !options.name.empty();
  auto consumer = ConsumerCore::create(context_, std::move(patterns), std::move(options), std::move(handler));
  if (!consumer) return consumer;
  (*consumer)->set_entry_listener(
      [this, policy](const DeadLetter& entry) { dead_letters_.note(entry, policy); });
  (*consumer)->set_leave_listener([weak = weak_from_this()] {
    if (const auto core = weak.lock()) core->note_leaver();
  });
  if (auto refused = enlist(*consumer, named); !refused) {
    (void)(*consumer)->close(Duration{0});
    return std::move(refused).error();
  }
  dead_letters_.redrive_automatically(group, policy);
  // close() may have come between: then it starts nothing.
  if (!threads_.empty()) (*consumer)->start();
  return consumer;
}

std::vector<std::shared_ptr<EventFollower>> Core::followers() {
  const std::lock_guard lock(mutex_);
  std::erase_if(followers_, [](const auto& follower) { return follower->ended(); });
  return followers_;
}

Result<std::shared_ptr<EventFollower>> Core::follow(const EventSubscriptionOptions& options,
                                                    EventFollower::Work work, bool fill) {
  auto follower = EventFollower::create(context_, options, std::move(work), fill);
  if (!follower) return follower;
  (*follower)->set_leave_listener([weak = weak_from_this()] {
    if (const auto core = weak.lock()) core->note_leaver();
  });
  {
    const std::lock_guard lock(mutex_);
    if (!closing_ && !closer_.joinable() && followers_.size() < kFollowersMax) {
      followers_.push_back(*follower);
      if (!threads_.empty()) (*follower)->start();
      return follower;
    }
  }
  (void)(*follower)->close(MonotonicTime::min());
  if (followers().size() >= kFollowersMax) {
    return Error{ErrorCode::kLimitExceeded, "this engine has 1,000 event subscriptions already; close some"};
  }
  return Error{ErrorCode::kClosed, "the engine is closing"};
}

std::vector<std::shared_ptr<SagaRunner>> Core::saga_runners() {
  const std::lock_guard lock(mutex_);
  std::erase_if(saga_runners_, [](const auto& runner) { return runner->closed(); });
  return saga_runners_;
}

Result<void> Core::check_definition(const SagaDefinition& definition, const saga::Shape& shape) {
  const std::string fingerprint = saga::fingerprint_of(shape);
  SagaQuery query;
  query.type = definition.type;
  query.unfinished = true;
  query.count_max = 1000;
  std::map<std::uint32_t, std::uint64_t> of_others;
  do {
    auto page = context_->store->list_sagas(query);
    if (!page) return std::move(page).error();
    for (const SagaInfo& saga : page->items) {
      if (saga.definition_version != definition.version) {
        ++of_others[saga.definition_version];
      } else if (saga.fingerprint != fingerprint) {
        return Error{ErrorCode::kDefinitionMismatch,
                     "saga '" + saga.id + "' of " + saga_topic(definition.type, definition.version) +
                         " began under other steps and has not ended; give these steps a new version, and "
                         "run the old ones beside them until their sagas are done"};
      }
    }
    query.cursor = page->cursor;
  } while (!query.cursor.empty());
  return report_versions(definition.type, of_others);
}

Result<void> Core::report_versions(std::string_view type,
                                   const std::map<std::uint32_t, std::uint64_t>& unfinished) {
  if (unfinished.empty()) return {};
  auto groups = context_->transport->statistics();
  if (!groups) return std::move(groups).error();
  for (const auto& [version, count] : unfinished) {
    const std::string topic = saga_topic(type, version);
    const bool runs = std::any_of(groups->begin(), groups->end(), [&topic](const auto& group) {
      return group.group == kSagaGroup && group.topic == topic && group.member_count > 0;
    });
    if (runs) continue;
    context_->log(LogLevel::kWarning, "sagas",
                  std::to_string(count) + " unfinished sagas wait for " + topic +
                      ", which nobody runs; run that version too until they are done");
  }
  return {};
}

Result<std::shared_ptr<SagaRunner>> Core::run_saga(const SagaDefinition& definition, SagaRemote remote,
                                                   std::shared_ptr<SagaWorkers> workers) {
  auto shape = shape_of(definition);
  if (!shape) return std::move(shape).error();
  if (auto bad = check_definition(definition, *shape); !bad) return std::move(bad).error();
  auto runner = std::make_shared<SagaRunner>(sagas_, definition, std::move(*shape), std::move(remote));
  runner->set_workers(workers);
  if (!threads_.empty()) {
    runner->start();
    if (workers != nullptr) workers->start();
  }
  // It listens before its steps can publish anything that others answer.
  if (auto topics = runner->listens_to(); !topics.empty()) {
    auto listener = consume(std::move(topics), runner->listener_options(), runner->listener());
    if (!listener) return std::move(listener).error();
    runner->set_listener(std::move(*listener));
  }
  auto consumer = consume({runner->topic()}, runner->consumer_options(),
                          std::make_shared<const RemoteHandler>(runner->handler()));
  if (!consumer) {
    (void)runner->close(MonotonicTime{});
    return std::move(consumer).error();
  }
  runner->set_consumer(std::move(*consumer));
  const std::lock_guard lock(mutex_);
  if (!closing_) saga_runners_.push_back(runner);
  return runner;
}

Result<void> Core::enlist(const std::shared_ptr<ConsumerCore>& consumer, bool named) {
  const std::lock_guard lock(mutex_);
  if (closing_) return Error{ErrorCode::kClosed, "the engine is closed"};
  std::erase_if(consumers_, [](const auto& known) { return known->closed(); });
  if (consumers_.size() >= kConsumersMax) {
    return Error{ErrorCode::kLimitExceeded, "this engine has 10,000 consumers already; close some"};
  }
  for (const auto& known : consumers_) {
    if (!named || known->identity() != consumer->identity()) continue;
    return Error{ErrorCode::kAlreadySubscribed, "this engine has a consumer named '" + known->identity() +
                                                    "' already; close it first or choose another name"};
  }
  consumers_.push_back(consumer);
  return {};
}

Result<void> Core::declare_topic(std::string_view topic, const TopicOptions& options) {
  if (auto bad = base::check_topic(topic); !bad) return bad;
  if (auto bad = validate(options); !bad) return bad;
  spi::Topology topology;
  topology.topic = std::string(topic);
  topology.kind = static_cast<spi::TopicKind>(options.type);
  topology.partition_count = static_cast<std::uint32_t>(options.partition_count);
  topology.retention = options.retention;
  return context_->transport->declare(topology);
}

Result<void> Core::release_key(std::string_view group, std::string_view topic, std::string_view key) {
  auto blocks = context_->store->list_key_blocks(group, topic, std::nullopt);
  if (!blocks) return std::move(blocks).error();
  // In partition order the key is "" in every partition, and all that are blocked are meant.
  std::vector<spi::Unit> units;
  for (const spi::KeyBlock& block : *blocks) {
    if (block.key != key) continue;
    units.push_back(
        {{spi::UnparkNext{block.group, block.topic, block.key, block.partition, context_->clock->now()}}});
  }
  if (units.empty()) {
    return Error{ErrorCode::kNotFound,
                 "no key '" + base::escape(key, 64) + "' of this group and topic is blocked"};
  }
  auto done = context_->store->commit(units);
  if (!done) return std::move(done).error();
  for (Result<void>& result : *done) {
    if (!result) return std::move(result);
  }
  return {};
}

Result<EngineStatistics> Core::statistics() {
  if (auto closed = context_->check_open(); !closed) return std::move(closed).error();
  auto stored = context_->store->statistics();
  if (!stored) return std::move(stored).error();
  const Counters& counters = context_->counters;
  EngineStatistics out;
  out.published = counters.published.load();
  out.duplicates = counters.duplicates.load();
  out.rejected = counters.rejected.load();
  out.unknown = counters.unknown.load();
  out.fired = counters.fired.load();
  out.redriven = counters.redriven.load();
  out.swept = counters.swept.load();
  out.relayed = counters.relayed.load();
  out.refused = counters.refused.load();
  out.scheduled_now = stored->scheduled;
  out.parked_now = stored->parked;
  std::copy(std::begin(stored->dead_letters), std::end(stored->dead_letters), std::begin(out.dead_letters));
  out.idempotency_records = stored->idempotency_records;
  out.store_bytes = stored->bytes;
  const base::Histogram lateness = context_->lateness();
  out.lateness_p50_us = lateness.quantile(0.5);
  out.lateness_p99_us = lateness.quantile(0.99);
  out.lateness_max_us = lateness.max();
  return out;
}

Health Core::health() {
  if (auto open = context_->check_open(); !open) return {false, open.error().to_string()};
  if (auto stored = context_->store->statistics(); !stored) return {false, stored.error().to_string()};
  return {true, {}};
}

Result<void> Core::settle_down(Duration timeout) {
  const auto clock = system_clock();
  const MonotonicTime deadline = deadline_in(*clock, timeout);
  // Quiet means: twice in a row the scheduler began and ended a round that moved nothing, and nothing was
  // waiting or in hand.
  std::uint64_t round = scheduler_rounds_.load();
  std::uint64_t fired = context_->counters.fired.load();
  for (int quiet = 0; quiet < 2;) {
    if (auto closed = context_->check_open(); !closed) return closed;
    scheduler_.wake();
    auto busy = busy_with();
    if (!busy) return std::move(busy).error();
    const bool is_busy = !busy->empty();
    const bool moved = context_->counters.fired.load() != fired;
    // One round may have been under way when this began to look, so only the one after it counts.
    const bool went_round = threads_.empty() || scheduler_rounds_.load() >= round + 2;
    if (is_busy || moved || went_round) {
      quiet = is_busy || moved ? 0 : quiet + 1;
      round = scheduler_rounds_.load();
      fired = context_->counters.fired.load();
    }
    if (clock->monotonic() >= deadline) {
      return Error{ErrorCode::kTimeout,
                   "the engine did not become quiet in time: " +
                       (is_busy ? *busy : std::string("the scheduler moves messages without end"))};
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(1));
  }
  return {};
}

Result<std::string> Core::busy_with() {
  for (const auto& consumer : consumers()) {
    if (!consumer->idle()) return "handlers run, or wait to, of " + consumer->identity();
  }
  for (const auto& follower : followers()) {
    if (follower->busy()) return std::string("a subscription to events has some to handle");
  }
  for (const auto& runner : saga_runners()) {
    if (runner->busy()) return std::string("a saga has a step to run");
  }
  if (context_->capabilities.runs_sql && relay_.busy()) return std::string("the outbox has messages");
  spi::ScheduleQuery query;
  query.count_max = 1;
  auto due = context_->store->list_schedule(query);
  if (!due) return std::move(due).error();
  if (!due->items.empty() && due->items.front().due_at <= context_->clock->now())
    return "a message for '" + due->items.front().envelope.topic + "' is due";
  auto groups = context_->transport->statistics();
  if (!groups) return std::move(groups).error();
  for (const spi::GroupStatistics& group : *groups) {
    if ((group.waiting > 0 || group.in_flight > 0) && group.member_count > 0 && takes_part(group)) {
      return std::to_string(group.waiting) + " messages of '" + group.topic + "' wait for the group '" +
             group.group + "', and " + std::to_string(group.in_flight) + " are in hand" + breaker_note(group);
    }
  }
  return std::string();
}

std::string Core::breaker_note(const spi::GroupStatistics& group) {
  for (const auto& consumer : consumers()) {
    if (consumer->group() == group.group && consumer->statistics().breaker_open)
      return "; its circuit breaker is open (options breaker.*)";
  }
  return {};
}

bool Core::takes_part(const spi::GroupStatistics& group) {
  for (const auto& consumer : consumers()) {
    if (consumer->group() == group.group && !consumer->statistics().paused) return true;
  }
  return false;
}

void Core::stop_threads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  scheduler_.wake();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

Result<std::uint64_t> Core::close(std::optional<Duration> timeout) {
  // No thread of ours is left to be joined in a child, and the parent may have held our locks.
  if (context_->forked()) return std::move(context_->check_open()).error();
  std::unique_lock lock(mutex_);
  const ConsumerCore* inside = current_consumer();
  const bool in_handler = (inside != nullptr && inside->is_of(*context_)) || is_in_saga_of(*context_);
  if (in_handler || t_engine_thread == this) {
    // Inside a handler or one of our own threads: it cannot wait for itself, so another thread does the work.
    if (!closing_ && !closer_.joinable()) {
      closer_ = std::thread([core = shared_from_this(), timeout] { (void)core->close(timeout); });
    }
    return std::uint64_t{0};
  }
  const auto clock = system_clock();  // a virtual one may stand still for ever
  const MonotonicTime deadline = deadline_in(*clock, timeout.value_or(context_->options.drain_timeout));
  if (closing_) {
    // Whoever has less time than the one who closes hurries it.
    for (const auto& consumer : consumers_)
      consumer->hasten(deadline);
    for (const auto& follower : followers_)
      follower->hasten(deadline);
    changed_.wait(lock, [&] { return closed_; });
    return stuck_;
  }
  closing_ = true;
  lock.unlock();
  std::uint64_t stuck = 0;
  const auto runners = saga_runners();
  for (const auto& runner : runners)
    runner->retire();
  for (const auto& consumer : consumers()) {
    const Duration left = std::max(Duration{0}, deadline - clock->monotonic());
    if (auto closed = consumer->close(left)) stuck += *closed;
  }
  for (const auto& follower : followers())
    stuck += follower->close(deadline) ? 1 : 0;
  for (const auto& runner : runners)
    stuck += runner->close(deadline);
  context_->mark_closed();
  stop_threads();
  lock.lock();
  consumers_.clear();
  followers_.clear();
  saga_runners_.clear();
  stuck_ = stuck;
  closed_ = true;
  changed_.notify_all();
  return stuck;
}

void Core::abandon() {
  std::vector<std::shared_ptr<ConsumerCore>> consumers;
  std::vector<std::shared_ptr<EventFollower>> followers;
  std::vector<std::shared_ptr<SagaRunner>> runners;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closing_ = closed_ = true;
    consumers.swap(consumers_);
    followers.swap(followers_);
    runners.swap(saga_runners_);
  }
  context_->mark_closed();
  stop_threads();
  for (const auto& follower : followers)
    follower->abandon();
  for (const auto& runner : runners)
    runner->abandon();
  for (const auto& consumer : consumers)
    consumer->abandon();
}

}  // namespace towline::engine
