#include "decoder/weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <utility>

#include "decoder/philox.h"
#include "runtime/pool.h"

namespace ww::decoder {
namespace {

void check(const Config& c) {
  const auto refuse = [](const char* sentence) { throw std::invalid_argument(sentence); };
  for (int n : {c.layers, c.hidden, c.heads, c.kv_heads, c.head_dim, c.ffn, c.vocab, c.context})
    if (n < 1 || n > (1 << 24)) refuse("every size of a ModelConfig must be at least 1 and at most 2^24.");
  if (c.heads % c.kv_heads != 0) refuse("heads must be a multiple of kv_heads.");
  if (c.head_dim % kBlock != 0) refuse("the native decoder needs a head_dim that is a multiple of 16.");
  if (static_cast<int64_t>(c.heads + 2 * c.kv_heads) * c.head_dim > (1 << 24)) refuse("the heads are too wide.");
  if (!(c.rope_theta > 0) || !(c.norm_eps > 0)) refuse("rope_theta and norm_eps must be positive.");
}

size_t matrix_floats(int rows, int columns) {
  return static_cast<size_t>(panels(rows)) * static_cast<size_t>(columns) * kPanel;
}

// Rows [first, first + n) of a tensor, row-major in `rows`, into their panels.
void pack(const Tensor& t, int first, int n, const float* rows) {
  if (t.panel_stride == 0) {
    std::copy(rows, rows + static_cast<size_t>(n) * static_cast<size_t>(t.columns), t.base);
    return;
  }
  constexpr int kStrip = 16;  // columns at a time, so that the strip of the panel stays in the first-level cache
  for (int k0 = 0; k0 < t.columns; k0 += kStrip) {
    const int k1 = std::min(k0 + kStrip, t.columns);
    for (int r = 0; r < n; ++r) {
      const int row = t.first_row + first + r;
      float* panel = t.base + static_cast<size_t>(row / kPanel) * t.panel_stride + row % kPanel;
      const float* from = rows + static_cast<size_t>(r) * static_cast<size_t>(t.columns);
      for (int k = k0; k < k1; ++k) panel[static_cast<size_t>(k) * kPanel] = from[k];
    }
  }
}

}  // namespace

Region::Region(size_t floats) : bytes_(std::max<size_t>(floats, 1) * sizeof(float)) {
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  madvise(p, bytes_, MADV_HUGEPAGE);  // advice only
#endif
  data_ = static_cast<float*>(p);
}

Region::~Region() {
  if (data_) munmap(data_, bytes_);
}

Region::Region(Region&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

float dummy_bound(int fan_in) { return static_cast<float>(std::sqrt(3.0 / fan_in)); }

void fill_dummy(uint64_t seed, int tensor, int64_t first, int64_t n, float bound, float* out) {
  for (int64_t i = 0; i < n;) {
    const int64_t element = first + i;
    const Philox4 four = philox4x32(seed, static_cast<uint64_t>(element / 4), static_cast<uint64_t>(tensor));
    for (int64_t w = element % 4; w < 4 && i < n; ++w, ++i) {
      // Exact up to the product: top 24 bits, less 2^23, over 2^23.
      const int32_t centred = static_cast<int32_t>(four.word[w] >> 8) - (1 << 23);
      out[i] = static_cast<float>(centred) * 0x1p-23f * bound;
    }
  }
}

float* Weights::matrix(int rows, int columns) {
  float* p = memory_.data() + used_;
  used_ += matrix_floats(rows, columns);
  return p;
}

float* Weights::vector(int n) {
  float* p = memory_.data() + used_;
  used_ += static_cast<size_t>(round_up(n, kPanel));
  return p;
}

Weights::Weights(const Config& c) {
  check(c);
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, h = c.hidden;
  const size_t norm = static_cast<size_t>(round_up(h, kPanel));
  const size_t layer = 2 * norm + matrix_floats(q + 2 * kv, h) + matrix_floats(h, q) +
                       2 * matrix_floats(c.ffn, h) + matrix_floats(h, c.ffn);
  if (layer > (size_t{1} << 48) / static_cast<size_t>(c.layers)) throw std::bad_alloc();  // nor would it fit 64 bits
  memory_ = Region(matrix_floats(c.vocab, h) * (c.tied ? 1 : 2) + norm + static_cast<size_t>(c.layers) * layer);

  const auto add_matrix = [&](int rows, int columns, float* base, int first_row, int interleaved) {
    const size_t panel = static_cast<size_t>(columns) * kPanel;
    tensors_.push_back({rows, columns, base, first_row, panel * static_cast<size_t>(interleaved)});
  };
  const auto add_norm = [&](float* base) { tensors_.push_back({1, h, base, 0, 0}); };

  float* embed = matrix(c.vocab, h);
  add_matrix(c.vocab, h, embed, 0, 1);
  for (int i = 0; i < c.layers; ++i) {
    float *qkv = matrix(q + 2 * kv, h), *o = matrix(h, q), *gate_up = matrix(2 * panels(c.ffn) * kPanel, h);
    float *down = matrix(h, c.ffn), *attn_norm = vector(h), *ffn_norm = vector(h);
    add_matrix(q, h, qkv, 0, 1);
    add_matrix(kv, h, qkv, q, 1);
    add_matrix(kv, h, qkv, q + kv, 1);
    add_matrix(h, q, o, 0, 1);
    add_matrix(c.ffn, h, gate_up, 0, 2);
    add_matrix(c.ffn, h, gate_up + static_cast<size_t>(h) * kPanel, 0, 2);
    add_matrix(h, c.ffn, down, 0, 1);
    add_norm(attn_norm);
    add_norm(ffn_norm);
    layers.push_back({attn_norm, qkv, o, ffn_norm, gate_up, down});
  }
  float* last = vector(h);
  add_norm(last);
  embedding = embed;
  final_norm = last;
  head = embed;
  if (!c.tied) {
    float* own = matrix(c.vocab, h);
    add_matrix(c.vocab, h, own, 0, 1);
    head = own;
  }
}

void Weights::set(int index, const float* values, int threads) {
  const Tensor& t = tensors_[static_cast<size_t>(index)];
  Team team(threads);
  team.run(panels(t.rows), [&](int i) {
    const int first = i * kPanel;
    const float* rows = values + static_cast<size_t>(first) * static_cast<size_t>(t.columns);
    pack(t, first, std::min(kPanel, t.rows - first), rows);
  });
}

void Weights::set_dummy(uint64_t seed, int threads) {
  Team team(threads);
  for (int index = 0; const Tensor& t : tensors_) {
    const float bound = dummy_bound(t.columns);
    team.run(panels(t.rows), [&](int i) {
      const int first = i * kPanel, n = std::min(kPanel, t.rows - first);
      const int64_t count = static_cast<int64_t>(n) * t.columns;
      std::vector<float> rows(static_cast<size_t>(count), 1.0f);
      if (t.panel_stride) fill_dummy(seed, index, static_cast<int64_t>(first) * t.columns, count, bound, rows.data());
      pack(t, first, n, rows.data());
    });
    ++index;
  }
}

}  // namespace ww::decoder
