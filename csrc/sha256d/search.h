// A search: every pair of a rectangle tested exactly once, on a team of threads, until done or stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "runtime/pool.h"
#include "sha256d/table.h"
#include "wattwork/wattwork.h"

namespace ww {

using Work = ww_work;
using Rect = ww_rect;
using Hit = ww_hit;

constexpr uint64_t kNonces = uint64_t{1} << 32;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

// Whether the rectangle lies within all nonces and the mask's versions.
WW_API bool is_valid(const Work& work, const Rect& rect);

// A stop word as C and Python hold it.
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);
inline const std::atomic<uint32_t>* as_stop(const uint32_t* word) {
  return reinterpret_cast<const std::atomic<uint32_t>*>(word);
}
inline const uint32_t* as_word(const std::atomic<uint32_t>& stop) { return reinterpret_cast<const uint32_t*>(&stop); }

struct Controls {
  const std::atomic<uint32_t>* stop = nullptr;  // nonzero: end; looked at every microsecond or so
  uint64_t max_hits = kUnlimited;               // >= 1
  std::atomic<uint64_t>* progress = nullptr;    // pairs tested are added as they come
  std::function<bool()> poll;                   // called on the caller's thread every 20 ms; true: end
};

struct Found {
  std::vector<Hit> hits;        // sorted by (version number, nonce)
  std::vector<Rect> remaining;  // at most team.size() + 3; disjoint, and with what was tested the whole
  uint64_t hashes = 0;          // pairs tested
  bool halted = false;          // by stop, poll or max_hits, though all may have been tested by then
};

WW_API Found scan(Team& team, const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls);

// The same on a team of its own: of `threads` (0: default_threads()), or fewer where the rectangle is not worth them.
WW_API Found search(const Work& work, const Rect& rect, const Kernel& kernel, int threads, const Controls& controls);

}  // namespace ww
