// One bind_* function a room; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <string>

namespace ww::bindings {

// "ValueError: ...": an exception in words. With the GIL.
std::string said_by(const pybind11::error_already_set& error);

// Asks Python whether to stop, where signals are to be watched: its handlers run on its main thread only, so only there
// is the GIL taken for them. Empty: never ask.
std::function<bool()> watcher(bool watch_signals);
void raise_pending();

void bind_runtime(pybind11::module_& m);
void bind_search(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_decoder(pybind11::module_& m);
void bind_scheduler(pybind11::module_& m);
void bind_loop(pybind11::module_& m);
void bind_simulation(pybind11::module_& m);

}  // namespace ww::bindings
