// The back's work on a GPU: a search that never runs dry, as Job on the CPU.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "cuda/search.h"
#include "runtime/back.h"
#include "sha256d/job.h"

namespace ww::cuda {

// A share of all nonces x the mask's versions, then the same with header time + 1 s, and so on. A sweep that yields
// stays on the GPU as it is, and the next run goes on with it.
class WW_API GpuJob : public Back {
 public:
  // On the SMs whose number (%smid) is below `sms`.
  GpuJob(std::shared_ptr<Gpu> gpu, const Work& work, const Rect& share, u32 sms = kAllSms);
  ~GpuJob();

  // The team's threads are not needed: the caller alone watches the GPU. A second caller at the same time waits.
  void run(Team&, const YieldFlag& yield) override { run(yield, {}); }
  void run(const YieldFlag& yield, const std::function<bool()>& poll);
  // What that stream does between the two has the GPU without hashing beside it, and hashing goes on after it by itself:
  // the rules are Fence's. From any thread, also while run() works or nobody is in it.
  void front_begin(Stream stream);
  void front_end(Stream stream);
  uint64_t units() const override { return units_.load(std::memory_order_relaxed); }
  bool one_caller() const override { return true; }

  std::vector<JobHit> take_hits();  // since the last call, in the order they came
  uint64_t hits_lost() const;       // only the last kHitsKept are kept
  std::vector<Piece> left();        // of the present header time; waits for run() to end
  const Gpu& gpu() const { return *gpu_; }

 private:
  void go_on(const std::function<bool()>& halted);
  void take(const std::vector<u64>& candidates);
  void let_go();

  const std::shared_ptr<Gpu> gpu_;
  std::unique_ptr<Workspace> space_;
  std::mutex running_;  // of what follows
  Work work_;
  const Rect share_;
  const u32 sms_;
  Todo todo_;
  bool failed_ = false;  // and the GPU may still be at work in `space_`
  std::optional<Sweep> sweep_;
  uint64_t untested_ = 0;  // pairs of the sweep

  std::atomic<uint64_t> units_{0};
  mutable std::mutex mutex_;  // of what follows
  std::deque<JobHit> hits_;
  uint64_t hits_lost_ = 0;
};

}  // namespace ww::cuda
