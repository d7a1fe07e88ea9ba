// SagaRecords; see the header. The version of the log guards everything: two who change a saga at once are
// told so, and the later one looks again.

#include "engine/saga_records.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <tuple>
#include <utility>

#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "base/text.hpp"
#include "base/validate.hpp"
#include "engine/waits.hpp"
#include "policy/backoff.hpp"

namespace towline::engine {
namespace {

constexpr std::size_t kTypeLengthMax = 64;
constexpr std::size_t kIdLengthMax = 128;
constexpr std::size_t kReadCountMax = 1000;
constexpr Duration kCallTimeoutMax = std::chrono::hours(24);
/// Others who change the same saga at once; each time one of them gets on.
constexpr int kConflictsMax = 1000;
constexpr std::string_view kWakeHeader = "saga-wake-us";

Error refused(std::string message) { return {ErrorCode::kInvalidSaga, std::move(message)}; }

Result<void> check_type(std::string_view type) {
  const auto is_bad = [](char c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return !letter && c != '-' && c != '_';
  };
  if (!type.empty() && type.size() <= kTypeLengthMax && std::none_of(type.begin(), type.end(), is_bad))
    return {};
  return refused("the type '" + base::escape(type, 64) +
                 "' is not 1 to 64 letters, digits, '-' and '_'; it becomes part of a topic");
}

Result<void> check_id(std::string_view id) {
  const bool bad =
      std::any_of(id.begin(), id.end(), [](char c) { return c <= 0x20 || c >= 0x7F || c == '/'; });
  if (!bad && !id.empty() && id.size() <= kIdLengthMax) return {};
  return Error{ErrorCode::kInvalidId, "the id '" + base::escape(id, 64) +
                                          "' of the saga is not 1 to 128 bytes of visible ASCII without '/'"};
}

Result<void> check_step(const SagaStep& step, bool is_of_flow) {
  const SagaStepOptions& options = step.options;
  if (auto bad = validate(options); !bad) return bad;
  for (const RetryOptions* retry : {&options.retry, &options.compensation_retry}) {
    if (auto bad = policy::check_retry(*retry); !bad) return bad;
  }
  for (const std::string* topic : {&options.command, &options.compensation_command}) {
    if (topic->empty()) continue;
    if (auto bad = base::check_topic(*topic); !bad) return bad;
  }
  if (!options.compensation_command.empty() && !step.compensates)
    return refused("step '" + step.name + "' has a compensation_command, but no compensation");
  if (is_of_flow && !options.command.empty())
    return refused("step '" + step.name + "' is a command; in a choreography expect() its events instead");
  const bool is_event = !step.listen_to.empty() || !step.on_success.empty() || !step.on_failure.empty();
  if (!is_of_flow && (is_event || step.is_awaited))
    return refused("step '" + step.name + "' has events, but the saga has no begins_with");
  if (step.is_awaited) return {};
  const bool calls = options.command.empty() || (step.compensates && options.compensation_command.empty());
  if (calls && options.timeout > kCallTimeoutMax) {
    return refused("step '" + step.name +
                   "' has a timeout of more than a day; what takes longer is better a command");
  }
  return {};
}

/// Whether a step that runs here publishes to the topic: then what comes from there is in the log already.
/// Others may copy the headers of what they answer.
bool is_own_outcome(const SagaDefinition& definition, std::string_view topic) {
  const std::vector<SagaStep>& steps = definition.stages.front();
  return std::any_of(steps.begin(), steps.end(), [topic](const SagaStep& step) {
    return !step.is_awaited && (step.on_success == topic || step.on_failure == topic);
  });
}

/// The same for the same version of a saga, so that one wake of it waits once. Another saga of the same name,
/// after this one was swept, has others.
MessageId wake_id(const SagaRecord& record) {
  const std::string name = saga::stream_of(record.info.type, record.info.id) + "/" +
                           record.ids.front().to_string() + "/" + std::to_string(record.version);
  const XXH128_hash_t hash = XXH3_128bits(name.data(), name.size());
  MessageId id;
  std::memcpy(id.bytes.data(), &hash, sizeof(hash));
  return id;
}

}  // namespace

std::string saga_topic(std::string_view type, std::uint32_t definition_version) {
  return "towline.saga." + std::string(type) + ".v" + std::to_string(definition_version);
}

std::string content_type_of(const Bytes& kept) {
  // The parser takes a zero byte for the end.
  const bool is_json = !kept.empty() && kept.find('\0') == Bytes::npos && nlohmann::json::accept(kept);
  return is_json ? "application/json" : std::string();
}

Result<saga::Shape> shape_of(const SagaDefinition& definition) {
  if (auto bad = check_type(definition.type); !bad) return std::move(bad).error();
  if (auto bad = validate(definition.options); !bad) return std::move(bad).error();
  saga::Shape shape;
  shape.begins_with = definition.begins_with;
  for (const std::vector<SagaStep>& stage : definition.stages) {
    std::vector<saga::Step>& steps = shape.stages.emplace_back();
    for (const SagaStep& step : stage) {
      if (auto bad = check_step(step, shape.is_flow()); !bad) return std::move(bad).error();
      steps.push_back({step.name, step.compensates, step.options.changes_nothing, step.listen_to,
                       step.on_success, step.on_failure, step.is_awaited});
      if (!step.options.pivot) continue;
      if (!shape.pivot.empty()) {
        return refused("steps '" + shape.pivot + "' and '" + step.name +
                       "' are both the pivot; a saga has one");
      }
      shape.pivot = step.name;
    }
  }
  if (auto bad = saga::check_shape(shape); !bad) return std::move(bad).error();
  return shape;
}

std::vector<std::string> events_of(const SagaDefinition& definition) {
  std::set<std::string> events;
  if (definition.options.begins) events.insert(definition.begins_with);
  for (const SagaStep& step : definition.stages.front()) {
    if (step.listen_to != definition.begins_with) events.insert(step.listen_to);
    if (step.is_awaited) events.insert({step.on_success, step.on_failure});
  }
  return {events.begin(), events.end()};
}

SagaRecords::SagaRecords(std::shared_ptr<Context> context)
    : context_(std::move(context)), publisher_(context_) {}

// ---- reading ------------------------------------------------------------------------------------

Result<SagaRecord> SagaRecords::load(std::string_view type, std::string_view id,
                                     std::vector<SagaEntry>* log) {
  const Error missing{ErrorCode::kNotFound, "there is no saga '" + base::escape(id, 64) + "' of the type '" +
                                                base::escape(type, 64) + "'"};
  // What is known without the log is read before it: it may be behind the log, and is made anew by it.
  auto known = context_->store->find_saga(type, id);
  if (!known) return std::move(known).error();
  if (!*known) return missing;
  spi::StreamRead read;
  read.space = spi::StreamSpace::kSagas;
  read.stream = saga::stream_of(type, id);
  read.count_max = kReadCountMax;
  std::optional<SagaRecord> record;
  for (bool end = false; !end;) {
    auto slice = context_->store->read_stream(read);
    if (!slice) return std::move(slice).error();
    end = slice->end;
    for (const RecordedEvent& event : slice->events) {
      auto entry = saga::from_event(event);
      if (!entry) return std::move(entry).error();
      if (!record) {
        auto shape = saga::shape_of(entry->output.value_or(Bytes()));
        if (!shape) return std::move(shape).error();
        record.emplace(std::move(**known), std::make_shared<const saga::Shape>(std::move(*shape)));
        entry->output.reset();
      }
      if (auto applied = record->state.apply(*entry); !applied)
        return Error{ErrorCode::kCorruptStore, applied.error().message};
      record->version = event.version;
      record->ids.push_back(event.id);
      if (log != nullptr) log->push_back(std::move(*entry));
      read.from = event.version + 1;
    }
  }
  if (!record) return missing;
  record->info.status = record->state.status();
  record->info.step = record->state.at();
  record->info.error = record->state.cause();
  return std::move(*record);
}

Result<std::vector<SagaEntry>> SagaRecords::timeline(std::string_view type, std::string_view id) {
  std::vector<SagaEntry> log;
  if (auto record = load(type, id, &log); !record) return std::move(record).error();
  return log;
}

Result<SagaResult> SagaRecords::result(std::string_view type, std::string_view id, Duration timeout) {
  const auto& clock = context_->clock;
  const MonotonicTime deadline = deadline_in(*clock, timeout);
  for (std::uint64_t seen = 0;;) {
    if (auto open = context_->check_open(); !open) return std::move(open).error();
    // First the place, then the look: what comes after the look is behind the place.
    auto last = context_->store->wait_for_events(
        spi::StreamSpace::kSagas, seen, seen == 0 ? MonotonicTime::min() : deadline, context_->stop_token());
    if (!last) return std::move(last).error();
    auto found = context_->store->find_saga(type, id);
    if (!found) return std::move(found).error();
    if (!*found || is_final((*found)->status)) {
      auto record = load(type, id);
      if (!record) return std::move(record).error();
      if (is_final(record->info.status)) return SagaResult{record->info, record->state.context()};
    }
    if (seen != 0 && clock->monotonic() >= deadline) {
      const SagaInfo saga = (*found).value_or(SagaInfo{});
      return Error{ErrorCode::kTimeout, "the saga '" + base::escape(id, 64) + "' is still " +
                                            std::string(name_of(saga.status)) + ", at step '" + saga.step +
                                            "'"};
    }
    seen = *last;
  }
}

// ---- changing -----------------------------------------------------------------------------------

Result<spi::Write> SagaRecords::wake_write(const SagaRecord& record, TimePoint at) {
  Message message;
  message.topic = saga_topic(record.info.type, record.info.definition_version);
  message.key = record.info.id;
  message.id = wake_id(record);
  message.due_at = std::min(at, context_->clock->now() + context_->options.delay_max);
  message.headers = {{std::string(kWakeHeader), std::to_string(to_us(*message.due_at))}};
  return publisher_.as_write(std::move(message));
}

Result<spi::Write> SagaRecords::event_write(const SagaRecord& record, const SagaEntry& entry,
                                            const MessageId& id) {
  Bytes payload = entry.mark == SagaMark::kGivenUp ? record.state.input(*record.state.find(entry.step))
                                                   : entry.output.value_or(Bytes());
  // Heard by an engine that takes more than this one.
  if (payload.size() > static_cast<std::size_t>(context_->options.payload_bytes_max)) payload.clear();
  std::string content_type = content_type_of(payload);
  Message message = Sagas::event(entry.event, record.info.id, std::move(payload));
  message.content_type = std::move(content_type);
  message.id = id;
  message.headers.emplace_back(kSagaTypeHeader, record.info.type);
  if (!entry.error.empty()) message.headers.emplace_back(kSagaErrorHeader, entry.error);
  return publisher_.as_write(std::move(message));
}

std::optional<TimePoint> SagaRecords::woken_at(const Delivery& delivery) {
  const auto header = delivery.header(kWakeHeader);
  std::int64_t us = 0;
  if (!header || std::from_chars(header->data(), header->data() + header->size(), us).ec != std::errc())
    return std::nullopt;
  return from_us(us);
}

Result<spi::Unit> SagaRecords::wake(const SagaRecord& record, TimePoint at) {
  auto write = wake_write(record, at);
  if (!write) return std::move(write).error();
  return spi::Unit{{std::move(*write)}};
}

Result<spi::Unit> SagaRecords::to_unit(SagaRecord& record, SagaChange change) {
  const TimePoint now = context_->clock->now();
  spi::AppendEvents append;
  append.space = spi::StreamSpace::kSagas;
  append.stream = saga::stream_of(record.info.type, record.info.id);
  append.expected = record.version;
  for (const SagaEntry& entry : change.entries) {
    RecordedEvent& event = append.events.emplace_back(saga::to_event(entry));
    event.id = context_->make_id(now);
    record.ids.push_back(event.id);
  }
  record.version += change.entries.size();
  record.info.status = record.state.status();
  record.info.step = record.state.at();
  record.info.error = record.state.cause();
  record.info.updated_at = now;
  const bool over =
      record.info.status == SagaStatus::kCompleted || record.info.status == SagaStatus::kCompensated;
  spi::Unit unit;
  std::string stream = append.stream;
  unit.writes.emplace_back(std::move(append));
  unit.writes.emplace_back(
      spi::PutSaga{record.info, std::move(stream), over ? now + record.info.retention : kNever});
  for (spi::Write& write : change.published)
    unit.writes.push_back(std::move(write));
  const std::size_t before = record.ids.size() - change.entries.size();
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    const SagaEntry& entry = change.entries[i];
    if (entry.event.empty() || entry.mark == SagaMark::kHeard) continue;
    auto write = event_write(record, entry, record.ids[before + i]);
    if (!write) return std::move(write).error();
    unit.writes.push_back(std::move(*write));
  }
  if (change.wake_at) {
    auto write = wake_write(record, *change.wake_at);
    if (!write) return std::move(write).error();
    unit.writes.push_back(std::move(*write));
  }
  return unit;
}

Result<SagaStarted> SagaRecords::started_before(const SagaDefinition& definition, const std::string& id,
                                                const Bytes& context) {
  std::vector<SagaEntry> log;
  auto record = load(definition.type, id, &log);
  if (!record) return std::move(record).error();
  const bool same = log.front().context.value_or(Bytes()) == context &&
                    record->info.definition_version == definition.version;
  if (same) return SagaStarted{id, false};
  return Error{ErrorCode::kConflict, "a saga '" + base::escape(id, 64) + "' of the type '" + definition.type +
                                         "' is there with another context or version; choose another id"};
}

Result<SagaStarted> SagaRecords::start(const SagaDefinition& definition, std::string id, Bytes context) {
  auto shape = shape_of(definition);
  if (!shape) return std::move(shape).error();
  const TimePoint now = context_->clock->now();
  if (id.empty()) id = context_->make_id(now).to_string();
  if (auto bad = check_id(id); !bad) return std::move(bad).error();
  const auto max = static_cast<std::size_t>(context_->options.payload_bytes_max);
  if (context.size() > max) {
    return Error{ErrorCode::kPayloadTooLarge, "the saga's context has " + std::to_string(context.size()) +
                                                  " bytes, but payload_bytes_max is " + std::to_string(max)};
  }
  SagaInfo info;
  info.type = definition.type;
  info.id = id;
  info.definition_version = definition.version;
  info.fingerprint = saga::fingerprint_of(*shape);
  info.started_at = now;
  info.retention = definition.options.retention;
  if (definition.options.deadline.count() > 0) info.deadline_at = now + definition.options.deadline;
  SagaRecord record(std::move(info), std::make_shared<const saga::Shape>(std::move(*shape)));
  SagaEntry begun;
  begun.mark = SagaMark::kBegun;
  begun.at = now;
  begun.context = context;
  if (auto applied = record.state.apply(begun); !applied) return std::move(applied).error();
  begun.output = saga::to_text(*record.shape);
  SagaChange change;
  change.entries.push_back(std::move(begun));
  change.wake_at = now;
  auto unit = to_unit(record, std::move(change));
  if (!unit) return std::move(unit).error();
  auto done = context_->store->commit({&*unit, 1});
  if (!done) return std::move(done).error();
  if (done->empty() || done->front()) return SagaStarted{std::move(id), true};
  if (done->front().error().code != ErrorCode::kConflict) return std::move(done->front()).error();
  return started_before(definition, id, context);
}

Result<HeardEvent> SagaRecords::hear(const SagaDefinition& definition, const Delivery& event) {
  const auto header = event.header(kSagaIdHeader);
  const bool begins = event.topic() == definition.begins_with;
  if (!header && !begins) return HeardEvent{};
  HeardEvent heard{Heard::kTaken, header ? std::string(*header) : event.id().to_string()};
  if (auto bad = check_id(heard.id); !bad) return std::move(bad).error();
  if (event.header(kSagaTypeHeader) == definition.type && is_own_outcome(definition, event.topic())) {
    heard.as = Heard::kOwn;
    return heard;
  }
  const auto max = static_cast<std::size_t>(context_->options.payload_bytes_max);
  if (event.payload().size() > max) {
    return Error{ErrorCode::kPayloadTooLarge, "the event has " + std::to_string(event.payload().size()) +
                                                  " bytes, but payload_bytes_max is " + std::to_string(max)};
  }
  auto changed = change(definition.type, heard.id, [&](const SagaRecord& record) -> Result<SagaEntry> {
    const bool is_own = std::find(record.ids.begin(), record.ids.end(), event.id()) != record.ids.end();
    heard.as = Heard::kOwn;
    if (is_own) return Error{ErrorCode::kConflict, "the event is of this log"};
    auto entry = record.state.hear(event.topic(), Bytes(event.payload()));
    const bool known = record.state.heard(event.topic()) != nullptr;
    heard.as = entry ? Heard::kTaken : known ? Heard::kKnown : Heard::kLate;
    return entry;
  });
  if (changed || heard.as != Heard::kTaken) return heard;
  if (changed.error().code != ErrorCode::kNotFound) return std::move(changed).error();
  heard.as = begins ? Heard::kTaken : Heard::kEarly;
  if (!begins) return heard;
  auto started = start(definition, heard.id, Bytes(event.payload()));
  // Somebody else has begun it meanwhile.
  if (!started && started.error().code != ErrorCode::kConflict) return std::move(started).error();
  return heard;
}

Result<void> SagaRecords::change(std::string_view type, std::string_view id,
                                 const std::function<Result<SagaEntry>(const SagaRecord&)>& entry_of) {
  for (int conflicts = 0;;) {
    auto record = load(type, id);
    if (!record) return std::move(record).error();
    auto entry = entry_of(*record);
    if (!entry) return std::move(entry).error();
    entry->at = context_->clock->now();
    if (auto applied = record->state.apply(*entry); !applied) return applied;
    SagaChange change;
    change.entries.push_back(std::move(*entry));
    if (!is_final(record->state.status())) change.wake_at = context_->clock->now();
    auto unit = to_unit(*record, std::move(change));
    if (!unit) return std::move(unit).error();
    auto done = context_->store->commit({&*unit, 1});
    if (!done) return std::move(done).error();
    if (done->empty() || done->front()) return {};
    if (done->front().error().code != ErrorCode::kConflict || ++conflicts == kConflictsMax)
      return std::move(done->front());
  }
}

// ---- alerts -------------------------------------------------------------------------------------

void SagaRecords::watch(MonotonicTime now) {
  if (!context_->options.on_alert || !context_->options.alert.stuck_sagas || now < watch_at_) return;
  watch_at_ = now + context_->options.sweep_interval;
  SagaQuery query;
  query.status = SagaStatus::kStuck;
  query.count_max = kReadCountMax;
  // Found by query: whoever has got them stuck may have died at it.
  auto page = context_->store->list_sagas(query);
  if (!page) return;
  StuckSagas stuck;
  for (SagaInfo& saga : page->items)
    stuck.emplace(std::pair(std::move(saga.type), std::move(saga.id)), std::move(saga.step));
  const auto tell = [&](const StuckSagas::value_type& saga, bool recovered) {
    Alert alert;
    alert.kind = Alert::Kind::kSagaStuck;
    alert.recovered = recovered;
    alert.value = stuck.size();
    std::tie(alert.saga_type, alert.saga_id) = saga.first;
    alert.saga_step = saga.second;
    context_->tell(alert);
  };
  for (const auto& saga : stuck) {
    if (!stuck_.contains(saga.first)) tell(saga, false);
  }
  StuckSagas unseen;
  for (const auto& saga : stuck_) {
    if (stuck.contains(saga.first)) continue;
    // Of more than are read it may only have made room for another.
    page->cursor.empty() ? tell(saga, true) : static_cast<void>(unseen.insert(saga));
  }
  stuck_ = std::move(stuck);
  stuck_.merge(unseen);
}

}  // namespace towline::engine
