// What a GPU search is told and what it leaves behind, for both sides: kernels/sha256d.cu and csrc/cuda include this file.
//
// A search covers a rectangle: nonces [first, first + count) x the versions of `lanes`. It is cut into chunks, which the
// units of a launch (plain: warps; rolled: blocks) claim in order from Account::next and go through one iteration at a
// time:
//   plain   an iteration is 32 nonces of one version, one a lane.      Chunk c: nonces [c * chunk * 32, ... + chunk * 32)
//   rolled  an iteration is one nonce of a group of versions, one a    Chunk c: group c / spans, of that group the nonces
//           thread of the block. A group is blockDim.x versions.       [c % spans * chunk, ... + chunk)
// counted from `first`, and cut off at `count` and `versions`. spans = ceil(count / chunk).
//
// A unit leaves when nothing is left to claim, when its flag is not 0, or when its budget of cycles is spent; at its start
// also when the word at Scan::recall is not 0, or when it is on an SM that the search may not use. It then notes in its slot which
// chunk it is in and how many of its iterations are done, or 0. An iteration that was broken off counts as not done. So
// at any launch's end, what was tested is exact:
//   chunks below `next`, but of each slot's chunk only the first `done` iterations.
// The next launch with the same arguments and as many units goes on from there; the CPU has no part in it. Who raises
// and lowers the flag, and who the recall word: csrc/cuda/fence.h.
#pragma once

#if defined(__CUDACC__)
#define WW_BOTH __host__ __device__
#else
#define WW_BOTH
#endif

namespace ww::gpu {

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 kFlags = 16;      // copies of the flag: unit u polls that of u % kFlags
constexpr u32 kFlagStride = 32;  // in words: each has a line of the L2 cache to itself
constexpr u32 kFlagWords = kFlags * kFlagStride;

// By value.
struct Scan {
  u64 count;        // nonces: 1 to 2^32
  u64 budget;       // cycles of the SM's clock after which a unit leaves; 0: no such end
  const u32* recall;  // in the host's memory, so that the CPU writes it without the driver
  u32 first;        // nonce
  u32 chunk;        // iterations of a whole chunk; there are fewer than 2^32 - 1 chunks
  u32 versions;     // of `lanes`; plain: 1
  u32 tail[3];      // words 0 to 2 of the header's second block: the merkle root's end, time, bits (big-endian)
  u32 target_top;   // the target's most significant 32 bits: the same bits of a candidate's hash are at most these
  u32 capacity;     // how many candidates `hits` has room for
  u32 one;          // 1, which the compiler must not know
  u32 sms;          // units work on the SMs whose %smid is below; the others leave their slots as they are
};

// Of one version.
struct Lane {
  u32 midstate[8];  // after the header's first 64 bytes
  u32 start[8];     // the second block after round 2, which is the same for all nonces: a ... h
};

struct Account {
  u64 next;   // the next chunk that nobody has claimed; past the last one when all are
  u64 found;  // candidates, also those that `hits` had no room for: an overflow shows
};

// A slot: chunk + 1 in the upper half, iterations done in the lower; 0: none begun and unfinished.
WW_BOTH constexpr u64 slot_of(u64 chunk, u32 done) { return (chunk + 1) << 32 | done; }

// A candidate: the version's number within `lanes` in the upper half, the nonce in the lower.
WW_BOTH constexpr u64 hit_of(u32 version, u32 nonce) { return u64{version} << 32 | nonce; }

// The kernels, one for each kind:
//   extern "C" __global__ void search_plain(Scan scan, const Lane* lanes, Account*, u64* slots, const u32* flags, u64* hits)
//   extern "C" __global__ void search_rolled(the same)
// hits[i] is written for i < min(found, capacity), in no order. slots has one word a unit.

}  // namespace ww::gpu
