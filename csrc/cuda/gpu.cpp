#include "cuda/gpu.h"

#include <algorithm>

#include "cuda/workspace.h"

#ifdef WATTWORK_CUDA_IMAGE
extern "C" const char ww_cuda_image[], ww_cuda_image_end[];  // cuda_image.S
#endif

namespace ww::cuda {
namespace {

int attribute(int device, int which) {
  int value = 0;
  driver().device_attribute(&value, which, device);
  return value;
}

GpuInfo describe(int ordinal) {
  int device = 0;
  driver().device(&device, ordinal);
  char name[256] = "";
  driver().device_name(name, sizeof name, device);
  size_t bytes = 0;
  driver().device_memory(&bytes, device);
  return {name, 10 * attribute(device, kSmMajor) + attribute(device, kSmMinor), attribute(device, kSmCount),
          attribute(device, kClockKhz), bytes};
}

int count() {
  int n = 0;
  driver().device_count(&n);
  return n;
}

Module load(std::string_view image, const GpuInfo& info) {
  if (image.empty()) image = built_in_image();
  if (image.empty())
    throw Error("no GPU kernels are built in, for there was no nvcc; pip install 'wattwork[cuda13]' to have them "
                "compiled here, or build wattwork where nvcc is.");
  Module module = nullptr;
  const int code = driver().load_module.entry(&module, image.data());
  const std::string this_gpu = info.name + " (sm_" + std::to_string(info.sm) + ")";
  if (code == kNoBinaryForGpu)
    throw Error("wattwork's GPU kernels are for sm_80 and later, and there is none for this " + this_gpu +
                "; use another GPU, or device 'cpu'.");
  if (code == kInvalidImage || code == kUnsupportedPtx)
    throw Error("the NVIDIA driver here is too old for wattwork's GPU kernels on this " + this_gpu +
                "; install a later one, or use device 'cpu'.");
  if (code != kSuccess) fail(driver(), driver().load_module.name, code);
  return module;
}

}  // namespace

std::string_view built_in_image() {
#ifdef WATTWORK_CUDA_IMAGE
  return {ww_cuda_image, static_cast<size_t>(ww_cuda_image_end - ww_cuda_image)};
#else
  return {};
#endif
}

std::vector<GpuInfo> gpus() {
  std::vector<GpuInfo> all;
  for (int i = 0; i < count(); ++i) all.push_back(describe(i));
  return all;
}

Gpu::Gpu(int ordinal, std::string_view image, const Shape& shape) : shape_(shape) {
  const int n = count();
  if (ordinal < 0 || ordinal >= n)
    throw Error("there is no GPU cuda:" + std::to_string(ordinal) + " here; choose " +
                (n == 1 ? "cuda:0" : "one of cuda:0 to cuda:" + std::to_string(n - 1)) + ".");
  driver().device(&device_, ordinal);
  info_ = describe(ordinal);
  driver().retain_context(&context_, device_);
  try {
    const Current current(context_);
    module_ = load(image, info_);
    driver().kernel(&plain_, module_, "search_plain");
    driver().kernel(&rolled_, module_, "search_rolled");
  } catch (...) {
    driver().release_context.entry(device_);
    throw;
  }
}

// At a process's end the driver may have ended before us: its codes are of no use here.
Gpu::~Gpu() {
  spaces_.clear();
  const Driver* const last = driver_to_end_with();
  if (!last) return;
  if (last->push_context.entry(context_) == kSuccess) {
    Context popped;
    last->unload_module.entry(module_);
    last->pop_context.entry(&popped);
  }
  last->release_context.entry(device_);
}

std::unique_ptr<Workspace> Gpu::take_workspace() {
  {
    std::lock_guard lock(mutex_);
    if (!spaces_.empty()) {
      auto space = std::move(spaces_.back());
      spaces_.pop_back();
      return space;
    }
  }
  return std::make_unique<Workspace>(*this);
}

void Gpu::give_back(std::unique_ptr<Workspace> space) {
  space->fence().settle();
  std::lock_guard lock(mutex_);
  spaces_.push_back(std::move(space));
}

}  // namespace ww::cuda
