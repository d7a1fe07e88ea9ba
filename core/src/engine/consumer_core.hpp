#pragma once
// One consumer: its subscription, its lane, its workers.
//
// The lane runs one round after another: collect outcomes -> plan settlements -> receive (which settles, then
// hands out) -> close the books -> take in what came -> admit it to the dispatcher. Workers only run
// handlers. In a simulation nobody has threads: step() is one round of the lane, take_one() and finish() play
// a worker.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/spi/transport.hpp>

#include "engine/context.hpp"
#include "engine/dispatcher.hpp"
#include "engine/settler.hpp"
#include "policy/circuit_breaker.hpp"
#include "policy/filter.hpp"
#include "policy/topic_pattern.hpp"

namespace towline::engine {

using RemoteHandlerPtr = std::shared_ptr<const RemoteHandler>;
using AnyHandler = std::variant<Handler, OutcomeHandler, BatchHandler, RemoteHandlerPtr>;

class ConsumerCore : public std::enable_shared_from_this<ConsumerCore> {
 public:
  /// Validates, subscribes. Errors: those of Engine::consume.
  static Result<std::shared_ptr<ConsumerCore>> create(std::shared_ptr<Context> context,
                                                      std::vector<std::string> patterns,
                                                      ConsumerOptions options, AnyHandler handler);
  ~ConsumerCore();

  /// Told of every dead letter that this consumer stored; set once, before start().
  void set_entry_listener(std::function<void(const DeadLetter&)> listener) {
    entry_listener_ = std::move(listener);
  }
  /// Told when a handler of this consumer asks to close it; set once, before start().
  void set_leave_listener(std::function<void()> listener) { leave_listener_ = std::move(listener); }
  /// Starts the lane and the workers, unless it was closed already.
  void start();
  /// One round of the lane. `wait_until`: how long it may wait for something to do.
  void step(MonotonicTime wait_until);
  /// For stepping without workers: the next delivery whose handler may start, marked as running.
  [[nodiscard]] std::optional<Delivery> take_one();
  /// Runs the consumer's own handler on it, or finishes it with the given outcome; a late one changes
  /// nothing.
  void run_one(Delivery& delivery);
  void finish(Delivery& delivery, Outcome outcome);
  /// Handlers that returned elsewhere; all of this consumer.
  void finish_remote(std::span<Finished* const> finished);
  [[nodiscard]] static DeliveryState* state_of(const Delivery& delivery) noexcept {
    return delivery.state_.get();
  }

  /// Keeper's thread: renews what the subscription holds.
  void renew();

  Result<void> pause();
  Result<void> resume();
  Result<void> drain(Duration timeout);
  Result<void> set_concurrency(std::int64_t concurrency);
  [[nodiscard]] ConsumerStatistics statistics() const;
  Result<std::uint64_t> close(std::optional<Duration> timeout);
  /// Closing waits no longer than this, whoever began it; a later one changes nothing.
  void hasten(MonotonicTime deadline);
  /// What a crash does: nothing is settled or released.
  void abandon();
  [[nodiscard]] bool closed() const noexcept { return closed_.load(); }
  [[nodiscard]] bool close_requested() const noexcept { return close_requested_.load(); }
  /// Whether nothing is in hand. For settle_down().
  [[nodiscard]] bool idle() const;
  [[nodiscard]] std::uint64_t rounds() const noexcept { return rounds_.load(); }

  // For Delivery.
  Result<void> settle(DeliveryState& state, Outcome outcome, bool wait);
  Result<void> extend(DeliveryState& state, Duration by);
  Result<void> progress(DeliveryState& state, std::string note);
  [[nodiscard]] std::stop_token stop_token(DeliveryState& state);
  Result<void> transaction(DeliveryState& state, const std::function<Result<void>(SqlTransaction&)>& body);

  [[nodiscard]] bool is_of(const Context& context) const noexcept { return context_.get() == &context; }
  [[nodiscard]] const std::string& group() const noexcept { return options_.group; }
  [[nodiscard]] const std::string& identity() const noexcept { return identity_; }

 private:
  ConsumerCore(std::shared_ptr<Context> context, std::vector<std::string> patterns, ConsumerOptions options,
               AnyHandler handler);
  Result<void> subscribe();
  Result<void> make_topics();
  void lane_main();
  void worker_main(std::size_t index);
  void run_chunk(std::size_t worker, std::vector<DeliveryPtr>& chunk);
  void run_batch(std::vector<DeliveryPtr>& chunk, std::vector<DeliveryPtr>& acked,
                 std::vector<Decided>& others);
  void run_remote(std::vector<DeliveryPtr>& chunk);
  [[nodiscard]] Outcome call(Delivery& delivery);
  void note_result(DeliveryPtr& state, Outcome outcome, std::vector<DeliveryPtr>& acked,
                   std::vector<Decided>& others);

  /// What may be received now.
  struct Intake {
    std::size_t count = 0, bytes = 0;
    bool heads_only = false;
  };
  [[nodiscard]] Intake intake(MonotonicTime now);
  [[nodiscard]] InFlight::Room engine_room();
  [[nodiscard]] std::size_t parking_credit(std::size_t credit) const;
  /// With too much parked nothing but heads comes in, and so nothing that would show that somebody released a
  /// key by hand: asks the store, now and then.
  void recount_parked(MonotonicTime now);
  /// Takes a place among the engine's for each; gives back those that find none, the last ones.
  void take_places(std::vector<spi::Delivery>& deliveries);
  void take_in(std::vector<spi::Delivery> deliveries);
  /// For the settler, before any handler; false: its lease was lost while it came in, and the book is closed
  /// on that way.
  [[nodiscard]] static bool claim(DeliveryState& state);
  [[nodiscard]] bool admit_one(DeliveryPtr& state, TimePoint now);
  [[nodiscard]] bool load_blocks(const spi::Delivery& delivery);
  /// Takes out of `fresh` what belongs to partitions whose blocks could not be read.
  [[nodiscard]] std::vector<DeliveryPtr> without_blocks(std::vector<DeliveryPtr>& fresh);
  /// Leaves in `fresh` what is acknowledged and may run.
  void ack_first(std::vector<DeliveryPtr>& fresh);
  void acknowledge_again(MonotonicTime now);
  void forget_dedup_ids(const std::vector<DeliveryPtr>& states);
  void admit(std::vector<DeliveryPtr> fresh);
  void drop_handled_before(std::vector<DeliveryPtr>& fresh);
  void feed_breaker(MonotonicTime now);
  /// Waits until the condition holds, which is looked at with `control_` held and after every round of the
  /// lane. False: the deadline came, which may come nearer meanwhile.
  template <typename Condition>
  bool wait_for_lane(const std::atomic<MonotonicTime>& deadline, Condition&& condition);
  void tell_watchers();
  /// The store has stopped, so what is in hand is never settled, and no handler runs that could end.
  [[nodiscard]] bool hopeless() const;
  [[nodiscard]] bool is_remote() const noexcept { return std::holds_alternative<RemoteHandlerPtr>(handler_); }
  Result<void> wait_idle(const std::atomic<MonotonicTime>& deadline);
  bool wait_idle_or_stuck();
  std::uint64_t shut_down(bool threaded);

  const std::shared_ptr<Context> context_;
  const std::vector<std::string> patterns_;
  const ConsumerOptions options_;
  const AnyHandler handler_;
  std::string identity_;
  std::shared_ptr<ConsumerLink> link_;
  policy::TopicPatternSet pattern_set_;
  std::optional<policy::Filter> filter_;
  policy::CircuitBreaker breaker_;
  Dispatcher dispatcher_;
  Settler settler_;
  std::unique_ptr<spi::Subscription> subscription_;
  std::thread lane_;
  std::vector<std::thread> workers_;
  mutable std::mutex control_;  ///< pause, close and thread bookkeeping
  std::condition_variable control_changed_;
  std::size_t workers_running_ = 0;
  bool lane_running_ = false;
  std::uint64_t stuck_at_close_ = 0;
  std::atomic<bool> paused_{false}, breaker_open_{false}, stopping_{false}, closed_{false},
      close_requested_{false};
  std::atomic<bool> closing_{false};
  std::atomic<MonotonicTime> close_deadline_{MonotonicTime::max()};
  std::atomic<std::uint64_t> received_{0}, rounds_{0};
  std::atomic<int> lane_watchers_{0};
  MonotonicTime retry_receive_at_{};
  MonotonicTime recount_at_{};
  /// AckPolicy::kFirst: an acknowledgement got no answer, so they may not run yet.
  std::vector<DeliveryPtr> unacked_first_;
  std::function<void(const DeadLetter&)> entry_listener_;
  std::function<void()> leave_listener_;
};

/// The consumer whose handler runs on the calling thread, or null.
[[nodiscard]] ConsumerCore* current_consumer() noexcept;

}  // namespace towline::engine
