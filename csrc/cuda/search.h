// The search on a GPU, with the whole contract of the one on the CPU (sha256d/search.h).
#pragma once

#include "cuda/sweep.h"

namespace ww::cuda {

// Every pair of the rectangle tested exactly once, until done or stopped; every hit is hashed again here. `remaining`
// has at most two rectangles for each unit of a launch (Gpu::blocks() x warps of a block) and some more. Where max_hits
// ends it, what was tested after the last hit wanted is part of what remains. Throws an Error where the GPU fails.
WW_API Found search(Gpu& gpu, const Work& work, const Rect& rect, const Controls& controls);

// One hit with its version's number, by which hits are sorted.
struct Placed {
  u64 number;
  Hit hit;
};

// Those of a sweep's candidates that meet the target.
std::vector<Placed> confirm(const Work& work, const Rect& rect, const std::vector<u64>& candidates);

// Whether a search is to end: once true, always true.
class Halt {
 public:
  explicit Halt(const Controls& controls) : controls_(controls) {}
  bool operator()();
  void set() { halted_ = true; }
  bool is_set() const { return halted_; }

 private:
  const Controls& controls_;
  int64_t polled_ns_ = now_ns();
  bool halted_ = false;
};

}  // namespace ww::cuda
