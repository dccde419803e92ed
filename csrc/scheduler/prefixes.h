// KV blocks that several sequences hold at once, and which content lies where.
//
// A full block whose KV is computed is entered under the block before it (kNone: it begins a sequence) and its tokens.
// These are compared themselves, never a hash of them alone: where two hashes met, one tenant's answers would come from
// another's context. A block is entered only after the one before it, and content that is there already is not entered
// again; so a chain of entries is a prefix, and who holds a block of it holds all before. A block that nobody holds any
// more is out. The hash only says where to look: no decision depends on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ww {

class Prefixes {
 public:
  static constexpr int32_t kNone = -1;

  Prefixes(int32_t num_blocks, int32_t block_size)
      : block_size_(block_size), holders_(static_cast<size_t>(num_blocks)) {}

  int32_t holders(int32_t block) const { return holders_[static_cast<size_t>(block)]; }
  void hold(const int32_t* blocks, int32_t n) {
    for (int32_t i = 0; i < n; ++i) ++holders_[static_cast<size_t>(blocks[i])];
  }
  bool release(int32_t block);  // true: that was its last holder
  // As if a holder of these left: how many would have none any more. hold() takes it back.
  int32_t suppose_released(const int32_t* blocks, int32_t n) {
    int32_t last = 0;
    for (int32_t i = 0; i < n; ++i) last += --holders_[static_cast<size_t>(blocks[i])] == 0;
    return last;
  }

  int32_t find(int32_t before, const int32_t* tokens) const;           // kNone: no such content. tokens [block_size]
  bool enter(int32_t before, const int32_t* tokens, int32_t block);  // false: the content is there already
  bool entered(int32_t block) const { return !entries_.empty() && entries_[static_cast<size_t>(block)].in; }

 private:
  struct Entry {
    uint64_t hash;
    int32_t before, next;  // next: in its bucket
    bool in;
  };
  const Entry& at(int32_t block) const { return entries_[static_cast<size_t>(block)]; }
  Entry& at(int32_t block) { return entries_[static_cast<size_t>(block)]; }
  uint64_t hash_of(int32_t before, const int32_t* tokens) const;
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }

  int32_t block_size_;
  std::vector<int32_t> holders_;
  // Made with the first entry: a replay has none.
  std::vector<Entry> entries_;
  std::vector<int32_t> text_;     // [num_blocks, block_size]
  std::vector<int32_t> buckets_;  // the first block of each
};

}  // namespace ww
