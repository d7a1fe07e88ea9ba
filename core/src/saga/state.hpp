#pragma once
// The state of a saga: the fold of its log, and what follows from it.
//
//     running -> completed
//     running -> compensating -> compensated | stuck
//     running -> stuck                          (behind the pivot nothing is undone)
//
// What was started may have had its effect, whether it is known to have succeeded, to have failed, or nothing
// is known: so everything that was started is undone. First what has no outcome or failed, the last first;
// then what succeeded, in reverse order of success. In a choreography nothing is undone: what a failure leads
// to are steps as all others.
//
// Pure: (state, event) -> entries. Whoever drives it writes the entries and applies them, in this order: the
// entries of an outcome together with those that begin what comes next; then it runs what they begin.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <towline/result.hpp>
#include <towline/saga.hpp>

#include "saga/flow.hpp"
#include "saga/log.hpp"
#include "saga/shape.hpp"

namespace towline::saga {

using Status = SagaStatus;

using Phase = SagaPhase;

/// A call of one of the user's functions.
struct Call {
  std::size_t step = 0;  ///< number of the step, over all stages
  Phase phase = Phase::kExecute;
  std::uint32_t attempt = 1;
};

class State {
 public:
  /// Of a saga that has no entry yet. The shape, which was checked, outlives it.
  explicit State(const Shape& shape);
  /// The fold of a whole log. Errors: kConflict where an entry cannot follow those before it.
  [[nodiscard]] static Result<State> replay(const Shape& shape, std::span<const Entry> log);
  /// Errors: kConflict when the entry cannot follow; nothing was changed then.
  Result<void> apply(const Entry& entry);

  [[nodiscard]] Status status() const;
  /// What is to be run now: write the entries of begin() first.
  [[nodiscard]] std::vector<Call> ready(TimePoint now) const;
  /// When something is to be run that waits out its backoff; nullopt: nothing waits for a time.
  [[nodiscard]] std::optional<TimePoint> next_due() const;
  /// Calls that have begun and have no outcome.
  [[nodiscard]] std::vector<Call> running() const;
  /// Whether this call, in this attempt, has begun and has no outcome: else what comes of it is void.
  [[nodiscard]] bool is_running(const Call& call) const;
  /// Of one that runs: by when its outcome must be there, as its entry said.
  [[nodiscard]] std::optional<TimePoint> due_at(const Call& call) const;
  /// Of one that runs: its attempts before it that failed, or whose outcome nobody knows.
  [[nodiscard]] std::uint32_t failures(const Call& call) const;
  [[nodiscard]] std::optional<std::size_t> find(std::string_view step) const;

  [[nodiscard]] const Bytes& context() const noexcept { return context_; }
  /// Why it was cancelled or what failed first; empty: nothing did.
  [[nodiscard]] const std::string& cause() const noexcept { return cause_; }
  [[nodiscard]] const std::string& name_of_step(std::size_t step) const { return steps_[step].shape->name; }
  /// Of the step's success; nullopt: it is not known to have succeeded.
  [[nodiscard]] const std::optional<Bytes>& output(std::size_t step) const { return steps_[step].output; }
  /// Whether a step that runs beside others may not change the context.
  [[nodiscard]] bool is_parallel(std::size_t step) const { return steps_[step].is_parallel; }
  [[nodiscard]] bool is_flow() const noexcept { return flow_.has_value(); }
  /// Of a choreography: the payload of the event; nullptr: it was not heard.
  [[nodiscard]] const Bytes* heard(std::string_view event) const;
  /// What a step begins with.
  [[nodiscard]] const Bytes& input(std::size_t step) const;
  /// Of a choreography that was cancelled: the steps that would be ready, but are to fail instead.
  [[nodiscard]] std::vector<Call> unwanted() const;
  [[nodiscard]] std::size_t entry_count() const noexcept { return entry_count_; }
  /// The step that it is at: that runs, waits, is to be undone, or is stuck; of several the first. Empty:
  /// none.
  [[nodiscard]] std::string_view at() const;
  /// Steps that a person has to look at: a compensation that is stuck, or a step behind the pivot.
  [[nodiscard]] std::vector<std::string> stuck_steps() const;

  // ---- (state, event) -> entry -------------------------------------------------------------------

  [[nodiscard]] Entry begin(const Call& call) const;
  [[nodiscard]] Entry succeeded(const Call& call, std::optional<Bytes> output,
                                std::optional<Bytes> context) const;
  /// The attempt failed, or its time was up, or whoever ran it died. `retry_at` nullopt: it is not tried
  /// again.
  [[nodiscard]] Entry failed(const Call& call, std::optional<TimePoint> retry_at, std::string error) const;
  /// It is to be tried again then, and that is no failure.
  [[nodiscard]] Entry postponed(const Call& call, TimePoint retry_at, std::string why) const;
  /// Errors: kConflict when it is over or past its pivot: nothing can be undone any more.
  [[nodiscard]] Result<Entry> cancel(std::string why) const;
  /// Somebody else has published an event. Errors: kConflict when it was heard before, when the saga is over,
  /// or when nobody in it listens.
  [[nodiscard]] Result<Entry> hear(std::string_view event, Bytes payload) const;
  /// Of a stuck one. Errors: kConflict when it is not stuck; kNotFound: no such step is.
  [[nodiscard]] Result<Entry> retry(std::string_view step) const;
  [[nodiscard]] Result<Entry> skip(std::string_view step) const;
  [[nodiscard]] Result<Entry> force(Status status) const;

 private:
  enum class Execution : std::uint8_t { kIdle, kRunning, kWaiting, kDone, kGivenUp, kSkipped };
  enum class Undoing : std::uint8_t { kIdle, kRunning, kWaiting, kDone, kStuck, kSkipped };
  struct StepState {
    const Step* shape = nullptr;
    std::size_t stage = 0;
    bool is_parallel = false;
    Execution execution = Execution::kIdle;
    Undoing undoing = Undoing::kIdle;
    std::uint32_t attempt = 0;        ///< of what `execution` or `undoing` is at
    std::uint32_t postponed = 0;      ///< of these
    std::optional<TimePoint> due_at;  ///< kWaiting: when it goes on; kRunning: by when it must have ended
    std::uint64_t started = 0;        ///< number of the entry that began it first; 0: it never was
    std::uint64_t done = 0;           ///< number of the entry of its success
    std::optional<Bytes> output;
  };
  struct Heard {
    Bytes payload;
    std::uint64_t number = 0;  ///< of the entry that brought it
  };
  // state_of_flow.cpp:
  [[nodiscard]] const Heard* find_heard(std::string_view event) const;
  [[nodiscard]] Status status_of_flow() const;
  [[nodiscard]] bool is_triggered(const StepState& step) const;
  /// Finds the events that have come and whose turn it is, and what they are to those who await them.
  void spread();
  void decide(std::size_t step);
  [[nodiscard]] bool has_its_turn(const std::string& event) const;
  /// It is to run, runs, or is waited for.
  [[nodiscard]] bool is_pending(const StepState& step) const;
  [[nodiscard]] bool is_unwanted(std::size_t step) const;
  /// Steps of the way after a failure that have failed for good, and nobody listens to that.
  [[nodiscard]] bool is_stuck_in_flow(std::size_t step) const;
  [[nodiscard]] bool can_hear(std::string_view event) const;
  /// Of an awaited step: neither of its events has come, or what came is a failure that nobody has taken up.
  [[nodiscard]] bool is_undecided(std::size_t step) const;
  [[nodiscard]] std::string_view at_of_flow(Status status) const;
  void take_in(const std::string& event, const Bytes& payload);

  [[nodiscard]] bool is_failing() const;
  [[nodiscard]] bool is_past_pivot() const;
  [[nodiscard]] std::size_t current_stage() const;
  [[nodiscard]] static bool is_over(const StepState& step) noexcept {
    return step.execution == Execution::kDone || step.execution == Execution::kSkipped;
  }
  /// Steps that are to be undone, in the order of undoing, those that are undone already too.
  [[nodiscard]] std::vector<std::size_t> to_undo() const;
  /// Of them the first that is not undone yet; nullptr: there is none. The next may need what it leaves, so
  /// there is never a second one under way.
  [[nodiscard]] const StepState* next_to_undo() const;
  [[nodiscard]] bool is_ready(const Call& call) const;
  [[nodiscard]] Result<std::size_t> find_stuck(std::string_view step) const;
  [[nodiscard]] Result<Entry> of_stuck(Mark mark, std::string_view step) const;
  [[nodiscard]] Entry entry_of(Mark mark, const Call& call) const;
  [[nodiscard]] bool can_follow(const Entry& entry, const StepState* step) const;
  [[nodiscard]] bool could_begin(const Entry& entry, const StepState& step) const;
  /// Of the whole saga; of a step.
  void change(const Entry& entry);
  void change(const Entry& entry, StepState* step);
  /// A stuck step gets new attempts.
  void take_up(StepState& step, TimePoint at);

  const Shape* shape_;
  std::size_t pivot_stage_;
  std::optional<Flow> flow_;
  std::unordered_map<std::string, Heard> heard_;
  std::unordered_set<std::string> effective_;  ///< of heard_, those that somebody may act on
  std::vector<StepState> steps_;
  std::unordered_map<std::string_view, std::size_t> numbers_;
  bool begun_ = false;
  bool cancelled_ = false;
  std::optional<Status> forced_;
  Bytes context_;
  std::string cause_;
  std::uint64_t entry_count_ = 0;
};

}  // namespace towline::saga
