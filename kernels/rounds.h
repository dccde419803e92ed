// SHA-256d of headers that differ in their nonce, and perhaps in their version: the arithmetic of kernels/sha256d.cu.
//
// Source: FIPS 180-4; Bitcoin hashes its 80-byte header twice. Folded in: the midstate; the header's second block up to
// round 2 (Lane::start) and what round 3 adds to the nonce; zero and constant words of the schedule; the end of the
// second hash, of which only e after round 60 is needed: it is the hash's last word less a constant.
//
// An SM takes 64 lanes a cycle on its ALU pipe (logic, rotations, adds) and 64 on its FMA pipe (integer multiply-add).
// SHA-256 is nearly all ALU, so whatever can be is made a multiply-add, with a multiplier that the compiler cannot know
// (Powers): it would turn the rest back.
//   adds            a * 1 + b
//   right shifts    the upper half of a * 2^(32 - n)
//   some rotations  of a sum's term: acc + rotr(t, n) = t * 2^(32 - n) + acc, and the upper half of that product
// WW_SHIFT_ALU leaves right shifts to the ALU; WW_ROTATE_FMA says of how many big sigmas of 16 the last rotation goes
// to the FMA pipe. How fast that pipe gives upper halves decides, which bench/gpu.py measures. With 5, the plain
// kernel loses nothing if it gives them at half rate only: then both pipes are equally busy.
//
// Compiled as plain C++, the same arithmetic runs on the host, where the tests hold it against hashlib.
#pragma once

#include "search.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define WW_FN __device__ __forceinline__
#else
#define WW_FN static inline
#endif

#ifndef WW_ROTATE_FMA
#define WW_ROTATE_FMA 5
#endif

namespace ww::gpu {

WW_FN constexpr u32 rotr(u32 x, int n) { return x >> n | x << (32 - n); }

#if defined(__CUDA_ARCH__)
WW_FN u32 swap_bytes(u32 x) { return __byte_perm(x, 0, 0x0123); }
WW_FN u32 mad(u32 a, u32 b, u32 c) {
  u32 r;
  asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
WW_FN u32 upper(u32 a, u32 b) { return __umulhi(a, b); }
#else
WW_FN u32 swap_bytes(u32 x) { return __builtin_bswap32(x); }
WW_FN u32 mad(u32 a, u32 b, u32 c) { return a * b + c; }
WW_FN u32 upper(u32 a, u32 b) { return static_cast<u32>(u64{a} * b >> 32); }
#endif

// Powers of two, of which the compiler knows nothing.
struct Powers {
  u32 one, to22, to26, to29, to30;
};
WW_FN Powers powers_of(u32 one) { return {one, one << 22, one << 26, one << 29, one << 30}; }

WW_FN u32 add(const Powers& p, u32 a, u32 b) { return mad(a, p.one, b); }
WW_FN u32 shr(u32 x, int n, u32 power) {
#if defined(WW_SHIFT_ALU)
  return (void)power, x >> n;
#else
  return (void)n, upper(x, power);
#endif
}

WW_FN constexpr u32 ch(u32 e, u32 f, u32 g) { return (e & f) ^ (~e & g); }
WW_FN constexpr u32 maj(u32 a, u32 b, u32 c) { return (a & b) | (c & (a | b)); }
WW_FN constexpr u32 big0(u32 x) { return rotr(x, 2) ^ rotr(x, 13) ^ rotr(x, 22); }
WW_FN constexpr u32 big1(u32 x) { return rotr(x, 6) ^ rotr(x, 11) ^ rotr(x, 25); }
WW_FN u32 small0(const Powers& p, u32 x) { return rotr(x, 7) ^ rotr(x, 18) ^ shr(x, 3, p.to29); }
WW_FN u32 small1(const Powers& p, u32 x) { return rotr(x, 17) ^ rotr(x, 19) ^ shr(x, 10, p.to22); }
// The same, of what is computed once for all nonces or when compiled.
WW_FN constexpr u32 fixed_small0(u32 x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }
WW_FN constexpr u32 fixed_small1(u32 x) { return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10; }

// sum + the big sigma of a (e), on either pipe.
WW_FN u32 add_rotated(const Powers& p, u32 sum, u32 t, u32 power) {
  return add(p, upper(t, power), mad(t, power, sum));
}
WW_FN u32 add_big0(const Powers& p, u32 sum, u32 a, bool fma) {
  if (fma) return add_rotated(p, sum, a ^ rotr(a, 11) ^ rotr(a, 20), p.to30);
  return add(p, big0(a), sum);
}
WW_FN u32 add_big1(const Powers& p, u32 sum, u32 e, bool fma) {
  if (fma) return add_rotated(p, sum, e ^ rotr(e, 5) ^ rotr(e, 19), p.to26);
  return add(p, big1(e), sum);
}

// FIPS 180-4, 4.2.2. Called with numbers known when compiled: immediates.
WW_FN constexpr u32 k256(int r) {
  constexpr u32 k[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  return k[r];
}
WW_FN constexpr u32 init(int i) {
  constexpr u32 first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  return first[i];
}

constexpr u32 kPadOne = 0x80000000, kHeaderBits = 640, kHashBits = 256;
constexpr int kLastRound = 60;  // of the second hash

// Round r. s: a to h; x: h + K + W. Without `need_a` the new a is not made.
WW_FN void round(const Powers& p, u32 (&s)[8], u32 x, int r, bool need_a = true) {
  const bool fma0 = (2 * r + 1) * 7 % 16 < WW_ROTATE_FMA, fma1 = 2 * r * 7 % 16 < WW_ROTATE_FMA;  // spread evenly
  const u32 t1 = add_big1(p, add(p, ch(s[4], s[5], s[6]), x), s[4], fma1);
  const u32 a = need_a ? add_big0(p, add(p, maj(s[0], s[1], s[2]), t1), s[0], fma0) : 0;
  const u32 e = add(p, s[3], t1);
#pragma unroll
  for (int i = 7; i > 0; --i) s[i] = s[i - 1];
  s[4] = e;
  s[0] = a;
}

// Word r of the second hash's schedule, whose words 8 to 15 are fixed; 16 <= r.
WW_FN u32 second_word(const Powers& p, u32 (&w)[16], int r) {
  u32& x = w[r & 15];
  u32 fixed = 0;  // of the sum
  if (r == 17) fixed += fixed_small1(kHashBits);
  if (r == 22) fixed += kHashBits;
  if (r == 23) fixed += fixed_small0(kPadOne);
  if (r == 24) fixed += kPadOne;
  if (r == 30) fixed += fixed_small0(kHashBits);
  if (r == 31) fixed += kHashBits;
  u32 sum = x;                  // word r - 16
  bool any = r < 24 || r > 31;  // it is not fixed
  const auto plus = [&](u32 term) {
    sum = any ? add(p, term, sum) : term;
    any = true;
  };
  if (r < 23 || r > 30) plus(small0(p, w[(r - 15) & 15]));
  if (r > 22) plus(w[(r - 7) & 15]);
  if (r > 17) plus(small1(p, w[(r - 2) & 15]));
  if (fixed) plus(fixed);
  return x = sum;
}

// The first hash's schedule, as far as it does not depend on the nonce.
struct Tail {
  u32 word16, word17;  // themselves
  u32 word18, word19;  // less what the nonce adds
  u32 word31, word32;  // what words 16, 17 and the length add to them
  u32 keyed16, keyed17;  // with K
};
WW_FN Tail tail_of(const u32 (&w)[3]) {
  Tail t;
  t.word16 = fixed_small0(w[1]) + w[0];
  t.word17 = fixed_small1(kHeaderBits) + fixed_small0(w[2]) + w[1];
  t.word18 = fixed_small1(t.word16) + w[2];
  t.word19 = fixed_small1(t.word17) + fixed_small0(kPadOne);
  t.word31 = fixed_small0(t.word16) + kHeaderBits;
  t.word32 = fixed_small0(t.word17) + t.word16;
  t.keyed16 = t.word16 + k256(16);
  t.keyed17 = t.word17 + k256(17);
  return t;
}

// Word r >= 18 of the first hash's schedule. w: ring, of which words 16 and 17 are in place. nonce: byte-swapped.
WW_FN u32 first_word(const Powers& p, const Tail& t, u32 (&w)[16], u32 nonce, int r) {
  u32& x = w[r & 15];
  if (r == 18) return x = add(p, small0(p, nonce), t.word18);
  if (r == 19) return x = add(p, nonce, t.word19);
  const u32 near = small1(p, w[(r - 2) & 15]);
  if (r == 20) return x = add(p, near, kPadOne);
  if (r == 21) return x = near;
  if (r == 22) return x = add(p, near, kHeaderBits);
  const u32 sum = add(p, near, w[(r - 7) & 15]);
  if (r < 30) return x = sum;
  if (r == 30) return x = add(p, sum, fixed_small0(kHeaderBits));
  if (r == 31) return x = add(p, sum, t.word31);
  if (r == 32) return x = add(p, sum, t.word32);
  return x = add(p, add(p, small0(p, w[(r - 15) & 15]), x), sum);
}

// A version's state when round 3 has been made for a nonce of zero.
struct Begin {
  u32 a, b, c, d, e, f, g, h;
};
WW_FN Begin begin_of(const u32 (&s)[8]) {
  const u32 t1 = s[7] + big1(s[4]) + ch(s[4], s[5], s[6]) + k256(3);
  const u32 t2 = big0(s[0]) + maj(s[0], s[1], s[2]);
  return {t1 + t2, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
}

// The first hash's rounds 3 to 63, after which s + midstate is the hash. x(r, h) is h + K + word r, 16 <= r.
template <class X>
WW_FN void first_rounds(const Powers& p, u32 (&s)[8], const Begin& b, u32 nonce, X x) {
  const u32 begin[8] = {add(p, b.a, nonce), b.b, b.c, b.d, add(p, b.e, nonce), b.f, b.g, b.h};
#pragma unroll
  for (int i = 0; i < 8; ++i) s[i] = begin[i];
#pragma unroll
  for (int r = 4; r < 64; ++r) {
    const u32 fixed = k256(r) + (r == 4 ? kPadOne : r == 15 ? kHeaderBits : 0);
    round(p, s, r < 16 ? add(p, s[7], fixed) : x(r, s[7]), r);
  }
}

// The second hash of the first one, w[0] to w[7]: its last word, byte-swapped, which is the number's top.
WW_FN u32 second_hash(const Powers& p, u32 (&w)[16]) {
  w[8] = kPadOne;
#pragma unroll
  for (int i = 9; i < 15; ++i) w[i] = 0;
  w[15] = kHashBits;
  // Round 0, whose state is the initial one.
  constexpr u32 t1 = init(7) + big1(init(4)) + ch(init(4), init(5), init(6)) + k256(0);
  constexpr u32 t2 = big0(init(0)) + maj(init(0), init(1), init(2));
  u32 s[8] = {add(p, w[0], t1 + t2),      init(0), init(1), init(2),
              add(p, w[0], init(3) + t1), init(4), init(5), init(6)};
#pragma unroll
  for (int r = 1; r <= kLastRound; ++r) {
    u32 x;
    if (r < 4) x = add(p, w[r], k256(r) + init(7 - r));  // h is still the initial g, f, e
    else if (r < 8) x = add(p, add(p, w[r], k256(r)), s[7]);
    else if (r < 16) x = add(p, s[7], k256(r) + w[r]);
    else x = add(p, add(p, second_word(p, w, r), k256(r) + (r == kLastRound ? init(7) : 0)), s[7]);
    round(p, s, x, r, r <= kLastRound - 4);
  }
  return swap_bytes(s[4]);
}

// What all nonces of one version share.
struct Fixed {
  Tail tail;
  Begin begin;
  u32 midstate[8];
};
WW_FN Fixed fixed_of(const u32 (&tail)[3], const Lane& lane) {
  Fixed f{tail_of(tail), begin_of(lane.start), {}};
  for (int i = 0; i < 8; ++i) f.midstate[i] = lane.midstate[i];
  return f;
}

// K + words 16 to 63 of a first hash, which all versions share.
struct alignas(16) Quad {
  u32 x[4];
};
constexpr int kQuads = 12;
WW_FN void make_keyed(const Powers& p, const Tail& tail, u32 nonce, Quad* keyed) {
  u32 w[16];
  w[0] = tail.word16;
  w[1] = tail.word17;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    Quad quad;
#pragma unroll
    for (int r = 16 + 4 * q; r < 20 + 4 * q; ++r) {
      if (r == 16) quad.x[0] = tail.keyed16;
      else if (r == 17) quad.x[1] = tail.keyed17;
      else quad.x[r % 4] = add(p, first_word(p, tail, w, nonce, r), k256(r));
    }
    keyed[q] = quad;
  }
}

// The top 32 bits of the double hash, for a byte-swapped nonce. ask() reads whether to leave, and each compression's
// end looks at it (the compiler puts the read as far ahead as the answer takes); not 0 breaks the hash off: false, and
// no top.
template <class X, class Ask>
WW_FN bool hash_top(const Powers& p, const Begin& begin, const u32 (&midstate)[8], u32 nonce, X x, Ask ask, u32& top) {
  u32 s[8], w[16], leave = ask();
  first_rounds(p, s, begin, nonce, x);
  if (leave) return false;
  leave = ask();
#pragma unroll
  for (int i = 0; i < 8; ++i) w[i] = add(p, s[i], midstate[i]);
  top = second_hash(p, w);
  return !leave;
}
template <class Ask>
WW_FN bool top_plain(const Powers& p, const Fixed& f, u32 nonce, Ask ask, u32& top) {
  u32 w[16];
  w[0] = f.tail.word16;
  w[1] = f.tail.word17;
  const auto x = [&](int r, u32 h) {
    if (r < 18) return add(p, h, r == 16 ? f.tail.keyed16 : f.tail.keyed17);
    return add(p, add(p, first_word(p, f.tail, w, nonce, r), k256(r)), h);
  };
  return hash_top(p, f.begin, f.midstate, nonce, x, ask, top);
}
template <class Ask>
WW_FN bool top_rolled(const Powers& p, const Begin& begin, const u32 (&midstate)[8], const Quad* keyed, u32 nonce,
                      Ask ask, u32& top) {
  Quad quad{};
  const auto x = [&](int r, u32 h) {
    if (r % 4 == 0) quad = keyed[r / 4 - 4];
    return add(p, h, quad.x[r % 4]);
  };
  return hash_top(p, begin, midstate, nonce, x, ask, top);
}

}  // namespace ww::gpu
