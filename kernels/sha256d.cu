// SHA-256d nonce search on a GPU: `search_plain` and `search_rolled` of kernels/search.h. The arithmetic and what it
// rests on: rounds.h; how units share the work and give way: walk.h.
//
// Rate: see bench/results; `python bench/gpu.py` builds and measures this file, bench/sass_bound.py counts its machine
// code. Only files of this folder are included, so NVRTC can build it (-I kernels).

#include "walk.h"

namespace ww::gpu {

// WW_NO_POLL leaves out what asks whether to leave: to see what it costs.
__device__ __forceinline__ u32 load_flag(const u32* flag) {
  u32 x = 0;
#if !defined(WW_NO_POLL)
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(flag) : "memory");
#endif
  return x;
}

// Of the host's memory, at the system's scope: a word that the CPU wrote before it opened a gate is seen by the units of
// the launch that passed there. (They are started after the gate was read, and their reads go the same way.)
__device__ __forceinline__ u32 load_recall(const u32* recall) {
  u32 x = 0;
#if !defined(WW_NO_POLL)
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(x) : "l"(recall) : "memory");
#endif
  return x;
}

__device__ __forceinline__ u32 sm_number() {
  u32 x;
  asm("mov.u32 %0, %%smid;" : "=r"(x));
  return x;
}

// What both kinds of unit share.
struct Common {
  const Scan& scan;
  const Lane* lanes;
  Account* account;
  u64* slots;
  const u32* flag;
  u64* hits;
  u64 deadline;  // by the SM's clock
  Powers powers;
  u32 number;  // of the unit
  const u32& recalled;  // when the block began: one thread reads across the bus for all

  __device__ Common(const Scan& s, const Lane* l, Account* a, u64* slot, const u32* flags, u64* h, u32 unit,
                    const u32& recall)
      : scan(s), lanes(l), account(a), slots(slot), flag(flags + unit % kFlags * kFlagStride), hits(h),
        deadline(s.budget ? clock64() + s.budget : ~u64{0}), powers(powers_of(s.one)), number(unit), recalled(recall) {}

  __device__ u64 slot() const { return slots[number]; }
  __device__ bool unwanted() const { return (load_flag(flag) | recalled) != 0 || sm_number() >= scan.sms; }
  __device__ bool late() const {
#if defined(WW_NO_POLL)
    return false;
#else
    return clock64() >= deadline;
#endif
  }
  __device__ void report(u64 offset, u32 version) const {
    if (offset >= scan.count || version >= scan.versions) return;
    const u64 place = atomicAdd(&account->found, u64{1});
    if (place < scan.capacity) hits[place] = hit_of(version, scan.first + static_cast<u32>(offset));
  }
};

// A warp: 32 nonces of one version at a time.
struct Plain : Common {
  static constexpr u32 kBatch = 1;
  const Fixed& fixed;
  u32 lane;

  __device__ Plain(const Common& c, const Fixed& f) : Common(c), fixed(f), lane(threadIdx.x % 32) {}
  __device__ u32 width() const { return 0; }
  __device__ u64 claim() const {
    u64 chunk = 0;
    if (lane == 0) chunk = atomicAdd(&account->next, u64{1});
    return __shfl_sync(~0u, chunk, 0);
  }
  __device__ bool any(bool x) const { return __any_sync(~0u, x); }
  __device__ void begin(const Place&) const {}
  __device__ void ahead(const Place&) const {}
  __device__ u64 offset(const Place& place) const { return (place.first + place.done) * 32 + lane; }

  __device__ bool iterate(const Place& place, u32, u32& found) const {
    const u32 nonce = swap_bytes(scan.first + static_cast<u32>(offset(place)));
    u32 top;
    if (!top_plain(powers, fixed, nonce, [&] { return load_flag(flag); }, top)) return true;
    found = top <= scan.target_top;
    return false;
  }
  __device__ void report(const Place& place, u32) const { Common::report(offset(place), 0); }
  __device__ void leave(u64 slot) const {
    if (lane == 0) slots[number] = slot;
  }
};

// The schedules of a batch: while one half is read, the other is filled for the next.
struct RolledShared {
  Quad keyed[2][2][kQuads];
  Tail tail;
  u64 chunk;
};

// A block: one nonce at a time, of as many versions as it has threads.
struct Rolled : Common {
  static constexpr u32 kBatch = 2;
  RolledShared& shared;
  u32 turn = 0;  // the warp that makes the next batch's schedules
  u32 version, midstate[8];
  Begin start;

  __device__ Rolled(const Common& c, RolledShared& s) : Common(c), shared(s) {}
  __device__ u32 width() const { return blockDim.x; }
  __device__ u64 claim() const {
    if (threadIdx.x == 0) shared.chunk = atomicAdd(&account->next, u64{1});
    __syncthreads();
    return shared.chunk;
  }
  __device__ bool any(bool x) const { return __syncthreads_or(x); }

  __device__ u64 offset(const Place& place, u32 i) const { return place.first + place.done + i; }
  __device__ u32 nonce(const Place& place, u32 i) const {
    return swap_bytes(scan.first + static_cast<u32>(offset(place, i)));
  }

  __device__ Quad* keyed(const Place& place, u32 i) const {
    return shared.keyed[(place.done / kBatch + i / kBatch) & 1][i % kBatch];
  }
  __device__ void schedule(const Place& place, u32 i) const {
    make_keyed(powers, shared.tail, nonce(place, i), keyed(place, i));
  }
  __device__ void begin(const Place& place) {
    version = place.group * blockDim.x + threadIdx.x;
    const Lane& lane = lanes[version < scan.versions ? version : scan.versions - 1];
    for (int i = 0; i < 8; ++i) midstate[i] = lane.midstate[i];
    start = begin_of(lane.start);
    if (threadIdx.x < kBatch) schedule(place, threadIdx.x);
    __syncthreads();
  }
  __device__ void ahead(const Place& place) {
    if (turn == threadIdx.x / 32 && threadIdx.x % 32 < kBatch) schedule(place, kBatch + threadIdx.x % 32);
    if (++turn == blockDim.x / 32) turn = 0;
  }

  __device__ bool iterate(const Place& place, u32 i, u32& found) const {
    u32 top;
    const auto ask = [&] { return load_flag(flag); };
    if (!top_rolled(powers, start, midstate, keyed(place, i), nonce(place, i), ask, top)) return true;
    found |= (top <= scan.target_top) << i;
    return false;
  }
  __device__ void report(const Place& place, u32 found) const {
    for (u32 i = 0; i < kBatch; ++i)
      if (found >> i & 1) Common::report(offset(place, i), version);
  }
  __device__ void leave(u64 slot) const {
    if (threadIdx.x == 0) slots[number] = slot;
  }
};

}  // namespace ww::gpu

using namespace ww::gpu;

// 1024 threads a block hold both kernels to 64 registers.
extern "C" __global__ void __launch_bounds__(1024)
    search_plain(const __grid_constant__ Scan scan, const Lane* lanes, Account* account, u64* slots, const u32* flags,
                 u64* hits) {
  __shared__ Fixed fixed;
  __shared__ u32 recalled;
  if (threadIdx.x == 0) fixed = fixed_of(scan.tail, *lanes), recalled = load_recall(scan.recall);
  __syncthreads();
  const u32 number = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  Plain unit({scan, lanes, account, slots, flags, hits, number, recalled}, fixed);
  walk(unit, scan);
}

extern "C" __global__ void __launch_bounds__(1024)
    search_rolled(const __grid_constant__ Scan scan, const Lane* lanes, Account* account, u64* slots, const u32* flags,
                  u64* hits) {
  __shared__ RolledShared shared;
  __shared__ u32 recalled;
  if (threadIdx.x == 0) shared.tail = tail_of(scan.tail), recalled = load_recall(scan.recall);
  __syncthreads();
  Rolled unit({scan, lanes, account, slots, flags, hits, blockIdx.x, recalled}, shared);
  walk(unit, scan);
}
