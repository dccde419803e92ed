// One GPU with the search kernels loaded, and what a search needs of it: memory, streams, events.
//
// All happens in the GPU's primary context, which CuPy and PyTorch use, too; it is the thread's current one only within
// our own calls.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/driver.h"

namespace ww::cuda {

struct GpuInfo {
  std::string name;
  int sm;  // compute capability: 10 major + minor
  int sms, clock_khz;
  uint64_t memory_bytes;
};

// Those that the driver shows, by ordinal. Throws an Error where there are none.
WW_API std::vector<GpuInfo> gpus();

// The kernels that were compiled with this library; empty where it was built without nvcc.
WW_API std::string_view built_in_image();

class Workspace;

// How searches are cut into launches. The defaults are for use; tests take smaller ones.
struct Shape {
  uint32_t threads = 256;       // of a block; as many versions are rolled side by side
  uint32_t blocks_per_sm = 2;
  uint32_t chunk = 64;          // iterations that a unit claims at a time
  uint32_t lanes = 4096;        // versions of one account at most; a multiple of `threads`
  uint32_t capacity = 1 << 14;  // candidates of one account
  uint32_t launch_us = 5000;    // after which a launch ends by itself: device-wide calls of others wait for it
};

// Makes a context this thread's current one for a scope.
class Current {
 public:
  explicit Current(Context context) { driver().push_context(context); }
  ~Current() {
    Context popped;
    driver().pop_context.entry(&popped);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
};

class WW_API Gpu {
 public:
  // The kernels come from a cubin or fat binary that holds search_plain and search_rolled; empty: the built-in one.
  Gpu(int ordinal, std::string_view image, const Shape& shape = {});
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const GpuInfo& info() const { return info_; }
  const Shape& shape() const { return shape_; }
  std::string isa() const { return "sm_" + std::to_string(info_.sm); }
  Context context() const { return context_; }
  Kernel plain() const { return plain_; }
  Kernel rolled() const { return rolled_; }
  uint32_t blocks() const { return static_cast<uint32_t>(info_.sms) * shape_.blocks_per_sm; }

  // Streams and buffers of one search at a time, with the context current. Those given back serve the next search.
  std::unique_ptr<Workspace> take_workspace();
  void give_back(std::unique_ptr<Workspace> space);

 private:
  const Shape shape_;
  int device_ = 0;
  GpuInfo info_;
  Context context_ = nullptr;
  Module module_ = nullptr;
  Kernel plain_ = nullptr, rolled_ = nullptr;
  std::mutex mutex_;  // of what follows
  std::vector<std::unique_ptr<Workspace>> spaces_;
};

}  // namespace ww::cuda
