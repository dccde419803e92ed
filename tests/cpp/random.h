// Xorshift (Marsaglia, 2003): the same numbers from the same state everywhere. The state must not be 0.
#pragma once

#include <cstdint>

struct Random {
  uint64_t state;
  uint64_t next() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
  }
  int32_t below(int32_t n) { return static_cast<int32_t>(next() % static_cast<uint64_t>(n)); }
};
