// What a kernel is: the face that every instruction set's file has towards the table and the search. Files of one
// instruction set include this, so it holds plain structs only.
#pragma once

#include <stdint.h>

namespace ww {

// One row of a search, all nonces of one version, with all that does not depend on the nonce computed once.
// "Block 1" is the header's second 64 bytes: words 0..2 fixed, word 3 the nonce, then padding.
struct Row {
  uint32_t midstate[8];    // after the header's first 64 bytes
  uint32_t start[8];       // block 1 after round 3, as if the nonce were 0: it adds to start[0] and start[4] only
  uint32_t start_sum[3];   // h + K + W of rounds 4, 5, 6: the nonce has not reached h there
  uint32_t word16, word17; // schedule words without the nonce in them,
  uint32_t word18, word19; // and those that lack only s0(nonce) and nonce
  uint32_t word31;         // W15 + s0(W16)
  uint32_t target_top;     // the target's most significant 32 bits
};

// Tests the nonces first, first + 1, ... (count of them, >= 1, not past 2^32) and writes those whose hash's top 32
// bits are at most target_top, in ascending order; returns how many. `candidates` has room for count.
using ScanFn = uint32_t (*)(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);

uint32_t scan_portable(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);
uint32_t scan_avx512(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates);

}  // namespace ww
