// The fold. What may follow is checked before anything is changed, so a damaged log is refused and never
// guessed at.

#include "saga/state.hpp"

#include <algorithm>
#include <utility>

#include "base/text.hpp"

namespace towline::saga {

namespace {

bool is_of_step(Mark mark) noexcept {
  switch (mark) {
    case Mark::kBegun:
    case Mark::kHeard:
    case Mark::kCancelled:
    case Mark::kForcedCompleted:
    case Mark::kForcedCompensated:
    case Mark::kNote:
      return false;
    default:
      return true;
  }
}

}  // namespace

State::State(const Shape& shape) : shape_(&shape), pivot_stage_(shape.pivot_stage()) {
  if (shape.is_flow()) flow_.emplace(shape);
  steps_.reserve(shape.step_count());
  for (std::size_t stage = 0; stage < shape.stages.size(); ++stage) {
    for (const Step& step : shape.stages[stage]) {
      StepState& state = steps_.emplace_back();
      state.shape = &step;
      state.stage = stage;
      state.is_parallel = shape.is_flow() || shape.stages[stage].size() > 1;
      numbers_.emplace(step.name, steps_.size() - 1);
    }
  }
}

Result<State> State::replay(const Shape& shape, std::span<const Entry> log) {
  State state(shape);
  for (const Entry& entry : log) {
    if (auto applied = state.apply(entry); !applied) return std::move(applied).error();
  }
  return state;
}

// ---- what follows from it -----------------------------------------------------------------------

bool State::is_past_pivot() const {
  return pivot_stage_ < shape_->stages.size() && current_stage() > pivot_stage_;
}

bool State::is_failing() const {
  if (flow_ || is_past_pivot()) return false;
  return cancelled_ || std::any_of(steps_.begin(), steps_.end(), [](const StepState& step) {
           return step.execution == Execution::kGivenUp;
         });
}

std::size_t State::current_stage() const {
  const auto open =
      std::find_if(steps_.begin(), steps_.end(), [](const StepState& step) { return !is_over(step); });
  return open == steps_.end() ? shape_->stages.size() : open->stage;
}

std::vector<std::size_t> State::to_undo() const {
  std::vector<std::size_t> steps;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i].started > 0 && steps_[i].execution != Execution::kSkipped && steps_[i].shape->compensates)
      steps.push_back(i);
  }
  std::sort(steps.begin(), steps.end(), [this](std::size_t a, std::size_t b) {
    const StepState &first = steps_[a], &second = steps_[b];
    if ((first.done == 0) != (second.done == 0)) return first.done == 0;
    return first.done == 0 ? first.started > second.started : first.done > second.done;
  });
  return steps;
}

Status State::status() const {
  if (forced_) return *forced_;
  if (flow_) return status_of_flow();
  const auto any = [this](auto&& is) { return std::any_of(steps_.begin(), steps_.end(), is); };
  if (!is_failing()) {
    if (current_stage() == shape_->stages.size()) return Status::kCompleted;
    const bool given_up = any([](const StepState& step) { return step.execution == Execution::kGivenUp; });
    const bool goes_on = any([](const StepState& step) {
      return step.execution == Execution::kRunning || step.execution == Execution::kWaiting;
    });
    return given_up && !goes_on ? Status::kStuck : Status::kRunning;
  }
  if (any([](const StepState& step) { return step.execution == Execution::kRunning; }))
    return Status::kRunning;
  if (next_to_undo() != nullptr) return Status::kCompensating;
  const bool stuck = any([](const StepState& step) { return step.undoing == Undoing::kStuck; });
  return stuck ? Status::kStuck : Status::kCompensated;
}

const State::StepState* State::next_to_undo() const {
  for (const std::size_t i : to_undo()) {
    const Undoing undoing = steps_[i].undoing;
    if (undoing != Undoing::kDone && undoing != Undoing::kSkipped && undoing != Undoing::kStuck)
      return &steps_[i];
  }
  return nullptr;
}

std::vector<Call> State::ready(TimePoint now) const {
  std::vector<Call> calls;
  const Status is = status();
  if (!begun_ || is_final(is)) return calls;
  if (is == Status::kCompensating && !flow_) {
    const StepState& step = *next_to_undo();
    const bool waits = step.undoing == Undoing::kWaiting && step.due_at > now;
    if (step.undoing != Undoing::kRunning && !waits) {
      calls.push_back({static_cast<std::size_t>(&step - steps_.data()), Phase::kCompensate,
                       step.undoing == Undoing::kIdle ? 1 : step.attempt + 1});
    }
    return calls;
  }
  if (is_failing()) return calls;  // what runs has to end first
  const std::size_t stage = current_stage();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const StepState& step = steps_[i];
    if (flow_ ? !is_triggered(step) || is_unwanted(i) : step.stage != stage) continue;
    const bool due = step.execution == Execution::kWaiting && step.due_at <= now;
    if (step.execution == Execution::kIdle || due) calls.push_back({i, Phase::kExecute, step.attempt + 1});
  }
  return calls;
}

std::optional<TimePoint> State::next_due() const {
  const Status is = status();
  if (is_final(is)) return std::nullopt;
  std::optional<TimePoint> next;
  const auto note = [&next](const std::optional<TimePoint>& due) {
    if (due) next = next ? std::min(*next, *due) : *due;
  };
  if (is == Status::kCompensating && !flow_) {
    note(next_to_undo()->due_at);
    return next;
  }
  for (const StepState& step : steps_) {
    if (step.execution == Execution::kRunning) note(step.due_at);
    if (step.execution == Execution::kWaiting && !is_failing()) note(step.due_at);
  }
  return next;
}

std::vector<Call> State::running() const {
  std::vector<Call> calls;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i].execution == Execution::kRunning) calls.push_back({i, Phase::kExecute, steps_[i].attempt});
    if (steps_[i].undoing == Undoing::kRunning) calls.push_back({i, Phase::kCompensate, steps_[i].attempt});
  }
  return calls;
}

bool State::is_running(const Call& call) const {
  const StepState& step = steps_[call.step];
  const bool runs = call.phase == Phase::kExecute ? step.execution == Execution::kRunning
                                                  : step.undoing == Undoing::kRunning;
  return runs && step.attempt == call.attempt;
}

std::optional<TimePoint> State::due_at(const Call& call) const { return steps_[call.step].due_at; }

std::uint32_t State::failures(const Call& call) const {
  const StepState& step = steps_[call.step];
  return call.attempt - 1 - std::min(call.attempt - 1, step.postponed);
}

std::optional<std::size_t> State::find(std::string_view step) const {
  const auto found = numbers_.find(step);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

std::string_view State::at() const {
  const Status is = status();
  if (is == Status::kCompleted || is == Status::kCompensated) return {};
  if (flow_) return at_of_flow(is);
  if (is == Status::kCompensating) return next_to_undo()->shape->name;
  const auto found = std::find_if(steps_.begin(), steps_.end(), [&](const StepState& step) {
    return is == Status::kStuck && step.undoing != Undoing::kIdle ? step.undoing == Undoing::kStuck
                                                                  : !is_over(step);
  });
  return found == steps_.end() ? std::string_view() : std::string_view(found->shape->name);
}

std::vector<std::string> State::stuck_steps() const {
  std::vector<std::string> names;
  for (const StepState& step : steps_) {
    const bool forward = step.execution == Execution::kGivenUp && is_past_pivot();
    const bool in_flow = flow_ && is_stuck_in_flow(static_cast<std::size_t>(&step - steps_.data()));
    if (forward || in_flow || step.undoing == Undoing::kStuck) names.push_back(step.shape->name);
  }
  return names;
}

// ---- (state, event) -> entry --------------------------------------------------------------------

Entry State::entry_of(Mark mark, const Call& call) const {
  Entry entry;
  entry.mark = mark;
  entry.step = steps_[call.step].shape->name;
  entry.attempt = call.attempt;
  return entry;
}

Entry State::begin(const Call& call) const {
  return entry_of(call.phase == Phase::kExecute ? Mark::kStarted : Mark::kCompensating, call);
}

Entry State::succeeded(const Call& call, std::optional<Bytes> output, std::optional<Bytes> context) const {
  if (call.phase == Phase::kCompensate) return entry_of(Mark::kCompensated, call);
  Entry entry = entry_of(Mark::kDone, call);
  entry.event = steps_[call.step].shape->on_success;
  entry.output = std::move(output);
  entry.context = std::move(context);
  return entry;
}

Entry State::failed(const Call& call, std::optional<TimePoint> retry_at, std::string error) const {
  const bool executes = call.phase == Phase::kExecute;
  const Mark again = executes ? Mark::kFailed : Mark::kCompensationFailed;
  const Mark never = executes ? Mark::kGivenUp : Mark::kCompensationStuck;
  Entry entry = entry_of(retry_at ? again : never, call);
  entry.due_at = retry_at;
  entry.error = std::move(error);
  if (!retry_at) entry.event = steps_[call.step].shape->on_failure;
  return entry;
}

Entry State::postponed(const Call& call, TimePoint retry_at, std::string why) const {
  Entry entry = entry_of(Mark::kPostponed, call);
  entry.due_at = retry_at;
  entry.error = std::move(why);
  return entry;
}

Result<Entry> State::cancel(std::string why) const {
  if (is_final(status())) {
    return Error{ErrorCode::kConflict, "the saga is " + std::string(name_of(status())) + " already"};
  }
  if (is_past_pivot()) {
    return Error{ErrorCode::kConflict,
                 "the saga is past its pivot '" + shape_->pivot + "'; from there it only goes forward"};
  }
  Entry entry;
  entry.mark = Mark::kCancelled;
  entry.error = std::move(why);
  return entry;
}

Result<std::size_t> State::find_stuck(std::string_view step) const {
  if (status() != Status::kStuck || forced_) {
    return Error{ErrorCode::kConflict, "the saga is " + std::string(name_of(status())) + ", not stuck"};
  }
  const auto stuck = stuck_steps();
  if (std::find(stuck.begin(), stuck.end(), step) == stuck.end()) {
    return Error{ErrorCode::kNotFound, "no step '" + base::escape(step, 64) + "' of the saga is stuck"};
  }
  return numbers_.at(step);
}

Result<Entry> State::of_stuck(Mark mark, std::string_view step) const {
  if (auto found = find_stuck(step); !found) return std::move(found).error();
  Entry entry;
  entry.mark = mark;
  entry.step = std::string(step);
  return entry;
}

Result<Entry> State::retry(std::string_view step) const { return of_stuck(Mark::kRetried, step); }
Result<Entry> State::skip(std::string_view step) const {
  auto entry = of_stuck(Mark::kSkipped, step);
  if (entry) entry->event = steps_[numbers_.at(step)].shape->on_success;
  return entry;
}

Result<Entry> State::force(Status status_wanted) const {
  if (status() != Status::kStuck) {
    return Error{ErrorCode::kConflict, "the saga is " + std::string(name_of(status())) + ", not stuck"};
  }
  if (status_wanted != Status::kCompleted && status_wanted != Status::kCompensated) {
    return Error{ErrorCode::kInvalidArgument, "a saga can be forced to be completed or compensated"};
  }
  Entry entry;
  entry.mark = status_wanted == Status::kCompleted ? Mark::kForcedCompleted : Mark::kForcedCompensated;
  return entry;
}

// ---- the fold -----------------------------------------------------------------------------------

bool State::is_ready(const Call& call) const {
  const auto calls = ready(TimePoint::max());
  return std::any_of(calls.begin(), calls.end(), [&call](const Call& one) {
    return one.step == call.step && one.phase == call.phase && one.attempt == call.attempt;
  });
}

/// When an event may be acted on was another rule once, and what it has led to stays in the logs.
bool State::could_begin(const Entry& entry, const StepState& step) const {
  const bool idle = step.execution == Execution::kIdle || step.execution == Execution::kWaiting;
  return flow_ && idle && entry.attempt == step.attempt + 1 && heard(step.shape->listen_to) != nullptr;
}

bool State::can_follow(const Entry& entry, const StepState* step) const {
  if (entry.mark == Mark::kBegun) return !begun_;
  if (!begun_) return false;
  const auto number = step == nullptr ? 0 : static_cast<std::size_t>(step - steps_.data());
  const bool runs =
      step != nullptr && step->execution == Execution::kRunning && step->attempt == entry.attempt;
  const bool undoes = step != nullptr && step->undoing == Undoing::kRunning && step->attempt == entry.attempt;
  switch (entry.mark) {
    case Mark::kBegun:
      return false;
    case Mark::kHeard:
      return flow_.has_value();
    case Mark::kStarted:
      return step != nullptr &&
             (is_ready({number, Phase::kExecute, entry.attempt}) || could_begin(entry, *step));
    case Mark::kCompensating:
      return step != nullptr && is_ready({number, Phase::kCompensate, entry.attempt});
    case Mark::kDone:
      return runs && !(step->is_parallel && entry.context);
    case Mark::kFailed:
      return runs && entry.due_at;
    case Mark::kPostponed:
      return (runs || undoes) && entry.due_at;
    case Mark::kGivenUp:
      return runs || (step != nullptr && step->attempt == entry.attempt && is_unwanted(number));
    case Mark::kCompensated:
      return undoes;
    case Mark::kCompensationFailed:
      return undoes && entry.due_at;
    case Mark::kCompensationStuck:
      return undoes;
    case Mark::kCancelled:
      return cancel({}).ok();
    case Mark::kSkipped:
    case Mark::kRetried:
      return find_stuck(entry.step).ok();
    case Mark::kForcedCompleted:
    case Mark::kForcedCompensated:
      return status() == Status::kStuck;
    case Mark::kNote:
      return true;
  }
  return false;
}

void State::change(const Entry& entry) {
  switch (entry.mark) {
    case Mark::kBegun:
      begun_ = true;
      context_ = entry.context.value_or(Bytes());
      if (flow_) take_in(shape_->begins_with, context_);
      break;
    case Mark::kHeard:
      take_in(entry.event, entry.context.value_or(Bytes()));
      break;
    case Mark::kCancelled:
      cancelled_ = true;
      if (cause_.empty()) cause_ = entry.error;
      break;
    case Mark::kForcedCompleted:
      forced_ = Status::kCompleted;
      break;
    case Mark::kForcedCompensated:
      forced_ = Status::kCompensated;
      break;
    default:
      break;
  }
}

void State::take_up(StepState& step, TimePoint at) {
  step.postponed = step.attempt;  // none of them counts any more
  step.due_at = at;
  if (flow_) heard_.erase(step.shape->on_failure);  // nobody listens to it; it may come again
  if (step.undoing == Undoing::kStuck) {
    step.undoing = Undoing::kWaiting;
  } else {
    step.execution = Execution::kWaiting;
  }
}

void State::change(const Entry& entry, StepState* step) {
  switch (entry.mark) {
    case Mark::kStarted:
      step->execution = Execution::kRunning;
      step->attempt = entry.attempt;
      step->due_at = entry.due_at;
      if (step->started == 0) step->started = entry_count_;
      break;
    case Mark::kDone:
      step->execution = Execution::kDone;
      step->done = entry_count_;
      step->output = entry.output.value_or(Bytes());
      if (entry.context) context_ = *entry.context;
      if (flow_) take_in(step->shape->on_success, *step->output);
      break;
    case Mark::kFailed:
      step->execution = Execution::kWaiting;
      step->due_at = entry.due_at;
      break;
    case Mark::kPostponed:
      if (step->undoing == Undoing::kRunning) {
        step->undoing = Undoing::kWaiting;
      } else {
        step->execution = Execution::kWaiting;
      }
      step->due_at = entry.due_at;
      ++step->postponed;
      break;
    case Mark::kGivenUp:
      step->execution = Execution::kGivenUp;
      if (cause_.empty()) cause_ = entry.step + ": " + entry.error;
      if (flow_) take_in(step->shape->on_failure, Bytes(input(*find(entry.step))));
      break;
    case Mark::kCompensating:
      if (step->undoing == Undoing::kIdle) step->postponed = 0;
      step->undoing = Undoing::kRunning;
      step->attempt = entry.attempt;
      step->due_at = entry.due_at;
      break;
    case Mark::kCompensated:
      step->undoing = Undoing::kDone;
      break;
    case Mark::kCompensationFailed:
      step->undoing = Undoing::kWaiting;
      step->due_at = entry.due_at;
      break;
    case Mark::kCompensationStuck:
      step->undoing = Undoing::kStuck;
      break;
    case Mark::kSkipped:
      if (step->undoing == Undoing::kStuck) {
        step->undoing = Undoing::kSkipped;
      } else {
        step->execution = Execution::kSkipped;
      }
      if (flow_) take_in(step->shape->on_success, {});
      break;
    case Mark::kRetried:
      take_up(*step, entry.at);
      break;
    default:
      break;
  }
}

Result<void> State::apply(const Entry& entry) {
  const auto number = find(entry.step);
  StepState* step = number ? &steps_[*number] : nullptr;
  // Of the whole saga, or of one of its steps: never of something else.
  const bool fits = is_of_step(entry.mark) ? step != nullptr : entry.step.empty();
  if (!fits || !can_follow(entry, step)) {
    return Error{ErrorCode::kConflict, "entry " + std::to_string(entry_count_ + 1) + " of the saga's log, '" +
                                           std::string(name_of(entry.mark)) + "' of step '" +
                                           base::escape(entry.step, 64) + "', cannot follow those before it"};
  }
  ++entry_count_;
  step == nullptr ? change(entry) : change(entry, step);
  return {};
}

}  // namespace towline::saga
