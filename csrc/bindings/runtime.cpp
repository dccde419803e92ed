#include "runtime/back.h"
#include "runtime/pool.h"

#include "bindings/bindings.h"

namespace py = pybind11;

namespace ww::bindings {

void bind_runtime(py::module_& m) {
  m.def("default_threads", &default_threads);
  m.def("now_ns", &now_ns);
  py::class_<Back, std::shared_ptr<Back>>(m, "Back").def_property_readonly("units", &Back::units);
}

}  // namespace ww::bindings
