#include "decoder/slice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decoder/sample.h"

namespace ww::decoder {
namespace {

constexpr int kMaxRows = 16;              // of any instruction set's tile
constexpr int kTilesPerTask = 8;
constexpr size_t kCacheBytes = 512 << 10;  // of a second-level cache, for one task's panels
constexpr int kTasksPerThread = 4;

size_t at(int row, int ld) { return static_cast<size_t>(row) * static_cast<size_t>(ld); }

int ceil_div(int n, int by) { return (n + by - 1) / by; }

}  // namespace

Slice::Slice(Decoder& decoder, Team& team, const ww_batch& batch, ww_out& out, const Place* places, int first, int n)
    : d_(decoder), c_(decoder.config_), k_(decoder.kernels_), team_(team), batch_(batch), out_(out),
      places_(places + first), first_(first), n_(n) {
  for (int t = 0; t < n; ++t) {
    const int b = places_[t].seq;
    if (batch.q_start[b + 1] == first + t + 1 && batch.want_logits[b]) wanted_.push_back(b);
  }
  bool sampled = false;
  for (int b : wanted_) sampled |= batch.sampling && !is_greedy(batch.sampling[b]);
  decoder.reserve(n, static_cast<int>(wanted_.size()), sampled && !out.logits);
}

void Slice::run() {
  embed();
  for (int layer = 0; layer < c_.layers; ++layer) {
    attention_block(layer);
    ffn_block(layer);
  }
  if (!wanted_.empty()) head();
}

// ---- how work is split ------------------------------------------------------------------------------------------
template <class F>
void Slice::tiles(int rows, int n_panels, int k, F&& f) {
  const int n_tiles = ceil_div(rows, k_.max_rows);
  const int row_blocks = ceil_div(n_tiles, kTilesPerTask);
  const size_t panel_bytes = static_cast<size_t>(k) * kPanel * sizeof(float);
  const int fits = static_cast<int>(kCacheBytes / panel_bytes);
  const int balanced = n_panels * row_blocks / (kTasksPerThread * team_.size());
  const int group = std::max(1, std::min(fits, balanced));
  team_.run(ceil_div(n_panels, group) * row_blocks, [&](int i) {
    const int g = i / row_blocks, block = i % row_blocks;
    for (int t = block * n_tiles / row_blocks; t < (block + 1) * n_tiles / row_blocks; ++t) {
      const int r0 = static_cast<int>(static_cast<int64_t>(t) * rows / n_tiles);
      const int r1 = static_cast<int>(static_cast<int64_t>(t + 1) * rows / n_tiles);
      f(r0, r1 - r0, g * group, std::min((g + 1) * group, n_panels), g);
    }
  });
}

template <class F>
void Slice::for_rows(int rows, F&& f) {
  constexpr int kRowsPerTask = 16;  // fewer are not worth waking a thread
  team_.run(ceil_div(rows, kRowsPerTask), [&](int i) {
    for (int r = i * kRowsPerTask; r < std::min((i + 1) * kRowsPerTask, rows); ++r) f(r);
  });
}

void Slice::multiply(const float* a, int lda, int rows, const float* weights, int k, int columns, float* out, int ldo,
                     void (*finish)(const float* c, int rows, float* out, size_t ldo)) {
  tiles(rows, panels(columns), k, [&](int r0, int n, int p0, int p1, int) {
    alignas(64) float c[kMaxRows * kPanel];
    for (int p = p0; p < p1; ++p) {
      k_.gemm(a + at(r0, lda), static_cast<size_t>(lda), n, weights + at(p, k) * kPanel, k, c);
      finish(c, n, out + at(r0, ldo) + p * kPanel, static_cast<size_t>(ldo));
    }
  });
}

// ---- the layers -------------------------------------------------------------------------------------------------
void Slice::embed() {
  for_rows(n_, [&](int t) {
    const int id = batch_.tokens[first_ + t];
    const float* from = d_.weights_.embedding + at(id / kPanel, c_.hidden) * kPanel + id % kPanel;
    float* x = d_.x_.data() + at(t, d_.ld_hidden_);
    for (int i = 0; i < c_.hidden; ++i) x[i] = from[at(i, kPanel)];
    std::fill(x + c_.hidden, x + round_up(c_.hidden, kPanel), 0.0f);  // an earlier step's NaN may have spread there
  });
}

void Slice::norm(const float* weight) {
  for_rows(n_, [&](int t) {
    const size_t row = at(t, d_.ld_hidden_);
    k_.rmsnorm(d_.x_.data() + row, weight, c_.hidden, static_cast<float>(c_.norm_eps), d_.normed_.data() + row);
  });
}

void Slice::attention_block(int layer) {
  const Layer& w = d_.weights_.layers[static_cast<size_t>(layer)];
  const int q = c_.heads * c_.head_dim, qkv = q + 2 * c_.kv_heads * c_.head_dim;
  norm(w.attn_norm);
  multiply(d_.normed_.data(), d_.ld_hidden_, n_, w.qkv, c_.hidden, qkv, d_.qkv_.data(), d_.ld_qkv_, k_.store);
  for_rows(n_, [&](int t) { store_kv(layer, t); });
  const int per_task = n_ <= 64 ? 1 : 8, chunks = ceil_div(n_, per_task);
  team_.run(chunks * c_.kv_heads, [&](int i) {
    const int t0 = i / c_.kv_heads * per_task;
    for (int t = t0; t < std::min(t0 + per_task, n_); ++t) attend(layer, t, i % c_.kv_heads);
  });
  multiply(d_.attn_.data(), d_.ld_attn_, n_, w.o, q, c_.hidden, d_.x_.data(), d_.ld_hidden_, k_.add);
}

// Rotates the token's queries and keys in place, then puts its keys and values into its slot.
void Slice::store_kv(int layer, int t) {
  const int hd = c_.head_dim, half = hd / 2;
  const size_t angle = at(places_[t].position, half);
  float* row = d_.qkv_.data() + at(t, d_.ld_qkv_);
  for (int h = 0; h < c_.heads + c_.kv_heads; ++h) k_.rope(row + h * hd, &d_.cos_[angle], &d_.sin_[angle], half);
  const int slot = batch_.slot_map[first_ + t];
  for (int h = 0; h < c_.kv_heads; ++h) {
    float* block = d_.kv_at(layer, h) + at(slot / kBlock, 2 * kBlock * hd * c_.kv_heads);
    const float *key = row + (c_.heads + h) * hd, *value = row + (c_.heads + c_.kv_heads + h) * hd;
    for (int i = 0; i < hd; ++i) block[i * kBlock + slot % kBlock] = key[i];
    std::copy(value, value + hd, block + (kBlock + slot % kBlock) * hd);
  }
}

void Slice::attend(int layer, int t, int kv_head) {
  const int hd = c_.head_dim, group = c_.heads / c_.kv_heads, positions = places_[t].position + 1;
  thread_local std::vector<float> scores;  // outlives the step: helpers belong to the process
  const size_t needed = at(3, round_up(positions, kBlock));
  if (scores.size() < needed) scores.resize(needed);
  k_.attention({.q = d_.qkv_.data() + at(t, d_.ld_qkv_) + kv_head * group * hd,
                .kv = d_.kv_at(layer, kv_head),
                .block_stride = static_cast<size_t>(2 * kBlock * hd * c_.kv_heads),
                .table = batch_.block_table + at(places_[t].seq, batch_.max_blocks),
                .positions = positions,
                .head_dim = hd,
                .group = group,
                .scale = 1.0f / std::sqrt(static_cast<float>(hd)),
                .scores = scores.data(),
                .out = d_.attn_.data() + at(t, d_.ld_attn_) + kv_head * group * hd});
}

void Slice::ffn_block(int layer) {
  const Layer& w = d_.weights_.layers[static_cast<size_t>(layer)];
  norm(w.ffn_norm);
  tiles(n_, panels(c_.ffn), 2 * c_.hidden, [&](int r0, int n, int p0, int p1, int) {
    alignas(64) float gate[kMaxRows * kPanel], up[kMaxRows * kPanel];
    const float* a = d_.normed_.data() + at(r0, d_.ld_hidden_);
    const auto lda = static_cast<size_t>(d_.ld_hidden_), ldo = static_cast<size_t>(d_.ld_ffn_);
    for (int p = p0; p < p1; ++p) {
      const float* panel = w.gate_up + at(2 * p, c_.hidden) * kPanel;
      k_.gemm(a, lda, n, panel, c_.hidden, gate);
      k_.gemm(a, lda, n, panel + at(c_.hidden, kPanel), c_.hidden, up);
      k_.silu_mul(gate, up, n, d_.ffn_.data() + at(r0, d_.ld_ffn_) + p * kPanel, ldo);
    }
  });
  multiply(d_.ffn_.data(), d_.ld_ffn_, n_, w.down, c_.ffn, c_.hidden, d_.x_.data(), d_.ld_hidden_, k_.add);
}

// ---- the head ---------------------------------------------------------------------------------------------------
namespace {

// The winner of 32 lanes: the largest, of equals the lowest id.
void reduce_lanes(const float* best, const int32_t* id, float* row_best, int32_t* row_id) {
  *row_best = best[0], *row_id = id[0];
  for (int i = 1; i < kPanel; ++i)
    if (best[i] > *row_best || (best[i] == *row_best && id[i] < *row_id)) *row_best = best[i], *row_id = id[i];
}

}  // namespace

float* Slice::row_logits(int row) const {
  if (out_.logits) return out_.logits + at(wanted_[static_cast<size_t>(row)], c_.vocab);
  return d_.logits_.empty() ? nullptr : d_.logits_.data() + at(row, c_.vocab);
}

// Logits of the wanted rows, with the largest of each found on the way; then the sampled ones are drawn.
void Slice::head() {
  const int rows = static_cast<int>(wanted_.size()), ld = d_.ld_hidden_, n_panels = panels(c_.vocab);
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  for_rows(rows, [&](int r) {
    const int t = batch_.q_start[wanted_[static_cast<size_t>(r)] + 1] - 1 - first_;
    k_.rmsnorm(d_.x_.data() + at(t, ld), d_.weights_.final_norm, c_.hidden, static_cast<float>(c_.norm_eps),
               d_.last_.data() + at(r, ld));
  });
  // Of each row and panel: the winner. (A group of panels has its winner at its first panel.)
  std::fill(d_.best_.begin(), d_.best_.end(), minus_infinity);
  tiles(rows, n_panels, c_.hidden, [&](int r0, int n, int p0, int p1, int) {
    alignas(64) float c[kMaxRows * kPanel], best[kMaxRows * kPanel];
    alignas(64) int32_t id[kMaxRows * kPanel] = {};
    std::fill(best, best + kMaxRows * kPanel, minus_infinity);
    for (int p = p0; p < p1; ++p) {
      const int columns = std::min(kPanel, c_.vocab - p * kPanel);
      k_.gemm(d_.last_.data() + at(r0, ld), static_cast<size_t>(ld), n, d_.weights_.head + at(p, c_.hidden) * kPanel,
              c_.hidden, c);
      for (int r = 0; r < n; ++r) {
        if (float* logits = row_logits(r0 + r))
          std::copy(c + r * kPanel, c + r * kPanel + columns, logits + p * kPanel);
        std::fill(c + r * kPanel + columns, c + (r + 1) * kPanel, minus_infinity);
      }
      k_.argmax(c, n, p * kPanel, best, id);
    }
    for (int r = 0; r < n; ++r)
      reduce_lanes(best + r * kPanel, id + r * kPanel, &d_.best_[at(r0 + r, n_panels) + static_cast<size_t>(p0)],
                   &d_.best_id_[at(r0 + r, n_panels) + static_cast<size_t>(p0)]);
  });
  team_.run(rows, [&](int r) { choose(row_logits(r), r); });
}

void Slice::choose(const float* logits, int row) {
  const int b = wanted_[static_cast<size_t>(row)];
  if (!batch_.sampling || is_greedy(batch_.sampling[b])) {
    const float* best = d_.best_.data() + at(row, panels(c_.vocab));
    const auto winner = std::max_element(best, best + panels(c_.vocab)) - best;  // the first: the lowest ids
    const float top = best[winner];
    out_.next_token[b] = top > -std::numeric_limits<float>::infinity()
                             ? d_.best_id_[at(row, panels(c_.vocab)) + static_cast<size_t>(winner)]
                             : 0;
    return;
  }
  const int positions = batch_.ctx_len[b] + batch_.q_start[b + 1] - batch_.q_start[b];
  const int32_t* table = batch_.block_table + at(b, batch_.max_blocks);
  std::vector<int32_t> history(static_cast<size_t>(positions));
  for (int i = 0; i < positions; ++i)
    history[static_cast<size_t>(i)] = d_.kv_.token[at(table[i / kBlock], kBlock) + static_cast<size_t>(i % kBlock)];
  out_.next_token[b] = sample(logits, c_.vocab, batch_.sampling[b], history.data(), positions);
}

}  // namespace ww::decoder
