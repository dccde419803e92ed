#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <stdexcept>

#include "bindings/bindings.h"
#include "sha256d/job.h"
#include "sha256d/search.h"
#include "sha256d/table.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

using RectTuple = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t>;

RectTuple as_tuple(const Rect& r) { return {r.first, r.count, r.version_first, r.versions}; }
Rect as_rect(const RectTuple& t) { return {std::get<0>(t), std::get<1>(t), std::get<2>(t), std::get<3>(t)}; }
py::bytes as_bytes(const Hit& hit) { return {reinterpret_cast<const char*>(hit.hash), sizeof hit.hash}; }

Work make_work(const std::string& header, const std::string& target, uint32_t version_mask) {
  Work work{};
  if (header.size() != sizeof work.header || target.size() != sizeof work.target)
    throw std::invalid_argument("A header has 80 bytes and a target 32.");
  std::memcpy(work.header, header.data(), header.size());
  std::memcpy(work.target, target.data(), target.size());
  work.version_mask = version_mask;
  return work;
}

const std::atomic<uint32_t>* stop_at(uintptr_t address) { return as_stop(reinterpret_cast<const uint32_t*>(address)); }

auto search_face(const std::string& header, const std::string& target, uint32_t version_mask, const RectTuple& rect,
                 const std::string& isa, int threads, uintptr_t stop_address, uint64_t max_hits, bool watch_signals) {
  const Work work = make_work(header, target, version_mask);
  if (!is_valid(work, as_rect(rect))) throw std::invalid_argument("The rectangle lies outside the work.");
  const Controls controls{stop_at(stop_address), max_hits, nullptr, watcher(watch_signals)};
  Found found;
  {
    py::gil_scoped_release nogil;
    found = search(work, as_rect(rect), choose_kernel(isa), threads, controls);
  }
  raise_pending();
  std::vector<std::tuple<uint32_t, uint32_t, py::bytes>> hits;
  for (const Hit& hit : found.hits) hits.emplace_back(hit.nonce, hit.version, as_bytes(hit));
  std::vector<RectTuple> remaining;
  for (const Rect& r : found.remaining) remaining.push_back(as_tuple(r));
  return std::make_tuple(std::move(hits), std::move(remaining), found.hashes);
}

void run_job(Job& job, uintptr_t stop_address, int threads, bool watch_signals) {
  {
    py::gil_scoped_release nogil;
    Team team(threads);
    job.run(team, *stop_at(stop_address), watcher(watch_signals));
  }
  raise_pending();
}

auto job_hits(Job& job) {
  std::vector<std::tuple<uint32_t, uint32_t, uint32_t, py::bytes>> out;
  for (const JobHit& h : job.take_hits()) out.emplace_back(h.hit.nonce, h.hit.version, h.time, as_bytes(h.hit));
  return out;
}

std::pair<uint32_t, RectTuple> as_pair(const Piece& piece) { return {piece.time, as_tuple(piece.rect)}; }

auto job_given_back(const Job& job) {
  std::vector<std::pair<uint32_t, RectTuple>> out;
  for (const Piece& piece : job.given_back()) out.push_back(as_pair(piece));
  return out;
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
      .def("given_back", &job_given_back)
      .def("next_fresh", [](const Job& job) { return as_pair(job.next_fresh()); })
      .def("take_hits", &job_hits)
      .def_property_readonly("hits_lost", &Job::hits_lost)
      .def_property_readonly("isa", [](const Job& job) { return job.kernel().name; });
}

}  // namespace ww::bindings
