// The rules of the header, in their order.

#include "policy/classify.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.hpp"

namespace towline::policy {
namespace {

constexpr std::array<std::string_view, 14> kNotFailures = {"ERR_CANCELLED",
                                                           "Cancelled",
                                                           "Canceled",
                                                           "CancelledError",
                                                           "CanceledError",
                                                           "ERR_CIRCUIT_OPEN",
                                                           "AbortError",
                                                           "CircuitOpen",
                                                           "CircuitOpenError",
                                                           "BrokenCircuitError",
                                                           "CancelledException",
                                                           "OperationCancelled",
                                                           "OperationCanceledException",
                                                           "BrokenCircuitException"};

constexpr std::array<std::string_view, 6> kTransientParts = {"Transient",   "Connection", "Network",
                                                             "Unavailable", "Timeout",    "TimedOut"};

// Behind the last '.' or ':'.
std::string_view last_part(std::string_view type) noexcept {
  const std::size_t separator = type.find_last_of(".:");
  return separator == std::string_view::npos ? type : type.substr(separator + 1);
}

template <typename Names>
bool any_names(const Names& names, std::string_view type) noexcept {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view name) { return names_type(name, type); });
}

bool contains_ignoring_case(std::string_view text, std::string_view part) noexcept {
  if (part.empty()) return false;  // an empty pattern in a list is a slip, not "everything"
  const auto found = std::search(text.begin(), text.end(), part.begin(), part.end(), [](char a, char b) {
    return base::equals_ignoring_case({&a, 1}, {&b, 1});
  });
  return found != text.end();
}

template <typename Parts>
bool any_part(const Parts& parts, std::string_view type) noexcept {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return contains_ignoring_case(type, part); });
}

std::optional<FailureClass> ask_predicate(const ErrorInfo& error, const ClassifyOptions& options) {
  if (!options.predicate) return std::nullopt;
  try {
    return options.predicate(error);
  } catch (...) {
    return std::nullopt;
  }
}

FailureClass by_name(std::string_view type, const ClassifyOptions& options) {
  if (any_names(options.permanent_types, type)) return FailureClass::kPermanent;
  if (any_names(options.transient_types, type)) return FailureClass::kTransient;
  if (any_names(kNotFailures, type)) return FailureClass::kNotAFailure;
  if (type == "ERR_CORRUPT_ENVELOPE") return FailureClass::kDecode;
  if (any_part(options.permanent_patterns, type)) return FailureClass::kPermanent;
  if (any_part(options.transient_patterns, type) || any_part(kTransientParts, type))
    return FailureClass::kTransient;
  return options.otherwise;
}

}  // namespace

bool names_type(std::string_view name, std::string_view type) noexcept {
  if (name.empty()) return false;
  return name == type || (last_part(name) == name && last_part(type) == name);
}

Classification classify(const ErrorInfo& error, std::optional<Duration> retry_after,
                        const ClassifyOptions& options) {
  if (retry_after) retry_after = std::max(*retry_after, Duration::zero());
  if (const auto answer = ask_predicate(error, options)) {
    return {*answer, *answer == FailureClass::kThrottled ? retry_after : std::nullopt};
  }
  if (retry_after) return {FailureClass::kThrottled, retry_after};
  return {by_name(error.type, options), std::nullopt};
}

}  // namespace towline::policy
