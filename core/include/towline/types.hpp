#pragma once
// The small enums and records that options refer to.

#include <cstdint>
#include <string>
#include <string_view>

#include <towline/message.hpp>

namespace towline {

enum class Durability : std::uint8_t { kDefault, kProcess, kHost };
enum class BackoffKind : std::uint8_t { kFixed, kLinear, kExponential, kFibonacci, kSequence, kCustom };
enum class JitterKind : std::uint8_t { kNone, kProportional, kFull, kEqual, kDecorrelated };
enum class AckPolicy : std::uint8_t { kOnSuccess, kFirst, kManual };
enum class Order : std::uint8_t { kUnordered, kKeyOrdered, kPartitionOrdered };
enum class KeyFailure : std::uint8_t { kBlockKey, kParkKey, kSkip };
enum class TopicType : std::uint8_t { kQueue, kLog, kBus };

/// What an error means for the message.
enum class FailureClass : std::uint8_t {
  kTransient,   ///< try again with backoff
  kThrottled,   ///< try again after a given time; not counted as a failure
  kPermanent,   ///< never works: dead letter at once
  kDecode,      ///< the bytes cannot be read: dead letter at once
  kNotAFailure  ///< cancellation, an open circuit: give it back, nothing is counted
};

/// What is known of a handler's error. `type` is the class name in the handler's language.
struct ErrorInfo {
  std::string type;
  std::string message;
  std::string stack;
};

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

struct LogRecord {
  LogLevel level = LogLevel::kInfo;
  std::string_view station;  ///< which part of the engine: "consumer", "scheduler", "sqlite", ...
  std::string_view text;     ///< one line, control bytes escaped, no secrets
};

/// Something that a person should look at: dead letters, or a saga.
struct Alert {
  enum class Kind : std::uint8_t {
    kDepth,           ///< pending dead letters: `value`, of `limit`
    kAge,             ///< of the oldest pending dead letter: `value`, of `limit`, in milliseconds
    kRate,            ///< dead letters in the last minute: `value`, of `limit`
    kNewFingerprint,  ///< the first dead letter of `topic` with this `fingerprint`
    kEntry,           ///< a dead letter of `topic`, with `fingerprint`
    kSagaStuck        ///< the saga `saga_id` of `saga_type`; `value`: how many are stuck
  } kind = Kind::kDepth;
  bool recovered = false;  ///< true: the condition has ended
  std::uint64_t value = 0;
  std::uint64_t limit = 0;
  std::string topic = {};
  std::string fingerprint = {};
  std::string saga_type = {};
  std::string saga_id = {};
  std::string saga_step = {};  ///< the step that is stuck; of several the first
};
/// Lower case with underscores: "depth", ...
[[nodiscard]] constexpr std::string_view name_of(Alert::Kind kind) noexcept {
  constexpr std::string_view kNames[] = {"depth",           "age",   "rate",
                                         "new_fingerprint", "entry", "saga_stuck"};
  return kNames[static_cast<std::size_t>(kind)];
}

}  // namespace towline
