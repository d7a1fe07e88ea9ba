#pragma once
// The port as Python sees it: each method takes the id under which its answer comes as an event, or None to
// wait for it; then it waits in slices, so that a signal is answered, with the interpreter's lock let go.

#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>

#include <poll.h>
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "binding.hpp"
#include "saga_desk.hpp"

namespace towline::python {

using RequestId = std::optional<std::uint64_t>;

struct ValueReply : Reply {
  /// Raises what the call came to when it failed. With the interpreter's lock.
  virtual py::object take() = 0;
};

/// A runner of sagas. The child of a fork must not touch its parent's, so there it is not destroyed.
struct PySagaRunner {
  explicit PySagaRunner(SagaRunner given) : runner(std::move(given)) {}
  ~PySagaRunner() {
    if (getpid() != made_in) new SagaRunner(std::move(runner));
  }
  PySagaRunner(const PySagaRunner&) = delete;
  PySagaRunner& operator=(const PySagaRunner&) = delete;
  SagaRunner runner;
  pid_t made_in = getpid();
};
using SagaRunnerHandle = std::shared_ptr<PySagaRunner>;

inline py::object to_python(const SagaRunnerHandle& runner) { return py::cast(runner); }

/// What was received for somebody who was interrupted before he got it, and whether somebody receives now.
struct Intake {
  std::mutex mutex;
  std::condition_variable changed;
  bool busy = false;
  std::deque<RecordedEvent> left;
};

/// A subscription to events. The child of a fork must not touch its parent's, so there it is not destroyed.
struct PyEventSubscription {
  explicit PyEventSubscription(EventSubscription given, Port* port = nullptr, std::uint64_t id = 0)
      : subscription(std::move(given)), handled_by(port), number(id) {}
  ~PyEventSubscription() {
    if (getpid() != made_in) new EventSubscription(std::move(subscription));
  }
  PyEventSubscription(const PyEventSubscription&) = delete;
  PyEventSubscription& operator=(const PyEventSubscription&) = delete;
  EventSubscription subscription;
  std::shared_ptr<Intake> intake = std::make_shared<Intake>();
  Port* handled_by;  ///< with a handler: through this port, under this number
  std::uint64_t number;
  pid_t made_in = getpid();
};
using SubscriptionHandle = std::shared_ptr<PyEventSubscription>;

inline py::object to_python(const SubscriptionHandle& handle) { return py::cast(handle); }

/// A consumer and the number under which its deliveries come.
struct PyConsumer {
  PortConsumer consumer;
};

inline py::object to_python(const PyConsumer& consumer) { return py::cast(consumer); }

template <typename T>
struct ReplyOf final : ValueReply {
  explicit ReplyOf(Result<T> given) : result(std::move(given)) {}
  ~ReplyOf() override {
    // Whoever wanted it was interrupted, and nobody else knows of it.
    if constexpr (std::is_same_v<T, PyConsumer>) {
      if (result && !taken) (void)result->consumer.close(Duration(0));
    }
    if constexpr (std::is_same_v<T, SagaRunnerHandle>) {
      if (result && !taken) (void)(*result)->runner.close(Duration(0));
    }
    if constexpr (std::is_same_v<T, SubscriptionHandle>) {
      if (result && !taken) (void)(*result)->subscription.close(Duration(0));
    }
  }
  ReplyOf(const ReplyOf&) = delete;
  ReplyOf& operator=(const ReplyOf&) = delete;
  py::object take() override {
    taken = true;
    if (!result) raise(result.error());
    if constexpr (std::is_void_v<T>) {
      return py::none();
    } else {
      return to_python(*result);
    }
  }
  Result<T> result;
  bool taken = false;
};

/// One object per call.
[[nodiscard]] py::list saga_calls_to_python(std::vector<SagaCall> calls);

class PyPort {
 public:
  explicit PyPort(std::optional<int> log_level) : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw std::runtime_error("no eventfd can be made; too many files are open");
    PortOptions options;
    options.ring = [fd = fd_] { ring(fd); };
    desk_ = std::make_shared<SagaDesk>(options.ring);
    if (log_level) options.log_level = static_cast<LogLevel>(*log_level);
    port_ = std::make_unique<Port>(std::move(options));
  }
  ~PyPort() {
    port_.reset();
    if (desk_) desk_->shut();
    if (fd_ >= 0) close(fd_);
  }
  PyPort(const PyPort&) = delete;
  PyPort& operator=(const PyPort&) = delete;

  [[nodiscard]] int fileno() const { return fd_; }

  /// Work is `Result<T>(Engine&)`; it must not touch a Python object. `urgent`: as Port::call.
  template <typename Work>
  py::object run(RequestId id, Work work, bool urgent = false) {
    using T = typename std::invoke_result_t<Work, Engine&>;
    auto wrapped = [work = std::move(work)](Engine& engine) mutable -> std::unique_ptr<Reply> {
      if constexpr (requires(T t) {
                      typename T::value_type;
                      t.error();
                    }) {
        return std::make_unique<ReplyOf<typename T::value_type>>(work(engine));
      } else {
        return std::make_unique<ReplyOf<void>>(work(engine));
      }
    };
    if (id) {
      port_->call(*id, std::move(wrapped), urgent);
      return py::none();
    }
    Result<std::unique_ptr<Reply>> reply = Error{};
    bool interrupted = false;
    {
      const Released released;
      const auto is_interrupted = [&, in_main = gettid() == getpid()] {
        if (!in_main) return false;  // signals are answered in the main thread only
        const py::gil_scoped_acquire gil;
        interrupted = PyErr_CheckSignals() != 0;
        return interrupted;
      };
      reply = port_->wait(std::move(wrapped), is_interrupted, urgent);
    }
    if (interrupted) throw py::error_already_set();
    if (!reply) raise(reply.error());
    return static_cast<ValueReply&>(**reply).take();
  }

  py::object open(RequestId id, const std::string& url, const OptionTexts& texts,
                  const std::shared_ptr<VirtualClock>& clock) {
    auto options = options_from<EngineOptions>(texts);
    options.clock = clock;
    return run(id, [port = port_.get(), url, options](Engine&) { return port->open(url, options); });
  }

  void publish(std::uint64_t id, const py::list& messages, const py::function& fields_of) {
    port_->publish(id, messages_from(messages, fields_of));
  }

  py::object publish_and_wait(const py::list& messages, const py::function& fields_of) {
    auto batch = messages_from(messages, fields_of);
    return run(std::nullopt, [batch = std::move(batch)](Engine& engine) mutable {
      return engine.publish_batch(std::move(batch));
    });
  }

  py::list drain(std::size_t count_max) {
    std::uint64_t count = 0;
    (void)!read(fd_, &count, sizeof(count));
    // Takes no longer than it takes to let go of the interpreter's lock and to wait for one's turn again.
    std::vector<Event> events = port_->drain(count_max);
    py::list out;
    for (std::size_t at = 0; at < events.size();) {
      if (events[at].kind == Event::Kind::kDelivery) {
        out.append(take_deliveries(events, at));
      } else {
        out.append(to_python(events[at++]));
      }
    }
    for (SagaDesk::Item& item : desk_->take())
      out.append(to_python(item));
    return out;
  }

  /// Until something rings, or the timeout is over.
  bool poll(std::int64_t timeout_us) {
    const Released released;
    pollfd waiting{fd_, POLLIN, 0};
    return ::poll(&waiting, 1, static_cast<int>(timeout_us / 1000)) > 0;
  }

  void finish(const py::list& numbers, const py::list& outcomes) {
    if (numbers.size() != outcomes.size()) throw py::value_error("each number has one outcome");
    std::vector<Port::Finish> all(numbers.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto at = static_cast<Py_ssize_t>(i);
      PyObject* outcome = PyList_GET_ITEM(outcomes.ptr(), at);
      all[i].number = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(numbers.ptr(), at));
      if (PyErr_Occurred() != nullptr) throw py::error_already_set();
      // Most are one and the same object.
      const bool as_before = i > 0 && outcome == PyList_GET_ITEM(outcomes.ptr(), at - 1);
      all[i].outcome = as_before ? all[i - 1].outcome : outcome_or_failure(outcome);
    }
    if (all.size() <= kFewOutcomes) return port_->finish(all);
    const Released released;
    port_->finish(all);
  }

  void expect_batches(std::uint64_t consumer_id) { in_batches_.insert(consumer_id); }

  void shut() {
    if (!port_) return;
    const Released released;
    port_->shut();
    desk_->shut();
    ring(fd_);  // whoever polls need not wait for the end of its time
  }

  /// In the child of a fork: what is the parent's is neither used nor destroyed.
  void abandon() {
    (void)port_.release();
    new std::shared_ptr<SagaDesk>(std::move(desk_));
    fd_ = -1;
  }

  Port& port() { return *port_; }
  [[nodiscard]] const std::shared_ptr<SagaDesk>& saga_desk() const { return desk_; }

  /// One that makes no sense must not cost the others theirs.
  static Outcome outcome_or_failure(const py::handle& fields) {
    try {
      return outcome_from(py::reinterpret_borrow<py::tuple>(fields));
    } catch (const std::exception&) {
      return Outcome::fail({"BadOutcome", "what became of the handler could not be understood", ""});
    }
  }

 private:
  static void ring(int fd) {
    const std::uint64_t one = 1;
    (void)!write(fd, &one, sizeof(one));
  }

  static std::vector<Message> messages_from(const py::list& messages, const py::function& fields_of) {
    std::vector<Message> batch(messages.size());
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const py::object one = messages[i];
      if (PyTuple_CheckExact(one.ptr())) {
        batch[i] = message_from(py::reinterpret_borrow<py::tuple>(one));
      } else if (!plain_message_from(one, batch[i])) {
        batch[i] = message_from(fields_of(one).cast<py::tuple>());
      }
    }
    return batch;
  }

  /// Those of one consumer that come one after the other are one event; of a consumer in batches, those of
  /// one batch.
  py::tuple take_deliveries(std::vector<Event>& events, std::size_t& at) {
    const std::uint64_t consumer = events[at].id;
    const bool in_batches = in_batches_.contains(consumer);
    py::list numbers;
    py::list deliveries;
    std::size_t batch_left = 0;
    for (; at < events.size(); ++at) {
      Event& event = events[at];
      if (event.kind != Event::Kind::kDelivery || event.id != consumer) break;
      numbers.append(event.delivery.number());
      deliveries.append(message_of(std::move(event.delivery)));
      batch_left = event.batch_left;
      if (in_batches && batch_left == 0) {
        ++at;
        break;
      }
    }
    return py::make_tuple(static_cast<int>(Event::Kind::kDelivery), consumer, std::move(numbers),
                          std::move(deliveries), batch_left);
  }

  static py::object to_python(Event& event) {
    using Kind = Event::Kind;
    const int kind = static_cast<int>(event.kind);
    switch (event.kind) {
      case Kind::kReply:
        if (event.error) return py::make_tuple(kind, event.id, false, exception_of(*event.error));
        try {
          return py::make_tuple(kind, event.id, true, static_cast<ValueReply&>(*event.reply).take());
        } catch (py::error_already_set& raised) {
          return py::make_tuple(kind, event.id, false, raised.value());
        }
      case Kind::kReceipts:
        if (event.error) return py::make_tuple(kind, event.id, false, exception_of(*event.error));
        return py::make_tuple(kind, event.id, true, python::to_python(event.receipts));
      case Kind::kDelivery:
        break;  // take_deliveries
      case Kind::kStop:
        return py::make_tuple(kind, event.id);
      case Kind::kLog:
        return py::make_tuple(kind, static_cast<int>(event.log->level), event.log->station, event.log->text);
      case Kind::kAlert:
        return py::make_tuple(kind, python::to_python(*event.alert));
      case Kind::kEvents:
        return py::make_tuple(kind, event.id, python::to_python(event.events));
    }
    return py::none();
  }

  static py::object to_python(SagaDesk::Item& item) {
    if (item.calls.empty()) return py::make_tuple(kSagaStop, item.number);
    return py::make_tuple(kSagaCalls, item.number, saga_calls_to_python(std::move(item.calls)));
  }

  /// Kinds of events behind those of the port.
  static constexpr int kSagaCalls = static_cast<int>(Event::Kind::kEvents) + 1;
  static constexpr int kSagaStop = kSagaCalls + 1;
  /// So many are told sooner than the interpreter's lock is let go of and taken again.
  static constexpr std::size_t kFewOutcomes = 100;

  int fd_;
  std::shared_ptr<SagaDesk> desk_;
  std::unique_ptr<Port> port_;
  std::set<std::uint64_t> in_batches_;  ///< ids of consumers
};

void define_events(py::module_& module, py::class_<PyPort>& port);
void define_conversations(py::class_<PyPort>& port);
void define_sagas(py::module_& module, py::class_<PyPort>& port);

}  // namespace towline::python
