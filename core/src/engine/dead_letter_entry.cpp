// Dead letter <-> envelope. What has a column of its own is stored there; the rest goes through `metadata`,
// so that a redriven message is the one that was published.

#include "engine/dead_letter_entry.hpp"

#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "policy/fingerprint.hpp"

namespace towline::engine {
namespace {

using nlohmann::json;

/// JSON strings must be UTF-8; anything else is shown escaped.
std::string as_text(std::string_view text) {
  return base::is_utf8(text) ? std::string(text) : base::escape(text, 4096);
}

void read(const json& object, const char* name, std::string& field) {
  const auto it = object.find(name);
  if (it != object.end() && it->is_string()) field = it->get<std::string>();
}

void read_priority(const json& object, std::uint8_t& field) {
  const auto it = object.find("priority");
  if (it == object.end() || !it->is_number_integer()) return;
  const auto value = it->get<std::int64_t>();
  if (value >= 0 && value <= base::kPriorityMax) field = static_cast<std::uint8_t>(value);
}

}  // namespace

DeadLetter make_dead_letter(const spi::Envelope& envelope, std::string_view group, const EntryFacts& facts) {
  DeadLetter entry;
  entry.id = facts.id;
  entry.message_id = envelope.id;
  entry.topic = envelope.topic;
  entry.group = std::string(group);
  entry.key = envelope.key;
  entry.partition = envelope.partition;
  if (facts.keep_original) {
    entry.headers = envelope.headers;
    entry.payload = envelope.payload;
  }
  entry.content_type = envelope.content_type;
  entry.reason = facts.reason;
  entry.error_type = facts.error.type;
  entry.error_message = facts.error.message;
  entry.error_stack = facts.error.stack;
  entry.fingerprint = policy::fingerprint(facts.error);
  entry.attempt = facts.failures;
  entry.crashes = facts.crashes;
  entry.published_at = envelope.published_at;
  entry.first_failed_at = envelope.first_failed_at.value_or(facts.now);
  entry.last_failed_at = facts.now;
  entry.created_at = facts.now;
  entry.reprocess_count = envelope.redrives;

  json metadata;
  json history = json::array();
  for (const spi::Failure& failure : envelope.history) {
    history.push_back({{"at_us", to_us(failure.at)},
                       {"attempt", failure.attempt},
                       {"type", as_text(failure.error_type)},
                       {"message", as_text(failure.error_message)}});
  }
  if (!history.empty()) metadata["history"] = std::move(history);
  if (!facts.keep_original) metadata["original"] = "dropped";
  if (envelope.priority != 0) metadata["priority"] = envelope.priority;
  const auto put = [&](const char* name, const std::string& value) {
    if (!value.empty()) metadata[name] = as_text(value);
  };
  put("correlation_id", envelope.correlation_id);
  put("causation_id", envelope.causation_id);
  put("traceparent", envelope.traceparent);
  entry.metadata = metadata.is_null() ? "{}" : metadata.dump();
  return entry;
}

spi::Envelope to_envelope(const DeadLetter& entry) {
  spi::Envelope envelope;
  envelope.id = entry.message_id;
  envelope.topic = entry.topic;
  envelope.group = entry.group;
  envelope.key = entry.key;
  envelope.partition = entry.partition;
  envelope.headers = entry.headers;
  envelope.content_type = entry.content_type;
  envelope.payload = entry.payload;
  envelope.published_at = entry.published_at;
  envelope.redrives = entry.reprocess_count + 1;
  const json metadata = json::parse(entry.metadata, nullptr, false);
  if (metadata.is_object()) {
    read_priority(metadata, envelope.priority);
    read(metadata, "correlation_id", envelope.correlation_id);
    read(metadata, "causation_id", envelope.causation_id);
    read(metadata, "traceparent", envelope.traceparent);
  }
  return envelope;
}

bool has_original(const DeadLetter& entry) {
  const json metadata = json::parse(entry.metadata, nullptr, false);
  return !metadata.is_object() || !metadata.contains("original");
}

std::string_view name_of(DeadLetterReason reason) noexcept {
  switch (reason) {
    case DeadLetterReason::kExhausted:
      return "exhausted";
    case DeadLetterReason::kPermanent:
      return "permanent";
    case DeadLetterReason::kDecode:
      return "decode";
    case DeadLetterReason::kExpired:
      return "expired";
    case DeadLetterReason::kCrashLoop:
      return "crash_loop";
    case DeadLetterReason::kManual:
      return "manual";
    case DeadLetterReason::kPublishFailed:
      return "publish_failed";
    case DeadLetterReason::kMaxAge:
      return "max_age";
  }
  return "unknown";
}

}  // namespace towline::engine
