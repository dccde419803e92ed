#include "bindings/bindings.h"

namespace ww::bindings {

void bind_search(pybind11::module_&) {}

}  // namespace ww::bindings
