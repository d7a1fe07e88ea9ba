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

/// A dead-letter alert.
struct DeadLetterAlert {
  enum class Kind : std::uint8_t { kDepth, kAge, kRate, kNewFingerprint, kEntry } kind = Kind::kDepth;
  bool recovered = false;  ///< true: the condition has ended
  std::uint64_t value = 0;
  std::uint64_t limit = 0;
  std::string topic;
  std::string fingerprint;
};

}  // namespace towline
