// What a state is where the saga is a choreography. All of it follows from which events were heard: each
// counts once, whoever published it.

#include <algorithm>

#include "base/text.hpp"
#include "saga/state.hpp"

namespace towline::saga {

const State::Heard* State::find_heard(std::string_view event) const {
  const auto found = heard_.find(std::string(event));
  return found == heard_.end() ? nullptr : &found->second;
}

const Bytes* State::heard(std::string_view event) const {
  const Heard* found = find_heard(event);
  return found == nullptr ? nullptr : &found->payload;
}

const Bytes& State::input(std::size_t step) const {
  const Bytes* payload = flow_ ? heard(steps_[step].shape->listen_to) : nullptr;
  return payload == nullptr ? context_ : *payload;
}

bool State::is_triggered(const StepState& step) const { return effective_.contains(step.shape->listen_to); }

/// What is awaited comes after the event that it follows, whenever it is heard: or what undoes a step would
/// run before that step, or beside it.
bool State::has_its_turn(const std::string& event) const {
  bool awaited = false;
  for (const StepState& step : steps_) {
    const Step& shape = *step.shape;
    const bool succeeds = shape.on_success == event;
    if (!succeeds && shape.on_failure != event) continue;
    if (shape.is_awaited) {
      if (is_triggered(step)) return true;
      awaited = true;
    } else if (succeeds ? is_over(step) : step.execution == Execution::kGivenUp) {
      return true;
    }
  }
  return !awaited;
}

void State::spread() {
  for (bool more = true; more;) {
    more = false;
    for (const auto& [event, heard] : heard_) {
      if (!effective_.contains(event) && has_its_turn(event)) more = effective_.insert(event).second;
    }
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i].shape->is_awaited && is_triggered(steps_[i])) decide(i);
  }
}

void State::decide(std::size_t number) {
  StepState& step = steps_[number];
  const bool failed = step.execution == Execution::kGivenUp;
  if (is_over(step) || (failed && !is_stuck_in_flow(number))) return;
  const Heard* success = find_heard(step.shape->on_success);
  const Heard* failure = failed ? nullptr : find_heard(step.shape->on_failure);
  if (success != nullptr && (failure == nullptr || success->number < failure->number)) {
    step.execution = Execution::kDone;
    step.done = entry_count_;
    step.output = success->payload;
  } else if (failure != nullptr) {
    step.execution = Execution::kGivenUp;
    if (cause_.empty()) cause_ = step.shape->name + ": '" + step.shape->on_failure + "' was heard";
  }
}

bool State::is_pending(const StepState& step) const {
  const bool open = step.execution == Execution::kIdle || step.execution == Execution::kRunning ||
                    step.execution == Execution::kWaiting;
  return open && is_triggered(step);
}

bool State::is_unwanted(std::size_t step) const {
  const StepState& one = steps_[step];
  // Others may be at what is awaited already.
  return cancelled_ && flow_ && flow_->is_forward(step) && !one.shape->is_awaited && is_pending(one) &&
         one.execution != Execution::kRunning;
}

bool State::is_stuck_in_flow(std::size_t step) const {
  const StepState& one = steps_[step];
  return one.execution == Execution::kGivenUp && !flow_->is_forward(step) &&
         !flow_->listens_to(one.shape->on_failure);
}

std::vector<Call> State::unwanted() const {
  std::vector<Call> calls;
  if (!flow_ || is_final(status())) return calls;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (is_unwanted(i)) calls.push_back({i, Phase::kExecute, steps_[i].attempt});
  }
  return calls;
}

Status State::status_of_flow() const {
  if (std::any_of(steps_.begin(), steps_.end(), [this](const StepState& step) { return is_pending(step); }))
    return cause_.empty() ? Status::kRunning : Status::kCompensating;
  bool has_ended = true;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (is_stuck_in_flow(i)) return Status::kStuck;
    if (flow_->is_end(i) && !is_over(steps_[i])) has_ended = false;
  }
  return has_ended ? Status::kCompleted : Status::kCompensated;
}

std::string_view State::at_of_flow(Status status) const {
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (status == Status::kStuck ? is_stuck_in_flow(i) : is_pending(steps_[i])) return steps_[i].shape->name;
  }
  return {};
}

bool State::is_undecided(std::size_t step) const {
  const StepState& one = steps_[step];
  if (one.execution == Execution::kGivenUp) return is_stuck_in_flow(step);
  return !is_over(one) && heard(one.shape->on_success) == nullptr && heard(one.shape->on_failure) == nullptr;
}

bool State::can_hear(std::string_view event) const {
  if (!flow_ || !begun_ || heard(event) != nullptr) return false;
  // What is stuck goes on when a person has helped.
  const Status is = status();
  if (is == Status::kCompleted || is == Status::kCompensated || forced_) return false;
  bool awaited = false, listened = false;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = *steps_[i].shape;
    listened = listened || step.listen_to == event;
    if (!step.is_awaited || (step.on_success != event && step.on_failure != event)) continue;
    if (is_undecided(i)) return true;
    awaited = true;
  }
  // Of the two events of an awaited step only the first counts: they lead to opposite ways.
  return listened && !awaited;
}

Result<Entry> State::hear(std::string_view event, Bytes payload) const {
  if (!can_hear(event)) {
    return Error{ErrorCode::kConflict, "the saga is " + std::string(name_of(status())) +
                                           ", and does not listen to '" + base::escape(event, 64) + "' now"};
  }
  Entry entry;
  entry.mark = Mark::kHeard;
  entry.event = std::string(event);
  entry.context = std::move(payload);
  return entry;
}

void State::take_in(const std::string& event, const Bytes& payload) {
  if (!event.empty()) heard_.try_emplace(event, Heard{payload, entry_count_});
  spread();
}

}  // namespace towline::saga
