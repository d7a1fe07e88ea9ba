// Errors cross the boundary by their number; the classes are Python's own (towline/errors.py, from the
// table).

#include "binding.hpp"

namespace towline::python {

py::object exception_of(const Error& error) {
  return py::module_::import("towline.errors")
      .attr("of")(static_cast<int>(error.code), error.message, error.native_code);
}

void raise(const Error& error) {
  const py::object exception = exception_of(error);
  PyErr_SetObject(py::type::handle_of(exception).ptr(), exception.ptr());
  throw py::error_already_set();
}

void translate_cast_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const py::cast_error&) {
      PyErr_SetString(
          PyExc_TypeError,
          "an argument has the wrong type, is out of range, or is text that UTF-8 has no bytes for");
    }
  });
}

}  // namespace towline::python
