// The double hash of Bitcoin's header over a lane type: the one source of all vector kernels.
//
// Included inside an anonymous namespace by one file per instruction set, which has defined before:
//   V                    a vector of uint32_t (vector_size attribute), kLanes of them
//   kPlainGroups, kRolledGroups  how many vectors are worked on side by side, to hide the latency of one dependent
//                        stream: where lanes hold nonces, and where they hold versions
//   kBatch               nonces whose schedules are computed at a time where lanes hold versions
//   rotr<N>(V), xor3(V, V, V), ch(V, V, V), maj(V, V, V), swap_bytes(V), at_most(V, uint32_t) -> a bit for each lane
// Everything is internal and always inlined but for what both blocks share: that stands once (WW_ONCE), so that the
// code of a pass stays below 19 kB. Beyond some 20 kB processors fall out of their caches of decoded instructions.
//
// Folded in: the midstate; block 1's rounds 0..3 (Row); zero and constant words of both schedules; the end of the
// second hash, of which only e after round 60 is needed: it is the last word of the hash less a constant.
//
// Plain: lanes hold nonces of one version. Rolled: lanes hold versions, all with one nonce; then block 1's message
// schedule is the same for all lanes. It is computed beforehand, its lanes holding nonces, and added by broadcast.

#define WW_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define WW_ONCE __attribute__((noinline))
#else
#define WW_ONCE __attribute__((noinline, noclone))
#endif

WW_INLINE V splat(uint32_t x) { return V{} + x; }
template <int N> WW_INLINE V shr(V x) { return x >> N; }
WW_INLINE V big0(V x) { return xor3(rotr<2>(x), rotr<13>(x), rotr<22>(x)); }
WW_INLINE V big1(V x) { return xor3(rotr<6>(x), rotr<11>(x), rotr<25>(x)); }
WW_INLINE V small0(V x) { return xor3(rotr<7>(x), rotr<18>(x), shr<3>(x)); }
WW_INLINE V small1(V x) { return xor3(rotr<17>(x), rotr<19>(x), shr<10>(x)); }

WW_INLINE V load(const uint32_t* p) {
  V x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
WW_INLINE void store(uint32_t* p, V x) { __builtin_memcpy(p, &x, sizeof x); }

constexpr uint32_t rotr1(uint32_t x, int n) { return x >> n | x << (32 - n); }
constexpr uint32_t small0(uint32_t x) { return rotr1(x, 7) ^ rotr1(x, 18) ^ x >> 3; }
constexpr uint32_t small1(uint32_t x) { return rotr1(x, 17) ^ rotr1(x, 19) ^ x >> 10; }

// How many rounds ahead of its use a schedule word is computed.
constexpr int kLead = 2;

// Round 0 of the second hash on the constant initial state: what W0 is added to.
constexpr uint32_t first_t1() {
  const uint32_t e = kSha256Init[4];
  return kSha256Init[7] + (rotr1(e, 6) ^ rotr1(e, 11) ^ rotr1(e, 25)) +
         ((e & kSha256Init[5]) ^ (~e & kSha256Init[6])) + kSha256Round[0];
}
constexpr uint32_t first_t2() {
  const uint32_t a = kSha256Init[0], b = kSha256Init[1], c = kSha256Init[2];
  return (rotr1(a, 2) ^ rotr1(a, 13) ^ rotr1(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
}

// K + W of rounds 8 ... 15, where the words are padding.
struct Padding { uint32_t sum[8]; };
constexpr Padding padding(uint32_t word8, uint32_t word15) {
  Padding p{};
  for (int i = 0; i < 8; ++i) p.sum[i] = kSha256Round[8 + i];
  p.sum[0] += word8;
  p.sum[7] += word15;
  return p;
}
constexpr Padding kHeaderPadding = padding(0, kHeaderBits), kHashPadding = padding(kPadOne, kHashBits);

// The double hash of kGroups vectors side by side.
template <int kGroups> struct Wide {
  struct State { V v[kGroups][8]; };
  struct Schedule { V w[64][kGroups]; };  // word by word, the groups side by side

  // Variable `name` (a = 0 ... h = 7) before round R: the registers stand still, the names move.
  template <int R> static WW_INLINE V& var(State& s, int g, int name) { return s.v[g][(name - R) & 7]; }

  // Round R, given sum = h + K + W.
  template <int R> static WW_INLINE void round(State& s, int g, V sum) {
    V &a = var<R>(s, g, 0), &b = var<R>(s, g, 1), &c = var<R>(s, g, 2), &d = var<R>(s, g, 3);
    V &e = var<R>(s, g, 4), &f = var<R>(s, g, 5), &gg = var<R>(s, g, 6), &h = var<R>(s, g, 7);
    const V t1 = sum + ch(e, f, gg) + big1(e);
    d = d + t1;
    h = (big0(a) + maj(a, b, c)) + t1;
  }

  // One group after the other does f; with kGroups a constant this unrolls to straight code.
  template <int G = 0, class F> static WW_INLINE void each_group(F f) {
    if constexpr (G < kGroups) {
      f(G);
      each_group<G + 1>(f);
    }
  }

  // The message schedule's recurrence (FIPS 180-4, 6.2.2 step 1).
  static WW_INLINE void word(V (*w)[kGroups], int i) {
    each_group([&](int g) __attribute__((always_inline)) {
      w[i][g] = (small1(w[i - 2][g]) + w[i - 7][g]) + (small0(w[i - 15][g]) + w[i - 16][g]);
    });
  }

  // h + K, to which most rounds add their word.
  template <int R> static WW_INLINE V keyed(State& s, int g, uint32_t k) { return var<R>(s, g, 7) + splat(k); }

  // Words 24 ... 31 of either block, whose recurrence lacks what is zero: words 9 ... 14 are. Word 31 holds its constant
  // part already; k24 and k30 are the others'.
  template <int I> static WW_INLINE void late_word(V (*w)[kGroups], uint32_t k24, uint32_t k30) {
    each_group([&](int g) __attribute__((always_inline)) {
      const V sum = small1(w[I - 2][g]) + w[I - 7][g];
      if constexpr (I == 24) w[I][g] = sum + splat(k24);
      else if constexpr (I == 30) w[I][g] = sum + splat(k30);
      else if constexpr (I == 31) w[I][g] += sum;
      else w[I][g] = sum;
    });
  }

  template <int I> static WW_INLINE void late_words(V (*w)[kGroups], uint32_t k24, uint32_t k30) {
    if constexpr (I < 32) {
      late_word<I>(w, k24, k30);
      late_words<I + 1>(w, k24, k30);
    }
  }

  // Round J of eight; with the word that round J + kLead will want, or with words that are there already.
  template <int J, bool kSchedule> static WW_INLINE void eight(State& s, V (*w)[kGroups], const uint32_t* k) {
    if constexpr (J < 8) {
      if constexpr (kSchedule && J + kLead < 8) word(w, J + kLead);
      each_group([&](int g) __attribute__((always_inline)) { round<J>(s, g, keyed<J>(s, g, k[J]) + w[J][g]); });
      eight<J + 1, kSchedule>(s, w, k);
    }
  }

  // Round J of eight whose K + W is one number for all lanes, in rows kColumns apart, a column for each group.
  template <int J, int kColumns> static WW_INLINE void eight_keyed(State& s, const uint32_t* sum) {
    if constexpr (J < 8) {
      each_group([&](int g) __attribute__((always_inline)) {
        round<J>(s, g, keyed<J>(s, g, sum[J * kColumns + (kColumns > 1 ? g : 0)]));
      });
      eight_keyed<J + 1, kColumns>(s, sum);
    }
  }

  // So many rounds of that kind, a multiple of 8, from a round that is a multiple of 8.
  template <int kColumns> static WW_ONCE void keyed_rounds(State& state, const uint32_t* sum, int rounds) {
    State s = state;
    for (int r = 0; r < rounds; r += 8) eight_keyed<0, kColumns>(s, sum + r * kColumns);
    state = s;
  }

  // Rounds 16 ... last - 1 (a multiple of 8) of either block, given words 16 ... 23, with the schedule from word 24 on.
  static WW_ONCE void rounds_from_16(State& state, Schedule& m, uint32_t k24, uint32_t k30, int last) {
    static_assert(kLead == 2, "two words start the pipeline of each eight rounds");
    late_words<24>(m.w, k24, k30);
    State s = state;
    for (int r = 16; r < 32; r += 8) eight<0, false>(s, m.w + r, kSha256Round + r);
    for (int r = 32; r < last; r += 8) {
      for (int i = 0; i < kLead; ++i) word(m.w + r, i);
      eight<0, true>(s, m.w + r, kSha256Round + r);
    }
    state = s;
  }

  // Words 16 ... 23 of block 1, where most of what the recurrence adds is zero or constant.
  template <int I> static WW_INLINE void words1(const Tail& tail, V (*w)[kGroups], const V (&nonce)[kGroups]) {
    if constexpr (I < 24) {
      each_group([&](int g) __attribute__((always_inline)) {
        if constexpr (I == 16) w[I][g] = splat(tail.word16);
        else if constexpr (I == 17) w[I][g] = splat(tail.word17);
        else if constexpr (I == 18) w[I][g] = splat(tail.word18) + small0(nonce[g]);
        else if constexpr (I == 19) w[I][g] = splat(tail.word19) + nonce[g];
        else if constexpr (I == 20) w[I][g] = small1(w[18][g]) + splat(kPadOne);
        else if constexpr (I == 21) w[I][g] = small1(w[19][g]);
        else if constexpr (I == 22) w[I][g] = small1(w[20][g]) + splat(kHeaderBits);
        else w[I][g] = small1(w[21][g]) + splat(tail.word16);
      });
      words1<I + 1>(tail, w, nonce);
    }
  }

  // Rounds 4 ... 7 of block 1: start(i) and sum(i) are a Row's or the Rows' of that name.
  template <class Start, class Sum>
  static WW_INLINE void head1(State& s, const V (&nonce)[kGroups], Start start, Sum sum) {
    each_group([&](int g) __attribute__((always_inline)) {
      for (int i = 0; i < 8; ++i) var<4>(s, g, i) = start(i);
      var<4>(s, g, 0) += nonce[g];
      var<4>(s, g, 4) += nonce[g];
    });
    each_group([&](int g) __attribute__((always_inline)) { round<4>(s, g, sum(0)); });
    each_group([&](int g) __attribute__((always_inline)) { round<5>(s, g, sum(1)); });
    each_group([&](int g) __attribute__((always_inline)) { round<6>(s, g, sum(2)); });
    each_group([&](int g) __attribute__((always_inline)) { round<7>(s, g, keyed<7>(s, g, kSha256Round[7])); });
  }

  // Plain: block 1 from round 4 on; leaves the first hash in words 0..7 of the schedule.
  static WW_INLINE void block1(const Row& row, State& s, Schedule& m, const V (&nonce)[kGroups]) {
    head1(s, nonce, [&](int i) __attribute__((always_inline)) { return splat(row.start[i]); },
          [&](int i) __attribute__((always_inline)) { return splat(row.start_sum[i]); });
    words1<16>(row.tail, m.w, nonce);
    each_group([&](int g) __attribute__((always_inline)) { m.w[31][g] = splat(row.tail.word31); });
    keyed_rounds<1>(s, kHeaderPadding.sum, 8);
    rounds_from_16(s, m, 0, small0(kHeaderBits), 64);
    each_group([&](int g) __attribute__((always_inline)) {
      for (int i = 0; i < 8; ++i) m.w[i][g] = s.v[g][i] + splat(row.midstate[i]);
    });
  }

  // Rolled: the same for the versions from `lane` on, with K + W at `sum`, in rows kBatch apart, a column for each group.
  static WW_INLINE void block1(const Rows& rows, uint32_t lane, State& s, Schedule& m, const V (&nonce)[kGroups],
                               const uint32_t* sum) {
    head1(s, nonce, [&](int i) __attribute__((always_inline)) { return load(rows.start[i] + lane); },
          [&](int i) __attribute__((always_inline)) { return load(rows.start_sum[i] + lane); });
    keyed_rounds<kBatch>(s, sum + 8 * kBatch, 56);
    each_group([&](int g) __attribute__((always_inline)) {
      for (int i = 0; i < 8; ++i) m.w[i][g] = s.v[g][i] + load(rows.midstate[i] + lane);
    });
  }

  // K + W of block 1's rounds 16 ... 63 for the nonces in the lanes, each round in a row of kBatch.
  static WW_ONCE void key_schedule(const Tail& tail, const V (&nonce)[kGroups], uint32_t* sum) {
    Schedule m;
    words1<16>(tail, m.w, nonce);
    each_group([&](int g) __attribute__((always_inline)) { m.w[31][g] = splat(tail.word31); });
    late_words<24>(m.w, 0, small0(kHeaderBits));
    for (int i = 32; i < 64; ++i) word(m.w, i);
    for (int i = 16; i < 64; ++i)
      each_group([&](int g) __attribute__((always_inline)) {
        store(sum + i * kBatch + g * kLanes, m.w[i][g] + splat(kSha256Round[i]));
      });
  }

  // Words 16 ... 23 of the second hash: words 0..7 are the first hash, the rest padding.
  template <int I> static WW_INLINE void words2(V (*w)[kGroups]) {
    if constexpr (I < 24) {
      each_group([&](int g) __attribute__((always_inline)) {
        if constexpr (I == 16) w[I][g] = small0(w[1][g]) + w[0][g];
        else if constexpr (I == 17) w[I][g] = splat(small1(kHashBits)) + small0(w[2][g]) + w[1][g];
        else if constexpr (I < 22) w[I][g] = small1(w[I - 2][g]) + (small0(w[I - 15][g]) + w[I - 16][g]);
        else if constexpr (I == 22) w[I][g] = small1(w[20][g]) + splat(kHashBits) + (small0(w[7][g]) + w[6][g]);
        else w[I][g] = small1(w[21][g]) + w[16][g] + (w[7][g] + splat(small0(kPadOne)));
      });
      words2<I + 1>(w);
    }
  }

  template <int R> static WW_INLINE void early2(State& s, V (*w)[kGroups]) {
    if constexpr (R < 8) {
      each_group([&](int g) __attribute__((always_inline)) {
        // h is still a word of the initial state in rounds 1..3.
        if constexpr (R < 4) round<R>(s, g, splat(kSha256Round[R] + kSha256Init[7 - R]) + w[R][g]);
        else round<R>(s, g, keyed<R>(s, g, kSha256Round[R]) + w[R][g]);
      });
      early2<R + 1>(s, w);
    }
  }

  // Rounds 57 ... 60, of which only e is wanted.
  template <int R> static WW_INLINE void last_rounds(State& s, V (*w)[kGroups]) {
    if constexpr (R < 61) {
      word(w, R);
      each_group([&](int g) __attribute__((always_inline)) {
        const V e = var<R>(s, g, 4), sum = keyed<R>(s, g, kSha256Round[R]) + w[R][g];
        var<R>(s, g, 3) += sum + ch(e, var<R>(s, g, 5), var<R>(s, g, 6)) + big1(e);
      });
      last_rounds<R + 1>(s, w);
    }
  }

  // The second hash, of the first one in words 0..7; leaves e after round 60. K + W of rounds 8 ... 15 is at `padding`.
  template <int kColumns> static WW_INLINE void block2(State& s, Schedule& m, const uint32_t* padding) {
    each_group([&](int g) __attribute__((always_inline)) {
      for (int i = 0; i < 7; ++i) var<1>(s, g, i + 1) = splat(kSha256Init[i]);
      var<1>(s, g, 0) = m.w[0][g] + splat(first_t1() + first_t2());
      var<1>(s, g, 4) = m.w[0][g] + splat(first_t1() + kSha256Init[3]);
    });
    early2<1>(s, m.w);
    words2<16>(m.w);
    each_group([&](int g) __attribute__((always_inline)) { m.w[31][g] = small0(m.w[16][g]) + splat(kHashBits); });
    keyed_rounds<kColumns>(s, padding, 8);
    rounds_from_16(s, m, kPadOne, small0(kHashBits), 56);
    word(m.w, 56);
    each_group([&](int g) __attribute__((always_inline)) {
      round<56>(s, g, keyed<56>(s, g, kSha256Round[56]) + m.w[56][g]);
    });
    last_rounds<57>(s, m.w);
  }

  // Which hashes' top 32 bits are at most the target's: a bit for each lane, one group after the other.
  static WW_INLINE uint64_t below(const State& s, uint32_t target_top) {
    uint64_t bits = 0;
    each_group([&](int g) __attribute__((always_inline)) {
      const V hash7 = s.v[g][(4 - 61) & 7] + splat(kSha256Init[7]);
      bits |= static_cast<uint64_t>(at_most(swap_bytes(hash7), target_top)) << (g * kLanes);
    });
    return bits;
  }
};

WW_INLINE V lane_numbers() {
  V lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<uint32_t>(i);
  return lane;
}

WW_INLINE uint32_t scan_lanes(const Row& row, Run& run) {
  using W = Wide<kPlainGroups>;
  constexpr uint32_t kPass = kLanes * kPlainGroups;
  typename W::Schedule m;
  typename W::State s;
  const V lane = lane_numbers();
  V nonce[kPlainGroups];
  run.found = 0;
  uint32_t done = 0;
  for (; done < run.count && run.found <= kRoom - kPass && !ended(run); done += kPass) {
    W::each_group([&](int g) __attribute__((always_inline)) {
      nonce[g] = swap_bytes(lane + (run.first + done + static_cast<uint32_t>(g * kLanes)));
    });
    W::block1(row, s, m, nonce);
    W::template block2<1>(s, m, kHashPadding.sum);
    uint64_t below = W::below(s, row.tail.target_top);
    for (; __builtin_expect(below != 0, 0); below &= below - 1) {
      const uint32_t offset = done + static_cast<uint32_t>(__builtin_ctzll(below));
      if (offset < run.count) run.candidates[run.found++] = offset;
    }
  }
  return done < run.count ? done : run.count;
}

// One nonce a group, all the rows' versions, kLanes at a time: nonces first + n ... with K + W at `sum`.
WW_INLINE void roll_column(const Rows& rows, Run& run, uint32_t n, const uint32_t* sum) {
  using W = Wide<kRolledGroups>;
  typename W::Schedule m;
  typename W::State s;
  V nonce[kRolledGroups];
  W::each_group([&](int g) __attribute__((always_inline)) {
    nonce[g] = splat(__builtin_bswap32(run.first + n + static_cast<uint32_t>(g)));
  });
  for (uint32_t lane = 0; lane < rows.versions; lane += kLanes) {
    W::block1(rows, lane, s, m, nonce, sum);
    W::template block2<kBatch>(s, m, sum + 64 * kBatch);
    uint64_t below = W::below(s, rows.tail.target_top);
    for (; __builtin_expect(below != 0, 0); below &= below - 1) {
      const uint32_t bit = static_cast<uint32_t>(__builtin_ctzll(below)), offset = n + bit / kLanes;
      if (offset < run.count) run.candidates[run.found++] = offset * rows.versions + lane + bit % kLanes;
    }
  }
}

WW_INLINE uint32_t roll_lanes(const Rows& rows, Run& run) {
  alignas(64) uint32_t sum[(64 + 8) * kBatch];  // block 1's rounds (from 8 on), then block 2's rounds 8 ... 15
  for (int i = 0; i < 8 * kBatch; ++i) {
    sum[8 * kBatch + i] = kHeaderPadding.sum[i / kBatch];
    sum[64 * kBatch + i] = kHashPadding.sum[i / kBatch];
  }
  const V lane = lane_numbers();
  V nonce[kRolledGroups];
  run.found = 0;
  uint32_t done = 0;
  for (; done < run.count && run.found <= kRoom - kRolledGroups * rows.versions && !ended(run); done += kRolledGroups) {
    if (done % kBatch == 0) {
      Wide<kRolledGroups>::each_group([&](int g) __attribute__((always_inline)) {
        nonce[g] = swap_bytes(lane + (run.first + done + static_cast<uint32_t>(g * kLanes)));
      });
      Wide<kRolledGroups>::key_schedule(rows.tail, nonce, sum);
    }
    roll_column(rows, run, done, sum + done % kBatch);
  }
  return done < run.count ? done : run.count;
}
