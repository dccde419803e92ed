// The decoder's kernels in the compiler's own vectors of 4 floats (SSE2, NEON): a tile of 4 x 8 outputs.
#include "decoder/kernels.h"

namespace ww::decoder {
namespace {

typedef float V __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
constexpr int W = 4, kRows = 4, kCols = 2, kPrefetch = 512;

inline __attribute__((always_inline)) V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline __attribute__((always_inline)) void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }
inline __attribute__((always_inline)) V set1(float x) { return V{x, x, x, x}; }
inline __attribute__((always_inline)) V fma(V a, V b, V c) { return a * b + c; }  // two roundings

#include "decoder/kernels.inl"

}  // namespace

extern const Kernels kernels_portable;
const Kernels kernels_portable = {"portable", kRows,  gemm,    store_tile, add_tile,
                                  silu_mul,   argmax, rmsnorm, rope,       attention};

}  // namespace ww::decoder
