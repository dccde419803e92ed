// What the rooms of the scheduler's faces share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "scheduler/scheduler.h"

namespace ww::bindings {

SchedulerConfig config_of(const pybind11::object& config);           // a wattwork.SchedulerConfig
pybind11::dict counters_of(const SchedulerCounters& counters);  // under the names of wattwork.Stats

}  // namespace ww::bindings
