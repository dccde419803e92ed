#include "scheduler/simulate.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/scheduler.h"
#include "scheduler/log.h"

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

py::array requests_of(const Served& served) {
  const py::object dtype = py::module_::import("wattwork.scheduler.served").attr("REQUEST");
  const auto n = static_cast<py::ssize_t>(served.requests.size());
  return py::array(py::dtype::from_args(dtype), {n}, {sizeof(ServedRequest)}, served.requests.data());
}

py::array gaps_of(const Served& served) {
  const auto n = static_cast<py::ssize_t>(served.gaps_ns.size());
  return py::array_t<int64_t>({n, py::ssize_t{2}}, reinterpret_cast<const int64_t*>(served.gaps_ns.data()));
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
  return py::make_tuple(requests_of(result.served), gaps_of(result.served), devices_of(result), result.end_ns);
}

py::tuple replay_face(const py::bytes& log, bool watch_signals) {
  const std::string_view data = log;
  LogReplay r;
  {
    py::gil_scoped_release nogil;
    r = replay_log(reinterpret_cast<const uint8_t*>(data.data()), data.size(), watcher(watch_signals));
  }
  raise_pending();
  return py::make_tuple(requests_of(r.served), gaps_of(r.served), counters_of(r.counters), r.decision_hash,
                        py::make_tuple(r.begin_ns, r.end_ns, r.busy_ns), r.cut_at, r.differs_at);
}

}  // namespace

void bind_simulation(py::module_& m) {
  static_assert(sizeof(ServedRequest) == 48 && sizeof(std::pair<int64_t, int64_t>) == 16);
  m.def("simulate", &simulate_face);
  m.def("replay", &replay_face);
}

}  // namespace ww::bindings
