#pragma once
// The envelope: a message with its identity and with what happened to it so far. It is what transports move
// and stores keep. Codec and format: core/src/codec/FORMAT.md.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <towline/message.hpp>

namespace towline::spi {

/// One failed attempt, kept for the dead letter.
struct Failure {
  TimePoint at{};
  std::uint32_t attempt = 0;
  std::string error_type;
  std::string error_message;
};

struct Envelope {
  MessageId id;
  std::string topic;
  std::uint32_t partition = 0;
  std::optional<std::string> key;
  /// Empty: for every group of the topic. Else only for this one: a retry reaches the group that failed, no
  /// other.
  std::string group;
  Headers headers;
  std::string content_type;
  Bytes payload;
  std::uint8_t priority = 0;
  TimePoint published_at{};
  /// When set, a handler must not start at or after this time.
  TimePoint expires_at = kNever;
  std::string correlation_id;
  std::string causation_id;
  std::string traceparent;
  std::string dedup_id;
  /// Until when the dedup id keeps duplicates away; kNever with `kWhileUnfinished`.
  TimePoint dedup_until{};
  DedupMode dedup_mode = DedupMode::kWindow;

  /// 1-based: handler failures so far, plus one.
  std::uint32_t attempt = 1;
  /// The wait that preceded this attempt; decorrelated jitter continues from it.
  Duration retry_delay{0};
  /// How often the process died while this message alone was in its hands.
  std::uint32_t crashes = 0;
  /// How often it was sent back from the dead letters.
  std::uint32_t redrives = 0;
  /// This is the head of a blocked key, let through by the group's key block; see KeyBlock in store.hpp.
  bool heads_key = false;
  /// The last ten failed attempts, oldest first; with the first failure's time for the dead letter.
  std::vector<Failure> history;
  std::optional<TimePoint> first_failed_at;
};

}  // namespace towline::spi
