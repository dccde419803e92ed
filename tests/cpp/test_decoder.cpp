// The decoder through its ww_engine: the same bits for any batch, chunk and thread count; bad batches are refused.
#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "decoder/decoder.h"
#include "decoder/philox.h"

using namespace ww::decoder;

static const Config kConfig = {2, 40, 4, 2, 16, 72, 75, 64, 1e4, false, 1e-5};
static constexpr int kColumns = 4;

// A batch that owns its arrays. Sequence b's blocks are b, b + n_seqs, b + 2 n_seqs, ...
struct OwnedBatch {
  std::vector<int32_t> tokens, q_start{0}, ctx_len, table, slots;
  std::vector<uint8_t> want;
  std::vector<ww_sampling> sampling;
  std::vector<int32_t> next;
  std::vector<float> logits;

  void add(int seq, int stride, int context, const std::vector<int32_t>& feed) {
    for (int i = 0; i < kColumns; ++i) table.push_back(seq + i * stride);
    for (size_t i = 0; i < feed.size(); ++i) {
      const int position = context + static_cast<int>(i);
      tokens.push_back(feed[i]);
      slots.push_back((seq + position / 16 * stride) * 16 + position % 16);
    }
    q_start.push_back(static_cast<int32_t>(tokens.size()));
    ctx_len.push_back(context);
    want.push_back(1);
    sampling.push_back({0.8f, 0.9f, 1.2f, 20, 7});
  }

  int step(ww_engine* engine, bool sampled) {
    next.assign(want.size(), -7);
    logits.assign(want.size() * static_cast<size_t>(kConfig.vocab), 0);
    const ww_batch batch = {static_cast<int32_t>(tokens.size()), static_cast<int32_t>(want.size()), kColumns,
                            tokens.data(), q_start.data(), ctx_len.data(), table.data(), slots.data(), want.data(),
                            sampled ? sampling.data() : nullptr};
    ww_out out = {next.data(), logits.data()};
    const int code = engine->step(engine->self, &batch, &out);
    return code == WW_OK ? engine->sync(engine->self) : code;
  }
};

static std::vector<int32_t> prompt(int seq, int n) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back((seq * 31 + i * 7) % kConfig.vocab);
  return tokens;
}

static void same_bits(const Kernels& kernels) {
  constexpr int kSeqs = 5;
  const int lengths[kSeqs] = {1, 16, 17, 40, 63};
  Decoder one(kConfig, kernels, 1), two(kConfig, kernels, 2);
  for (Decoder* d : {&one, &two}) {
    d->weights().set_dummy(3, d->threads());
    CHECK(d->alloc_kv(d->block_bytes() * kSeqs * kColumns) == kSeqs * kColumns);
  }
  OwnedBatch together;
  for (int s = 0; s < kSeqs; ++s) together.add(s, kSeqs, 0, prompt(s, lengths[s]));
  for (bool sampled : {false, true}) {
    CHECK(together.step(two.engine(), sampled) == WW_OK);
    for (int s = 0; s < kSeqs; ++s) {
      const std::vector<int32_t> whole = prompt(s, lengths[s]);
      OwnedBatch last;
      for (int first = 0; first < lengths[s]; first += 11) {  // alone, in chunks of 11
        const auto from = whole.begin() + first;
        last = {};
        last.add(s, kSeqs, first, {from, from + std::min(11, lengths[s] - first)});
        CHECK(last.step(one.engine(), sampled) == WW_OK);
      }
      const size_t row = static_cast<size_t>(s) * static_cast<size_t>(kConfig.vocab);
      CHECK(last.next[0] == together.next[static_cast<size_t>(s)]);
      CHECK(std::memcmp(last.logits.data(), together.logits.data() + row, last.logits.size() * sizeof(float)) == 0);
      CHECK(last.next[0] >= 0 && last.next[0] < kConfig.vocab);
    }
  }
}

// A token whose activations overflow spoils its own step and no later one, also where rows have padding.
static void overflow_does_not_stay(const Kernels& kernels) {
  Decoder d(kConfig, kernels, 1);
  d.weights().set_dummy(3, 1);
  CHECK(d.alloc_kv(d.block_bytes() * kColumns) == kColumns);
  OwnedBatch good, bad;
  good.add(0, 1, 0, {1, 2, 3});
  bad.add(0, 1, 0, {70, 70, 70});
  CHECK(good.step(d.engine(), false) == WW_OK);
  const std::vector<float> before = good.logits;
  const Tensor& embedding = d.weights().tensors()[0];
  std::vector<float> rows(static_cast<size_t>(embedding.rows) * static_cast<size_t>(embedding.columns));
  for (int r = 0; r < embedding.rows; ++r)
    for (int c = 0; c < embedding.columns; ++c)
      rows[static_cast<size_t>(r * embedding.columns + c)] =
          embedding.base[(r / kPanel * embedding.columns + c) * kPanel + r % kPanel];
  for (int c = 0; c < embedding.columns; ++c) rows[static_cast<size_t>(70 * embedding.columns + c)] = __builtin_inff();
  d.weights().set(0, rows.data(), 1);
  CHECK(bad.step(d.engine(), false) == WW_OK);
  CHECK(bad.next[0] >= 0 && bad.next[0] < kConfig.vocab);
  CHECK(good.step(d.engine(), false) == WW_OK);
  CHECK(std::memcmp(good.logits.data(), before.data(), before.size() * sizeof(float)) == 0);
}

static void bad_batches() {
  Decoder d(kConfig, *find_kernels(""), 2);
  d.weights().set_dummy(0, 1);
  OwnedBatch good;
  good.add(0, 1, 0, prompt(0, 20));
  CHECK(good.step(d.engine(), false) == WW_E_INVALID);  // no KV cache yet
  CHECK(d.alloc_kv(d.block_bytes() - 1) == 0);
  CHECK(d.alloc_kv(d.block_bytes() * 5) == 5);
  CHECK(good.step(d.engine(), false) == WW_OK);
  CHECK(d.error().empty());
  const auto refused = [&](auto change) {
    OwnedBatch bad = good;
    change(bad);
    CHECK(bad.step(d.engine(), true) == WW_E_INVALID);
    CHECK(!d.error().empty());
  };
  refused([](OwnedBatch& b) { b.tokens[3] = kConfig.vocab; });
  refused([](OwnedBatch& b) { b.tokens[3] = -1; });
  refused([](OwnedBatch& b) { b.slots[3] = 1 << 30; });
  refused([](OwnedBatch& b) { b.slots[3] = b.slots[4]; });
  refused([](OwnedBatch& b) { b.table[1] = 5; });
  refused([](OwnedBatch& b) { b.table[0] = -1; });
  refused([](OwnedBatch& b) { b.q_start[1] = 21; });
  refused([](OwnedBatch& b) { b.q_start[0] = -4; });
  refused([](OwnedBatch& b) { b.ctx_len[0] = 60; });
  refused([](OwnedBatch& b) { b.ctx_len[0] = -1; });
  refused([](OwnedBatch& b) { b.ctx_len[0] = 2147483647; });
  refused([](OwnedBatch& b) { b.sampling[0].top_p = 0; });
  refused([](OwnedBatch& b) { b.sampling[0].temperature = __builtin_nanf(""); });
  ww_out out = {nullptr, nullptr};
  CHECK(d.step(nullptr, &out) == WW_E_INVALID);
  CHECK(good.step(d.engine(), false) == WW_OK);
  d.drop_kv();
  CHECK(good.step(d.engine(), false) == WW_E_INVALID);
}

int main() {
  const auto p = ww::philox4x32(0, 0, 0);
  CHECK(p.word[0] == 0x6627e8d5 && p.word[3] == 0x9b00dbd8);
  each_kernels([](void*, const char* isa) { same_bits(*find_kernels(isa)); }, nullptr);
  each_kernels([](void*, const char* isa) { overflow_does_not_stay(*find_kernels(isa)); }, nullptr);
  CHECK(find_kernels("sse9") == nullptr);
  bad_batches();
  for (const Config& bad : {Config{1, 32, 3, 2, 16, 32, 64, 64, 1e4, true, 1e-5},
                            Config{1, 32, 2, 2, 8, 32, 64, 64, 1e4, true, 1e-5},
                            Config{0, 32, 2, 2, 16, 32, 64, 64, 1e4, true, 1e-5}}) {
    bool refused = false;
    try {
      Decoder d(bad, *find_kernels(""), 1);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused);
  }
  bool too_large = false;
  try {
    constexpr int kMost = 1 << 24;
    Decoder d({kMost, kMost, 1, 1, 16, kMost, kMost, 64, 1e4, true, 1e-5}, *find_kernels(""), 1);
  } catch (const std::bad_alloc&) {
    too_large = true;
  }
  CHECK(too_large);
  return 0;
}
