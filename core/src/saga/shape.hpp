#pragma once
// The shape of a saga: its steps in the order they run, and which of them can be undone. A definition of the
// user's without its functions.
//
// A stage is one step, or several that run side by side; a stage begins when all of the one before have
// succeeded. In a choreography all steps are in one stage, and each begins when its event was heard; see
// flow.hpp. The pivot is the step that decides: when it has succeeded nothing is undone any more, and what
// comes after it is tried until it succeeds or a person helps.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <towline/result.hpp>

namespace towline::saga {

inline constexpr std::size_t kStepCountMax = 10'000;

struct Step {
  std::string name;
  /// Whether it has a compensation. Without one it must say so, or stand at or after the pivot.
  bool compensates = true;
  /// It only reads: there is nothing to undo.
  bool changes_nothing = false;
  /// Of a choreography: topics.
  std::string listen_to = {}, on_success = {}, on_failure = {};
  /// Of a choreography: it is done elsewhere, and one of its two events is heard in the end.
  bool is_awaited = false;
};

struct Shape {
  std::vector<std::vector<Step>> stages;
  /// The name of a step that is alone in its stage; empty: none, everything can be undone to the end.
  std::string pivot;
  /// Of a choreography: a topic; empty: it is none.
  std::string begins_with = {};

  [[nodiscard]] bool is_flow() const noexcept { return !begins_with.empty(); }
  [[nodiscard]] std::size_t step_count() const noexcept;
  /// Number of the stage that the pivot is; stages.size() when there is none.
  [[nodiscard]] std::size_t pivot_stage() const noexcept;
};

/// kInvalidSaga: no steps, more than 10,000, an empty stage, a name that is bad or there twice, a step
/// before the pivot that cannot be undone, a pivot that is not a stage of its own, or what check_flow() says.
[[nodiscard]] Result<void> check_shape(const Shape& shape);

/// 16 hexadecimal digits that say what the order of the steps, their names, their events and what can be
/// undone are: a saga that began under one goes on only under the same.
[[nodiscard]] std::string fingerprint_of(const Shape& shape);

}  // namespace towline::saga
