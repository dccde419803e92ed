#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/search.h"
#include "cuda/job.h"

namespace py = pybind11;

namespace ww::bindings {
namespace {

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
  const Work work = make_work(header, target, version_mask);
  const Rect within = checked_rect(work, rect);
  const Controls controls{stop_at(stop_address), max_hits, nullptr, watcher(watch_signals)};
  Found found;
  {
    py::gil_scoped_release nogil;
    found = cuda::search(gpu, work, within, controls);
  }
  raise_pending();
  return answer_of(found);
}

auto make_job(std::shared_ptr<cuda::Gpu> gpu, const std::string& header, const std::string& target,
              uint32_t version_mask, const RectTuple& share, std::optional<uint32_t> sms) {
  const Work work = make_work(header, target, version_mask);
  const Rect within = checked_rect(work, share);
  py::gil_scoped_release nogil;
  return std::make_shared<cuda::GpuJob>(std::move(gpu), work, within, sms.value_or(cuda::kAllSms));
}

cuda::Stream stream_at(uintptr_t address) { return reinterpret_cast<cuda::Stream>(address); }

// With the face of a Job on the CPU.
void run_job(cuda::GpuJob& job, uintptr_t stop_address, int /*threads*/, bool watch_signals) {
  {
    py::gil_scoped_release nogil;
    job.run(*stop_at(stop_address), watcher(watch_signals));
  }
  raise_pending();
}

auto job_left(cuda::GpuJob& job) {
  py::gil_scoped_release nogil;
  return answer_of(job.left());
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
  const py::call_guard<py::gil_scoped_release> no_gil;
  m.def("gpu_list", &gpu_list);
  m.def("gpu_kernels_built_in", [] { return !cuda::built_in_image().empty(); });
  py::class_<cuda::Gpu, std::shared_ptr<cuda::Gpu>>(m, "Gpu")
      .def(py::init([](int ordinal, const std::string& image, const py::dict& shape) {
        const cuda::Shape wanted = as_shape(shape);
        py::gil_scoped_release nogil;
        return std::make_shared<cuda::Gpu>(ordinal, image, wanted);
      }))
      .def_property_readonly("isa", &cuda::Gpu::isa)
      .def_property_readonly("sms", [](const cuda::Gpu& gpu) { return gpu.info().sms; })
      .def_property_readonly("versions_side_by_side", [](const cuda::Gpu& gpu) { return gpu.shape().threads; })
      .def("search", &search_face);
  py::class_<cuda::GpuJob, Back, std::shared_ptr<cuda::GpuJob>>(m, "GpuJob")
      .def(py::init(&make_job), py::arg(), py::arg(), py::arg(), py::arg(), py::arg(), py::arg("sms") = py::none())
      .def("run", &run_job)
      .def("front_begin", [](cuda::GpuJob& job, uintptr_t stream) { job.front_begin(stream_at(stream)); }, no_gil)
      .def("front_end", [](cuda::GpuJob& job, uintptr_t stream) { job.front_end(stream_at(stream)); }, no_gil)
      .def("left", &job_left)
      .def("take_hits", [](cuda::GpuJob& job) { return answer_of(job.take_hits()); })
      .def_property_readonly("hits_lost", &cuda::GpuJob::hits_lost);
}

}  // namespace ww::bindings
