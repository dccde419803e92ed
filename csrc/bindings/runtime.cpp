#include "runtime/back.h"
#include "runtime/pool.h"

#include "bindings/bindings.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

// A back that is written in Python: `run` is called with the address of the yield flag and the number of workers it
// may have, `units` for its count.
class PythonBack : public Back {
 public:
  PythonBack(py::function run, py::function units) : run_(std::move(run)), units_(std::move(units)) {}
  ~PythonBack() override {
    py::gil_scoped_acquire gil;  // the loop's thread may be the last to hold it
    run_ = units_ = py::function();
  }

  void run(Team& team, const YieldFlag& yield) override {
    py::gil_scoped_acquire gil;
    try {
      run_(reinterpret_cast<uintptr_t>(&yield), team.size());
    } catch (py::error_already_set& error) {  // its words only: the exception itself must not outlive the GIL
      throw std::runtime_error(said_by(error));
    }
  }

  uint64_t units() const override {
    py::gil_scoped_acquire gil;
    return units_().cast<uint64_t>();
  }

 private:
  py::function run_, units_;
};

}  // namespace

// The exception may have no text, or none that is UTF-8.
std::string said_by(const py::error_already_set& e) {
  std::string text = e.type().attr("__name__").cast<std::string>();
  try {
    const auto utf8 = py::str(e.value()).attr("encode")("utf-8", "backslashreplace").cast<py::bytes>();
    text += ": " + std::string(utf8);
  } catch (const py::error_already_set&) {
  }
  return text;
}

std::function<bool()> watcher(bool watch_signals) {
  if (!watch_signals) return {};
  return [] {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
  };
}

void raise_pending() {
  if (PyErr_Occurred()) throw py::error_already_set();
}

void bind_runtime(py::module_& m) {
  m.def("default_threads", &default_threads);
  m.def("now_ns", &now_ns);
  py::class_<Back, std::shared_ptr<Back>>(m, "Back").def_property_readonly("units", &Back::units);
  py::class_<PythonBack, Back, std::shared_ptr<PythonBack>>(m, "PythonBack")
      .def(py::init<py::function, py::function>(), py::arg("run"), py::arg("units"));
}

}  // namespace ww::bindings
