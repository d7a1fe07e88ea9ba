// Values both ways. Records become dicts with the names of the C++ fields, which towline/records.py gives
// their types; times are microseconds since 1970, durations microseconds.

#include <array>

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>

#include "binding.hpp"

namespace towline::python {
namespace {

py::object text_or_none(const std::optional<std::string>& text) {
  return text ? py::object(py::str(*text)) : py::object(py::none());
}

py::dict dict_of(const Scheduled& one) {
  py::dict out;
  out["id"] = one.id.to_string();
  out["topic"] = one.topic;
  out["key"] = text_or_none(one.key);
  out["due_at"] = to_us(one.due_at);
  out["group"] = one.group;
  out["attempt"] = one.attempt;
  out["payload_size"] = one.payload_size;
  return out;
}

py::dict dict_of(const DeadLetter& entry) {
  py::dict headers;
  for (const auto& [name, value] : entry.headers)
    headers[py::str(name)] = value;
  py::dict out;
  out["id"] = entry.id.to_string();
  out["message_id"] = entry.message_id.to_string();
  out["topic"] = entry.topic;
  out["group"] = entry.group;
  out["key"] = text_or_none(entry.key);
  out["partition"] = entry.partition;
  out["headers"] = headers;
  out["content_type"] = entry.content_type;
  out["payload"] = py::bytes(entry.payload);
  out["reason"] = static_cast<int>(entry.reason);
  out["error_type"] = entry.error_type;
  out["error_message"] = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      entry.error_message.data(), static_cast<Py_ssize_t>(entry.error_message.size()), "replace"));
  out["error_stack"] = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      entry.error_stack.data(), static_cast<Py_ssize_t>(entry.error_stack.size()), "replace"));
  out["fingerprint"] = entry.fingerprint;
  out["attempt"] = entry.attempt;
  out["crashes"] = entry.crashes;
  out["published_at"] = to_us(entry.published_at);
  out["first_failed_at"] = to_us(entry.first_failed_at);
  out["last_failed_at"] = to_us(entry.last_failed_at);
  out["created_at"] = to_us(entry.created_at);
  out["reprocess_count"] = entry.reprocess_count;
  out["status"] = static_cast<int>(entry.status);
  out["metadata"] = entry.metadata;
  return out;
}

py::object bytes_or_none(const std::optional<Bytes>& bytes) {
  return bytes ? py::object(py::bytes(*bytes)) : py::object(py::none());
}

py::object moment_or_none(std::optional<TimePoint> moment) {
  return moment ? py::object(py::int_(to_us(*moment))) : py::object(py::none());
}

py::dict dict_of(const SagaInfo& info) {
  py::dict out;
  out["type"] = info.type;
  out["id"] = info.id;
  out["version"] = info.definition_version;
  out["fingerprint"] = info.fingerprint;
  out["status"] = std::string(name_of(info.status));
  out["step"] = info.step;
  out["error"] = info.error;
  out["started_at"] = to_us(info.started_at);
  out["updated_at"] = to_us(info.updated_at);
  out["deadline_at"] =
      moment_or_none(info.deadline_at == kNever ? std::nullopt : std::optional(info.deadline_at));
  out["retention"] = info.retention.count();
  return out;
}

template <typename T>
py::object page_of(const Page<T>& page) {
  py::list items;
  for (const T& item : page.items)
    items.append(dict_of(item));
  return py::make_tuple(items, page.cursor);
}

py::tuple tuple_of(const RecordedEvent& event) {
  py::dict headers;
  for (const auto& [name, value] : event.headers)
    headers[py::str(name)] = value;
  return py::make_tuple(event.stream, event.version, event.position, event.id.to_string(), event.type,
                        py::bytes(event.payload), event.content_type, headers, to_us(event.recorded_at));
}

py::tuple tuple_of(const StreamInfo& info) {
  return py::make_tuple(info.name, info.oldest_version, info.newest_version);
}

py::list list_of(const std::vector<ConversationMessage>& messages) {
  py::list out;
  for (const ConversationMessage& message : messages) {
    py::dict headers;
    for (const auto& [name, value] : message.headers)
      headers[py::str(name)] = value;
    out.append(py::make_tuple(message.conversation, message.sequence, message.id.to_string(), message.sender,
                              py::bytes(message.payload), message.content_type, headers,
                              to_us(message.sent_at)));
  }
  return out;
}

template <typename T>
std::optional<T> get(const py::dict& fields, const char* name) {
  if (!fields.contains(name) || fields[name].is_none()) return std::nullopt;
  return fields[name].cast<T>();
}

template <typename T>
void set(const py::dict& fields, const char* name, T& field) {
  if (auto value = get<T>(fields, name)) field = std::move(*value);
}

}  // namespace

// ---- to Python ----------------------------------------------------------------------------------

py::object to_python(const MessageId& id) { return py::str(id.to_string()); }

py::object to_python(const Receipt& receipt) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<std::array<py::object, 4>> known;
  known.call_once_and_store_result([] {
    return std::array<py::object, 4>{py::str("acked"), py::str("rejected"), py::str("unknown"),
                                     py::module_::import("towline.records").attr("Receipt")};
  });
  const std::array<py::object, 4>& objects = known.get_stored();
  // As the class itself makes one, but without a call of Python for each.
  auto* type = reinterpret_cast<PyTypeObject*>(objects[3].ptr());
  auto out = py::reinterpret_steal<py::object>(type->tp_alloc(type, 4));
  if (!out) throw py::error_already_set();
#if PY_VERSION_HEX >= 0x030E0000
  reinterpret_cast<PyTupleObject*>(out.ptr())->ob_hash = -1;  // it is not computed yet
#endif
  const auto set = [&out](Py_ssize_t at, py::object value) {
    PyTuple_SET_ITEM(out.ptr(), at, value.release().ptr());
  };
  set(0, objects.at(static_cast<std::size_t>(receipt.outcome)));
  set(1, py::str(receipt.id.to_string()));
  set(2, py::bool_(receipt.duplicate));
  set(3, receipt.acked() ? py::object(py::none()) : exception_of(receipt.error));
  // Nothing in it leads anywhere, so the garbage collector need not look.
  if (receipt.acked()) PyObject_GC_UnTrack(out.ptr());
  return out;
}

py::object to_python(const std::vector<Receipt>& receipts) {
  py::list out(receipts.size());
  for (std::size_t i = 0; i < receipts.size(); ++i)
    PyList_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), to_python(receipts[i]).release().ptr());
  return out;
}

py::object to_python(ScheduleAnswer answer) { return py::int_(static_cast<int>(answer)); }

py::object to_python(const std::vector<ScheduleAnswer>& answers) {
  py::list out;
  for (const ScheduleAnswer answer : answers)
    out.append(to_python(answer));
  return out;
}

py::object to_python(const Page<Scheduled>& page) { return page_of(page); }
py::object to_python(const Page<DeadLetter>& page) { return page_of(page); }

py::object to_python(const std::optional<DeadLetter>& entry) {
  return entry ? py::object(dict_of(*entry)) : py::object(py::none());
}

py::object to_python(const std::vector<DeadLetterGroup>& groups) {
  py::list out;
  for (const DeadLetterGroup& group : groups) {
    py::dict one;
    one["fingerprint"] = group.fingerprint;
    one["topic"] = group.topic;
    one["error_type"] = group.error_type;
    one["error_message"] = group.error_message;
    one["count"] = group.count;
    one["first_at"] = to_us(group.first_at);
    one["last_at"] = to_us(group.last_at);
    out.append(one);
  }
  return out;
}

py::object to_python(const RedriveReport& report) {
  py::dict out;
  out["matched"] = report.matched;
  out["redriven"] = report.redriven;
  out["passed_over"] = report.passed_over;
  return out;
}

py::object to_python(const IdempotencyAnswer& answer) {
  return py::make_tuple(
      static_cast<int>(answer.kind),
      py::make_tuple(answer.token.scope, answer.token.key, answer.token.fence, answer.token.version),
      answer.retry_after.count(), py::bytes(answer.result.bytes), answer.result.content_type);
}

py::object to_python(const EngineStatistics& statistics) {
  py::dict out;
  out["published"] = statistics.published;
  out["duplicates"] = statistics.duplicates;
  out["rejected"] = statistics.rejected;
  out["unknown"] = statistics.unknown;
  out["scheduled_now"] = statistics.scheduled_now;
  out["parked_now"] = statistics.parked_now;
  out["fired"] = statistics.fired;
  out["redriven"] = statistics.redriven;
  out["swept"] = statistics.swept;
  out["relayed"] = statistics.relayed;
  out["refused"] = statistics.refused;
  py::list dead_letters;
  for (const std::uint64_t count : statistics.dead_letters)
    dead_letters.append(count);
  out["dead_letters"] = dead_letters;
  out["idempotency_records"] = statistics.idempotency_records;
  out["store_bytes"] = statistics.store_bytes;
  out["lateness_p50_us"] = statistics.lateness_p50_us;
  out["lateness_p99_us"] = statistics.lateness_p99_us;
  out["lateness_max_us"] = statistics.lateness_max_us;
  return out;
}

py::object to_python(const ConsumerStatistics& statistics) {
  py::dict out;
  out["received"] = statistics.received;
  out["acked"] = statistics.acked;
  out["failed"] = statistics.failed;
  out["retried"] = statistics.retried;
  out["deferred"] = statistics.deferred;
  out["dead_lettered"] = statistics.dead_lettered;
  out["filtered"] = statistics.filtered;
  out["expired"] = statistics.expired;
  out["timed_out"] = statistics.timed_out;
  out["lease_lost"] = statistics.lease_lost;
  out["duplicates"] = statistics.duplicates;
  out["discarded"] = statistics.discarded;
  out["in_flight"] = statistics.in_flight;
  out["running"] = statistics.running;
  out["running_max"] = statistics.running_max;
  out["stuck"] = statistics.stuck;
  out["blocked_keys"] = statistics.blocked_keys;
  out["paused"] = statistics.paused;
  out["breaker_open"] = statistics.breaker_open;
  return out;
}

py::object to_python(const std::vector<GroupBacklog>& backlog) {
  py::list out;
  for (const GroupBacklog& group : backlog) {
    py::dict one;
    one["topic"] = group.topic;
    one["group"] = group.group;
    one["waiting"] = group.waiting;
    one["in_flight"] = group.in_flight;
    one["member_count"] = group.member_count;
    out.append(one);
  }
  return out;
}

py::object to_python(const std::vector<BlockedKey>& keys) {
  py::list out;
  for (const BlockedKey& key : keys) {
    py::dict one;
    one["topic"] = key.topic;
    one["group"] = key.group;
    one["key"] = key.key;
    one["partition"] = key.partition;
    one["since"] = to_us(key.since);
    one["parked_count"] = key.parked_count;
    one["held"] = key.held;
    out.append(one);
  }
  return out;
}

py::object to_python(const std::vector<std::string>& texts) { return py::cast(texts); }

py::object to_python(const Health& health) { return py::make_tuple(health.ok, health.detail); }

py::object to_python(const Alert& alert) {
  py::dict out;
  out["kind"] = name_of(alert.kind);
  out["recovered"] = alert.recovered;
  out["value"] = alert.value;
  out["limit"] = alert.limit;
  out["topic"] = alert.topic;
  out["fingerprint"] = alert.fingerprint;
  out["saga_type"] = alert.saga_type;
  out["saga_id"] = alert.saga_id;
  out["saga_step"] = alert.saga_step;
  return out;
}

py::object to_python(const AppendedMessage& appended) {
  return py::make_tuple(appended.sequence, appended.id.to_string(), appended.duplicate);
}

py::object to_python(const std::optional<ConversationGap>& extent) {
  if (!extent) return py::none();
  return py::make_tuple(extent->oldest, extent->newest);
}

py::object to_python(const ConversationPage& page) {
  return py::make_tuple(list_of(page.messages), page.end, to_python(page.gap));
}

py::object to_python(const Page<MissedConversation>& page) {
  py::list items;
  for (const MissedConversation& one : page.items)
    items.append(py::make_tuple(one.conversation, one.count, one.first_sequence, one.last_sequence));
  return py::make_tuple(items, page.cursor);
}

py::object to_python(const Page<CatchUp>& page) {
  py::list items;
  for (const CatchUp& one : page.items)
    items.append(py::make_tuple(one.conversation, list_of(one.messages), one.end, to_python(one.gap)));
  return py::make_tuple(items, page.cursor);
}

py::object to_python(const std::optional<std::uint64_t>& number) {
  return number ? py::object(py::int_(*number)) : py::object(py::none());
}

py::object to_python(const Appended& appended) {
  return py::make_tuple(appended.first_version, appended.last_version, appended.last_position,
                        appended.duplicate);
}

py::object to_python(const std::vector<RecordedEvent>& events) {
  py::list out;
  for (const RecordedEvent& event : events)
    out.append(tuple_of(event));
  return out;
}

py::object to_python(const EventPage& page) {
  return py::make_tuple(to_python(page.events), page.next, page.end);
}

py::object to_python(const std::optional<StreamInfo>& info) {
  return info ? py::object(tuple_of(*info)) : py::object(py::none());
}

py::object to_python(const Page<StreamInfo>& page) {
  py::list items;
  for (const StreamInfo& info : page.items)
    items.append(tuple_of(info));
  return py::make_tuple(items, page.cursor);
}

py::object to_python(const std::optional<Snapshot>& snapshot) {
  if (!snapshot) return py::none();
  return py::make_tuple(snapshot->version, py::bytes(snapshot->state), snapshot->content_type,
                        to_us(snapshot->saved_at));
}

py::object to_python(const EventSubscriptionStatistics& statistics) {
  return py::make_tuple(statistics.active, statistics.checkpoint, statistics.handled, statistics.failures,
                        statistics.last_error);
}

py::object to_python(const SagaStarted& started) { return py::make_tuple(started.id, started.is_new); }

py::object to_python(const std::optional<SagaInfo>& info) {
  return info ? py::object(dict_of(*info)) : py::object(py::none());
}

py::object to_python(const Page<SagaInfo>& page) { return page_of(page); }

py::object to_python(const std::vector<SagaEntry>& timeline) {
  py::list out;
  for (const SagaEntry& entry : timeline) {
    out.append(py::make_tuple(std::string(name_of(entry.mark)), entry.step, entry.attempt,
                              moment_or_none(entry.due_at), bytes_or_none(entry.output),
                              bytes_or_none(entry.context), entry.error, entry.event, to_us(entry.at)));
  }
  return out;
}

py::object to_python(const SagaResult& result) {
  return py::make_tuple(dict_of(result.saga), py::bytes(result.context));
}

py::object to_python(const PermitStatistics& statistics) {
  py::dict out;
  out["limit"] = statistics.limit;
  out["in_use"] = statistics.in_use;
  out["waiting"] = statistics.waiting;
  out["in_use_max"] = statistics.in_use_max;
  out["granted"] = statistics.granted;
  out["refused"] = statistics.refused;
  return out;
}

// ---- from Python --------------------------------------------------------------------------------

MessageId id_from(const std::string& text) {
  auto id = MessageId::parse(text);
  if (!id) raise(id.error());
  return *id;
}

bool plain_message_from(const py::handle& fields, Message& message) {
  if (!PyDict_CheckExact(fields.ptr())) return false;
  const auto is = [](PyObject* name, const char* text) {
    return PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, text) == 0;
  };
  const auto take_text = [](PyObject* value, std::string& text) {
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : nullptr;
    if (bytes == nullptr) {
      PyErr_Clear();
      return false;
    }
    text.assign(bytes, static_cast<std::size_t>(size));
    return true;
  };
  bool has_topic = false;
  bool has_payload = false;
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  for (Py_ssize_t at = 0; PyDict_Next(fields.ptr(), &at, &name, &value) != 0;) {
    if (is(name, "payload") && PyBytes_CheckExact(value)) {
      message.payload.assign(PyBytes_AS_STRING(value), static_cast<std::size_t>(PyBytes_GET_SIZE(value)));
      has_payload = true;
    } else if (is(name, "topic")) {
      has_topic = take_text(value, message.topic);
    } else if (!is(name, "key") || !take_text(value, message.key.emplace())) {
      return false;
    }
  }
  return has_topic && has_payload;
}

Message message_from(const py::tuple& fields) {
  Message message;
  message.topic = fields[0].cast<std::string>();
  message.payload = fields[1].cast<std::string>();
  if (!fields[2].is_none()) message.key = fields[2].cast<std::string>();
  for (const auto& [name, value] : fields[3].cast<py::dict>())
    message.headers.emplace_back(name.cast<std::string>(), value.cast<std::string>());
  message.content_type = fields[4].cast<std::string>();
  message.priority = fields[5].cast<std::uint8_t>();
  message.ttl = Duration(fields[6].cast<std::int64_t>());
  message.dedup_id = fields[7].cast<std::string>();
  message.dedup_mode = fields[8].cast<bool>() ? DedupMode::kWhileUnfinished : DedupMode::kWindow;
  message.correlation_id = fields[9].cast<std::string>();
  message.causation_id = fields[10].cast<std::string>();
  message.traceparent = fields[11].cast<std::string>();
  message.delay = Duration(fields[12].cast<std::int64_t>());
  if (!fields[13].is_none()) message.due_at = from_us(fields[13].cast<std::int64_t>());
  message.misfire.skip_if_late_by = Duration(fields[14].cast<std::int64_t>());
  if (!fields[15].is_none()) message.id = id_from(fields[15].cast<std::string>());
  return message;
}

std::vector<NewEvent> new_events_from(const py::list& events) {
  std::vector<NewEvent> out;
  out.reserve(events.size());
  for (const py::handle one : events) {
    const auto fields = py::reinterpret_borrow<py::tuple>(one);
    NewEvent& event = out.emplace_back();
    event.type = fields[0].cast<std::string>();
    event.payload = fields[1].cast<std::string>();
    event.content_type = fields[2].cast<std::string>();
    for (const auto& [name, value] : fields[3].cast<py::dict>())
      event.headers.emplace_back(name.cast<std::string>(), value.cast<std::string>());
    if (!fields[4].is_none()) event.id = id_from(fields[4].cast<std::string>());
  }
  return out;
}

Outcome outcome_from(const py::tuple& fields) {
  Outcome outcome;
  outcome.kind = static_cast<Outcome::Kind>(fields[0].cast<int>());
  if (!fields[1].is_none()) outcome.delay = Duration(fields[1].cast<std::int64_t>());
  outcome.error = {fields[2].cast<std::string>(), fields[3].cast<std::string>(),
                   fields[4].cast<std::string>()};
  return outcome;
}

SagaStatus saga_status_from(const std::string& name) {
  std::string known;
  for (const SagaStatus status : {SagaStatus::kRunning, SagaStatus::kCompensating, SagaStatus::kCompleted,
                                  SagaStatus::kCompensated, SagaStatus::kStuck}) {
    if (name_of(status) == name) return status;
    known += (known.empty() ? "" : ", ") + std::string(name_of(status));
  }
  raise({ErrorCode::kInvalidArgument, "status is '" + name + "', but must be one of " + known});
}

SagaDefinition saga_definition_from(const py::tuple& fields) {
  SagaDefinition definition;
  definition.type = fields[0].cast<std::string>();
  definition.version = fields[1].cast<std::uint32_t>();
  definition.options = options_from<SagaOptions>(fields[2].cast<OptionTexts>());
  for (const py::handle stage : fields[3].cast<py::list>()) {
    std::vector<SagaStep>& steps = definition.stages.emplace_back();
    for (const py::handle one : stage.cast<py::list>()) {
      const auto step = one.cast<py::tuple>();
      const auto events = step[3].cast<py::tuple>();
      steps.push_back({step[0].cast<std::string>(), step[1].cast<bool>(),
                       options_from<SagaStepOptions>(step[2].cast<OptionTexts>()),
                       events[0].cast<std::string>(), events[1].cast<std::string>(),
                       events[2].cast<std::string>(), events[3].cast<bool>()});
    }
  }
  definition.begins_with = fields[4].cast<std::string>();
  return definition;
}

SagaQuery saga_query_from(const py::dict& fields) {
  SagaQuery query;
  set(fields, "type", query.type);
  if (const auto status = get<std::string>(fields, "status")) query.status = saga_status_from(*status);
  if (const auto version = get<std::uint32_t>(fields, "version")) query.definition_version = version;
  set(fields, "unfinished", query.unfinished);
  if (const auto before = get<std::int64_t>(fields, "started_before"))
    query.started_before = from_us(*before);
  set(fields, "count_max", query.count_max);
  set(fields, "cursor", query.cursor);
  return query;
}

DeadLetterQuery query_from(const py::dict& fields) {
  DeadLetterQuery query;
  set(fields, "topic", query.topic);
  set(fields, "group", query.group);
  if (const auto status = get<int>(fields, "status")) query.status = static_cast<DeadLetterStatus>(*status);
  set(fields, "error_type", query.error_type);
  set(fields, "fingerprint", query.fingerprint);
  set(fields, "text", query.text);
  if (const auto reason = get<int>(fields, "reason")) query.reason = static_cast<DeadLetterReason>(*reason);
  if (const auto from = get<std::int64_t>(fields, "created_from")) query.created_from = from_us(*from);
  if (const auto before = get<std::int64_t>(fields, "created_before"))
    query.created_before = from_us(*before);
  set(fields, "count_max", query.count_max);
  set(fields, "cursor", query.cursor);
  return query;
}

RedriveOptions redrive_from(const py::dict& fields) {
  RedriveOptions options;
  set(fields, "dry_run", options.dry_run);
  set(fields, "rate_per_second", options.rate_per_second);
  if (const auto delay = get<std::int64_t>(fields, "delay")) options.delay = Duration(*delay);
  set(fields, "destination", options.destination);
  if (auto payload = get<std::string>(fields, "payload")) options.payload = std::move(*payload);
  set(fields, "redrive_max", options.redrive_max);
  return options;
}

}  // namespace towline::python
