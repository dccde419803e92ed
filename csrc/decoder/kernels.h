// The decoder's arithmetic, one table of functions an instruction set.
//
// Every output element is one fixed sequence of additions, whatever the rows computed beside it: so results are
// bitwise the same for any batch, chunk, tile and thread count (not across instruction sets).
#pragma once

#include <cstddef>
#include <cstdint>

#include "wattwork/wattwork.h"

namespace ww::decoder {

constexpr int kPanel = 32;  // output columns of one packed weight panel: [K][32]
constexpr int kBlock = 16;  // positions of one KV block

// One token's attention for the `group` query heads that share a KV head.
struct Attention {
  const float* q;        // [group][head_dim]
  const float* kv;       // this layer and KV head: block b at kv + b * block_stride: K [head_dim][16], V [16][head_dim]
  size_t block_stride;   // in floats
  const int32_t* table;  // block ids in the order of positions
  int positions;         // attended to: 0 .. positions - 1
  int head_dim;          // a multiple of 16
  int group;
  float scale;
  float* scores;         // scratch: [3][positions rounded up to 16]
  float* out;            // [group][head_dim]
};

struct Kernels {
  const char* isa;
  int max_rows;  // of gemm()
  // c[rows][32] = a[rows][k] (rows lda apart) times one panel [k][32]; 1 <= rows <= max_rows.
  void (*gemm)(const float* a, size_t lda, int rows, const float* panel, int k, float* c);
  void (*store)(const float* c, int rows, float* out, size_t ldo);             // out = c
  void (*add)(const float* c, int rows, float* out, size_t ldo);               // out += c
  void (*silu_mul)(const float* gate, const float* up, int rows, float* out, size_t ldo);  // out = silu(gate) * up
  // Lane by lane: where c > best, best = c and id = first_id + lane. All of [rows][32].
  void (*argmax)(const float* c, int rows, int first_id, float* best, int32_t* id);
  // out = x / rms(x) * weight over n elements; rows are zero from n to the next multiple of 32, and stay so.
  void (*rmsnorm)(const float* x, const float* weight, int n, float eps, float* out);
  void (*rope)(float* head, const float* cos, const float* sin, int half);     // HF's half-split pairs (i, i + half)
  void (*attention)(const Attention& job);
};

// The table of that name, or of the best this CPU runs where the name is empty; nullptr: unknown or not usable here.
WW_API const Kernels* find_kernels(const char* isa);
// Calls f(name) for each usable here, best first.
WW_API void each_kernels(void (*f)(void* ctx, const char* isa), void* ctx);

}  // namespace ww::decoder
