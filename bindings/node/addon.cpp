// What the addon exports, once per environment: in the main thread and in every worker. Errors, which cross
// the boundary by their number (the classes are the package's own, node/src/errors.ts), and what JavaScript
// holds by a handle: deliveries and their transactions, consumers, clocks and permits. A handle that nobody
// keeps frees memory and does nothing else: what it stands for goes on.

#include <map>
#include <optional>
#include <utility>

#include "binding.hpp"

namespace towline::node {

// ---- errors -------------------------------------------------------------------------------------

Napi::Value error_of(Napi::Env env, const Error& error) {
  const auto* data = env.GetInstanceData<AddonData>();
  if (data == nullptr || data->make_error.IsEmpty()) return Napi::Error::New(env, error.message).Value();
  return data->make_error.Call({Napi::Number::New(env, static_cast<double>(error.code)),
                                text(env, error.message),
                                Napi::Number::New(env, static_cast<double>(error.native_code))});
}

void raise(Napi::Env env, const Error& error) { throw Napi::Error(env, error_of(env, error)); }

void raise_wrong(const Napi::Value& value, std::string_view name, std::string_view wanted) {
  const char* kind = "an object";
  switch (value.Type()) {
    case napi_undefined:
      kind = "undefined";
      break;
    case napi_null:
      kind = "null";
      break;
    case napi_boolean:
      kind = "a boolean";
      break;
    case napi_number:
      kind = "a number";
      break;
    case napi_string:
      kind = "a string";
      break;
    case napi_symbol:
      kind = "a symbol";
      break;
    case napi_function:
      kind = "a function";
      break;
    case napi_bigint:
      kind = "a bigint";
      break;
    default:
      break;
  }
  std::string message(name);
  message.append(" is ").append(kind);
  if (value.IsNumber()) message.append(" (").append(value.ToString().Utf8Value()).append(")");
  message.append(", but must be ").append(wanted);
  raise(value.Env(), {ErrorCode::kInvalidArgument, message});
}

namespace {

using Info = const Napi::CallbackInfo&;

void answer(Info info, const Result<void>& done) {
  if (!done) raise(info.Env(), done.error());
}

void define(Napi::Env env, Napi::Object exports, const char* name, auto function) {
  exports.Set(name, Napi::Function::New(env, function, name));
}

// ---- transactions -------------------------------------------------------------------------------

/// Valid only inside the body: afterwards every call is refused.
class Session {
 public:
  explicit Session(SqlTransaction* open) : open_(open) {}
  [[nodiscard]] SqlTransaction& open(Napi::Env env) {
    if (open_ == nullptr) raise(env, {ErrorCode::kClosed, "the transaction has ended"});
    return *open_;
  }
  void end() { open_ = nullptr; }

 private:
  SqlTransaction* open_;
};
using SharedSession = std::shared_ptr<Session>;

/// (deliveries, place, body): the body runs where the call is made, and is given a session.
void transaction(Info info) {
  const Napi::Env env = info.Env();
  if (!info[2].IsFunction()) raise_wrong(info[2], "the body", "a function");
  std::optional<Napi::Error> thrown;
  const auto body = [&](SqlTransaction& open) -> Result<void> {
    const auto session = std::make_shared<Session>(&open);
    try {
      info[2].As<Napi::Function>().Call({hold(env, session)});
    } catch (const Napi::Error& error) {
      thrown = error;
    }
    session->end();
    if (thrown) return Error{ErrorCode::kHandlerFailed, "the body of the transaction threw"};
    return {};
  };
  const Result<void> done = delivery_in(info, 0).transaction(body);
  if (thrown) throw *thrown;
  answer(info, done);
}

[[nodiscard]] SqlTransaction& session_of(Info info) { return held<SharedSession>(info[0])->open(info.Env()); }

Napi::Value sql_execute(Info info) {
  const std::vector<SqlTransaction::Value> parameters = sql_values_from(info[2]);
  auto rows = session_of(info).execute(text_from(info[1], "sql"), parameters);
  if (!rows) raise(info.Env(), rows.error());
  return to_js(info.Env(), *rows);
}

Napi::Value sql_publish(Info info) {
  auto id = session_of(info).publish(message_from(info[1]));
  if (!id) raise(info.Env(), id.error());
  return text(info.Env(), id->to_string());
}

void sql_append(Info info) {
  answer(info, session_of(info).append(text_from(info[1], "stream"), new_events_from(info[2]),
                                       optional_place_from(info[3], "expected")));
}

void sql_complete(Info info) {
  answer(info, session_of(info).complete(text_from(info[1], "scope"), text_from(info[2], "key"),
                                         bytes_from(info[3], "result")));
}

// ---- permits ------------------------------------------------------------------------------------

/// Permits by the number of their request; one function of JavaScript is told of each grant. All of it
/// happens on the thread of the environment, since that is where permits are given back.
class Gate : public std::enable_shared_from_this<Gate> {
 public:
  Gate(Permits permits, const Napi::Function& on_granted)
      : permits_(std::move(permits)), on_granted_(Napi::Persistent(on_granted)) {}

  [[nodiscard]] Permits& permits() { return permits_; }

  void request(Napi::Env env, std::int64_t number, std::uint64_t weight) {
    // Weak: with the gate go the permits that are out, and then nobody is told any more.
    const auto granted = [weak = weak_from_this(), number](Result<Permit> permit) {
      if (const auto self = weak.lock()) self->granted(number, std::move(permit));
    };
    auto asked = permits_.request(weight, granted);
    if (!asked) raise(env, asked.error());
    if (!held_.contains(number)) asked_.emplace(number, *asked);
  }

  [[nodiscard]] bool try_acquire(std::int64_t number, std::uint64_t weight) {
    auto permit = permits_.try_acquire(weight);
    if (permit) held_.emplace(number, std::move(*permit));
    return permit.has_value();
  }

  [[nodiscard]] bool withdraw(std::int64_t number) {
    const auto asked = asked_.extract(number);
    return !asked.empty() && permits_.withdraw(asked.mapped());
  }

  /// Whoever waited longest is told meanwhile.
  void release(std::int64_t number) { const auto given_back = held_.extract(number); }

 private:
  void granted(std::int64_t number, Result<Permit> permit) {
    asked_.erase(number);
    const Napi::Env env = on_granted_.Env();
    const Napi::HandleScope scope(env);
    const Napi::Value error = permit ? env.Undefined() : error_of(env, permit.error());
    if (permit) held_.emplace(number, std::move(*permit));
    try {
      on_granted_.Call({Napi::Number::New(env, static_cast<double>(number)), error});
    } catch (const Napi::Error&) {
      // The environment ends: nobody waits any more, and the one who gave back must not hear of it.
    }
  }

  Permits permits_;
  Napi::FunctionReference on_granted_;
  std::map<std::int64_t, std::uint64_t> asked_;
  std::map<std::int64_t, Permit> held_;
};
using SharedGate = std::shared_ptr<Gate>;

[[nodiscard]] std::int64_t number_from(const Napi::Value& value) {
  return value.As<Napi::Number>().Int64Value();
}

[[nodiscard]] std::uint64_t count_from(const Napi::Value& value, std::string_view name) {
  return static_cast<std::uint64_t>(whole_from(value, name, 0, INT64_MAX / 1024));
}

Napi::Value make_gate(Info info) {
  auto permits = Permits::create(count_from(info[0], "limit"), count_from(info[1], "waitingMax"));
  if (!permits) raise(info.Env(), permits.error());
  return hold(info.Env(), std::make_shared<Gate>(std::move(*permits), info[2].As<Napi::Function>()));
}

}  // namespace

Delivery& delivery_in(const Napi::CallbackInfo& info, std::size_t first) {
  std::vector<Delivery>& all = *held<Deliveries>(info[first]);
  return all[static_cast<std::size_t>(
      whole_from(info[first + 1], "place", 0, static_cast<std::int64_t>(all.size()) - 1))];
}

void define_handles(Napi::Env env, Napi::Object exports) {
  using Clock = std::shared_ptr<VirtualClock>;
  define(env, exports, "details",
         [](Info info) -> Napi::Value { return details_of(info.Env(), delivery_in(info, 0)); });
  define(env, exports, "settle",
         [](Info info) { answer(info, delivery_in(info, 0).settle(outcome_from(info[2]), false)); });
  define(env, exports, "extend",
         [](Info info) { answer(info, delivery_in(info, 0).extend(duration_from(info[2], "ms"))); });
  define(env, exports, "progress",
         [](Info info) { answer(info, delivery_in(info, 0).progress(text_from(info[2], "note"))); });
  define(env, exports, "transaction", transaction);
  define(env, exports, "sqlExecute", sql_execute);
  define(env, exports, "sqlPublish", sql_publish);
  define(env, exports, "sqlAppend", sql_append);
  define(env, exports, "sqlComplete", sql_complete);

  define(env, exports, "consumerPause", [](Info info) { answer(info, held<PortConsumer>(info[0]).pause()); });
  define(env, exports, "consumerResume",
         [](Info info) { answer(info, held<PortConsumer>(info[0]).resume()); });
  define(env, exports, "consumerSetConcurrency", [](Info info) {
    answer(info,
           held<PortConsumer>(info[0]).set_concurrency(whole_from(info[1], "concurrency", 0, 1'000'000'000)));
  });
  define(env, exports, "consumerStatistics", [](Info info) {
    const auto statistics = held<PortConsumer>(info[0]).statistics();
    if (!statistics) raise(info.Env(), statistics.error());
    return to_js(info.Env(), *statistics);
  });

  define(env, exports, "makeClock",
         [](Info info) { return hold<Clock>(info.Env(), std::make_shared<VirtualClock>()); });
  define(env, exports, "clockAdvance",
         [](Info info) { held<Clock>(info[0])->advance(duration_from(info[1], "ms")); });
  define(env, exports, "clockStepWall",
         [](Info info) { held<Clock>(info[0])->step_wall(duration_from(info[1], "ms")); });
  define(env, exports, "clockNow", [](Info info) {
    return Napi::Number::New(info.Env(), static_cast<double>(to_us(held<Clock>(info[0])->now())) / 1e3);
  });

  define(env, exports, "makeGate", make_gate);
  define(env, exports, "gateRequest", [](Info info) {
    held<SharedGate>(info[0])->request(info.Env(), number_from(info[1]), count_from(info[2], "weight"));
  });
  define(env, exports, "gateTryAcquire", [](Info info) {
    return Napi::Boolean::New(info.Env(), held<SharedGate>(info[0])->try_acquire(
                                              number_from(info[1]), count_from(info[2], "weight")));
  });
  define(env, exports, "gateWithdraw", [](Info info) {
    return Napi::Boolean::New(info.Env(), held<SharedGate>(info[0])->withdraw(number_from(info[1])));
  });
  define(env, exports, "gateRelease",
         [](Info info) { held<SharedGate>(info[0])->release(number_from(info[1])); });
  define(env, exports, "gateSetLimit", [](Info info) {
    answer(info, held<SharedGate>(info[0])->permits().set_limit(count_from(info[1], "limit")));
  });
  define(env, exports, "gateStatistics",
         [](Info info) { return to_js(info.Env(), held<SharedGate>(info[0])->permits().statistics()); });
}

// ---- the addon ----------------------------------------------------------------------------------

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new AddonData);
  exports.Set("setErrorFactory", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                info.Env().GetInstanceData<AddonData>()->make_error =
                    Napi::Persistent(info[0].As<Napi::Function>());
              }));
  // For a test of every code of the table: (number, message, native code).
  exports.Set("raise", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                const auto code = static_cast<ErrorCode>(whole_from(info[0], "number", 0, 0xffff));
                const auto native_code = static_cast<int>(whole_from(info[2], "native code", 0, 0xffff));
                raise(info.Env(), {code, text_from(info[1], "message"), native_code});
              }));
  define_port(env, exports);
  define_handles(env, exports);
  define_sagas(env, exports);
  return exports;
}

}  // namespace
}  // namespace towline::node

namespace {
Napi::Object start(Napi::Env env, Napi::Object exports) { return towline::node::init(env, exports); }
}  // namespace

NODE_API_MODULE(towline, start)
