#pragma once
// What a user publishes, what comes back, and what a handler sees of it.

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <towline/result.hpp>
#include <towline/time.hpp>

namespace towline {

/// Opaque bytes. The engine never looks inside a payload.
using Bytes = std::string;

/// Names and values in the order the publisher gave them. Names are unique within one message.
using Headers = std::vector<std::pair<std::string, std::string>>;

/// The identity of a message: a UUIDv7 (RFC 9562), so ids made later compare greater. Stable over retry and
/// redrive.
struct MessageId {
  std::array<std::uint8_t, 16> bytes{};

  friend auto operator<=>(const MessageId&, const MessageId&) = default;
  /// Whether this is the id "no id" (all zero).
  [[nodiscard]] bool empty() const noexcept { return *this == MessageId{}; }
  /// 36 characters, lower case, with hyphens.
  [[nodiscard]] std::string to_string() const;
  /// The same, behind what stands in `text`.
  void append_to(std::string& text) const;
  /// Errors: InvalidId when the text is not 36 characters of a UUID.
  [[nodiscard]] static Result<MessageId> parse(std::string_view text);
};

struct MessageIdHash {
  std::size_t operator()(const MessageId& id) const noexcept;
};

/// How long a dedup id keeps a second publish away.
enum class DedupMode : std::uint8_t {
  kWindow,          ///< for `dedup_window_ms` (engine option) after the first publish
  kWhileUnfinished  ///< until a group has acknowledged or dead-lettered the message, or it was cancelled
};

/// What happens to a delayed message that could not fire in time because no engine ran.
struct Misfire {
  /// Zero: fire however late. Else: a message later than this when it could fire becomes a dead letter
  /// `expired`.
  Duration skip_if_late_by{0};
};

/// A message to publish. Plain value; the engine takes what it needs. Bounds are checked before any I/O.
struct Message {
  /// 1..249 bytes of letters, digits, '.', '_', '-', no empty token; never a pattern. Errors: InvalidTopic.
  std::string topic;
  Bytes payload;
  /// Messages of one key go to one partition and keep their order where a consumer asks for it. nullopt: no
  /// key; an empty string is a key. At most 255 bytes.
  std::optional<std::string> key = std::nullopt;
  /// At most 64 headers, names 1..128 bytes of visible ASCII without ':', values without control bytes, 16
  /// KiB together. Names that begin with "towline-" and some of the providers' are reserved. Errors:
  /// InvalidHeader.
  Headers headers = {};
  /// What the payload is, as a media type: at most 255 bytes of printable ASCII. Empty: bytes of which
  /// nothing is known. Errors: InvalidHeader.
  std::string content_type = {};
  /// 0 (normal) to 9 (first). Among messages that are due, a higher priority is handed out first; order per
  /// key holds within one priority.
  std::uint8_t priority = 0;
  /// From publishing (or, for a delayed message, from its due time); when it ends before a handler starts,
  /// the message becomes a dead letter `expired`. Zero: none.
  Duration ttl{0};
  /// Second publishes to the same topic with the same dedup id answer the first one's id and store nothing.
  std::string dedup_id = {};
  DedupMode dedup_mode = DedupMode::kWindow;
  std::string correlation_id = {};
  std::string causation_id = {};
  /// W3C trace context, handed on unchanged.
  std::string traceparent = {};
  /// At most one of `delay` and `due_at`. Zero and times in the past mean now. At most `delay_ms_max`.
  Duration delay{0};
  std::optional<TimePoint> due_at = std::nullopt;
  Misfire misfire = {};
  /// Empty: the engine makes a new one. Set it to know the id beforehand; it must then be new. An id alone
  /// keeps no second publish away (a dedup id does): an immediate message is stored again under the same id,
  /// a delayed one is refused with kConflict while the first one waits.
  MessageId id = {};
};

/// The three ends of a write. There is no fourth, and `kUnknown` is never reported as one of the others.
enum class PublishOutcome : std::uint8_t {
  kAcked,     ///< stored with the durability class of the engine
  kRejected,  ///< surely not stored; safe to repeat
  kUnknown    ///< the disk or connection failed after the first byte left; repeat only with a dedup id
};

/// The answer to one publish.
struct [[nodiscard]] Receipt {
  PublishOutcome outcome = PublishOutcome::kRejected;
  /// The message's id. For a duplicate: the id of the message that was there first.
  MessageId id;
  /// True when a dedup id was known already, so nothing new was stored.
  bool duplicate = false;
  /// Why, unless acked.
  Error error;

  [[nodiscard]] bool acked() const noexcept { return outcome == PublishOutcome::kAcked; }
  /// The id, or throws Exception unless acked.
  const MessageId& value() const {
    if (!acked()) throw Exception(error);
    return id;
  }
};

/// What cancel() and reschedule() answer; exactly one of cancelling and firing wins.
enum class ScheduleAnswer : std::uint8_t { kDone, kAlreadyFired, kNotFound };

/// A message that waits for its due time.
struct Scheduled {
  MessageId id;
  std::string topic;
  std::optional<std::string> key;
  TimePoint due_at;
  /// Empty: for every group. Else the one group whose retry or deferral this is.
  std::string group;
  std::uint32_t attempt = 1;
  std::size_t payload_size = 0;
};

/// One page of a listing. `cursor` is empty on the last page; otherwise hand it back for the next.
template <typename T>
struct Page {
  std::vector<T> items;
  std::string cursor;
};

}  // namespace towline
