#include "scheduler/prefixes.h"

#include <algorithm>
#include <bit>

namespace ww {

bool Prefixes::release(int32_t block) {
  if (--holders_[static_cast<size_t>(block)] > 0) return false;
  if (!entered(block)) return true;
  Entry& entry = at(block);
  int32_t* link = &bucket(entry.hash);
  while (*link != block) link = &at(*link).next;
  *link = entry.next;
  entry.in = false;
  return true;
}

int32_t Prefixes::find(int32_t before, const int32_t* tokens) const {
  if (entries_.empty()) return kNone;
  const uint64_t hash = hash_of(before, tokens);
  int32_t block = buckets_[hash & (buckets_.size() - 1)];
  for (; block != kNone; block = at(block).next) {
    if (at(block).hash != hash || at(block).before != before) continue;
    const int32_t* mine = &text_[static_cast<size_t>(block) * static_cast<size_t>(block_size_)];
    if (std::equal(mine, mine + block_size_, tokens)) break;
  }
  return block;
}

bool Prefixes::enter(int32_t before, const int32_t* tokens, int32_t block) {
  if (entries_.empty()) {
    const size_t blocks = holders_.size();
    entries_.resize(blocks);
    text_.resize(blocks * static_cast<size_t>(block_size_));
    buckets_.assign(std::bit_ceil(blocks), kNone);
  }
  if (find(before, tokens) != kNone) return false;
  const uint64_t hash = hash_of(before, tokens);
  std::copy_n(tokens, block_size_, &text_[static_cast<size_t>(block) * static_cast<size_t>(block_size_)]);
  at(block) = {hash, before, bucket(hash), true};
  bucket(hash) = block;
  return true;
}

uint64_t Prefixes::hash_of(int32_t before, const int32_t* tokens) const {
  uint64_t hash = static_cast<uint32_t>(before);
  for (int32_t i = 0; i < block_size_; ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens[i])) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace ww
