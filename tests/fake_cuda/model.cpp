#include "model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace fake {
namespace {

// FIPS 180-4, written out plainly once more: nothing here is shared with what it tests.
constexpr u32 kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
constexpr u32 kInit[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

// Rounds `from` to 63 on the state s = {a ... h}.
void rounds(u32 (&s)[8], const u32 (&block)[16], int from) {
  u32 w[64];
  std::copy_n(block, 16, w);
  for (int i = 16; i < 64; ++i)
    w[i] = w[i - 16] + (std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
           (std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
  for (int i = from; i < 64; ++i) {
    const u32 t1 = s[7] + (std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25)) +
                   ((s[4] & s[5]) ^ (~s[4] & s[6])) + kRound[i] + w[i];
    const u32 t2 = (std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22)) +
                   ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    std::copy_backward(s, s + 7, s + 8);
    s[4] += t1;
    s[0] = t1 + t2;
  }
}

bool is_candidate(const ww::gpu::Scan& scan, const ww::gpu::Lane& lane, u32 nonce) {
  u32 s[8], block[16] = {scan.tail[0], scan.tail[1], scan.tail[2], __builtin_bswap32(nonce), 0x80000000};
  block[15] = 640;
  std::copy_n(lane.start, 8, s);
  rounds(s, block, 3);
  u32 second[16] = {};
  for (int i = 0; i < 8; ++i) second[i] = lane.midstate[i] + s[i];
  second[8] = 0x80000000, second[15] = 256;
  std::copy_n(kInit, 8, s);
  rounds(s, second, 0);
  return __builtin_bswap32(kInit[7] + s[7]) <= scan.target_top;
}

struct Random {
  u64 state;
  u64 next() { return state ^= state << 13, state ^= state >> 7, state ^= state << 17; }
  bool one_in(u64 n) { return next() % n == 0; }
};

struct Unit {
  u32 number;
  bool inside = false;  // a chunk
  u64 chunk = 0;
  u32 done = 0;
};

class Run {
 public:
  explicit Run(const Launch& launch) : l_(launch), random_{launch.seed * 0x9e3779b97f4a7c15 | 1} {}
  void all();

 private:
  bool may_begin(const Unit& unit) const;
  bool step(Unit& unit);
  void leave(const Unit& unit);
  u32 iterations(u64 chunk) const;
  void iterate(const Unit& unit);
  void test(u32 version, u32 nonce);

  const Launch& l_;
  Random random_;
  const u64 width_ = l_.rolled ? 1 : 32, group_ = l_.rolled ? l_.threads : 1;
  const u64 nonces_ = l_.scan.chunk * width_, spans_ = (l_.scan.count + nonces_ - 1) / nonces_;
  const u64 chunks_ = (l_.scan.versions + group_ - 1) / group_ * spans_;
};

// So many iterations a chunk has, the last one of a version being cut off.
u32 Run::iterations(u64 chunk) const {
  const u64 left = l_.scan.count - chunk % spans_ * nonces_;
  return static_cast<u32>(std::min((left + width_ - 1) / width_, u64{l_.scan.chunk}));
}

void Run::test(u32 version, u32 nonce) {
  if (!is_candidate(l_.scan, l_.lanes[version], nonce)) return;
  const u64 place = l_.account->found++;
  if (place < l_.scan.capacity) l_.hits[place] = ww::gpu::hit_of(version, nonce);
}

void Run::iterate(const Unit& unit) {
  const u64 at = unit.chunk % spans_ * nonces_ + unit.done * width_, version = unit.chunk / spans_ * group_;
  for (u64 lane = 0; lane < group_ && version + lane < l_.scan.versions; ++lane)
    for (u64 i = 0; i < width_ && at + i < l_.scan.count; ++i)
      test(static_cast<u32>(version + lane), static_cast<u32>(l_.scan.first + at + i));
}

// A chunk that is done may be noted as done, too.
void Run::leave(const Unit& unit) {
  const bool finished = unit.inside && unit.done == iterations(unit.chunk);
  l_.slots[unit.number] = unit.inside && !(finished && random_.one_in(2)) ? ww::gpu::slot_of(unit.chunk, unit.done) : 0;
}

// Looked at once. Block b is on SM b % sms.
bool Run::may_begin(const Unit& unit) const {
  const u32 block = l_.rolled ? unit.number : unit.number * 32 / l_.threads;
  const int before = fronts.load();
  const bool wanted = !read(&l_.flags[unit.number % ww::gpu::kFlags * ww::gpu::kFlagStride]) &&
                      !read(l_.scan.recall) && block % l_.sms < l_.scan.sms;
  begun += wanted;
  begun_beside_a_front += wanted && before > 0;
  return wanted;
}

// False: the unit has left.
bool Run::step(Unit& unit) {
  const bool flagged = read(&l_.flags[unit.number % ww::gpu::kFlags * ww::gpu::kFlagStride]) != 0;
  const bool spent = l_.scan.budget && random_.one_in(16);
  if (flagged || spent) return leave(unit), false;
  if (unit.inside && unit.done == iterations(unit.chunk)) unit.inside = false;
  if (!unit.inside) {
    unit.chunk = l_.account->next++, unit.done = 0, unit.inside = unit.chunk < chunks_;
    if (unit.inside) return true;
    return leave(unit), false;
  }
  iterate(unit);
  ++unit.done;
  return true;
}

void Run::all() {
  const u32 n = l_.rolled ? l_.blocks : l_.blocks * l_.threads / 32;
  std::vector<Unit> units;
  for (u32 i = 0; i < n; ++i) {
    const u64 slot = l_.slots[i];
    const Unit unit{i, slot != 0, slot ? (slot >> 32) - 1 : 0, static_cast<u32>(slot)};
    if (may_begin(unit)) units.push_back(unit);
  }
  while (!units.empty()) {
    const size_t which = random_.next() % units.size();
    if (!step(units[which])) std::swap(units[which], units.back()), units.pop_back();
  }
}

}  // namespace

void run(const Launch& launch) { Run(launch).all(); }

}  // namespace fake
