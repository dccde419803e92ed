#include "bindings/bindings.h"

namespace ww::bindings {

void bind_scheduler(pybind11::module_&) {}

}  // namespace ww::bindings
