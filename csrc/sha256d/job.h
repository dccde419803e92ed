// The back's work: a search that never runs dry.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "runtime/back.h"
#include "sha256d/search.h"

namespace ww {

// A rectangle of the work with its header time moved on.
struct Piece {
  uint32_t time;
  Rect rect;
};

struct JobHit {
  uint32_t time;
  Hit hit;
};

// Hits that a job keeps until they are taken.
constexpr size_t kHitsKept = 1 << 16;

// Its rectangles tile all nonces x the mask's versions, then go on with header time + 1 s.
class WW_API Job : public Back {
 public:
  Job(const Work& work, const Kernel& kernel);

  void run(Team& team, const YieldFlag& yield) override { run(team, yield, {}); }
  // Also ends where `poll`, called on the caller's thread every 20 ms, returns true.
  void run(Team& team, const YieldFlag& yield, const std::function<bool()>& poll);
  uint64_t units() const override { return units_.load(std::memory_order_relaxed); }

  // The next piece: what was given back comes first. Whoever takes one searches it or gives it back.
  Piece take();
  void give_back(const Piece& piece);

  // What was taken off the tiling's front and given back, and where fresh pieces begin.
  std::vector<Piece> given_back() const;
  Piece next_fresh() const;

  // Hits since the last call, in the order the pieces were searched.
  std::vector<JobHit> take_hits();
  // Hits that nobody took in time: an easy target makes millions a second, and only the last kHitsKept are kept.
  uint64_t hits_lost() const;

  const Kernel& kernel() const { return kernel_; }

 private:
  Piece fresh() const;  // the shape the kernel likes: as many versions' rows as it tests side by side

  const Work work_;
  const Kernel& kernel_;
  std::atomic<uint64_t> units_{0};
  mutable std::mutex mutex_;  // of what follows
  uint32_t time_;
  uint64_t version_ = 0;  // number of the next fresh piece's first
  std::vector<Piece> given_back_;
  std::deque<JobHit> hits_;
  uint64_t hits_lost_ = 0;
};

}  // namespace ww
