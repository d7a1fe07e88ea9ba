#pragma once
// The bounds of everything that a user names or sends, checked before any I/O. Each error says which field,
// which value (escaped and cut), which bound, and what to do. The rules are those that every provider can
// carry: a name that is accepted here reaches Kafka, RabbitMQ and NATS alike, so a program never has to
// change when its provider does.
//
// Pure. `field` is the name that the user knows the value by ("topic", "dedup_id", "headers[3]").

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <towline/message.hpp>
#include <towline/result.hpp>
#include <towline/time.hpp>

namespace towline::base {

inline constexpr std::size_t kTopicLengthMax = 249;
inline constexpr std::size_t kNameLengthMax = 100;
inline constexpr std::size_t kKeyLengthMax = 255;
inline constexpr std::size_t kIdLengthMax = 255;
inline constexpr std::size_t kHeaderCountMax = 64;
inline constexpr std::size_t kHeaderNameLengthMax = 128;
inline constexpr std::size_t kHeaderBytesMax = 16 * 1024;
inline constexpr std::size_t kContentTypeLengthMax = 255;
inline constexpr std::uint8_t kPriorityMax = 9;

/// 1..249 bytes; tokens of letters, digits, '-' and '_', separated by single dots; not beginning with "$",
/// "_INBOX", "amq." or "__", which belong to servers. A pattern is refused: patterns only subscribe.
/// kInvalidTopic.
[[nodiscard]] Result<void> check_topic(std::string_view topic, std::string_view field = "topic");

/// A topic whose tokens may also be "*" (exactly one token), "#" (any number, also none) and, as the last
/// one, ">" (one or more). kInvalidTopic.
[[nodiscard]] Result<void> check_topic_pattern(std::string_view pattern, std::string_view field = "pattern");

/// Groups, consumers, idempotency scopes: 1..100 letters, digits, '.', '_', '-'. kInvalidName.
[[nodiscard]] Result<void> check_name(std::string_view name, std::string_view field);

/// Any bytes, at most 255; an empty key is a key. kInvalidKey.
[[nodiscard]] Result<void> check_key(std::string_view key, std::string_view field = "key");

/// Dedup, correlation and causation ids: 1..255 bytes of visible ASCII (no spaces). The caller decides
/// whether "" means "none". kInvalidId.
[[nodiscard]] Result<void> check_id(std::string_view id, std::string_view field);

/// At most 64 headers and 16 KiB of names and values together. A name has 1..128 bytes of visible ASCII
/// without ':', is not reserved, and differs from the others by more than case. A value is UTF-8 without
/// control bytes: some providers send headers as lines of text. kInvalidHeader, kReservedHeader,
/// kHeadersTooLarge.
[[nodiscard]] Result<void> check_headers(const Headers& headers);

/// Whether the name belongs to the engine or to a provider, in any case: towline-*, Nats-*, x-death, x-delay,
/// x-first-death-*, x-last-death-*, x-delivery-count, CC, BCC, amq*.
[[nodiscard]] bool is_reserved_header(std::string_view name) noexcept;

/// W3C trace context: version, trace id, parent id and flags in lower-case hex, ids not all zero.
/// kInvalidHeader.
[[nodiscard]] Result<void> check_traceparent(std::string_view traceparent);

/// At most 255 bytes of printable ASCII. kInvalidHeader.
[[nodiscard]] Result<void> check_content_type(std::string_view content_type);

/// 0..9. kInvalidArgument.
[[nodiscard]] Result<void> check_priority(std::uint8_t priority);

/// 0..delay_max. Also for times to live and misfire rules. kInvalidDelay.
[[nodiscard]] Result<void> check_delay(Duration delay, Duration delay_max, std::string_view field = "delay");

/// A point in time in the past is allowed and means now. Not later than now + delay_max. kInvalidDelay.
[[nodiscard]] Result<void> check_due_at(TimePoint due_at, TimePoint now, Duration delay_max,
                                        std::string_view field = "due_at");

/// kBatchTooLarge.
[[nodiscard]] Result<void> check_batch_count(std::size_t count, std::int64_t count_max);

/// The bounds that the engine's options set.
struct MessageBounds {
  std::size_t payload_bytes_max = 1 << 20;
  Duration delay_max = std::chrono::hours(24 * 366);
};

/// Everything above for a whole message, in the order of its fields, and that delay and due_at are not both
/// given. Also kPayloadTooLarge.
[[nodiscard]] Result<void> check_message(const Message& message, const MessageBounds& bounds, TimePoint now);

}  // namespace towline::base
