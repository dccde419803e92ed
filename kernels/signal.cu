// A kernel that sets all copies of a search's flag: one of the ways to have it leave that bench/gpu.py measures.

#include "search.h"

extern "C" __global__ void set_flags(ww::gpu::u32* flags, ww::gpu::u32 value) {
  if (threadIdx.x < ww::gpu::kFlags) flags[threadIdx.x * ww::gpu::kFlagStride] = value;
}
