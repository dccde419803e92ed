// The next token from a row of logits; the readable twin is wattwork/engines/sampling.py.
#pragma once

#include <cstdint>

#include "wattwork/wattwork.h"

namespace ww::decoder {

inline bool is_greedy(const ww_sampling& s) { return s.temperature == 0; }

// The lowest id among the largest logits; NaN is none of them. 0 where there is none above -infinity.
int32_t greedy(const float* logits, int vocab);

// In this order: repetition_penalty over the distinct ids in `history` (positive logits divided, others
// multiplied), temperature, top_k, top_p; then the kept tokens are walked in the order of ids until their
// probability exceeds Philox's draw with key = seed and counter = (n_history, 0). `history` is the sequence so far.
int32_t sample(const float* logits, int vocab, const ww_sampling& sampling, const int32_t* history, int n_history);

}  // namespace ww::decoder
