#include "decoder/decoder.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "decoder/slice.h"

namespace ww::decoder {
namespace {

int padded_row(int n) { return round_up(n, kPanel) + 16; }

int step_of(void* self, const ww_batch* batch, ww_out* out) { return static_cast<Decoder*>(self)->step(batch, out); }
int sync_of(void*) { return WW_OK; }

}  // namespace

Decoder::Decoder(const Config& config, const Kernels& kernels, int threads)
    : config_(config), kernels_(kernels), threads_(threads), weights_(config),
      ld_hidden_(padded_row(config.hidden)),
      ld_qkv_(padded_row((config.heads + 2 * config.kv_heads) * config.head_dim)),
      ld_attn_(padded_row(config.heads * config.head_dim)), ld_ffn_(padded_row(config.ffn)),
      engine_{this, step_of, sync_of} {
  // Hugging Face's arithmetic: inverse frequencies and angles rounded to f32, then cosine and sine.
  std::vector<float> frequencies;
  for (int i = 0; i < config.head_dim / 2; ++i)
    frequencies.push_back(static_cast<float>(1.0 / std::pow(config.rope_theta, 2.0 * i / config.head_dim)));
  for (int position = 0; position < config.context; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      cos_.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      sin_.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

Decoder::~Decoder() = default;

// ---- the KV cache -----------------------------------------------------------------------------------------------
int64_t Decoder::block_bytes() const {
  const int64_t floats = int64_t{2} * kBlock * config_.layers * config_.kv_heads * config_.head_dim;
  return floats * static_cast<int64_t>(sizeof(float)) + kBlock * 8;
}

int Decoder::alloc_kv(int64_t budget_bytes) {
  std::lock_guard lock(mutex_);
  const int64_t blocks = std::min<int64_t>(budget_bytes / block_bytes(), (1 << 26) / kBlock);
  kv_ = {};
  if (blocks < 1) return 0;
  const auto slots = static_cast<size_t>(blocks) * kBlock;
  const auto width = static_cast<size_t>(2 * config_.layers) * static_cast<size_t>(config_.kv_heads * config_.head_dim);
  kv_ = {Region(slots * width), static_cast<int>(blocks), std::vector<int32_t>(slots), std::vector<uint32_t>(slots)};
  steps_ = 0;
  return kv_.blocks;
}

void Decoder::drop_kv() {
  std::lock_guard lock(mutex_);
  kv_ = {};
}

float* Decoder::kv_at(int layer, int kv_head) const {
  const auto one = static_cast<size_t>(2 * kBlock * config_.head_dim);
  return kv_.memory.data() + (static_cast<size_t>(layer) * static_cast<size_t>(kv_.blocks) *
                                  static_cast<size_t>(config_.kv_heads) + static_cast<size_t>(kv_head)) * one;
}

// ---- a step -----------------------------------------------------------------------------------------------------
void Decoder::reserve(int tokens, int rows, bool sampled) {
  if (tokens > capacity_) {
    const auto n = static_cast<size_t>(tokens);
    x_.assign(n * static_cast<size_t>(ld_hidden_), 0);
    normed_.assign(n * static_cast<size_t>(ld_hidden_), 0);
    qkv_.assign(n * static_cast<size_t>(ld_qkv_), 0);
    attn_.assign(n * static_cast<size_t>(ld_attn_), 0);
    ffn_.assign(n * static_cast<size_t>(ld_ffn_), 0);
    capacity_ = tokens;
  }
  if (rows > row_capacity_) {
    const auto n = static_cast<size_t>(rows);
    last_.assign(n * static_cast<size_t>(ld_hidden_), 0);
    best_.assign(n * static_cast<size_t>(panels(config_.vocab)), 0);
    best_id_.assign(best_.size(), 0);
    row_capacity_ = rows;
  }
  logits_.resize(sampled ? static_cast<size_t>(rows) * static_cast<size_t>(config_.vocab) : 0);
}

int Decoder::step(const ww_batch* batch, ww_out* out) {
  std::lock_guard lock(mutex_);
  try {
    error_ = batch && out ? invalid(*batch, *out) : "a step needs a batch and an out.";
    if (!error_.empty()) return WW_E_INVALID;
    const int tokens = batch->n_tokens;
    std::vector<Place> places(static_cast<size_t>(tokens));
    for (int b = 0; b < batch->n_seqs; ++b) {
      if (!batch->want_logits[b]) out->next_token[b] = -1;
      for (int t = batch->q_start[b]; t < batch->q_start[b + 1]; ++t) {
        places[static_cast<size_t>(t)] = {b, batch->ctx_len[b] + t - batch->q_start[b]};
        kv_.token[static_cast<size_t>(batch->slot_map[t])] = batch->tokens[t];
      }
    }
    Team team(threads_);
    for (int t = 0; t < tokens; t += kSlice)
      Slice(*this, team, *batch, *out, places.data(), t, std::min(kSlice, tokens - t)).run();
    return WW_OK;
  } catch (const std::exception& e) {
    error_ = std::string("the decoder failed: ") + e.what() + ".";
    return WW_E_FAILED;
  }
}

std::string Decoder::error() {
  std::lock_guard lock(mutex_);
  return error_;
}

}  // namespace ww::decoder
