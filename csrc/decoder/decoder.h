// The CPU inference engine: a Llama-style decoder in f32 with a paged KV cache.
//
// A step's tokens go through the layers in slices of at most kSlice, so that scratch memory is bounded. Within a
// layer, each phase's work is split over the pool's team in tiles that threads claim as they get free; since every
// output element is one fixed sequence of additions (kernels.h), the answer is bitwise the same however it is split.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "decoder/kernels.h"
#include "decoder/weights.h"
#include "runtime/pool.h"
#include "wattwork/wattwork.h"

namespace ww::decoder {

constexpr int kMaxSeqs = 256, kMaxTokens = 8192, kSlice = 1024;

// The KV cache: per layer, block and KV head K as [head_dim][16] and V as [16][head_dim]; per slot its token id.
struct KvCache {
  Region memory;
  int blocks = 0;
  std::vector<int32_t> token;     // [blocks * 16]: the sequence so far, for repetition_penalty
  std::vector<uint32_t> written;  // [blocks * 16]: the last step that wrote the slot, so that none writes it twice
};

class WW_API Decoder {
 public:
  Decoder(const Config& config, const Kernels& kernels, int threads);
  ~Decoder();

  Weights& weights() { return weights_; }
  const Config& config() const { return config_; }
  const Kernels& kernels() const { return kernels_; }
  int threads() const { return threads_; }

  int alloc_kv(int64_t budget_bytes);  // blocks of 16 positions; 0: the budget holds none, and nothing is allocated
  void drop_kv();
  int64_t block_bytes() const;

  int step(const ww_batch* batch, ww_out* out);  // WW_OK, or a code after which error() says what to change
  std::string error();
  ww_engine* engine() { return &engine_; }

 private:
  friend class Slice;
  std::string invalid(const ww_batch& batch, const ww_out& out);  // "" or a sentence
  std::string invalid_sequence(const ww_batch& batch, int b);
  void reserve(int tokens, int rows, bool sampled);
  float* kv_at(int layer, int kv_head) const;

  Config config_;
  const Kernels& kernels_;
  int threads_;
  Weights weights_;
  std::vector<float> cos_, sin_;  // [context][head_dim / 2]
  KvCache kv_;
  uint32_t steps_ = 0;

  // Scratch of one slice. Rows are padded to an odd number of cache lines, which spreads them over the cache's sets.
  int ld_hidden_, ld_qkv_, ld_attn_, ld_ffn_;
  int capacity_ = 0, row_capacity_ = 0;
  std::vector<float> x_, normed_, qkv_, attn_, ffn_, last_, best_, logits_;
  std::vector<int32_t> best_id_;

  std::mutex mutex_;
  std::string error_;
  ww_engine engine_;
};

}  // namespace ww::decoder
