// Sagas in the world: who starts and cancels them, the processes that run them, the steps, the service that
// handles their commands, and an operator who helps those that are stuck. A step's deed is done when its
// function begins; what becomes of the call is known later, or never.

#include <algorithm>
#include <charconv>
#include <utility>

#include "saga/record.hpp"
#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

constexpr Duration kSomeTime = std::chrono::milliseconds(10);
constexpr std::uint32_t kStartRoundsMax = 3;

Answer answer_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kConflict:
      return Answer::kConflict;
    case ErrorCode::kNotFound:
      return Answer::kNotFound;
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kIoError:
      return Answer::kUnknown;
    default:
      return Answer::kRejected;
  }
}

std::uint32_t number_of_step(std::string_view name) { return static_cast<std::uint32_t>(name[0] - 'a'); }
Bytes output_of_step(std::string_view name) { return "o" + std::string(name); }

/// What a command says of itself: `type/id/step/phase#attempt`.
struct Command {
  std::uint32_t saga = 0, step = 0, attempt = 0;
  SagaPhase phase = SagaPhase::kExecute;
};

Command command_of(const Delivery& delivery) {
  std::vector<std::string> parts;
  for (std::string_view rest = delivery.header("saga-call").value_or(""); !rest.empty();) {
    const std::size_t end = std::min(rest.find_first_of("/#"), rest.size());
    parts.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(rest.size(), end + 1));
  }
  parts.resize(5);
  Command command;
  command.saga = number_in(parts[1]);
  if (!parts[2].empty()) command.step = number_of_step(parts[2]);
  if (parts[3] == "compensate") command.phase = SagaPhase::kCompensate;
  command.attempt = number_in(parts[4]);
  return command;
}

/// What a function says that behaves so.
std::pair<Verb, Outcome> outcome_of(const Behaviour& behaviour, std::uint32_t attempt) {
  if (attempt > behaviour.times) return {Verb::kAck, Outcome::ack()};
  switch (behaviour.mood) {
    case Mood::kFails:
      return {Verb::kFail, Outcome::fail({"TransientTrouble", "no luck", {}})};
    case Mood::kPermanent:
      return {Verb::kPermanent, Outcome::fail({"Permanent", "never", {}})};
    case Mood::kNaks:
      return {Verb::kNak, Outcome::nak()};
    case Mood::kDefers:
      return {Verb::kDefer, Outcome::defer(std::chrono::milliseconds(100))};
    case Mood::kKills:
      return {Verb::kCrash, {}};
    default:
      return {Verb::kAck, Outcome::ack()};
  }
}

bool is_alone(const SagaDefinition& definition, std::string_view step) {
  return std::any_of(definition.stages.begin(), definition.stages.end(),
                     [&](const auto& stage) { return stage.size() == 1 && stage[0].name == step; });
}

}  // namespace

void World::set_up_sagas(Process& process) {
  if (plan_.sagas.empty() || (process.index != 0 && !dice_.chance(plan_.membership))) return;
  for (std::uint32_t type = 0; type < plan_.saga_types.size(); ++type) {
    process.life->saga_slots.push_back(std::make_unique<Life::SagaSlot>());
    process.life->saga_slots.back()->type = type;
  }
  process.life->service = std::make_unique<Life::Service>();
}

void World::begin_sagas() {
  for (std::uint32_t i = 0; i < plan_.sagas.size(); ++i) {
    const SagaPlan& saga = plan_.sagas[i];
    after(saga.starts_after, Task::kSagaStart, i);
    if (saga.starts_twice)
      after(saga.starts_after + dice_.between(Duration(0), kSomeTime * 100), Task::kSagaStart, i);
    if (saga.cancelled_after > Duration(0))
      after(saga.starts_after + saga.cancelled_after, Task::kSagaCancel, i);
  }
}

Duration World::time_for_sagas() const {
  Duration sum{0};
  for (const SagaPlan& saga : plan_.sagas) {
    const auto steps = steps_of(plan_.saga_types[saga.type]);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      for (const Behaviour* behaviour : {&saga.steps[i].execute, &saga.steps[i].compensate}) {
        const auto times = std::min<std::int64_t>(behaviour->times, 8);
        if (behaviour->mood == Mood::kKills) sum += plan_.engine.lease * 3 * times;
        if (behaviour->mood == Mood::kSlow) sum += steps[i]->options.timeout * 2 * times;
      }
    }
  }
  return sum;
}

// ---- who wants them -----------------------------------------------------------------------------

void World::note_saga(Event event, const Process& process, std::uint32_t saga, Answer answer) {
  Record r;
  r.event = event;
  r.process = process.index;
  r.number = saga;
  r.answer = answer;
  note(r);
}

void World::start_saga(std::uint32_t saga, std::uint32_t round) {
  Process* process = somebody();
  if (process == nullptr) {
    after(kSomeTime, Task::kSagaStart, saga, round);
    return;
  }
  const auto life = process->life;
  const SagaPlan& plan = plan_.sagas[saga];
  Record r;
  r.event = Event::kSagaStart;
  r.process = process->index;
  r.number = saga;
  r.answer = Answer::kUnknown;
  const bool contests = plan.is_contested && dice_.chance(0.5);
  r.lease = contests ? 1 : 0;
  bool busy = false;
  as(life, busy, [&] {
    auto started = life->core->sagas().start(plan_.saga_types[plan.type], saga_id(saga),
                                             contests ? "another" : saga_context(saga));
    r.answer = started ? Answer::kOk : answer_of(started.error());
    r.index = started && started->is_new ? 1 : 0;
  });
  note(r);
  figures_.sagas += r.index;
  if (r.answer == Answer::kUnknown && round < kStartRoundsMax)
    after(kSomeTime, Task::kSagaStart, saga, round + 1);
}

void World::cancel_saga(std::uint32_t saga) {
  Process* process = somebody();
  if (process == nullptr) return;
  const auto life = process->life;
  Answer answer = Answer::kUnknown;
  bool busy = false;
  as(life, busy, [&] {
    const auto done = life->core->sagas().change(
        plan_.saga_types[plan_.sagas[saga].type].type, saga_id(saga),
        [](const engine::SagaRecord& record) { return record.state.cancel("not wanted"); });
    answer = done.ok() ? Answer::kOk : answer_of(done.error());
  });
  note_saga(Event::kSagaCancel, *process, saga, answer);
}

void World::help_saga(Process& process) {
  const auto life = process.life;
  SagaQuery query;
  query.status = SagaStatus::kStuck;
  const auto stuck = bench_.store->list_sagas(query);
  if (!stuck || stuck->items.empty()) return;
  const SagaInfo& saga = stuck->items[dice_.below(stuck->items.size())];
  const std::uint64_t how = dice_.below(4);
  const std::uint64_t which = dice_.next();
  Record r;
  r.event = Event::kSagaHelp;
  r.process = process.index;
  r.number = number_in(saga.id);
  r.answer = Answer::kUnknown;
  as(life, life->operator_busy, [&] {
    const auto done = life->core->sagas().change(
        saga.type, saga.id, [&](const engine::SagaRecord& record) -> Result<SagaEntry> {
          const saga::State& state = record.state;
          const auto steps = state.stuck_steps();
          if (steps.empty()) return Error{ErrorCode::kConflict, "not stuck any more"};
          const std::string& step = steps[which % steps.size()];
          auto entry = how < 2    ? state.retry(step)
                       : how == 2 ? state.skip(step)
                                  : state.force(SagaStatus::kCompensated);
          if (entry) r.reason = static_cast<std::uint8_t>(entry->mark);
          return entry;
        });
    r.answer = done.ok() ? Answer::kOk : answer_of(done.error());
  });
  note(r);
}

// ---- processes that run them --------------------------------------------------------------------

Result<void> World::run_sagas(const std::shared_ptr<Life>& life, Life::SagaSlot& slot) {
  if (life->is_setting_up) return {};
  SagaRemote remote;
  // The life owns the runner that has this.
  remote.deliver = [this, raw = life.get(), &slot](std::span<SagaCall> calls) {
    const Process& process = processes_[raw->seat.process];
    for (const SagaCall& call : calls)
      begin_deed(process.life, slot, call);
  };
  life->is_setting_up = true;
  auto runner = life->core->run_saga(plan_.saga_types[slot.type], std::move(remote), nullptr);
  life->is_setting_up = false;
  if (!runner) return std::move(runner).error();
  slot.runner = std::move(*runner);
  slot.handler = slot.runner->handler();
  for (const auto& consumer : life->core->consumers()) {
    const bool is_taken = std::any_of(life->saga_slots.begin(), life->saga_slots.end(),
                                      [&](const auto& other) { return other->consumer == consumer; });
    if (consumer->group() == engine::kSagaGroup && !is_taken) slot.consumer = consumer;
  }
  return {};
}

void World::step_saga_lane(Process& process, Life::SagaSlot& slot) {
  const auto life = process.life;
  slot.lane_dirty = false;
  as(life, slot.lane_busy, [&] {
    if (!slot.runner) {
      const auto running = run_sagas(life, slot);
      const bool disk_failed = life->machine != nullptr && life->machine->has_failed();
      if (!running && !running.error().retryable() && !disk_failed)
        violate("setup", running.error().to_string());
      return;
    }
    slot.consumer->step(time_.monotonic);
    while (auto delivery = slot.consumer->take_one()) {
      slot.handler.deliver({&*delivery, 1});
      ++slot.fed;
      slot.lane_dirty = slot.runner_dirty = true;
    }
  });
}

void World::step_saga_runner(Process& process, Life::SagaSlot& slot) {
  const auto life = process.life;
  slot.runner_dirty = false;
  if (!slot.runner) return;
  const std::uint64_t had = slot.runner->statistics().in_hand + std::exchange(slot.fed, 0);
  const std::size_t before = history_.records().size();
  as(life, slot.runner_busy, [&] { slot.runner->step(time_.monotonic); });
  // What it left is acknowledged by the lane.
  if (slot.runner->statistics().in_hand != had) slot.lane_dirty = true;
  if (history_.records().size() != before) slot.runner_dirty = true;
}

// ---- steps --------------------------------------------------------------------------------------

void World::check_call(const SagaCall& call, std::uint32_t saga) {
  const SagaDefinition& definition = plan_.saga_types[plan_.sagas[saga].type];
  Bytes context = saga_context(saga);
  for (const SagaStep* step : steps_of(definition)) {
    const auto output = call.output_of(step->name);
    if (!output) continue;
    if (*output != output_of_step(step->name)) violate("K8", call.key() + " is given a wrong output");
    if (step->options.command.empty() && is_alone(definition, step->name)) context += step->name;
  }
  if (call.context() != context && call.context() != "another" + context.substr(saga_context(saga).size()))
    violate("K8", call.key() + " is given the context '" + call.context() + "', not '" + context + "'");
}

void World::begin_deed(const std::shared_ptr<Life>& life, Life::SagaSlot& slot, const SagaCall& call) {
  if (life == nullptr) return;
  SagaRunning running{life, &slot, call, {}, {}};
  const std::uint32_t saga = number_in(call.id());
  const auto name = step_done(call, plan_.saga_types[slot.type], mutant_);
  if (!name) return engine::SagaRunner::finish(running.call, Outcome::ack());
  const std::uint32_t step = number_of_step(*name);
  Record& deed = running.deed;
  deed.event = Event::kDeed;
  deed.process = life->seat.process;
  deed.number = saga;
  deed.index = step;
  deed.group = call.phase() == SagaPhase::kExecute ? 0 : 1;
  deed.attempt = call.attempt();
  deed.redrives = call.output() ? 1 : 0;
  deed.lease = ++running_last_;
  note(deed);
  ++figures_.deeds;
  check_call(call, saga);
  const SagaStepPlan& plan = plan_.sagas[saga].steps[step];
  running.behaviour = deed.group == 0 ? plan.execute : plan.compensate;
  const Duration timeout = steps_of(plan_.saga_types[slot.type])[step]->options.timeout;
  const bool is_late = running.behaviour.mood == Mood::kSlow && deed.attempt <= running.behaviour.times;
  after(is_late ? timeout * 3 / 2 : running.behaviour.takes, Task::kSagaFinish, deed.lease);
  // The runner looks when the call's time is over.
  after(timeout, Task::kDue, life->seat.process, life->seat.generation);
  saga_running_.emplace(deed.lease, std::move(running));
}

void World::end_deed(std::uint64_t id) {
  const auto it = saga_running_.find(id);
  if (it == saga_running_.end()) return;  // it died with its process
  Process& process = processes_[it->second.life->seat.process];
  const bool lives = process.life == it->second.life;
  if (lives && !runs(process)) {
    timed_.push({when_it_runs(process), dice_.next(), Task::kSagaFinish, id, 0});
    return;
  }
  SagaRunning running = std::move(it->second);
  saga_running_.erase(it);
  auto [verb, outcome] = outcome_of(running.behaviour, running.deed.attempt);
  Record r = running.deed;
  r.event = Event::kDeedEnd;
  r.verb = verb;
  note(r);
  if (verb == Verb::kCrash) {
    if (lives) crash(process);
    return;
  }
  if (verb == Verb::kAck && r.group == 0) {
    const std::string& step = running.call.step();
    (void)running.call.set_output(output_of_step(step));
    if (is_alone(plan_.saga_types[running.slot->type], step))
      (void)running.call.set_context(running.call.context() + step);
  }
  engine::SagaRunner::finish(running.call, std::move(outcome));
  running.slot->runner_dirty = true;
}

// ---- commands -----------------------------------------------------------------------------------

Result<void> World::subscribe_service(const std::shared_ptr<Life>& life) {
  ConsumerOptions options;
  options.group = "service";
  options.retry.max_attempts = 1000;
  options.dead_letters.max_crashes = 1000;
  auto consumer =
      life->core->consume({std::string(kCommandTopic)}, std::move(options), Handler([](Delivery&) {}));
  if (!consumer) return std::move(consumer).error();
  life->service->consumer = std::move(*consumer);
  return {};
}

void World::step_service(Process& process) {
  const auto life = process.life;
  Life::Service& service = *life->service;
  service.dirty = false;
  as(life, service.busy, [&] {
    if (!service.consumer) {
      const auto subscribed = subscribe_service(life);
      const bool disk_failed = life->machine != nullptr && life->machine->has_failed();
      if (!subscribed && !subscribed.error().retryable() && !disk_failed)
        violate("setup", subscribed.error().to_string());
      return;
    }
    service.consumer->step(time_.monotonic);
    while (alive(life->seat)) {
      auto delivery = service.consumer->take_one();
      if (!delivery) break;
      service.dirty = true;
      serve(life, std::move(*delivery));
    }
  });
}

void World::serve(const std::shared_ptr<Life>& life, Delivery delivery) {
  const Command command = command_of(delivery);
  Record r;
  r.event = Event::kDeed;
  r.process = life->seat.process;
  r.number = command.saga;
  r.index = command.step;
  r.group = command.phase == SagaPhase::kExecute ? 0 : 1;
  r.attempt = command.attempt;
  r.lease = ++running_last_;
  note(r);
  ++figures_.deeds;
  if (command.saga >= plan_.sagas.size()) {
    violate("K8", "a command of no saga was published");
    return;
  }
  const SagaStepPlan& plan = plan_.sagas[command.saga].steps[command.step];
  const Behaviour& behaviour = r.group == 0 ? plan.execute : plan.compensate;
  auto [verb, outcome] = outcome_of(behaviour, command.attempt);
  const bool is_silent = behaviour.mood == Mood::kSlow && command.attempt <= behaviour.times;
  if (verb == Verb::kCrash) verb = delivery.crashes() == 0 ? Verb::kCrash : Verb::kAck;
  r.event = Event::kDeedEnd;
  r.verb = is_silent ? Verb::kReject : verb;
  note(r);
  if (verb == Verb::kCrash) die(life->seat);
  bool is_answered = is_silent;
  if (!is_silent) {
    const std::string step(1, static_cast<char>('a' + command.step));
    auto reply = verb == Verb::kAck ? Sagas::reply(delivery, r.group == 0 ? output_of_step(step) : Bytes())
                                    : Sagas::reply_failed(delivery, "no luck", verb == Verb::kPermanent);
    std::vector<Message> messages;
    messages.push_back(std::move(*reply));
    const auto receipts = life->core->publisher().publish_batch(std::move(messages));
    is_answered = receipts && (*receipts)[0].outcome == PublishOutcome::kAcked;
  }
  life->service->consumer->finish(delivery, is_answered ? Outcome::ack() : Outcome::defer(kSomeTime));
}

// ---- looking at them ----------------------------------------------------------------------------

std::vector<SagaRemains> World::survey_sagas() {
  std::vector<SagaRemains> all(plan_.sagas.size());
  for (std::uint32_t i = 0; i < all.size(); ++i) {
    const std::string& type = plan_.saga_types[plan_.sagas[i].type].type;
    SagaRemains& saga = all[i];
    const auto found = bench_.store->find_saga(type, saga_id(i));
    saga.is_there = found && *found;
    if (!saga.is_there) continue;
    saga.status = (**found).status;
    spi::StreamRead read;
    read.space = spi::StreamSpace::kSagas;
    read.stream = saga::stream_of(type, saga_id(i));
    for (bool end = false; !end;) {
      const auto slice = bench_.store->read_stream(read);
      saga.is_corrupt |= !slice;
      if (!slice) break;
      end = slice->end;
      for (const RecordedEvent& event : slice->events) {
        auto entry = saga::from_event(event);
        saga.is_corrupt |= !entry || event.version != read.from;
        if (entry) saga.log.push_back(std::move(*entry));
        read.from = event.version + 1;
      }
    }
  }
  return all;
}

}  // namespace towline::simulation
