// The checks behind every public call. They run for each message, so the accepting path neither allocates nor
// copies; texts are made only for an error.

#include "base/validate.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "base/text.hpp"

namespace towline::base {
namespace {

constexpr bool is_letter_or_digit(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
constexpr bool is_token_byte(char c) noexcept { return is_letter_or_digit(c) || c == '-' || c == '_'; }
constexpr bool is_visible(char c) noexcept { return c > 0x20 && c < 0x7F; }
constexpr bool is_printable(char c) noexcept { return c >= 0x20 && c < 0x7F; }
constexpr bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }
constexpr bool is_lower_hex(char c) noexcept { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

constexpr std::size_t kShownLength = 64;

// "field 'value' problem"
Error refuse(ErrorCode code, std::string_view field, std::string_view value, std::string_view problem) {
  std::string message;
  message.append(field).append(" '").append(escape(value, kShownLength)).append("' ").append(problem);
  return Error{code, std::move(message)};
}

Error refuse_length(ErrorCode code, std::string_view field, std::string_view value, std::size_t low,
                    std::size_t high) {
  std::string problem = "has " + std::to_string(value.size()) + " bytes; it must have ";
  problem += low == 0 ? "at most " : std::to_string(low) + " to ";
  problem += std::to_string(high);
  return refuse(code, field, value, problem);
}

// Position in a value, for "at byte 7".
std::string at_byte(std::size_t position) { return " at byte " + std::to_string(position + 1); }

bool is_reserved_topic(std::string_view topic) noexcept {
  return topic.starts_with('$') || topic.starts_with("_INBOX") || topic.starts_with("amq.") ||
         topic.starts_with("__");
}

enum class Wildcards : bool { kRefused, kAllowed };

Result<void> check_tokens(std::string_view topic, std::string_view field, Wildcards wildcards) {
  const auto bad = [&](std::string_view problem) {
    return refuse(ErrorCode::kInvalidTopic, field, topic, problem);
  };
  if (topic.empty() || topic.size() > kTopicLengthMax) {
    return refuse_length(ErrorCode::kInvalidTopic, field, topic, 1, kTopicLengthMax);
  }
  if (is_reserved_topic(topic)) {
    return bad(
        "begins with a prefix that belongs to a server ($, _INBOX, amq., __); choose another first word");
  }
  std::size_t token = 0;  // where the current token begins
  for (std::size_t i = 0; i <= topic.size(); ++i) {
    if (i == topic.size() || topic[i] == '.') {
      if (i == token) return bad("has an empty token" + at_byte(i) + "; put a word between the dots");
      token = i + 1;
      continue;
    }
    const char c = topic[i];
    if (is_token_byte(c)) continue;
    if (c == '*' || c == '#' || c == '>') {
      if (wildcards == Wildcards::kRefused) {
        return bad("is a pattern; patterns only subscribe, name one topic here");
      }
      const bool whole_token = i == token && (i + 1 == topic.size() || topic[i + 1] == '.');
      if (!whole_token) return bad("has a wildcard" + at_byte(i) + " that is not a whole token");
      if (c == '>' && i + 1 != topic.size()) return bad("has '>' before its last token; use '#' there");
      continue;
    }
    return bad("has a byte that is not allowed" + at_byte(i) +
               "; use letters, digits, '-', '_' and dots between them");
  }
  return {};
}

}  // namespace

Result<void> check_topic(std::string_view topic, std::string_view field) {
  return check_tokens(topic, field, Wildcards::kRefused);
}

Result<void> check_topic_pattern(std::string_view pattern, std::string_view field) {
  return check_tokens(pattern, field, Wildcards::kAllowed);
}

Result<void> check_name(std::string_view name, std::string_view field) {
  if (name.empty() || name.size() > kNameLengthMax) {
    return refuse_length(ErrorCode::kInvalidName, field, name, 1, kNameLengthMax);
  }
  const auto bad =
      std::find_if_not(name.begin(), name.end(), [](char c) { return is_token_byte(c) || c == '.'; });
  if (bad == name.end()) return {};
  return refuse(ErrorCode::kInvalidName, field, name,
                "has a byte that is not allowed" + at_byte(static_cast<std::size_t>(bad - name.begin())) +
                    "; use letters, digits, '.', '_' and '-'");
}

Result<void> check_key(std::string_view key, std::string_view field) {
  if (key.size() <= kKeyLengthMax) return {};
  return refuse_length(ErrorCode::kInvalidKey, field, key, 0, kKeyLengthMax);
}

Result<void> check_id(std::string_view id, std::string_view field) {
  if (id.empty() || id.size() > kIdLengthMax)
    return refuse_length(ErrorCode::kInvalidId, field, id, 1, kIdLengthMax);
  const auto bad = std::find_if_not(id.begin(), id.end(), is_visible);
  if (bad == id.end()) return {};
  return refuse(ErrorCode::kInvalidId, field, id,
                "has a byte that is not visible ASCII" + at_byte(static_cast<std::size_t>(bad - id.begin())) +
                    "; encode it, for example as hex");
}

// ---- headers --------------------------------------------------------------------------------------------

bool is_reserved_header(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 5> kNames = {"x-death", "x-delay", "x-delivery-count", "cc", "bcc"};
  constexpr std::array<std::string_view, 5> kPrefixes = {"towline-", "nats-", "x-first-death-",
                                                         "x-last-death-", "amq"};
  return std::any_of(kNames.begin(), kNames.end(),
                     [&](auto reserved) { return equals_ignoring_case(name, reserved); }) ||
         std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [&](auto prefix) { return starts_with_ignoring_case(name, prefix); });
}

namespace {

Result<void> check_header_name(std::string_view name) {
  if (name.empty() || name.size() > kHeaderNameLengthMax) {
    return refuse_length(ErrorCode::kInvalidHeader, "header name", name, 1, kHeaderNameLengthMax);
  }
  const auto bad =
      std::find_if_not(name.begin(), name.end(), [](char c) { return is_visible(c) && c != ':'; });
  if (bad != name.end()) {
    return refuse(ErrorCode::kInvalidHeader, "header name", name,
                  "has a byte that is not allowed" + at_byte(static_cast<std::size_t>(bad - name.begin())) +
                      "; use visible ASCII without ':'");
  }
  if (is_reserved_header(name)) {
    return refuse(ErrorCode::kReservedHeader, "header name", name,
                  "is reserved for the engine and the providers; choose another name");
  }
  return {};
}

Result<void> check_header_value(std::string_view name, std::string_view value) {
  const auto control = std::find_if(value.begin(), value.end(), is_control);
  if (control != value.end()) {
    return refuse(ErrorCode::kInvalidHeader, "header '" + std::string(name) + "' value", value,
                  "has a control byte" + at_byte(static_cast<std::size_t>(control - value.begin())) +
                      "; encode it, for example as base64");
  }
  if (!is_utf8(value)) {
    return refuse(ErrorCode::kInvalidHeader, "header '" + std::string(name) + "' value", value,
                  "is not UTF-8; put bytes into the payload or encode them, for example as base64");
  }
  return {};
}

}  // namespace

Result<void> check_headers(const Headers& headers) {
  if (headers.size() > kHeaderCountMax) {
    return Error{ErrorCode::kHeadersTooLarge, "headers: " + std::to_string(headers.size()) +
                                                  " are given; at most " + std::to_string(kHeaderCountMax) +
                                                  " are allowed"};
  }
  std::size_t bytes = 0;
  for (const auto& [name, value] : headers)
    bytes += name.size() + value.size();
  if (bytes > kHeaderBytesMax) {
    return Error{ErrorCode::kHeadersTooLarge,
                 "headers: names and values have " + std::to_string(bytes) + " bytes together; at most " +
                     std::to_string(kHeaderBytesMax) + " are allowed, put more into the payload"};
  }
  for (std::size_t i = 0; i < headers.size(); ++i) {
    const auto& [name, value] = headers[i];
    if (auto bad = check_header_name(name); !bad) return bad;
    if (auto bad = check_header_value(name, value); !bad) return bad;
    const bool repeated =
        std::any_of(headers.begin(), headers.begin() + static_cast<std::ptrdiff_t>(i),
                    [&](const auto& other) { return equals_ignoring_case(other.first, name); });
    if (repeated) {
      return refuse(ErrorCode::kInvalidHeader, "header name", name,
                    "occurs twice (case is ignored); join the values");
    }
  }
  return {};
}

Result<void> check_traceparent(std::string_view traceparent) {
  const auto bad = [&](std::string_view problem) {
    return refuse(ErrorCode::kInvalidHeader, "traceparent", traceparent, problem);
  };
  // 2 version, 32 trace id, 16 parent id, 2 flags, with hyphens between them.
  constexpr std::size_t kLength = 55;
  constexpr std::string_view kForm = "is not of the form '00-<32 hex digits>-<16 hex digits>-<2 hex digits>'";
  if (traceparent.size() < kLength || traceparent.size() > kIdLengthMax) return bad(kForm);
  for (std::size_t i = 0; i < kLength; ++i) {
    const bool hyphen = i == 2 || i == 35 || i == 52;
    if (hyphen ? traceparent[i] != '-' : !is_lower_hex(traceparent[i])) return bad(kForm);
  }
  const std::string_view version = traceparent.substr(0, 2);
  if (version == "ff") return bad("has the version 'ff', which is not allowed");
  if (traceparent.size() > kLength) {
    // Later versions may append fields; version 00 may not.
    const std::string_view more = traceparent.substr(kLength);
    if (version == "00" || more[0] != '-' || !std::all_of(more.begin(), more.end(), is_visible))
      return bad(kForm);
  }
  const auto is_zero = [](std::string_view id) {
    return id.find_first_not_of('0') == std::string_view::npos;
  };
  if (is_zero(traceparent.substr(3, 32))) return bad("has an all-zero trace id");
  if (is_zero(traceparent.substr(36, 16))) return bad("has an all-zero parent id");
  return {};
}

Result<void> check_content_type(std::string_view content_type) {
  if (content_type.size() > kContentTypeLengthMax) {
    return refuse_length(ErrorCode::kInvalidHeader, "content_type", content_type, 0, kContentTypeLengthMax);
  }
  const auto bad = std::find_if_not(content_type.begin(), content_type.end(), is_printable);
  if (bad == content_type.end()) return {};
  return refuse(ErrorCode::kInvalidHeader, "content_type", content_type,
                "has a byte that is not printable ASCII" +
                    at_byte(static_cast<std::size_t>(bad - content_type.begin())));
}

// ---- numbers and times ----------------------------------------------------------------------------------

Result<void> check_priority(std::uint8_t priority) {
  if (priority <= kPriorityMax) return {};
  return Error{ErrorCode::kInvalidArgument,
               "priority is " + std::to_string(priority) + ", but must be 0 (normal) to 9"};
}

Result<void> check_delay(Duration delay, Duration delay_max, std::string_view field) {
  if (delay >= Duration::zero() && delay <= delay_max) return {};
  return Error{ErrorCode::kInvalidDelay, std::string(field) + " is " + std::to_string(delay.count()) +
                                             " us, but must be between 0 and " +
                                             std::to_string(delay_max.count()) +
                                             " us (engine option delay_ms_max)"};
}

Result<void> check_due_at(TimePoint due_at, TimePoint now, Duration delay_max, std::string_view field) {
  // Compared without a sum or difference that could overflow.
  if (due_at <= now) return {};
  const auto distance = static_cast<std::uint64_t>(to_us(due_at)) - static_cast<std::uint64_t>(to_us(now));
  if (delay_max >= Duration::zero() && distance <= static_cast<std::uint64_t>(delay_max.count())) return {};
  return Error{ErrorCode::kInvalidDelay,
               std::string(field) + " is " + std::to_string(distance) + " us from now, but must be at most " +
                   std::to_string(delay_max.count()) + " us from now (engine option delay_ms_max)"};
}

Result<void> check_batch_count(std::size_t count, std::int64_t count_max) {
  if (count <= static_cast<std::size_t>(count_max)) return {};
  return Error{ErrorCode::kBatchTooLarge, "the batch has " + std::to_string(count) +
                                              " messages, but batch_count_max is " +
                                              std::to_string(count_max) + "; split it"};
}

// ---- a whole message ------------------------------------------------------------------------------------

namespace {

Result<void> check_times(const Message& message, const MessageBounds& bounds, TimePoint now) {
  if (auto bad = check_delay(message.ttl, bounds.delay_max, "ttl"); !bad) return bad;
  if (auto bad = check_delay(message.delay, bounds.delay_max, "delay"); !bad) return bad;
  if (message.due_at) {
    if (message.delay != Duration::zero()) {
      return Error{ErrorCode::kInvalidDelay, "delay and due_at are both given; give at most one of them"};
    }
    if (auto bad = check_due_at(*message.due_at, now, bounds.delay_max); !bad) return bad;
  }
  return check_delay(message.misfire.skip_if_late_by, bounds.delay_max, "misfire.skip_if_late_by");
}

}  // namespace

Result<void> check_message(const Message& message, const MessageBounds& bounds, TimePoint now) {
  if (auto bad = check_topic(message.topic); !bad) return bad;
  if (message.payload.size() > bounds.payload_bytes_max) {
    return Error{ErrorCode::kPayloadTooLarge, "payload has " + std::to_string(message.payload.size()) +
                                                  " bytes; at most " +
                                                  std::to_string(bounds.payload_bytes_max) +
                                                  " are allowed (engine option payload_bytes_max)"};
  }
  if (message.key) {
    if (auto bad = check_key(*message.key); !bad) return bad;
  }
  if (!message.headers.empty()) {
    if (auto bad = check_headers(message.headers); !bad) return bad;
  }
  if (auto bad = check_content_type(message.content_type); !bad) return bad;
  if (auto bad = check_priority(message.priority); !bad) return bad;
  const std::pair<std::string_view, std::string_view> ids[] = {{message.dedup_id, "dedup_id"},
                                                               {message.correlation_id, "correlation_id"},
                                                               {message.causation_id, "causation_id"}};
  for (const auto& [id, field] : ids) {
    if (id.empty()) continue;  // none
    if (auto bad = check_id(id, field); !bad) return bad;
  }
  if (!message.traceparent.empty()) {
    if (auto bad = check_traceparent(message.traceparent); !bad) return bad;
  }
  return check_times(message, bounds, now);
}

}  // namespace towline::base
