#include "sha256d/row.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "sha256d/constants.h"
#include "sha256d/sha256.h"

namespace ww {
namespace {

uint32_t load_le(const uint8_t* p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

void store_le(uint8_t* p, uint32_t x) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(x >> (8 * i));
}

uint32_t load_be(const uint8_t* p) { return __builtin_bswap32(load_le(p)); }

uint32_t extract(uint32_t x, uint32_t mask) {
  uint32_t out = 0;
  for (int n = 0; mask; mask &= mask - 1, ++n) out |= (x >> std::countr_zero(mask) & 1) << n;
  return out;
}

uint32_t deposit(uint32_t x, uint32_t mask) {
  uint32_t out = 0;
  for (int n = 0; mask; mask &= mask - 1, ++n) out |= (x >> n & 1) << std::countr_zero(mask);
  return out;
}

uint32_t small0(uint32_t x) { return std::rotr(x, 7) ^ std::rotr(x, 18) ^ x >> 3; }
uint32_t small1(uint32_t x) { return std::rotr(x, 17) ^ std::rotr(x, 19) ^ x >> 10; }

void round(uint32_t* s, uint32_t kw) {
  const uint32_t a = s[0], e = s[4];
  const uint32_t t1 = s[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + kw;
  const uint32_t t2 =
      (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
  std::copy_backward(s, s + 7, s + 8);
  s[4] += t1;
  s[0] = t1 + t2;
}

}  // namespace

uint32_t version_at(const ww_work& work, uint64_t number) {
  const uint32_t own = load_le(work.header), mask = work.version_mask;
  return (own & ~mask) | deposit(static_cast<uint32_t>(number) ^ extract(own, mask), mask);
}

void header_with(const ww_work& work, uint32_t version, uint32_t nonce, uint8_t* header80) {
  std::memcpy(header80, work.header, 80);
  store_le(header80, version);
  store_le(header80 + 76, nonce);
}

uint32_t header_time(const ww_work& work) { return load_le(work.header + 68); }
void set_header_time(ww_work& work, uint32_t time_s) { store_le(work.header + 68, time_s); }
uint32_t header_bits(const ww_work& work) { return load_le(work.header + 72); }

// Bitcoin Core's arith_uint256::SetCompact: a sign, three bytes, and how many bytes the number has in all.
bool target_from_bits(uint32_t bits, uint8_t* target32) {
  std::memset(target32, 0, 32);
  const int size = static_cast<int>(bits >> 24);
  for (int i = 0; i < 3; ++i) {
    const auto byte = static_cast<uint8_t>((bits & 0x7fffff) >> (8 * i));
    const int place = size - 3 + i;
    if (byte == 0 || place < 0) continue;
    if (place >= 32) return false;
    target32[place] = byte;
  }
  const bool negative = bits & 0x800000;
  return !negative && std::any_of(target32, target32 + 32, [](uint8_t b) { return b != 0; });
}

Row make_row(const ww_work& work, uint32_t version) {
  uint8_t header[80];
  header_with(work, version, 0, header);
  uint32_t first[16], w[3];
  for (int i = 0; i < 16; ++i) first[i] = load_be(header + 4 * i);
  for (int i = 0; i < 3; ++i) w[i] = load_be(header + 64 + 4 * i);
  Row row{};
  std::copy_n(kSha256Init, 8, row.midstate);
  sha256_compress(row.midstate, first);
  std::copy_n(row.midstate, 8, row.start);
  for (int r = 0; r < 4; ++r) round(row.start, kSha256Round[r] + (r < 3 ? w[r] : 0));
  for (int r = 4; r < 7; ++r) row.start_sum[r - 4] = row.start[11 - r] + kSha256Round[r] + (r == 4 ? kPadOne : 0);
  row.tail.word16 = small0(w[1]) + w[0];
  row.tail.word17 = small1(kHeaderBits) + small0(w[2]) + w[1];
  row.tail.word18 = small1(row.tail.word16) + w[2];
  row.tail.word19 = small1(row.tail.word17) + small0(kPadOne);
  row.tail.word31 = small0(row.tail.word16) + kHeaderBits;
  row.tail.word32 = small0(row.tail.word17) + row.tail.word16;
  row.tail.target_top = load_le(work.target + 28);
  return row;
}

Rows make_rows(const ww_work& work, uint64_t number, uint32_t versions) {
  Rows rows{};
  rows.versions = versions;
  for (uint32_t lane = 0; lane < versions; ++lane) {
    const Row row = make_row(work, version_at(work, number + lane));
    for (int i = 0; i < 8; ++i) rows.midstate[i][lane] = row.midstate[i], rows.start[i][lane] = row.start[i];
    for (int i = 0; i < 3; ++i) rows.start_sum[i][lane] = row.start_sum[i];
    rows.tail = row.tail;
  }
  return rows;
}

}  // namespace ww
