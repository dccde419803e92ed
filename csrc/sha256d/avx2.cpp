// AVX2: eight lanes. No rotates and no function of three inputs: twice AVX-512's operations, on half as many lanes.
// One group: for a second one there are too few registers.
// Measured by bench/bench_search.py (gcc 12, AMD EPYC of family 25, model 17, one thread): plain 16.3 MH/s of the 20.3
// that its four pipes allow (727 operations a nonce), rolled 18.5 of 23.8 (621).
#include <immintrin.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {
namespace {

typedef uint32_t V __attribute__((vector_size(32)));
constexpr int kLanes = 8, kPlainGroups = 1, kRolledGroups = 1, kBatch = kLanes;

inline __m256i m(V x) { return reinterpret_cast<__m256i>(x); }
inline V v(__m256i x) { return reinterpret_cast<V>(x); }

template <int N> inline V rotr(V x) { return (x >> N) | (x << (32 - N)); }
inline V xor3(V a, V b, V c) { return a ^ b ^ c; }
inline V ch(V e, V f, V g) { return g ^ (e & (f ^ g)); }
// b ^ c is the round before's a ^ b, which the compiler keeps.
inline V maj(V a, V b, V c) { return b ^ ((a ^ b) & (b ^ c)); }

inline V swap_bytes(V x) {
  const __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
  return v(_mm256_shuffle_epi8(m(x), order));
}
// There is no unsigned comparison: x is at most top where the smaller of the two is x.
inline uint32_t at_most(V x, uint32_t top) {
  const __m256i least = _mm256_min_epu32(m(x), _mm256_set1_epi32(static_cast<int>(top)));
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(least, m(x)))));
}

#include "sha256d/lanes.inl"

}  // namespace

uint32_t scan_avx2(const Row& row, Run& run) { return scan_lanes(row, run); }
uint32_t roll_avx2(const Rows& rows, Run& run) { return roll_lanes(rows, run); }

}  // namespace ww
