// ARMv8's SHA-2 instructions: two do four rounds of SHA-256, two others four words of its message schedule. One nonce
// a stream; several streams side by side hide the rounds' latency. Rolled, streams hold versions, all with one nonce,
// whose message schedule is computed once for all of them.
// Counted by bench/port_bound_arm.py (gcc 12), not measured on hardware: plain 178 operations a nonce, 103 of them in
// the one pipe of Neoverse N1 and V1 that has these instructions, so 103 cycles at best; rolled 145, in 85.
#include <arm_neon.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

#define WW_INLINE inline __attribute__((always_inline))

namespace ww {
namespace {

constexpr int kStreams = 4;

typedef uint32x4_t V;  // four consecutive words, of one stream

struct State { V abcd[kStreams], efgh[kStreams]; };
struct Schedule { V w[16][kStreams]; };  // four words to a vector

constexpr uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
constexpr uint32_t small0(uint32_t x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }

WW_INLINE V words(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return V{a, b, c, d}; }
WW_INLINE V first_word(uint32_t a) { return vsetq_lane_u32(a, vdupq_n_u32(0), 0); }

template <class F> WW_INLINE void each_stream(F f) {
  for (int i = 0; i < kStreams; ++i) f(i);
}

// Rounds 4q ... 4q + 3, given K + W.
WW_INLINE void four_rounds(State& s, int i, V sum) {
  const V abcd = s.abcd[i];
  s.abcd[i] = vsha256hq_u32(abcd, s.efgh[i], sum);
  s.efgh[i] = vsha256h2q_u32(s.efgh[i], abcd, sum);
}
WW_INLINE V round_constants(int q) { return vld1q_u32(kSha256Round + 4 * q); }

// Rounds whose K + W are the same in all streams; and those of the schedule's words.
WW_INLINE void same_rounds(State& s, V sum) {
  each_stream([&](int i) { four_rounds(s, i, sum); });
}
WW_INLINE void rounds(State& s, const Schedule& m, int q) {
  each_stream([&](int i) { four_rounds(s, i, vaddq_u32(m.w[q][i], round_constants(q))); });
}
// Those of block 1 whose words are padding.
WW_INLINE V padding1(int q) {
  return vaddq_u32(words(q == 1 ? kPadOne : 0, 0, 0, q == 3 ? kHeaderBits : 0), round_constants(q));
}

// Words 4q ... 4q + 3 by the whole recurrence; or where words 4q - 16 ... are known beforehand, from
// known = W[t - 16] + s0(W[t - 15]).
WW_INLINE V known_words(V known, V before8, V before4) { return vsha256su1q_u32(known, before8, before4); }
WW_INLINE V next_words(V before16, V before12, V before8, V before4) {
  return vsha256su1q_u32(vsha256su0q_u32(before16, before12), before8, before4);
}
WW_INLINE void schedule(Schedule& m, int q) {
  each_stream([&](int i) { m.w[q][i] = next_words(m.w[q - 4][i], m.w[q - 3][i], m.w[q - 2][i], m.w[q - 1][i]); });
}

// Words 4q ... 4q + 3 of block 1, q >= 4, a nonce a stream.
WW_INLINE void words1(const Tail& tail, uint32_t first, Schedule& m, int q) {
  if (q >= 8) return schedule(m, q);
  each_stream([&](int i) {
    V(&w)[16][kStreams] = m.w;
    if (q == 4) {
      const uint32_t nonce = __builtin_bswap32(first + static_cast<uint32_t>(i));
      w[4][i] = vaddq_u32(words(tail.word16, tail.word17, tail.word18, tail.word19), words(0, 0, small0(nonce), nonce));
    } else if (q == 5) {
      w[5][i] = known_words(words(kPadOne, 0, 0, 0), words(0, 0, 0, kHeaderBits), w[4][i]);
    } else if (q == 6) {
      w[6][i] = known_words(vdupq_n_u32(0), w[4][i], w[5][i]);
    } else {
      w[7][i] = known_words(words(0, 0, small0(kHeaderBits), tail.word31), w[5][i], w[6][i]);
    }
  });
}

// Plain: block 1, from round 4 on; leaves the first hash in words 0 ... 7.
WW_INLINE void block1(const Row& row, uint32_t first, State& s, Schedule& m) {
  each_stream([&](int i) {
    const V nonce = first_word(__builtin_bswap32(first + static_cast<uint32_t>(i)));
    s.abcd[i] = vaddq_u32(vld1q_u32(row.start), nonce);
    s.efgh[i] = vaddq_u32(vld1q_u32(row.start + 4), nonce);
  });
  words1(row.tail, first, m, 4);
  for (int q = 1; q < 4; ++q) same_rounds(s, padding1(q));
#pragma GCC unroll 12
  for (int q = 5; q < 16; ++q) {
    words1(row.tail, first, m, q);
    rounds(s, m, q - 1);
  }
  rounds(s, m, 15);
  each_stream([&](int i) {
    m.w[0][i] = vaddq_u32(s.abcd[i], vld1q_u32(row.midstate));
    m.w[1][i] = vaddq_u32(s.efgh[i], vld1q_u32(row.midstate + 4));
  });
}

// What versions have of their own, a version after the other.
struct Version { V midstate[2], start[2]; };

// Rolled: the same, with K + W of rounds 4q ... at sum[q].
WW_INLINE void block1(const Version* versions, uint32_t nonce_be, const V* sum, State& s, Schedule& m) {
  const V nonce = first_word(nonce_be);
  each_stream([&](int i) {
    s.abcd[i] = vaddq_u32(versions[i].start[0], nonce);
    s.efgh[i] = vaddq_u32(versions[i].start[1], nonce);
  });
#pragma GCC unroll 15
  for (int q = 1; q < 16; ++q) same_rounds(s, sum[q]);
  each_stream([&](int i) {
    m.w[0][i] = vaddq_u32(s.abcd[i], versions[i].midstate[0]);
    m.w[1][i] = vaddq_u32(s.efgh[i], versions[i].midstate[1]);
  });
}

// K + W of block 1's rounds for as many nonces as there are streams, a nonce a row.
void key_schedule(const Tail& tail, uint32_t first, V (*sum)[16]) {
  Schedule m;
#pragma GCC unroll 15
  for (int q = 1; q < 16; ++q) {
    if (q >= 4) words1(tail, first, m, q);
    each_stream([&](int i) { sum[i][q] = q < 4 ? padding1(q) : vaddq_u32(m.w[q][i], round_constants(q)); });
  }
}

// The second hash, up to round 63; then h (the highest lane) is e after round 60.
WW_INLINE void block2(State& s, Schedule& m) {
  const V pad = words(kPadOne, 0, 0, 0), length = words(0, 0, 0, kHashBits);
  each_stream([&](int i) {
    s.abcd[i] = vld1q_u32(kSha256Init);
    s.efgh[i] = vld1q_u32(kSha256Init + 4);
    m.w[3][i] = length;
    m.w[4][i] = next_words(m.w[0][i], m.w[1][i], pad, length);
  });
  rounds(s, m, 0);
  each_stream([&](int i) { m.w[5][i] = next_words(m.w[1][i], pad, length, m.w[4][i]); });
  rounds(s, m, 1);
  same_rounds(s, vaddq_u32(pad, round_constants(2)));
  each_stream([&](int i) { m.w[6][i] = known_words(pad, m.w[4][i], m.w[5][i]); });
  same_rounds(s, vaddq_u32(length, round_constants(3)));
  rounds(s, m, 4);
#pragma GCC unroll 9
  for (int q = 7; q < 16; ++q) {
    schedule(m, q);
    rounds(s, m, q - 2);
  }
  rounds(s, m, 14);
  each_stream([&](int i) {
    s.efgh[i] = vsha256h2q_u32(s.efgh[i], s.abcd[i], vaddq_u32(m.w[15][i], round_constants(15)));
  });
}

WW_INLINE bool below(const State& s, int i, uint32_t target_top) {
  return __builtin_expect(__builtin_bswap32(vgetq_lane_u32(s.efgh[i], 3) + kSha256Init[7]) <= target_top, 0);
}

}  // namespace

uint32_t scan_armv8(const Row& row, Run& run) {
  State s;
  Schedule m;
  run.found = 0;
  uint32_t done = 0;
  for (; done < run.count && run.found <= kRoom - kStreams && !ended(run); done += kStreams) {
    block1(row, run.first + done, s, m);
    block2(s, m);
    for (uint32_t i = 0; i < kStreams; ++i)
      if (below(s, static_cast<int>(i), row.tail.target_top) && done + i < run.count)
        run.candidates[run.found++] = done + i;
  }
  return done < run.count ? done : run.count;
}

uint32_t roll_armv8(const Rows& rows, Run& run) {
  Version versions[kMaxVersions];
  for (uint32_t v = 0; v < rows.versions; ++v)
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 4; ++i) {
        versions[v].midstate[half][i] = rows.midstate[4 * half + i][v];
        versions[v].start[half][i] = rows.start[4 * half + i][v];
      }
  V sum[kStreams][16];  // K + W of block 1, a nonce a row: so many nonces' schedules at a time
  run.found = 0;
  uint32_t n = 0;
  for (; n < run.count && run.found <= kRoom - rows.versions && !ended(run); ++n) {
    if (n % kStreams == 0) key_schedule(rows.tail, run.first + n, sum);
    for (uint32_t v = 0; v < rows.versions; v += kStreams) {
      State s;
      Schedule m;
      block1(versions + v, __builtin_bswap32(run.first + n), sum[n % kStreams], s, m);
      block2(s, m);
      for (uint32_t i = 0; i < kStreams; ++i)
        if (below(s, static_cast<int>(i), rows.tail.target_top)) run.candidates[run.found++] = n * rows.versions + v + i;
    }
  }
  return n;
}

}  // namespace ww
