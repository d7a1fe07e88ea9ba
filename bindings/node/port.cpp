// The port of one engine.
//
// Which thread may do what: the threads of the port ring the bell and nothing else; the bell calls a
// thread-safe function, which wakes the event loop, which drains. Before that function may be destroyed the
// bell is silenced under its lock, so no thread calls what is gone. An environment ends by its hooks, last
// registered first: ours, which silences the bell, gives back what handlers hold and joins the threads; then
// that of the thread-safe function; then the finalizers. process.exit in the main thread runs no hooks: the
// typed half calls end() when the process says 'exit'.

#include <algorithm>
#include <mutex>
#include <tuple>
#include <utility>

#include "binding.hpp"

namespace towline::node {
namespace {

/// Wakes the event loop of an environment.
class Bell {
 public:
  Bell(Napi::Env env, const Napi::Function& on_ring) {
    const napi_status status =
        napi_create_threadsafe_function(env, on_ring, nullptr, Napi::String::New(env, "towline"), 0, 1,
                                        nullptr, nullptr, nullptr, nullptr, &function_);
    if (status != napi_ok) raise(env, {ErrorCode::kInternal, "no thread-safe function can be made"});
    napi_unref_threadsafe_function(env, function_);
  }

  /// Any thread.
  void ring() {
    const std::lock_guard lock(mutex_);
    if (!silent_) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
  }

  /// Whether what comes keeps the event loop alive. The environment's thread, as below.
  void hold(Napi::Env env, bool on) {
    const std::lock_guard lock(mutex_);
    if (silent_) return;
    if (on) {
      napi_ref_threadsafe_function(env, function_);
    } else {
      napi_unref_threadsafe_function(env, function_);
    }
  }

  /// `release`: the environment lives on; when it ends it destroys the function itself.
  void silence(bool release) {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(silent_, true)) return;
    }
    if (release) napi_release_threadsafe_function(function_, napi_tsfn_abort);
  }

 private:
  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
  bool silent_ = false;
};

class NodePort {
 public:
  NodePort(Napi::Env env, const Napi::Function& on_ring, std::optional<LogLevel> log_level)
      : bell_(std::make_shared<Bell>(env, on_ring)) {
    PortOptions options;
    options.ring = [bell = bell_] { bell->ring(); };
    options.log_level = log_level;
    desk_ = std::make_shared<SagaDesk>(options.ring);
    port_ = std::make_shared<Port>(std::move(options));
  }

  [[nodiscard]] Port& port() { return *port_; }
  [[nodiscard]] const std::shared_ptr<SagaDesk>& desk() const { return desk_; }
  [[nodiscard]] Bell& bell() { return *bell_; }

  /// The environment ends. Handlers cannot run any more, so nothing is waited for: what they hold goes back,
  /// or, when it ends because something broke, comes again as after the death of the process.
  void end(bool broken) {
    bell_->silence(false);
    (void)(broken ? port_->engine().abandon() : port_->engine().close(Duration(0)));
    shut();
  }

  void shut() {
    port_->shut();
    desk_->shut();
  }

 private:
  const std::shared_ptr<Bell> bell_;
  std::shared_ptr<SagaDesk> desk_;
  std::shared_ptr<Port> port_;
};

using Shared = std::shared_ptr<NodePort>;

/// Of the environment; owns the handle that it is given.
void on_environment_end(void* data) {
  const std::unique_ptr<Shared> ended(static_cast<Shared*>(data));
  (*ended)->end(false);
}

/// Joins the threads of a port away from the event loop, then calls back. An environment that ends meanwhile
/// waits for it.
class Shutting final : public Napi::AsyncWorker {
 public:
  Shutting(const Napi::Function& callback, Shared* hooked)
      : Napi::AsyncWorker(callback, "towline.shut"), port_(*hooked), hooked_(hooked) {}
  void Execute() override { port_->shut(); }
  void OnOK() override {
    napi_remove_env_cleanup_hook(Env(), on_environment_end, hooked_);
    delete hooked_;
    Napi::AsyncWorker::OnOK();
  }

 private:
  const Shared port_;
  Shared* hooked_;
};

// ---- events -------------------------------------------------------------------------------------

// Behind those of Event::Kind.
constexpr double kSagaCall = 7;
constexpr double kSagaStop = 8;

/// Events as [bytes, numbers, values, deliveries]: a call into JavaScript for each field would cost more than
/// the message. The payloads lie in one buffer behind each other, the fields that are numbers in one array of
/// doubles, and so do the places of the others in the list of values; the layout is in native.ts. Names that
/// are those of the message before are put once, so most messages make no value at all.
class EventList {
 public:
  EventList(Napi::Env env, std::size_t count)
      : env_(env), values_(Napi::Array::New(env)), deliveries_(std::make_shared<std::vector<Delivery>>()) {
    numbers_.reserve(count * 11);
    deliveries_->reserve(count);
  }

  void put(Event& event) {
    number(static_cast<double>(event.kind));
    switch (event.kind) {
      case Event::Kind::kReply:
      case Event::Kind::kReceipts:
        number(static_cast<double>(event.id));
        return put_answer(event);
      case Event::Kind::kDelivery:
        number(static_cast<double>(event.id));
        return put_delivery(event);
      case Event::Kind::kStop:
        return number(static_cast<double>(event.id));
      case Event::Kind::kLog:
        number(static_cast<double>(event.log->level));
        string(event.log->station);
        return string(event.log->text);
      case Event::Kind::kAlert: {
        const Napi::HandleScope scope(env_);
        return value(to_js(env_, *event.alert));
      }
      case Event::Kind::kEvents: {
        number(static_cast<double>(event.id));
        const Napi::HandleScope scope(env_);
        return value(to_js(env_, event.events));
      }
    }
  }

  void put(const SagaDesk::Item& item) {
    number(item.is_stop ? kSagaStop : kSagaCall);
    number(static_cast<double>(item.runner));
    if (item.is_stop) return number(static_cast<double>(item.call.number()));
    const Napi::HandleScope scope(env_);
    value(to_js(env_, item.call));
  }

  [[nodiscard]] Napi::Array take() {
    auto bytes = Napi::Buffer<char>::New(env_, offset_);
    std::size_t offset = 0;
    for (const Delivery& delivery : *deliveries_)
      offset += delivery.payload().copy(bytes.Data() + offset, delivery.payload().size());
    auto numbers = Napi::Float64Array::New(env_, numbers_.size());
    std::copy(numbers_.begin(), numbers_.end(), numbers.Data());
    auto out = Napi::Array::New(env_, 4);
    out.Set(std::uint32_t{0}, bytes);
    out.Set(std::uint32_t{1}, numbers);
    out.Set(std::uint32_t{2}, values_);
    if (!deliveries_->empty()) out.Set(std::uint32_t{3}, hold(env_, std::move(deliveries_)));
    return out;
  }

 private:
  /// A name that comes again and again, and its place.
  struct Name {
    std::string name;
    double place = -1;
  };

  void number(double given) { numbers_.push_back(given); }
  void value(const Napi::Value& given) {
    values_.Set(value_count_, given);
    number(static_cast<double>(value_count_++));
  }
  void string(std::string_view given) {
    const Napi::HandleScope scope(env_);
    value(text(env_, given));
  }
  void name(Name& last, std::string_view given) {
    if (last.place >= 0 && last.name == given) return number(last.place);
    last = {std::string(given), static_cast<double>(value_count_)};
    string(given);
  }

  void put_answer(Event& event) {
    const Napi::HandleScope scope(env_);
    Napi::Value answer;
    bool ok = !event.error;
    if (event.error) {
      answer = error_of(env_, *event.error);
    } else if (event.kind == Event::Kind::kReceipts) {
      answer = to_js(env_, event.receipts);
    } else {
      try {
        answer = static_cast<ValueReply&>(*event.reply).take(env_);
      } catch (const Napi::Error& error) {
        answer = error.Value();
        ok = false;
      }
    }
    number(ok ? 1 : 0);
    value(answer);
  }

  void put_delivery(Event& event) {
    Delivery& delivery = event.delivery;
    number(static_cast<double>(delivery.number()));
    number(static_cast<double>(event.batch_left));
    name(topic_, delivery.topic());
    if (delivery.key()) {
      string(*delivery.key());
    } else {
      number(-1);
    }
    name(content_type_, delivery.content_type());
    const std::size_t from = std::exchange(offset_, offset_ + delivery.payload().size());
    const auto rest = {static_cast<double>(delivery.attempt()), static_cast<double>(from),
                       static_cast<double>(offset_), static_cast<double>(deliveries_->size())};
    numbers_.insert(numbers_.end(), rest);
    deliveries_->push_back(std::move(delivery));
  }

  Napi::Env env_;
  std::vector<double> numbers_;
  Napi::Array values_;
  std::uint32_t value_count_ = 0;
  Deliveries deliveries_;
  std::size_t offset_ = 0;
  Name topic_, content_type_;
};

Napi::Value drain(NodePort& self, const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::vector<Event> events =
      self.port().drain(static_cast<std::size_t>(whole_from(info[0], "countMax", 1, 1'000'000)));
  EventList list(env, events.size());
  for (Event& event : events)
    list.put(event);
  for (const SagaDesk::Item& item : self.desk()->take())
    list.put(item);
  return list.take();
}

// ---- requests -----------------------------------------------------------------------------------

/// Messages as outgoing.ts lays them out: bytes behind each other, six numbers for each message, and the list
/// of values that some of them point into. Names that come again and again are converted once.
class Packed {
 public:
  static constexpr std::size_t kNumbersEach = 6;

  Packed(const Napi::Value& bytes, const Napi::Value& values)
      : bytes_(bytes.As<Napi::Uint8Array>()), values_(values.As<Napi::Array>()) {}

  void put(const double* numbers, Message& message) {
    const auto [topic, from, to, key, content_type, others] =
        std::tuple(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]);
    message.topic = name(topic_, topic, "topic");
    message.payload.assign(reinterpret_cast<const char*>(bytes_.Data()) + static_cast<std::size_t>(from),
                           static_cast<std::size_t>(to - from));
    message.content_type = name(content_type_, content_type, "contentType");
    if (key < 0 && others < 0) return;
    const Napi::HandleScope scope(values_.Env());
    if (key >= 0) message.key = text_from(value(key), "key");
    if (others >= 0) set_others(message, value(others));
  }

 private:
  struct Name {
    std::string text;
    double place = -1;
  };

  [[nodiscard]] Napi::Value value(double place) const {
    return values_.Get(static_cast<std::uint32_t>(place));
  }

  [[nodiscard]] const std::string& name(Name& last, double place, std::string_view what) {
    if (last.place == place) return last.text;
    const Napi::HandleScope scope(values_.Env());
    last = {text_from(value(place), what), place};
    return last.text;
  }

  Napi::Uint8Array bytes_;
  Napi::Array values_;
  Name topic_, content_type_;
};

/// (bytes, numbers, how many numbers, values, refuse): what was published in one turn of the loop, see
/// outgoing.ts; refuse(id, error) is called for a request with a message that cannot be converted.
Napi::Value publish(NodePort& self, const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Packed packed(info[0], info[3]);
  const auto numbers = info[1].As<Napi::Float64Array>();
  const auto end = static_cast<std::size_t>(
      whole_from(info[2], "the count", 0, static_cast<std::int64_t>(numbers.ElementLength())));
  for (std::size_t at = 0; at + 1 < end;) {
    const double* request = numbers.Data() + at;
    const auto id = static_cast<std::uint64_t>(request[0]);
    const auto count = static_cast<std::size_t>(request[1]);
    at += 2 + count * Packed::kNumbersEach;
    std::vector<Message> batch;
    try {
      batch.reserve(count);
      for (std::size_t i = 0; i < count; ++i)
        packed.put(request + 2 + i * Packed::kNumbersEach, batch.emplace_back());
    } catch (const Napi::Error& error) {
      const Napi::HandleScope scope(env);
      info[4].As<Napi::Function>().Call({Napi::Number::New(env, static_cast<double>(id)), error.Value()});
      continue;
    }
    self.port().publish(id, std::move(batch));
  }
  return env.Undefined();
}

/// Whatever cannot be converted has failed: the others of the turn must not wait for it.
Outcome outcome_or_failure(const Napi::Value& fields) {
  try {
    return outcome_from(fields);
  } catch (const Napi::Error& error) {
    return Outcome::fail({"BadOutcome", error.Message(), {}});
  }
}

/// (numbers that are acknowledged, [number, outcome, number, outcome ...]): what has returned in one turn.
Napi::Value finish(NodePort& self, const Napi::CallbackInfo& info) {
  const auto acked = info[0].As<Napi::Float64Array>();
  const auto others = info[1].As<Napi::Array>();
  std::vector<Port::Finish> finished;
  finished.reserve(acked.ElementLength() + others.Length() / 2);
  const double* const numbers = acked.Data();
  for (std::size_t i = 0; i < acked.ElementLength(); ++i)
    finished.push_back({static_cast<std::uint64_t>(numbers[i]), {}});
  for (std::uint32_t i = 0; i + 1 < others.Length(); i += 2) {
    const Napi::HandleScope scope(info.Env());
    const Napi::Value number = others.Get(i);
    finished.push_back({static_cast<std::uint64_t>(number.As<Napi::Number>().Int64Value()),
                        outcome_or_failure(others.Get(i + 1))});
  }
  self.port().finish(finished);
  return info.Env().Undefined();
}

Napi::Value open(NodePort& self, const Napi::CallbackInfo& info) {
  auto options = options_from<EngineOptions>(info[2]);
  if (!info[3].IsUndefined()) options.clock = held<std::shared_ptr<VirtualClock>>(info[3]);
  run(self.port(), info[0], [port = &self.port(), url = text_from(info[1], "url"), options](Engine&) {
    return port->open(url, options);
  });
  return info.Env().Undefined();
}

Napi::Value make_port(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::optional<LogLevel> log_level;
  if (info[1].IsNumber()) log_level = static_cast<LogLevel>(whole_from(info[1], "log level", 0, 3));
  auto self = std::make_shared<NodePort>(env, info[0].As<Napi::Function>(), log_level);
  auto* hooked = new Shared(self);
  // After the thread-safe function was made, so that this runs before its own hook.
  napi_add_env_cleanup_hook(env, on_environment_end, hooked);

  auto object = Napi::Object::New(env);
  const auto define = [&](const char* name, auto function) {
    const auto bound = [self, function](const Napi::CallbackInfo& call) { return function(*self, call); };
    object.Set(name, Napi::Function::New(env, bound, name));
  };
  define("open", open);
  define("publish", publish);
  define("finish", finish);
  define("drain", drain);
  define("hold", [](NodePort& port, const Napi::CallbackInfo& call) {
    port.bell().hold(call.Env(), call[0].ToBoolean());
  });
  define("end", [](NodePort& port, const Napi::CallbackInfo& call) { port.end(call[0].ToBoolean()); });
  // Once: the caller sees to it.
  define("shut", [hooked](NodePort& port, const Napi::CallbackInfo& call) {
    port.bell().silence(true);
    (new Shutting(call[0].As<Napi::Function>(), hooked))->Queue();
  });
  for (const Call& one : calls()) {
    define(one.name, [function = one.function](NodePort& port, const Napi::CallbackInfo& call) {
      function(port.port(), call);
    });
  }
  for (const DeskCall& one : desk_calls()) {
    define(one.name, [function = one.function](NodePort& port, const Napi::CallbackInfo& call) {
      function(port.port(), port.desk(), call);
    });
  }
  return object;
}

}  // namespace

void define_port(Napi::Env env, Napi::Object exports) {
  exports.Set("makePort", Napi::Function::New(env, make_port, "makePort"));
}

}  // namespace towline::node
