#pragma once
// The log of a saga: what is written before a step runs and after it, in the order it happened. All that a
// saga is follows from its log; nothing about it is kept elsewhere.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <towline/message.hpp>
#include <towline/result.hpp>

namespace towline::saga {

enum class Mark : std::uint8_t {
  kBegun,               ///< `context`: what it begins with
  kStarted,             ///< written before attempt `attempt` of a step
  kDone,                ///< the step has succeeded; `output`, and `context` when it has changed
  kFailed,              ///< the attempt has failed, the next is at `due_at`; `error`
  kGivenUp,             ///< the step has failed for good, or nobody knows and it is not tried again; `error`
  kCompensating,        ///< written before attempt `attempt` of a compensation
  kCompensated,         ///< the compensation has succeeded
  kCompensationFailed,  ///< as kFailed
  kCompensationStuck,   ///< it was tried as often as it may; a person has to look; `error`
  kCancelled,           ///< nothing new begins, what was done is undone; `error`: why
  kSkipped,             ///< by a person: the step counts as done, or its stuck compensation as not needed
  kRetried,             ///< by a person: what is stuck gets new attempts
  kForcedCompleted,     ///< by a person: it counts as completed, whatever happened
  kForcedCompensated,   ///< by a person: it counts as compensated
  kNote                 ///< by a person: `error` is the text
};
inline constexpr std::size_t kMarkCount = 15;

/// Stable, lower case with underscores: what people see in the store and in a timeline.
[[nodiscard]] std::string_view name_of(Mark mark) noexcept;
[[nodiscard]] std::optional<Mark> mark_of(std::string_view name) noexcept;

struct Entry {
  Mark mark = Mark::kNote;
  std::string step = {};  ///< empty where the whole saga is meant
  std::uint32_t attempt = 0;
  std::optional<TimePoint> due_at = std::nullopt;
  std::optional<Bytes> output = std::nullopt;
  std::optional<Bytes> context = std::nullopt;
  std::string error = {};
  TimePoint at{};
};

}  // namespace towline::saga
