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

struct Controls {
  const std::atomic<uint32_t>* stop = nullptr;  // nonzero: end; looked at every 20 us or so
  uint64_t max_hits = kUnlimited;               // >= 1
  std::atomic<uint64_t>* progress = nullptr;    // pairs tested are added as they come
  std::function<bool()> poll;                   // called on the caller's thread every 20 ms; true: end
};

struct Found {
  std::vector<Hit> hits;        // sorted by (version number, nonce)
  std::vector<Rect> remaining;  // at most team.size() + 2; disjoint, and with what was tested the whole
  uint64_t hashes = 0;          // pairs tested
};

// How many threads, of those offered, the rectangle is worth.
WW_API int threads_for(const Rect& rect, const Kernel& kernel, int threads);

WW_API Found scan(Team& team, const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls);

}  // namespace ww
