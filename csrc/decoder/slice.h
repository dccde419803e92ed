// One slice of a step's tokens on its way through the layers: each method is one phase, or a few.
#pragma once

#include "decoder/decoder.h"

namespace ww::decoder {

// Where a token stands: which sequence of the batch, and its position there.
struct Place {
  int32_t seq, position;
};

class Slice {
 public:
  // Tokens [first, first + n) of the batch; `places` for all of its tokens.
  Slice(Decoder& decoder, Team& team, const ww_batch& batch, ww_out& out, const Place* places, int first, int n);
  void run();

 private:
  void embed();
  void norm(const float* weight);
  void attention_block(int layer);
  void store_kv(int layer, int t);
  void attend(int layer, int t, int kv_head);
  void ffn_block(int layer);
  void head();
  void choose(const float* logits, int row);
  float* row_logits(int row) const;  // nullptr where nobody asks for them

  // Calls f(first_row, rows, first_panel, end_panel, group) for tiles that make up rows x panels; one task, hence
  // one thread, has one group of panels, small enough for its second-level cache, and a few tiles of rows.
  template <class F>
  void tiles(int rows, int n_panels, int k, F&& f);
  template <class F>
  void for_rows(int rows, F&& f);
  // out (+)= a * weights, tile by tile.
  void multiply(const float* a, int lda, int rows, const float* weights, int k, int columns, float* out, int ldo,
                void (*finish)(const float* c, int rows, float* out, size_t ldo));

  Decoder& d_;
  const Config& c_;
  const Kernels& k_;
  Team& team_;
  const ww_batch& batch_;
  ww_out& out_;
  const Place* places_;
  const int first_, n_;
  std::vector<int32_t> wanted_;  // sequences whose next token this slice decides
};

}  // namespace ww::decoder
