// AVX-512: 16 lanes. Rotates are one instruction, any function of three inputs another. The loops are assembly, which
// avx512_pipeline.py writes: three groups of lanes at different thirds of the double hash.
// Measured by bench/bench_search.py (AMD EPYC of family 25, model 17, one thread): plain 37.1 MH/s of the 41.4 that its
// four 256-bit pipes allow (178 operations a nonce), rolled 42.9 of 49.1 (150).
#include <stddef.h>

#include "sha256d/constants.h"
#include "sha256d/kernel.h"

namespace ww {

// What the assembly is given. Groups of lanes go through it in order. For each of them, after the two whose thirds were
// never begun, it writes a bit for each lane whose hash's top 32 bits are at most the target's.
struct Avx512Pipeline {
  const void* row;  // Row or Rows
  const uint32_t* ends[2];
  uint16_t* below;
  uint64_t groups;
  const uint32_t* sums;  // rolled: K + W of rounds 16 ... 63, each round in a row of kBatch nonces
  uint32_t first;        // nonce
  uint32_t versions;     // rolled: a multiple of the lanes
};

// Returns how many groups are through, the first ones: fewer than all where a word ended the run; below 0 as 0.
extern "C" int64_t wattwork_avx512_plain(const Avx512Pipeline*);
extern "C" int64_t wattwork_avx512_rolled(const Avx512Pipeline*);

namespace {

typedef uint32_t V __attribute__((vector_size(64)));
constexpr uint32_t kLanes = 16, kUnbegun = 2, kGroups = 2048, kBatch = 256;

static_assert(offsetof(Avx512Pipeline, ends) == 8 && offsetof(Avx512Pipeline, below) == 24 &&
              offsetof(Avx512Pipeline, groups) == 32 && offsetof(Avx512Pipeline, sums) == 40 &&
              offsetof(Avx512Pipeline, first) == 48 && offsetof(Avx512Pipeline, versions) == 52);
static_assert(offsetof(Row, midstate) == 0 && offsetof(Row, start) == 32 && offsetof(Row, start_sum) == 64 &&
              offsetof(Row, tail) == 76 && offsetof(Tail, word32) == 20 && offsetof(Tail, target_top) == 24);
static_assert(offsetof(Rows, start) == 8 * 128 && offsetof(Rows, start_sum) == 16 * 128 &&
              offsetof(Rows, tail) == 19 * 128 && kMaxVersions == 32);

uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

V rotr(V x, int n) { return x >> n | x << (32 - n); }
V small0(V x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }
V small1(V x) { return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10; }

// K + W of block 1's rounds 16 ... 63 for so many nonces; the lanes hold nonces here.
void key_schedule(const Tail& tail, uint32_t first, uint32_t count, uint32_t* sums) {
  for (uint32_t done = 0; done < count; done += kLanes) {
    V w[64] = {};
    for (uint32_t i = 0; i < kLanes; ++i) w[3][i] = __builtin_bswap32(first + done + i);
    w[4] += kPadOne, w[15] += kHeaderBits;
    w[16] += tail.word16, w[17] += tail.word17, w[18] = small0(w[3]) + tail.word18, w[19] = w[3] + tail.word19;
    for (int t = 20; t < 64; ++t) w[t] = (small1(w[t - 2]) + w[t - 7]) + (small0(w[t - 15]) + w[t - 16]);
    for (int t = 16; t < 64; ++t) {
      const V sum = w[t] + kSha256Round[t];
      __builtin_memcpy(sums + (t - 16) * kBatch + done, &sum, sizeof sum);
    }
  }
}

// Runs groups through the assembly and notes the candidates, lanes counted from `base` on and below `end`. Returns how
// many groups are done: fewer than asked for where a word ended the run, or where there is no room for another.
uint32_t run_groups(int64_t (*assembly)(const Avx512Pipeline*), Avx512Pipeline pipeline, Run& run, uint32_t base,
                    uint32_t end) {
  uint16_t below[kUnbegun + kGroups];
  pipeline.below = below;
  pipeline.ends[0] = run.ends[0], pipeline.ends[1] = run.ends[1];
  const int64_t through = assembly(&pipeline);
  for (int64_t group = 0; group < through; ++group, base += kLanes) {
    uint32_t bits = below[kUnbegun + group];
    if (__builtin_expect(bits == 0, 1)) continue;
    if (run.found > kRoom - kLanes) return static_cast<uint32_t>(group);
    for (; bits; bits &= bits - 1) {
      const uint32_t candidate = base + static_cast<uint32_t>(__builtin_ctz(bits));
      if (candidate < end) run.candidates[run.found++] = candidate;
    }
  }
  return through < 0 ? 0 : static_cast<uint32_t>(through);
}

}  // namespace

uint32_t scan_avx512(const Row& row, Run& run) {
  run.found = 0;
  uint32_t done = 0, groups, asked;
  do {
    asked = smaller(kGroups, (run.count - done + kLanes - 1) / kLanes);
    groups = run_groups(wattwork_avx512_plain, {&row, {}, nullptr, asked, nullptr, run.first + done, 0}, run, done,
                        run.count);
    done += groups * kLanes;
  } while (groups == asked && done < run.count);
  return smaller(done, run.count);
}

uint32_t roll_avx512(const Rows& rows, Run& run) {
  alignas(64) uint32_t sums[48 * kBatch];
  const uint32_t groups_each = rows.versions / kLanes;  // nonce
  run.found = 0;
  uint32_t done = 0, groups, asked;
  do {
    const uint32_t nonces = smaller(kBatch, run.count - done), first = run.first + done;
    key_schedule(rows.tail, first, nonces, sums);
    asked = nonces * groups_each;
    groups = run_groups(wattwork_avx512_rolled, {&rows, {}, nullptr, asked, sums, first, rows.versions}, run,
                        done * rows.versions, run.count * rows.versions);
    done += groups / groups_each;
  } while (groups == asked && done < run.count);
  while (run.found && run.candidates[run.found - 1] >= done * rows.versions) --run.found;  // of a nonce not done
  return done;
}

}  // namespace ww
