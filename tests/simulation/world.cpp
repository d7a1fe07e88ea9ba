// The loop of the world, and how processes live and die.

#include "simulation/world.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "drivers/memory/memory.hpp"
#include "drivers/sqlite/sqlite.hpp"
#include "support/blind_transport.hpp"

namespace towline::simulation {
namespace {

constexpr Duration kQuietWithin = std::chrono::minutes(10);
constexpr Duration kLookEvery = std::chrono::seconds(1);
constexpr Duration kJanitorsRunWithin = std::chrono::seconds(3);
constexpr std::uint32_t kDepthMax = 3;
/// Steps after which a run cannot be right any more, whatever its virtual time.
constexpr std::uint64_t kActionsMax = 10'000'000;

const char* t_broken_assertion = nullptr;

bool t_burying = false;

void note_assertion(const base::AssertionFailure& failure) noexcept {
  // What is left of a process that died in the middle of a call need not be in order.
  if (!t_burying) t_broken_assertion = failure.condition;
}

std::string next_location(WorldKind world) {
  static std::uint64_t last = 0;
  return world == WorldKind::kSqlite ? "store.db" : "simulated-" + std::to_string(++last);
}

}  // namespace

Life::~Life() {
  t_burying = true;
  if (core) core->abandon();
  slots.clear();
  saga_slots.clear();
  service.reset();
  follow_slots.clear();
  core.reset();
  t_burying = false;
}

World::World(Plan plan, Mutant mutant, Trace trace)
    : plan_(std::move(plan)),
      mutant_(mutant),
      trace_(std::move(trace)),
      dice_(base::derive_seed(plan_.seed, 2)),
      fault_dice_(base::derive_seed(plan_.seed, 3)),
      location_(next_location(plan_.world)),
      disk_(plan_.world == WorldKind::kSqlite ? std::make_unique<CrashDisk>(base::derive_seed(plan_.seed, 5))
                                              : nullptr),
      bench_clock_(std::make_shared<ProcessClock>(time_)) {
  base::set_assertion_handler(note_assertion);
  t_broken_assertion = nullptr;
  history_.reserve(1 << 14);
  open_bench();
  facts_.world = plan_.world;
  facts_.messages = plan_.messages;
  facts_.groups = plan_.groups;
  facts_.saga_types = plan_.saga_types;
  facts_.sagas = plan_.sagas;
  facts_.events = plan_.events;
  facts_.seed = plan_.seed;
  facts_.healed_by_redrive = plan_.healed_by_redrive;
  facts_.dead_letter_count_max = static_cast<std::uint64_t>(plan_.engine.dead_letter_count_max);
  facts_.dead_letter_age_max = plan_.engine.dead_letter_age_max;
  ids_.resize(plan_.messages.size());
  const auto has = [&](Fault fault) { return plan_.has(fault); };
  if (has(Fault::kSkew)) facts_.skew_max += std::chrono::seconds(4);
  if (has(Fault::kStepClock)) facts_.skew_max += std::chrono::hours(24);
  facts_.leases_may_jump = plan_.world == WorldKind::kSqlite && has(Fault::kStepClock);
  facts_.calls_may_fail = has(Fault::kFailBefore) || has(Fault::kFailAfter) || has(Fault::kStall) ||
                          has(Fault::kDiskFull) || has(Fault::kBadSync) || has(Fault::kBadWrite);
  facts_.disk_may_fail = has(Fault::kDiskFull) || has(Fault::kBadSync) || has(Fault::kBadWrite);
  facts_.may_stand_still = has(Fault::kPause) || has(Fault::kStall);
  facts_.only_handlers_kill = !facts_.calls_may_fail && !facts_.may_stand_still && !has(Fault::kDieBefore) &&
                              !has(Fault::kDieAfter) && !has(Fault::kCrash) && !has(Fault::kPowerLoss);
  facts_.may_copy = plan_.world == WorldKind::kSplit && (!facts_.only_handlers_kill || has(Fault::kRefuse));
}

World::~World() {
  running_.clear();
  saga_running_.clear();
  for (Process& process : processes_)
    process.life.reset();
  bench_ = {};
}

Result<spi::Provider> World::open_provider(std::shared_ptr<spi::Clock> clock, std::uint64_t seed,
                                           const CrashMachine* machine) {
  spi::DriverOptions options;
  options.location = location_;
  options.clock = std::move(clock);
  options.seed = seed;
  options.threads = false;
  if (plan_.world == WorldKind::kSplit) {
    auto messages = drivers::open_memory(options);
    options.location = store_location();
    auto records = drivers::open_memory(options);
    if (!messages || !records) return messages ? records : messages;
    records->transport = std::move(messages->transport);
    return records;
  }
  if (machine == nullptr) return drivers::open_memory(options);
  options.parameters = {{"vfs", machine->name()}};
  return drivers::open_sqlite(options);
}

void World::look_beside_records() {
  spi::DriverOptions options;
  options.location = store_location();
  options.clock = bench_clock_;
  options.threads = false;
  beside_records_ = drivers::open_memory(options).value().transport;
}

// ---- a run --------------------------------------------------------------------------------------

Verdict World::run() {
  faults_on_ = false;
  processes_.resize(plan_.process_count);
  for (std::uint32_t i = 0; i < plan_.process_count; ++i) {
    processes_[i].index = i;
    processes_[i].weight = dice_.chance(0.5) ? 1.0 : plan_.slowness;
    start_process(processes_[i]);
    for (auto& slot : processes_[i].life->slots)
      subscribe(processes_[i], slot->group, slot.get());
  }
  faults_on_ = true;
  let_disk_fail(true);
  run_load();
  heal();
  run_until_quiet();
  if (ending_ == Ending::kClean) {
    publish_probes();
    run_until_quiet();
    run_until(time_.monotonic + kJanitorsRunWithin, [] { return false; });
  }
  FinalState end = survey();
  end.stuck = ending_ == Ending::kStuck;
  for (const SagaRemains& saga : end.sagas) {
    constexpr auto kFirst = static_cast<std::size_t>(SagaStatus::kCompleted);
    if (saga.is_there && is_final(saga.status))
      ++figures_.saga_ends[static_cast<std::size_t>(saga.status) - kFirst];
  }
  Verdict verdict;
  for (Violation& found : check_history(history_.records(), facts_, end))
    violations_.push_back(std::move(found));
  if (ending_ == Ending::kClean && !violations_.empty()) ending_ = Ending::kUnsafe;
  if (ending_ == Ending::kStuck && violations_.size() > 1) ending_ = Ending::kUnsafe;
  verdict.ending = ending_;
  verdict.violations = std::move(violations_);
  figures_.virtual_time = time_.monotonic - WorldTime{}.monotonic;
  if (disk_ != nullptr) {
    figures_.disk = disk_->figures();
    count(Fault::kBadSync, figures_.disk.bad_syncs);
    count(Fault::kBadWrite, figures_.disk.bad_writes);
  }
  verdict.figures = figures_;
  verdict.hash = history_.hash();
  return verdict;
}

void World::run_load() {
  to_publish_.resize(plan_.producer_count);
  published_to_.resize(plan_.producer_count);
  producer_busy_.resize(plan_.producer_count);
  for (std::uint32_t n = 0; n < plan_.messages.size(); ++n)
    to_publish_[plan_.messages[n].producer].push_back(n);
  for (std::uint32_t p = 0; p < plan_.producer_count; ++p)
    after(Duration(0), Task::kProduce, p);
  clients_.resize(plan_.idempotency_client_count);
  client_busy_.resize(plan_.idempotency_client_count);
  for (std::uint32_t c = 0; c < clients_.size(); ++c)
    after(Duration(0), Task::kIdempotency, c);
  if (plan_.operator_active) after(std::chrono::milliseconds(1), Task::kOperate, 0);
  begin_sagas();
  begin_events();
  begin_once();
  after(kLookEvery, Task::kLook, 0);
  run_until(MonotonicTime::max(), [this] {
    for (std::size_t p = 0; p < to_publish_.size(); ++p) {
      if (published_to_[p] < to_publish_[p].size() || producer_busy_[p]) return false;
    }
    return true;
  });
  // What was published goes through some more trouble before all is healed.
  const Duration more =
      dice_.pick<Duration>({Duration(0), std::chrono::milliseconds(500), std::chrono::seconds(5)});
  run_until(time_.monotonic + more, [] { return false; });
}

void World::heal() {
  faults_on_ = false;
  healed_ = true;
  let_disk_fail(false);
  for (Process& process : processes_) {
    process.paused_until = MonotonicTime{};
    process.weight = 1.0;
    // Whose store has stopped cannot go on with a good disk either.
    if (process.life && process.life->machine != nullptr && process.life->machine->has_failed())
      crash(process);
    if (!process.life) start_process(process);
    std::vector<bool> has(plan_.groups.size());
    for (auto& slot : process.life->slots) {
      has[slot->group] = true;
      slot->paused = false;
      if (slot->consumer) (void)slot->consumer->resume();
    }
    for (std::uint32_t g = 0; g < plan_.groups.size(); ++g) {
      if (has[g] || process.index != 0) continue;
      process.life->slots.push_back(std::make_unique<Life::Slot>());
      process.life->slots.back()->group = g;
    }
  }
  touch();
}

Duration World::time_for_slow_ones() const {
  Duration sum = time_for_sagas();
  for (const MessagePlan& message : plan_.messages) {
    for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
      const ConsumerOptions& options = plan_.groups[g].options;
      const Behaviour& behaviour = message.behaviour[g];
      if (behaviour.mood == Mood::kKills) {
        const auto deaths = std::min<std::int64_t>(behaviour.times, options.dead_letters.max_crashes + 2);
        sum += plan_.engine.lease * 3 * deaths * options.retry.max_attempts;
      }
      if (behaviour.mood != Mood::kSlow) continue;
      sum +=
          options.handler_timeout * 2 * std::min<std::int64_t>(behaviour.times, options.retry.max_attempts);
    }
  }
  return sum;
}

void World::run_until_quiet() {
  std::string why;
  bool quiet = false;
  const MonotonicTime limit = time_.monotonic + kQuietWithin + time_for_slow_ones();
  while (!quiet && ending_ == Ending::kClean && time_.monotonic < limit) {
    run_until(std::min(limit, time_.monotonic + kLookEvery), [] { return false; });
    for (Process& process : processes_) {
      if (process.life) release_keys(process, true);
      break;
    }
    quiet = is_quiet(&why);
  }
  if (quiet || ending_ != Ending::kClean) return;
  violate("liveness", "not quiet in time after the last fault: " + why);
  ending_ = Ending::kStuck;
}

void World::run_until(MonotonicTime limit, const std::function<bool()>& done) {
  while (ending_ == Ending::kClean && time_.monotonic < limit && !done()) {
    if (act()) continue;
    if (timed_.empty() || timed_.top().at >= limit) {
      if (limit == MonotonicTime::max()) return;
      time_.advance(limit - time_.monotonic);
      return;
    }
    if (timed_.top().at > time_.monotonic) time_.advance(timed_.top().at - time_.monotonic);
  }
}

bool World::act() {
  while (!timed_.empty() && timed_.top().at <= time_.monotonic) {
    arrived_.push_back(timed_.top());
    timed_.pop();
  }
  gather(ready_);
  if (ready_.empty()) return false;
  std::size_t choice = dice_.below(ready_.size());
  if (ready_[choice].process != nullptr && ready_.size() > 1 &&
      !dice_.chance(ready_[choice].process->weight)) {
    choice = dice_.below(ready_.size());
  }
  const Ready chosen = ready_[choice];
  perform(chosen);
  if (++figures_.actions > kActionsMax) {
    violate("liveness", "the run does not end: ten million steps");
    ending_ = Ending::kStuck;
  }
  if (t_broken_assertion != nullptr) {
    violate("assertion", std::exchange(t_broken_assertion, nullptr));
    ending_ = Ending::kBroken;
  }
  if (plan_.step_cost_max > Duration(0)) time_.advance(dice_.between(Duration(0), plan_.step_cost_max));
  if (disk_ != nullptr) give_up_what_stopped();
  if (faults_on_) break_something();
  if (figures_.actions % 400 == 0) look();
  return true;
}

void World::gather(std::vector<Ready>& ready) {
  ready.clear();
  for (std::size_t i = 0; i < arrived_.size(); ++i)
    ready.push_back({Ready::Kind::kTimed, i, nullptr, nullptr, nullptr, nullptr});
  for (Process& process : processes_) {
    if (!runs(process)) continue;
    Life& life = *process.life;
    if (life.scheduler_dirty && !life.scheduler_busy)
      ready.push_back({Ready::Kind::kScheduler, 0, &process, nullptr, nullptr, nullptr});
    for (auto& slot : life.slots) {
      if (slot->lane_dirty && !slot->lane_busy)
        ready.push_back({Ready::Kind::kLane, 0, &process, slot.get(), nullptr, nullptr});
      if (slot->work && slot->running < slot->concurrency) {
        ready.push_back({Ready::Kind::kWorker, 0, &process, slot.get(), nullptr, nullptr});
      }
    }
    gather_sagas(process, ready);
  }
}

void World::gather_sagas(Process& process, std::vector<Ready>& ready) {
  Life& life = *process.life;
  for (auto& slot : life.saga_slots) {
    if (slot->lane_dirty && !slot->lane_busy)
      ready.push_back({Ready::Kind::kSagaLane, 0, &process, nullptr, slot.get(), nullptr});
    if (slot->runner_dirty && !slot->runner_busy)
      ready.push_back({Ready::Kind::kSagaRunner, 0, &process, nullptr, slot.get(), nullptr});
  }
  for (auto& slot : life.follow_slots) {
    if (slot->dirty && !life.is_following)
      ready.push_back({Ready::Kind::kFollower, 0, &process, nullptr, nullptr, slot.get()});
  }
  if (life.service && life.service->dirty && !life.service->busy)
    ready.push_back({Ready::Kind::kService, 0, &process, nullptr, nullptr, nullptr});
}

void World::perform(const Ready& ready) {
  switch (ready.kind) {
    case Ready::Kind::kTimed: {
      const Timed timed = arrived_[ready.index];
      arrived_.erase(arrived_.begin() + static_cast<std::ptrdiff_t>(ready.index));
      perform(timed);
      break;
    }
    case Ready::Kind::kScheduler:
      step_scheduler(*ready.process);
      break;
    case Ready::Kind::kLane:
      step_lane(*ready.process, *ready.slot);
      break;
    case Ready::Kind::kWorker:
      step_worker(*ready.process, *ready.slot);
      break;
    case Ready::Kind::kSagaLane:
      step_saga_lane(*ready.process, *ready.saga_slot);
      break;
    case Ready::Kind::kSagaRunner:
      step_saga_runner(*ready.process, *ready.saga_slot);
      break;
    case Ready::Kind::kService:
      step_service(*ready.process);
      break;
    case Ready::Kind::kFollower:
      step_follower(*ready.process, *ready.follow_slot);
      break;
  }
}

void World::perform(const Timed& timed) {
  const auto process = [&]() -> Process* {
    Process& named = processes_[timed.who];
    return named.life && named.generation == timed.generation ? &named : nullptr;
  };
  switch (timed.task) {
    case Task::kProduce:
      produce(static_cast<std::uint32_t>(timed.who));
      break;
    case Task::kFinish:
      finish_handler(timed.who);
      break;
    case Task::kSettleByHand:
      settle_by_hand(timed.who);
      break;
    case Task::kIdempotency:
      step_client(static_cast<std::uint32_t>(timed.who));
      break;
    case Task::kOperate:
      operate();
      break;
    case Task::kLook:
      look();
      after(kLookEvery, Task::kLook, 0);
      break;
    case Task::kRestart:
      if (!processes_[timed.who].life) start_process(processes_[timed.who]);
      break;
    case Task::kGiveUp:
      if (Process* p = process()) crash(*p);
      break;
    case Task::kRoom:
      disk_->set_capacity(UINT64_MAX);
      break;
    case Task::kSagaStart:
    case Task::kSagaCancel:
    case Task::kSagaFinish:
    case Task::kAppend:
    case Task::kReadAll:
    case Task::kOnce:
      perform_side(timed);
      break;
    case Task::kCheckpoint:
      if (Process* p = process()) checkpoint(*p);
      break;
    case Task::kKeeper:
      if (Process* p = process()) {
        const auto life = p->life;
        after(plan_.engine.lease / 3, Task::kKeeper, timed.who, timed.generation);
        if (runs(*p) && !life->keeper_busy) step_keeper(life);
      }
      break;
    case Task::kKeeperAgain:
      if (Process* p = process(); p != nullptr && runs(*p) && !p->life->keeper_busy) step_keeper(p->life);
      break;
    case Task::kJanitor:
      if (Process* p = process()) step_janitor(*p);
      break;
    case Task::kPoll:
      after(plan_.poll_interval, Task::kPoll, timed.who, timed.generation);
      [[fallthrough]];
    case Task::kDue:
      if (Process* p = process()) look_everywhere(*p->life);
      break;
  }
}

void World::step_janitor(Process& process) {
  const auto life = process.life;
  after(std::max<Duration>(plan_.engine.sweep_interval, std::chrono::milliseconds(200)), Task::kJanitor,
        process.index, process.generation);
  if (runs(process) && !life->janitor_busy)
    as(life, life->janitor_busy, [&] { life->core->step_janitor(); });
}

void World::step_keeper(std::shared_ptr<Life> life) {
  // It waits for a follower that is at the store.
  if (life->is_following) {
    return after(std::chrono::milliseconds(1), Task::kKeeperAgain, life->seat.process, life->seat.generation);
  }
  life->is_following = !life->follow_slots.empty();
  as(life, life->keeper_busy, [&] { life->core->step_keeper(); });
  life->is_following = false;
}

void World::look_everywhere(Life& life) {
  life.scheduler_dirty = true;
  for (auto& slot : life.slots)
    slot->lane_dirty = slot->work = true;
  for (auto& slot : life.saga_slots)
    slot->lane_dirty = slot->runner_dirty = true;
  if (life.service) life.service->dirty = true;
  for (auto& slot : life.follow_slots)
    slot->dirty = true;
}

void World::perform_side(const Timed& timed) {
  const auto saga = static_cast<std::uint32_t>(timed.who);
  if (timed.task == Task::kSagaStart) start_saga(saga, timed.generation);
  if (timed.task == Task::kSagaCancel) cancel_saga(saga);
  if (timed.task == Task::kSagaFinish) end_deed(timed.who);
  if (timed.task == Task::kAppend) append_events(static_cast<std::uint32_t>(timed.who));
  if (timed.task == Task::kOnce) step_once(static_cast<std::uint32_t>(timed.who));
  if (timed.task == Task::kReadAll) read_all(static_cast<std::uint32_t>(timed.who));
}

void World::after(Duration wait, Task task, std::uint64_t who, std::uint32_t generation) {
  timed_.push({time_.monotonic + wait, dice_.next() << 16 | (++tie_last_ & 0xffff), task, who, generation});
}

bool World::runs(const Process& process) const noexcept {
  return process.life != nullptr && process.paused_until <= time_.monotonic && !process.life->closing;
}

// ---- life and death -----------------------------------------------------------------------------

void World::start_process(Process& process) {
  auto life = std::make_shared<Life>();
  life->seat = {process.index, ++process.generation};
  life->clock = std::make_shared<ProcessClock>(time_);
  if (plan_.has(Fault::kSkew)) {
    life->clock->skew = dice_.between(Duration(0), std::chrono::seconds(4)) - std::chrono::seconds(2);
    count(Fault::kSkew);
  }
  const std::uint64_t seed = dice_.next();
  life->machine = new_machine(true);
  auto opened = open_provider(provider_clock(life->clock, mutant_), seed, life->machine);
  if (!opened) {
    if (!faults_on_) violate("setup", opened.error().to_string());
    if (life->machine != nullptr) life->machine->kill();
    after(std::chrono::milliseconds(100), Task::kRestart, process.index);
    return;
  }
  spi::Provider provider = std::move(*opened);
  provider = with_wrong_provider(std::move(provider), mutant_, life->clock);
  if (plan_.world == WorldKind::kSplit)
    provider.transport = std::make_shared<support::BlindTransport>(std::move(provider.transport));
  provider = with_faults(std::move(provider), *this, life->seat);
  provider = with_wrong_engine(std::move(provider), mutant_);
  EngineOptions options = plan_.engine;
  if (trace_) {
    options.log = [this, index = process.index](const LogRecord& record) {
      trace_("    p" + std::to_string(index) + " " + std::string(record.station) + ": " +
             std::string(record.text));
    };
  }
  life->core = engine::Core::create(std::move(options), std::move(provider), life->clock, seed, false);
  for (std::uint32_t g = 0; g < plan_.groups.size(); ++g) {
    if (process.index != 0 && !dice_.chance(plan_.membership)) continue;
    life->slots.push_back(std::make_unique<Life::Slot>());
    life->slots.back()->group = g;
  }
  process.life = life;
  set_up_sagas(process);
  set_up_followers(process);
  process.paused_until = MonotonicTime{};
  Record up;
  up.event = Event::kUp;
  up.process = process.index;
  up.number = process.generation;
  note(up);
  after(plan_.engine.lease / 3, Task::kKeeper, process.index, process.generation);
  after(plan_.engine.sweep_interval, Task::kJanitor, process.index, process.generation);
  after(plan_.poll_interval, Task::kPoll, process.index, process.generation);
}

void World::subscribe(Process& process, std::uint32_t group, Life::Slot* into) {
  const auto life = process.life;
  const GroupPlan& plan = plan_.groups[group];
  std::vector<std::string> topics;
  for (const std::uint32_t topic : plan.topics)
    topics.push_back(topic_name(topic));
  auto consumer = life->core->consume(topics, plan.options, Handler([](Delivery&) {}));
  if (!consumer) {
    const bool disk_failed = life->machine != nullptr && life->machine->has_failed();
    if (!consumer.error().retryable() && !disk_failed) violate("setup", consumer.error().to_string());
    return;
  }
  into->consumer = std::move(*consumer);
  into->concurrency = static_cast<std::uint32_t>(plan.options.concurrency);
  into->lane_dirty = true;
}

void World::crash(Process& process) {
  if (!process.life) return;
  Record r;
  r.event = Event::kCrash;
  r.process = process.index;
  r.number = process.generation;
  note(r);
  ++figures_.crashes;
  const std::shared_ptr<Life> dead = std::exchange(process.life, nullptr);
  if (dead->machine != nullptr) dead->machine->kill();
  ++process.generation;
  process.paused_until = MonotonicTime{};
  for (auto it = running_.begin(); it != running_.end();) {
    it = it->second.life == dead ? running_.erase(it) : std::next(it);
  }
  std::erase_if(saga_running_, [&](const auto& entry) { return entry.second.life == dead; });
  std::erase_if(handed_out_, [&](const auto& entry) { return std::get<0>(entry.first) == process.index; });
  after(dice_.pick<Duration>(
            {std::chrono::milliseconds(1), std::chrono::milliseconds(100), plan_.engine.lease * 3 / 2}),
        Task::kRestart, process.index);
}

void World::restart_in_order(Process& process) {
  const auto life = process.life;
  const bool busy =
      life->scheduler_busy || life->keeper_busy || life->janitor_busy || life->operator_busy ||
      (life->service && life->service->busy) || life->is_following ||
      std::any_of(life->slots.begin(), life->slots.end(), [](const auto& s) { return s->lane_busy; }) ||
      std::any_of(life->saga_slots.begin(), life->saga_slots.end(),
                  [](const auto& s) { return s->lane_busy || s->runner_busy; });
  if (busy) return;
  count(Fault::kRestart);
  life->closing = true;
  as(life, life->operator_busy, [&] { (void)life->core->close(Duration{0}); });
  if (process.life != life) return;
  process.life.reset();
  ++process.generation;
  std::erase_if(handed_out_, [&](const auto& entry) { return std::get<0>(entry.first) == process.index; });
  after(dice_.pick<Duration>({Duration(0), std::chrono::milliseconds(10)}), Task::kRestart, process.index);
}

void World::break_something() {
  const auto strikes = [&](Fault fault) { return plan_.has(fault) && fault_dice_.chance(plan_.rate(fault)); };
  const auto victim = [&]() -> Process& { return processes_[fault_dice_.below(processes_.size())]; };
  if (strikes(Fault::kCrash)) {
    Process& process = victim();
    if (process.life) count(Fault::kCrash);
    crash(process);
  }
  if (strikes(Fault::kPause)) {
    Process& process = victim();
    const Duration lease = plan_.engine.lease;
    const Duration time = fault_dice_.pick<Duration>({lease / 2, lease * 3 / 2, lease * 4});
    if (runs(process)) {
      count(Fault::kPause);
      process.paused_until = time_.monotonic + time;
      Record r;
      r.event = Event::kPause;
      r.process = process.index;
      r.until = process.paused_until;
      note(r);
    }
  }
  if (strikes(Fault::kRestart)) {
    Process& process = victim();
    if (runs(process)) restart_in_order(process);
  }
  if (strikes(Fault::kRebalance)) {
    Process& process = victim();
    if (runs(process) && !process.life->slots.empty()) {
      const auto life = process.life;
      Life::Slot& slot = *life->slots[fault_dice_.below(life->slots.size())];
      if (slot.consumer && !slot.lane_busy) {
        count(Fault::kRebalance);
        as(life, slot.lane_busy, [&] { (void)slot.consumer->close(Duration{0}); });
        slot.consumer.reset();
        slot.running = 0;
        slot.lane_dirty = true;
      }
    }
  }
  if (disk_ != nullptr && strikes(Fault::kDiskFull)) fill_disk();
  if (strikes(Fault::kStepClock)) {
    count(Fault::kStepClock);
    time_.wall += fault_dice_.between(Duration(0), std::chrono::seconds(20)) - std::chrono::seconds(10);
  }
}

// ---- Host ---------------------------------------------------------------------------------------

void World::note(Record record) {
  record.at = time_.monotonic;
  record.wall = time_.wall;
  if (record.event == Event::kHandOut) {
    ++figures_.hand_outs;
    if (record.answer == Answer::kOk)
      handed_out_[{record.process, record.group, record.message}].push_back(record);
  }
  if (record.event == Event::kStored && record.verb == Verb::kDeadLetter) ++figures_.dead_letters;
  if (record.event == Event::kRedrive && record.answer == Answer::kOk) ++figures_.redrives;
  history_.add(record);
  if (trace_) trace_(to_text(record));
}

CallFaults World::draw(const Seat&, Call call) {
  CallFaults faults;
  if (!faults_on_) return faults;
  const auto strikes = [&](Fault fault) { return plan_.has(fault) && fault_dice_.chance(plan_.rate(fault)); };
  const auto stall_time = [&] {
    const Duration lease = plan_.engine.lease;
    return fault_dice_.pick<Duration>({std::chrono::milliseconds(1), lease / 2, lease * 6 / 5, lease * 3});
  };
  if (strikes(Fault::kFailBefore)) faults.fail_before = true;
  if (strikes(Fault::kFailAfter)) faults.fail_after = true;
  if (strikes(Fault::kStall))
    (fault_dice_.chance(0.5) ? faults.stall_before : faults.stall_after) = stall_time();
  if (strikes(Fault::kDieBefore)) faults.die_before = true;
  if (strikes(Fault::kDieAfter)) faults.die_after = true;
  if ((call == Call::kPublish || call == Call::kCommit) && strikes(Fault::kRefuse)) faults.refuse = true;
  if (disk_ != nullptr && strikes(Fault::kPowerLoss)) faults.power_loss = true;
  count(Fault::kFailBefore, faults.fail_before);
  count(Fault::kFailAfter, faults.fail_after);
  count(Fault::kStall, faults.stall_before > Duration(0) || faults.stall_after > Duration(0));
  count(Fault::kDieBefore, faults.die_before);
  count(Fault::kDieAfter, faults.die_after);
  count(Fault::kRefuse, faults.refuse);
  return faults;
}

bool World::refuses(const Seat&) {
  if (!faults_on_ || !plan_.has(Fault::kRefuse) || !fault_dice_.chance(plan_.rate(Fault::kRefuse)))
    return false;
  count(Fault::kRefuse);
  return true;
}

bool World::alive(const Seat& seat) const noexcept {
  const Process& process = processes_[seat.process];
  // While it is being started a process has its generation, but its life is not filed yet.
  return process.generation == seat.generation;
}

void World::stall(const Seat& seat, Duration time) {
  if (depth_ >= kDepthMax || ending_ != Ending::kClean) return;
  ++depth_;
  run_until(time_.monotonic + time, [] { return false; });
  // A process that stands still does not go on because its call is done.
  while (alive(seat) && processes_[seat.process].paused_until > time_.monotonic &&
         ending_ == Ending::kClean) {
    run_until(processes_[seat.process].paused_until, [&] { return !alive(seat); });
  }
  --depth_;
}

void World::die(const Seat& seat) {
  if (alive(seat)) crash(processes_[seat.process]);
  throw ProcessDied{};
}

void World::touch() {
  for (Process& process : processes_) {
    if (!process.life) continue;
    process.life->scheduler_dirty = true;
    for (auto& slot : process.life->slots)
      slot->lane_dirty = true;
    for (auto& slot : process.life->saga_slots)
      slot->lane_dirty = true;
    if (process.life->service) process.life->service->dirty = true;
    for (auto& slot : process.life->follow_slots)
      slot->dirty = true;
  }
}

void World::next_due(const Seat& seat, TimePoint due_at) {
  if (!alive(seat) || !processes_[seat.process].life) return;
  Life& life = *processes_[seat.process].life;
  const Duration wait = due_at - life.clock->now();
  if (std::exchange(life.due_at, due_at) == due_at && wait > Duration(0)) return;
  if (wait > Duration(0) && wait < std::chrono::hours(1))
    after(wait, Task::kDue, seat.process, seat.generation);
}

void World::know_entry(const MessageId& entry, std::uint32_t message, std::uint8_t group) {
  entries_[entry] = {message, group};
}

std::pair<std::uint32_t, std::uint8_t> World::whose_entry(const MessageId& entry) const {
  const auto it = entries_.find(entry);
  return it == entries_.end() ? std::pair{kNobody, std::uint8_t{0}} : it->second;
}

void World::know_message(const MessageId& id, std::uint32_t message) {
  if (message != kNobody) numbers_[id] = message;
}

void World::count(Fault fault, std::uint64_t how_often) {
  figures_.faults[static_cast<std::size_t>(fault)] += how_often;
}

void World::violate(std::string checker, std::string text) {
  if (trace_) trace_("*** " + checker + ": " + text);
  if (violations_.size() < 100) violations_.push_back({std::move(checker), std::move(text)});
}

}  // namespace towline::simulation
