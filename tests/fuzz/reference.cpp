#include "reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace reference {
namespace {

// FIPS 180-4: the first 32 bits of the fractional parts of the primes' square roots (8) and cube roots (64).
struct Constants {
  uint32_t start[8], round[64];
  Constants() {
    std::vector<int> primes;
    for (int p = 2; primes.size() < 64; ++p)
      if (std::none_of(primes.begin(), primes.end(), [p](int q) { return p % q == 0; })) primes.push_back(p);
    const auto fraction = [](double x) { return static_cast<uint32_t>((x - std::floor(x)) * 0x1p32); };
    for (size_t i = 0; i < 64; ++i) round[i] = fraction(std::cbrt(primes[i]));
    for (size_t i = 0; i < 8; ++i) start[i] = fraction(std::sqrt(primes[i]));
  }
};
const Constants kConstants;

uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

void compress(uint32_t state[8], const uint8_t block[64]) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; ++i)
    w[i] = uint32_t{block[4 * i]} << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; ++i)
    w[i] = w[i - 16] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
  std::memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; ++i) {
    const uint32_t t1 = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                        kConstants.round[i] + w[i];
    const uint32_t t2 =
        (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    std::memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; ++i) state[i] += s[i];
}

Hash sha256(const uint8_t* message, size_t size) {
  uint8_t padded[128] = {};
  const size_t end = size < 56 ? 64 : 128;
  std::memcpy(padded, message, size);
  padded[size] = 0x80;
  padded[end - 2] = static_cast<uint8_t>(size * 8 >> 8);
  padded[end - 1] = static_cast<uint8_t>(size * 8);
  uint32_t state[8];
  std::copy_n(kConstants.start, 8, state);
  for (size_t at = 0; at < end; at += 64) compress(state, padded + at);
  Hash hash;
  for (size_t i = 0; i < 32; ++i) hash[i] = static_cast<uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
  return hash;
}

uint32_t load(const uint8_t* p) { return uint32_t{p[0]} | p[1] << 8 | p[2] << 16 | uint32_t{p[3]} << 24; }

void store(uint8_t* p, uint32_t x) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(x >> 8 * i);
}

}  // namespace

Hash sha256d(const uint8_t header[80], uint32_t version, uint32_t nonce) {
  uint8_t bytes[80];
  std::memcpy(bytes, header, 80);
  store(bytes, version);
  store(bytes + 76, nonce);
  const Hash once = sha256(bytes, 80);
  return sha256(once.data(), once.size());
}

bool at_most(const uint8_t hash[32], const uint8_t target[32]) {
  for (int i = 31; i >= 0; --i)
    if (hash[i] != target[i]) return hash[i] < target[i];
  return true;
}

uint64_t version_count(uint32_t mask) {
  uint64_t n = 1;
  for (int bit = 0; bit < 32; ++bit) n <<= mask >> bit & 1;
  return n;
}

// Bit k of the number turns the mask's k-th bit of the header's own version.
uint32_t version_at(const uint8_t header[80], uint32_t mask, uint64_t number) {
  uint32_t version = load(header);
  for (int bit = 0, k = 0; bit < 32; ++bit)
    if (mask >> bit & 1) version ^= static_cast<uint32_t>(number >> k++ & 1) << bit;
  return version;
}

bool number_of(const uint8_t header[80], uint32_t mask, uint32_t version, uint64_t& number) {
  const uint32_t turned = version ^ load(header);
  number = 0;
  for (int bit = 0, k = 0; bit < 32; ++bit)
    if (mask >> bit & 1) number |= uint64_t{turned >> bit & 1} << k++;
  return (turned & ~mask) == 0;
}

// mantissa * 256^(exponent - 3), in a number wide enough for any exponent.
bool target_of(const uint8_t header[80], uint8_t target[32]) {
  const uint8_t* bits = header + 72;
  uint8_t wide[3 + 256] = {};
  for (int i = 0; i < 3; ++i) wide[bits[3] + i] = i == 2 ? bits[i] & 0x7f : bits[i];
  std::copy_n(wide + 3, 32, target);
  const auto nonzero = [](uint8_t b) { return b != 0; };
  return !(bits[2] & 0x80) && std::any_of(target, target + 32, nonzero) &&
         std::none_of(wide + 35, wide + sizeof wide, nonzero);
}

}  // namespace reference
