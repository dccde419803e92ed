// The search kernels as kernels/search.h states them, one unit's iteration after the other, in an order drawn by seed.
#pragma once

#include <atomic>

#include "../../kernels/search.h"

namespace fake {

using ww::gpu::u32;
using ww::gpu::u64;

// A launch, with the device's memory at the host's addresses.
struct Launch {
  bool rolled;
  u32 blocks, threads, sms;
  ww::gpu::Scan scan;
  const ww::gpu::Lane* lanes;
  ww::gpu::Account* account;
  u64* slots;
  const u32* flags;
  u64* hits;
  u64 seed;
};

void run(const Launch& launch);

// Kernels of a front at work: no unit may begin beside one.
inline std::atomic<int> fronts{0};
inline std::atomic<u64> begun_beside_a_front{0}, begun{0};  // units

// Memory that several streams reach, word by word.
inline u32 read(const u32* word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
inline void write(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }

}  // namespace fake
