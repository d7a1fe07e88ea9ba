// The names of the marks; they are stored, so none is ever changed.

#include "saga/log.hpp"

#include <algorithm>
#include <array>

namespace towline::saga {
namespace {

constexpr std::array<std::string_view, kMarkCount> kNames = {"begun",
                                                             "started",
                                                             "done",
                                                             "failed",
                                                             "given_up",
                                                             "compensating",
                                                             "compensated",
                                                             "compensation_failed",
                                                             "compensation_stuck",
                                                             "cancelled",
                                                             "skipped",
                                                             "retried",
                                                             "forced_completed",
                                                             "forced_compensated",
                                                             "note"};

}  // namespace

std::string_view name_of(Mark mark) noexcept { return kNames[static_cast<std::size_t>(mark)]; }

std::optional<Mark> mark_of(std::string_view name) noexcept {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) return std::nullopt;
  return static_cast<Mark>(at - kNames.begin());
}

}  // namespace towline::saga
