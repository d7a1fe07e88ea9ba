// Pausing, draining and closing a consumer: by the machine's clock, also where messages live by a virtual
// one, which may stand still for ever. The order of closing is the order of the data: intake, handlers,
// outcomes, then the subscription; the threads go last, and a thread whose handler never returns is left
// alone.

#include <algorithm>

#include <towline/clock.hpp>

#include "engine/consumer_core.hpp"
#include "engine/waits.hpp"

namespace towline::engine {
namespace {

constexpr Duration kJoinGrace = std::chrono::milliseconds(200);

/// In the child of a fork() there is no lane that would notice, and nobody who would ever answer.
Result<void> check_usable(const Context& context, bool closed) {
  if (context.forked()) return context.check_open();
  if (closed) return Error{ErrorCode::kClosed, "the consumer is closed"};
  return {};
}

}  // namespace

Result<void> ConsumerCore::pause() {
  if (auto usable = check_usable(*context_, closed_.load()); !usable) return usable;
  paused_.store(true);
  dispatcher_.wake_lane();
  return {};
}

Result<void> ConsumerCore::resume() {
  if (auto usable = check_usable(*context_, closed_.load()); !usable) return usable;
  paused_.store(false);
  dispatcher_.wake_lane();
  return {};
}

bool ConsumerCore::idle() const { return dispatcher_.gauge().in_hand == 0; }

template <typename Condition>
bool ConsumerCore::wait_for_lane(const std::atomic<MonotonicTime>& deadline, Condition&& condition) {
  // Counted before the condition is looked at, so that the lane tells of every round from then on.
  lane_watchers_.fetch_add(1);
  std::unique_lock lock(control_);
  bool holds = condition();
  const auto clock = system_clock();
  while (!holds && clock->monotonic() < deadline.load()) {
    clock->wait_until(lock, control_changed_, deadline.load());
    holds = condition();
  }
  lane_watchers_.fetch_sub(1);
  return holds;
}

void ConsumerCore::tell_watchers() {
  if (lane_watchers_.load() == 0) return;
  const std::lock_guard lock(control_);
  control_changed_.notify_all();
}

bool ConsumerCore::hopeless() const { return context_->failure() && dispatcher_.gauge().running == 0; }

Result<void> ConsumerCore::wait_idle(const std::atomic<MonotonicTime>& deadline) {
  (void)wait_for_lane(deadline, [&] { return idle() || hopeless(); });
  if (idle()) return {};
  if (hopeless()) return *context_->failure();
  return Error{ErrorCode::kTimeout,
               std::to_string(dispatcher_.gauge().in_hand) + " deliveries are still in flight"};
}

Result<void> ConsumerCore::drain(Duration timeout) {
  if (current_consumer() == this) {
    return Error{ErrorCode::kInvalidArgument,
                 "drain: a handler of this consumer cannot wait until no handler of it runs; call pause(), "
                 "or drain() from elsewhere"};
  }
  const std::uint64_t round = rounds_.load();
  if (auto paused = pause(); !paused) return paused;
  const std::atomic<MonotonicTime> deadline = deadline_in(*system_clock(), timeout);
  // The round that was under way may still bring something in; the next one knows about the pause.
  if (!wait_for_lane(deadline, [&] { return !lane_running_ || rounds_.load() != round; }))
    return Error{ErrorCode::kTimeout, "the consumer's lane did not come round in time"};
  return wait_idle(deadline);
}

Result<void> ConsumerCore::set_concurrency(std::int64_t concurrency) {
  if (concurrency < 1 || concurrency > 4096) {
    return Error{ErrorCode::kInvalidConfig, "consumer.concurrency is " + std::to_string(concurrency) +
                                                ", but must be between 1 and 4096"};
  }
  if (auto usable = check_usable(*context_, closed_.load()); !usable) return usable;
  dispatcher_.set_concurrency(concurrency);
  const std::lock_guard lock(control_);
  for (auto i = static_cast<std::int64_t>(workers_.size()); lane_running_ && !is_remote() && i < concurrency;
       ++i) {
    ++workers_running_;
    workers_.emplace_back([core = shared_from_this(), i] { core->worker_main(static_cast<std::size_t>(i)); });
  }
  return {};
}

ConsumerStatistics ConsumerCore::statistics() const {
  const Settler::Counts& counts = settler_.counts;
  const Dispatcher::Gauge gauge = dispatcher_.gauge();
  ConsumerStatistics out;
  out.received = received_.load();
  out.acked = counts.acked.load();
  out.failed = counts.failed.load();
  out.retried = counts.retried.load();
  out.deferred = counts.deferred.load();
  out.dead_lettered = counts.dead_lettered.load();
  out.filtered = counts.filtered.load();
  out.expired = counts.expired.load();
  out.timed_out = counts.timed_out.load();
  out.lease_lost = counts.lease_lost.load();
  out.duplicates = counts.duplicates.load();
  out.discarded = counts.discarded.load();
  out.in_flight = gauge.in_hand;
  out.running = gauge.running;
  out.running_max = gauge.running_max;
  out.stuck = gauge.stuck;
  out.blocked_keys = dispatcher_.blocked_key_count();
  out.paused = paused_.load();
  out.breaker_open = breaker_open_.load();
  return out;
}

void ConsumerCore::renew() {
  if (closed_.load() || !subscription_) return;
  auto lost = subscription_->renew();
  if (!lost) {
    if (!closing_.load())
      context_->log(LogLevel::kWarning, "keeper", identity_ + ": " + lost.error().to_string());
    return;
  }
  if (lost->empty()) return;
  const std::size_t count = dispatcher_.mark_lost(*lost);
  if (count > 0) {
    context_->log(LogLevel::kWarning, "keeper",
                  identity_ + ": lost the leases of " + std::to_string(count) + " deliveries");
  }
}

Result<std::uint64_t> ConsumerCore::close(std::optional<Duration> timeout) {
  // The threads that would have to end are not there in a child.
  if (context_->forked()) return std::move(context_->check_open()).error();
  if (current_consumer() == this) {
    // Inside its own handler it cannot wait for that handler: the engine closes it on another thread.
    paused_.store(true);
    close_requested_.store(true);
    if (leave_listener_) leave_listener_();
    return std::uint64_t{0};
  }
  hasten(deadline_in(*system_clock(), timeout.value_or(context_->options.drain_timeout)));
  std::unique_lock lock(control_);
  if (closing_.exchange(true)) {
    // Another thread closes it: the answer is the same for both.
    while (!closed_.load())
      control_changed_.wait(lock);
    return stuck_at_close_;
  }
  // From here on start() starts nothing.
  const bool threaded = lane_.joinable();
  lock.unlock();
  paused_.store(true);
  if (threaded) {
    dispatcher_.wake_lane();
    (void)wait_idle_or_stuck();
  }
  const std::uint64_t stuck = shut_down(threaded);
  lock.lock();
  stuck_at_close_ = stuck;
  closed_.store(true);
  control_changed_.notify_all();
  return stuck;
}

void ConsumerCore::hasten(MonotonicTime deadline) {
  MonotonicTime known = close_deadline_.load();
  while (deadline < known && !close_deadline_.compare_exchange_weak(known, deadline)) {
  }
  const std::lock_guard lock(control_);
  control_changed_.notify_all();
}

bool ConsumerCore::wait_idle_or_stuck() {
  if (wait_idle(close_deadline_) || hopeless()) return true;
  // Out of time: tell the handlers, and give those that listen a moment to leave.
  dispatcher_.request_stop_of_running();
  const std::atomic<MonotonicTime> deadline = system_clock()->monotonic() + kJoinGrace;
  return wait_idle(deadline).ok();
}

std::uint64_t ConsumerCore::shut_down(bool threaded) {
  stopping_.store(true, std::memory_order_release);
  dispatcher_.stop_workers();
  if (subscription_) subscription_->wake();
  if (lane_.joinable()) lane_.join();
  std::uint64_t stuck = 0;
  std::uint64_t elsewhere = 0;
  {
    std::unique_lock lock(control_);
    const auto clock = system_clock();
    const MonotonicTime deadline = clock->monotonic() + kJoinGrace;
    while (workers_running_ > 0 && clock->monotonic() < deadline)
      clock->wait_until(lock, control_changed_, deadline);
    stuck = workers_running_;
    if (stuck == 0 && is_remote()) elsewhere = dispatcher_.gauge().running;
  }
  for (std::thread& worker : workers_) {
    // A handler that never returns keeps its thread and, through it, this object; all it can do is return.
    if (stuck == 0) {
      worker.join();
    } else {
      worker.detach();
    }
  }
  workers_.clear();
  // The lane has gone: this thread takes its place for the last round, which settles what came in meanwhile.
  if (threaded && !context_->failure()) step(context_->clock->monotonic());
  if (subscription_ && !context_->dying()) {
    if (auto closed = subscription_->close(); !closed && !context_->failure()) {
      context_->log(LogLevel::kWarning, "consumer", identity_ + ": " + closed.error().to_string());
    }
  }
  context_->in_flight.forget(this);
  settler_.abandon(Error{ErrorCode::kClosed, "the consumer was closed before this was settled"});
  const Dispatcher::LeftOver left = dispatcher_.close_all();
  settler_.release_room(left.count, left.bytes);
  return stuck + elsewhere;
}

void ConsumerCore::abandon() {
  closing_.store(true);
  closed_.store(true);
  stopping_.store(true);
  dispatcher_.stop_workers();
  context_->in_flight.forget(this);
  settler_.abandon(Error{ErrorCode::kClosed, "the consumer is gone"});
  const Dispatcher::LeftOver left = dispatcher_.close_all();
  settler_.release_room(left.count, left.bytes);
  subscription_.reset();
}

}  // namespace towline::engine
