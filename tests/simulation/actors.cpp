// What the inhabitants of the world do: lanes, workers and their handlers, producers, clients of the
// idempotency store, and an operator. A handler here is a start, a time that passes, and an outcome.

#include <algorithm>
#include <utility>

#include "base/random.hpp"
#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

constexpr Duration kSomeTime = std::chrono::milliseconds(10);

PublishOutcome outcome_of(const Receipt& receipt) { return receipt.outcome; }

Answer answer_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kLeaseLost:
      return Answer::kLost;
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

Answer answer_of(const Result<ScheduleAnswer>& answer) {
  if (!answer.ok()) return answer_of(answer.error());
  switch (*answer) {
    case ScheduleAnswer::kDone:
      return Answer::kOk;
    case ScheduleAnswer::kAlreadyFired:
      return Answer::kAlreadyFired;
    case ScheduleAnswer::kNotFound:
      return Answer::kNotFound;
  }
  return Answer::kUnknown;
}

bool has_context(std::uint32_t number) { return number % 3 == 0; }

}  // namespace

// ---- stations -----------------------------------------------------------------------------------

void World::step_scheduler(Process& process) {
  const auto life = process.life;
  const std::size_t before = history_.records().size();
  life->scheduler_dirty = false;
  as(life, life->scheduler_busy, [&] { life->core->step_scheduler(); });
  if (history_.records().size() != before) life->scheduler_dirty = true;
}

void World::step_lane(Process& process, Life::Slot& slot) {
  const auto life = process.life;
  const std::size_t before = history_.records().size();
  slot.lane_dirty = false;
  as(life, slot.lane_busy, [&] {
    if (!slot.consumer) {
      subscribe(process, slot.group, &slot);
    } else {
      const auto consumer = slot.consumer;
      consumer->step(time_.monotonic);
    }
  });
  slot.work = true;
  if (history_.records().size() != before) slot.lane_dirty = true;
  if (alive(life->seat)) check_limits();
}

void World::step_worker(Process& process, Life::Slot& slot) {
  if (!slot.consumer) {
    slot.work = false;
    return;
  }
  auto delivery = slot.consumer->take_one();
  if (!delivery) {
    slot.work = false;
    return;
  }
  start_handler(process, slot, std::move(*delivery));
}

// ---- handlers -----------------------------------------------------------------------------------

void World::start_handler(Process& process, Life::Slot& slot, Delivery delivery) {
  const std::uint32_t number = number_of(delivery.payload());
  const auto group = static_cast<std::uint8_t>(slot.group);
  Running running;
  running.life = process.life;
  running.slot = &slot;
  running.consumer = slot.consumer;
  Record& start = running.start;
  start.event = Event::kStart;
  start.process = process.index;
  start.message = number;
  start.group = group;
  start.attempt = delivery.attempt();
  start.crashes = delivery.crashes();
  start.redrives = delivery.redrives();
  auto& fresh = handed_out_[{process.index, group, number}];
  for (auto it = fresh.rbegin(); it != fresh.rend(); ++it) {
    if (it->attempt != start.attempt || it->redrives != start.redrives) continue;
    start.session = it->session;
    start.lease = it->lease;
    start.index = it->index;
    start.heads_key = it->heads_key;
    fresh.erase(std::next(it).base());
    break;
  }
  start.until = time_.monotonic + plan_.groups[group].options.handler_timeout;
  check_content(delivery, number, group);
  note(start);
  ++figures_.starts;
  Duration takes{0};
  running.delivery = std::move(delivery);
  if (number < facts_.messages.size()) {
    const MessagePlan& message = facts_.messages[number];
    Behaviour behaviour = message.behaviour[group];
    if (heals(facts_, number, group, start.redrives)) behaviour = {Mood::kFine, 0, behaviour.takes};
    decide_outcome(running, behaviour, takes);
  }
  ++starts_[{number, group}];
  ++slot.running;
  const std::uint64_t id = ++running_last_;
  running_.emplace(id, std::move(running));
  after(takes, Task::kFinish, id);
  // The lane looks when the handler's time is over.
  after(plan_.groups[group].options.handler_timeout, Task::kDue, process.index, process.generation);
}

void World::decide_outcome(Running& running, const Behaviour& behaviour, Duration& takes) {
  const Record& start = running.start;
  takes = behaviour.takes;
  const auto say = [&](Verb verb, Outcome outcome) {
    running.verb = verb;
    running.outcome = std::move(outcome);
  };
  const std::uint32_t earlier = starts_[{start.message, start.group}];
  const Duration some_time = dice_.between(Duration(0), std::chrono::milliseconds(500));
  switch (behaviour.mood) {
    case Mood::kFine:
      break;
    case Mood::kFails:
      if (start.attempt <= behaviour.times)
        say(Verb::kFail, Outcome::fail({"TransientTrouble", "no luck", {}}));
      break;
    case Mood::kPermanent:
      say(Verb::kPermanent, Outcome::fail({"Permanent", "never", {}}));
      break;
    case Mood::kNaks:
      if (start.attempt <= behaviour.times) {
        say(Verb::kNak, dice_.chance(0.5) ? Outcome::nak(some_time) : Outcome::nak());
      }
      break;
    case Mood::kDefers:
      if (earlier < behaviour.times) say(Verb::kDefer, Outcome::defer(some_time));
      break;
    case Mood::kThrottles:
      if (earlier < behaviour.times) {
        Outcome outcome = Outcome::fail({"RateLimited", "later", {}});
        outcome.delay = some_time;
        say(Verb::kThrottle, std::move(outcome));
      }
      break;
    case Mood::kRejects:
      say(Verb::kReject, Outcome::dead_letter("not wanted"));
      break;
    case Mood::kKills:
      running.kills = start.crashes < behaviour.times;
      break;
    case Mood::kSlow:
      if (start.attempt <= behaviour.times) takes = plan_.groups[start.group].options.handler_timeout * 3 / 2;
      break;
  }
}

void World::check_content(const Delivery& delivery, std::uint32_t number, std::uint32_t group) {
  const auto wrong = [&](const char* what) {
    violate("K1", "m" + std::to_string(number) + "/g" + std::to_string(group) + ": " + what +
                      " changed on the way");
  };
  if (number >= facts_.messages.size()) {
    violate("K1", "a message that nobody published was handled");
    return;
  }
  const Message sent = message_of(number);
  if (delivery.topic() != sent.topic) wrong("the topic");
  if (delivery.payload() != sent.payload) wrong("the payload");
  if (delivery.key() != sent.key) wrong("the key");
  if (delivery.headers() != sent.headers) wrong("the headers");
  if (delivery.content_type() != sent.content_type) wrong("the content type");
  if (delivery.correlation_id() != sent.correlation_id) wrong("the correlation id");
  if (delivery.causation_id() != sent.causation_id) wrong("the causation id");
  if (delivery.traceparent() != sent.traceparent) wrong("the trace context");
  const auto& topics = plan_.groups[group].topics;
  const auto topic = facts_.messages[number].topic;
  if (std::find(topics.begin(), topics.end(), topic) == topics.end()) wrong("the group");
}

MonotonicTime World::when_it_runs(const Process& process) const {
  return std::max(process.paused_until, time_.monotonic + std::chrono::milliseconds(1));
}

void World::finish_handler(std::uint64_t id) {
  const auto it = running_.find(id);
  if (it == running_.end()) return;  // it died with its process
  Running& running = it->second;
  Process& process = processes_[running.life->seat.process];
  if (process.life == running.life && !runs(process)) {
    timed_.push({when_it_runs(process), dice_.next(), Task::kFinish, id, 0});
    return;
  }
  Record r = running.start;
  r.event = Event::kFinish;
  r.verb = running.verb;
  r.until = {};
  if (running.kills && process.life == running.life) {
    r.verb = Verb::kCrash;
    note(r);
    crash(process);
    return;
  }
  const bool manual = plan_.groups[r.group].options.ack == AckPolicy::kManual;
  const bool by_hand = manual && running.verb != Verb::kFail && running.verb != Verb::kPermanent &&
                       running.verb != Verb::kThrottle;
  if (!running.slot_is_free) {
    if (running.slot->running > 0 && running.slot->consumer == running.consumer) --running.slot->running;
    running.slot->work = running.slot->lane_dirty = true;
    running.slot_is_free = true;
    if (by_hand) {
      running.consumer->finish(running.delivery, Outcome::ack());
      after(dice_.between(Duration(0), std::chrono::milliseconds(5)), Task::kSettleByHand, id);
      return;
    }
  }
  note(r);
  running.consumer->finish(running.delivery, running.outcome);
  running_.erase(it);
}

void World::settle_by_hand(std::uint64_t id) {
  const auto it = running_.find(id);
  if (it == running_.end()) return;
  Running& running = it->second;
  Process& process = processes_[running.life->seat.process];
  if (process.life == running.life && !runs(process)) {
    timed_.push({when_it_runs(process), dice_.next(), Task::kSettleByHand, id, 0});
    return;
  }
  Record r = running.start;
  r.event = Event::kFinish;
  r.verb = running.verb;
  r.until = {};
  auto settled = running.delivery.settle(running.outcome);
  if (!settled.ok()) r.answer = answer_of(settled.error());
  note(r);
  running.slot->lane_dirty = running.slot->work = true;
  running_.erase(it);
}

// ---- producers ----------------------------------------------------------------------------------

Message World::message_of(std::uint32_t number) const {
  const MessagePlan& plan = facts_.messages[number];
  Message message;
  message.topic = topic_name(plan.topic);
  message.payload = payload_of(number);
  if (plan.key >= 0) message.key = "key-" + std::to_string(plan.key);
  message.priority = plan.priority;
  message.ttl = plan.ttl;
  message.delay = plan.delay;
  if (plan.dedup >= 0) {
    message.dedup_id = "dedup-" + std::to_string(plan.dedup);
    message.dedup_mode = plan.dedup_mode;
  }
  if (has_context(number)) {
    message.headers = {{"number", std::to_string(number)}, {"kind", "simulated"}};
    message.content_type = "application/x-simulated";
    message.correlation_id = "correlation-" + std::to_string(number);
    message.causation_id = "causation-" + std::to_string(number);
    message.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  }
  if (plan.own_id) {
    const std::uint64_t mixed = base::mix(plan_.seed ^ number);
    message.id.bytes[0] = 1;
    message.id.bytes[6] = 0x70;
    message.id.bytes[8] = 0x80;
    for (std::size_t i = 0; i < 4; ++i)
      message.id.bytes[2 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
    for (std::size_t i = 0; i < 7; ++i)
      message.id.bytes[9 + i] = static_cast<std::uint8_t>(mixed >> (8 * i));
  }
  return message;
}

void World::produce(std::uint32_t producer) {
  auto& numbers = to_publish_[producer];
  std::size_t& next = published_to_[producer];
  if (next >= numbers.size()) return;
  Process& process = processes_[producer % processes_.size()];
  if (!runs(process) || producer_busy_[producer]) {
    after(kSomeTime, Task::kProduce, producer);
    return;
  }
  const std::size_t count =
      std::min<std::size_t>(dice_.between(1, plan_.publish_batch_max), numbers.size() - next);
  const std::vector<std::uint32_t> batch(numbers.begin() + static_cast<std::ptrdiff_t>(next),
                                         numbers.begin() + static_cast<std::ptrdiff_t>(next + count));
  next += count;
  publish(process.life, batch, producer);
  const bool pause = dice_.chance(0.02);
  after(dice_.between(Duration(0), plan_.publish_gap_max) + (pause ? std::chrono::seconds(1) : Duration(0)),
        Task::kProduce, producer);
}

void World::publish(std::shared_ptr<Life> life, const std::vector<std::uint32_t>& numbers,
                    std::uint32_t producer) {
  std::vector<std::uint32_t> left = numbers;
  for (int round = 0; round < 4 && !left.empty() && alive(life->seat); ++round) {
    std::vector<Message> messages;
    messages.reserve(left.size());
    for (const std::uint32_t number : left)
      messages.push_back(message_of(number));
    const TimePoint now = life->clock->now();
    std::optional<Result<std::vector<Receipt>>> receipts;
    as(life, producer_busy_[producer],
       [&] { receipts.emplace(life->core->publisher().publish_batch(std::move(messages))); });
    std::vector<std::uint32_t> again;
    for (std::size_t i = 0; i < left.size(); ++i) {
      Receipt receipt;
      receipt.outcome = PublishOutcome::kUnknown;
      if (receipts && receipts->ok()) receipt = (**receipts)[i];
      note_receipt(left[i], receipt, life, now + facts_.messages[left[i]].delay);
      // Only a dedup id makes it safe to say it again.
      if (outcome_of(receipt) == PublishOutcome::kUnknown && facts_.messages[left[i]].dedup >= 0)
        again.push_back(left[i]);
    }
    left = std::move(again);
  }
}

void World::note_receipt(std::uint32_t number, const Receipt& receipt, const std::shared_ptr<Life>& life,
                         TimePoint due) {
  const MessagePlan& plan = facts_.messages[number];
  Record r;
  r.event = Event::kPublish;
  r.process = life->seat.process;
  r.message = number;
  r.group = 0;
  switch (receipt.outcome) {
    case PublishOutcome::kAcked:
      r.answer = receipt.duplicate ? Answer::kDuplicate : Answer::kOk;
      break;
    case PublishOutcome::kRejected:
      r.answer = Answer::kRejected;
      break;
    case PublishOutcome::kUnknown:
      r.answer = Answer::kUnknown;
      break;
  }
  if (receipt.duplicate) {
    const auto known = numbers_.find(receipt.id);
    r.number = known == numbers_.end() ? kNobody : known->second;
  }
  if (plan.delay > Duration(0)) {
    r.until_wall = due;
    if (r.answer == Answer::kOk) delayed_.push_back(number);
  }
  if (r.answer == Answer::kOk) {
    ++figures_.published;
    if (ids_.size() <= number) ids_.resize(number + 1);
    ids_[number] = receipt.id;
  }
  note(r);
}

// ---- idempotency --------------------------------------------------------------------------------

Process* World::somebody() {
  std::vector<Process*> up;
  for (Process& process : processes_) {
    if (runs(process)) up.push_back(&process);
  }
  return up.empty() ? nullptr : up[dice_.below(up.size())];
}

void World::step_client(std::uint32_t who) {
  Client& client = clients_[who];
  if (client.holds && processes_[client.process].generation != client.generation) client.holds = false;
  if (healed_ && !client.holds) return;
  after(dice_.between(Duration(0), std::chrono::milliseconds(400)), Task::kIdempotency, who);
  if (client_busy_[who]) return;
  Process* process = client.holds ? &processes_[client.process] : somebody();
  if (process == nullptr || !runs(*process)) return;
  client.holds ? end(client, who, *process) : begin(client, who, *process);
}

void World::begin(Client& client, std::uint32_t who, Process& process) {
  const auto life = process.life;
  client.key = static_cast<std::uint32_t>(dice_.below(plan_.idempotency_key_count));
  IdempotencyOptions options;
  options.scope = "simulation";
  options.lease = dice_.pick<Duration>({std::chrono::milliseconds(100), std::chrono::seconds(1)});
  Record r;
  r.event = Event::kBegin;
  r.process = process.index;
  r.session = who;
  r.index = client.key;
  r.answer = Answer::kUnknown;
  const TimePoint now = life->clock->now();
  Record begins = r;
  begins.event = Event::kBeginning;
  note(begins);
  as(life, client_busy_[who], [&] {
    auto answer = life->core->idempotency().begin("key-" + std::to_string(client.key), options);
    if (!answer) {
      r.answer = answer_of(answer.error());
      return;
    }
    switch (answer->kind) {
      case IdempotencyAnswer::Kind::kAcquired:
        r.answer = Answer::kOk;
        r.number = answer->token.fence;
        client.holds = true;
        client.token = answer->token;
        client.process = process.index;
        client.generation = life->seat.generation;
        break;
      case IdempotencyAnswer::Kind::kInProgress:
        r.answer = Answer::kInProgress;
        break;
      case IdempotencyAnswer::Kind::kCompleted:
        r.answer = Answer::kCompleted;
        r.number = std::stoull("0" + answer->result.bytes);
        break;
    }
  });
  r.until_wall = now + options.lease;
  note(r);
}

void World::end(Client& client, std::uint32_t who, Process& process) {
  const auto life = process.life;
  client.holds = false;
  const double what = static_cast<double>(dice_.below(100));
  if (what < 15) return;  // forgotten: its lease ends
  Record r;
  r.event = what < 30 ? Event::kGiveUp : Event::kComplete;
  r.process = process.index;
  r.session = who;
  r.index = client.key;
  // Empty bytes are a result as well.
  r.number = dice_.chance(0.1) ? 0 : ++result_last_;
  r.lease = client.token.fence;
  for (int round = 0; round < 2; ++round) {
    r.answer = Answer::kUnknown;
    Record begins = r;
    begins.event = Event::kEnding;
    note(begins);
    as(life, client_busy_[who], [&] {
      const auto done =
          r.event == Event::kGiveUp
              ? life->core->idempotency().fail(client.token)
              : life->core->idempotency().complete(
                    client.token, r.number == 0 ? Bytes() : std::to_string(r.number), {}, "text/plain");
      r.answer = done.ok() ? Answer::kOk : answer_of(done.error());
    });
    note(r);
    if (r.answer != Answer::kUnknown || !alive(life->seat)) break;
  }
}

// ---- operator -----------------------------------------------------------------------------------

void World::operate() {
  if (healed_) return;
  after(dice_.between(std::chrono::milliseconds(1), std::chrono::milliseconds(300)), Task::kOperate, 0);
  Process* process = somebody();
  if (process == nullptr || process->life->operator_busy) return;
  if (!plan_.sagas.empty() && dice_.chance(0.1)) return help_saga(*process);
  switch (dice_.below(4)) {
    case 0:
      operate_on_schedule(*process);
      break;
    case 1:
      operate_on_dead_letters(*process);
      break;
    case 2:
      operate_on_consumers(*process);
      break;
    default:
      release_keys(*process, false);
      break;
  }
}

void World::operate_on_schedule(Process& process) {
  if (delayed_.empty()) return;
  const auto life = process.life;
  const std::size_t recent = delayed_.size() - 1 - dice_.below(std::min<std::size_t>(delayed_.size(), 20));
  const std::uint32_t number = delayed_[recent];
  const bool cancels = dice_.chance(0.6);
  Record r;
  r.event = cancels ? Event::kCancel : Event::kReschedule;
  r.process = process.index;
  r.message = number;
  const TimePoint due = life->clock->now() + dice_.between(Duration(0), std::chrono::seconds(2));
  if (!cancels) r.until_wall = due;
  r.answer = Answer::kUnknown;
  r.number = ++ask_last_;
  Record asks = r;
  asks.event = Event::kAsking;
  note(asks);
  as(life, life->operator_busy, [&] {
    r.answer = answer_of(cancels ? life->core->scheduler().cancel(ids_[number])
                                 : life->core->scheduler().reschedule(ids_[number], due));
  });
  note(r);
}

void World::operate_on_dead_letters(Process& process) {
  const auto life = process.life;
  const std::uint64_t what = dice_.below(10);
  as(life, life->operator_busy, [&] {
    engine::DeadLetters& dead_letters = life->core->dead_letters();
    RedriveOptions options;
    options.delay = dice_.chance(0.3) ? Duration(std::chrono::milliseconds(50)) : Duration(0);
    DeadLetterQuery query;
    query.status = DeadLetterStatus::kPending;
    if (what == 0) {
      (void)dead_letters.redrive_all(query, options);
      return;
    }
    auto page = dead_letters.list(query);
    if (!page.ok() || page->items.empty()) return;
    const MessageId entry = page->items[dice_.below(page->items.size())].id;
    if (what == 1) {
      (void)dead_letters.discard(entry);
    } else {
      (void)dead_letters.redrive(entry, options);
    }
  });
}

void World::operate_on_consumers(Process& process) {
  auto& slots = process.life->slots;
  if (slots.empty()) return;
  Life::Slot& slot = *slots[dice_.below(slots.size())];
  if (!slot.consumer) return;
  if (dice_.chance(0.3)) {
    const auto concurrency = static_cast<std::int64_t>(dice_.between(1, 4));
    (void)slot.consumer->set_concurrency(concurrency);
    slot.concurrency = static_cast<std::uint32_t>(concurrency);
  } else if (slot.paused) {
    (void)slot.consumer->resume();
    slot.paused = false;
  } else {
    (void)slot.consumer->pause();
    slot.paused = true;
  }
  slot.lane_dirty = slot.work = true;
}

void World::release_keys(Process& process, bool all) {
  const auto life = process.life;
  if (life->operator_busy) return;
  for (std::uint32_t g = 0; g < plan_.groups.size(); ++g) {
    for (const std::uint32_t topic : plan_.groups[g].topics) {
      auto blocks = bench_.store->list_key_blocks(group_name(g), topic_name(topic), std::nullopt);
      if (!blocks.ok()) continue;
      for (const spi::KeyBlock& block : *blocks) {
        if (all ? !block.held : !dice_.chance(block.held ? 0.5 : 0.05)) continue;
        Record r;
        r.event = Event::kHandRelease;
        r.process = process.index;
        r.group = static_cast<std::uint8_t>(g);
        r.topic = static_cast<std::uint8_t>(topic);
        r.number = block.partition;
        r.index = block.held ? 1 : 0;
        r.lease = block.key.empty() ? 0 : number_in(block.key) + 1;
        note(r);
        as(life, life->operator_busy, [&] {
          if (plan_.groups[g].options.order == Order::kKeyOrdered) {
            (void)life->core->release_key(block.group, block.topic, block.key);
            return;
          }
          // In partition order every block has the key "", so the partition must be named.
          engine::Context& context = life->core->context();
          const spi::Unit unit{
              {spi::UnparkNext{block.group, block.topic, block.key, block.partition, context.clock->now()}}};
          (void)context.store->commit({&unit, 1});
        });
        if (!alive(life->seat)) return;
      }
    }
  }
}

}  // namespace towline::simulation
