#include "bindings/search.h"

#include <memory>

#include "bindings/bindings.h"
#include "sha256d/table.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

auto search_face(const std::string& header, const std::string& target, uint32_t version_mask, const RectTuple& rect,
                 const std::string& isa, int threads, uintptr_t stop_address, uint64_t max_hits, bool watch_signals) {
  const Work work = make_work(header, target, version_mask);
  const Rect within = checked_rect(work, rect);
  const Controls controls{stop_at(stop_address), max_hits, nullptr, watcher(watch_signals)};
  Found found;
  {
    py::gil_scoped_release nogil;
    found = search(work, within, choose_kernel(isa), threads, controls);
  }
  raise_pending();
  return answer_of(found);
}

void run_job(Job& job, uintptr_t stop_address, int threads, bool watch_signals) {
  {
    py::gil_scoped_release nogil;
    Team team(threads);
    job.run(team, *stop_at(stop_address), watcher(watch_signals));
  }
  raise_pending();
}

std::vector<std::string> isa_list() {
  py::gil_scoped_release nogil;
  std::vector<std::string> names;
  for (const Kernel* kernel : usable_kernels()) names.emplace_back(kernel->name);
  return names;
}

}  // namespace

void bind_search(py::module_& m) {
  m.def("isa_list", &isa_list);
  m.def("self_test", [](const std::string& isa) {
    py::gil_scoped_release nogil;
    return self_test(choose_kernel(isa));
  });
  m.def("versions_side_by_side", [](const std::string& isa) {
    py::gil_scoped_release nogil;
    return choose_kernel(isa).side_by_side(kMaxVersions);
  });
  m.def("search", &search_face);
  py::class_<Job, Back, std::shared_ptr<Job>>(m, "Job")
      .def(py::init([](const std::string& header, const std::string& target, uint32_t mask, const std::string& isa) {
        return std::make_shared<Job>(make_work(header, target, mask), choose_kernel(isa));
      }))
      .def("run", &run_job)
      .def("take", [](Job& job) { return as_pair(job.take()); })
      .def("give_back", [](Job& job, uint32_t time, const RectTuple& r) { job.give_back({time, as_rect(r)}); })
      .def("given_back", [](const Job& job) { return answer_of(job.given_back()); })
      .def("next_fresh", [](const Job& job) { return as_pair(job.next_fresh()); })
      .def("take_hits", [](Job& job) { return answer_of(job.take_hits()); })
      .def_property_readonly("hits_lost", &Job::hits_lost)
      .def_property_readonly("isa", [](const Job& job) { return job.kernel().name; });
}

}  // namespace ww::bindings
