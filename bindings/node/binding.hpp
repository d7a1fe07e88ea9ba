#pragma once
// What the files of the Node addon share. Nothing here or in them decides anything: values are converted, on
// the thread of the environment that asked; no thread of the engine ever touches a JavaScript value.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <napi.h>

#include <towline/permits.hpp>
#include <towline/port.hpp>

namespace towline::node {

/// One per environment (the main thread, each worker): nothing is static.
struct AddonData {
  /// (number, message, native code) -> the error of the table; from node/src/errors.ts.
  Napi::FunctionReference make_error;
};

// ---- errors (addon.cpp) -------------------------------------------------------------------------

/// The error of the table; not thrown yet.
[[nodiscard]] Napi::Value error_of(Napi::Env env, const Error& error);
[[noreturn]] void raise(Napi::Env env, const Error& error);
/// kInvalidArgument: "<name> is a <type>, but must be <wanted>".
[[noreturn]] void raise_wrong(const Napi::Value& value, std::string_view name, std::string_view wanted);

// ---- to JavaScript (convert.cpp) ----------------------------------------------------------------
// Records become objects with the names of the C++ fields in camelCase; times become Dates, enumerators
// their names in snake_case.

[[nodiscard]] Napi::String text(Napi::Env env, std::string_view value);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Receipt& receipt);
/// [ids behind each other, a letter for each end, an error for each that is not acked]; see records.ts.
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<Receipt>& receipts);
[[nodiscard]] Napi::Value to_js(Napi::Env env, ScheduleAnswer answer);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<ScheduleAnswer>& answers);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<Scheduled>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<DeadLetter>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<DeadLetter>& entry);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<DeadLetterGroup>& groups);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const RedriveReport& report);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const IdempotencyAnswer& answer);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const EngineStatistics& statistics);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const ConsumerStatistics& statistics);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<GroupBacklog>& backlog);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<BlockedKey>& keys);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<std::string>& texts);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Health& health);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Alert& alert);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const PortConsumer& consumer);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const PermitStatistics& statistics);
// Versions and positions are BigInts.
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Appended& appended);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<RecordedEvent>& events);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const EventPage& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<StreamInfo>& info);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<StreamInfo>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<Snapshot>& snapshot);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const EventSubscriptionStatistics& statistics);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const EventSubscription& subscription);
/// What a feed gives, and how far it is then.
struct FedMessages {
  ConversationPage page;
  std::optional<std::uint64_t> given;
};
// Sequences are BigInts.
[[nodiscard]] Napi::Value to_js(Napi::Env env, const AppendedMessage& appended);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const ConversationPage& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<ConversationGap>& extent);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<MissedConversation>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<CatchUp>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<std::uint64_t>& sequence);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const FedMessages& fed);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const SagaStarted& started);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const SagaResult& result);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::optional<SagaInfo>& info);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const Page<SagaInfo>& page);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<SagaEntry>& timeline);
[[nodiscard]] Napi::Value to_js(Napi::Env env, const SagaRunnerStatistics& statistics);
/// A call with its handle, for the function that runs it.
[[nodiscard]] Napi::Value to_js(Napi::Env env, const SagaCall& call);
/// Rows of SQL: whole numbers that a double cannot hold as BigInt, texts that are no UTF-8 as Buffer.
[[nodiscard]] Napi::Value to_js(Napi::Env env, const std::vector<std::vector<SqlTransaction::Value>>& rows);
[[nodiscard]] inline Napi::Value to_js(Napi::Env env, std::uint64_t number) {
  return Napi::Number::New(env, static_cast<double>(number));
}
[[nodiscard]] inline Napi::Value to_js(Napi::Env env, bool yes) { return Napi::Boolean::New(env, yes); }
[[nodiscard]] Napi::Object headers(Napi::Env env, const Headers& all);
/// What a handler rarely asks for: id, group, partition, headers and so on.
[[nodiscard]] Napi::Object details_of(Napi::Env env, const Delivery& delivery);

// ---- from JavaScript ----------------------------------------------------------------------------

[[nodiscard]] std::string text_from(const Napi::Value& value, std::string_view name);
/// A string as UTF-8, or the bytes of a Uint8Array.
[[nodiscard]] std::string bytes_from(const Napi::Value& value, std::string_view name);
[[nodiscard]] std::int64_t whole_from(const Napi::Value& value, std::string_view name, std::int64_t low,
                                      std::int64_t high);
/// Milliseconds, whole or not.
[[nodiscard]] Duration duration_from(const Napi::Value& value, std::string_view name);
[[nodiscard]] std::optional<Duration> optional_duration_from(const Napi::Value& value, std::string_view name);
/// Milliseconds since 1970.
[[nodiscard]] TimePoint time_from(const Napi::Value& value, std::string_view name);
[[nodiscard]] MessageId id_from(const Napi::Value& value);
[[nodiscard]] std::vector<MessageId> ids_from(const Napi::Value& value);
/// [topic, payload, key, content type, others]; see native.ts.
[[nodiscard]] Message message_from(const Napi::Value& fields);
/// The options of a message that are rarely given, by their names in calls.ts.
void set_others(Message& message, const Napi::Value& others);
/// undefined, or [kind, delay in milliseconds or undefined, type, message, stack].
[[nodiscard]] Outcome outcome_from(const Napi::Value& fields);
[[nodiscard]] SagaQuery saga_query_from(const Napi::Value& fields);
[[nodiscard]] DeadLetterQuery query_from(const Napi::Value& fields);
[[nodiscard]] RedriveOptions redrive_from(const Napi::Value& fields);
[[nodiscard]] IdempotencyToken token_from(const Napi::Value& fields);
/// A list of null, numbers (whole ones as such), bigints of 64 bits, strings.
[[nodiscard]] std::vector<SqlTransaction::Value> sql_values_from(const Napi::Value& value);
/// A BigInt of a version or a position.
[[nodiscard]] std::uint64_t place_from(const Napi::Value& value, std::string_view name);
[[nodiscard]] std::optional<std::uint64_t> optional_place_from(const Napi::Value& value,
                                                               std::string_view name);
/// A list of [type, payload, content type, headers, id or undefined].
[[nodiscard]] std::vector<NewEvent> new_events_from(const Napi::Value& value);
/// [sender, payload, content type, headers, id or undefined].
[[nodiscard]] NewConversationMessage new_conversation_message_from(const Napi::Value& value);
[[nodiscard]] std::vector<std::string> texts_from(const Napi::Value& value, std::string_view name);

/// From [name, value, name, value ...], as set_option takes them.
template <typename Options>
[[nodiscard]] Options options_from(const Napi::Value& value) {
  Options options;
  const std::vector<std::string> texts = texts_from(value, "options");
  for (std::size_t i = 0; i + 1 < texts.size(); i += 2) {
    if (auto bad = set_option(options, texts[i], texts[i + 1]); !bad) raise(value.Env(), bad.error());
  }
  return options;
}

// ---- the port (port.cpp, calls.cpp) -------------------------------------------------------------

/// What a call came to, made on a thread of the port; converted when it is drained.
struct ValueReply : Reply {
  /// Throws what the call came to when it failed.
  virtual Napi::Value take(Napi::Env env) = 0;
};

template <typename T>
struct ReplyOf final : ValueReply {
  explicit ReplyOf(Result<T> given) : result(std::move(given)) {}
  Napi::Value take(Napi::Env env) override {
    if (!result) raise(env, result.error());
    if constexpr (std::is_void_v<T>) {
      return env.Undefined();
    } else {
      return to_js(env, *result);
    }
  }
  Result<T> result;
};

template <typename R>
struct ValueOf;
template <typename T>
struct ValueOf<Result<T>> {
  using Type = T;
};

/// Starts `work`, a `Result<T>(Engine&)` that touches no JavaScript value; its answer is the event `id`.
/// `urgent`: as Port::call.
template <typename Work>
void run(Port& port, const Napi::Value& id, Work work, bool urgent = false) {
  using T = typename ValueOf<std::invoke_result_t<Work, Engine&>>::Type;
  port.call(
      static_cast<std::uint64_t>(id.As<Napi::Number>().Int64Value()),
      [work = std::move(work)](Engine& engine) mutable -> std::unique_ptr<Reply> {
        return std::make_unique<ReplyOf<T>>(work(engine));
      },
      urgent);
}

/// The methods of the class Port that only hand on: name and function.
struct Call {
  const char* name;
  void (*function)(Port& port, const Napi::CallbackInfo& info);
};
[[nodiscard]] std::vector<Call> calls();
/// Those of the event store (events.cpp).
[[nodiscard]] std::vector<Call> event_calls();
[[nodiscard]] std::vector<Call> conversation_calls();

/// Those of the sagas, but for their runners (sagas.cpp).
[[nodiscard]] std::vector<Call> saga_calls();

// ---- the runners of sagas (sagas.cpp) -----------------------------------------------------------

/// Where the calls of sagas wait for the event loop, and the runners they are of. Thread-safe.
class SagaDesk : public std::enable_shared_from_this<SagaDesk> {
 public:
  /// As PortOptions::ring.
  explicit SagaDesk(std::function<void()> ring) : ring_(std::move(ring)) {}

  /// A call to be run, or one whose result does not count any more.
  struct Item {
    std::uint64_t runner = 0;
    SagaCall call;
    bool is_stop = false;
  };

  /// Its calls come as items with this number.
  Result<void> run(Engine& engine, std::uint64_t runner, const SagaDefinition& definition);
  [[nodiscard]] Result<SagaRunnerStatistics> statistics(std::uint64_t runner) const;
  /// Of one that is closed already: 0.
  Result<std::uint64_t> close(std::uint64_t runner, std::optional<Duration> timeout);
  /// In the order they came.
  [[nodiscard]] std::vector<Item> take();
  /// Nothing comes any more, and no runner is kept.
  void shut();

 private:
  void put(std::vector<Item> items);

  const std::function<void()> ring_;
  mutable std::mutex mutex_;
  std::vector<Item> items_;
  std::map<std::uint64_t, SagaRunner> runners_;
  bool shut_ = false;
};

/// The calls that need the desk.
struct DeskCall {
  const char* name;
  void (*function)(Port& port, const std::shared_ptr<SagaDesk>& desk, const Napi::CallbackInfo& info);
};
[[nodiscard]] std::vector<DeskCall> desk_calls();
/// What needs no engine: a call's own functions, replies to commands, diagrams.
void define_sagas(Napi::Env env, Napi::Object exports);

void define_port(Napi::Env env, Napi::Object exports);

// ---- handles (addon.cpp) ------------------------------------------------------------------------

/// What was drained together has one handle, and a message is its place there.
using Deliveries = std::shared_ptr<std::vector<Delivery>>;
/// From two arguments, the handle and the place.
[[nodiscard]] Delivery& delivery_in(const Napi::CallbackInfo& info, std::size_t first);

void define_handles(Napi::Env env, Napi::Object exports);

/// The native half of an object of JavaScript, as an argument; raises when it is something else.
template <typename T>
[[nodiscard]] T& held(const Napi::Value& value) {
  if (!value.IsExternal()) raise_wrong(value, "the first argument", "made by the addon");
  return *value.As<Napi::External<T>>().Data();
}

template <typename T>
[[nodiscard]] Napi::Value hold(Napi::Env env, T value) {
  return Napi::External<T>::New(env, new T(std::move(value)), [](Napi::Env, T* data) { delete data; });
}

}  // namespace towline::node
