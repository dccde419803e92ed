// What a kernel is: the face that every instruction set's file has towards the table and the search. Files of one
// instruction set include this, so it holds plain structs only.
#pragma once

#include <stdint.h>

namespace ww {

// What all versions of a work share of block 1, the header's second 64 bytes: words 0..2 fixed, word 3 the nonce, then
// padding. And the target.
struct Tail {
  uint32_t word16, word17; // schedule words without the nonce in them,
  uint32_t word18, word19; // and those that lack only s0(nonce) and nonce
  uint32_t word31, word32; // W15 + s0(W16), and W16 + s0(W17)
  uint32_t target_top;     // the target's most significant 32 bits
};

// One row of a search, all nonces of one version, with all that does not depend on the nonce computed once.
struct Row {
  uint32_t midstate[8];  // after the header's first 64 bytes
  uint32_t start[8];     // block 1 after round 3, as if the nonce were 0: it adds to start[0] and start[4] only
  uint32_t start_sum[3]; // h + K + W of rounds 4, 5, 6: the nonce has not reached h there
  Tail tail;
};

// Several versions' rows side by side, for the kernels whose lanes hold versions.
constexpr uint32_t kMaxVersions = 32;
struct Rows {
  alignas(64) uint32_t midstate[8][kMaxVersions], start[8][kMaxVersions], start_sum[3][kMaxVersions];
  Tail tail;
  uint32_t versions;  // how many of them; a multiple of the kernel's lanes
};

// What to test, and what passed a first test: the hash's top 32 bits are at most target_top.
constexpr uint32_t kRoom = 4096;
struct Run {
  uint32_t first, count;       // nonces; count >= 1, first + count <= 2^32
  const uint32_t* ends[2];     // words that end the run early where either is nonzero: looked at every microsecond or so
  uint32_t found;              // of these:
  uint32_t candidates[kRoom];
};

static inline __attribute__((always_inline)) bool ended(const Run& run) {
  return (__atomic_load_n(run.ends[0], __ATOMIC_RELAXED) | __atomic_load_n(run.ends[1], __ATOMIC_RELAXED)) != 0;
}

// Tests nonces first, first + 1, ... and returns how many: fewer than count where a word ended the run or there was no
// room for more candidates. A candidate is n for first + n; in ascending order.
using ScanFn = uint32_t (*)(const Row& row, Run& run);
// Tests each of the nonces with each of the rows. A candidate is n * versions + (number of the row); in no certain order.
using RollFn = uint32_t (*)(const Rows& rows, Run& run);

uint32_t scan_portable(const Row& row, Run& run);
uint32_t roll_portable(const Rows& rows, Run& run);
uint32_t scan_shani(const Row& row, Run& run);
uint32_t scan_avx2(const Row& row, Run& run);
uint32_t roll_avx2(const Rows& rows, Run& run);
uint32_t scan_avx512(const Row& row, Run& run);
uint32_t roll_avx512(const Rows& rows, Run& run);

}  // namespace ww
