// What the rooms of the scheduler's faces share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "scheduler/scheduler.h"

namespace ww::bindings {

SchedulerConfig config_of(const pybind11::object& config);      // a wattwork.SchedulerConfig
pybind11::dict counters_of(const SchedulerCounters& counters);  // under the names of wattwork.Stats
using Int32s = pybind11::array_t<int32_t, pybind11::array::c_style | pybind11::array::forcecast>;
template <class T>
pybind11::array_t<T> copied(const T* from, int32_t n) {
  return pybind11::array_t<T>(n, from);
}
// `sampling`: a wattwork.Sampling or None.
RequestParams params_of(int32_t max_tokens, int32_t stop_token_id, const pybind11::object& sampling, int32_t priority,
                        uint64_t tenant, int64_t deadline_ns, int64_t timeout_ns);
// A batch as wattwork.engines.base.Batch: copies, since an engine may keep them; the block table without the columns
// that no row uses.
pybind11::object batch_of(const ww_batch& batch, int32_t block_size);
pybind11::tuple end_of(const EndEvent& event);  // as wattwork.scheduler.twin.EndEvent

}  // namespace ww::bindings
