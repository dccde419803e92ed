// Any processor: four lanes in the compiler's vector extension, which is SSE2 on x86-64 and NEON on AArch64.
// Measured by bench/bench_search.py (gcc 12, AMD EPYC of family 25, model 17, one thread): plain 7.7 MH/s of the 10.0 that
// its four pipes allow (1483 operations a nonce, for x86-64-v1), rolled 9.0 of 11.7 (1265).
#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {
namespace {

typedef uint32_t V __attribute__((vector_size(16)));
constexpr int kLanes = 4, kPlainGroups = 1, kRolledGroups = 1, kBatch = kLanes;

template <int N> inline V rotr(V x) { return (x >> N) | (x << (32 - N)); }
inline V xor3(V a, V b, V c) { return a ^ b ^ c; }
inline V ch(V e, V f, V g) { return g ^ (e & (f ^ g)); }
// b ^ c is the round before's a ^ b, which the compiler keeps.
inline V maj(V a, V b, V c) { return b ^ ((a ^ b) & (b ^ c)); }

inline V swap_bytes(V x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_bswap32(x[i]);
  return x;
}
inline uint32_t at_most(V x, uint32_t top) {
  uint32_t mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= static_cast<uint32_t>(x[i] <= top) << i;
  return mask;
}

#include "sha256d/lanes.inl"

}  // namespace

uint32_t scan_portable(const Row& row, Run& run) { return scan_lanes(row, run); }
uint32_t roll_portable(const Rows& rows, Run& run) { return roll_lanes(rows, run); }

}  // namespace ww
