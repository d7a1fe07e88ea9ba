// The half of the Dispatcher that workers use: taking work and handing it back, outcomes on their way to the
// lane, and what handlers that run elsewhere need.

#include <algorithm>

#include "base/assert.hpp"
#include "engine/dispatcher.hpp"

namespace towline::engine {
namespace {

/// The time one chunk should take: long enough to pay for the lock, short enough that nobody waits behind it.
constexpr double kChunkSeconds = 0.0002;
constexpr std::size_t kChunkMax = 256;

Error closed_before_settled() {
  return {ErrorCode::kClosed, "the consumer was closed before this was settled"};
}

}  // namespace

// ---- workers ------------------------------------------------------------------------------------

std::size_t Dispatcher::chunk_size_locked() const {
  if (limits_.batch_count_max > 0) return static_cast<std::size_t>(limits_.batch_count_max);
  if (limits_.remote) {
    return std::min(static_cast<std::size_t>(limits_.concurrency) - static_cast<std::size_t>(running_count_),
                    kChunkMax);
  }
  if (handler_seconds_ <= 0) return 1;
  const auto fair = ready_.size() / static_cast<std::size_t>(limits_.concurrency) + 1;
  const auto quick = static_cast<std::size_t>(kChunkSeconds / handler_seconds_) + 1;
  return std::min({fair, quick, kChunkMax});
}

void Dispatcher::take_locked(std::size_t worker, std::size_t count_max, std::vector<DeliveryPtr>& chunk) {
  const MonotonicTime now = clock_->monotonic();
  const MonotonicTime deadline = now + limits_.handler_timeout;
  while (chunk.size() < count_max && !ready_.empty() && rate_.take(now)) {
    DeliveryPtr state = std::move(ready_.front());
    ready_.pop_front();
    if (!state->move_to(Phase::kTaken, {Phase::kHeld})) continue;
    wheel_.arm(*state, deadline);
    chunk.push_back(std::move(state));
  }
  running_count_ += chunk.empty() ? 0 : (counts_each() ? chunk.size() : 1);
  running_max_ = std::max(running_max_, running_count_);
  if (limits_.remote && limits_.batch_count_max > 0 && !chunk.empty()) {
    ++remote_batches_;
    const auto left = std::make_shared<std::size_t>(chunk.size());
    for (const DeliveryPtr& state : chunk)
      state->batch_left = left;
  }
  if (worker < chunks_.size()) chunks_[worker] = chunk;
}

bool Dispatcher::has_room_locked() const {
  if (!limits_.remote) return true;
  if (limits_.batch_count_max > 0) return remote_batches_ < limits_.concurrency;
  return running_count_ < static_cast<std::uint64_t>(limits_.concurrency);
}

void Dispatcher::leave_batches(std::span<const DeliveryPtr> states) {
  const std::lock_guard lock(mutex_);
  for (const DeliveryPtr& state : states) {
    if (state->batch_left != nullptr && --*state->batch_left == 0) --remote_batches_;
  }
}

bool Dispatcher::steal_locked(std::size_t thief, std::vector<DeliveryPtr>& chunk) {
  if (limits_.batch_count_max > 0 || limits_.remote) return false;
  for (std::size_t other = 0; other < chunks_.size(); ++other) {
    if (other == thief) continue;
    for (DeliveryPtr& state : chunks_[other]) {
      if (!state || !state->move_to(Phase::kHeld, {Phase::kTaken})) continue;
      wheel_.cancel(*state);
      ready_.push_back(state);
      state.reset();
    }
    if (!ready_.empty()) {
      take_locked(thief, 1, chunk);
      if (!chunk.empty()) return true;
    }
  }
  return false;
}

bool Dispatcher::take(std::size_t worker, std::vector<DeliveryPtr>& chunk) {
  chunk.clear();
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stopping_) return false;
    if (static_cast<std::int64_t>(worker) >= limits_.concurrency) {
      // Not where the others sleep: news of work must reach one who may take it.
      more_concurrency_.wait(lock);
      continue;
    }
    if (ready_.empty() && steal_locked(worker, chunk)) {
      ring_lane_if_late(lock);
      return true;
    }
    if (ready_.empty() || !has_room_locked()) {
      work_.wait(lock);
      continue;
    }
    take_locked(worker, chunk_size_locked(), chunk);
    if (!chunk.empty()) {
      ring_lane_if_late(lock);
      return true;
    }
    // Only the rate limit refuses while something is ready.
    clock_->wait_until(lock, work_, rate_.ready_at(clock_->monotonic()));
  }
}

void Dispatcher::try_take(std::size_t count_max, std::vector<DeliveryPtr>& chunk) {
  chunk.clear();
  std::unique_lock lock(mutex_);
  if (!stopping_) take_locked(chunks_.size(), count_max, chunk);
  ring_lane_if_late(lock);
}

void Dispatcher::hand_back(std::size_t worker, std::vector<DeliveryPtr>& acked, std::vector<Decided>& others,
                           std::size_t returned, Duration busy_for) {
  std::unique_lock lock(mutex_);
  if (worker < chunks_.size()) chunks_[worker].clear();
  running_count_ -= std::min<std::uint64_t>(running_count_, counts_each() ? returned : 1);
  if (limits_.remote && returned > 0) work_.notify_one();
  if (returned > 0) {
    const double each = static_cast<double>(busy_for.count()) * 1e-6 / static_cast<double>(returned);
    handler_seconds_ = handler_seconds_ <= 0 ? std::max(each, 1e-9) : handler_seconds_ * 0.8 + each * 0.2;
  }
  for (DeliveryPtr& state : acked) {
    wheel_.cancel(*state);
    // The next of the key may start at once: if this process dies before the acknowledgement is durable, both
    // come again, in order. Not so for the head of a blocked key, whose block must be lifted in the store
    // first; it may be there without being known here.
    if (state->lane != nullptr && !state->lane->blocked && !state->envelope().heads_key) {
      KeyLane& lane = leave_lane(*state);
      start_next(lane);
      erase_lane_if_idle(lane);
      decided_.acked.push_back(std::move(state));
    } else if (state->lane != nullptr) {
      decided_.others.push_back(Decided{std::move(state), Outcome::ack()});
    } else {
      decided_.acked.push_back(std::move(state));
    }
  }
  for (Decided& decided : others) {
    wheel_.cancel(*decided.state);
    decided_.others.push_back(std::move(decided));
  }
  ring_lane(lock);
}

void Dispatcher::decide(Decided decided) {
  std::unique_lock lock(mutex_);
  if (closed_) {  // nobody will collect it
    lock.unlock();
    if (decided.completion) decided.completion->finish(closed_before_settled());
    return;
  }
  wheel_.cancel(*decided.state);
  decided_.others.push_back(std::move(decided));
  ring_lane(lock);
}

void Dispatcher::ring_lane(std::unique_lock<std::mutex>& lock) {
  const bool first = !std::exchange(outcome_waiting_, true);
  const bool in_receive = lane_in_receive_;
  lock.unlock();
  if (!first) return;
  outcomes_.notify_all();
  if (in_receive && waker_) waker_();
}

void Dispatcher::ring_lane_if_late(std::unique_lock<std::mutex>& lock) {
  if (lane_until_ == MonotonicTime::min()) return;
  if (const auto next = wheel_.next(); next && *next < lane_until_) ring_lane(lock);
}

void Dispatcher::note_there(std::span<const DeliveryPtr> states) {
  Stops stops;
  {
    const std::lock_guard lock(mutex_);
    for (const DeliveryPtr& state : states) {
      state->is_there = true;
      // Asked to stop on its way.
      if (state->stop_asked) ask_to_stop(*state, stops);
    }
  }
  tell(stops);
}

void Dispatcher::tell(Stops& stops) const {
  for (std::stop_source& stop : stops.sources)
    stop.request_stop();
  for (DeliveryPtr& state : stops.remote)
    stop_listener_(std::move(state));
}

void Dispatcher::extend(DeliveryState& state, MonotonicTime until) {
  std::unique_lock lock(mutex_);
  if (state.phase.load() == Phase::kRunning) wheel_.arm(state, until);
  ring_lane_if_late(lock);
}

std::stop_token Dispatcher::stop_token(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (!state.stop) state.stop.emplace();
  if (state.stop_asked) state.stop->request_stop();
  return state.stop->get_token();
}

void Dispatcher::note_progress(DeliveryState& state, std::string note) {
  const std::lock_guard lock(mutex_);
  state.progress = std::move(note);
}

void Dispatcher::set_concurrency(std::int64_t concurrency) {
  {
    const std::lock_guard lock(mutex_);
    limits_.concurrency = concurrency;
    chunks_.resize(std::max(chunks_.size(), static_cast<std::size_t>(concurrency)));
    // Else new places stay empty until something of the old ones ends.
    window_ = std::max(window_, 2 * static_cast<std::size_t>(concurrency));
  }
  work_.notify_all();
  more_concurrency_.notify_all();
}

std::int64_t Dispatcher::concurrency() const {
  const std::lock_guard lock(mutex_);
  return limits_.concurrency;
}

void Dispatcher::stop_workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  more_concurrency_.notify_all();
  outcomes_.notify_all();
}

Dispatcher::LeftOver Dispatcher::close_all() {
  LeftOver left;
  std::map<std::uint64_t, std::shared_ptr<HandOut>> open;
  Collected decided;
  std::deque<DeliveryPtr> ready;
  Stops stops;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [number, hand_out] : open_) {
      for (std::size_t i = 0; i < hand_out->count; ++i) {
        DeliveryState& state = hand_out->states[i];
        wheel_.cancel(state);
        state.lane = nullptr;
        if (!state.move_to(Phase::kLost, {Phase::kHeld, Phase::kTaken, Phase::kRunning, Phase::kDecided}))
          continue;
        ask_to_stop(state, stops);
        ++left.count;
        left.bytes += state.envelope().payload.size();
      }
    }
    open.swap(open_);
    std::swap(decided, decided_);
    ready.swap(ready_);
    lanes_.clear();
    in_hand_ = 0;
    bytes_in_hand_ = 0;
  }
  tell(stops);
  for (Decided& late : decided.others) {
    if (late.lost) {  // nobody closes its book any more
      ++left.count;
      left.bytes += late.state->envelope().payload.size();
    }
    if (late.completion) late.completion->finish(closed_before_settled());
  }
  return left;
}

void Dispatcher::request_stop_of_running() {
  Stops stops;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [number, hand_out] : open_) {
      for (std::size_t i = 0; i < hand_out->count; ++i) {
        if (hand_out->states[i].phase.load() < Phase::kDecided) ask_to_stop(hand_out->states[i], stops);
      }
    }
  }
  tell(stops);
}

void Dispatcher::wait_for_outcomes(MonotonicTime deadline) {
  std::unique_lock lock(mutex_);
  if (outcome_waiting_ || stopping_) return;
  lane_until_ = std::min(deadline, wheel_.next().value_or(deadline));
  clock_->wait_until(lock, outcomes_, lane_until_);
  lane_until_ = MonotonicTime::min();
}

void Dispatcher::wake_lane() {
  std::unique_lock lock(mutex_);
  ring_lane(lock);
}

std::optional<MonotonicTime> Dispatcher::enter_receive(MonotonicTime deadline) {
  const std::lock_guard lock(mutex_);
  lane_in_receive_ = !outcome_waiting_;
  if (!lane_in_receive_) return std::nullopt;
  lane_until_ = std::min(deadline, wheel_.next().value_or(deadline));
  return lane_until_;
}

void Dispatcher::leave_receive() {
  const std::lock_guard lock(mutex_);
  lane_in_receive_ = false;
  lane_until_ = MonotonicTime::min();
}

Dispatcher::Gauge Dispatcher::gauge() const {
  const std::lock_guard lock(mutex_);
  return {in_hand_, running_count_, running_max_, stuck_, ready_.size()};
}

}  // namespace towline::engine
