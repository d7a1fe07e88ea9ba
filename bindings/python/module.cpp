// towline._core: the port, deliveries and permits. What users see is typed Python around it. Errors cross the
// boundary by their number; the classes are Python's own (towline/errors.py, from the table).

#include <pybind11/functional.h>
#include <pybind11/stl.h>

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

namespace {

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

}  // namespace

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
