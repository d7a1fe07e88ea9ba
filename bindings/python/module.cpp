// towline._core: the port, deliveries and permits. What users see is typed Python around it.

#include <mutex>

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "binding.hpp"

namespace towline::python {
namespace {

using Value = SqlTransaction::Value;

Value value_from(const py::handle& value) {
  if (value.is_none()) return std::monostate{};
  if (py::isinstance<py::float_>(value)) return value.cast<double>();
  if (py::isinstance<py::int_>(value)) return value.cast<std::int64_t>();
  return value.cast<std::string>();
}

py::object to_object(const Value& value) {
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return py::int_(*whole);
  if (const auto* real = std::get_if<double>(&value)) return py::float_(*real);
  if (const auto* text = std::get_if<std::string>(&value)) {
    PyObject* decoded = PyUnicode_DecodeUTF8(text->data(), static_cast<Py_ssize_t>(text->size()), nullptr);
    if (decoded != nullptr) return py::reinterpret_steal<py::object>(decoded);
    PyErr_Clear();
    return py::bytes(*text);  // a blob that is no text
  }
  return py::none();
}

/// Valid only inside the body: afterwards every call is refused.
class PyTransaction {
 public:
  explicit PyTransaction(SqlTransaction* transaction) : transaction_(transaction) {}
  py::list execute(const std::string& sql, const py::sequence& parameters) {
    std::vector<Value> values;
    for (const py::handle one : parameters)
      values.push_back(value_from(one));
    auto rows = on_open([&](SqlTransaction& open) { return open.execute(sql, values); });
    if (!rows) raise(rows.error());
    py::list out;
    for (const auto& row : *rows) {
      py::tuple columns(row.size());
      for (std::size_t i = 0; i < row.size(); ++i)
        columns[i] = to_object(row[i]);
      out.append(columns);
    }
    return out;
  }
  std::string publish(const py::tuple& fields) {
    const Message message = message_from(fields);
    auto id = on_open([&](SqlTransaction& open) { return open.publish(message); });
    if (!id) raise(id.error());
    return id->to_string();
  }
  void append(const std::string& stream, const py::list& events, std::optional<std::uint64_t> expected) {
    const std::vector<NewEvent> given = new_events_from(events);
    auto done = on_open([&](SqlTransaction& open) { return open.append(stream, given, expected); });
    if (!done) raise(done.error());
  }
  void complete(const std::string& scope, const std::string& key, const py::bytes& result) {
    const std::string bytes(result);
    auto done = on_open([&](SqlTransaction& open) { return open.complete(scope, key, bytes); });
    if (!done) raise(done.error());
  }
  void end() {
    const Released released;
    const std::lock_guard hold(mutex_);
    transaction_ = nullptr;
  }

 private:
  /// The interpreter goes on while the statement runs; another thread may end the transaction meanwhile.
  template <typename Work>
  auto on_open(Work work) -> std::invoke_result_t<Work, SqlTransaction&> {
    const Released released;
    const std::lock_guard hold(mutex_);
    if (transaction_ == nullptr) return Error{ErrorCode::kClosed, "the transaction has ended"};
    return work(*transaction_);
  }
  std::mutex mutex_;
  SqlTransaction* transaction_;
};

/// On the caller's own thread, which is Python's: the body runs where the call is made.
void transaction(Delivery& delivery, const py::function& body) {
  std::optional<py::error_already_set> raised;
  Result<void> done;
  {
    const Released released;
    done = delivery.transaction([&](SqlTransaction& session) -> Result<void> {
      const py::gil_scoped_acquire gil;
      auto handed = std::make_shared<PyTransaction>(&session);
      try {
        body(handed);
      } catch (py::error_already_set& error) {
        raised.emplace(std::move(error));
      }
      handed->end();
      if (raised) return Error{ErrorCode::kHandlerFailed, "the body of the transaction raised"};
      return {};
    });
  }
  if (raised) throw std::move(*raised);
  if (!done) raise(done.error());
}

/// `granted` is called with a permit, or with None and an exception. It may be let go of by any thread that
/// makes room, and these hold the interpreter's lock or not.
std::uint64_t request(Permits& permits, std::uint64_t weight, const py::function& granted) {
  const auto drop = [](py::function* function) {
    const py::gil_scoped_acquire gil;
    delete function;
  };
  const std::shared_ptr<py::function> told(new py::function(granted), drop);
  Result<std::uint64_t> number = Error{};
  {
    const Released released;
    number = permits.request(weight, [told](Result<Permit> permit) {
      const py::gil_scoped_acquire gil;
      try {
        if (permit) {
          (*told)(py::cast(std::move(*permit)), py::none());
        } else {
          (*told)(py::none(), exception_of(permit.error()));
        }
      } catch (py::error_already_set& raised) {
        raised.discard_as_unraisable("towline: a permit was granted");
      }
    });
  }
  if (!number) raise(number.error());
  return *number;
}

py::str text_of(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

void define_delivery(py::module_& module) {
  py::class_<PyTransaction, std::shared_ptr<PyTransaction>>(module, "Transaction")
      .def("execute", &PyTransaction::execute)
      .def("publish", &PyTransaction::publish)
      .def("append", &PyTransaction::append)
      .def("complete", &PyTransaction::complete);
  // The last handle lets go of memory only, and there is one per message.
  py::class_<Delivery>(module, "Delivery")
      .def_property_readonly("number", &Delivery::number)
      .def_property_readonly("id", [](const Delivery& self) { return self.id().to_string(); })
      .def_property_readonly("topic", [](const Delivery& self) { return text_of(self.topic()); })
      .def_property_readonly("group", [](const Delivery& self) { return text_of(self.group()); })
      .def_property_readonly("key", &Delivery::key)
      .def_property_readonly("partition", &Delivery::partition)
      .def_property_readonly("payload",
                             [](const Delivery& self) {
                               const std::string_view bytes = self.payload();
                               return py::bytes(bytes.data(), bytes.size());
                             })
      .def_property_readonly("headers", &headers_of)
      .def_property_readonly("content_type",
                             [](const Delivery& self) { return text_of(self.content_type()); })
      .def_property_readonly("correlation_id",
                             [](const Delivery& self) { return text_of(self.correlation_id()); })
      .def_property_readonly("causation_id",
                             [](const Delivery& self) { return text_of(self.causation_id()); })
      .def_property_readonly("traceparent", [](const Delivery& self) { return text_of(self.traceparent()); })
      .def_property_readonly("published_at_us",
                             [](const Delivery& self) { return to_us(self.published_at()); })
      .def_property_readonly("attempt", &Delivery::attempt)
      .def_property_readonly("crashes", &Delivery::crashes)
      .def_property_readonly("redelivered", &Delivery::redelivered)
      .def_property_readonly("redrives", &Delivery::redrives)
      .def("settle",
           [](Delivery& self, const py::tuple& outcome, bool wait) {
             Outcome decided = outcome_from(outcome);
             Result<void> done;
             {
               const Released released;
               done = self.settle(std::move(decided), wait);
             }
             if (!done) raise(done.error());
           })
      .def("extend",
           [](Delivery& self, std::int64_t by_us) {
             if (auto bad = self.extend(Duration(by_us)); !bad) raise(bad.error());
           })
      .def("progress",
           [](Delivery& self, const std::string& note) {
             if (auto bad = self.progress(note); !bad) raise(bad.error());
           })
      .def("transaction", &transaction);
}

void define_permits(py::module_& module) {
  // Giving one back hands it to whoever waited longest, who is told at once.
  py::class_<Permit>(module, "Permit", py::release_gil_before_calling_cpp_dtor())
      .def("release", [](Permit& self) {
        const Released released;
        self.release();
      });
  py::class_<Permits>(module, "Permits", py::release_gil_before_calling_cpp_dtor())
      .def(py::init([](std::uint64_t limit, std::uint64_t waiting_max) {
             auto made = Permits::create(limit, waiting_max);
             if (!made) raise(made.error());
             return std::move(*made);
           }),
           py::arg("limit"), py::arg("waiting_max"))
      .def("request", &request)
      .def("withdraw", &Permits::withdraw, py::call_guard<Released>())
      .def("try_acquire", &Permits::try_acquire)
      .def("set_limit",
           [](Permits& self, std::uint64_t limit) {
             Result<void> done;
             {
               const Released released;
               done = self.set_limit(limit);
             }
             if (!done) raise(done.error());
           })
      .def("statistics", [](const Permits& self) { return to_python(self.statistics()); });
}

}  // namespace towline::python

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native half of towline; use the package.";
  towline::python::translate_cast_errors();
  // For a test of every code of the table.
  module.def("raise_error", [](int number, const std::string& message, int native_code) {
    towline::python::raise({static_cast<towline::ErrorCode>(number), message, native_code});
  });
  towline::python::define_delivery(module);
  towline::python::define_permits(module);
  towline::python::define_port(module);
}
