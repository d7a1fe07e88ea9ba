// Checks of a shape; see the header for its rules.

#include "saga/shape.hpp"

#include <algorithm>
#include <set>

#include <xxhash.h>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "saga/flow.hpp"

namespace towline::saga {
namespace {

Error refused(std::string message) { return {ErrorCode::kInvalidSaga, std::move(message)}; }

Result<void> check_step(const Step& step, bool may_be_undone, std::set<std::string_view>& names) {
  if (auto bad = base::check_name(step.name, "step"); !bad) return bad;
  if (!names.insert(step.name).second) {
    return refused("two steps are named '" + step.name + "'; each needs a name of its own");
  }
  if (may_be_undone && !step.compensates && !step.changes_nothing) {
    return refused(
        "step '" + step.name +
        "' has no compensation; give it one, say that it changes nothing, or put it behind the pivot");
  }
  return {};
}

}  // namespace

std::size_t Shape::step_count() const noexcept {
  std::size_t count = 0;
  for (const std::vector<Step>& stage : stages)
    count += stage.size();
  return count;
}

std::size_t Shape::pivot_stage() const noexcept {
  const auto is_pivot = [this](const std::vector<Step>& stage) {
    return !pivot.empty() && stage.size() == 1 && stage.front().name == pivot;
  };
  return static_cast<std::size_t>(std::find_if(stages.begin(), stages.end(), is_pivot) - stages.begin());
}

Result<void> check_shape(const Shape& shape) {
  if (shape.stages.empty()) return refused("the saga has no steps");
  if (shape.step_count() > kStepCountMax) {
    return refused("the saga has " + std::to_string(shape.step_count()) + " steps, but at most " +
                   std::to_string(kStepCountMax) + " are allowed");
  }
  const std::size_t pivot = shape.pivot_stage();
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < shape.stages.size(); ++i) {
    if (shape.stages[i].empty()) return refused("a branch of the saga has no steps");
    for (const Step& step : shape.stages[i]) {
      if (auto bad = check_step(step, i < pivot && !shape.is_flow(), names); !bad) return bad;
    }
  }
  if (!shape.pivot.empty() && pivot == shape.stages.size()) {
    return refused("the pivot '" + base::escape(shape.pivot, 64) +
                   "' is no step that stands alone; name one that is not in a parallel branch");
  }
  return shape.is_flow() ? check_flow(shape) : Result<void>();
}

std::string fingerprint_of(const Shape& shape) {
  std::string material;
  for (const std::vector<Step>& stage : shape.stages) {
    material += '(';
    for (const Step& step : stage) {
      material += step.name;
      material += step.compensates ? '-' : step.changes_nothing ? '=' : '>';
      if (!shape.is_flow()) continue;
      for (const std::string* event : {&step.listen_to, &step.on_success, &step.on_failure})
        material += *event + (step.is_awaited ? '?' : '!');
    }
    material += ')';
  }
  material += shape.pivot + shape.begins_with;
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text(16, '0');
  std::uint64_t hash = XXH3_64bits(material.data(), material.size());
  for (std::size_t i = text.size(); i-- > 0; hash >>= 4)
    text[i] = kDigits[hash & 0xf];
  return text;
}

}  // namespace towline::saga
