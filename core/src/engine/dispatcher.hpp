#pragma once
// Dispatcher: the place where the lane and the workers of one consumer meet.
//
// The lane admits deliveries; workers take them in small chunks, run handlers and hand outcomes back; the
// lane collects the outcomes for the settler. Order per key is kept here: of one key at most one delivery is
// with a worker, the others wait in its KeyLane, and a blocked key lets only its head through. One mutex; it
// is never held over a handler, a store call or a wait for anything but work.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <towline/options.hpp>
#include <towline/spi/store.hpp>

#include "base/timing_wheel.hpp"
#include "engine/delivery_state.hpp"
#include "policy/rate_limit.hpp"

namespace towline::engine {

/// What the dispatcher knows of one order key. Exists while anything of the key is held, running, waiting or
/// blocked.
struct KeyLane {
  std::string name;  ///< topic, partition and key; the map's key
  std::string topic;
  std::string key;
  std::uint32_t partition = 0;
  std::uint64_t epoch = 0;
  /// The one delivery of the key that is ready, runs, or keeps the key until its outcome is stored.
  const DeliveryState* holder = nullptr;
  bool blocked = false;  ///< a KeyBlock exists in the store
  bool held = false;
  std::uint64_t parked_count = 0;
  std::size_t attached = 0;  ///< deliveries that point here
  /// Deliveries on their way back to the transport. They come again before all that is behind them, so what
  /// comes in meanwhile has to go back as well.
  std::size_t returning = 0;
  std::deque<DeliveryPtr> waiting;
};

class Dispatcher {
 public:
  struct Limits {
    std::int64_t concurrency = 1;
    std::int64_t prefetch_count = 0;   ///< 0: adaptive
    std::int64_t batch_count_max = 0;  ///< > 0: batch handlers
    bool manual = false;               ///< returning decides nothing: deliveries may outlive their handlers
    bool remote = false;  ///< handled elsewhere: one worker hands out as many as there is room for
    Order order = Order::kUnordered;
    Duration handler_timeout{};
    std::int64_t rate_per_second = 0;
  };

  Dispatcher(std::shared_ptr<spi::Clock> clock, Limits limits);

  // ---- lane -------------------------------------------------------------------------------------

  /// Opens the books of what was received, and finds the lanes of those that have an order to keep.
  void attach(std::span<const DeliveryPtr> fresh);
  /// This one gets no handler. If it heads its blocked key it holds the key like a running one; else it
  /// leaves its lane.
  void pass(DeliveryState& state);
  /// Takes in what may be handled. Returns those that must be parked because their key is blocked, in order.
  [[nodiscard]] std::vector<DeliveryPtr> admit(std::vector<DeliveryPtr> fresh);
  /// Those that admit() did not take in because something before them in their key goes back; they must
  /// follow.
  [[nodiscard]] std::vector<DeliveryPtr> take_followers();
  /// It goes back to the transport; its key waits for it until release_lane().
  void give_back(DeliveryState& state);
  struct Collected {
    std::vector<DeliveryPtr> acked;
    std::vector<Decided> others;
  };
  /// Everything decided since the last call; timers that ran out are among it.
  [[nodiscard]] Collected collect(MonotonicTime now);
  /// How many more deliveries may be received now.
  [[nodiscard]] std::size_t credit() const;
  /// Payload bytes in hand.
  [[nodiscard]] std::size_t bytes_in_hand() const;
  /// The lease of this one is gone: it leaves its key. It comes again, so what waits behind it must go back
  /// as well and is returned, in order.
  [[nodiscard]] std::vector<DeliveryPtr> drop(DeliveryState& state);
  /// When the lane must look again at the latest.
  [[nodiscard]] std::optional<MonotonicTime> next_timer() const;
  /// The books of these are closed and their credit is free. `clean`: none of them failed.
  void finished(std::span<const DeliveryPtr> states, bool clean);

  /// Order keys. The head of the key failed and waits: what waits behind it must be parked and is returned.
  [[nodiscard]] std::vector<DeliveryPtr> block(DeliveryState& head, bool held);
  /// The delivery is settled for good: the next of its key may start. True when the key is blocked, and then
  /// the store's block must be unparked; call unparked() when that is done.
  [[nodiscard]] bool is_blocked(const DeliveryState& state) const;
  [[nodiscard]] bool is_held(const DeliveryState& state) const;
  void release_lane(DeliveryState& state);
  /// What waits behind this delivery, to be released with it so that order is kept.
  [[nodiscard]] std::vector<DeliveryPtr> take_waiting(DeliveryState& state);
  /// Something of this partition was lost: its blocks are loaded again with the next delivery.
  void doubt(std::string_view topic, std::uint32_t partition);
  /// `block` is what the store says now: nullopt when the key is free again.
  void unparked(DeliveryState& state, const std::optional<spi::KeyBlock>& block);
  /// The store knows no block of this key: what was believed is wrong.
  void unblock(std::string_view topic, std::uint32_t partition, const std::string& key);
  /// It is to be parked: it leaves its key.
  void leave_key(DeliveryState& state);
  /// It is parked.
  void count_parked(std::string_view topic, std::uint32_t partition, const std::string& key);
  /// A partition came into this consumer's hands, or what is known of its keys is in doubt: forget that,
  /// except that a handler may still run and others wait for it, and install the blocks that the store holds.
  /// Returns what must be parked by them.
  [[nodiscard]] std::vector<DeliveryPtr> install_blocks(std::string_view topic, std::uint32_t partition,
                                                        std::uint64_t epoch,
                                                        const std::vector<spi::KeyBlock>& blocks);
  /// It was to be parked, but its key is not blocked any more: it takes its turn.
  void admit_again(const DeliveryPtr& state);
  [[nodiscard]] std::uint64_t epoch_of(std::string_view topic, std::uint32_t partition) const;
  /// The partitions of which a key is blocked, each once.
  struct PartitionName {
    std::string topic;
    std::uint32_t partition = 0;
    std::uint64_t epoch = 0;
  };
  [[nodiscard]] std::vector<PartitionName> blocked_partitions() const;
  [[nodiscard]] std::uint64_t blocked_key_count() const;
  [[nodiscard]] std::uint64_t parked_total() const;

  /// Takes back everything that no worker has started: for pausing by the breaker and for shutting down.
  [[nodiscard]] std::vector<DeliveryPtr> take_back();
  /// Stops the handlers of these leases; their results will be refused by the store. Returns how many were
  /// unfinished.
  std::size_t mark_lost(std::span<const std::uint64_t> leases);

  // ---- workers ----------------------------------------------------------------------------------

  /// Waits for work and fills `chunk`. False when the worker must end.
  [[nodiscard]] bool take(std::size_t worker, std::vector<DeliveryPtr>& chunk);
  /// Never waits; for stepping without workers.
  void try_take(std::size_t count_max, std::vector<DeliveryPtr>& chunk);
  /// These, which are handled elsewhere, have returned: batches of which they were the last make room.
  void leave_batches(std::span<const DeliveryPtr> states);
  /// Hands back what a worker finished. Everything in `acked` and `others` must be in phase kDecided.
  /// `returned` handlers have returned, in `busy_for` altogether.
  void hand_back(std::size_t worker, std::vector<DeliveryPtr>& acked, std::vector<Decided>& others,
                 std::size_t returned, Duration busy_for);
  /// From a manual settlement.
  void decide(Decided decided);
  /// They have been handed to where they are handled: from now on they can be told to stop.
  void note_there(std::span<const DeliveryPtr> states);
  void extend(DeliveryState& state, MonotonicTime until);
  /// A handler returned whose result does not count any more.
  void returned_late(DeliveryState& state);
  [[nodiscard]] std::stop_token stop_token(DeliveryState& state);
  void note_progress(DeliveryState& state, std::string note);

  void set_concurrency(std::int64_t concurrency);
  [[nodiscard]] std::int64_t concurrency() const;
  void stop_workers();
  /// After the consumer closed: disarms every timer and lets go of what is left.
  struct LeftOver {
    std::size_t count = 0, bytes = 0;
  };
  LeftOver close_all();
  void request_stop_of_running();
  /// The lane waits here when it has no credit; outcomes, timers (those too that are armed meanwhile) and
  /// wake() end it.
  void wait_for_outcomes(MonotonicTime deadline);
  void wake_lane();
  /// Called whenever the lane may have to leave its receive(); set once, before any worker runs.
  void set_waker(std::function<void()> waker) { waker_ = std::move(waker); }
  /// Told of every remote delivery whose result does not count any more; set once, before any worker runs.
  void set_stop_listener(std::function<void(DeliveryPtr)> listener) { stop_listener_ = std::move(listener); }
  /// How long receive() may wait: until the next timer at the latest, and not at all (nothing) when outcomes
  /// wait already.
  [[nodiscard]] std::optional<MonotonicTime> enter_receive(MonotonicTime deadline);
  void leave_receive();

  struct Gauge {
    std::uint64_t in_hand = 0, running = 0, running_max = 0, stuck = 0, ready = 0;
  };
  [[nodiscard]] Gauge gauge() const;

 private:
  [[nodiscard]] bool has_order(const DeliveryState& state) const;
  KeyLane& lane_of(DeliveryState& state);
  static void set_lane(DeliveryState& state, KeyLane& lane);
  /// Returns the lane, which the caller must hand to erase_lane_if_idle in the end.
  static KeyLane& leave_lane(DeliveryState& state);
  void erase_lane_if_idle(KeyLane& lane);
  void forget_blocks(std::string_view topic, std::uint32_t partition, std::uint64_t epoch);
  void start_next(KeyLane& lane);
  void take_locked(std::size_t worker, std::size_t count_max, std::vector<DeliveryPtr>& chunk);
  /// Whether each delivery counts as running, and not each worker.
  [[nodiscard]] bool counts_each() const noexcept { return limits_.remote || limits_.batch_count_max > 0; }
  [[nodiscard]] bool has_room_locked() const;
  bool steal_locked(std::size_t thief, std::vector<DeliveryPtr>& chunk);
  [[nodiscard]] std::size_t chunk_size_locked() const;
  [[nodiscard]] std::size_t capacity_locked() const;
  void ring_lane(std::unique_lock<std::mutex>& lock);
  /// The lane waits, and a timer was armed that runs out before it would look.
  void ring_lane_if_late(std::unique_lock<std::mutex>& lock);
  void fire_timer(DeliveryState& state, MonotonicTime now);
  /// Whom to tell that their result does not count any more. Told with no lock held: what listens is the
  /// user's, and may call the delivery.
  struct Stops {
    std::vector<std::stop_source> sources;
    std::vector<DeliveryPtr> remote;
  };
  void ask_to_stop(DeliveryState& state, Stops& stops) const;
  void tell(Stops& stops) const;

  const std::shared_ptr<spi::Clock> clock_;
  Limits limits_;
  std::function<void()> waker_;
  std::function<void(DeliveryPtr)> stop_listener_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable more_concurrency_;  ///< those sleep here who are beyond it
  std::condition_variable outcomes_;
  std::deque<DeliveryPtr> ready_;
  std::vector<DeliveryPtr> followers_;
  std::unordered_map<std::string, std::unique_ptr<KeyLane>> lanes_;
  std::unordered_map<std::string, std::uint64_t> epochs_;
  std::vector<std::vector<DeliveryPtr>> chunks_;            ///< per worker: what it took, for stealing back
  std::map<std::uint64_t, std::shared_ptr<HandOut>> open_;  ///< by HandOut::number
  Collected decided_;
  Stops stops_;  ///< of the timers that ran out in the present collect()
  base::TimingWheel wheel_;
  policy::RateLimit rate_;
  std::size_t bytes_in_hand_ = 0;
  std::uint64_t in_hand_ = 0, running_count_ = 0, running_max_ = 0, stuck_ = 0;
  std::int64_t remote_batches_ = 0;  ///< that are handled elsewhere
  std::uint64_t parked_total_ = 0, blocked_keys_ = 0;
  double handler_seconds_ = 0;  ///< moving average of one handler run
  std::uint64_t hand_outs_ = 0;
  std::size_t window_ = 0;  ///< adaptive prefetch
  bool stopping_ = false, closed_ = false;
  bool lane_in_receive_ = false;
  MonotonicTime lane_until_ = MonotonicTime::min();  ///< until when the lane waits
  bool outcome_waiting_ = false;
};

}  // namespace towline::engine
