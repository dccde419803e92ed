// One account of a search on a GPU: a rectangle small enough for its candidates to fit, gone through launch by launch.
//
// What counts is the account as the last launch left it whose candidates all fit. A launch that overflowed the buffer
// counts for nothing: what was left before it is swept again, in smaller rectangles. (One of no more pairs than there
// is room for candidates cannot overflow, so that ends.)
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "cuda/workspace.h"
#include "sha256d/search.h"

namespace ww::cuda {

// The rectangles of a search that are still to be swept, the next one last.
class Todo {
 public:
  explicit Todo(const Shape& shape, const Work& work);

  bool empty() const { return rects_.empty(); }
  void push(const Rect& rect);
  // Off the next rectangle, as much as one account takes: whole groups of versions to roll where there are any, and
  // else one version.
  Rect take();
  // For what an overflow left.
  void take_smaller();
  const std::vector<Rect>& rects() const { return rects_; }

 private:
  const Shape& shape_;
  u64 most_pairs_;
  std::vector<Rect> rects_;
};

// What a rectangle's account says in pairs.
struct Plan {
  Rect rect;
  bool rolled;
  u32 chunk, group;

  Plan(const Rect& rect, const Shape& shape);
  u64 spans() const;   // chunks of one version, or group of them
  u64 chunks() const;
  u64 nonces() const { return rolled ? chunk : u64{chunk} * 32; }  // of a chunk
  Rect part(u64 chunk, u32 done) const;  // what is left of it after so many iterations
  std::vector<Rect> left(const Snapshot& at) const;  // disjoint, and with what was tested the whole
};

constexpr u32 kAllSms = ~u32{0};

class Sweep {
 public:
  // Works on the SMs below number `sms`.
  Sweep(const Gpu& gpu, Workspace& space, const Work& work, const Rect& rect, u32 sms = kAllSms);

  // Launches until all is tested, the candidates no longer fit, or one of these says to end: `halted`, asked all the
  // time or, where `asleep`, every 50 us or so; and `take`, which is given all candidates as they come (hit_of(the
  // version's number within the rectangle, nonce)). Called again, it goes on. Where a front lasts, it waits for its end.
  void run(bool asleep, const std::function<bool()>& halted,
           const std::function<bool(const std::vector<u64>&)>& take);

  const Rect& rect() const { return plan_.rect; }
  std::vector<Rect> left() const { return plan_.left(good_); }
  bool overflowed() const { return overflowed_; }
  // Whether what is left() must be swept anew: it overflowed, or units that began something no longer get an SM to use.
  bool must_begin_anew() const { return overflowed_ || stuck_; }

 private:
  const Gpu& gpu_;
  Workspace& space_;
  const Plan plan_;
  gpu::Scan scan_{};
  Snapshot good_;
  bool overflowed_ = false, stuck_ = false;
};

u64 pairs_of(const std::vector<Rect>& rects);

}  // namespace ww::cuda
