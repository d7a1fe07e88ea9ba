#pragma once
// EventFollower: a durable reader of events under a name.
//
// Its cursor says whose turn it is and how far everything was handled; it changes by compare-and-set, so one
// who lost his turn cannot move it. Order of events: get the turn -> read behind the checkpoint -> handle ->
// move the checkpoint. A crash anywhere repeats what was behind the checkpoint. The turn is renewed by the
// engine's keeper, and so is the checkpoint when all that was read was passed over.
//
// Events are read until there are none, then the store says when there may be more: both are reads of the
// same order, so there is no seam between what was and what comes.

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <towline/event_store.hpp>
#include <towline/spi/store.hpp>

#include "engine/context.hpp"
#include "policy/topic_pattern.hpp"

namespace towline::engine {

class EventFollower : public std::enable_shared_from_this<EventFollower> {
 public:
  /// What becomes of a batch: writes that are committed with the checkpoint. After an error or an exception
  /// the same batch comes again, later.
  using Work = std::function<Result<std::vector<spi::Write>>(std::span<const RecordedEvent>)>;

  /// `work` empty: the owner receives. `fill`: a batch may wait for `interval` to fill. Errors: kInvalidName,
  /// kInvalidConfig, kInvalidTopic, kTopologyMismatch, those of the store.
  static Result<std::shared_ptr<EventFollower>> create(std::shared_ptr<Context> context,
                                                       EventSubscriptionOptions options, Work work,
                                                       bool fill);
  ~EventFollower();
  EventFollower(const EventFollower&) = delete;
  EventFollower& operator=(const EventFollower&) = delete;

  /// Begins to call `work` on a thread, if there is any.
  void start();
  [[nodiscard]] Result<std::vector<RecordedEvent>> receive(std::size_t count_max, Duration timeout);
  Result<void> checkpoint(std::uint64_t place);
  [[nodiscard]] EventSubscriptionStatistics statistics() const;
  /// Waits for `work` until then (real time), and gives the turn back. True: it has not returned. Inside it:
  /// at once.
  bool close(MonotonicTime deadline);
  /// Whoever closes it waits no longer than until then.
  void hasten(MonotonicTime deadline);
  [[nodiscard]] bool ended() const noexcept { return ended_.load(); }
  /// Its owner is gone: somebody who may wait will close it. Never waits itself.
  void leave();
  [[nodiscard]] bool left() const noexcept { return left_.load(); }
  /// Told of leave(); set once, before start().
  void set_leave_listener(std::function<void()> listener) { leave_listener_ = std::move(listener); }
  [[nodiscard]] Duration drain_timeout() const noexcept { return context_->options.drain_timeout; }

  /// Of the keeper: keeps the turn.
  void renew();
  /// Whether there is something to work on now.
  [[nodiscard]] bool busy();
  /// One round: takes a batch, waiting for it until then, and works on it. For its thread, or a simulation.
  void step(MonotonicTime deadline);
  /// A crash: gives nothing back.
  void abandon();

 private:
  EventFollower(std::shared_ptr<Context> context, EventSubscriptionOptions options,
                policy::TopicPatternSet types, Work work, bool fill);
  void main();
  [[nodiscard]] bool runs();
  /// Gives the turn away when the handler has returned that close() left behind.
  void give_back_late();
  [[nodiscard]] Result<void> check_open() const;
  [[nodiscard]] Result<std::vector<RecordedEvent>> take(std::size_t count_max, MonotonicTime deadline);
  void fill_up(std::vector<RecordedEvent>& events);
  [[nodiscard]] Result<std::vector<spi::Write>> call_work(std::span<const RecordedEvent> events) const;
  void pause_until(MonotonicTime until);

  // With `mutex_` held:
  /// False: it is another one's turn. When it was not its own before, it begins at the checkpoint again.
  [[nodiscard]] Result<bool> have_turn();
  /// The place of the newest event, and the position up to which nothing comes behind it.
  [[nodiscard]] Result<spi::StreamSlice> look();
  /// What is wanted of the next events; empty: there is none up to the position `*seen` of the store.
  [[nodiscard]] Result<std::vector<RecordedEvent>> read_on(std::size_t count_max, std::uint64_t* seen);
  [[nodiscard]] Result<void> write_cursor(std::uint64_t place, const std::string& owner,
                                          std::vector<spi::Write> with);
  [[nodiscard]] Result<void> move_checkpoint(std::uint64_t place, std::vector<spi::Write> with);
  /// Reads what became of the cursor. kLeaseLost.
  [[nodiscard]] Result<void> find_again();
  void note_failure(const Error& error);
  /// How far nothing is left to be handled.
  [[nodiscard]] std::uint64_t handled_place() const noexcept;
  [[nodiscard]] std::uint64_t place_of(const RecordedEvent& event) const noexcept {
    return options_.stream.empty() ? event.position : event.version;
  }

  const std::shared_ptr<Context> context_;
  const EventSubscriptionOptions options_;
  const policy::TopicPatternSet types_;
  const Work work_;
  const bool fill_;
  const std::string identity_;
  std::stop_source stop_;

  mutable std::mutex mutex_;
  spi::EventCursor cursor_;
  bool has_turn_ = false;
  MonotonicTime turn_until_{};
  bool late_turn_ = false;  ///< the turn is still its own, and nothing counts any more
  /// The outcome of the last write is not known.
  bool unsure_ = false;
  /// What was received is to come again.
  bool restart_ = false;
  std::uint64_t received_ = 0;   ///< everything up to here was given out or passed over
  std::uint64_t given_ = 0;      ///< the last that was given out
  std::uint64_t caught_up_ = 0;  ///< the position of the store up to which nothing is left to read
  MonotonicTime not_before_{};   ///< a failure is waited out
  Duration backoff_{0};
  base::SeededRng rng_;
  EventSubscriptionStatistics statistics_;

  std::mutex life_mutex_;
  std::condition_variable life_changed_;
  std::thread thread_;
  bool runs_ = false;  ///< the thread has not come to its end
  MonotonicTime close_until_ = MonotonicTime::max();  ///< the nearest of those who close it
  std::atomic<bool> working_{false};
  std::atomic<bool> left_{false};
  std::atomic<bool> ended_{false};
  std::function<void()> leave_listener_;
};

}  // namespace towline::engine
