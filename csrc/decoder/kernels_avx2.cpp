// The decoder's kernels in AVX2 with FMA: a tile of 6 x 16 outputs in 12 of the 16 registers.
#include <immintrin.h>

#include "decoder/kernels.h"

namespace ww::decoder {
namespace {

using V = __m256;
typedef int32_t VI __attribute__((vector_size(32)));
constexpr int W = 8, kRows = 6, kCols = 2, kPrefetch = 512;

inline __attribute__((always_inline)) V load(const float* p) { return _mm256_loadu_ps(p); }
inline __attribute__((always_inline)) void store(float* p, V v) { _mm256_storeu_ps(p, v); }
inline __attribute__((always_inline)) V set1(float x) { return _mm256_set1_ps(x); }
inline __attribute__((always_inline)) V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }

#include "decoder/kernels.inl"

}  // namespace

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = {"avx2", kRows, gemm, store_tile, add_tile, silu_mul, argmax, rmsnorm, rope, attention};

}  // namespace ww::decoder
