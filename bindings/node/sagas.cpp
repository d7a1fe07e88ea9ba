// Sagas: what their engine is asked, as in calls.cpp, and the calls of their steps. Those come on a thread of
// the engine, wait at the desk, and are drained with the other events.

#include <algorithm>
#include <utility>

#include "binding.hpp"
#include "record.hpp"

namespace towline::node {
namespace {

using Info = const Napi::CallbackInfo&;
using Desk = const std::shared_ptr<SagaDesk>&;

// ---- definitions --------------------------------------------------------------------------------

/// [name, whether it compensates, options, [listen to, on success, on failure, whether it is awaited]]
SagaStep step_from(const Napi::Value& value) {
  const auto fields = value.As<Napi::Array>();
  const auto events = fields.Get(std::uint32_t{3}).As<Napi::Array>();
  return {text_from(fields.Get(std::uint32_t{0}), "step"),
          fields.Get(std::uint32_t{1}).ToBoolean().Value(),
          options_from<SagaStepOptions>(fields.Get(std::uint32_t{2})),
          text_from(events.Get(std::uint32_t{0}), "listenTo"),
          text_from(events.Get(std::uint32_t{1}), "onSuccess"),
          text_from(events.Get(std::uint32_t{2}), "onFailure"),
          events.Get(std::uint32_t{3}).ToBoolean().Value()};
}

/// [type, version, options, a list of steps for each stage, begins with]
SagaDefinition definition_from(const Napi::Value& value) {
  const auto fields = value.As<Napi::Array>();
  SagaDefinition definition;
  definition.type = text_from(fields.Get(std::uint32_t{0}), "type");
  definition.version =
      static_cast<std::uint32_t>(whole_from(fields.Get(std::uint32_t{1}), "version", 0, 0xffff'ffff));
  definition.options = options_from<SagaOptions>(fields.Get(std::uint32_t{2}));
  const auto stages = fields.Get(std::uint32_t{3}).As<Napi::Array>();
  for (std::uint32_t i = 0; i < stages.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    const auto steps = stages.Get(i).As<Napi::Array>();
    std::vector<SagaStep>& stage = definition.stages.emplace_back();
    for (std::uint32_t step = 0; step < steps.Length(); ++step)
      stage.push_back(step_from(steps.Get(step)));
  }
  definition.begins_with = text_from(fields.Get(std::uint32_t{4}), "beginsWith");
  return definition;
}

SagaStatus status_from(const Napi::Value& value) {
  const std::string given = text_from(value, "status");
  for (int i = 0; i <= static_cast<int>(SagaStatus::kStuck); ++i) {
    if (given == name_of(static_cast<SagaStatus>(i))) return static_cast<SagaStatus>(i);
  }
  raise(value.Env(), {ErrorCode::kInvalidArgument,
                      "status is '" + given + "', but must be one of completed, compensated"});
}

// ---- records ------------------------------------------------------------------------------------

Napi::Value time_or_undefined(Napi::Env env, const std::optional<TimePoint>& time) {
  if (!time || *time == kNever) return env.Undefined();
  return Napi::Date::New(env, static_cast<double>(to_us(*time)) / 1e3);
}

Napi::Value bytes_or_undefined(Napi::Env env, const std::optional<Bytes>& bytes) {
  return bytes ? buffer(env, *bytes) : env.Undefined();
}

Napi::Object record(Napi::Env env, const SagaInfo& info) {
  return Record(env)
      .put("type", info.type)
      .put("id", info.id)
      .put("definitionVersion", info.definition_version)
      .put("fingerprint", info.fingerprint)
      .put("status", name_of(info.status))
      .put("step", info.step)
      .put("error", info.error)
      .put("startedAt", info.started_at)
      .put("updatedAt", info.updated_at)
      .put("deadlineAt", time_or_undefined(env, info.deadline_at))
      .put("retentionMs", static_cast<double>(info.retention.count()) / 1e3)
      .take();
}

Napi::Object record(Napi::Env env, const SagaEntry& entry) {
  return Record(env)
      .put("mark", name_of(entry.mark))
      .put("step", entry.step)
      .put("attempt", entry.attempt)
      .put("dueAt", time_or_undefined(env, entry.due_at))
      .put("output", bytes_or_undefined(env, entry.output))
      .put("context", bytes_or_undefined(env, entry.context))
      .put("error", entry.error)
      .put("event", entry.event)
      .put("at", entry.at)
      .take();
}

// ---- calls of the engine ------------------------------------------------------------------------

void start(Port& port, Info info) {
  run(port, info[0],
      [definition = definition_from(info[1]), id = text_from(info[2], "id"),
       context = bytes_from(info[3], "context")](Engine& engine) {
        return engine.sagas().start(definition, id, context);
      });
}

void find(Port& port, Info info) {
  run(port, info[0], [type = text_from(info[1], "type"), id = text_from(info[2], "id")](Engine& engine) {
    return engine.sagas().find(type, id);
  });
}

void list_sagas(Port& port, Info info) {
  run(port, info[0],
      [query = saga_query_from(info[1])](Engine& engine) { return engine.sagas().list(query); });
}

void timeline(Port& port, Info info) {
  run(port, info[0], [type = text_from(info[1], "type"), id = text_from(info[2], "id")](Engine& engine) {
    return engine.sagas().timeline(type, id);
  });
}

void result(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"),
       timeout = duration_from(info[3], "timeoutMs")](Engine& engine) {
        return engine.sagas().result(type, id, timeout);
      });
}

void cancel(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"),
       why = text_from(info[3], "why")](Engine& engine) { return engine.sagas().cancel(type, id, why); });
}

void retry(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"),
       step = text_from(info[3], "step")](Engine& engine) { return engine.sagas().retry(type, id, step); });
}

void skip(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"),
       step = text_from(info[3], "step")](Engine& engine) { return engine.sagas().skip(type, id, step); });
}

void force(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"),
       status = status_from(info[3])](Engine& engine) { return engine.sagas().force(type, id, status); });
}

void annotate(Port& port, Info info) {
  run(port, info[0],
      [type = text_from(info[1], "type"), id = text_from(info[2], "id"), note = text_from(info[3], "text")](
          Engine& engine) { return engine.sagas().annotate(type, id, note); });
}

// ---- runners ------------------------------------------------------------------------------------

std::uint64_t runner_from(const Napi::Value& value) {
  return static_cast<std::uint64_t>(whole_from(value, "runner", 0, INT64_MAX / 1024));
}

void run_saga(Port& port, Desk desk, Info info) {
  run(port, info[0],
      [desk, runner = runner_from(info[1]), definition = definition_from(info[2])](Engine& engine) {
        return desk->run(engine, runner, definition);
      });
}

void statistics(Port& port, Desk desk, Info info) {
  run(port, info[0], [desk, runner = runner_from(info[1])](Engine&) { return desk->statistics(runner); });
}

void close_runner(Port& port, Desk desk, Info info) {
  run(
      port, info[0],
      [desk, runner = runner_from(info[1]), timeout = optional_duration_from(info[2], "timeoutMs")](Engine&) {
        return desk->close(runner, timeout);
      },
      true);
}

// ---- a call -------------------------------------------------------------------------------------

void answer(Info info, const Result<void>& done) {
  if (!done) raise(info.Env(), done.error());
}

/// (call, outcome, output or undefined). When the output is refused nothing has happened.
void finish(Info info) {
  SagaCall& call = held<SagaCall>(info[0]);
  Outcome outcome = outcome_from(info[1]);
  if (!info[2].IsUndefined()) answer(info, call.set_output(bytes_from(info[2], "output")));
  Sagas::finish(call, std::move(outcome));
}

/// What a message of a saga has beside its payload.
Napi::Value without_payload(Napi::Env env, const Message& message) {
  return Record(env)
      .put("topic", message.topic)
      .put("key", message.key)
      .put("causationId", message.causation_id)
      .put("headers", Napi::Value(headers(env, message.headers)))
      .take();
}

/// (topic, id)
Napi::Value event(Info info) {
  return without_payload(info.Env(), Sagas::event(text_from(info[0], "topic"), text_from(info[1], "id"), {}));
}

/// (deliveries, place, why it failed or undefined, whether for good)
Napi::Value reply(Info info) {
  const Napi::Env env = info.Env();
  const Delivery& command = delivery_in(info, 0);
  const auto message = info[2].IsUndefined()
                           ? Sagas::reply(command, {})
                           : Sagas::reply_failed(command, text_from(info[2], "error"), info[3].ToBoolean());
  if (!message) raise(env, message.error());
  return without_payload(env, *message);
}

}  // namespace

// ---- the desk -----------------------------------------------------------------------------------

Result<void> SagaDesk::run(Engine& engine, std::uint64_t runner, const SagaDefinition& definition) {
  SagaRemote remote;
  remote.deliver = [desk = shared_from_this(), runner](std::span<SagaCall> calls) {
    std::vector<Item> items;
    for (SagaCall& call : calls)
      items.push_back({runner, std::move(call), false});
    desk->put(std::move(items));
  };
  remote.stop = [desk = shared_from_this(), runner](const SagaCall& call) {
    desk->put({{runner, call, true}});
  };
  auto running = engine.sagas().run_remote(definition, std::move(remote));
  if (!running) return std::move(running).error();
  const std::lock_guard lock(mutex_);
  if (shut_) return Error{ErrorCode::kClosed, "the engine was closed meanwhile"};
  runners_.insert_or_assign(runner, std::move(*running));
  return {};
}

Result<SagaRunnerStatistics> SagaDesk::statistics(std::uint64_t runner) const {
  const std::lock_guard lock(mutex_);
  const auto found = runners_.find(runner);
  if (found == runners_.end()) return Error{ErrorCode::kClosed, "the runner is closed"};
  return found->second.statistics();
}

Result<std::uint64_t> SagaDesk::close(std::uint64_t runner, std::optional<Duration> timeout) {
  SagaRunner closing;
  {
    const std::lock_guard lock(mutex_);
    const auto found = runners_.find(runner);
    if (found == runners_.end()) return std::uint64_t{0};
    closing = found->second;
  }
  auto closed = closing.close(timeout);
  const std::lock_guard lock(mutex_);
  runners_.erase(runner);
  return closed;
}

std::vector<SagaDesk::Item> SagaDesk::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(items_, {});
}

void SagaDesk::put(std::vector<Item> items) {
  {
    const std::lock_guard lock(mutex_);
    if (shut_ || items.empty()) return;
    const bool was_empty = items_.empty();
    std::move(items.begin(), items.end(), std::back_inserter(items_));
    if (!was_empty) return;
  }
  ring_();
}

void SagaDesk::shut() {
  std::vector<Item> items;
  std::map<std::uint64_t, SagaRunner> runners;
  const std::lock_guard lock(mutex_);
  shut_ = true;
  items.swap(items_);
  runners.swap(runners_);
}

// ---- to JavaScript ------------------------------------------------------------------------------

Napi::Value to_js(Napi::Env env, const SagaStarted& started) {
  return Record(env).put("id", started.id).put("isNew", started.is_new).take();
}

Napi::Value to_js(Napi::Env env, const SagaResult& result) {
  return Record(env)
      .put("saga", Napi::Value(record(env, result.saga)))
      .put("context", buffer(env, result.context))
      .take();
}

Napi::Value to_js(Napi::Env env, const std::optional<SagaInfo>& info) {
  return info ? Napi::Value(record(env, *info)) : env.Undefined();
}

Napi::Value to_js(Napi::Env env, const Page<SagaInfo>& page) {
  const auto items = list(env, page.items, [&](const SagaInfo& info) { return record(env, info); });
  return Record(env).put("items", Napi::Value(items)).put("cursor", page.cursor).take();
}

Napi::Value to_js(Napi::Env env, const std::vector<SagaEntry>& timeline) {
  return list(env, timeline, [&](const SagaEntry& entry) { return record(env, entry); });
}

Napi::Value to_js(Napi::Env env, const SagaRunnerStatistics& statistics) {
  return Record(env)
      .put("inHand", statistics.in_hand)
      .put("calls", statistics.calls)
      .put("failures", statistics.failures)
      .put("takenOver", statistics.taken_over)
      .put("completed", statistics.completed)
      .put("compensated", statistics.compensated)
      .put("stuck", statistics.stuck)
      .put("mismatched", statistics.mismatched)
      .put("early", statistics.early)
      .put("late", statistics.late)
      .put("strangers", statistics.strangers)
      .take();
}

Napi::Value to_js(Napi::Env env, const SagaCall& call) {
  return Record(env)
      .put("handle", hold(env, call))
      .put("number", call.number())
      .put("type", call.type())
      .put("id", call.id())
      .put("step", call.step())
      .put("phase", call.phase() == SagaPhase::kExecute ? "execute" : "compensate")
      .put("attempt", call.attempt())
      .put("key", call.key())
      .put("cause", call.cause())
      .take();
}

// ---- what is offered ----------------------------------------------------------------------------

std::vector<Call> saga_calls() {
  return {{"startSaga", start},       {"findSaga", find},     {"listSagas", list_sagas},
          {"sagaTimeline", timeline}, {"sagaResult", result}, {"cancelSaga", cancel},
          {"retrySaga", retry},       {"skipSaga", skip},     {"forceSaga", force},
          {"annotateSaga", annotate}};
}

std::vector<DeskCall> desk_calls() {
  return {{"runSaga", run_saga}, {"sagaRunnerStatistics", statistics}, {"closeSagaRunner", close_runner}};
}

void define_sagas(Napi::Env env, Napi::Object exports) {
  const auto define = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  define("sagaContext",
         [](Info info) -> Napi::Value { return buffer(info.Env(), held<SagaCall>(info[0]).context()); });
  define("sagaOutput", [](Info info) -> Napi::Value {
    return bytes_or_undefined(info.Env(), held<SagaCall>(info[0]).output_of(text_from(info[1], "step")));
  });
  define("sagaSetContext", [](Info info) {
    answer(info, held<SagaCall>(info[0]).set_context(bytes_from(info[1], "context")));
  });
  define("sagaPublish",
         [](Info info) { answer(info, held<SagaCall>(info[0]).publish(message_from(info[1]))); });
  define("sagaFinish", finish);
  define("sagaReply", reply);
  define("sagaEvent", event);
  define("sagaDiagram",
         [](Info info) -> Napi::Value { return text(info.Env(), visualize(definition_from(info[0]))); });
}

}  // namespace towline::node
