#pragma once
// The flow of a choreography: which of its steps lie on the way without failures, and who listens to whom.

#include <string_view>
#include <vector>

#include "saga/shape.hpp"

namespace towline::saga {

/// kInvalidSaga, kInvalidTopic: an event that is no topic; a step that listens to an event that nothing in
/// the flow publishes, or that nothing leads to; an awaited step without two different events; two stages.
[[nodiscard]] Result<void> check_flow(const Shape& shape);

/// Of a flow that was checked.
class Flow {
 public:
  explicit Flow(const Shape& shape);
  /// Whether the step lies on the way from the beginning on which every step succeeds.
  [[nodiscard]] bool is_forward(std::size_t step) const { return forward_[step]; }
  /// Of those the last ones: nobody listens to their success.
  [[nodiscard]] bool is_end(std::size_t step) const { return forward_[step] && ends_[step]; }
  /// Whether a step listens to it.
  [[nodiscard]] bool listens_to(std::string_view event) const;

 private:
  const std::vector<Step>* steps_;
  std::vector<bool> forward_, ends_;
};

}  // namespace towline::saga
