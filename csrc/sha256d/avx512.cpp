// AVX-512: two groups of 16 lanes. Rotates are one instruction, any function of three inputs another.
// Measured by bench/bench_search.py (gcc 12, Intel Xeon of family 6, model 167, one thread): plain 34.5
// MH/s of the 39.0 that its two 512-bit ports allow (180 operations a nonce), rolled 41.1 of 46.1 (152). Two groups are
// for processors with more ports; this one needs no second.
// gcc 12 warns of its own header's deliberately undefined operands (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {
namespace {

typedef uint32_t V __attribute__((vector_size(64)));
constexpr int kLanes = 16, kPlainGroups = 2, kRolledGroups = 2;

inline __m512i m(V x) { return reinterpret_cast<__m512i>(x); }
inline V v(__m512i x) { return reinterpret_cast<V>(x); }

template <int N> inline V rotr(V x) { return v(_mm512_ror_epi32(m(x), N)); }
// The immediate is the function's truth table.
inline V xor3(V a, V b, V c) { return v(_mm512_ternarylogic_epi32(m(a), m(b), m(c), 0x96)); }
inline V ch(V e, V f, V g) { return v(_mm512_ternarylogic_epi32(m(e), m(f), m(g), 0xca)); }
inline V maj(V a, V b, V c) { return v(_mm512_ternarylogic_epi32(m(a), m(b), m(c), 0xe8)); }

inline V swap_bytes(V x) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
  return v(_mm512_shuffle_epi8(m(x), order));
}
inline uint32_t at_most(V x, uint32_t top) {
  return _mm512_cmple_epu32_mask(m(x), _mm512_set1_epi32(static_cast<int>(top)));
}

#include "sha256d/lanes.inl"

}  // namespace

uint32_t scan_avx512(const Row& row, uint32_t first, uint32_t count, uint32_t* candidates) {
  return scan_lanes(row, first, count, candidates);
}

uint32_t roll_avx512(const Rows& rows, uint32_t first, uint32_t count, uint32_t* candidates) {
  return roll_lanes(rows, first, count, candidates);
}

}  // namespace ww
