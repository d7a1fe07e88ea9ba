// The methods of the port.

#include "port.hpp"

namespace towline::python {
namespace {

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
      .def("cancel_batch",
           [](PyPort& self, RequestId id, const std::vector<std::string>& messages) {
             std::vector<MessageId> keys;
             keys.reserve(messages.size());
             for (const std::string& message : messages)
               keys.push_back(id_from(message));
             return self.run(id, [keys = std::move(keys)](Engine& e) { return e.cancel_batch(keys); });
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
  define_events(module, port);
  define_conversations(port);
  define_sagas(module, port);
}

}  // namespace towline::python
