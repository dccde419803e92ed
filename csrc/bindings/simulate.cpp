#include "scheduler/simulate.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/scheduler.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

template <class T>
using Column = py::array_t<T, py::array::c_style | py::array::forcecast>;
template <class T>
using MaybeColumn = std::optional<Column<T>>;

template <class T>
const T* checked(const Column<T>& column, py::ssize_t n) {
  if (column.ndim() != 1 || column.size() != n) throw std::invalid_argument("all arrays must be 1-D, of one length.");
  return column.data();
}

template <class T>
const T* checked(const MaybeColumn<T>& column, py::ssize_t n) {
  return column ? checked(*column, n) : nullptr;
}

py::list devices_of(const SimResult& result) {
  py::list devices;
  for (const SimDevice& d : result.devices)
    devices.append(py::make_tuple(counters_of(d.counters), d.decision_hash, d.busy_ns));
  return devices;
}

py::tuple simulate_face(const py::object& config, const Column<int64_t>& time_ns, const Column<int32_t>& prompt_tokens,
                        const Column<int32_t>& output_tokens, const MaybeColumn<int32_t>& priority,
                        const MaybeColumn<uint64_t>& tenant, const MaybeColumn<int64_t>& deadline_ns,
                        const MaybeColumn<int64_t>& timeout_ns, const std::array<double, 4>& cost, uint64_t seed,
                        int devices, bool watch_signals) {
  const SchedulerConfig c = config_of(config);
  const py::ssize_t n = time_ns.size();
  const SimArrivals arrivals{n,
                             checked(time_ns, n),
                             checked(prompt_tokens, n),
                             checked(output_tokens, n),
                             checked(priority, n),
                             checked(tenant, n),
                             checked(deadline_ns, n),
                             checked(timeout_ns, n)};
  SimResult result;
  {
    py::gil_scoped_release nogil;
    result = simulate(c, arrivals, {cost[0], cost[1], cost[2], cost[3], seed}, devices, watcher(watch_signals));
  }
  raise_pending();
  const py::object dtype = py::module_::import("wattwork.serving").attr("REQUEST");
  const auto rows = static_cast<py::ssize_t>(result.requests.size()), gaps = static_cast<py::ssize_t>(result.gaps_ns.size());
  return py::make_tuple(
      py::array(py::dtype::from_args(dtype), {rows}, {sizeof(SimRequest)}, result.requests.data()),
      py::array_t<int64_t>({gaps, py::ssize_t{2}}, reinterpret_cast<const int64_t*>(result.gaps_ns.data())),
      devices_of(result), result.end_ns);
}

}  // namespace

void bind_simulation(py::module_& m) {
  static_assert(sizeof(SimRequest) == 48 && sizeof(std::pair<int64_t, int64_t>) == 16);
  m.def("simulate", &simulate_face);
}

}  // namespace ww::bindings
