// The decoder's kernels in AVX-512: a tile of 12 x 32 outputs in 24 of the 32 registers.
// bench/bench_decoder.py measures the decoder they make.
#include <immintrin.h>

#include "decoder/kernels.h"

namespace ww::decoder {
namespace {

using V = __m512;
typedef int32_t VI __attribute__((vector_size(64)));
constexpr int W = 16, kRows = 12, kCols = 2, kPrefetch = 512;

inline __attribute__((always_inline)) V load(const float* p) { return _mm512_loadu_ps(p); }
inline __attribute__((always_inline)) void store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline __attribute__((always_inline)) V set1(float x) { return _mm512_set1_ps(x); }
inline __attribute__((always_inline)) V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }

#include "decoder/kernels.inl"

}  // namespace

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = {"avx512", kRows,  gemm,    store_tile, add_tile,
                                silu_mul, argmax, rmsnorm, rope,       attention};

}  // namespace ww::decoder
