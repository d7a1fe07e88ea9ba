// A message in the hands of Python: its delivery, and the transaction of a handler.

#include <cstddef>
#include <mutex>
#include <new>

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>
#include <structmember.h>

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

// ---- the type -----------------------------------------------------------------------------------
// There is one object per message, so it is made by hand: an object of pybind11 takes four times as long, for
// it is entered into a table of all of them. What users see derives from it (Message), and is one with it.

struct Object {
  // clang-format off
  PyObject_HEAD
      // clang-format on
      PyObject* on_settled;  ///< null: none
  PyObject* weak_references;
  Delivery delivery;
};

Object& object_of(PyObject* self) { return *reinterpret_cast<Object*>(self); }

PyObject* text(std::string_view text) {
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
}

template <auto Member>
PyObject* get_text(PyObject* self, void*) {
  return text((object_of(self).delivery.*Member)());
}

template <auto Member>
PyObject* get_number(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong((object_of(self).delivery.*Member)());
}

PyObject* get_id(PyObject* self, void*) {
  try {
    return text(object_of(self).delivery.id().to_string());
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* get_key(PyObject* self, void*) {
  const std::optional<std::string>& key = object_of(self).delivery.key();
  return key ? text(*key) : Py_NewRef(Py_None);
}

PyObject* get_payload(PyObject* self, void*) {
  const std::string_view bytes = object_of(self).delivery.payload();
  return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* get_headers(PyObject* self, void*) {
  PyObject* out = PyDict_New();
  if (out == nullptr) return nullptr;
  for (const auto& [name, value] : object_of(self).delivery.headers()) {
    PyObject* key = text(name);
    PyObject* given = key == nullptr ? nullptr : text(value);
    const bool set = given != nullptr && PyDict_SetItem(out, key, given) == 0;
    Py_XDECREF(key);
    Py_XDECREF(given);
    if (!set) Py_CLEAR(out);
    if (out == nullptr) break;
  }
  return out;
}

PyObject* get_redelivered(PyObject* self, void*) {
  return PyBool_FromLong(object_of(self).delivery.redelivered() ? 1 : 0);
}

PyObject* get_published_at(PyObject* self, void*) {
  return PyLong_FromLongLong(to_us(object_of(self).delivery.published_at()));
}

PyObject* get_on_settled(PyObject* self, void*) {
  PyObject* known = object_of(self).on_settled;
  return Py_NewRef(known == nullptr ? Py_None : known);
}

/// Only with one of these it can be part of a cycle, and is worth the garbage collector's while.
int set_on_settled(PyObject* self, PyObject* value, void*) {
  if (value == nullptr || value == Py_None) {
    Py_CLEAR(object_of(self).on_settled);
    return 0;
  }
  Py_XSETREF(object_of(self).on_settled, Py_NewRef(value));
  if (PyObject_GC_IsTracked(self) == 0) PyObject_GC_Track(self);
  return 0;
}

PyGetSetDef properties[] = {  // NOLINT: the interpreter wants it so
    {"id", get_id, nullptr, "The identity of the message: a UUIDv7. The same over retry and redrive.",
     nullptr},
    {"topic", get_text<&Delivery::topic>, nullptr, "The topic it was published to.", nullptr},
    {"group", get_text<&Delivery::group>, nullptr, "The group it is handed to.", nullptr},
    {"key", get_key, nullptr, "Its key, or None.", nullptr},
    {"partition", get_number<&Delivery::partition>, nullptr, "The partition that its key is in.", nullptr},
    {"payload", get_payload, nullptr, "Its bytes.", nullptr},
    {"headers", get_headers, nullptr, "Its headers, a dict that is the caller's.", nullptr},
    {"content_type", get_text<&Delivery::content_type>, nullptr, "What its bytes are.", nullptr},
    {"correlation_id", get_text<&Delivery::correlation_id>, nullptr, "\"\": none.", nullptr},
    {"causation_id", get_text<&Delivery::causation_id>, nullptr, "\"\": none.", nullptr},
    {"traceparent", get_text<&Delivery::traceparent>, nullptr,
     "The W3C trace context that it was published in; \"\": none.", nullptr},
    {"attempt", get_number<&Delivery::attempt>, nullptr,
     "1 on the first handling, one more for each failure. Durable.", nullptr},
    {"crashes", get_number<&Delivery::crashes>, nullptr,
     "Deaths of a process that are charged to this message. Durable.", nullptr},
    {"redelivered", get_redelivered, nullptr,
     "An earlier handling may have run without being recorded: the effect may have happened.", nullptr},
    {"redrives", get_number<&Delivery::redrives>, nullptr, "Times it was sent back from the dead letters.",
     nullptr},
    {"_number", get_number<&Delivery::number>, nullptr, nullptr, nullptr},
    {"_published_at_us", get_published_at, nullptr, nullptr, nullptr},
    {"_on_settled", get_on_settled, set_on_settled, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMemberDef members[] = {  // NOLINT: the interpreter wants it so
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Object, weak_references), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr}};

PyObject* refuse_new(PyTypeObject*, PyObject*, PyObject*) {
  PyErr_SetString(PyExc_TypeError, "messages come to handlers and from subscriptions; nobody else makes one");
  return nullptr;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(object_of(self).on_settled);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(object_of(self).on_settled);
  return 0;
}

/// The last handle of a delivery lets go of memory only.
void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (object_of(self).weak_references != nullptr) PyObject_ClearWeakRefs(self);
  Py_CLEAR(object_of(self).on_settled);
  object_of(self).delivery.~Delivery();
  type->tp_free(self);
  Py_DECREF(type);
}

PyTypeObject* make_type() {
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(refuse_new)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                                {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                {Py_tp_clear, reinterpret_cast<void*>(clear)},
                                {Py_tp_getset, properties},
                                {Py_tp_members, members},
                                {0, nullptr}};
  static PyType_Spec spec = {"towline._core.Delivery", sizeof(Object), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
  PyObject* type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(type);
}

/// For as long as the process lives.
PyTypeObject* base_type() {
  static PyTypeObject* const type = make_type();
  return type;
}

}  // namespace

Delivery& delivery_of(const py::handle& message) {
  if (PyObject_TypeCheck(message.ptr(), base_type()) == 0) throw py::cast_error("no message");
  return object_of(message.ptr()).delivery;
}

py::object message_of(Delivery delivery) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> type;
  type.call_once_and_store_result([] { return py::module_::import("towline._message").attr("Message"); });
  auto* message = reinterpret_cast<PyTypeObject*>(type.get_stored().ptr());
  PyObject* self = message->tp_alloc(message, 0);
  if (self == nullptr) throw py::error_already_set();
  PyObject_GC_UnTrack(self);
  new (&object_of(self).delivery) Delivery(std::move(delivery));
  return py::reinterpret_steal<py::object>(self);
}

void define_delivery(py::module_& module) {
  py::class_<PyTransaction, std::shared_ptr<PyTransaction>>(module, "Transaction")
      .def("execute", &PyTransaction::execute)
      .def("publish", &PyTransaction::publish)
      .def("append", &PyTransaction::append)
      .def("complete", &PyTransaction::complete);
  const py::handle type(reinterpret_cast<PyObject*>(base_type()));
  const auto define = [&type](const char* name, auto method) {
    py::setattr(type, name, py::cpp_function(method, py::name(name), py::is_method(type)));
  };
  define("_settle", [](const py::handle& self, const py::tuple& outcome, bool wait) {
    Delivery& delivery = delivery_of(self);
    Outcome decided = outcome_from(outcome);
    Result<void> done;
    {
      const Released released;
      done = delivery.settle(std::move(decided), wait);
    }
    if (!done) raise(done.error());
  });
  define("_extend", [](const py::handle& self, std::int64_t by_us) {
    if (auto bad = delivery_of(self).extend(Duration(by_us)); !bad) raise(bad.error());
  });
  define("_progress", [](const py::handle& self, const std::string& note) {
    if (auto bad = delivery_of(self).progress(note); !bad) raise(bad.error());
  });
  define("_transaction",
         [](const py::handle& self, const py::function& body) { transaction(delivery_of(self), body); });
  module.attr("Delivery") = type;
}

}  // namespace towline::python
