// The public handles Saga, SagaCall, SagaRunner and Sagas hand on to the stations.

#include <algorithm>
#include <map>
#include <utility>

#include <towline/clock.hpp>
#include <towline/engine.hpp>

#include "base/validate.hpp"
#include "engine/core.hpp"
#include "engine/saga_decider.hpp"
#include "engine/saga_records.hpp"
#include "engine/saga_runner.hpp"
#include "engine/saga_workers.hpp"
#include "engine/waits.hpp"

namespace towline {
namespace {

constexpr std::size_t kNoteLengthMax = 4096;
constexpr std::size_t kListCountMax = 1000;

Error not_open() { return Error{ErrorCode::kClosed, "this handle holds no engine; use Engine::sagas()"}; }

const engine::SagaCallState& empty_call() {
  static const engine::SagaCallState none;
  return none;
}

/// The handle's copies share this pointer; the last one to go closes the runner.
std::shared_ptr<engine::SagaRunner> closing(std::shared_ptr<engine::SagaRunner> runner) {
  engine::SagaRunner* raw = runner.get();
  return {raw, [runner = std::move(runner)](engine::SagaRunner*) mutable {
            (void)runner->close(system_clock()->monotonic() + runner->context().options.drain_timeout);
            runner.reset();
          }};
}

}  // namespace

// ---- Saga ---------------------------------------------------------------------------------------

Saga::Saga(std::string type, std::uint32_t version, SagaOptions options) {
  definition_.type = std::move(type);
  definition_.version = version;
  definition_.options = options;
}

Saga& Saga::step(std::string name, SagaHandler execute, SagaHandler compensate, SagaStepOptions options) {
  return parallel({{std::move(name), std::move(execute), std::move(compensate), std::move(options)}});
}

Saga& Saga::step(std::string name, SagaHandler execute, SagaStepOptions options) {
  return step(std::move(name), std::move(execute), SagaHandler(), std::move(options));
}

Saga& Saga::parallel(std::vector<Branch> branches) {
  std::vector<SagaStep>& stage = definition_.stages.emplace_back();
  for (Branch& branch : branches) {
    const bool compensates = branch.compensate || !branch.options.compensation_command.empty();
    stage.push_back({branch.name, compensates, branch.options});
    functions_.push_back(std::move(branch));
  }
  return *this;
}

const SagaHandler* Saga::handler(std::string_view step, SagaPhase phase) const {
  const auto found = std::find_if(functions_.begin(), functions_.end(),
                                  [&](const Branch& branch) { return branch.name == step; });
  if (found == functions_.end()) return nullptr;
  const SagaHandler& handler = phase == SagaPhase::kExecute ? found->execute : found->compensate;
  return handler ? &handler : nullptr;
}

// ---- Choreography -------------------------------------------------------------------------------

Choreography::Choreography(std::string type, std::string begins_with, std::uint32_t version,
                           SagaOptions options)
    : saga_(std::move(type), version, options) {
  saga_.definition_.begins_with = std::move(begins_with);
  saga_.definition_.stages.emplace_back();
}

Choreography& Choreography::on(std::string listen_to, SagaHandler execute, std::string on_success,
                               std::string on_failure, SagaStepOptions options, std::string name) {
  if (name.empty()) name = on_success;
  saga_.functions_.push_back({name, std::move(execute), {}, {}});
  saga_.definition_.stages.front().push_back({std::move(name), false, std::move(options),
                                              std::move(listen_to), std::move(on_success),
                                              std::move(on_failure), false});
  return *this;
}

Choreography& Choreography::expect(std::string listen_to, std::string on_success, std::string on_failure,
                                   Duration timeout, std::string name) {
  SagaStepOptions options;
  options.timeout = timeout;
  if (name.empty()) name = on_success;
  saga_.definition_.stages.front().push_back({std::move(name), false, std::move(options),
                                              std::move(listen_to), std::move(on_success),
                                              std::move(on_failure), true});
  return *this;
}

// ---- visualize ----------------------------------------------------------------------------------

namespace {

/// Events are round, steps are not; what others do is drawn thin.
std::string visualize_flow(const SagaDefinition& definition) {
  std::string out = "flowchart TD\n";
  std::map<std::string, std::string> nodes;
  const auto node_of = [&](const std::string& event) {
    const auto [at, is_new] = nodes.emplace(event, "e" + std::to_string(nodes.size() + 1));
    if (is_new) out += "  " + at->second + "([" + event + "])\n";
    return at->second;
  };
  (void)node_of(definition.begins_with);
  std::size_t number = 0;
  for (const SagaStep& step : definition.stages.front()) {
    const std::string node = "s" + std::to_string(++number);
    const std::string from = node_of(step.listen_to), to = node_of(step.on_success);
    out += "  " + node + "[" + (step.is_awaited ? "waits for " : "") + step.name + "]\n";
    out += "  " + from + " --> " + node + "\n  " + node + " --> " + to + "\n";
    if (!step.on_failure.empty()) out += "  " + node + " -. fails .-> " + node_of(step.on_failure) + "\n";
  }
  return out;
}

}  // namespace

std::string visualize(const SagaDefinition& definition) {
  if (!definition.begins_with.empty() && !definition.stages.empty()) return visualize_flow(definition);
  std::string out =
      "flowchart TD\n  start([" + definition.type + " v" + std::to_string(definition.version) + "])\n";
  std::vector<std::string> before = {"start"};
  std::size_t number = 0;
  for (const std::vector<SagaStep>& stage : definition.stages) {
    std::vector<std::string> here;
    for (const SagaStep& step : stage) {
      const std::string node = "s" + std::to_string(++number);
      here.push_back(node);
      out += "  " + node + (step.options.pivot ? "{{" : "[") + step.name + (step.options.pivot ? "}}" : "]") +
             "\n";
      for (const std::string& from : before)
        out += "  " + from + " --> " + node + "\n";
      if (step.compensates) out += "  " + node + " -. fails .-> u" + node + "[undo " + step.name + "]\n";
    }
    before = std::move(here);
  }
  out += "  done([completed])\n";
  for (const std::string& from : before)
    out += "  " + from + " --> done\n";
  return out;
}

// ---- SagaCall -----------------------------------------------------------------------------------

#define TOWLINE_STATE() (state_ == nullptr ? empty_call() : *state_)

const std::string& SagaCall::type() const noexcept { return TOWLINE_STATE().type; }
const std::string& SagaCall::id() const noexcept { return TOWLINE_STATE().id; }
const std::string& SagaCall::step() const noexcept { return TOWLINE_STATE().step; }
SagaPhase SagaCall::phase() const noexcept { return TOWLINE_STATE().call.phase; }
std::uint32_t SagaCall::attempt() const noexcept { return TOWLINE_STATE().call.attempt; }
const std::string& SagaCall::key() const noexcept { return TOWLINE_STATE().key; }
const Bytes& SagaCall::context() const noexcept { return TOWLINE_STATE().context; }
const std::string& SagaCall::cause() const noexcept { return TOWLINE_STATE().cause; }
std::stop_token SagaCall::stop_token() const noexcept { return TOWLINE_STATE().stop.get_token(); }
std::uint64_t SagaCall::number() const noexcept { return TOWLINE_STATE().number; }

std::optional<Bytes> SagaCall::output_of(std::string_view step) const {
  for (const auto& [name, output] : TOWLINE_STATE().outputs) {
    if (name == step) return output;
  }
  return std::nullopt;
}

namespace {

Result<void> check_size(std::string_view what, const Bytes& bytes, const engine::SagaCallState& call) {
  if (bytes.size() <= call.payload_bytes_max) return {};
  return Error{ErrorCode::kPayloadTooLarge,
               std::string(what) + " of step '" + call.step + "' has " + std::to_string(bytes.size()) +
                   " bytes, but payload_bytes_max is " + std::to_string(call.payload_bytes_max)};
}

Error no_call() { return {ErrorCode::kInvalidArgument, "this handle is of no call"}; }

}  // namespace

Result<void> SagaCall::set_context(Bytes context) {
  if (state_ == nullptr) return no_call();
  if (!state_->may_change_context) {
    return Error{ErrorCode::kInvalidArgument,
                 "'" + state_->key +
                     "' cannot change the context: a compensation, or a step that runs beside "
                     "others, has its output alone"};
  }
  if (auto bad = check_size("the context", context, *state_); !bad) return bad;
  state_->new_context = std::move(context);
  return {};
}

Result<void> SagaCall::set_output(Bytes output) {
  if (state_ == nullptr) return no_call();
  if (auto bad = check_size("the output", output, *state_); !bad) return bad;
  state_->output = std::move(output);
  return {};
}

Result<void> SagaCall::publish(Message message) {
  if (state_ == nullptr) return no_call();
  const auto runner = state_->runner.lock();
  if (runner == nullptr) return Error{ErrorCode::kClosed, "the runner of this saga is closed"};
  auto write = runner->as_write(std::move(message));
  if (!write) return std::move(write).error();
  state_->published.push_back(std::move(*write));
  return {};
}

// ---- SagaRunner ---------------------------------------------------------------------------------

SagaRunnerStatistics SagaRunner::statistics() const {
  return runner_ == nullptr ? SagaRunnerStatistics{} : runner_->statistics();
}

Result<std::uint64_t> SagaRunner::close(std::optional<Duration> timeout) {
  if (runner_ == nullptr) return Error{ErrorCode::kClosed, "this handle holds no runner; use Sagas::run()"};
  const Duration longest = timeout.value_or(runner_->context().options.drain_timeout);
  return runner_->close(engine::deadline_in(*system_clock(), longest));
}

// ---- Sagas --------------------------------------------------------------------------------------

#define TOWLINE_REQUIRE_CORE()             \
  if (core_ == nullptr) return not_open(); \
  if (auto open = core_->context().check_open(); !open) return std::move(open).error()

Sagas Engine::sagas() const { return Sagas(core_); }

Result<SagaRunner> Sagas::run(const Saga& saga) {
  TOWLINE_REQUIRE_CORE();
  for (const auto& stage : saga.definition().stages) {
    for (const SagaStep& step : stage) {
      const bool calls = step.options.command.empty() && !step.is_awaited;
      if (calls && saga.handler(step.name, SagaPhase::kExecute) == nullptr) {
        return Error{ErrorCode::kInvalidSaga,
                     "step '" + step.name + "' has neither a function nor a command; give it one of them"};
      }
    }
  }
  auto workers = std::make_shared<engine::SagaWorkers>(saga, core_->context_ptr());
  SagaRemote remote;
  remote.deliver = [workers](std::span<SagaCall> calls) { workers->run(calls); };
  auto runner = core_->run_saga(saga.definition(), std::move(remote), workers);
  if (!runner) return std::move(runner).error();
  return SagaRunner(closing(std::move(*runner)));
}

Result<SagaRunner> Sagas::run_remote(const SagaDefinition& definition, SagaRemote remote) {
  TOWLINE_REQUIRE_CORE();
  if (!remote.deliver) return Error{ErrorCode::kInvalidArgument, "`deliver` is empty; give a function"};
  auto runner = core_->run_saga(definition, std::move(remote), nullptr);
  if (!runner) return std::move(runner).error();
  return SagaRunner(std::move(*runner));
}

void Sagas::finish(SagaCall& call, Outcome outcome) { engine::SagaRunner::finish(call, std::move(outcome)); }

Result<SagaStarted> Sagas::start(const Saga& saga, std::string id, Bytes context) {
  return start(saga.definition(), std::move(id), std::move(context));
}

Result<SagaStarted> Sagas::start(const SagaDefinition& definition, std::string id, Bytes context) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().start(definition, std::move(id), std::move(context));
}

Result<std::optional<SagaInfo>> Sagas::find(std::string_view type, std::string_view id) {
  TOWLINE_REQUIRE_CORE();
  return core_->context().store->find_saga(type, id);
}

Result<Page<SagaInfo>> Sagas::list(const SagaQuery& query) {
  TOWLINE_REQUIRE_CORE();
  if (query.count_max < 1 || query.count_max > kListCountMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "count_max is " + std::to_string(query.count_max) + "; it must be in [1, 1000]"};
  }
  return core_->context().store->list_sagas(query);
}

Result<std::vector<SagaEntry>> Sagas::timeline(std::string_view type, std::string_view id) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().timeline(type, id);
}

Result<SagaResult> Sagas::result(std::string_view type, std::string_view id, Duration timeout) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().result(type, id, timeout);
}

Result<void> Sagas::cancel(std::string_view type, std::string_view id, std::string why) {
  TOWLINE_REQUIRE_CORE();
  if (why.size() > kNoteLengthMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "the reason has " + std::to_string(why.size()) + " bytes; it must have at most 4096"};
  }
  return core_->sagas().change(type, id,
                               [&](const engine::SagaRecord& saga) { return saga.state.cancel(why); });
}

Result<void> Sagas::retry(std::string_view type, std::string_view id, std::string_view step) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().change(type, id,
                               [&](const engine::SagaRecord& saga) { return saga.state.retry(step); });
}

Result<void> Sagas::skip(std::string_view type, std::string_view id, std::string_view step) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().change(type, id,
                               [&](const engine::SagaRecord& saga) { return saga.state.skip(step); });
}

Result<void> Sagas::force(std::string_view type, std::string_view id, SagaStatus status) {
  TOWLINE_REQUIRE_CORE();
  return core_->sagas().change(type, id,
                               [&](const engine::SagaRecord& saga) { return saga.state.force(status); });
}

Result<void> Sagas::annotate(std::string_view type, std::string_view id, std::string text) {
  TOWLINE_REQUIRE_CORE();
  if (text.empty() || text.size() > kNoteLengthMax) {
    return Error{ErrorCode::kInvalidArgument,
                 "the note has " + std::to_string(text.size()) + " bytes; it must have 1 to 4096"};
  }
  return core_->sagas().change(type, id, [&](const engine::SagaRecord&) -> Result<SagaEntry> {
    SagaEntry entry;
    entry.error = text;
    return entry;
  });
}

Message Sagas::event(std::string topic, std::string id, Bytes payload) {
  Message message;
  message.topic = std::move(topic);
  message.key = id;
  message.payload = std::move(payload);
  message.headers = {{std::string(engine::kSagaIdHeader), std::move(id)}};
  return message;
}

namespace {

Result<Message> reply_to(const Delivery& command, std::string_view outcome) {
  const auto call = command.header(engine::kCallHeader);
  const auto topic = command.header(engine::kReplyToHeader);
  if (!call || !topic || !command.key()) {
    return Error{ErrorCode::kInvalidArgument,
                 "message " + command.id().to_string() + " of topic '" + std::string(command.topic()) +
                     "' is no command of a saga: it has no saga-call and saga-reply-to headers"};
  }
  Message message;
  message.topic = std::string(*topic);
  message.key = command.key();
  message.causation_id = command.id().to_string();
  message.headers = {{std::string(engine::kCallHeader), std::string(*call)},
                     {std::string(engine::kOutcomeHeader), std::string(outcome)}};
  return message;
}

}  // namespace

Result<Message> Sagas::reply(const Delivery& command, Bytes output) {
  auto message = reply_to(command, "done");
  if (message) message->payload = std::move(output);
  return message;
}

Result<Message> Sagas::reply_failed(const Delivery& command, std::string error, bool permanent) {
  auto message = reply_to(command, permanent ? "failed_for_good" : "failed");
  if (message && !error.empty()) {
    message->headers.emplace_back(std::string(engine::kSagaErrorHeader), engine::text_of_error(error));
  }
  return message;
}

}  // namespace towline
