// What a state is where the saga is a choreography. All of it follows from which events were heard: each
// counts once, whoever published it.

#include <algorithm>

#include "base/text.hpp"
#include "saga/state.hpp"

namespace towline::saga {

const Bytes* State::heard(std::string_view event) const {
  const auto found = heard_.find(std::string(event));
  return found == heard_.end() ? nullptr : &found->second;
}

const Bytes& State::input(std::size_t step) const {
  const Bytes* payload = flow_ ? heard(steps_[step].shape->listen_to) : nullptr;
  return payload == nullptr ? context_ : *payload;
}

bool State::is_triggered(const StepState& step) const { return heard(step.shape->listen_to) != nullptr; }

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

bool State::can_hear(std::string_view event) const {
  if (!flow_ || !begun_ || is_final(status()) || heard(event) != nullptr) return false;
  return std::any_of(steps_.begin(), steps_.end(), [event](const StepState& step) {
    const Step& shape = *step.shape;
    return shape.listen_to == event ||
           (shape.is_awaited && (shape.on_success == event || shape.on_failure == event));
  });
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
  if (event.empty() || !heard_.emplace(event, payload).second) return;
  for (StepState& step : steps_) {
    const bool over = is_over(step) || step.execution == Execution::kGivenUp;
    if (!step.shape->is_awaited || over) continue;
    if (step.shape->on_success == event) {
      step.execution = Execution::kDone;
      step.done = entry_count_;
      step.output = payload;
    } else if (step.shape->on_failure == event) {
      step.execution = Execution::kGivenUp;
      if (cause_.empty()) cause_ = step.shape->name + ": '" + event + "' was heard";
    }
  }
}

}  // namespace towline::saga
