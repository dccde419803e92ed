#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <stdexcept>

#include "bindings/bindings.h"
#include "cuda/job.h"

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

Work checked_work(const std::string& header, const std::string& target, uint32_t version_mask, const RectTuple& rect) {
  const Work work = make_work(header, target, version_mask);
  if (!is_valid(work, as_rect(rect))) throw std::invalid_argument("The rectangle lies outside the work.");
  return work;
}

const std::atomic<uint32_t>* stop_at(uintptr_t address) { return as_stop(reinterpret_cast<const uint32_t*>(address)); }

auto gpu_list() {
  py::gil_scoped_release nogil;
  std::vector<std::tuple<std::string, int, int, uint64_t>> out;
  for (const cuda::GpuInfo& gpu : cuda::gpus()) out.emplace_back(gpu.name, gpu.sm, gpu.sms, gpu.memory_bytes);
  return out;
}

// `shape` overrides defaults by name; what it holds is for tests.
cuda::Shape as_shape(const py::dict& overrides) {
  cuda::Shape shape;
  const std::pair<const char*, uint32_t*> fields[] = {
      {"threads", &shape.threads}, {"blocks_per_sm", &shape.blocks_per_sm}, {"chunk", &shape.chunk},
      {"lanes", &shape.lanes},     {"capacity", &shape.capacity},           {"launch_us", &shape.launch_us}};
  for (const auto& [name, value] : fields)
    if (overrides.contains(name)) *value = overrides[name].cast<uint32_t>();
  return shape;
}

auto search_face(cuda::Gpu& gpu, const std::string& header, const std::string& target, uint32_t version_mask,
                 const RectTuple& rect, uintptr_t stop_address, uint64_t max_hits, bool watch_signals) {
  const Work work = checked_work(header, target, version_mask, rect);
  const Controls controls{stop_at(stop_address), max_hits, nullptr, watcher(watch_signals)};
  Found found;
  {
    py::gil_scoped_release nogil;
    found = cuda::search(gpu, work, as_rect(rect), controls);
  }
  raise_pending();
  std::vector<std::tuple<uint32_t, uint32_t, py::bytes>> hits;
  for (const Hit& hit : found.hits) hits.emplace_back(hit.nonce, hit.version, as_bytes(hit));
  std::vector<RectTuple> remaining;
  for (const Rect& r : found.remaining) remaining.push_back(as_tuple(r));
  return std::make_tuple(std::move(hits), std::move(remaining), found.hashes);
}

// With the face of a Job on the CPU.
void run_job(cuda::GpuJob& job, uintptr_t stop_address, int /*threads*/, bool watch_signals) {
  {
    py::gil_scoped_release nogil;
    job.run(*stop_at(stop_address), watcher(watch_signals));
  }
  raise_pending();
}

auto job_hits(cuda::GpuJob& job) {
  std::vector<std::tuple<uint32_t, uint32_t, uint32_t, py::bytes>> out;
  for (const JobHit& h : job.take_hits()) out.emplace_back(h.hit.nonce, h.hit.version, h.time, as_bytes(h.hit));
  return out;
}

auto job_left(cuda::GpuJob& job) {
  py::gil_scoped_release nogil;
  std::vector<std::pair<uint32_t, RectTuple>> out;
  for (const Piece& piece : job.left()) out.emplace_back(piece.time, as_tuple(piece.rect));
  return out;
}

}  // namespace

void bind_cuda(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const cuda::Error& e) {
      py::set_error(py::module_::import("wattwork.errors").attr("DeviceError"), e.what());
    }
  });
  m.def("gpu_list", &gpu_list);
  m.def("gpu_kernels_built_in", [] { return !cuda::built_in_image().empty(); });
  py::class_<cuda::Gpu, std::shared_ptr<cuda::Gpu>>(m, "Gpu")
      .def(py::init([](int ordinal, const std::string& image, const py::dict& shape) {
        const cuda::Shape wanted = as_shape(shape);
        py::gil_scoped_release nogil;
        return std::make_shared<cuda::Gpu>(ordinal, image, wanted);
      }))
      .def_property_readonly("isa", &cuda::Gpu::isa)
      .def_property_readonly("versions_side_by_side", [](const cuda::Gpu& gpu) { return gpu.shape().threads; })
      .def("search", &search_face);
  py::class_<cuda::GpuJob, Back, std::shared_ptr<cuda::GpuJob>>(m, "GpuJob")
      .def(py::init([](std::shared_ptr<cuda::Gpu> gpu, const std::string& header, const std::string& target, uint32_t mask,
                       const RectTuple& share) {
        const Work work = checked_work(header, target, mask, share);
        return std::make_shared<cuda::GpuJob>(std::move(gpu), work, as_rect(share));
      }))
      .def("run", &run_job)
      .def("left", &job_left)
      .def("take_hits", &job_hits)
      .def_property_readonly("hits_lost", &cuda::GpuJob::hits_lost);
}

}  // namespace ww::bindings
