// SHA-256d nonce search on a GPU: the plain scan, one header version, one nonce a thread at a time.
//
// Source: FIPS 180-4; Bitcoin's header is hashed twice. Folded in, by hand or by the compiler: the midstate, rounds 0
// to 2 of the header's second block (Row), zero and constant schedule words, and the end of the second hash, of which
// only e after round 60 is needed (it is the hash's last word less a constant).
// Rate: see bench/results; `python bench/gpu.py` builds and measures this file.
//
// Nothing is included, so NVRTC can build it as it stands. Compiled as plain C++ (g++ -x c++), the same arithmetic
// runs on the host, where the tests hold it against hashlib.
//
// WW_FMA_ADDS: additions of two numbers go to the FMA pipe, as a multiply-add with a one that the compiler cannot
// know: the ALU pipe alone is the limit otherwise.

typedef unsigned int u32;

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FN __device__ __forceinline__
FN u32 rotr(u32 x, int n) { return __funnelshift_r(x, x, n); }
FN u32 swap_bytes(u32 x) { return __byte_perm(x, 0, 0x0123); }
#else
#define FN static inline
FN u32 rotr(u32 x, int n) { return x >> n | x << (32 - n); }
FN u32 swap_bytes(u32 x) { return __builtin_bswap32(x); }
#endif

#if defined(WW_FMA_ADDS) && defined(__CUDA_ARCH__)
FN u32 add(u32 a, u32 b, u32 one) {
  u32 sum;
  asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(one), "r"(b));
  return sum;
}
#else
FN u32 add(u32 a, u32 b, u32) { return a + b; }
#endif

// What all nonces of a search share: made on the host (bench/gpu.py, `Row`).
struct Row {
  u32 midstate[8];  // after the header's first 64 bytes
  u32 start[8];     // the second block after round 2
  u32 tail[3];      // the second block's words 0 to 2: the merkle root's end, time, bits
  u32 target_top;   // the target's most significant 32 bits
};

FN u32 big0(u32 x) { return rotr(x, 2) ^ rotr(x, 13) ^ rotr(x, 22); }
FN u32 big1(u32 x) { return rotr(x, 6) ^ rotr(x, 11) ^ rotr(x, 25); }
FN u32 small0(u32 x) { return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3; }
FN u32 small1(u32 x) { return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10; }
FN u32 ch(u32 e, u32 f, u32 g) { return (e & f) ^ (~e & g); }
FN u32 maj(u32 a, u32 b, u32 c) { return (a & b) | (c & (a | b)); }

// Rounds `from` to `last`. s = {a ... h}; w is the schedule's ring of 16 words.
// K is a local table with constant indices throughout: it becomes immediates.
FN void rounds(u32 (&s)[8], u32 (&w)[16], int from, int last, u32 one) {
  const u32 k[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#pragma unroll
  for (int r = 0; r < 64; ++r) {
    if (r < from || r > last) continue;
    if (r >= 16) {
      const u32 near = add(small1(w[(r - 2) & 15]), w[(r - 7) & 15], one);
      w[r & 15] = add(near, add(small0(w[(r - 15) & 15]), w[r & 15], one), one);
    }
    const u32 keyed = add(s[7], add(w[r & 15], k[r], one), one);
    const u32 t1 = add(keyed, add(ch(s[4], s[5], s[6]), big1(s[4]), one), one);
    const u32 t2 = add(big0(s[0]), maj(s[0], s[1], s[2]), one);
#pragma unroll
    for (int i = 7; i > 0; --i) s[i] = s[i - 1];
    s[4] = add(s[4], t1, one);
    s[0] = add(t1, t2, one);
  }
}

// Whether the double hash's top 32 bits are at most the target's: a candidate, for the CPU to decide.
FN bool is_candidate(const Row& row, u32 nonce, u32 one) {
  const u32 init[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  u32 s[8], w[16];
#pragma unroll
  for (int i = 0; i < 8; ++i) s[i] = row.start[i];
#pragma unroll
  for (int i = 0; i < 16; ++i) w[i] = i < 3 ? row.tail[i] : 0;
  w[3] = swap_bytes(nonce);  // the header is little-endian, SHA-256 big-endian
  w[4] = 0x80000000;
  w[15] = 640;
  rounds(s, w, 3, 63, one);
#pragma unroll
  for (int i = 0; i < 16; ++i) w[i] = i < 8 ? row.midstate[i] + s[i] : 0;
  w[8] = 0x80000000;
  w[15] = 256;
#pragma unroll
  for (int i = 0; i < 8; ++i) s[i] = init[i];
  rounds(s, w, 0, 60, one);
  return swap_bytes(init[7] + s[4]) <= row.target_top;
}

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
// Tests the nonces first + t, first + t + threads, ... (t: the thread's number) below first + count. found[0] counts
// all candidates, also those that the `capacity` places after it are too few for: an overflow shows.
extern "C" __global__ void scan_plain(Row row, u32 first, u32 count, u32 one, u32 capacity, u32* found) {
  const u32 threads = gridDim.x * blockDim.x;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {
    if (is_candidate(row, first + i, one)) {
      const u32 place = atomicAdd(found, 1u);
      if (place < capacity) found[1 + place] = first + i;
    }
    if (i + threads < i) break;  // past 2^32
  }
}
#else
extern "C" u32 scan_plain_host(const Row* row, u32 first, u32 count, u32 capacity, u32* found) {
  u32 n = 0;
  for (u32 i = 0; i < count; ++i)
    if (is_candidate(*row, first + i, 1)) {
      if (n < capacity) found[n] = first + i;
      ++n;
    }
  return n;
}
#endif
