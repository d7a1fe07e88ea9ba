// Dispatcher: see the header for what it keeps apart. What to know when changing it: a delivery is "in hand"
// from admit() or from being returned for parking until finished(); its KeyLane is held from the moment it is
// ready until release_lane(), block() or the loss of its partition; and a worker's chunk may be taken back
// only while its phase is kTaken.

#include "engine/dispatcher.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/text.hpp"

namespace towline::engine {
namespace {

/// The work a consumer holds ahead of its handlers, in time: enough to hide a commit, little enough that
/// another process gets its share.
constexpr double kPrefetchSeconds = 0.05;
constexpr std::size_t kWindowMax = 4000;

std::string partition_name(std::string_view topic, std::uint32_t partition) {
  std::string name(topic);
  name.push_back('\0');
  name += std::to_string(partition);
  return name;
}

std::string order_name(std::string_view topic, std::uint32_t partition, Order order, const std::string& key) {
  std::string name = partition_name(topic, partition);
  if (order == Order::kKeyOrdered) {
    name.push_back('\0');
    name += key;
  }
  return name;
}

}  // namespace

Dispatcher::Dispatcher(std::shared_ptr<spi::Clock> clock, Limits limits)
    : clock_(std::move(clock)),
      limits_(limits),
      wheel_(clock_->monotonic()),
      rate_(static_cast<std::uint64_t>(limits.rate_per_second)) {
  chunks_.resize(static_cast<std::size_t>(limits_.concurrency));
  window_ = static_cast<std::size_t>(limits_.concurrency) * 2;
}

// ---- lane ---------------------------------------------------------------------------------------

void Dispatcher::attach(std::span<const DeliveryPtr> fresh) {
  const std::lock_guard lock(mutex_);
  in_hand_ += fresh.size();
  for (const DeliveryPtr& state : fresh)
    bytes_in_hand_ += state->envelope().payload.size();
  if (!fresh.empty()) {
    HandOut& hand_out = *fresh.front()->hand_out;
    hand_out.number = ++hand_outs_;
    open_.emplace(hand_out.number, hand_out.shared_from_this());
  }
  for (const DeliveryPtr& state : fresh) {
    if (has_order(*state)) set_lane(*state, lane_of(*state));
  }
}

void Dispatcher::pass(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (state.lane == nullptr) return;
  if (state.lane->blocked && state.envelope().heads_key) {
    if (state.lane->holder == nullptr) state.lane->holder = &state;
  } else {
    erase_lane_if_idle(leave_lane(state));
  }
}

void Dispatcher::give_back(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (state.returning || !has_order(state)) return;
  if (state.lane == nullptr) set_lane(state, lane_of(state));
  ++state.lane->returning;
  state.returning = true;
}

std::vector<DeliveryPtr> Dispatcher::admit(std::vector<DeliveryPtr> fresh) {
  std::vector<DeliveryPtr> to_park;
  std::unique_lock lock(mutex_);
  for (DeliveryPtr& state : fresh) {
    if (state->phase.load() != Phase::kHeld) continue;  // its lease was lost while it came in
    if (state->lane == nullptr) {
      ready_.push_back(std::move(state));
      continue;
    }
    KeyLane& lane = *state->lane;
    if (lane.returning > 0) {
      state->phase.store(Phase::kDecided);
      followers_.push_back(std::move(state));
    } else if (lane.blocked && !state->envelope().heads_key) {
      state->phase.store(Phase::kDecided);
      to_park.push_back(std::move(state));
    } else if (lane.holder != nullptr || !lane.waiting.empty()) {
      lane.waiting.push_back(std::move(state));
    } else {
      lane.holder = state.get();
      ready_.push_back(std::move(state));
    }
  }
  lock.unlock();
  work_.notify_all();
  return to_park;
}

std::vector<DeliveryPtr> Dispatcher::take_followers() {
  const std::lock_guard lock(mutex_);
  return std::exchange(followers_, {});
}

Dispatcher::Collected Dispatcher::collect(MonotonicTime now) {
  std::unique_lock lock(mutex_);
  wheel_.advance(now, [&](base::Timer& timer) { fire_timer(static_cast<DeliveryState&>(timer), now); });
  outcome_waiting_ = false;
  Collected collected = std::exchange(decided_, {});
  Stops stops = std::exchange(stops_, {});
  lock.unlock();
  tell(stops);
  return collected;
}

void Dispatcher::ask_to_stop(DeliveryState& state, Stops& stops) const {
  state.stop_asked = true;
  if (state.stop) stops.sources.push_back(*state.stop);
  const bool somebody_has_it = limits_.manual || state.occupies_worker.load();
  if (stop_listener_ && state.is_there && somebody_has_it) stops.remote.push_back(self(state));
}

void Dispatcher::fire_timer(DeliveryState& state, MonotonicTime now) {
  const Phase phase = state.phase.load(std::memory_order_acquire);
  if (phase == Phase::kTaken) {  // its turn has not come: its time has not begun
    wheel_.arm(state, now + limits_.handler_timeout);
    return;
  }
  // Behind a slow one of its chunk it was taken long before it started.
  const MonotonicTime until = state.started_at.load(std::memory_order_relaxed) + limits_.handler_timeout;
  if (phase == Phase::kRunning && now < until) {
    wheel_.arm(state, until);
    return;
  }
  state.timed_out.store(true, std::memory_order_release);
  if (!state.move_to(Phase::kDecided, {Phase::kRunning})) return;
  if (state.occupies_worker.load(std::memory_order_acquire)) {
    state.counted_stuck = true;
    ++stuck_;
  }
  ask_to_stop(state, stops_);
  decided_.others.push_back(
      {self(state), Outcome::fail({"HandlerTimeout",
                                   "the handler did not return within handler_timeout, " +
                                       base::duration_text(limits_.handler_timeout),
                                   {}})});
}

std::size_t Dispatcher::capacity_locked() const {
  const auto concurrency = static_cast<std::size_t>(limits_.concurrency);
  if (limits_.prefetch_count > 0) return concurrency + static_cast<std::size_t>(limits_.prefetch_count);
  if (limits_.batch_count_max > 0) return 2 * static_cast<std::size_t>(limits_.batch_count_max) * concurrency;
  return window_;
}

std::size_t Dispatcher::credit() const {
  const std::lock_guard lock(mutex_);
  const std::size_t capacity = capacity_locked();
  return in_hand_ >= capacity ? 0 : capacity - in_hand_;
}

std::optional<MonotonicTime> Dispatcher::next_timer() const {
  const std::lock_guard lock(mutex_);
  return wheel_.next();
}

void Dispatcher::finished(std::span<const DeliveryPtr> states, bool clean) {
  const std::lock_guard lock(mutex_);
  (void)TOWLINE_ASSERT(in_hand_ >= states.size());
  in_hand_ -= states.size();
  for (const DeliveryPtr& state : states)
    bytes_in_hand_ -= state->envelope().payload.size();
  for (const DeliveryPtr& state : states) {
    wheel_.cancel(*state);
    (void)TOWLINE_ASSERT(state->hand_out->open_count > 0);
    if (--state->hand_out->open_count == 0) open_.erase(state->hand_out->number);
  }
  // Start slow, widen after clean rounds: a death then charges few, and slow handlers leave work to other
  // processes.
  const auto concurrency = static_cast<std::size_t>(limits_.concurrency);
  if (clean && !states.empty()) {
    const double ahead =
        handler_seconds_ > 0 ? kPrefetchSeconds / handler_seconds_ : static_cast<double>(kWindowMax);
    const auto target = std::clamp(static_cast<std::size_t>(ahead * static_cast<double>(concurrency)),
                                   2 * concurrency, std::max(kWindowMax, 2 * concurrency));
    window_ = std::min(target, std::max(window_, 2 * concurrency) * 2);
  }
}

// ---- order keys ---------------------------------------------------------------------------------

bool Dispatcher::has_order(const DeliveryState& state) const {
  return limits_.order == Order::kPartitionOrdered ||
         (limits_.order == Order::kKeyOrdered && state.envelope().key.has_value());
}

KeyLane& Dispatcher::lane_of(DeliveryState& state) {
  const spi::Envelope& envelope = state.envelope();
  std::string name =
      order_name(envelope.topic, envelope.partition, limits_.order, envelope.key.value_or(std::string()));
  auto [it, fresh] = lanes_.try_emplace(std::move(name));
  if (fresh) {
    it->second = std::make_unique<KeyLane>();
    KeyLane& lane = *it->second;
    lane.name = it->first;
    lane.topic = envelope.topic;
    lane.partition = envelope.partition;
    if (limits_.order == Order::kKeyOrdered) lane.key = *envelope.key;
    lane.epoch = state.delivery.epoch;
  }
  return *it->second;
}

void Dispatcher::set_lane(DeliveryState& state, KeyLane& lane) {
  state.lane = &lane;
  ++lane.attached;
}

KeyLane& Dispatcher::leave_lane(DeliveryState& state) {
  KeyLane& lane = *std::exchange(state.lane, nullptr);
  if (lane.holder == &state) lane.holder = nullptr;
  if (std::exchange(state.returning, false)) --lane.returning;
  --lane.attached;
  return lane;
}

void Dispatcher::erase_lane_if_idle(KeyLane& lane) {
  if (lane.holder != nullptr || lane.blocked || lane.attached > 0) return;
  lanes_.erase(std::string(lane.name));
}

void Dispatcher::start_next(KeyLane& lane) {
  if (lane.holder != nullptr || lane.waiting.empty()) return;
  lane.holder = lane.waiting.front().get();
  ready_.push_back(std::move(lane.waiting.front()));
  lane.waiting.pop_front();
  work_.notify_one();
}

std::vector<DeliveryPtr> Dispatcher::block(DeliveryState& head, bool held) {
  const std::lock_guard lock(mutex_);
  std::vector<DeliveryPtr> to_park;
  if (head.lane == nullptr) return to_park;
  KeyLane& lane = leave_lane(head);
  if (!lane.blocked) ++blocked_keys_;
  lane.blocked = true;
  lane.held = held;
  std::deque<DeliveryPtr> stay;
  for (DeliveryPtr& waiting : lane.waiting) {
    // A further head was let through by hand; parked again it would come after those that it goes before.
    if (waiting->envelope().heads_key) {
      stay.push_back(std::move(waiting));
    } else if (waiting->move_to(Phase::kDecided, {Phase::kHeld})) {
      to_park.push_back(std::move(waiting));
    }
  }
  lane.waiting = std::move(stay);
  start_next(lane);
  return to_park;
}

std::vector<DeliveryPtr> Dispatcher::take_waiting(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  std::vector<DeliveryPtr> behind;
  if (state.lane == nullptr) return behind;
  KeyLane& lane = *state.lane;
  for (DeliveryPtr& waiting : lane.waiting) {
    leave_lane(*waiting);
    if (waiting->move_to(Phase::kDecided, {Phase::kHeld})) behind.push_back(std::move(waiting));
  }
  lane.waiting.clear();
  return behind;
}

void Dispatcher::doubt(std::string_view topic, std::uint32_t partition) {
  const std::lock_guard lock(mutex_);
  epochs_.erase(partition_name(topic, partition));
}

bool Dispatcher::is_blocked(const DeliveryState& state) const {
  const std::lock_guard lock(mutex_);
  return state.lane != nullptr && state.lane->blocked;
}

bool Dispatcher::is_held(const DeliveryState& state) const {
  const std::lock_guard lock(mutex_);
  return state.lane != nullptr && state.lane->held;
}

void Dispatcher::release_lane(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (state.lane == nullptr) return;
  KeyLane& lane = leave_lane(state);
  start_next(lane);
  erase_lane_if_idle(lane);
}

void Dispatcher::unparked(DeliveryState& state, const std::optional<spi::KeyBlock>& block) {
  const std::lock_guard lock(mutex_);
  if (state.lane == nullptr) return;
  KeyLane& lane = leave_lane(state);
  parked_total_ -= lane.parked_count;
  lane.parked_count = block ? block->parked_count : 0;
  parked_total_ += lane.parked_count;
  lane.held = block && block->held;
  if (!block && lane.blocked) {
    lane.blocked = false;
    --blocked_keys_;
  }
  // Also while the block stands: a key that was released by hand has several heads, and they wait for each
  // other here.
  start_next(lane);
  erase_lane_if_idle(lane);
}

void Dispatcher::unblock(std::string_view topic, std::uint32_t partition, const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto it = lanes_.find(order_name(topic, partition, limits_.order, key));
  if (it == lanes_.end() || !it->second->blocked) return;
  KeyLane& lane = *it->second;
  lane.blocked = lane.held = false;
  --blocked_keys_;
  parked_total_ -= lane.parked_count;
  lane.parked_count = 0;
  erase_lane_if_idle(lane);
}

void Dispatcher::leave_key(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (state.lane != nullptr) erase_lane_if_idle(leave_lane(state));
}

void Dispatcher::count_parked(std::string_view topic, std::uint32_t partition, const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto it = lanes_.find(order_name(topic, partition, limits_.order, key));
  if (it == lanes_.end() || !it->second->blocked) return;
  ++it->second->parked_count;
  ++parked_total_;
}

void Dispatcher::forget_blocks(std::string_view topic, std::uint32_t partition, std::uint64_t epoch) {
  for (auto it = lanes_.begin(); it != lanes_.end();) {
    KeyLane& lane = *it->second;
    if (lane.topic != topic || lane.partition != partition) {
      ++it;
      continue;
    }
    if (lane.blocked) --blocked_keys_;
    parked_total_ -= lane.parked_count;
    lane.blocked = lane.held = false;
    lane.parked_count = 0;
    lane.epoch = epoch;
    // What waits here from before the partition changed hands has lost its lease: the transport hands it out
    // again. But its book is open, so it goes through the store, which says so.
    std::erase_if(lane.waiting, [&](const DeliveryPtr& state) {
      if (state->delivery.epoch == epoch) return false;
      leave_lane(*state);
      if (state->move_to(Phase::kDecided, {Phase::kHeld}))
        decided_.others.push_back(Decided{state, Outcome{Outcome::Kind::kRelease}});
      return true;
    });
    it = lane.attached > 0 ? std::next(it) : lanes_.erase(it);
  }
}

std::vector<DeliveryPtr> Dispatcher::install_blocks(std::string_view topic, std::uint32_t partition,
                                                    std::uint64_t epoch,
                                                    const std::vector<spi::KeyBlock>& blocks) {
  const std::lock_guard lock(mutex_);
  epochs_[partition_name(topic, partition)] = epoch;
  forget_blocks(topic, partition, epoch);
  std::vector<DeliveryPtr> to_park;
  for (const spi::KeyBlock& block : blocks) {
    auto [it, fresh] = lanes_.try_emplace(order_name(topic, partition, limits_.order, block.key));
    if (fresh) it->second = std::make_unique<KeyLane>();
    KeyLane& lane = *it->second;
    lane.name = it->first;
    lane.topic = std::string(topic);
    lane.key = block.key;
    lane.partition = partition;
    lane.epoch = epoch;
    lane.blocked = true;
    lane.held = block.held;
    lane.parked_count = block.parked_count;
    parked_total_ += block.parked_count;
    ++blocked_keys_;
    std::erase_if(lane.waiting, [&](DeliveryPtr& state) {
      if (state->envelope().heads_key || !state->move_to(Phase::kDecided, {Phase::kHeld})) return false;
      to_park.push_back(state);
      return true;
    });
  }
  return to_park;
}

void Dispatcher::admit_again(const DeliveryPtr& state) {
  std::unique_lock lock(mutex_);
  if (!state->move_to(Phase::kHeld, {Phase::kDecided})) return;
  KeyLane& lane = lane_of(*state);
  set_lane(*state, lane);
  if (lane.holder != nullptr || !lane.waiting.empty()) {
    lane.waiting.push_back(state);
    return;
  }
  lane.holder = state.get();
  ready_.push_back(state);
  lock.unlock();
  work_.notify_all();
}

std::uint64_t Dispatcher::epoch_of(std::string_view topic, std::uint32_t partition) const {
  const std::lock_guard lock(mutex_);
  const auto it = epochs_.find(partition_name(topic, partition));
  return it == epochs_.end() ? 0 : it->second;
}

std::vector<Dispatcher::PartitionName> Dispatcher::blocked_partitions() const {
  const std::lock_guard lock(mutex_);
  std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> found;
  for (const auto& [name, lane] : lanes_) {
    if (lane->blocked) found[{lane->topic, lane->partition}] = lane->epoch;
  }
  std::vector<PartitionName> all;
  for (const auto& [name, epoch] : found)
    all.push_back({name.first, name.second, epoch});
  return all;
}

std::uint64_t Dispatcher::blocked_key_count() const {
  const std::lock_guard lock(mutex_);
  return blocked_keys_;
}

std::uint64_t Dispatcher::parked_total() const {
  const std::lock_guard lock(mutex_);
  return parked_total_;
}

std::vector<DeliveryPtr> Dispatcher::take_back() {
  const std::lock_guard lock(mutex_);
  std::vector<DeliveryPtr> back;
  const auto take = [&](DeliveryPtr& state) {
    if (state && state->move_to(Phase::kDecided, {Phase::kHeld, Phase::kTaken})) {
      wheel_.cancel(*state);
      back.push_back(std::move(state));
    }
  };
  for (auto& chunk : chunks_) {
    for (DeliveryPtr& state : chunk)
      take(state);
  }
  for (DeliveryPtr& state : ready_)
    take(state);
  ready_.clear();
  // A key whose running delivery goes on keeps its order because everything behind it goes back as well.
  for (auto& [name, lane] : lanes_) {
    for (DeliveryPtr& state : lane->waiting) {
      leave_lane(*state);
      take(state);
    }
    lane->waiting.clear();
  }
  // In the order of their handing-out, whatever the order of the keys in memory.
  std::sort(back.begin(), back.end(), [](const DeliveryPtr& a, const DeliveryPtr& b) {
    const spi::Token& x = a->delivery.token;
    const spi::Token& y = b->delivery.token;
    return x.lease != y.lease ? x.lease < y.lease : x.index < y.index;
  });
  for (const DeliveryPtr& state : back) {
    if (state->lane == nullptr) continue;
    erase_lane_if_idle(leave_lane(*state));
  }
  return back;
}

std::size_t Dispatcher::mark_lost(std::span<const std::uint64_t> leases) {
  std::unique_lock lock(mutex_);
  Stops stops;
  std::size_t count = 0;
  for (auto& [number, hand_out] : open_) {
    for (std::size_t i = 0; i < hand_out->count; ++i) {
      DeliveryState& state = hand_out->states[i];
      // What was received at once may be under several leases, each of which is lost on its own.
      if (std::find(leases.begin(), leases.end(), state.delivery.token.lease) == leases.end()) continue;
      if (!state.move_to(Phase::kLost, {Phase::kHeld, Phase::kTaken, Phase::kRunning})) continue;
      ask_to_stop(state, stops);
      wheel_.cancel(state);
      Decided decided{self(state), Outcome{Outcome::Kind::kRelease}};
      decided.lost = true;
      decided_.others.push_back(std::move(decided));
      ++count;
    }
  }
  if (count == 0) return 0;
  ring_lane(lock);
  tell(stops);
  return count;
}

std::vector<DeliveryPtr> Dispatcher::drop(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  std::vector<DeliveryPtr> behind;
  if (state.lane == nullptr) return behind;
  KeyLane& lane = leave_lane(state);
  auto from = std::find_if(lane.waiting.begin(), lane.waiting.end(),
                           [&](const DeliveryPtr& waiting) { return waiting.get() == &state; });
  // The one that holds the key is before all that wait.
  from = from == lane.waiting.end() ? lane.waiting.begin() : lane.waiting.erase(from);
  for (auto it = from; it != lane.waiting.end(); ++it) {
    leave_lane(**it);
    if ((*it)->move_to(Phase::kDecided, {Phase::kHeld})) behind.push_back(std::move(*it));
  }
  lane.waiting.erase(from, lane.waiting.end());
  erase_lane_if_idle(lane);
  return behind;
}

std::size_t Dispatcher::bytes_in_hand() const {
  const std::lock_guard lock(mutex_);
  return bytes_in_hand_;
}

void Dispatcher::returned_late(DeliveryState& state) {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(state.counted_stuck, false)) return;
  --stuck_;
}

}  // namespace towline::engine
