#pragma once
// SagaRunner: drives the sagas of one definition.
//
// It consumes the messages that wake them, in order per saga, so a saga is in one hand at a time; the message
// is held, and its lease renewed, as long as calls of the saga run here. One lane does everything but the
// calls themselves: it reads the saga, decides, and commits what was decided for all sagas together. What a
// call came to is written together with what begins next, and only then that begins. When nothing of a saga
// runs here any more, the unit that says so wakes it again when it goes on, and the message is acknowledged.
//
//     message -> [read, decide] -> commit -> calls -> [decide] -> commit -> ... -> acknowledged
//
// A crash between a commit and the acknowledgement gives the message to somebody again who finds nothing to
// do. A call that has begun and whose process is gone counts as a failed attempt. Who lost the saga learns it
// from the log: the attempt that it ran is not the one that is under way.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <towline/consumer.hpp>
#include <towline/saga.hpp>

#include "engine/consumer_core.hpp"
#include "engine/saga_records.hpp"

namespace towline::engine {

class SagaWorkers;

/// What a SagaCall refers to.
struct SagaCallState {
  std::weak_ptr<SagaRunner> runner;
  std::uint64_t number = 0;
  std::string type, id, step, key, cause;
  saga::Call call;
  Bytes context;
  std::vector<std::pair<std::string, Bytes>> outputs;
  bool may_change_context = false;
  std::size_t payload_bytes_max = 0;
  std::stop_source stop;
  /// When it began, on the engine's clock; 0: it waits for a thread of this process.
  std::atomic<std::int64_t> begun_us{0};
  std::atomic<bool> finished{false};

  // Of the thread that handles it:
  std::optional<Bytes> new_context, output;
  std::vector<spi::Write> published;
};

class SagaRunner : public std::enable_shared_from_this<SagaRunner> {
 public:
  /// `shape` was made of the definition.
  SagaRunner(std::shared_ptr<SagaRecords> records, SagaDefinition definition, saga::Shape shape,
             SagaRemote remote);
  ~SagaRunner();
  SagaRunner(const SagaRunner&) = delete;
  SagaRunner& operator=(const SagaRunner&) = delete;

  /// What consumes for it.
  [[nodiscard]] ConsumerOptions consumer_options() const;
  [[nodiscard]] RemoteHandler handler();
  /// What listens for it, if it is a choreography: its topics, and what becomes of an event.
  [[nodiscard]] std::vector<std::string> listens_to() const;
  [[nodiscard]] ConsumerOptions listener_options() const;
  [[nodiscard]] OutcomeHandler listener();
  /// Who runs its calls in this process, if somebody does. Once, before start().
  void set_workers(std::shared_ptr<SagaWorkers> workers) { workers_ = std::move(workers); }
  void set_consumer(std::shared_ptr<ConsumerCore> consumer) { consumer_ = std::move(consumer); }
  void set_listener(std::shared_ptr<ConsumerCore> listener) { listener_ = std::move(listener); }
  [[nodiscard]] std::string topic() const { return saga_topic(definition_.type, definition_.version); }

  void start();
  /// One round; waits until then for something to do.
  void step(MonotonicTime until);
  /// Any thread: the call has returned, or will never begin.
  static void finish(SagaCall& call, Outcome outcome);
  /// Whoever runs calls says so when one begins: its time counts from here.
  static void begin(SagaCall& call);
  [[nodiscard]] static SagaCallState* state_of(const SagaCall& call) noexcept { return call.state_.get(); }

  /// Begins no more calls: what goes on is left to others.
  void retire();
  /// Retires, waits for the calls until then (real time), and gives everything back. Returns how many calls
  /// have not returned. Inside one of them it only retires: the engine closes it later. Idempotent.
  std::uint64_t close(MonotonicTime deadline);
  /// A crash: gives nothing back.
  void abandon();
  [[nodiscard]] bool closed() const noexcept { return closed_.load(); }
  /// Whether the calling thread runs a call of it, or is its lane.
  [[nodiscard]] bool is_inside() const noexcept;
  [[nodiscard]] Result<spi::Write> as_write(Message message) {
    return records_->as_write(std::move(message));
  }
  [[nodiscard]] SagaRunnerStatistics statistics() const;
  /// Whether something is in hand.
  [[nodiscard]] bool busy() const;
  [[nodiscard]] Context& context() const noexcept { return *context_; }

 private:
  struct Returned {
    SagaCall call;
    Outcome outcome;
  };
  /// A saga in hand.
  struct Hand {
    Delivery delivery;
    std::optional<SagaRecord> record;  ///< nullopt: to be read
    bool fresh = true;                 ///< calls of it that run are not ours
    std::map<std::uint64_t, SagaCall> running;
    std::vector<Returned> returned;  ///< not written yet
    /// Of a unit whose fate is not known: its first entry, and what it begins here.
    MessageId unsure = {};
    std::vector<saga::Call> unsure_begins = {};
    /// The unit was refused when the log had this version.
    std::optional<Error> conflict = std::nullopt;
    std::uint64_t conflict_version = 0;
    MonotonicTime look_at = MonotonicTime::max();  ///< something comes due while calls of it run
    MonotonicTime not_before{};
    Duration backoff{0};
  };
  /// What is to be done with a saga.
  struct Plan {
    std::string id;
    SagaRecord after;
    spi::Unit unit;
    std::vector<saga::Call> begins;  ///< here
    bool leaves = false;             ///< nothing of it runs here afterwards
    bool only_wakes = false;
    MessageId first_entry;
  };
  struct Inbox {
    std::vector<Delivery> arrived;
    std::vector<Returned> returned;
    std::vector<std::uint64_t> stopped;  ///< numbers of deliveries
    std::vector<std::string> heard;      ///< sagas whose log has a new event
    [[nodiscard]] bool empty() const noexcept {
      return arrived.empty() && returned.empty() && stopped.empty() && heard.empty();
    }
  };

  void main();
  void stop();
  [[nodiscard]] Inbox wait_for_work(MonotonicTime until);
  void arrive(Delivery delivery);
  [[nodiscard]] Outcome hear(const Delivery& event);
  [[nodiscard]] Outcome wait_for_saga(const Delivery& event) const;
  /// Whether one of the events of an awaited step may be on its way to the listener since before `due`: then
  /// what is missing is perhaps only not heard yet, as after a time in which nobody ran.
  [[nodiscard]] bool may_be_unheard(const SagaStep& step, TimePoint due);
  void look_at_backlog(TimePoint now);
  void look_again(const std::string& id);
  void note_returned(Returned returned);
  void drop(std::uint64_t delivery_number);
  void end_overdue(MonotonicTime now);
  /// The next time at which something is overdue or not held back any more.
  [[nodiscard]] MonotonicTime next_time() const;
  [[nodiscard]] bool read(const std::string& id, Hand& hand);
  [[nodiscard]] std::optional<Plan> plan(const std::string& id, Hand& hand);
  void carry_out(std::vector<Plan>& plans);
  void committed(Plan& plan);
  /// The log says that they have begun.
  void dispatch(const std::string& id, Hand& hand, std::span<const saga::Call> begun);
  void put_off(Hand& hand, const Error& error);
  void leave(const std::string& id, Outcome outcome);

  const std::shared_ptr<SagaRecords> records_;
  const std::shared_ptr<Context> context_;
  const SagaDefinition definition_;
  const saga::Shape shape_;
  const std::string fingerprint_;
  const SagaRemote remote_;
  std::vector<const SagaStep*> steps_;  ///< by number
  const Duration early_delay_max_;
  const TimePoint made_at_;
  std::shared_ptr<SagaWorkers> workers_;
  std::shared_ptr<ConsumerCore> consumer_, listener_;
  base::SeededRng rng_;

  // Of the lane:
  std::map<std::string, Hand> hands_;
  std::set<std::string> due_;  ///< of them, what there is to decide about
  std::unordered_map<std::uint64_t, std::string> by_call_, by_delivery_;
  /// Topics that have something for the listener; nullopt: not known. As of when, and when to look again.
  std::optional<std::set<std::string>> backlog_;
  TimePoint backlog_as_of_{};
  MonotonicTime backlog_at_ = MonotonicTime::min();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Inbox inbox_;
  SagaRunnerStatistics statistics_;
  /// Begun and not finished, also those that do not count any more.
  std::atomic<std::uint64_t> open_calls_{0};
  std::atomic<bool> retired_{false};
  bool stopping_ = false;
  std::thread thread_;

  std::mutex close_mutex_;
  std::uint64_t stuck_ = 0;
  std::atomic<bool> closed_{false};
};

}  // namespace towline::engine
