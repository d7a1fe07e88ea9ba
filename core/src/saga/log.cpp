// The names of the marks; they are stored, so none is ever changed.

#include "saga/log.hpp"

#include <algorithm>
#include <array>

namespace towline {
namespace {

constexpr std::array<std::string_view, saga::kMarkCount> kNames = {"begun",
                                                                   "heard",
                                                                   "started",
                                                                   "done",
                                                                   "failed",
                                                                   "postponed",
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

std::string_view name_of(SagaMark mark) noexcept { return kNames[static_cast<std::size_t>(mark)]; }

std::optional<SagaMark> saga::mark_of(std::string_view name) noexcept {
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) return std::nullopt;
  return static_cast<SagaMark>(at - kNames.begin());
}

}  // namespace towline
