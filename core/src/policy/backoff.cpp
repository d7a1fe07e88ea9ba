// The order that matters: base wait, cap, jitter, cap. The cap comes first so that jitter spreads around the
// cap and not around a number far above it, and again last so that jitter cannot pass it.

#include "policy/backoff.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace towline::policy {
namespace {

using Count = Duration::rep;
constexpr Count kCountMax = std::numeric_limits<Count>::max();

Count multiply_saturating(Count a, Count b) noexcept {
  Count product = 0;
  return __builtin_mul_overflow(a, b, &product) ? kCountMax : product;
}

// To whole microseconds; what is too large for them, and NaN, is the largest.
Count to_count(double value) noexcept {
  if (!(value < 0x1.0p63)) return kCountMax;
  return value <= 0 ? 0 : static_cast<Count>(std::llround(value));
}

Count fibonacci(std::uint32_t n) noexcept {
  Count current = 1;
  Count before = 0;
  for (std::uint32_t i = 1; i < n; ++i) {
    Count next = 0;
    if (__builtin_add_overflow(current, before, &next)) return kCountMax;
    before = current;
    current = next;
  }
  return current;
}

Count exponential(Count initial, double multiplier, std::uint32_t failures) noexcept {
  if (initial == 0) return 0;  // 0 * infinity is not a number
  // NaN and factors below 1 would make waits shrink.
  const double growth = multiplier >= 1.0 ? multiplier : 1.0;
  return to_count(static_cast<double>(initial) * std::pow(growth, static_cast<double>(failures - 1)));
}

Count not_negative(Duration duration) noexcept { return std::max<Count>(duration.count(), 0); }

Count base_count(const RetryOptions& options, std::uint32_t failures) noexcept {
  const Count initial = not_negative(options.initial_delay);
  switch (options.kind) {
    case BackoffKind::kFixed:
      return initial;
    case BackoffKind::kLinear:
      return multiply_saturating(initial, failures);
    case BackoffKind::kFibonacci:
      return multiply_saturating(initial, fibonacci(failures));
    case BackoffKind::kSequence: {
      if (options.sequence.empty()) return initial;
      const std::size_t index = std::min<std::size_t>(failures, options.sequence.size()) - 1;
      return not_negative(options.sequence[index]);
    }
    case BackoffKind::kExponential:
    case BackoffKind::kCustom:
      break;
  }
  return exponential(initial, options.multiplier, failures);
}

double ratio_of(const RetryOptions& options) noexcept {
  return options.jitter_ratio >= 0.0 ? std::min(options.jitter_ratio, 1.0) : 0.0;  // NaN counts as 0
}

// Between `low` and `high`, both included.
Count between(Count low, Count high, spi::Rng& rng) noexcept {
  if (high <= low) return low;
  const double width = static_cast<double>(high - low);
  return std::min(high, low + std::min(to_count(width * rng.uniform()), high - low));
}

Count decorrelated(const RetryOptions& options, std::uint32_t failures, Duration previous, Count cap,
                   spi::Rng& rng) noexcept {
  const Count initial = std::min(not_negative(options.initial_delay), cap);
  if (failures == 1) return initial;
  const Count before =
      previous > Duration::zero() ? previous.count() : delay_without_jitter(options, failures - 1).count();
  return between(initial, std::min(multiply_saturating(before, 3), cap), rng);
}

// `count` is capped already.
Count with_jitter(const RetryOptions& options, Count count, std::uint32_t failures, Duration previous,
                  Count cap, spi::Rng& rng) noexcept {
  switch (options.jitter) {
    case JitterKind::kNone:
      return count;
    case JitterKind::kProportional: {
      const double ratio = ratio_of(options);
      return to_count(static_cast<double>(count) * (1.0 - ratio + 2.0 * ratio * rng.uniform()));
    }
    case JitterKind::kFull:
      return between(0, count, rng);
    case JitterKind::kEqual:
      return between(count - count / 2, count, rng);
    case JitterKind::kDecorrelated:
      return decorrelated(options, failures, previous, cap, rng);
  }
  return count;
}

Duration finish(const RetryOptions& options, Count count, std::uint32_t failures, Duration previous,
                spi::Rng& rng) noexcept {
  const Count cap = not_negative(options.delay_max);
  const Count capped = std::min(count, cap);
  return Duration(std::min(with_jitter(options, capped, failures, previous, cap, rng), cap));
}

}  // namespace

Duration delay_without_jitter(const RetryOptions& options, std::uint32_t failures) noexcept {
  return Duration(std::min(base_count(options, std::max(failures, 1u)), not_negative(options.delay_max)));
}

Duration delay_after(const RetryOptions& options, std::uint32_t failures, Duration previous,
                     spi::Rng& rng) noexcept {
  failures = std::max(failures, 1u);
  return finish(options, base_count(options, failures), failures, previous, rng);
}

std::optional<Duration> retry_delay(const RetryOptions& options, std::uint32_t failures, Duration previous,
                                    const ErrorInfo& error, spi::Rng& rng) {
  failures = std::max(failures, 1u);
  if (options.kind != BackoffKind::kCustom || !options.custom)
    return delay_after(options, failures, previous, rng);
  try {
    const std::optional<Duration> answer = options.custom(failures, error);
    if (!answer) return std::nullopt;
    return finish(options, not_negative(*answer), failures, previous, rng);
  } catch (...) {
    return delay_after(options, failures, previous, rng);
  }
}

Result<void> check_retry(const RetryOptions& options) {
  const auto bad = [](std::string text) { return Error{ErrorCode::kInvalidConfig, std::move(text)}; };
  if (options.kind == BackoffKind::kSequence && options.sequence.empty()) {
    return bad("retry.kind is sequence, but retry.sequence_ms is empty; give at least one wait");
  }
  if (options.kind == BackoffKind::kCustom && !options.custom) {
    return bad("retry.kind is custom, but retry.custom is not set; give a function");
  }
  const bool grows = options.kind == BackoffKind::kLinear || options.kind == BackoffKind::kExponential ||
                     options.kind == BackoffKind::kFibonacci;
  if (grows && options.initial_delay <= Duration(0)) {
    return bad(
        "retry.initial_delay_ms is 0, but must be more than 0 where retry.kind grows from it (linear, "
        "exponential, fibonacci); take retry.kind fixed for retries without a wait");
  }
  const bool uses_initial_delay =
      options.kind != BackoffKind::kSequence && options.kind != BackoffKind::kCustom;
  if (uses_initial_delay && options.delay_max < options.initial_delay) {
    return bad("retry.delay_ms_max is " + std::to_string(options.delay_max.count() / 1000) +
               " ms, but must be at least retry.initial_delay_ms, which is " +
               std::to_string(options.initial_delay.count() / 1000) + " ms");
  }
  return {};
}

}  // namespace towline::policy
