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
  uint32_t word31;         // W15 + s0(W16)
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

// Both kinds write what passes a first test (the hash's top 32 bits are at most target_top) to `candidates`, which has
// room for every pair tested, and return how many. count >= 1, and first + count <= 2^32.

// Tests the nonces first, first + 1, ... and writes n for first + n, in ascending order.
using ScanFn = uint32_t (*)(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
// Tests the same nonces with each of the rows and writes n * versions + (number of the row), in no certain order.
using RollFn = uint32_t (*)(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);

uint32_t scan_portable(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t roll_portable(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_shani(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_avx2(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t roll_avx2(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_avx512(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t roll_avx512(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_neon(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t roll_neon(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_armv8(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t roll_armv8(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates);

}  // namespace ww
