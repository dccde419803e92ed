// What a search has on the GPU, and the few things it does with it.
//
// Launches go to a stream of the lowest priority, one after the other, each past the fence; the flag that the
// CPU raises, and hits that are fetched meanwhile, go by a second one. Both are copies from or to pinned memory, by a copy
// engine: they need no room on an SM.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cuda/fence.h"

namespace ww::cuda {

using gpu::u32;
using u64 = uint64_t;
static_assert(sizeof(u64) == sizeof(gpu::u64));

// What a launch left, as the CPU sees it once its event has passed.
struct Snapshot {
  gpu::Account account{};
  std::vector<u64> slots;
};

constexpr int kInFlight = 2;  // launches queued, so that the GPU goes from one to the next by itself

class Workspace {
 public:
  // For searches of the GPU's shape. With its context current, as all of this.
  explicit Workspace(const Gpu& gpu);
  ~Workspace();  // waits for what is queued, which still reads and writes its memory

  // Begins an account: nothing claimed, nothing found.
  void begin(const std::vector<gpu::Lane>& rows);  // at most the shape's lanes
  // Queues a launch and the copy of what it leaves, as number `i` of kInFlight.
  void launch(int i, Kernel kernel, u32 blocks, u32 threads, const gpu::Scan& scan);
  bool passed(int i) const;  // whether that launch has ended and its copy is here
  Snapshot snapshot(int i) const;
  std::vector<u64> candidates(u64 from, u64 to);  // that an ended launch found

  Fence& fence() { return fence_; }
  void abandon();  // calls back what is queued, and waits for it

 private:
  Pointer slots() const { return state_ + sizeof(gpu::Account); }
  size_t state_bytes() const { return sizeof(gpu::Account) + units_ * sizeof(u64); }

  const Context context_;
  const u32 units_, capacity_;
  const Owned<Stream> work_, signal_;
  Fence fence_;
  const Owned<Event> ended_[kInFlight];
  const Owned<Pointer> state_, hits_, rows_;
  const Owned<void*> states_here_, hits_here_;
};

}  // namespace ww::cuda
