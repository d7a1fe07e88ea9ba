// The way through a flow is found by hearing what each step on it publishes, until nobody listens any more.

#include "saga/flow.hpp"

#include <algorithm>
#include <deque>
#include <string>

#include "base/text.hpp"
#include "base/validate.hpp"

namespace towline::saga {
namespace {

Error refused(std::string message) { return {ErrorCode::kInvalidSaga, std::move(message)}; }

/// The steps that are reached from the beginning, by success alone or by failure too.
std::vector<bool> reached(const Shape& shape, bool by_failure) {
  const std::vector<Step>& steps = shape.stages.front();
  std::vector<bool> is_reached(steps.size());
  for (std::deque<std::string_view> heard = {shape.begins_with}; !heard.empty(); heard.pop_front()) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (is_reached[i] || steps[i].listen_to != heard.front()) continue;
      is_reached[i] = true;
      heard.push_back(steps[i].on_success);
      if (by_failure && !steps[i].on_failure.empty()) heard.push_back(steps[i].on_failure);
    }
  }
  return is_reached;
}

Result<void> check_events(const Step& step, std::string_view begins_with) {
  if (auto bad = base::check_topic(step.listen_to, "listen_to"); !bad) return bad;
  if (auto bad = base::check_topic(step.on_success, "on_success"); !bad) return bad;
  if (!step.on_failure.empty()) {
    if (auto bad = base::check_topic(step.on_failure, "on_failure"); !bad) return bad;
  }
  if (step.is_awaited && step.on_failure.empty()) {
    return refused("step '" + step.name +
                   "' is awaited, but has no on_failure; name the event that says that it did not come");
  }
  if (step.on_success == step.on_failure)
    return refused("step '" + step.name + "' has one event for success and failure; give each its own");
  for (const std::string* event : {&step.on_success, &step.on_failure}) {
    if (*event == begins_with)
      return refused("step '" + step.name + "' publishes '" + *event + "', with which the saga begins");
  }
  return {};
}

}  // namespace

Result<void> check_flow(const Shape& shape) {
  if (auto bad = base::check_topic(shape.begins_with, "begins_with"); !bad) return bad;
  if (shape.stages.size() != 1) return refused("all steps of a choreography are in one stage");
  if (!shape.pivot.empty()) {
    return refused("step '" + base::escape(shape.pivot, 64) +
                   "' is a pivot, but a choreography has none: what is undone its failure events say");
  }
  const std::vector<Step>& steps = shape.stages.front();
  for (const Step& step : steps) {
    if (auto bad = check_events(step, shape.begins_with); !bad) return bad;
    if (step.compensates)
      return refused("step '" + step.name +
                     "' has a compensation; in a choreography a step that listens to a failure undoes");
  }
  const std::vector<bool> is_reached = reached(shape, true);
  const auto lost = std::find(is_reached.begin(), is_reached.end(), false);
  if (lost == is_reached.end()) {
    const Flow flow(shape);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (flow.is_end(i)) return {};
    }
    return refused("the way from '" + shape.begins_with +
                   "' has no end: each event on it leads to another step; leave one that nobody listens to");
  }
  const Step& step = steps[static_cast<std::size_t>(lost - is_reached.begin())];
  return refused("step '" + step.name + "' listens to '" + step.listen_to +
                 "', to which nothing leads from '" + shape.begins_with +
                 "'; name the step that publishes it, or expect() it from somebody else");
}

Flow::Flow(const Shape& shape) : steps_(&shape.stages.front()), forward_(reached(shape, false)) {
  ends_.reserve(steps_->size());
  for (const Step& step : *steps_)
    ends_.push_back(!listens_to(step.on_success));
}

bool Flow::listens_to(std::string_view event) const {
  return std::any_of(steps_->begin(), steps_->end(),
                     [event](const Step& step) { return step.listen_to == event; });
}

}  // namespace towline::saga
