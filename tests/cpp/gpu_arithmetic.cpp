// The GPU kernels' arithmetic on the host, for tests/test_kernels.py: kernels/rounds.h as plain C++.

#include "rounds.h"

using namespace ww::gpu;

// The double hash's top 32 bits for `count` nonces from `first`, as either kernel computes them.
extern "C" void gpu_tops(const Scan* scan, const Lane* lane, u32 first, u32 count, u32* plain, u32* rolled) {
  const Powers powers = powers_of(scan->one);
  const Fixed fixed = fixed_of(scan->tail, *lane);
  const auto never = [] { return 0u; };
  for (u32 i = 0; i < count; ++i) {
    const u32 nonce = swap_bytes(first + i);
    Quad keyed[kQuads];
    make_keyed(powers, fixed.tail, nonce, keyed);
    top_plain(powers, fixed, nonce, never, plain[i]);
    top_rolled(powers, fixed.begin, fixed.midstate, keyed, nonce, never, rolled[i]);
  }
}

// How many of a hash's two looks at the flag come before it is broken off, if look number `at` sees it; 2: never.
extern "C" u32 gpu_looks(const Scan* scan, const Lane* lane, u32 at, bool* whole) {
  u32 looks = 0, top = 0;
  const auto ask = [&] { return looks++ == at ? 1u : 0u; };
  *whole = top_plain(powers_of(scan->one), fixed_of(scan->tail, *lane), 0, ask, top);
  return looks;
}

// The candidates among `count` nonces from `first`, in order; how many.
extern "C" u32 gpu_candidates(const Scan* scan, const Lane* lane, u32 first, u32 count, u32* nonces) {
  const Powers powers = powers_of(scan->one);
  const Fixed fixed = fixed_of(scan->tail, *lane);
  u32 found = 0;
  for (u32 i = 0; i < count; ++i) {
    u32 top = 0;
    top_plain(powers, fixed, swap_bytes(first + i), [] { return 0u; }, top);
    if (top <= scan->target_top) nonces[found++] = first + i;
  }
  return found;
}

extern "C" u32 gpu_sizes(u32 which) { return which == 0 ? sizeof(Scan) : which == 1 ? sizeof(Lane) : sizeof(Account); }
