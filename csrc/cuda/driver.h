// NVIDIA's driver, opened when a GPU is first asked for. Nothing of CUDA is linked and no header of it is needed: the
// few functions used are declared here as the CUDA Driver API Reference gives them. Their ABI does not change: a
// changed function gets another name (_v2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "wattwork/wattwork.h"

namespace ww::cuda {

// The GPU asked for is not here, cannot be used, or failed at its work. One sentence, for the user.
struct WW_API Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Context = struct CUctx_st*;
using Stream = struct CUstream_st*;
using Event = struct CUevent_st*;
using Module = struct CUmod_st*;
using Kernel = struct CUfunc_st*;
using Pointer = unsigned long long;  // of the device's memory

constexpr int kSuccess = 0, kNoDevice = 100, kInvalidImage = 200, kNoBinaryForGpu = 209, kUnsupportedPtx = 222;
constexpr int kNotReady = 600, kNotSupported = 801;
constexpr int kSmCount = 16, kClockKhz = 13, kSmMajor = 75, kSmMinor = 76;  // CUdevice_attribute

// CUstreamBatchMemOpParams, as it is for writing and waiting.
struct MemOp {
  uint32_t operation;
  Pointer address;
  uint64_t value;
  uint32_t flags;
  Pointer alias = 0;  // the driver's own
  uint64_t pad = 0;
};
static_assert(sizeof(MemOp) == 48);

struct Driver;

// One function of the driver. Called, it throws an Error that names it; `entry` gives the bare code.
template <class... Args> struct Function {
  Function(const Driver& the_driver, const char* the_name);
  void operator()(Args... args) const;
  const Driver& driver;
  const char* name;
  int (*entry)(Args...);
};

// Throws what one of its functions said.
[[noreturn]] void fail(const Driver& driver, const char* function, int code);
void* symbol(const Driver& driver, const char* name);

struct Driver {
  Driver();  // throws an Error: no driver, one that is too old, or no GPU

  void* const library;
  Function<int, const char**> error_string{*this, "cuGetErrorString"};
  Function<int*> version{*this, "cuDriverGetVersion"};
  Function<unsigned> init{*this, "cuInit"};

  Function<int*> device_count{*this, "cuDeviceGetCount"};
  Function<int*, int> device{*this, "cuDeviceGet"};
  Function<char*, int, int> device_name{*this, "cuDeviceGetName"};
  Function<int*, int, int> device_attribute{*this, "cuDeviceGetAttribute"};
  Function<size_t*, int> device_memory{*this, "cuDeviceTotalMem_v2"};

  Function<Context*, int> retain_context{*this, "cuDevicePrimaryCtxRetain"};
  Function<int> release_context{*this, "cuDevicePrimaryCtxRelease_v2"};
  Function<Context> push_context{*this, "cuCtxPushCurrent_v2"};
  Function<Context*> pop_context{*this, "cuCtxPopCurrent_v2"};
  Function<int*, int*> priorities{*this, "cuCtxGetStreamPriorityRange"};  // the least, the greatest

  Function<Module*, const void*> load_module{*this, "cuModuleLoadData"};
  Function<Module> unload_module{*this, "cuModuleUnload"};
  Function<Kernel*, Module, const char*> kernel{*this, "cuModuleGetFunction"};
  Function<Kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, void**>
      launch{*this, "cuLaunchKernel"};

  Function<Stream*, unsigned, int> create_stream{*this, "cuStreamCreateWithPriority"};
  Function<Stream> destroy_stream{*this, "cuStreamDestroy_v2"};
  Function<Stream> synchronize{*this, "cuStreamSynchronize"};
  Function<Stream> query_stream{*this, "cuStreamQuery"};
  Function<Stream, unsigned, const MemOp*, unsigned> operate{*this, "cuStreamBatchMemOp_v2"};
  Function<Event*, unsigned> create_event{*this, "cuEventCreate"};
  Function<Event> destroy_event{*this, "cuEventDestroy_v2"};
  Function<Event, Stream> record{*this, "cuEventRecord"};
  Function<Event> query{*this, "cuEventQuery"};
  Function<Event> wait{*this, "cuEventSynchronize"};

  Function<Pointer*, size_t> allocate{*this, "cuMemAlloc_v2"};
  Function<Pointer> free{*this, "cuMemFree_v2"};
  Function<void**, size_t> allocate_host{*this, "cuMemAllocHost_v2"};
  Function<void*> free_host{*this, "cuMemFreeHost"};
  Function<Pointer, const void*, size_t, Stream> to_device{*this, "cuMemcpyHtoDAsync_v2"};
  Function<void*, Pointer, size_t, Stream> to_host{*this, "cuMemcpyDtoHAsync_v2"};
  Function<Pointer, unsigned, size_t, Stream> fill{*this, "cuMemsetD32Async"};
};

// The process's own, opened and initialised by the first call that succeeds. Throws an Error, also in a forked child of
// a process that had it.
const Driver& driver();

// The same for a destructor: null where it must not be called any more, in a forked child.
const Driver* driver_to_end_with() noexcept;

template <class... Args>
Function<Args...>::Function(const Driver& the_driver, const char* the_name)
    : driver(the_driver), name(the_name), entry(reinterpret_cast<int (*)(Args...)>(symbol(the_driver, the_name))) {}

template <class... Args> void Function<Args...>::operator()(Args... args) const {
  if (const int code = entry(args...)) fail(driver, name, code);
}

}  // namespace ww::cuda
