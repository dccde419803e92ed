#include "sha256d/sha256.h"

#include <bit>

#include "sha256d/constants.h"

namespace ww {
namespace {

uint32_t load_be(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

void store_be(uint8_t* p, uint32_t x) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(x >> (24 - 8 * i));
}

}  // namespace

void sha256_compress(uint32_t* state, const uint32_t* words) {
  uint32_t w[64];
  for (int i = 0; i < 16; ++i) w[i] = words[i];
  for (int i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
  for (int i = 0; i < 64; ++i) {
    const uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                        kSha256Round[i] + w[i];
    const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const uint32_t after[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state[i] += after[i];
}

void sha256d(const uint8_t* header80, uint8_t* hash32) {
  uint32_t first[8], second[8], block[16];
  for (int i = 0; i < 8; ++i) first[i] = second[i] = kSha256Init[i];
  for (int i = 0; i < 16; ++i) block[i] = load_be(header80 + 4 * i);
  sha256_compress(first, block);
  for (int i = 0; i < 16; ++i) block[i] = i < 4 ? load_be(header80 + 64 + 4 * i) : 0;
  block[4] = kPadOne;
  block[15] = kHeaderBits;
  sha256_compress(first, block);
  for (int i = 0; i < 16; ++i) block[i] = i < 8 ? first[i] : 0;
  block[8] = kPadOne;
  block[15] = kHashBits;
  sha256_compress(second, block);
  for (int i = 0; i < 8; ++i) store_be(hash32 + 4 * i, second[i]);
}

bool meets_target(const uint8_t* hash32, const uint8_t* target32) {
  for (int i = 31; i >= 0; --i)
    if (hash32[i] != target32[i]) return hash32[i] < target32[i];
  return true;
}

}  // namespace ww
