// The table of decide.hpp, one function per block of rows.

#include "policy/decide.hpp"

#include <algorithm>
#include <limits>

#include "policy/backoff.hpp"
#include "policy/classify.hpp"

namespace towline::policy {
namespace {

bool is_expired(const DeliveryFacts& facts) noexcept { return facts.now >= facts.expires_at; }

// Without overflow for any two points in time.
bool older_than(const DeliveryFacts& facts, Duration age) noexcept {
  if (facts.now <= facts.published_at) return false;
  const auto elapsed =
      static_cast<std::uint64_t>(to_us(facts.now)) - static_cast<std::uint64_t>(to_us(facts.published_at));
  return elapsed > static_cast<std::uint64_t>(std::max<Duration::rep>(age.count(), 0));
}

// The wait up to the end of the time to live, at most.
Duration bounded_by_expiry(const DeliveryFacts& facts, Duration delay) noexcept {
  delay = std::max(delay, Duration::zero());
  if (facts.expires_at == kNever) return delay;
  if (is_expired(facts)) return Duration::zero();
  const auto left =
      static_cast<std::uint64_t>(to_us(facts.expires_at)) - static_cast<std::uint64_t>(to_us(facts.now));
  return static_cast<std::uint64_t>(delay.count()) > left ? Duration(static_cast<Duration::rep>(left))
                                                          : delay;
}

std::uint32_t saturating_increment(std::uint32_t value) noexcept {
  return value == std::numeric_limits<std::uint32_t>::max() ? value : value + 1;
}

std::uint32_t failures_before(const DeliveryFacts& facts) noexcept { return std::max(facts.attempt, 1u) - 1; }

Decision unchanged(Action action, const DeliveryFacts& facts) {
  Decision decision;
  decision.action = action;
  decision.attempt = std::max(facts.attempt, 1u);
  decision.failures = failures_before(facts);
  return decision;
}

Decision finished(const DeliveryFacts& facts) {
  Decision decision = unchanged(Action::kAck, facts);
  if (facts.ordered && facts.heads_key) decision.key_effect = KeyEffect::kAdvance;
  decision.breaker = BreakerSignal::kSuccess;
  return decision;
}

Decision again_uncounted(Duration delay, const DeliveryFacts& facts) {
  Decision decision = unchanged(Action::kAgain, facts);
  decision.delay = bounded_by_expiry(facts, delay);
  if (facts.ordered) decision.key_effect = KeyEffect::kBlock;
  return decision;
}

Decision again_counted(Duration delay, const DeliveryFacts& facts) {
  Decision decision = again_uncounted(delay, facts);
  decision.failures = saturating_increment(decision.failures);
  decision.attempt = saturating_increment(decision.attempt);
  decision.counts_failure = true;
  decision.is_retry = true;
  return decision;
}

enum class Counted : bool { kNo, kYes };

Decision to_dead_letters(DeadLetterReason reason, Counted counted, const DeliveryFacts& facts,
                         const DecisionRules& rules) {
  Decision decision = unchanged(rules.dead_letters.enabled ? Action::kDeadLetter : Action::kDiscard, facts);
  decision.reason = reason;
  if (counted == Counted::kYes) {
    decision.counts_failure = true;
    decision.failures = saturating_increment(decision.failures);
  }
  if (facts.ordered) {
    // A discarded message leaves nothing that a person could look at, so nobody would ever release the key.
    const bool holds = rules.on_key_failure == KeyFailure::kParkKey && rules.dead_letters.enabled;
    if (holds) {
      decision.key_effect = KeyEffect::kHold;
    } else if (facts.heads_key) {
      decision.key_effect = KeyEffect::kAdvance;
    }
  }
  return decision;
}

bool names_dead_letter_type(const ErrorInfo& error, const DecisionRules& rules) {
  const auto& types = rules.dead_letters.error_types;
  return std::any_of(types.begin(), types.end(),
                     [&](const auto& name) { return names_type(name, error.type); });
}

// A counted failure that may be tried again. `asked_delay`: the wait that a nak asked for.
Decision after_transient(const ErrorInfo& error, std::optional<Duration> asked_delay,
                         const DeliveryFacts& facts, const DecisionRules& rules, spi::Rng& rng) {
  const std::uint32_t failures = saturating_increment(failures_before(facts));
  const auto give_up = [&](DeadLetterReason reason) {
    return to_dead_letters(reason, Counted::kYes, facts, rules);
  };
  if (names_dead_letter_type(error, rules)) return give_up(DeadLetterReason::kPermanent);
  if (facts.ordered && rules.on_key_failure == KeyFailure::kSkip)
    return give_up(DeadLetterReason::kExhausted);
  if (failures >= rules.retry.max_attempts) return give_up(DeadLetterReason::kExhausted);
  if (rules.dead_letters.age_max > Duration::zero() && older_than(facts, rules.dead_letters.age_max)) {
    return give_up(DeadLetterReason::kMaxAge);
  }
  if (is_expired(facts)) return give_up(DeadLetterReason::kExpired);
  std::optional<Duration> delay = asked_delay;
  if (!delay) delay = retry_delay(rules.retry, failures, facts.previous_delay, error, rng);
  if (!delay) return give_up(DeadLetterReason::kExhausted);
  if (facts.budget_spent) delay = std::max(*delay, rules.retry.delay_max);
  return again_counted(*delay, facts);
}

Decision after_failure(const Outcome& outcome, const DeliveryFacts& facts, const DecisionRules& rules,
                       spi::Rng& rng) {
  const Classification found = classify(outcome.error, outcome.delay, rules.classify);
  Decision decision;
  switch (found.failure_class) {
    case FailureClass::kNotAFailure:
      decision = facts.stopping ? unchanged(Action::kRelease, facts)
                                : again_uncounted(rules.retry.initial_delay, facts);
      break;
    case FailureClass::kThrottled: {
      const Duration delay = found.retry_after ? *found.retry_after
                                               : delay_after(rules.retry, std::max(facts.attempt, 1u),
                                                             facts.previous_delay, rng);
      decision = again_uncounted(delay, facts);
      break;
    }
    case FailureClass::kPermanent:
      decision = to_dead_letters(DeadLetterReason::kPermanent, Counted::kYes, facts, rules);
      break;
    case FailureClass::kDecode:
      decision = to_dead_letters(DeadLetterReason::kDecode, Counted::kYes, facts, rules);
      break;
    case FailureClass::kTransient:
      decision = after_transient(outcome.error, std::nullopt, facts, rules, rng);
      decision.breaker = BreakerSignal::kFailure;
      break;
  }
  decision.failure_class = found.failure_class;
  return decision;
}

}  // namespace

Decision decide_intake(const DeliveryFacts& facts, const DecisionRules& rules) {
  if (facts.undecodable) return to_dead_letters(DeadLetterReason::kDecode, Counted::kNo, facts, rules);
  if (facts.crashes >= rules.dead_letters.max_crashes) {
    return to_dead_letters(DeadLetterReason::kCrashLoop, Counted::kNo, facts, rules);
  }
  if (is_expired(facts)) return to_dead_letters(DeadLetterReason::kExpired, Counted::kNo, facts, rules);
  return unchanged(Action::kHandle, facts);
}

Decision decide(const Outcome& outcome, const DeliveryFacts& facts, const DecisionRules& rules,
                spi::Rng& rng) {
  switch (outcome.kind) {
    case Outcome::Kind::kAck:
      return finished(facts);
    case Outcome::Kind::kRelease:
      return unchanged(Action::kRelease, facts);
    case Outcome::Kind::kDefer:
      return again_uncounted(outcome.delay.value_or(Duration::zero()), facts);
    case Outcome::Kind::kDeadLetter:
      return to_dead_letters(DeadLetterReason::kManual, Counted::kNo, facts, rules);
    case Outcome::Kind::kNak: {
      Decision decision = after_transient(outcome.error, outcome.delay, facts, rules, rng);
      decision.breaker = BreakerSignal::kFailure;
      return decision;
    }
    case Outcome::Kind::kFail:
      break;
  }
  return after_failure(outcome, facts, rules, rng);
}

}  // namespace towline::policy
