// The port: each method takes the id under which its answer comes as an event, or None to wait for it; then
// it waits in slices, so that a signal is answered, with the interpreter's lock let go.

#include <set>

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "binding.hpp"

namespace towline::python {
namespace {

using RequestId = std::optional<std::uint64_t>;

struct ValueReply : Reply {
  /// Raises what the call came to when it failed. With the interpreter's lock.
  virtual py::object take() = 0;
};

/// A consumer and the number under which its deliveries come.
struct PyConsumer {
  PortConsumer consumer;
};

using python::to_python;
py::object to_python(const PyConsumer& consumer) { return py::cast(consumer); }

template <typename T>
struct ReplyOf final : ValueReply {
  explicit ReplyOf(Result<T> given) : result(std::move(given)) {}
  ~ReplyOf() override {
    // Whoever wanted it was interrupted, and nobody else knows of it.
    if constexpr (std::is_same_v<T, PyConsumer>) {
      if (result && !taken) (void)result->consumer.close(Duration(0));
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

class PyPort {
 public:
  explicit PyPort(std::optional<int> log_level) : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw std::runtime_error("no eventfd can be made; too many files are open");
    PortOptions options;
    options.ring = [fd = fd_] {
      const std::uint64_t one = 1;
      (void)!write(fd, &one, sizeof(one));
    };
    if (log_level) options.log_level = static_cast<LogLevel>(*log_level);
    port_ = std::make_unique<Port>(std::move(options));
  }
  ~PyPort() {
    port_.reset();
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
    return run(std::nullopt, [batch](Engine& engine) { return engine.publish_batch(batch); });
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
    return out;
  }

  bool poll(std::int64_t timeout_us) {
    const Released released;
    return port_->poll(Duration(timeout_us));
  }

  void finish(const py::list& numbers, const py::list& outcomes) {
    if (numbers.size() != outcomes.size()) throw py::value_error("each number has one outcome");
    std::vector<Port::Finish> all;
    all.reserve(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      // Most are one and the same object.
      const bool as_before = i > 0 && outcomes[i].ptr() == outcomes[i - 1].ptr();
      all.push_back({numbers[i].cast<std::uint64_t>(),
                     as_before ? all.back().outcome : outcome_or_failure(outcomes[i])});
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
  }

  /// In the child of a fork: what is the parent's is neither used nor destroyed.
  void abandon() {
    (void)port_.release();
    fd_ = -1;
  }

  Port& port() { return *port_; }

 private:
  /// One that makes no sense must not cost the others theirs.
  static Outcome outcome_or_failure(const py::handle& fields) {
    try {
      return outcome_from(py::reinterpret_borrow<py::tuple>(fields));
    } catch (const std::exception&) {
      return Outcome::fail({"BadOutcome", "what became of the handler could not be understood", ""});
    }
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
      deliveries.append(std::move(event.delivery));
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
        return py::make_tuple(kind, static_cast<int>(event.level), event.station, event.text);
      case Kind::kAlert:
        return py::make_tuple(kind, python::to_python(event.alert));
    }
    return py::none();
  }

  /// So many are told sooner than the interpreter's lock is let go of and taken again.
  static constexpr std::size_t kFewOutcomes = 100;

  int fd_;
  std::unique_ptr<Port> port_;
  std::set<std::uint64_t> in_batches_;  ///< ids of consumers
};

void define_schedule_calls(py::class_<PyPort>& port) {
  port.def("publish_with_retry", [](PyPort& self, RequestId id, const py::tuple& fields,
                                    const OptionTexts& texts, std::optional<std::int64_t> timeout_us) {
    return self.run(id,
                    [message = message_from(fields), retry = options_from<RetryOptions>(texts),
                     timeout_us](Engine& e) -> Result<Receipt> {
                      return e.publish_with_retry(
                          message, retry, timeout_us ? std::optional(Duration(*timeout_us)) : std::nullopt);
                    });
  });
  port.def("cancel",
           [](PyPort& self, RequestId id, const std::string& message) {
             return self.run(id, [key = id_from(message)](Engine& e) { return e.cancel(key); });
           })
      .def("reschedule",
           [](PyPort& self, RequestId id, const std::string& message, std::int64_t due_us) {
             return self.run(id, [key = id_from(message), due_us](Engine& e) {
               return e.reschedule(key, from_us(due_us));
             });
           })
      .def("pending", [](PyPort& self, RequestId id, const std::string& topic, std::size_t count_max,
                         const std::string& cursor) {
        return self.run(id, [=](Engine& e) { return e.pending(topic, count_max, cursor); });
      });
}

void define_topic_calls(py::class_<PyPort>& port) {
  port.def("declare_topic",
           [](PyPort& self, RequestId id, const std::string& topic, const OptionTexts& texts) {
             return self.run(id, [topic, options = options_from<TopicOptions>(texts)](Engine& e) {
               return e.declare_topic(topic, options);
             });
           })
      .def("backlog",
           [](PyPort& self, RequestId id) { return self.run(id, [](Engine& e) { return e.backlog(); }); })
      .def("blocked_keys",
           [](PyPort& self, RequestId id, const std::string& group, const std::string& topic) {
             return self.run(id, [=](Engine& e) { return e.blocked_keys(group, topic); });
           })
      .def("release_key", [](PyPort& self, RequestId id, const std::string& group, const std::string& topic,
                             const std::string& key) {
        return self.run(id, [=](Engine& e) { return e.release_key(group, topic, key); });
      });
}

void define_dead_letter_calls(py::class_<PyPort>& port) {
  port.def("dead_letters",
           [](PyPort& self, RequestId id, const py::dict& fields) {
             return self.run(id, [query = query_from(fields)](Engine& e) { return e.dead_letters(query); });
           })
      .def("find_dead_letter",
           [](PyPort& self, RequestId id, const std::string& entry) {
             return self.run(id, [key = id_from(entry)](Engine& e) { return e.find_dead_letter(key); });
           })
      .def("dead_letter_groups",
           [](PyPort& self, RequestId id, const py::dict& fields) {
             return self.run(id,
                             [query = query_from(fields)](Engine& e) { return e.dead_letter_groups(query); });
           })
      .def("redrive",
           [](PyPort& self, RequestId id, const std::string& entry, const py::dict& fields) {
             return self.run(id, [key = id_from(entry), options = redrive_from(fields)](Engine& e) {
               return e.redrive(key, options);
             });
           })
      .def("redrive_all",
           [](PyPort& self, RequestId id, const py::dict& fields, const py::dict& how) {
             return self.run(id, [query = query_from(fields), options = redrive_from(how)](Engine& e) {
               return e.redrive_all(query, options);
             });
           })
      .def("discard_dead_letter", [](PyPort& self, RequestId id, const std::string& entry) {
        return self.run(id, [key = id_from(entry)](Engine& e) { return e.discard_dead_letter(key); });
      });
}

void define_other_calls(py::class_<PyPort>& port) {
  port.def("begin",
           [](PyPort& self, RequestId id, const std::string& key, const OptionTexts& texts) {
             return self.run(id, [key, options = options_from<IdempotencyOptions>(texts)](Engine& e) {
               return e.begin(key, options);
             });
           })
      .def("complete",
           [](PyPort& self, RequestId id,
              const std::tuple<std::string, std::string, std::uint64_t, std::uint64_t>& token,
              const py::bytes& result, const std::string& content_type, const OptionTexts& texts) {
             const IdempotencyToken held{std::get<0>(token), std::get<1>(token), std::get<2>(token),
                                         std::get<3>(token)};
             return self.run(id, [held, bytes = std::string(result), content_type,
                                  options = options_from<IdempotencyOptions>(texts)](Engine& e) {
               return e.complete(held, bytes, options, content_type);
             });
           })
      .def("fail",
           [](PyPort& self, RequestId id,
              const std::tuple<std::string, std::string, std::uint64_t, std::uint64_t>& token) {
             const IdempotencyToken held{std::get<0>(token), std::get<1>(token), std::get<2>(token),
                                         std::get<3>(token)};
             return self.run(id, [held](Engine& e) { return e.fail(held); });
           })
      .def("statistics",
           [](PyPort& self, RequestId id) { return self.run(id, [](Engine& e) { return e.statistics(); }); })
      .def("health",
           [](PyPort& self, RequestId id) {
             return self.run(id, [](Engine& e) { return Result<Health>(e.health()); });
           })
      .def("findings", [](PyPort& self) { return self.port().engine().findings(); })
      .def("settle_down",
           [](PyPort& self, RequestId id, std::int64_t timeout_us) {
             return self.run(id, [timeout_us](Engine& e) { return e.settle_down(Duration(timeout_us)); });
           })
      .def("close", [](PyPort& self, RequestId id, std::optional<std::int64_t> timeout_us) {
        return self.run(
            id,
            [timeout_us](Engine& e) {
              return e.close(timeout_us ? std::optional(Duration(*timeout_us)) : std::nullopt);
            },
            true);
      });
}

void define_consumer(py::module_& module, py::class_<PyPort>& port) {
  port.def("consume", [](PyPort& self, RequestId id, std::uint64_t consumer_id,
                         const std::vector<std::string>& patterns, const OptionTexts& texts,
                         bool in_batches) {
    auto options = options_from<ConsumerOptions>(texts);
    if (in_batches) self.expect_batches(consumer_id);
    return self.run(
        id, [port = &self.port(), consumer_id, patterns, options, in_batches](Engine&) -> Result<PyConsumer> {
          auto consumer = port->consume(consumer_id, patterns, options, in_batches);
          if (!consumer) return std::move(consumer).error();
          return PyConsumer{std::move(*consumer)};
        });
  });
  // Closing joins threads; the last handle must not hold the interpreter's lock meanwhile.
  py::class_<PyConsumer>(module, "Consumer", py::release_gil_before_calling_cpp_dtor())
      .def("pause",
           [](PyConsumer& self) {
             if (auto bad = self.consumer.pause(); !bad) raise(bad.error());
           })
      .def("resume",
           [](PyConsumer& self) {
             if (auto bad = self.consumer.resume(); !bad) raise(bad.error());
           })
      .def("set_concurrency",
           [](PyConsumer& self, std::int64_t concurrency) {
             if (auto bad = self.consumer.set_concurrency(concurrency); !bad) raise(bad.error());
           })
      .def("statistics",
           [](const PyConsumer& self) {
             const auto statistics = self.consumer.statistics();
             if (!statistics) raise(statistics.error());
             return python::to_python(*statistics);
           })
      .def("drain",
           [](PyConsumer& self, PyPort& port_of, RequestId id, std::int64_t timeout_us) {
             return port_of.run(id, [consumer = self.consumer, timeout_us](Engine&) mutable {
               return consumer.drain(Duration(timeout_us));
             });
           })
      .def("close",
           [](PyConsumer& self, PyPort& port_of, RequestId id, std::optional<std::int64_t> timeout_us) {
             return port_of.run(
                 id,
                 [consumer = self.consumer, timeout_us](Engine&) mutable {
                   return consumer.close(timeout_us ? std::optional(Duration(*timeout_us)) : std::nullopt);
                 },
                 true);
           });
}

}  // namespace

void define_port(py::module_& module) {
  py::class_<VirtualClock, std::shared_ptr<VirtualClock>>(module, "VirtualClock")
      .def(py::init<>())
      .def("advance",
           [](VirtualClock& self, std::int64_t us) {
             const Released released;
             self.advance(Duration(us));
           })
      .def("step_wall", [](VirtualClock& self, std::int64_t us) { self.step_wall(Duration(us)); })
      .def("now_us", [](VirtualClock& self) { return to_us(self.now()); });
  py::class_<PyPort> port(module, "Port", py::release_gil_before_calling_cpp_dtor());
  port.def(py::init<std::optional<int>>(), py::arg("log_level"))
      .def("fileno", &PyPort::fileno)
      .def("open", &PyPort::open)
      .def("publish", &PyPort::publish)
      .def("publish_and_wait", &PyPort::publish_and_wait)
      .def("drain", &PyPort::drain)
      .def("poll", &PyPort::poll)
      .def("finish", &PyPort::finish)
      .def("shut", &PyPort::shut)
      .def("abandon", &PyPort::abandon);
  define_schedule_calls(port);
  define_topic_calls(port);
  define_dead_letter_calls(port);
  define_other_calls(port);
  define_consumer(module, port);
}

}  // namespace towline::python
