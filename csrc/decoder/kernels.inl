// The decoder's kernels over a lane type. An instruction set's file defines, in an anonymous namespace, V (a vector
// of W floats), VI (of W int32), kRows x kCols (register tile: rows x vectors), load, store, set1 and fma, and then
// includes this file there. Nothing of the standard library comes in, and nothing here has external linkage, so
// that no other file can end up running code compiled for this instruction set.

#define WW_INLINE static inline __attribute__((always_inline))

WW_INLINE V select(VI mask, V yes, V no) { return mask ? yes : no; }
WW_INLINE V max(V a, V b) { return select(a > b, a, b); }

// e^x to 2 ulp (Cephes' expf polynomial); 0 below -87.3, e^88 above 88.
WW_INLINE V exp(V x) {
  const VI underflow = x < -87.3f;
  x = select(x > 88.0f, set1(88.0f), x);
  const V magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const V t = fma(x, set1(1.44269504f), magic);
  const V n = t - magic;
  V r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  return select(underflow, V{}, (V)((VI)p + ((VI)t << 23)));
}

WW_INLINE float sum_lanes(V v) {
  float s = v[0];
  for (int i = 1; i < W; ++i) s += v[i];
  return s;
}

WW_INLINE float max_lanes(V v) {
  float m = v[0];
  for (int i = 1; i < W; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// ---- matrix times matrix ----------------------------------------------------------------------------------------
// Products are added in the order of k, one accumulator an element: the tile's height changes no bit.
template <int ROWS>
WW_INLINE void gemm_rows(const float* a, size_t lda, const float* panel, int k, float* c) {
  for (int col = 0; col < kPanel; col += kCols * W) {
    V acc[ROWS][kCols] = {};
    const float* b = panel + col;
    for (int i = 0; i < k; ++i, b += kPanel) {
      __builtin_prefetch(b + kPrefetch);
      if constexpr (kCols * W > 16) __builtin_prefetch(b + kPrefetch + 16);
      V w[kCols];
#pragma GCC unroll 8
      for (int v = 0; v < kCols; ++v) w[v] = load(b + v * W);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V x = set1(a[static_cast<size_t>(r) * lda + static_cast<size_t>(i)]);
#pragma GCC unroll 8
        for (int v = 0; v < kCols; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kCols; ++v) store(c + r * kPanel + col + v * W, acc[r][v]);
    }
  }
}

template <int ROWS>
WW_INLINE void gemm_dispatch(const float* a, size_t lda, int rows, const float* panel, int k, float* c) {
  if (rows == ROWS) return gemm_rows<ROWS>(a, lda, panel, k, c);
  if constexpr (ROWS > 1) gemm_dispatch<ROWS - 1>(a, lda, rows, panel, k, c);
}

static void gemm(const float* a, size_t lda, int rows, const float* panel, int k, float* c) {
  gemm_dispatch<kRows>(a, lda, rows, panel, k, c);
}

// ---- what follows a tile of [rows][32] ----------------------------------------------------------------------------
static void store_tile(const float* c, int rows, float* out, size_t ldo) {
  for (int r = 0; r < rows; ++r, out += ldo, c += kPanel)
    for (int i = 0; i < kPanel; i += W) store(out + i, load(c + i));
}

static void add_tile(const float* c, int rows, float* out, size_t ldo) {
  for (int r = 0; r < rows; ++r, out += ldo, c += kPanel)
    for (int i = 0; i < kPanel; i += W) store(out + i, load(out + i) + load(c + i));
}

static void silu_mul(const float* gate, const float* up, int rows, float* out, size_t ldo) {
  for (int r = 0; r < rows; ++r, out += ldo, gate += kPanel, up += kPanel)
    for (int i = 0; i < kPanel; i += W) {
      const V g = load(gate + i);
      store(out + i, g / (exp(-g) + 1.0f) * load(up + i));
    }
}

static void argmax(const float* c, int rows, int first_id, float* best, int32_t* id) {
  VI lane;
  for (int i = 0; i < W; ++i) lane[i] = i + first_id;
  for (int i = 0; i < rows * kPanel; i += W) {
    const V v = load(c + i), b = load(best + i);
    const VI better = v > b, here = lane + (i % kPanel);
    VI old;
    __builtin_memcpy(&old, id + i, sizeof old);
    const VI now = better ? here : old;
    store(best + i, select(better, v, b));
    __builtin_memcpy(id + i, &now, sizeof now);
  }
}

// ---- rows -------------------------------------------------------------------------------------------------------
static void rmsnorm(const float* x, const float* weight, int n, float eps, float* out) {
  V sum = {};
  for (int i = 0; i < n; i += W) sum = fma(load(x + i), load(x + i), sum);
  const V scale = set1(1.0f / __builtin_sqrtf(sum_lanes(sum) / static_cast<float>(n) + eps));
  for (int i = 0; i < n; i += W) store(out + i, load(x + i) * scale * load(weight + i));
}

static void rope(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

// ---- attention --------------------------------------------------------------------------------------------------
// Scores of BLOCKS KV blocks for HEADS query heads: lanes are positions, products are added in the order of d.
template <int HEADS, int BLOCKS>
WW_INLINE void score_blocks(const Attention& job, const float* q, int block, size_t ldscores) {
  constexpr int kVecs = kBlock / W;
  V acc[HEADS][BLOCKS][kVecs] = {};
  const float* keys[BLOCKS];
  for (int j = 0; j < BLOCKS; ++j) keys[j] = job.kv + static_cast<size_t>(job.table[block + j]) * job.block_stride;
  for (int d = 0; d < job.head_dim; ++d) {
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const V key = load(keys[j] + d * kBlock + v * W);
#pragma GCC unroll 4
        for (int h = 0; h < HEADS; ++h) acc[h][j][v] = fma(set1(q[h * job.head_dim + d]), key, acc[h][j][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; ++h) {
    float* row = job.scores + static_cast<size_t>(h) * ldscores + block * kBlock;
#pragma GCC unroll 4
    for (int j = 0; j < BLOCKS; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) store(row + j * kBlock + v * W, acc[h][j][v] * job.scale);
    }
  }
}

// In place: scores become e^(score - max), positions beyond the last become 0. Their sum.
WW_INLINE float softmax_numerators(float* scores, int positions, int padded) {
  for (int i = positions; i < padded; ++i) scores[i] = -__builtin_inff();
  V m = load(scores);
  for (int i = W; i < padded; i += W) m = max(load(scores + i), m);
  const V top = set1(max_lanes(m));
  V sum = {};
  for (int i = 0; i < padded; i += W) {
    const V p = exp(load(scores + i) - top);
    store(scores + i, p);
    sum = sum + p;
  }
  return sum_lanes(sum);
}

// VECS vectors of the output from dimension d on: values are added in the order of positions.
template <int HEADS, int VECS>
WW_INLINE void weigh_values(const Attention& job, int d, size_t ldscores, const float* sums, float* out) {
  V acc[HEADS][VECS] = {};
  const float* p = job.scores;
  for (int first = 0; first < job.positions; first += kBlock, p += kBlock) {
    const float* values = job.kv + static_cast<size_t>(job.table[first / kBlock]) * job.block_stride +
                          kBlock * job.head_dim + d;
    const int n = job.positions - first < kBlock ? job.positions - first : kBlock;
    for (int i = 0; i < n; ++i, values += job.head_dim) {
#pragma GCC unroll 4
      for (int v = 0; v < VECS; ++v) {
        const V value = load(values + v * W);
#pragma GCC unroll 4
        for (int h = 0; h < HEADS; ++h)
          acc[h][v] = fma(set1(p[static_cast<size_t>(h) * ldscores + static_cast<size_t>(i)]), value, acc[h][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < HEADS; ++h) {
#pragma GCC unroll 4
    for (int v = 0; v < VECS; ++v) store(out + h * job.head_dim + d + v * W, acc[h][v] / set1(sums[h]));
  }
}

template <int HEADS>
WW_INLINE void attend(const Attention& job, const float* q, float* out) {
  constexpr int kBlocks = W / 4;  // so that there are 4 * HEADS accumulators at any width
  const int blocks = (job.positions + kBlock - 1) / kBlock, padded = blocks * kBlock;
  int block = 0;
  for (; block + kBlocks <= blocks; block += kBlocks)
    score_blocks<HEADS, kBlocks>(job, q, block, static_cast<size_t>(padded));
  for (; block < blocks; ++block) score_blocks<HEADS, 1>(job, q, block, static_cast<size_t>(padded));
  float sums[HEADS];
  for (int h = 0; h < HEADS; ++h) sums[h] = softmax_numerators(job.scores + h * padded, job.positions, padded);
  int d = 0;
  for (; d + 4 * W <= job.head_dim; d += 4 * W) weigh_values<HEADS, 4>(job, d, static_cast<size_t>(padded), sums, out);
  for (; d < job.head_dim; d += W) weigh_values<HEADS, 1>(job, d, static_cast<size_t>(padded), sums, out);
}

static void attention(const Attention& job) {
  int h = 0;
  const auto at = [&](int head) { return head * job.head_dim; };
  for (; h + 3 <= job.group; h += 3) attend<3>(job, job.q + at(h), job.out + at(h));
  if (job.group - h == 2) attend<2>(job, job.q + at(h), job.out + at(h));
  if (job.group - h == 1) attend<1>(job, job.q + at(h), job.out + at(h));
}

#undef WW_INLINE
