#pragma once
// One delivery while the engine has it: what was handed out, how far it is, and its timer.
//
// The phase is the only thing that several threads change. Every change is a compare-and-set, so exactly one
// of the handler's return, a manual settlement, the timeout and the loss of the lease decides.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/spi/transport.hpp>

#include "base/timing_wheel.hpp"
#include "policy/decide.hpp"

namespace towline::engine {

class ConsumerCore;
struct KeyLane;

enum class Phase : std::uint8_t {
  kHeld,     ///< received, waits for a worker
  kTaken,    ///< in a worker's chunk, not started: may be taken back
  kRunning,  ///< its handler runs, or it waits for a manual settlement
  kDecided,  ///< an outcome is on its way to the store
  kDone,     ///< settled
  kLost      ///< the lease went to somebody else, or the consumer closed: nothing counts any more
};

/// Lets a handle outlive its consumer: the consumer clears `core` when it closes.
struct ConsumerLink {
  std::weak_ptr<ConsumerCore> core;
  std::string group;
};

struct HandOut;

class DeliveryState : public base::Timer {
 public:
  spi::Delivery delivery;
  HandOut* hand_out = nullptr;
  std::atomic<Phase> phase{Phase::kHeld};
  /// When its handler started; its time counts from here, not from the taking of its chunk.
  std::atomic<MonotonicTime> started_at{};
  /// The handler was started and has not returned; it may have been timed out meanwhile.
  std::atomic<bool> occupies_worker{false};
  /// Under the dispatcher's lock.
  KeyLane* lane = nullptr;
  /// Counted in KeyLane::returning; under the same lock.
  bool returning = false;
  std::optional<std::stop_source> stop;
  /// Its result does not count any more; remembered for a handler that asks for its token later.
  bool stop_asked = false;
  /// Handled elsewhere, and known there.
  bool is_there = false;
  /// Handled elsewhere as part of a batch: how many of it are not finished.
  std::shared_ptr<std::size_t> batch_left;
  std::string progress;
  bool counted_stuck = false;
  /// Set before the phase: a late call can tell that its time was up.
  std::atomic<bool> timed_out{false};
  /// The circuit breaker's period in which it was taken in.
  std::uint64_t breaker_period = 0;
  /// Acknowledged before its handler started (AckPolicy::kFirst): the lane only closes its book.
  bool settled_first = false;

  [[nodiscard]] const spi::Envelope& envelope() const noexcept { return *delivery.envelope; }
  /// One of the given phases -> `to`.
  bool move_to(Phase to, std::initializer_list<Phase> from) noexcept {
    for (Phase expected : from) {
      if (phase.compare_exchange_strong(expected, to, std::memory_order_acq_rel)) return true;
    }
    return false;
  }
};

/// Of the whole process, so that deliveries of two engines are told apart.
inline std::atomic<std::uint64_t>& numbers_given() noexcept {
  static std::atomic<std::uint64_t> given{0};
  return given;
}

/// All states of one receive() in one allocation; handles point into it. The dispatcher keeps it until all
/// are settled.
struct HandOut : std::enable_shared_from_this<HandOut> {
  HandOut(std::size_t size, std::shared_ptr<ConsumerLink> consumer)
      : states(std::make_unique<DeliveryState[]>(size)),
        count(size),
        open_count(size),
        link(std::move(consumer)) {}
  [[nodiscard]] std::uint64_t number_of(const DeliveryState& state) const noexcept {
    return first_delivery + static_cast<std::uint64_t>(&state - states.get());
  }
  std::unique_ptr<DeliveryState[]> states;
  const std::size_t count;
  std::size_t open_count;  ///< under the dispatcher's lock
  std::uint64_t number = 0;
  /// Delivery::number() of the first; the others follow.
  const std::uint64_t first_delivery = numbers_given().fetch_add(count) + 1;
  std::shared_ptr<ConsumerLink> link;
};

using DeliveryPtr = std::shared_ptr<DeliveryState>;

[[nodiscard]] inline DeliveryPtr self(DeliveryState& state) {
  return DeliveryPtr(state.hand_out->shared_from_this(), &state);
}

/// Somebody waits for a settlement to be durable.
class Completion {
 public:
  void finish(Result<void> result);
  [[nodiscard]] Result<void> wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Result<void>> result_;
};

/// An outcome on its way from a worker, a manual call or the timer to the lane.
struct Decided {
  DeliveryPtr state;
  Outcome outcome;
  std::optional<policy::Decision> intake = std::nullopt;  ///< decided before any handler could start
  bool passed_over = false;      ///< done with it without a handler: filtered, or handled before
  bool duplicate = false;        ///< with passed_over: the inbox has it
  bool lost = false;             ///< its lease is gone: only the books are left to do
  bool settled_already = false;  ///< by a handler transaction: only the books are left to do
  std::shared_ptr<Completion> completion = nullptr;
};

}  // namespace towline::engine
