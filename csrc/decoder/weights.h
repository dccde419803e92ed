// A model's shape, and its weights as the kernels want them: matrices packed in panels of 32 output columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/kernels.h"

namespace ww::decoder {

struct Config {  // wattwork.engines.ModelConfig, field by field
  int layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
  double rope_theta;
  bool tied;
  double norm_eps;
};

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }
inline int panels(int columns) { return (columns + kPanel - 1) / kPanel; }

// Zeroed memory from the kernel: pages exist once touched, and are huge ones where the system allows it.
class Region {
 public:
  Region() = default;
  explicit Region(size_t floats);  // throws std::bad_alloc
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  float* data() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  float* data_ = nullptr;
  size_t bytes_ = 0;
};

// One tensor of the Hugging Face list and where its elements go.
struct Tensor {
  int rows, columns;    // a norm is one row
  float* base;          // panel 0 of the matrix it is part of; of a norm the vector itself
  int first_row;        // its row 0 within that matrix
  size_t panel_stride;  // floats from one panel to the next; 0: a norm, not packed
};

struct Layer {
  const float *attn_norm, *qkv, *o, *ffn_norm, *gate_up, *down;  // gate_up: gate's panel j, then up's panel j
};

// Tensors are numbered as `wattwork.engines.weights.tensors` lists them.
class WW_API Weights {
 public:
  explicit Weights(const Config& config);  // throws std::invalid_argument with a sentence
  void set(int index, const float* values, int threads);  // row-major, as in the state dict
  void set_dummy(uint64_t seed, int threads);
  const std::vector<Tensor>& tensors() const { return tensors_; }

  std::vector<Layer> layers;
  const float *embedding, *final_norm, *head;  // head is the embedding where tied

 private:
  float* matrix(int rows, int columns);
  float* vector(int n);
  Region memory_;
  size_t used_ = 0;
  std::vector<Tensor> tensors_;
};

// n consecutive elements of dummy tensor `tensor`, from element `first` on, each in [-bound, bound).
WW_API void fill_dummy(uint64_t seed, int tensor, int64_t first, int64_t n, float bound, float* out);
// The bound: sqrt(3 / fan_in), rounded once.
WW_API float dummy_bound(int fan_in);

}  // namespace ww::decoder
