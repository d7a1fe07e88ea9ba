#pragma once
// How long a message waits after a failure.
//
// `failures` counts from 1: the first failure waits the initial delay, whatever the kind. With b =
// initial_delay, m = multiplier and n = failures:
//
//     kFixed        b
//     kLinear       b * n
//     kExponential  b * m^(n-1)
//     kFibonacci    b * F(n), F(1) = F(2) = 1
//     kSequence     the n-th entry, the last one for ever after; b when the list is empty
//     kCustom       the function's answer; nullopt means "stop"
//
// Then the wait is capped at delay_max, jitter is applied, and it is capped again:
//
//     kNone          d
//     kProportional  d * (1 - r) .. d * (1 + r), r = jitter_ratio
//     kFull          0 .. d
//     kEqual         d/2 .. d
//     kDecorrelated  b .. 3 * previous; the first wait is b
//
// All arithmetic saturates: no combination of values, bounds checked or not, gives a negative wait, a wrapped
// one or one above delay_max. Without jitter the waits never shrink as failures grow (except for kSequence
// and kCustom, which are what the user says). Pure apart from drawing at most one number from `rng`.

#include <cstdint>
#include <optional>

#include <towline/options.hpp>
#include <towline/result.hpp>
#include <towline/spi/clock.hpp>
#include <towline/time.hpp>

namespace towline::policy {

/// The wait before jitter, capped: what the table above says. `kCustom` counts as kExponential here, because
/// only retry_delay() knows the error.
[[nodiscard]] Duration delay_without_jitter(const RetryOptions& options, std::uint32_t failures) noexcept;

/// The wait after `failures` (0 counts as 1) failures. `previous` is the wait before this one, for
/// kDecorrelated; zero when it is not known: then the wait without jitter of the failure before takes its
/// place. `kCustom` counts as kExponential.
[[nodiscard]] Duration delay_after(const RetryOptions& options, std::uint32_t failures, Duration previous,
                                   spi::Rng& rng) noexcept;

/// The same with the error, so that kCustom can be asked; its answer is capped and jittered like the others.
/// nullopt: the custom function said stop. A custom function that throws or is empty counts as kExponential,
/// so that a bug in it delays a message and does not lose it.
[[nodiscard]] std::optional<Duration> retry_delay(const RetryOptions& options, std::uint32_t failures,
                                                  Duration previous, const ErrorInfo& error, spi::Rng& rng);

/// What the table of bounds cannot see: a cap below the initial delay, a sequence without entries, a custom
/// kind without a function. kInvalidConfig naming both options.
[[nodiscard]] Result<void> check_retry(const RetryOptions& options);

}  // namespace towline::policy
