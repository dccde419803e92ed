// One bind_* function a room; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace ww::bindings {

// "ValueError: ...": an exception in words. With the GIL.
std::string said_by(const pybind11::error_already_set& error);

void bind_runtime(pybind11::module_& m);
void bind_search(pybind11::module_& m);
void bind_decoder(pybind11::module_& m);
void bind_scheduler(pybind11::module_& m);

}  // namespace ww::bindings
