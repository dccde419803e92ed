#include "bindings/bindings.h"

namespace ww::bindings {

void bind_decoder(pybind11::module_&) {}

}  // namespace ww::bindings
