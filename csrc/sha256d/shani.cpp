// SHA-NI: x86's instructions for two rounds of SHA-256 and for its message schedule. One nonce a stream; four streams
// side by side hide the two rounds' latency of four cycles. The loop is assembly, which shani_streams.py writes.
// Measured (AMD EPYC of family 25, model 17, one thread): 38.3 MH/s by bench/bench_search.py, some 93 cycles a nonce at
// best. Its four pipes would allow 74 cycles if each part of these instructions fitted any of them; without their
// dependencies the same instructions take 82.
#include <stddef.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {

// What the assembly is given, and where it keeps the streams' schedules. The state stands as the instructions want it,
// f e b a and h g d c from the lowest lane up; words stand in their order.
struct alignas(16) ShaniStreams {
  uint32_t ring[4][16];
  uint32_t abef[4], cdgh[4];        // before round 4, as if the nonce were 0
  uint32_t words16[4], words18[4];  // of block 1: 16, 17 and 18, 19, 18, 19, as Tail has them
  uint32_t words20[4], words28[4];  // their terms without the nonce
  uint32_t mid_abef[4], mid_cdgh[4];
  uint32_t target_top[4];
  const uint32_t* ends[2];
  uint32_t first;   // nonce
  uint32_t passes;  // of four nonces; at least one
  uint32_t below;   // out: a bit for each nonce of the last pass whose hash's top 32 bits are at most the target's
};

// Returns how many passes are done: fewer than all where a word ended the run, or after one with candidates.
extern "C" uint32_t wattwork_shani(ShaniStreams*);

namespace {

constexpr uint32_t kStreams = 4;

static_assert(offsetof(ShaniStreams, abef) == 64 * kStreams && offsetof(ShaniStreams, target_top) == 384 &&
              offsetof(ShaniStreams, ends) == 400 && offsetof(ShaniStreams, first) == 416 &&
              offsetof(ShaniStreams, passes) == 420 && offsetof(ShaniStreams, below) == 424);

constexpr uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
constexpr uint32_t small0(uint32_t x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }

}  // namespace

uint32_t scan_shani(const Row& row, Run& run) {
  const uint32_t *start = row.start, *mid = row.midstate;
  const Tail& tail = row.tail;
  const uint32_t top = tail.target_top;
  ShaniStreams streams{{},
                       {start[5], start[4], start[1], start[0]},
                       {start[7], start[6], start[3], start[2]},
                       {tail.word16, tail.word17},
                       {tail.word18, tail.word19, tail.word18, tail.word19},
                       {kPadOne, 0, kHeaderBits, tail.word16},
                       {0, 0, small0(kHeaderBits), tail.word31},
                       {mid[5], mid[4], mid[1], mid[0]},
                       {mid[7], mid[6], mid[3], mid[2]},
                       {top, top, top, top},
                       {run.ends[0], run.ends[1]},
                       0,
                       0,
                       0};
  run.found = 0;
  uint32_t done = 0, passes;
  do {
    streams.first = run.first + done;
    streams.passes = (run.count - done - 1) / kStreams + 1;
    passes = wattwork_shani(&streams);
    done += passes * kStreams;
    for (uint32_t bits = streams.below; bits; bits &= bits - 1) {
      const uint32_t candidate = done - kStreams + static_cast<uint32_t>(__builtin_ctz(bits));
      if (candidate < run.count) run.candidates[run.found++] = candidate;
    }
  } while (streams.below && done < run.count && run.found <= kRoom - kStreams);
  return done < run.count ? done : run.count;
}

}  // namespace ww
