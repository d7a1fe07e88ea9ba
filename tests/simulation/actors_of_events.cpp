// Events in the world: who appends them, at a version or at any, and again when nobody knows whether it
// happened; who reads them all; and followers, whose processes die between an event and its checkpoint.

#include <algorithm>
#include <utility>

#include "simulation/world.hpp"

namespace towline::simulation {
namespace {

constexpr Duration kSomeTime = std::chrono::milliseconds(10);
constexpr int kRoundsMax = 4;

Answer answer_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kConflict:
      return Answer::kConflict;
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kIoError:
      return Answer::kUnknown;
    default:
      return Answer::kRejected;
  }
}

EventSeen seen(const RecordedEvent& event) {
  return {event.position, event.version, number_in(event.stream), number_of(event.payload)};
}

std::vector<NewEvent> events_of(const Record& asked) {
  std::vector<NewEvent> events;
  for (std::uint32_t i = 0; i < asked.attempt; ++i) {
    NewEvent& event = events.emplace_back();
    event.type = type_of_event(asked.redrives + i);
    event.payload = payload_of(asked.redrives + i);
    event.id = id_of_event(asked.redrives + i);
  }
  return events;
}

}  // namespace

// ---- appending ----------------------------------------------------------------------------------

void World::begin_events() {
  writers_.resize(plan_.events.client_count);
  for (std::uint32_t w = 0; w < writers_.size(); ++w)
    after(dice_.between(Duration(0), kSomeTime), Task::kAppend, w);
  if (plan_.events.append_count > 0) after(kSomeTime, Task::kReadAll, 0);
}

void World::append_events(std::uint32_t who) {
  Writer& writer = writers_[who];
  if (append_last_ >= plan_.events.append_count) return;
  after(dice_.between(Duration(0), std::chrono::milliseconds(60)), Task::kAppend, who);
  Process* process = somebody();
  if (process == nullptr || writer.busy) return;
  const auto life = process->life;
  Record asked;
  asked.event = Event::kAppending;
  asked.process = process->index;
  asked.session = who;
  asked.number = ++append_last_;
  asked.index = static_cast<std::uint32_t>(dice_.below(plan_.events.stream_count));
  asked.attempt = static_cast<std::uint32_t>(dice_.between(1, plan_.events.batch_count_max));
  asked.redrives = std::exchange(event_last_, event_last_ + asked.attempt);
  const std::uint64_t how = dice_.below(10);
  const std::uint64_t known = writer.versions[asked.index];
  if (how < 5) asked.lease = known + 1;
  if (how == 5) asked.lease = 1;
  const bool repeats = dice_.chance(0.15);
  Answer answer = Answer::kUnknown;
  for (int round = 0; round < kRoundsMax && answer == Answer::kUnknown && alive(life->seat); ++round)
    answer = append_once(life, writer, asked);
  if (answer == Answer::kOk && repeats && alive(life->seat)) (void)append_once(life, writer, asked);
  if (answer != Answer::kConflict || !alive(life->seat)) return;
  as(life, writer.busy, [&] {
    const auto info = life->core->events().find_stream(stream_name(asked.index));
    if (info && *info) writer.versions[asked.index] = (**info).newest_version;
  });
}

Answer World::append_once(const std::shared_ptr<Life>& life, Writer& writer, Record asked) {
  note(asked);
  Record r = asked;
  r.event = Event::kAppended;
  r.answer = Answer::kUnknown;
  r.lease = 0;
  as(life, writer.busy, [&] {
    const auto expected = asked.lease == 0 ? std::nullopt : std::optional<std::uint64_t>(asked.lease - 1);
    const auto appended = life->core->events().append(stream_name(asked.index), events_of(asked), expected);
    if (!appended) {
      r.answer = answer_of(appended.error());
      return;
    }
    r.answer = appended->duplicate ? Answer::kDuplicate : Answer::kOk;
    r.lease = appended->first_version;
    writer.versions[asked.index] = std::max(writer.versions[asked.index], appended->last_version);
    if (appended->last_version - appended->first_version + 1 != asked.attempt)
      violate("K9", "an append of " + std::to_string(asked.attempt) + " events answers with other versions");
  });
  note(r);
  return r.answer;
}

/// Pages of all events, from somewhere on.
void World::read_all(std::uint32_t reader) {
  if (healed_) return;
  after(dice_.between(Duration(0), kSomeTime * 20), Task::kReadAll, reader);
  Process* process = somebody();
  if (process == nullptr) return;
  const auto life = process->life;
  PageSeen page;
  page.from = dice_.chance(0.5) ? 1 : 1 + dice_.below(event_last_ + 1);
  page.began = history_.records().size();
  spi::StreamRead read;
  read.from = page.from;
  read.count_max = dice_.pick<std::size_t>({1, 10, 1000});
  bool busy = false;
  as(life, busy, [&] {
    const auto got = life->core->events().read(read);
    if (!got) return;
    page.end = got->end;
    for (const RecordedEvent& event : got->events)
      page.events.push_back(seen(event));
    pages_.push_back(std::move(page));
  });
}

// ---- following ----------------------------------------------------------------------------------

void World::set_up_followers(Process& process) {
  for (std::uint32_t f = 0; f < plan_.events.followers.size(); ++f) {
    if (process.index != 0 && !dice_.chance(plan_.membership)) continue;
    process.life->follow_slots.push_back(std::make_unique<Life::FollowSlot>());
    process.life->follow_slots.back()->follower = f;
  }
}

void World::note_followed(const Life& life, const Life::FollowSlot& slot,
                          std::span<const RecordedEvent> events) {
  const bool of_stream = !plan_.events.followers[slot.follower].stream.empty();
  for (const RecordedEvent& event : events) {
    Record r;
    r.event = Event::kFollow;
    r.process = life.seat.process;
    r.session = slot.follower;
    r.lease = slot.instance;
    r.index = number_of(event.payload);
    r.number = of_stream ? event.version : event.position;
    note(r);
    ++figures_.followed;
  }
}

Result<void> World::follow(const std::shared_ptr<Life>& life, Life::FollowSlot& slot) {
  const FollowerPlan& plan = plan_.events.followers[slot.follower];
  EventSubscriptionOptions options;
  options.name = follower_name(slot.follower);
  options.stream = plan.stream;
  if (!plan.type.empty()) options.types = {plan.type};
  options.batch_count_max = plan.batch_count_max;
  options.retry.initial_delay = kSomeTime;
  engine::EventFollower::Work work;
  if (!plan.by_hand) {
    work = [this, raw = life.get(),
            &slot](std::span<const RecordedEvent> events) -> Result<std::vector<spi::Write>> {
      note_followed(*raw, slot, events);
      if (faults_on_ && dice_.chance(0.1)) return Error{ErrorCode::kHandlerFailed, "no luck"};
      return std::vector<spi::Write>{};
    };
  }
  auto follower = life->core->follow(options, std::move(work), false);
  if (!follower) return std::move(follower).error();
  slot.running = std::move(*follower);
  slot.instance = ++follow_last_;
  return {};
}

void World::step_follower(Process& process, Life::FollowSlot& slot) {
  const auto life = process.life;
  slot.dirty = false;
  const std::uint64_t before = figures_.followed;
  as(life, life->is_following, [&] {
    if (!slot.running) {
      const auto following = follow(life, slot);
      const bool disk_failed = life->machine != nullptr && life->machine->has_failed();
      if (!following && !following.error().retryable() && !disk_failed)
        violate("setup", following.error().to_string());
    } else if (plan_.events.followers[slot.follower].by_hand) {
      receive_by_hand(life, slot);
    } else {
      slot.running->step(time_.monotonic);
    }
  });
  if (figures_.followed != before) slot.dirty = true;
}

void World::receive_by_hand(const std::shared_ptr<Life>& life, Life::FollowSlot& slot) {
  if (slot.handled != 0) return;  // first what it has
  const FollowerPlan& plan = plan_.events.followers[slot.follower];
  const auto events = slot.running->receive(static_cast<std::size_t>(plan.batch_count_max), Duration{0});
  if (!events || events->empty()) return;
  note_followed(*life, slot, *events);
  // Sometimes it says so for a part of them first.
  const auto place = [&](const RecordedEvent& event) {
    return plan.stream.empty() ? event.position : event.version;
  };
  slot.received = place(events->back());
  slot.handled = dice_.chance(0.8) ? slot.received : place((*events)[dice_.below(events->size())]);
  const Duration takes = dice_.between(Duration(0), plan.takes_max);
  slot.done_at = time_.monotonic + takes;
  after(takes, Task::kCheckpoint, life->seat.process, life->seat.generation);
}

void World::checkpoint(Process& process) {
  const auto life = process.life;
  const bool waits = life->is_following || !runs(process);
  if (waits) return after(kSomeTime, Task::kCheckpoint, process.index, life->seat.generation);
  for (auto& slot : life->follow_slots) {
    if (slot->handled == 0 || slot->done_at > time_.monotonic) continue;
    as(life, life->is_following, [&] {
      const auto done = slot->running->checkpoint(slot->handled);
      const bool goes_on = done.ok() && slot->handled < slot->received;
      const bool is_lost = !done.ok() && done.error().code == ErrorCode::kLeaseLost;
      if (goes_on) slot->handled = slot->received;
      // Who lost the turn gets them once more when it is his again; else it is said again.
      if (is_lost || (done.ok() && !goes_on)) slot->handled = 0;
      if (slot->handled != 0) after(kSomeTime, Task::kCheckpoint, life->seat.process, life->seat.generation);
    });
    slot->dirty = true;
    if (!alive(life->seat)) return;
  }
}

// ---- looking at them ----------------------------------------------------------------------------

std::vector<EventSeen> World::survey_events() {
  std::vector<EventSeen> all;
  if (plan_.events.append_count == 0) return all;
  spi::StreamRead read;
  for (bool end = false; !end;) {
    const auto slice = bench_.store->read_stream(read);
    if (!slice) {
      violate("K9", "the events cannot be read: " + slice.error().to_string());
      break;
    }
    end = slice->end;
    for (const RecordedEvent& event : slice->events) {
      all.push_back(seen(event));
      read.from = event.position + 1;
      if (event.payload != payload_of(all.back().event) || event.type != type_of_event(all.back().event))
        violate("K9", "event e" + std::to_string(all.back().event) + " has changed");
    }
  }
  figures_.events = all.size();
  return all;
}

bool World::are_followers_done(std::string* why) {
  if (plan_.events.followers.empty()) return true;
  const std::vector<EventSeen> all = survey_events();
  for (std::uint32_t f = 0; f < plan_.events.followers.size(); ++f) {
    const FollowerPlan& plan = plan_.events.followers[f];
    std::uint64_t last = 0;
    for (const EventSeen& event : all) {
      if (!plan.stream.empty() && stream_name(event.stream) != plan.stream) continue;
      if (!plan.type.empty() && type_of_event(event.event) != plan.type) continue;
      last = plan.stream.empty() ? event.position : event.version;
    }
    const auto cursor = bench_.store->find_event_cursor(follower_name(f));
    const std::uint64_t place = cursor && *cursor ? (**cursor).place : 0;
    if (place >= last) continue;
    *why = follower_name(f) + " is at " + std::to_string(place) + ", the last is " + std::to_string(last);
    return false;
  }
  return true;
}

}  // namespace towline::simulation
