// Values both ways.

#include <cmath>

#include "binding.hpp"
#include "record.hpp"

namespace towline::node {
namespace {

constexpr double kMsMax = 9e12;  // 285 years: exact in microseconds, and beyond every bound of the engine
constexpr double kDateMsMax = 8.64e15;  // of JavaScript
constexpr std::int64_t kWholeMax = 9'007'199'254'740'991;
constexpr const char* kOutcomes[] = {"acked", "rejected", "unknown"};
constexpr const char* kAnswers[] = {"done", "already_fired", "not_found"};
constexpr const char* kStatuses[] = {"pending", "reprocessing", "resolved", "expired", "discarded"};
constexpr const char* kReasons[] = {"exhausted",  "permanent", "decode",         "expired",
                                    "crash_loop", "manual",    "publish_failed", "max_age"};
constexpr const char* kKinds[] = {"acquired", "in_progress", "completed"};
constexpr const char* kSagaStatuses[] = {"running", "compensating", "completed", "compensated", "stuck"};

Napi::Object record(Napi::Env env, const Scheduled& one) {
  return Record(env)
      .put("id", one.id.to_string())
      .put("topic", one.topic)
      .put("key", one.key)
      .put("dueAt", one.due_at)
      .put("group", one.group)
      .put("attempt", one.attempt)
      .put("payloadSize", one.payload_size)
      .take();
}

Napi::Object record(Napi::Env env, const DeadLetter& entry) {
  return Record(env)
      .put("id", entry.id.to_string())
      .put("messageId", entry.message_id.to_string())
      .put("topic", entry.topic)
      .put("group", entry.group)
      .put("key", entry.key)
      .put("partition", entry.partition)
      .put("headers", Napi::Value(headers(env, entry.headers)))
      .put("contentType", entry.content_type)
      .put("payload", buffer(env, entry.payload))
      .put("reason", kReasons[static_cast<int>(entry.reason)])
      .put("errorType", entry.error_type)
      .put("errorMessage", entry.error_message)
      .put("errorStack", entry.error_stack)
      .put("fingerprint", entry.fingerprint)
      .put("attempt", entry.attempt)
      .put("crashes", entry.crashes)
      .put("publishedAt", entry.published_at)
      .put("firstFailedAt", entry.first_failed_at)
      .put("lastFailedAt", entry.last_failed_at)
      .put("createdAt", entry.created_at)
      .put("reprocessCount", entry.reprocess_count)
      .put("status", kStatuses[static_cast<int>(entry.status)])
      .put("metadata", entry.metadata)
      .take();
}

Napi::Value place(Napi::Env env, std::uint64_t number) { return Napi::BigInt::New(env, number); }

Napi::Object record(Napi::Env env, const RecordedEvent& event) {
  return Record(env)
      .put("stream", event.stream)
      .put("version", place(env, event.version))
      .put("position", place(env, event.position))
      .put("id", event.id.to_string())
      .put("type", event.type)
      .put("payload", buffer(env, event.payload))
      .put("contentType", event.content_type)
      .put("headers", Napi::Value(headers(env, event.headers)))
      .put("recordedAt", event.recorded_at)
      .take();
}

Napi::Object record(Napi::Env env, const StreamInfo& info) {
  return Record(env)
      .put("name", info.name)
      .put("oldestVersion", place(env, info.oldest_version))
      .put("newestVersion", place(env, info.newest_version))
      .take();
}

Napi::Object record(Napi::Env env, const ConversationMessage& message) {
  return Record(env)
      .put("conversation", message.conversation)
      .put("sequence", place(env, message.sequence))
      .put("id", message.id.to_string())
      .put("sender", message.sender)
      .put("payload", buffer(env, message.payload))
      .put("contentType", message.content_type)
      .put("headers", Napi::Value(headers(env, message.headers)))
      .put("sentAt", message.sent_at)
      .take();
}

Napi::Value messages_of(Napi::Env env, const std::vector<ConversationMessage>& messages) {
  return list(env, messages, [&](const ConversationMessage& message) { return record(env, message); });
}

Napi::Object record(Napi::Env env, const CatchUp& one) {
  return Record(env)
      .put("conversation", one.conversation)
      .put("messages", messages_of(env, one.messages))
      .put("end", one.end)
      .put("gap", to_js(env, one.gap))
      .take();
}

Napi::Object record(Napi::Env env, const MissedConversation& missed) {
  return Record(env)
      .put("conversation", missed.conversation)
      .put("count", missed.count)
      .put("firstSequence", place(env, missed.first_sequence))
      .put("lastSequence", place(env, missed.last_sequence))
      .take();
}

template <typename T>
Napi::Value page_of(Napi::Env env, const Page<T>& page) {
  return Record(env)
      .put("items", Napi::Value(list(env, page.items, [&](const T& item) { return record(env, item); })))
      .put("cursor", page.cursor)
      .take();
}

Napi::Value sql_value(Napi::Env env, const SqlTransaction::Value& value) {
  if (const auto* whole = std::get_if<std::int64_t>(&value)) {
    if (*whole > kWholeMax || *whole < -kWholeMax) return Napi::BigInt::New(env, *whole);
    return Napi::Number::New(env, static_cast<double>(*whole));
  }
  if (const auto* real = std::get_if<double>(&value)) return Napi::Number::New(env, *real);
  if (const auto* bytes = std::get_if<std::string>(&value)) {
    const Napi::String as_text = text(env, *bytes);
    if (as_text.Utf8Value() != *bytes) return buffer(env, *bytes);  // a blob that is no text
    return as_text;
  }
  return env.Null();
}

SqlTransaction::Value sql_value_from(const Napi::Value& value) {
  if (value.IsNull()) return std::monostate{};
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (number == std::floor(number) && std::abs(number) <= static_cast<double>(kWholeMax))
      return static_cast<std::int64_t>(number);
    return number;
  }
  bool exact = false;
  const std::int64_t whole = value.IsBigInt() ? value.As<Napi::BigInt>().Int64Value(&exact) : 0;
  if (!exact) raise_wrong(value, "a parameter", "null, a number, a bigint of 64 bits or a string");
  return whole;
}

/// The field of an object, or nothing when it is left out.
std::optional<Napi::Value> field(const Napi::Value& from, const char* name) {
  if (!from.IsObject()) return std::nullopt;
  const Napi::Value value = from.As<Napi::Object>().Get(name);
  if (value.IsUndefined() || value.IsNull()) return std::nullopt;
  return value;
}

void set(const Napi::Value& from, const char* name, std::string& to) {
  if (const auto value = field(from, name)) to = text_from(*value, name);
}

void set(const Napi::Value& from, const char* name, Duration& to) {
  if (const auto value = field(from, name)) to = duration_from(*value, name);
}

void set(const Napi::Value& from, const char* name, bool& to) {
  const auto value = field(from, name);
  if (!value) return;
  if (!value->IsBoolean()) raise_wrong(*value, name, "a boolean");
  to = value->As<Napi::Boolean>().Value();
}

void set(const Napi::Value& from, const char* name, std::optional<TimePoint>& to) {
  if (const auto value = field(from, name)) to = time_from(*value, name);
}

template <typename T>
void set_whole(const Napi::Value& from, const char* name, std::int64_t high, T& to) {
  if (const auto value = field(from, name)) to = static_cast<T>(whole_from(*value, name, 0, high));
}

template <typename Enum, std::size_t count>
void set_enum(const Napi::Value& from, const char* name, const char* const (&names)[count],
              std::optional<Enum>& to) {
  const auto value = field(from, name);
  if (!value) return;
  const std::string given = text_from(*value, name);
  std::string known;
  for (std::size_t i = 0; i < count; ++i) {
    if (given == names[i]) {
      to = static_cast<Enum>(i);
      return;
    }
    known.append(i == 0 ? "" : ", ").append(names[i]);
  }
  raise(from.Env(), {ErrorCode::kInvalidArgument,
                     std::string(name) + " is '" + given + "', but must be one of " + known});
}

Headers headers_from(const Napi::Value& given) {
  if (!given.IsObject()) raise_wrong(given, "headers", "an object of strings");
  Headers headers;
  const auto object = given.As<Napi::Object>();
  const auto names = object.GetPropertyNames();
  for (std::uint32_t i = 0; i < names.Length(); ++i) {
    const Napi::Value given_name = names.Get(i);  // as it is: the name of a property may have a zero byte
    const std::string name = given_name.ToString();
    headers.emplace_back(name, text_from(object.Get(given_name), "header " + name));
  }
  return headers;
}

}  // namespace

// ---- to JavaScript ------------------------------------------------------------------------------

Napi::String text(Napi::Env env, std::string_view value) {
  return Napi::String::New(env, value.data(), value.size());
}

Napi::Object headers(Napi::Env env, const Headers& all) {
  auto out = Napi::Object::New(env);
  for (const auto& [name, value] : all)
    out.Set(text(env, name), text(env, value));
  return out;
}

Napi::Value to_js(Napi::Env env, const Receipt& receipt) {
  return Record(env)
      .put("outcome", kOutcomes[static_cast<int>(receipt.outcome)])
      .put("id", receipt.id.to_string())
      .put("duplicate", receipt.duplicate)
      .put("error", receipt.acked() ? env.Undefined() : error_of(env, receipt.error))
      .take();
}

Napi::Value to_js(Napi::Env env, const std::vector<Receipt>& receipts) {
  std::string ids;
  std::string ends;
  ids.reserve(receipts.size() * 36);
  ends.reserve(receipts.size());
  auto errors = Napi::Array::New(env);
  for (const Receipt& receipt : receipts) {
    receipt.id.append_to(ids);
    ends += receipt.duplicate ? 'd' : kOutcomes[static_cast<int>(receipt.outcome)][0];
    if (!receipt.acked()) errors.Set(errors.Length(), error_of(env, receipt.error));
  }
  auto out = Napi::Array::New(env, 3);
  out.Set(std::uint32_t{0}, text(env, ids));
  out.Set(std::uint32_t{1}, text(env, ends));
  out.Set(std::uint32_t{2}, errors);
  return out;
}

Napi::Value to_js(Napi::Env env, ScheduleAnswer answer) {
  return text(env, kAnswers[static_cast<int>(answer)]);
}

Napi::Value to_js(Napi::Env env, const std::vector<ScheduleAnswer>& answers) {
  return list(env, answers, [&](ScheduleAnswer answer) { return to_js(env, answer); });
}

Napi::Value to_js(Napi::Env env, const Page<Scheduled>& page) { return page_of(env, page); }
Napi::Value to_js(Napi::Env env, const Page<DeadLetter>& page) { return page_of(env, page); }

Napi::Value to_js(Napi::Env env, const std::optional<DeadLetter>& entry) {
  return entry ? Napi::Value(record(env, *entry)) : env.Undefined();
}

Napi::Value to_js(Napi::Env env, const std::vector<DeadLetterGroup>& groups) {
  return list(env, groups, [&](const DeadLetterGroup& group) {
    return Record(env)
        .put("fingerprint", group.fingerprint)
        .put("topic", group.topic)
        .put("errorType", group.error_type)
        .put("errorMessage", group.error_message)
        .put("count", group.count)
        .put("firstAt", group.first_at)
        .put("lastAt", group.last_at)
        .take();
  });
}

Napi::Value to_js(Napi::Env env, const RedriveReport& report) {
  return Record(env)
      .put("matched", report.matched)
      .put("redriven", report.redriven)
      .put("passedOver", report.passed_over)
      .take();
}

Napi::Value to_js(Napi::Env env, const IdempotencyAnswer& answer) {
  const auto token = Record(env)
                         .put("scope", answer.token.scope)
                         .put("key", answer.token.key)
                         .put("fence", Napi::Value(Napi::BigInt::New(env, answer.token.fence)))
                         .put("version", Napi::Value(Napi::BigInt::New(env, answer.token.version)))
                         .take();
  return Record(env)
      .put("kind", kKinds[static_cast<int>(answer.kind)])
      .put("token", Napi::Value(token))
      .put("retryAfterMs", static_cast<double>(answer.retry_after.count()) / 1e3)
      .put("result", buffer(env, answer.result.bytes))
      .put("contentType", answer.result.content_type)
      .take();
}

Napi::Value to_js(Napi::Env env, const EngineStatistics& statistics) {
  Record dead_letters(env);
  for (std::size_t i = 0; i < std::size(statistics.dead_letters); ++i)
    dead_letters.put(kStatuses[i], statistics.dead_letters[i]);
  return Record(env)
      .put("published", statistics.published)
      .put("duplicates", statistics.duplicates)
      .put("rejected", statistics.rejected)
      .put("unknown", statistics.unknown)
      .put("scheduledNow", statistics.scheduled_now)
      .put("parkedNow", statistics.parked_now)
      .put("fired", statistics.fired)
      .put("redriven", statistics.redriven)
      .put("swept", statistics.swept)
      .put("relayed", statistics.relayed)
      .put("refused", statistics.refused)
      .put("deadLetters", Napi::Value(dead_letters.take()))
      .put("idempotencyRecords", statistics.idempotency_records)
      .put("storeBytes", statistics.store_bytes)
      .put("latenessP50Us", statistics.lateness_p50_us)
      .put("latenessP99Us", statistics.lateness_p99_us)
      .put("latenessMaxUs", statistics.lateness_max_us)
      .take();
}

Napi::Value to_js(Napi::Env env, const ConsumerStatistics& statistics) {
  return Record(env)
      .put("received", statistics.received)
      .put("acked", statistics.acked)
      .put("failed", statistics.failed)
      .put("retried", statistics.retried)
      .put("deferred", statistics.deferred)
      .put("deadLettered", statistics.dead_lettered)
      .put("filtered", statistics.filtered)
      .put("expired", statistics.expired)
      .put("timedOut", statistics.timed_out)
      .put("leaseLost", statistics.lease_lost)
      .put("duplicates", statistics.duplicates)
      .put("discarded", statistics.discarded)
      .put("inFlight", statistics.in_flight)
      .put("running", statistics.running)
      .put("runningMax", statistics.running_max)
      .put("stuck", statistics.stuck)
      .put("blockedKeys", statistics.blocked_keys)
      .put("paused", statistics.paused)
      .put("breakerOpen", statistics.breaker_open)
      .take();
}

Napi::Value to_js(Napi::Env env, const PermitStatistics& statistics) {
  return Record(env)
      .put("limit", statistics.limit)
      .put("inUse", statistics.in_use)
      .put("waiting", statistics.waiting)
      .put("inUseMax", statistics.in_use_max)
      .put("granted", statistics.granted)
      .put("refused", statistics.refused)
      .take();
}

Napi::Value to_js(Napi::Env env, const std::vector<std::vector<SqlTransaction::Value>>& rows) {
  return list(env, rows, [&](const std::vector<SqlTransaction::Value>& row) {
    return list(env, row, [&](const SqlTransaction::Value& value) { return sql_value(env, value); });
  });
}

Napi::Value to_js(Napi::Env env, const std::vector<GroupBacklog>& backlog) {
  return list(env, backlog, [&](const GroupBacklog& group) {
    return Record(env)
        .put("topic", group.topic)
        .put("group", group.group)
        .put("waiting", group.waiting)
        .put("inFlight", group.in_flight)
        .put("memberCount", group.member_count)
        .take();
  });
}

Napi::Value to_js(Napi::Env env, const std::vector<BlockedKey>& keys) {
  return list(env, keys, [&](const BlockedKey& key) {
    return Record(env)
        .put("topic", key.topic)
        .put("group", key.group)
        .put("key", key.key)
        .put("partition", key.partition)
        .put("since", key.since)
        .put("parkedCount", key.parked_count)
        .put("held", key.held)
        .take();
  });
}

Napi::Value to_js(Napi::Env env, const std::vector<std::string>& texts) {
  return list(env, texts, [&](const std::string& one) { return text(env, one); });
}

Napi::Value to_js(Napi::Env env, const Health& health) {
  return Record(env).put("ok", health.ok).put("detail", health.detail).take();
}

Napi::Value to_js(Napi::Env env, const Alert& alert) {
  return Record(env)
      .put("kind", name_of(alert.kind))
      .put("recovered", alert.recovered)
      .put("value", alert.value)
      .put("limit", alert.limit)
      .put("topic", alert.topic)
      .put("fingerprint", alert.fingerprint)
      .put("sagaType", alert.saga_type)
      .put("sagaId", alert.saga_id)
      .put("sagaStep", alert.saga_step)
      .take();
}

Napi::Value to_js(Napi::Env env, const PortConsumer& consumer) { return hold(env, consumer); }

Napi::Value to_js(Napi::Env env, const AppendedMessage& appended) {
  return Record(env)
      .put("sequence", place(env, appended.sequence))
      .put("id", appended.id.to_string())
      .put("duplicate", appended.duplicate)
      .take();
}

Napi::Value to_js(Napi::Env env, const std::optional<ConversationGap>& extent) {
  if (!extent) return env.Undefined();
  return Record(env)
      .put("oldest", place(env, extent->oldest))
      .put("newest", place(env, extent->newest))
      .take();
}

Napi::Value to_js(Napi::Env env, const ConversationPage& page) {
  return Record(env)
      .put("messages", messages_of(env, page.messages))
      .put("end", page.end)
      .put("gap", to_js(env, page.gap))
      .take();
}

Napi::Value to_js(Napi::Env env, const Page<MissedConversation>& page) { return page_of(env, page); }

Napi::Value to_js(Napi::Env env, const Page<CatchUp>& page) { return page_of(env, page); }

Napi::Value to_js(Napi::Env env, const std::optional<std::uint64_t>& sequence) {
  return sequence ? place(env, *sequence) : env.Undefined();
}

Napi::Value to_js(Napi::Env env, const FedMessages& fed) {
  return Record(env).put("page", to_js(env, fed.page)).put("given", to_js(env, fed.given)).take();
}

Napi::Value to_js(Napi::Env env, const Appended& appended) {
  return Record(env)
      .put("firstVersion", place(env, appended.first_version))
      .put("lastVersion", place(env, appended.last_version))
      .put("lastPosition", place(env, appended.last_position))
      .put("duplicate", appended.duplicate)
      .take();
}

Napi::Value to_js(Napi::Env env, const std::vector<RecordedEvent>& events) {
  return list(env, events, [&](const RecordedEvent& event) { return record(env, event); });
}

Napi::Value to_js(Napi::Env env, const EventPage& page) {
  return Record(env)
      .put("events", to_js(env, page.events))
      .put("next", place(env, page.next))
      .put("end", page.end)
      .take();
}

Napi::Value to_js(Napi::Env env, const std::optional<StreamInfo>& info) {
  return info ? Napi::Value(record(env, *info)) : env.Undefined();
}

Napi::Value to_js(Napi::Env env, const Page<StreamInfo>& page) { return page_of(env, page); }

Napi::Value to_js(Napi::Env env, const std::optional<Snapshot>& snapshot) {
  if (!snapshot) return env.Undefined();
  return Record(env)
      .put("version", place(env, snapshot->version))
      .put("state", buffer(env, snapshot->state))
      .put("contentType", snapshot->content_type)
      .put("savedAt", snapshot->saved_at)
      .take();
}

Napi::Value to_js(Napi::Env env, const EventSubscriptionStatistics& statistics) {
  return Record(env)
      .put("active", statistics.active)
      .put("checkpoint", place(env, statistics.checkpoint))
      .put("handled", place(env, statistics.handled))
      .put("failures", place(env, statistics.failures))
      .put("lastError", statistics.last_error)
      .take();
}

Napi::Value to_js(Napi::Env env, const EventSubscription& subscription) { return hold(env, subscription); }

Napi::Object details_of(Napi::Env env, const Delivery& delivery) {
  return Record(env)
      .put("id", delivery.id().to_string())
      .put("group", delivery.group())
      .put("partition", delivery.partition())
      .put("headers", Napi::Value(headers(env, delivery.headers())))
      .put("correlationId", delivery.correlation_id())
      .put("causationId", delivery.causation_id())
      .put("traceparent", delivery.traceparent())
      .put("publishedAt", delivery.published_at())
      .put("crashes", delivery.crashes())
      .put("redelivered", delivery.redelivered())
      .put("redrives", delivery.redrives())
      .take();
}

// ---- from JavaScript ----------------------------------------------------------------------------

std::string text_from(const Napi::Value& value, std::string_view name) {
  if (!value.IsString()) raise_wrong(value, name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

std::string bytes_from(const Napi::Value& value, std::string_view name) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    raise_wrong(value, name, "a string or a Uint8Array");
  const auto bytes = value.As<Napi::Uint8Array>();
  if (bytes.ByteLength() == 0 && bytes.ArrayBuffer().IsDetached())
    raise(value.Env(), {ErrorCode::kInvalidArgument, std::string(name) + " is bytes whose memory is gone"});
  return {reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()};
}

std::int64_t whole_from(const Napi::Value& value, std::string_view name, std::int64_t low,
                        std::int64_t high) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  const bool fits = number >= static_cast<double>(low) && number <= static_cast<double>(high) &&
                    number == std::floor(number);
  if (!fits)
    raise_wrong(value, name, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  return static_cast<std::int64_t>(number);
}

Duration duration_from(const Napi::Value& value, std::string_view name) {
  const double ms = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(std::abs(ms) <= kMsMax)) raise_wrong(value, name, "a number of milliseconds, at most 9e12");
  return Duration(std::llround(ms * 1e3));
}

std::optional<Duration> optional_duration_from(const Napi::Value& value, std::string_view name) {
  if (value.IsUndefined() || value.IsNull()) return std::nullopt;
  return duration_from(value, name);
}

TimePoint time_from(const Napi::Value& value, std::string_view name) {
  double ms = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (value.IsDate()) ms = value.As<Napi::Date>().ValueOf();
  if (!(std::abs(ms) <= kDateMsMax)) raise_wrong(value, name, "a Date, or milliseconds since 1970");
  return from_us(std::llround(ms * 1e3));
}

MessageId id_from(const Napi::Value& value) {
  auto id = MessageId::parse(text_from(value, "id"));
  if (!id) raise(value.Env(), id.error());
  return *id;
}

std::vector<MessageId> ids_from(const Napi::Value& value) {
  if (!value.IsArray()) raise_wrong(value, "ids", "a list of strings");
  const auto array = value.As<Napi::Array>();
  std::vector<MessageId> ids;
  ids.reserve(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i)
    ids.push_back(id_from(array.Get(i)));
  return ids;
}

Message message_from(const Napi::Value& fields) {
  const auto all = fields.As<Napi::Array>();
  Message message;
  message.topic = text_from(all.Get(std::uint32_t{0}), "topic");
  message.payload = bytes_from(all.Get(std::uint32_t{1}), "payload");
  const Napi::Value key = all.Get(std::uint32_t{2});
  if (!key.IsUndefined() && !key.IsNull()) message.key = text_from(key, "key");
  message.content_type = text_from(all.Get(std::uint32_t{3}), "contentType");
  const Napi::Value others = all.Get(std::uint32_t{4});
  if (others.IsObject()) set_others(message, others);
  return message;
}

void set_others(Message& message, const Napi::Value& others) {
  if (const auto given = field(others, "headers")) message.headers = headers_from(*given);
  set_whole(others, "priority", 255, message.priority);
  set(others, "ttlMs", message.ttl);
  set(others, "dedupId", message.dedup_id);
  bool while_unfinished = false;
  set(others, "dedupWhileUnfinished", while_unfinished);
  if (while_unfinished) message.dedup_mode = DedupMode::kWhileUnfinished;
  set(others, "correlationId", message.correlation_id);
  set(others, "causationId", message.causation_id);
  set(others, "traceparent", message.traceparent);
  set(others, "delayMs", message.delay);
  set(others, "dueAt", message.due_at);
  set(others, "skipIfLateByMs", message.misfire.skip_if_late_by);
  if (const auto id = field(others, "id")) message.id = id_from(*id);
}

Outcome outcome_from(const Napi::Value& fields) {
  Outcome outcome;
  if (!fields.IsArray()) return outcome;
  const auto all = fields.As<Napi::Array>();
  outcome.kind = static_cast<Outcome::Kind>(whole_from(all.Get(std::uint32_t{0}), "outcome", 0, 5));
  outcome.delay = optional_duration_from(all.Get(std::uint32_t{1}), "afterMs");
  outcome.error = {text_from(all.Get(std::uint32_t{2}), "type"), text_from(all.Get(std::uint32_t{3}), "why"),
                   text_from(all.Get(std::uint32_t{4}), "stack")};
  return outcome;
}

DeadLetterQuery query_from(const Napi::Value& fields) {
  DeadLetterQuery query;
  set(fields, "topic", query.topic);
  set(fields, "group", query.group);
  set_enum(fields, "status", kStatuses, query.status);
  set(fields, "errorType", query.error_type);
  set(fields, "fingerprint", query.fingerprint);
  set(fields, "text", query.text);
  set_enum(fields, "reason", kReasons, query.reason);
  set(fields, "createdFrom", query.created_from);
  set(fields, "createdBefore", query.created_before);
  set_whole(fields, "countMax", kWholeMax, query.count_max);
  set(fields, "cursor", query.cursor);
  return query;
}

SagaQuery saga_query_from(const Napi::Value& fields) {
  SagaQuery query;
  set(fields, "type", query.type);
  set_enum(fields, "status", kSagaStatuses, query.status);
  std::uint32_t version = 0;
  set_whole(fields, "definitionVersion", 0xffff'ffff, version);
  if (field(fields, "definitionVersion")) query.definition_version = version;
  set(fields, "unfinished", query.unfinished);
  set(fields, "startedBefore", query.started_before);
  set_whole(fields, "countMax", kWholeMax, query.count_max);
  set(fields, "cursor", query.cursor);
  return query;
}

RedriveOptions redrive_from(const Napi::Value& fields) {
  RedriveOptions options;
  set(fields, "dryRun", options.dry_run);
  set_whole(fields, "ratePerSecond", 0xffff'ffff, options.rate_per_second);
  set(fields, "delayMs", options.delay);
  set(fields, "destination", options.destination);
  if (const auto payload = field(fields, "payload")) options.payload = bytes_from(*payload, "payload");
  set_whole(fields, "redriveMax", 0xffff'ffff, options.redrive_max);
  return options;
}

IdempotencyToken token_from(const Napi::Value& fields) {
  const auto number = [&](const char* name) {
    const auto value = field(fields, name);
    if (!value || !value->IsBigInt()) raise_wrong(fields, "token", "one that begin() gave");
    bool exact = false;
    return value->As<Napi::BigInt>().Uint64Value(&exact);
  };
  IdempotencyToken token;
  set(fields, "scope", token.scope);
  set(fields, "key", token.key);
  token.fence = number("fence");
  token.version = number("version");
  return token;
}

std::vector<SqlTransaction::Value> sql_values_from(const Napi::Value& value) {
  if (!value.IsArray()) raise_wrong(value, "parameters", "a list");
  const auto array = value.As<Napi::Array>();
  std::vector<SqlTransaction::Value> values;
  values.reserve(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i)
    values.push_back(sql_value_from(array.Get(i)));
  return values;
}

std::uint64_t place_from(const Napi::Value& value, std::string_view name) {
  bool exact = value.IsBigInt();
  const std::uint64_t place = exact ? value.As<Napi::BigInt>().Uint64Value(&exact) : 0;
  if (!exact) raise_wrong(value, name, "a bigint of 64 bits");
  return place;
}

std::optional<std::uint64_t> optional_place_from(const Napi::Value& value, std::string_view name) {
  if (value.IsUndefined()) return std::nullopt;
  return place_from(value, name);
}

std::vector<NewEvent> new_events_from(const Napi::Value& value) {
  if (!value.IsArray()) raise_wrong(value, "events", "a list");
  const auto given = value.As<Napi::Array>();
  std::vector<NewEvent> events(given.Length());
  for (std::uint32_t i = 0; i < given.Length(); ++i) {
    const auto fields = given.Get(i).As<Napi::Array>();
    NewEvent& event = events[i];
    event.type = text_from(fields.Get(std::uint32_t{0}), "type");
    event.payload = bytes_from(fields.Get(std::uint32_t{1}), "value");
    event.content_type = text_from(fields.Get(std::uint32_t{2}), "contentType");
    event.headers = headers_from(fields.Get(std::uint32_t{3}));
    if (const Napi::Value id = fields.Get(std::uint32_t{4}); !id.IsUndefined()) event.id = id_from(id);
  }
  return events;
}

NewConversationMessage new_conversation_message_from(const Napi::Value& value) {
  const auto fields = value.As<Napi::Array>();
  NewConversationMessage message;
  message.sender = text_from(fields.Get(std::uint32_t{0}), "sender");
  message.payload = bytes_from(fields.Get(std::uint32_t{1}), "value");
  message.content_type = text_from(fields.Get(std::uint32_t{2}), "contentType");
  message.headers = headers_from(fields.Get(std::uint32_t{3}));
  if (const Napi::Value id = fields.Get(std::uint32_t{4}); !id.IsUndefined()) message.id = id_from(id);
  return message;
}

std::vector<std::string> texts_from(const Napi::Value& value, std::string_view name) {
  if (!value.IsArray()) raise_wrong(value, name, "a list of strings");
  const auto array = value.As<Napi::Array>();
  std::vector<std::string> texts;
  texts.reserve(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i)
    texts.push_back(text_from(array.Get(i), name));
  return texts;
}

}  // namespace towline::node
