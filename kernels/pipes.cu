// How many instructions of one kind an SM takes per cycle: what bounds a SHA-256d kernel. `python bench/gpu.py` runs it.
//
// Each kernel keeps eight independent chains a thread busy, reads the SM's cycle counter before and after, and leaves
// the least and greatest count of each block. `a` and `b` are numbers the compiler cannot know, so nothing folds.

typedef unsigned int u32;
typedef unsigned long long u64;

#define CHAINS 8
#define ROUNDS 64  // of all chains, between two looks at the loop counter

#define PIPE(name, type, step)                                                             \
  extern "C" __global__ void pipe_##name(u32 a, u32 b, u32 loops, u64* cycles, u32* sink) { \
    type x[CHAINS];                                                                        \
    _Pragma("unroll") for (int i = 0; i < CHAINS; ++i) x[i] = threadIdx.x * a + i;         \
    __syncthreads();                                                                       \
    const u64 begin = clock64();                                                           \
    for (u32 n = 0; n < loops; ++n) {                                                      \
      _Pragma("unroll") for (int r = 0; r < ROUNDS; ++r) {                                 \
        _Pragma("unroll") for (int i = 0; i < CHAINS; ++i) { step; }                       \
      }                                                                                    \
    }                                                                                      \
    __syncthreads();                                                                       \
    if (threadIdx.x == 0) cycles[blockIdx.x] = clock64() - begin;                          \
    type all = 0;                                                                          \
    _Pragma("unroll") for (int i = 0; i < CHAINS; ++i) all ^= x[i];                        \
    if (all == 0x12345678) *sink = 1;                                                      \
  }

PIPE(lop3, u32, asm volatile("lop3.b32 %0, %0, %1, %2, 0x96;" : "+r"(x[i]) : "r"(a), "r"(b)))
PIPE(shf, u32, asm volatile("shf.r.wrap.b32 %0, %0, %0, 7;" : "+r"(x[i])))
PIPE(iadd3, u32, asm volatile("{.reg .u32 t; add.u32 t, %0, %1; add.u32 %0, t, %2;}" : "+r"(x[i]) : "r"(a), "r"(b)))
PIPE(imad, u32, asm volatile("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x[i]) : "r"(a), "r"(b)))
PIPE(imad_hi, u32, asm volatile("mul.hi.u32 %0, %0, %1;" : "+r"(x[i]) : "r"(a)))
PIPE(imad_wide, u64, asm volatile("{.reg .u32 l, h; mov.b64 {l, h}, %0; mul.wide.u32 %0, l, h;}" : "+l"(x[i])))
// Half of the chains on either pipe: whether the two really work side by side.
PIPE(lop3_imad, u32, if (i & 1) asm volatile("lop3.b32 %0, %0, %1, %2, 0x96;" : "+r"(x[i]) : "r"(a), "r"(b));
     else asm volatile("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x[i]) : "r"(a), "r"(b)))
