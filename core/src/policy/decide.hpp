#pragma once
// The one table of what happens to a message: before its handler may start, and after the handler is done.
// The engine asks here and carries out the answer; nothing else decides about retries, dead letters or
// blocked keys.
//
// Before the handler (decide_intake), first row that fits:
//
//     the bytes could not be read                       dead letter  kDecode
//     crashes >= max_crashes                            dead letter  kCrashLoop
//     now >= expires_at                                 dead letter  kExpired
//     else                                              handle it
//
// After the handler (decide):
//
//     outcome              counts a failure   what happens
//     ack                  no                 done
//     release              no                 back to the transport, unchanged
//     defer(d)             no                 again after d
//     dead_letter          no                 dead letter  kManual
//     nak                  yes                as a transient failure; its own delay replaces the policy's
//     fail, by its class:
//       not a failure      no                 again after initial_delay; when stopping, as release
//       throttled(d)       no                 again after d; without d after the policy's wait
//       decode             yes                dead letter  kDecode
//       permanent          yes                dead letter  kPermanent
//       transient          yes                first row that fits:
//           its type is one of dead_letters.error_types    dead letter  kPermanent
//           ordered, and on_key_failure is kSkip           dead letter  kExhausted
//           failures >= max_attempts                       dead letter  kExhausted
//           published longer ago than dead_letters.age_max dead letter  kMaxAge
//           now >= expires_at                              dead letter  kExpired
//           the custom backoff says stop                   dead letter  kExhausted
//           the retry budget is spent                      again after delay_max at least
//           else                                           again after the policy's wait
//
// dead_letters.error_types applies to every counted failure, so it also reaches what is classed transient.
//
// Times to live: a wait never reaches beyond expires_at. Due then, the message is found expired before its
// handler starts, and never earlier than that.
//
// Where dead letters are switched off, "dead letter" is "discard": done, and counted.
//
// Keys: in an ordered subscription (`ordered`: the message has an order key) every "again" blocks its key,
// whoever caused it, because what follows must not overtake it. When the head of a blocked key is done (ack,
// dead letter or discard) the next one of the key is let through. Under kParkKey a dead letter holds the key
// instead, until a person releases it.
//
// Pure, but for one draw of `rng` for jitter.

#include <cstdint>
#include <optional>

#include <towline/consumer.hpp>
#include <towline/dead_letter.hpp>
#include <towline/options.hpp>
#include <towline/spi/clock.hpp>
#include <towline/time.hpp>

#include "policy/circuit_breaker.hpp"

namespace towline::policy {

/// What is known of the delivery.
struct DeliveryFacts {
  TimePoint now{};  ///< wall clock, like the two times below
  TimePoint published_at{};
  TimePoint expires_at = kNever;
  std::uint32_t attempt = 1;  ///< 1-based: failures so far, plus one
  std::uint32_t crashes = 0;
  bool undecodable = false;
  /// The subscription is ordered and the message has an order key in it. In key order, messages without a key
  /// have none.
  bool ordered = false;
  /// It is the head of a blocked key (Envelope::heads_key).
  bool heads_key = false;
  /// The wait before this attempt, for decorrelated jitter; zero: not known.
  Duration previous_delay{0};
  /// The retry budget has nothing left.
  bool budget_spent = false;
  /// The engine or the consumer is shutting down.
  bool stopping = false;
};

/// The options of the subscription that decisions depend on. Refers, does not own.
struct DecisionRules {
  const RetryOptions& retry;
  const ClassifyOptions& classify;
  const DeadLettersOptions& dead_letters;
  KeyFailure on_key_failure = KeyFailure::kBlockKey;

  [[nodiscard]] static DecisionRules of(const ConsumerOptions& options) {
    return {options.retry, options.classify, options.dead_letters, options.on_key_failure};
  }
};

enum class Action : std::uint8_t {
  kHandle,      ///< start the handler (decide_intake only)
  kAck,         ///< done
  kRelease,     ///< hand it back to the transport as it is
  kAgain,       ///< a schedule record for this group, due after `delay`, with `attempt`; then ack
  kDeadLetter,  ///< a dead letter with `reason`; then ack
  kDiscard      ///< dead letters are off: ack, and count it as discarded
};

/// What happens to the order key, in the same unit as the action.
enum class KeyEffect : std::uint8_t {
  kNone,     ///< nothing: no order, or no block is concerned
  kBlock,    ///< put a block on the key, headed by the new schedule record (replaces the one it headed)
  kAdvance,  ///< the head is done: unpark the next one, or drop the block (UnparkNext)
  kHold      ///< put (or keep) a block that only a person ends (KeyBlock::held)
};

struct Decision {
  Action action = Action::kAck;
  KeyEffect key_effect = KeyEffect::kNone;
  Duration delay{0};  ///< kAgain; never negative
  /// The envelope's attempt from now on: grown by one when the failure counted and it is tried again. For
  /// dead letters: see `failures`.
  std::uint32_t attempt = 1;
  /// Failures so far, this one included: DeadLetter::attempt.
  std::uint32_t failures = 0;
  /// This was a failed attempt: add it to the history, set first_failed_at.
  bool counts_failure = false;
  /// A retry in the sense of the retry budget (kAgain after a failure).
  bool is_retry = false;
  DeadLetterReason reason = DeadLetterReason::kExhausted;  ///< kDeadLetter, kDiscard
  /// Of a kFail outcome.
  std::optional<FailureClass> failure_class;
  /// What to tell the circuit breaker.
  BreakerSignal breaker = BreakerSignal::kIgnored;
};

/// Whether the handler may start.
[[nodiscard]] Decision decide_intake(const DeliveryFacts& facts, const DecisionRules& rules);

/// What becomes of the message. A kFail outcome with a `delay` is a failure that carried the wait to take
/// (see HandlerError). A handler that ran out of time is a kFail with the type "HandlerTimeout".
[[nodiscard]] Decision decide(const Outcome& outcome, const DeliveryFacts& facts, const DecisionRules& rules,
                              spi::Rng& rng);

}  // namespace towline::policy
