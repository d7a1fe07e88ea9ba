// EventFollower; see the header for the order of events.

#include "engine/event_follower.hpp"

#include <algorithm>
#include <utility>

#include <cxxabi.h>

#include <towline/clock.hpp>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "engine/events.hpp"
#include "engine/thrown.hpp"
#include "engine/waits.hpp"
#include "policy/backoff.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kReceiveCountMax = 10'000;
/// Who stands by looks this often whether the turn has come free.
constexpr Duration kLookInterval = std::chrono::seconds(1);

thread_local const EventFollower* t_follower = nullptr;

}  // namespace

EventFollower::EventFollower(std::shared_ptr<Context> context, EventSubscriptionOptions options,
                             policy::TopicPatternSet types, Work work, bool fill)
    : context_(std::move(context)),
      options_(std::move(options)),
      types_(std::move(types)),
      work_(std::move(work)),
      fill_(fill),
      identity_(context_->make_id().to_string()),
      rng_(context_->make_rng()) {}

Result<std::shared_ptr<EventFollower>> EventFollower::create(std::shared_ptr<Context> context,
                                                             EventSubscriptionOptions options, Work work,
                                                             bool fill) {
  if (auto bad = validate(options); !bad) return std::move(bad).error();
  if (auto bad = policy::check_retry(options.retry); !bad) return std::move(bad).error();
  if (auto bad = base::check_name(options.name, "name"); !bad) return std::move(bad).error();
  if (!options.stream.empty()) {
    if (auto bad = check_stream(options.stream); !bad) return std::move(bad).error();
  }
  auto types = policy::TopicPatternSet::compile(options.types);
  if (!types) return std::move(types).error();
  std::shared_ptr<EventFollower> follower(
      new EventFollower(std::move(context), std::move(options), std::move(*types), std::move(work), fill));
  const std::lock_guard lock(follower->mutex_);
  auto turn = follower->have_turn();
  if (!turn) return std::move(turn).error();
  follower->statistics_.active = *turn;
  return follower;
}

EventFollower::~EventFollower() {
  if (!thread_.joinable()) return;
  thread_.get_id() == std::this_thread::get_id() ? thread_.detach() : thread_.join();
}

void EventFollower::start() {
  const std::lock_guard lock(life_mutex_);
  if (!work_ || stop_.stop_requested()) return;
  runs_ = true;
  thread_ = std::thread([self = shared_from_this()] { self->main(); });
}

void EventFollower::main() {
  t_follower = this;
  while (!stop_.stop_requested()) {
    MonotonicTime not_before;
    {
      const std::lock_guard lock(mutex_);
      not_before = not_before_;
    }
    pause_until(not_before);
    step(context_->clock->monotonic() + kLookInterval);
  }
  {
    const std::lock_guard lock(life_mutex_);
    runs_ = false;
    life_changed_.notify_all();
  }
  give_back_late();
}

Result<void> EventFollower::check_open() const {
  if (stop_.stop_requested()) return Error{ErrorCode::kClosed, "this subscription is closed"};
  return context_->check_open();
}

void EventFollower::pause_until(MonotonicTime until) {
  std::mutex mutex;
  std::condition_variable over;
  const std::stop_callback closing(stop_.get_token(), [&] {
    const std::lock_guard lock(mutex);
    over.notify_all();
  });
  std::unique_lock lock(mutex);
  while (!stop_.stop_requested() && context_->clock->monotonic() < until)
    context_->clock->wait_until(lock, over, until);
}

// ---- the turn -----------------------------------------------------------------------------------

Result<spi::StreamSlice> EventFollower::look() {
  spi::StreamRead read;
  read.stream = options_.stream;
  read.from = UINT64_MAX;
  read.count_max = 1;
  return context_->store->read_stream(read);
}

Result<bool> EventFollower::have_turn() {
  if (has_turn_ && context_->clock->monotonic() < turn_until_) return true;
  has_turn_ = false;
  unsure_ = false;
  auto found = context_->store->find_event_cursor(options_.name);
  if (!found) return std::move(found).error();
  cursor_ = found->value_or(spi::EventCursor{options_.name, options_.stream});
  if (cursor_.stream != options_.stream) {
    return Error{ErrorCode::kTopologyMismatch,
                 "the subscription " + options_.name + " follows " +
                     (cursor_.stream.empty() ? "all events" : "stream " + base::escape(cursor_.stream, 64)) +
                     "; choose another name to follow something else"};
  }
  const bool others = !cursor_.owner.empty() && cursor_.owner != identity_;
  if (others && cursor_.lease_until > context_->clock->now()) return false;
  if (!*found && options_.from_end) {
    auto now = look();
    if (!now) return std::move(now).error();
    cursor_.place = options_.stream.empty() ? now->last_position : now->newest_version;
  }
  received_ = given_ = cursor_.place;
  caught_up_ = 0;
  restart_ = false;
  auto taken = write_cursor(cursor_.place, identity_, {});
  if (taken) return true;
  if (taken.error().code == ErrorCode::kLeaseLost) return false;  // somebody was faster
  return std::move(taken).error();
}

Result<void> EventFollower::write_cursor(std::uint64_t place, const std::string& owner,
                                         std::vector<spi::Write> with) {
  const MonotonicTime began = context_->clock->monotonic();
  spi::EventCursor next = cursor_;
  next.place = std::max(place, cursor_.place);
  next.owner = owner;
  next.lease_until = owner.empty() ? TimePoint{} : context_->clock->now() + context_->options.lease;
  spi::Unit unit{std::move(with)};
  unit.writes.push_back(spi::PutEventCursor{next, cursor_.version});
  auto done = context_->store->commit({&unit, 1});
  if (!done) {
    unsure_ = true;
    return std::move(done).error();
  }
  if (!done->empty() && !done->front()) {
    Error error = std::move(done->front()).error();
    if (error.code != ErrorCode::kConflict) return error;
    // Unless the cursor is as it was, and something that went with it was refused.
    const std::uint64_t version = cursor_.version;
    if (auto found = find_again(); !found) return found;
    if (cursor_.version == version) return error;
    unsure_ = true;
    return Error{ErrorCode::kUnavailable, "the checkpoint of " + options_.name + " was changed meanwhile"};
  }
  cursor_ = std::move(next);
  ++cursor_.version;
  has_turn_ = !owner.empty();
  turn_until_ = began + context_->options.lease;
  return {};
}

Result<void> EventFollower::find_again() {
  auto found = context_->store->find_event_cursor(options_.name);
  if (!found) return std::move(found).error();
  unsure_ = false;
  if (*found && (*found)->owner == identity_) {
    cursor_ = std::move(**found);
    return {};
  }
  has_turn_ = false;
  return Error{ErrorCode::kLeaseLost,
               "another process follows as " + options_.name + " now; the checkpoint did not move"};
}

Result<void> EventFollower::move_checkpoint(std::uint64_t place, std::vector<spi::Write> with) {
  if (has_turn_ && unsure_) {
    if (auto found = find_again(); !found) return found;
    if (place <= cursor_.place && !with.empty()) return {};  // it did happen
  }
  if (!has_turn_) {
    return Error{ErrorCode::kLeaseLost,
                 "the turn of " + options_.name + " to follow has ended; the checkpoint did not move"};
  }
  return write_cursor(place, identity_, std::move(with));
}

void EventFollower::renew() {
  const std::lock_guard lock(mutex_);
  if (!has_turn_ || stop_.stop_requested()) return;
  // The leases of messages are renewed by the same thread, so it writes no more than it must.
  const bool is_early = context_->clock->monotonic() < turn_until_ - context_->options.lease / 2;
  if (is_early && handled_place() <= cursor_.place) return;
  auto done = move_checkpoint(handled_place(), {});
  // An unknown outcome is looked at by the next write; until its end the turn is kept.
  if (!done) context_->log(LogLevel::kWarning, "events", done.error().to_string());
}

std::uint64_t EventFollower::handled_place() const noexcept {
  return given_ <= cursor_.place ? std::max(received_, cursor_.place) : cursor_.place;
}

// ---- reading ------------------------------------------------------------------------------------

Result<std::vector<RecordedEvent>> EventFollower::read_on(std::size_t count_max, std::uint64_t* seen) {
  std::vector<RecordedEvent> events;
  for (bool end = false; !end && events.empty();) {
    spi::StreamRead read;
    read.stream = options_.stream;
    read.from = received_ + 1;
    read.count_max = count_max;
    auto slice = context_->store->read_stream(read);
    if (!slice) return std::move(slice).error();
    end = slice->end;
    *seen = slice->last_position;
    if (!slice->events.empty()) received_ = place_of(slice->events.back());
    for (RecordedEvent& event : slice->events) {
      if (options_.types.empty() || types_.matches(event.type)) events.push_back(std::move(event));
    }
  }
  if (events.empty()) {
    caught_up_ = *seen;
  } else {
    given_ = place_of(events.back());
  }
  return events;
}

Result<std::vector<RecordedEvent>> EventFollower::take(std::size_t count_max, MonotonicTime deadline) {
  for (;;) {
    if (auto open = check_open(); !open) return std::move(open).error();
    std::uint64_t seen = 0;
    bool turn = false;
    {
      const std::lock_guard lock(mutex_);
      if (restart_ && has_turn_) {
        if (unsure_) {
          if (auto found = find_again(); !found && found.error().code != ErrorCode::kLeaseLost)
            return std::move(found).error();
        }
        received_ = given_ = cursor_.place;
        restart_ = false;
      }
      auto mine = have_turn();
      if (!mine) return std::move(mine).error();
      statistics_.active = turn = *mine;
      if (turn) {
        auto events = read_on(count_max, &seen);
        if (!events || !events->empty()) return events;
      }
    }
    const MonotonicTime now = context_->clock->monotonic();
    if (now >= deadline || stop_.stop_requested()) return std::vector<RecordedEvent>{};
    if (turn) {
      // A lease may end meanwhile, so now and then the turn is looked at.
      auto last = context_->store->wait_for_events(spi::StreamSpace::kEvents, seen,
                                                   std::min(deadline, now + context_->options.lease / 3),
                                                   stop_.get_token());
      if (!last) return std::move(last).error();
    } else {
      pause_until(std::min(deadline, now + std::min(kLookInterval, context_->options.lease / 3)));
    }
  }
}

Result<std::vector<RecordedEvent>> EventFollower::receive(std::size_t count_max, Duration timeout) {
  if (count_max < 1 || count_max > kReceiveCountMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "count_max is " + std::to_string(count_max) + ", but must be in [1, 10000]"};
  }
  if (work_) {
    return Error{
        ErrorCode::kInvalidArgument,
        "the events of this subscription are given to its handler; subscribe without one to receive"};
  }
  auto events = take(count_max, deadline_in(*context_->clock, timeout));
  const std::lock_guard lock(mutex_);
  statistics_.last_error = events ? std::string() : events.error().to_string();
  return events;
}

Result<void> EventFollower::checkpoint(std::uint64_t place) {
  if (auto open = check_open(); !open) return open;
  const std::lock_guard lock(mutex_);
  if (place > received_) {
    return Error{ErrorCode::kInvalidArgument, "the checkpoint " + std::to_string(place) +
                                                  " is behind what was received, which ends at " +
                                                  std::to_string(received_)};
  }
  if (place <= cursor_.place && !unsure_ && has_turn_) return {};
  auto done = move_checkpoint(place >= given_ ? received_ : place, {});
  if (done) statistics_.checkpoint = cursor_.place;
  return done;
}

// ---- working ------------------------------------------------------------------------------------

void EventFollower::fill_up(std::vector<RecordedEvent>& events) {
  const auto count_max = static_cast<std::size_t>(options_.batch_count_max);
  const MonotonicTime deadline = context_->clock->monotonic() + options_.interval;
  while (events.size() < count_max && !stop_.stop_requested()) {
    std::uint64_t seen = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!has_turn_) return;
      auto more = read_on(count_max - events.size(), &seen);
      if (!more) return;
      std::move(more->begin(), more->end(), std::back_inserter(events));
      if (!more->empty()) continue;
    }
    if (context_->clock->monotonic() >= deadline) return;
    if (!context_->store->wait_for_events(spi::StreamSpace::kEvents, seen, deadline, stop_.get_token()))
      return;
  }
}

Result<std::vector<spi::Write>> EventFollower::call_work(std::span<const RecordedEvent> events) const {
  try {
    return work_(events);
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (...) {
    const Outcome outcome = outcome_of_thrown();
    return Error{ErrorCode::kHandlerFailed, outcome.error.type + ": " + outcome.error.message};
  }
}

void EventFollower::note_failure(const Error& error) {
  ++statistics_.failures;
  statistics_.last_error = error.to_string();
  restart_ = true;
  const ErrorInfo info{std::string(error.wire_code()), error.message, {}};
  const auto failures = static_cast<std::uint32_t>(std::min<std::uint64_t>(statistics_.failures, UINT32_MAX));
  backoff_ =
      policy::retry_delay(options_.retry, failures, backoff_, info, rng_).value_or(options_.retry.delay_max);
  not_before_ = context_->clock->monotonic() + backoff_;
  context_->log(LogLevel::kWarning, "events",
                "subscription " + options_.name + " failed " + std::to_string(failures) +
                    " times in a row and tries again: " + base::escape(statistics_.last_error));
}

void EventFollower::step(MonotonicTime deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (context_->clock->monotonic() < not_before_) return;
  }
  auto events = take(static_cast<std::size_t>(options_.batch_count_max), deadline);
  if (events && events->empty()) return;
  Result<std::vector<spi::Write>> writes = std::vector<spi::Write>{};
  if (events) {
    working_.store(true);
    if (fill_) fill_up(*events);
    writes = call_work(*events);
  }
  {
    const std::lock_guard lock(mutex_);
    Result<void> done;
    if (!events) {
      done = events.error();
    } else {
      done = writes ? move_checkpoint(received_, std::move(*writes)) : Result<void>(writes.error());
    }
    if (done) {
      statistics_.handled += events->size();
      statistics_.checkpoint = cursor_.place;
      statistics_.failures = 0;
      statistics_.last_error.clear();
      backoff_ = Duration{0};
    } else if (done.error().code != ErrorCode::kClosed && !ended_.load()) {
      note_failure(done.error());
    }
  }
  working_.store(false);
}

bool EventFollower::busy() {
  if (!work_ || stop_.stop_requested()) return false;
  if (working_.load()) return true;
  const std::lock_guard lock(mutex_);
  if (!has_turn_ || statistics_.failures > 0) return false;
  const auto now = look();
  return now && now->last_position > caught_up_;
}

EventSubscriptionStatistics EventFollower::statistics() const {
  const std::lock_guard lock(mutex_);
  EventSubscriptionStatistics statistics = statistics_;
  statistics.active = has_turn_ && context_->clock->monotonic() < turn_until_;
  statistics.checkpoint = cursor_.place;
  return statistics;
}

// ---- the end ------------------------------------------------------------------------------------

bool EventFollower::close(MonotonicTime deadline) {
  // In a child its thread is not there, and the parent may have held the locks.
  if (context_->forked()) return false;
  stop_.request_stop();
  if (t_follower == this) return false;
  bool stuck = false;
  {
    std::unique_lock lock(life_mutex_);
    const auto clock = system_clock();  // a virtual one may stand still for ever
    close_until_ = std::min(close_until_, deadline);
    while (runs_ && clock->monotonic() < close_until_)
      clock->wait_until(lock, life_changed_, close_until_);
    // With no handler at work its thread ends as soon as the store has answered, and the turn is free.
    const MonotonicTime answered = clock->monotonic() + kLookInterval;
    while (runs_ && !working_.load() && clock->monotonic() < answered)
      clock->wait_until(lock, life_changed_, answered);
    stuck = runs_;
    if (thread_.joinable()) stuck ? thread_.detach() : thread_.join();
  }
  {
    const std::lock_guard lock(mutex_);
    // What a stuck handler still does must not count: the turn goes when it has returned, or its lease ends.
    if (has_turn_ && stuck) {
      late_turn_ = true;
    } else if (has_turn_) {
      if (auto done = write_cursor(handled_place(), {}, {}); !done)
        context_->log(LogLevel::kWarning, "events", done.error().to_string());
    }
    has_turn_ = false;
    ended_.store(true);
  }
  if (stuck && !runs()) give_back_late();  // it has returned just now
  return stuck;
}

bool EventFollower::runs() {
  const std::lock_guard lock(life_mutex_);
  return runs_;
}

void EventFollower::give_back_late() {
  const std::lock_guard lock(mutex_);
  if (!late_turn_ || context_->closed()) return;
  late_turn_ = false;
  auto done = write_cursor(cursor_.place, {}, {});
  if (!done && done.error().code != ErrorCode::kLeaseLost)
    context_->log(LogLevel::kWarning, "events", done.error().to_string());
}

void EventFollower::hasten(MonotonicTime deadline) {
  {
    const std::lock_guard lock(life_mutex_);
    close_until_ = std::min(close_until_, deadline);
  }
  life_changed_.notify_all();
}

void EventFollower::leave() {
  if (context_->forked() || left_.exchange(true)) return;
  stop_.request_stop();
  if (leave_listener_) leave_listener_();
}

void EventFollower::abandon() {
  {
    const std::lock_guard lock(mutex_);
    has_turn_ = false;
  }
  (void)close(system_clock()->monotonic());
}

}  // namespace towline::engine
