#pragma once
// What kind of failure an error is. The first rule that knows the error decides:
//
//     1. the user's predicate, unless it answers nullopt
//     2. a wait that came with the error (a throttled dependency)      -> throttled
//     3. permanent_types, exact names                                  -> permanent
//     4. transient_types, exact names                                  -> transient
//     5. our own codes: ERR_CANCELLED, ERR_CIRCUIT_OPEN, and the names that languages give to cancellation
//     and to an
//        open circuit, exact                                           -> not a failure
//        ERR_CORRUPT_ENVELOPE                                          -> decode
//     6. permanent_patterns, part of the name                          -> permanent
//     7. transient_patterns, and Transient, Connection, Network, Unavailable, Timeout, TimedOut -> transient
//     8. `otherwise`, which by default is transient: an unknown error is tried again
//
// An exact name is the whole type name, or its last part when the name in the list has none of its own:
// "BadOrder" also means "shop.errors.BadOrder" and "shop::BadOrder". Exact names compare byte for byte; parts
// of names ignore case. "Cancel" inside a name means nothing: "OrderCancelled" may well be a failure of the
// business.

#include <optional>

#include <towline/options.hpp>
#include <towline/time.hpp>
#include <towline/types.hpp>

namespace towline::policy {

struct Classification {
  FailureClass failure_class = FailureClass::kTransient;
  /// kThrottled: the wait that was asked for, never negative; nullopt: the retry policy's.
  std::optional<Duration> retry_after;
};

/// `retry_after`: the wait that the handler's error carried. A predicate that throws counts as answering
/// nullopt.
[[nodiscard]] Classification classify(const ErrorInfo& error, std::optional<Duration> retry_after,
                                      const ClassifyOptions& options);

/// Whether `type` is `name` by the rule of exact names above.
[[nodiscard]] bool names_type(std::string_view name, std::string_view type) noexcept;

}  // namespace towline::policy
