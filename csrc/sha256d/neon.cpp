// NEON: four lanes. A rotate is two instructions (shift left; shift right and insert), ch one select, maj two.
// Counted by bench/port_bound_arm.py (gcc 12), not measured on hardware: plain 1249 operations a nonce, which take 665
// cycles at best in Neoverse N1's two vector pipes and 312 in V1's four; rolled 1042, in 545 and 261. One group would be
// 2% fewer, but is a chain of some 1500 cycles for four nonces: too near that bound.
#include <arm_neon.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {
namespace {

typedef uint32_t V __attribute__((vector_size(16)));
constexpr int kLanes = 4, kPlainGroups = 2, kRolledGroups = 2, kBatch = 2 * kLanes;

inline uint32x4_t m(V x) { return reinterpret_cast<uint32x4_t>(x); }
inline V v(uint32x4_t x) { return reinterpret_cast<V>(x); }

template <int N> inline V rotr(V x) { return v(vsriq_n_u32(vshlq_n_u32(m(x), 32 - N), m(x), N)); }
inline V xor3(V a, V b, V c) { return a ^ b ^ c; }
inline V ch(V e, V f, V g) { return v(vbslq_u32(m(e), m(f), m(g))); }
// Where a and b differ, c decides.
inline V maj(V a, V b, V c) { return v(vbslq_u32(m(a ^ b), m(c), m(b))); }

inline V swap_bytes(V x) { return v(vreinterpretq_u32_u8(vrev32q_u8(vreinterpretq_u8_u32(m(x))))); }
inline uint32_t at_most(V x, uint32_t top) {
  const uint32x4_t bit = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcleq_u32(m(x), vdupq_n_u32(top)), bit));
}

#include "sha256d/lanes.inl"

}  // namespace

uint32_t scan_neon(const Row& row, Run& run) { return scan_lanes(row, run); }
uint32_t roll_neon(const Rows& rows, Run& run) { return roll_lanes(rows, run); }

}  // namespace ww
