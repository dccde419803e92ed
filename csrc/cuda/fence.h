// How a search's launches keep out of the way of the work before them, the front: in streams of others, in order with
// its kernels, and without a trip through the CPU.
//
//   gates    one word for each stream with a front, in pinned memory: kOpen, kShut, kLetPass
//   flag     in all its copies, polled by the units of a launch, which leave when it is not 0 (kernels/search.h)
//   recall   in pinned memory; while not 0, no unit begins
//
//   a front     begin: gate = kShut, then flag = 1         end: gate = kOpen
//   a launch    waits until all gates let it pass, flag = 0, waits again, and only then runs
//   the CPU     recall: recall = 1, then at all gates kShut becomes kLetPass; both by its own stores
//               raise: recalls, then flag = 1, for the units that have begun
//               lower: kLetPass becomes kShut, then recall = 0
//
// Nobody lowers a flag but the next launch, so no front's is lost: where it comes before a launch's `flag = 0`, the gate
// was shut before that, and the launch's second look finds it; where after, the launch runs and sees it. (Were these
// writes seen in another order, a launch would run beside a front, to its budget's end at most.) What the CPU raises
// holds for the launches already queued, too, whoever lowers the flag: their units find the recall word when they start.
//
// A launch that waits at a gate holds up who waits for the whole device, and streams that the driver put into the same
// queue of the hardware. So after kPatience the CPU recalls, and queues the next launch when all fronts have ended. Who
// waits for the whole device may hold the driver's lock, which stops all who call the driver: so whatever lets launches
// pass makes no call, and is done by a thread that makes none (watch.h).
#pragma once

#include <chrono>
#include <mutex>
#include <vector>

#include "../kernels/search.h"
#include "cuda/owned.h"

namespace ww::cuda {

class WW_API Fence {
 public:
  // `signal`: the stream by which the CPU raises. With the context current, as all of this.
  Fence(Context context, Stream signal);
  ~Fence() { settle(); }

  // What is queued in that stream from here to the end is before all hashing. From any thread; in one stream they nest,
  // and the last end counts. An end without a begin does nothing. Streams are independent of each other: kFronts may
  // have a front at once, and an Error refuses one more. A front that is never ended keeps hashing away, and holds up
  // nothing else. The stream must not be destroyed before its end, nor be in capture.
  void front_begin(Stream stream);
  void front_end(Stream stream);

  void admit(Stream work);  // queues what comes before a launch

  void recall();          // no unit begins any more, and no launch waits at a gate; again, for fronts that began since
  void raise();           // and those that have begun leave; recalls first
  void lower();           // so that launches may begin again, once those recalled are gone
  bool recalled() const;
  bool occupied() const;  // by a front that the GPU has begun and not ended
  void look(int64_t now_ns);  // now and then: recalls where a front lasts, and again. From any thread

  void settle() noexcept;  // waits until the GPU has done with all that fronts queued here, and forgets them
  Pointer flags() const { return flags_; }
  const gpu::u32* recall_word() const { return &word(kFronts); }

  static constexpr int kFronts = 4;
  static constexpr std::chrono::milliseconds kPatience{10};

 private:
  enum Gate : gpu::u32 { kShut = 0, kOpen = 1, kLetPass = 3 };  // the lowest bit lets a launch pass

  struct Front {
    Stream stream = nullptr;
    int depth = 0;
    bool used = false;  // and perhaps not written yet
  };

  int place_of(Stream stream) const;
  int place_for(Stream stream);
  void write(int place, Gate value, Stream stream);
  void hold_back();
  void swap_gates(Gate from, Gate to);
  gpu::u32& word(int i) const { return static_cast<gpu::u32*>(static_cast<void*>(here_))[i]; }
  gpu::u32& gate(int place) const { return word(place); }
  const gpu::u32* words(gpu::u32 value) const;

  const Context context_;
  const Stream signal_;
  const Owned<Pointer> flags_;       // and after them kShut and kOpen, to copy from
  const Owned<void*> here_, words_;  // the gates and the recall word; what is copied to the flags, all 0 and all 1
  const Owned<Event> written_[kFronts];
  std::vector<MemOp> admit_;
  bool ordered_ = true;  // false: without stream memory operations, copies write and the CPU waits
  std::mutex recall_mutex_;  // of who recalls and lowers, and of this; nobody calls the driver with it
  int64_t free_ns_ = 0;      // when last no front was seen
  std::mutex mutex_;         // of what follows
  Front fronts_[kFronts];
};

}  // namespace ww::cuda
