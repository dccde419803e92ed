// SHA-NI: x86's instructions for two rounds of SHA-256 and for its message schedule. One nonce a stream; several streams
// side by side hide the two rounds' latency of four cycles.
// Measured by bench/bench_search.py (gcc 12, AMD EPYC of family 25, model 17, one thread): 33.6 MH/s. Its four pipes would
// allow 49.5 if each part of these instructions fitted any of them, which is not known.
#include <immintrin.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

#define WW_INLINE inline __attribute__((always_inline))

namespace ww {
namespace {

constexpr int kStreams = 4;

typedef __m128i V;  // four consecutive words of one stream's schedule, the first in the lowest lane

// The state as the instructions want it, from the highest lane down: a b e f, and c d g h.
struct State { V abef[kStreams], cdgh[kStreams]; };
// The schedule, four words to a vector.
struct Schedule { V w[16][kStreams]; };

constexpr uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
constexpr uint32_t small0(uint32_t x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }

WW_INLINE V words(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return _mm_set_epi32(static_cast<int>(d), static_cast<int>(c), static_cast<int>(b), static_cast<int>(a));
}
// What lies one word behind a's first: a1 a2 a3 b0.
WW_INLINE V next_word(V a, V b) { return _mm_alignr_epi8(b, a, 4); }
WW_INLINE V add(V a, V b) { return _mm_add_epi32(a, b); }

template <class F> WW_INLINE void each_stream(F f) {
  for (int i = 0; i < kStreams; ++i) f(i);
}

// Rounds 4q ... 4q + 3, or the first two of them, given K + W. Each instruction makes the new a b e f where c d g h was.
WW_INLINE void two_rounds(State& s, const V (&sum)[kStreams]) {
  each_stream([&](int i) { s.cdgh[i] = _mm_sha256rnds2_epu32(s.cdgh[i], s.abef[i], sum[i]); });
}
WW_INLINE void four_rounds(State& s, const V (&sum)[kStreams]) {
  two_rounds(s, sum);
  each_stream([&](int i) {
    s.abef[i] = _mm_sha256rnds2_epu32(s.abef[i], s.cdgh[i], _mm_shuffle_epi32(sum[i], 0x0e));
  });
}
WW_INLINE V round_constants(int q) { return _mm_load_si128(reinterpret_cast<const V*>(kSha256Round + 4 * q)); }

// Rounds whose words are the same in all streams; and those of the schedule's words.
WW_INLINE void constant_rounds(State& s, int q, V w) {
  V sum[kStreams];
  each_stream([&](int i) { sum[i] = add(w, round_constants(q)); });
  four_rounds(s, sum);
}
WW_INLINE void rounds(State& s, const Schedule& m, int q) {
  V sum[kStreams];
  each_stream([&](int i) { sum[i] = add(m.w[q][i], round_constants(q)); });
  four_rounds(s, sum);
}

// Words 4q ... 4q + 3 by the whole recurrence, and rounds 4q - 4 ... 4q - 1, stream by stream: for all
// streams' words before all streams' rounds there are too few registers.
WW_INLINE void schedule_and_rounds(State& s, Schedule& m, int q) {
  each_stream([&](int i) {
    const V last = m.w[q - 1][i];
    const V sum = add(_mm_sha256msg1_epu32(m.w[q - 4][i], m.w[q - 3][i]), next_word(m.w[q - 2][i], last));
    m.w[q][i] = _mm_sha256msg2_epu32(sum, last);
    const V keyed = add(last, round_constants(q - 1));
    s.cdgh[i] = _mm_sha256rnds2_epu32(s.cdgh[i], s.abef[i], keyed);
    s.abef[i] = _mm_sha256rnds2_epu32(s.abef[i], s.cdgh[i], _mm_shuffle_epi32(keyed, 0x0e));
  });
}
// Words 4q ... 4q + 3 where words 4q - 16 ... are the same in all streams: from known = W[t - 16] + s0(W[t - 15]).
WW_INLINE void schedule_known(Schedule& m, int q, V known) {
  each_stream([&](int i) {
    m.w[q][i] = _mm_sha256msg2_epu32(add(known, next_word(m.w[q - 2][i], m.w[q - 1][i])), m.w[q - 1][i]);
  });
}

// Block 1, from round 4 on; leaves the first hash in words 0 ... 7.
WW_INLINE void block1(const Row& row, uint32_t first, State& s, Schedule& m) {
  const V abef = words(row.start[5], row.start[4], row.start[1], row.start[0]);
  const V cdgh = words(row.start[7], row.start[6], row.start[3], row.start[2]);
  const V base = words(row.tail.word16, row.tail.word17, row.tail.word18, row.tail.word19);
  each_stream([&](int i) {
    const uint32_t nonce = __builtin_bswap32(first + static_cast<uint32_t>(i));
    s.abef[i] = add(abef, words(0, nonce, 0, nonce));
    s.cdgh[i] = cdgh;
    m.w[4][i] = add(base, words(0, 0, small0(nonce), nonce));
    m.w[5][i] = _mm_sha256msg2_epu32(words(kPadOne, 0, kHeaderBits, row.tail.word16), m.w[4][i]);
  });
  constant_rounds(s, 1, words(kPadOne, 0, 0, 0));
  constant_rounds(s, 2, words(0, 0, 0, 0));
  constant_rounds(s, 3, words(0, 0, 0, kHeaderBits));
  rounds(s, m, 4);
  schedule_known(m, 6, words(0, 0, 0, 0));
  rounds(s, m, 5);
  schedule_known(m, 7, words(0, 0, small0(kHeaderBits), row.tail.word31));
  rounds(s, m, 6);
  for (int q = 8; q < 16; ++q) schedule_and_rounds(s, m, q);
  rounds(s, m, 15);
  const V mid_abef = words(row.midstate[5], row.midstate[4], row.midstate[1], row.midstate[0]);
  const V mid_cdgh = words(row.midstate[7], row.midstate[6], row.midstate[3], row.midstate[2]);
  each_stream([&](int i) {
    const V abef_up = _mm_shuffle_epi32(add(s.abef[i], mid_abef), 0x1b);
    const V cdgh_up = _mm_shuffle_epi32(add(s.cdgh[i], mid_cdgh), 0x1b);
    m.w[0][i] = _mm_unpacklo_epi64(abef_up, cdgh_up);
    m.w[1][i] = _mm_unpackhi_epi64(abef_up, cdgh_up);
  });
}

// The second hash, up to round 61; then f (in the lowest lane of what was c d g h) is e after round 60.
WW_INLINE void block2(State& s, Schedule& m) {
  const uint32_t* h = kSha256Init;
  const V pad = words(kPadOne, 0, 0, 0), length = words(0, 0, 0, kHashBits);
  each_stream([&](int i) {
    s.abef[i] = words(h[5], h[4], h[1], h[0]);
    s.cdgh[i] = words(h[7], h[6], h[3], h[2]);
    m.w[3][i] = length;
    m.w[4][i] = _mm_sha256msg2_epu32(_mm_sha256msg1_epu32(m.w[0][i], m.w[1][i]), length);
  });
  rounds(s, m, 0);
  each_stream([&](int i) {
    const V sum = add(_mm_sha256msg1_epu32(m.w[1][i], pad), next_word(length, m.w[4][i]));
    m.w[5][i] = _mm_sha256msg2_epu32(sum, m.w[4][i]);
  });
  rounds(s, m, 1);
  constant_rounds(s, 2, pad);
  schedule_known(m, 6, pad);
  constant_rounds(s, 3, length);
  rounds(s, m, 4);
  rounds(s, m, 5);
  for (int q = 7; q < 16; ++q) schedule_and_rounds(s, m, q);
  V sum[kStreams];
  each_stream([&](int i) { sum[i] = add(m.w[15][i], round_constants(15)); });
  two_rounds(s, sum);
}

}  // namespace

uint32_t scan_shani(const Row& row, Run& run) {
  State s;
  Schedule m;
  run.found = 0;
  uint32_t done = 0;
  for (; done < run.count && run.found <= kRoom - kStreams && !ended(run); done += kStreams) {
    block1(row, run.first + done, s, m);
    block2(s, m);
    for (int i = 0; i < kStreams; ++i) {
      const uint32_t e = static_cast<uint32_t>(_mm_cvtsi128_si32(s.cdgh[i])), offset = done + static_cast<uint32_t>(i);
      if (__builtin_expect(__builtin_bswap32(e + kSha256Init[7]) <= row.tail.target_top, 0) && offset < run.count)
        run.candidates[run.found++] = offset;
    }
  }
  return done < run.count ? done : run.count;
}

}  // namespace ww
