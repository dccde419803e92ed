#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "wattwork's native core; see the modules of wattwork for the documented faces";
#if defined(__clang__)
  m.attr("compiler") = "clang " __clang_version__;
#else
  m.attr("compiler") = "g++ " __VERSION__;
#endif
  ww::bindings::bind_runtime(m);
  ww::bindings::bind_search(m);
  ww::bindings::bind_cuda(m);
  ww::bindings::bind_decoder(m);
  ww::bindings::bind_scheduler(m);
  ww::bindings::bind_loop(m);
  ww::bindings::bind_simulation(m);
}
