// What a batch must be. Nothing of it is used before all of it has passed, so that no batch can reach memory that
// is not its own.
#include <cmath>

#include "decoder/decoder.h"

namespace ww::decoder {
namespace {

std::string of_sequence(int b, const std::string& sentence) {
  return "sequence " + std::to_string(b) + ": " + sentence;
}

bool valid(const ww_sampling& s) {
  return s.temperature >= 0 && std::isfinite(s.temperature) && s.top_p > 0 && s.top_p <= 1 && s.top_k >= 0 &&
         s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty);
}

}  // namespace

std::string Decoder::invalid(const ww_batch& batch, const ww_out& out) {
  if (kv_.blocks == 0) return "there is no KV cache: call alloc_kv() or resume() first.";
  if (batch.n_seqs < 1 || batch.n_seqs > kMaxSeqs)
    return "a step takes 1 to " + std::to_string(kMaxSeqs) + " sequences, not " + std::to_string(batch.n_seqs) + ".";
  if (batch.n_tokens < 1 || batch.n_tokens > kMaxTokens)
    return "a step takes 1 to " + std::to_string(kMaxTokens) + " tokens, not " + std::to_string(batch.n_tokens) + ".";
  if (!batch.tokens || !batch.q_start || !batch.ctx_len || !batch.block_table || !batch.slot_map ||
      !batch.want_logits || !out.next_token || batch.max_blocks < 1)
    return "an array of the batch or out.next_token is missing.";
  if (batch.q_start[0] != 0 || batch.q_start[batch.n_seqs] != batch.n_tokens)
    return "q_start must begin with 0 and end with the number of tokens.";
  for (int b = 0; b < batch.n_seqs; ++b)
    if (batch.q_start[b + 1] <= batch.q_start[b] || batch.q_start[b + 1] > batch.n_tokens)
      return of_sequence(b, "q_start must grow by at least one token a sequence.");
  if (++steps_ == 0) {  // after 2^32 steps stamps start anew
    kv_.written.assign(kv_.written.size(), 0);
    steps_ = 1;
  }
  for (int b = 0; b < batch.n_seqs; ++b)
    if (std::string sentence = invalid_sequence(batch, b); !sentence.empty()) return of_sequence(b, sentence);
  return "";
}

std::string Decoder::invalid_sequence(const ww_batch& batch, int b) {
  const int n = batch.q_start[b + 1] - batch.q_start[b], context = batch.ctx_len[b];
  if (context < 0 || context > config_.context - n)
    return "ctx_len plus its tokens must be within the model's context of " + std::to_string(config_.context) + ".";
  if (batch.sampling && !valid(batch.sampling[b]))
    return "sampling needs temperature >= 0, 0 < top_p <= 1, top_k >= 0 and repetition_penalty > 0.";
  const int32_t* table = batch.block_table + static_cast<size_t>(b) * static_cast<size_t>(batch.max_blocks);
  const int used = (context + n + kBlock - 1) / kBlock;
  if (used > batch.max_blocks) return "block_table has too few columns for its positions.";
  for (int i = 0; i < used; ++i)
    if (table[i] < 0 || table[i] >= kv_.blocks)
      return "block_table must hold block ids below " + std::to_string(kv_.blocks) + ".";
  for (int i = 0; i < n; ++i) {
    const int t = batch.q_start[b] + i, position = context + i, slot = batch.slot_map[t];
    if (batch.tokens[t] < 0 || batch.tokens[t] >= config_.vocab)
      return "token ids must be below the vocabulary's " + std::to_string(config_.vocab) + ".";
    if (slot != table[position / kBlock] * kBlock + position % kBlock)
      return "slot_map must be block * 16 + offset of the token's position in block_table.";
    if (kv_.written[static_cast<size_t>(slot)] == steps_) return "two tokens of the step go to the same slot.";
    kv_.written[static_cast<size_t>(slot)] = steps_;
  }
  return "";
}

}  // namespace ww::decoder
