#pragma once
// Dead letters: messages that a group could not handle, kept whole, to be looked at, changed and sent back
// (redriven).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <towline/message.hpp>

namespace towline {

enum class DeadLetterStatus : std::uint8_t {
  kPending,       ///< waits for somebody
  kReprocessing,  ///< a redrive holds it under a lease; when the lease ends it counts as pending again
  kResolved,      ///< redriven
  kExpired,       ///< given up by age; kept until the clean-up
  kDiscarded      ///< given up by a person; kept until the clean-up
};

/// Why a message became a dead letter.
enum class DeadLetterReason : std::uint8_t {
  kExhausted,      ///< `max_attempts` failures
  kPermanent,      ///< an error of a permanent class
  kDecode,         ///< the bytes could not be read
  kExpired,        ///< its time to live, or its misfire rule, ended it
  kCrashLoop,      ///< the process died `max_crashes` times while handling it
  kManual,         ///< the handler asked for it
  kPublishFailed,  ///< publish_with_retry gave up
  kMaxAge          ///< older than `max_age` of the dead-letter policy
};

/// One entry. The bytes and headers are exactly those that were published.
struct DeadLetter {
  MessageId id;          ///< of the entry
  MessageId message_id;  ///< of the message
  std::string topic;
  std::string group;
  std::optional<std::string> key;
  std::uint32_t partition = 0;
  Headers headers;
  std::string content_type;
  Bytes payload;
  DeadLetterReason reason = DeadLetterReason::kExhausted;
  std::string error_type;
  std::string error_message;
  std::string error_stack;
  /// Hash of the error type and the stack or message with numbers and addresses taken out; 16 hex digits.
  std::string fingerprint;
  std::uint32_t attempt = 0;  ///< failures when it came here
  std::uint32_t crashes = 0;
  TimePoint published_at{};
  TimePoint first_failed_at{};
  TimePoint last_failed_at{};
  TimePoint created_at{};
  std::uint32_t reprocess_count = 0;  ///< how often this message was redriven so far
  DeadLetterStatus status = DeadLetterStatus::kPending;
  TimePoint lease_until{};
  /// The last ten failures and what else the redrive needs, as JSON.
  std::string metadata;
  std::uint64_t version = 0;
};

/// All conditions must hold; an empty one always does.
struct DeadLetterQuery {
  std::string topic = {};
  std::string group = {};
  std::optional<DeadLetterStatus> status = std::nullopt;
  std::string error_type = {};
  std::string fingerprint = {};
  std::string text = {};  ///< is part of the error message or of the payload, byte for byte
  std::optional<DeadLetterReason> reason = std::nullopt;
  std::optional<TimePoint> created_from = std::nullopt;    ///< inclusive
  std::optional<TimePoint> created_before = std::nullopt;  ///< exclusive
  std::size_t count_max = 100;                             ///< 1..1000 per page
  std::string cursor = {};
};

/// Entries with one fingerprint.
struct DeadLetterGroup {
  std::string fingerprint;
  std::string topic;
  std::string error_type;
  std::string error_message;  ///< of the newest
  std::uint64_t count = 0;
  TimePoint first_at{};
  TimePoint last_at{};
};

struct RedriveOptions {
  /// Count and change nothing.
  bool dry_run = false;
  /// Entries per second; 0: no limit.
  std::uint32_t rate_per_second = 0;
  Duration delay{0};
  /// Empty: the topic it came from.
  std::string destination = {};
  /// For a single entry: replaces the payload.
  std::optional<Bytes> payload = std::nullopt;
  /// Entries redriven this often already are passed over.
  std::uint32_t redrive_max = 3;
};

struct RedriveReport {
  std::uint64_t matched = 0;
  std::uint64_t redriven = 0;
  std::uint64_t passed_over = 0;  ///< by redrive_max, or because another redrive had them
};

}  // namespace towline
