// Sagas.

#include <mutex>

#include "port.hpp"

namespace towline::python {
namespace {

/// A call in the hands of Python. Whoever forgets it gives it back; the child of a fork must not touch its
/// parent's.
class PySagaCall {
 public:
  explicit PySagaCall(SagaCall call) : call_(std::move(call)) {}
  ~PySagaCall() {
    if (getpid() == made_in_) {
      finish({Outcome::Kind::kRelease, std::nullopt, {}});
    } else {
      new SagaCall(std::move(call_));
    }
  }
  PySagaCall(const PySagaCall&) = delete;
  PySagaCall& operator=(const PySagaCall&) = delete;

  [[nodiscard]] const SagaCall& call() const { return call_; }

  /// Once; afterwards it changes nothing any more.
  void finish(Outcome outcome) {
    const std::lock_guard hold(mutex_);
    if (std::exchange(finished_, true)) return;
    SagaCall handed = call_;  // what it tells can still be read here
    Sagas::finish(handed, std::move(outcome));
  }

  /// Work is `Result<void>(SagaCall&)`.
  template <typename Work>
  void change(Work work) {
    Result<void> done;
    {
      const Released released;
      const std::lock_guard hold(mutex_);
      done = finished_ ? Error{ErrorCode::kClosed, "the call of '" + call_.key() + "' has returned"}
                       : work(call_);
    }
    if (!done) raise(done.error());
  }

 private:
  SagaCall call_;
  pid_t made_in_ = getpid();
  std::mutex mutex_;
  bool finished_ = false;
};

py::bytes bytes_of(const Bytes& bytes) { return py::bytes(bytes); }

/// The message in the form of Engine.publish.
py::dict dict_of(const Message& message) {
  py::dict headers;
  for (const auto& [name, value] : message.headers)
    headers[py::str(name)] = value;
  py::dict out;
  out["topic"] = message.topic;
  out["payload"] = py::bytes(message.payload);
  out["key"] = message.key ? py::object(py::str(*message.key)) : py::object(py::none());
  out["headers"] = headers;
  out["causation_id"] = message.causation_id;
  return out;
}

py::dict dict_of(const Result<Message>& message) {
  if (!message) raise(message.error());
  return dict_of(*message);
}

void define_call(py::module_& module) {
  py::class_<PySagaCall, std::shared_ptr<PySagaCall>>(module, "SagaCall",
                                                      py::release_gil_before_calling_cpp_dtor())
      .def_property_readonly("number", [](const PySagaCall& self) { return self.call().number(); })
      .def_property_readonly("type", [](const PySagaCall& self) { return self.call().type(); })
      .def_property_readonly("id", [](const PySagaCall& self) { return self.call().id(); })
      .def_property_readonly("step", [](const PySagaCall& self) { return self.call().step(); })
      .def_property_readonly(
          "compensates", [](const PySagaCall& self) { return self.call().phase() == SagaPhase::kCompensate; })
      .def_property_readonly("attempt", [](const PySagaCall& self) { return self.call().attempt(); })
      .def_property_readonly("key", [](const PySagaCall& self) { return self.call().key(); })
      .def_property_readonly("context",
                             [](const PySagaCall& self) { return bytes_of(self.call().context()); })
      .def_property_readonly("cause", [](const PySagaCall& self) { return self.call().cause(); })
      .def_property_readonly("stopped",
                             [](const PySagaCall& self) { return self.call().stop_token().stop_requested(); })
      .def("output_of",
           [](const PySagaCall& self, const std::string& step) -> py::object {
             const auto output = self.call().output_of(step);
             return output ? py::object(bytes_of(*output)) : py::object(py::none());
           })
      .def("set_context",
           [](PySagaCall& self, const py::bytes& context) {
             self.change([bytes = std::string(context)](SagaCall& call) { return call.set_context(bytes); });
           })
      .def("set_output",
           [](PySagaCall& self, const py::bytes& output) {
             self.change([bytes = std::string(output)](SagaCall& call) { return call.set_output(bytes); });
           })
      .def("publish", [](PySagaCall& self, const py::tuple& fields) {
        self.change([message = message_from(fields)](SagaCall& call) { return call.publish(message); });
      });
}

void define_runner(py::module_& module, py::class_<PyPort>& port) {
  port.def("run_saga",
           [](PyPort& self, RequestId id, std::uint64_t runner_id, const py::tuple& definition) {
             return self.run(id,
                             [definition = saga_definition_from(definition),
                              remote = SagaDesk::remote(self.saga_desk(), runner_id)](
                                 Engine& e) -> Result<SagaRunnerHandle> {
                               auto runner = e.sagas().run_remote(definition, remote);
                               if (!runner) return std::move(runner).error();
                               return std::make_shared<PySagaRunner>(std::move(*runner));
                             });
           })
      .def("finish_saga_call", [](PyPort&, PySagaCall& call, const py::handle& outcome) {
        call.finish(PyPort::outcome_or_failure(outcome));
      });
  // The last handle may be the last one of a runner with a thread.
  py::class_<PySagaRunner, SagaRunnerHandle>(module, "SagaRunner", py::release_gil_before_calling_cpp_dtor())
      .def("statistics",
           [](const PySagaRunner& self) {
             const SagaRunnerStatistics statistics = self.runner.statistics();
             return py::make_tuple(statistics.in_hand, statistics.calls, statistics.failures,
                                   statistics.taken_over, statistics.completed, statistics.compensated,
                                   statistics.stuck, statistics.mismatched, statistics.early, statistics.late,
                                   statistics.strangers);
           })
      .def("close",
           [](PySagaRunner& self, PyPort& port_of, RequestId id, std::optional<std::int64_t> timeout_us) {
             return port_of.run(
                 id,
                 [runner = self.runner, timeout_us](Engine&) mutable {
                   return runner.close(timeout_us ? std::optional(Duration(*timeout_us)) : std::nullopt);
                 },
                 true);
           });
}

void define_questions(py::class_<PyPort>& port) {
  port.def("start_saga",
           [](PyPort& self, RequestId id, const py::tuple& definition, const std::string& saga,
              const py::bytes& context) {
             return self.run(
                 id, [definition = saga_definition_from(definition), saga, bytes = std::string(context)](
                         Engine& e) { return e.sagas().start(definition, saga, bytes); });
           })
      .def("find_saga",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga) {
             return self.run(id, [=](Engine& e) { return e.sagas().find(type, saga); });
           })
      .def("list_sagas",
           [](PyPort& self, RequestId id, const py::dict& fields) {
             return self.run(id,
                             [query = saga_query_from(fields)](Engine& e) { return e.sagas().list(query); });
           })
      .def("saga_timeline",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga) {
             return self.run(id, [=](Engine& e) { return e.sagas().timeline(type, saga); });
           })
      .def("saga_result", [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
                             std::int64_t timeout_us) {
        return self.run(id, [=](Engine& e) { return e.sagas().result(type, saga, Duration(timeout_us)); });
      });
}

void define_help(py::class_<PyPort>& port) {
  port.def("cancel_saga",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
              const std::string& why) {
             return self.run(id, [=](Engine& e) { return e.sagas().cancel(type, saga, why); });
           })
      .def("retry_saga",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
              const std::string& step) {
             return self.run(id, [=](Engine& e) { return e.sagas().retry(type, saga, step); });
           })
      .def("skip_saga_step",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
              const std::string& step) {
             return self.run(id, [=](Engine& e) { return e.sagas().skip(type, saga, step); });
           })
      .def("force_saga",
           [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
              const std::string& status) {
             return self.run(id, [type, saga, status = saga_status_from(status)](Engine& e) {
               return e.sagas().force(type, saga, status);
             });
           })
      .def("annotate_saga", [](PyPort& self, RequestId id, const std::string& type, const std::string& saga,
                               const std::string& text) {
        return self.run(id, [=](Engine& e) { return e.sagas().annotate(type, saga, text); });
      });
}

}  // namespace

py::list saga_calls_to_python(std::vector<SagaCall> calls) {
  py::list out;
  for (SagaCall& call : calls)
    out.append(py::cast(std::make_shared<PySagaCall>(std::move(call))));
  return out;
}

void define_sagas(py::module_& module, py::class_<PyPort>& port) {
  define_call(module);
  define_runner(module, port);
  define_questions(port);
  define_help(port);
  module.def("saga_reply", [](const py::handle& command, const py::bytes& output) {
    return dict_of(Sagas::reply(delivery_of(command), std::string(output)));
  });
  module.def("saga_reply_failed", [](const py::handle& command, const std::string& error, bool permanent) {
    return dict_of(Sagas::reply_failed(delivery_of(command), error, permanent));
  });
  module.def("saga_event", [](const std::string& topic, const std::string& id, const py::bytes& payload) {
    return dict_of(Sagas::event(topic, id, std::string(payload)));
  });
  module.def("visualize_saga",
             [](const py::tuple& definition) { return visualize(saga_definition_from(definition)); });
}

}  // namespace towline::python
