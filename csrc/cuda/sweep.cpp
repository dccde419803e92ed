#include "cuda/sweep.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "cuda/watch.h"
#include "sha256d/row.h"

namespace ww::cuda {
namespace {

constexpr auto kLook = std::chrono::microseconds(50);

u32 load_be(const uint8_t* p) { return u32{p[0]} << 24 | u32{p[1]} << 16 | u32{p[2]} << 8 | u32{p[3]}; }

u32 target_top(const Work& work) { return __builtin_bswap32(load_be(work.target + 28)); }

// A Row's start is one round on: that shifted the others down, and lost d and h, which are the midstate's a and e.
gpu::Lane make_lane(const Work& work, u64 number) {
  const Row row = make_row(work, version_at(work, number));
  gpu::Lane lane{};
  std::copy_n(row.midstate, 8, lane.midstate);
  for (int i : {0, 1, 2, 4, 5, 6}) lane.start[i] = row.start[i + 1];
  lane.start[3] = row.midstate[0], lane.start[7] = row.midstate[4];
  return lane;
}

void pause(bool asleep) {
  if (asleep) std::this_thread::sleep_for(kLook);
  else sched_yield();
}

// Calls launches back: when told to, or when a front lasts too long for them to wait.
class Recall {
 public:
  explicit Recall(Fence& fence) : fence_(fence), watch_(fence) { end(); }  // whatever was before: nothing is queued
  bool is_on() const { return fence_.recalled(); }
  void begin() { fence_.recall(); }
  void end() {
    fence_.lower();
    raised_ = false;
  }
  // Between two looks at a launch.
  void look() {
    fence_.look(now_ns());
    if (raised_ || !is_on()) return;
    fence_.raise();
    raised_ = true;
  }

 private:
  Fence& fence_;
  bool raised_ = false;
  Watch watch_;
};

}  // namespace

// Half the buffer is expected to be used: hashes are random, so that an overflow all but never happens.
Todo::Todo(const Shape& shape, const Work& work)
    : shape_(shape), most_pairs_(std::max<u64>(1, (u64{shape.capacity} << 31) / (u64{target_top(work)} + 1))) {}

void Todo::push(const Rect& rect) {
  if (rect.count && rect.versions) rects_.push_back(rect);
}

Rect Todo::take() {
  const Rect r = rects_.back();
  rects_.pop_back();
  const u64 versions =
      std::max<u64>(1, std::min({r.versions, u64{shape_.lanes}, most_pairs_}) / shape_.threads * shape_.threads);
  const u64 count = std::min(r.count, most_pairs_ / versions);
  push({r.first, r.count, r.version_first + versions, r.versions - versions});
  push({r.first + count, r.count - count, r.version_first, versions});
  return {r.first, count, r.version_first, versions};
}

void Todo::take_smaller() { most_pairs_ = std::max<u64>(shape_.capacity, most_pairs_ / 2); }

Plan::Plan(const Rect& the_rect, const Shape& shape)
    : rect(the_rect), rolled(the_rect.versions > 1), chunk(shape.chunk), group(rolled ? shape.threads : 1) {}

u64 Plan::spans() const { return (rect.count + nonces() - 1) / nonces(); }

u64 Plan::chunks() const { return (rect.versions + group - 1) / group * spans(); }

Rect Plan::part(u64 index, u32 done) const {
  const u64 number = index / spans() * group, at = index % spans() * nonces();
  const u64 end = std::min(at + nonces(), rect.count), from = std::min(at + u64{done} * (nonces() / chunk), end);
  return {rect.first + from, end - from, rect.version_first + number, std::min<u64>(group, rect.versions - number)};
}

std::vector<Rect> Plan::left(const Snapshot& at) const {
  std::vector<Rect> out;
  for (const u64 slot : at.slots)
    if (slot) out.push_back(part((slot >> 32) - 1, static_cast<u32>(slot)));
  std::erase_if(out, [](const Rect& r) { return r.count == 0; });
  if (at.account.next < chunks()) {
    Rect rest = part(at.account.next, 0);
    rest.count = rect.first + rect.count - rest.first;
    out.push_back(rest);
    const u64 below = rest.version_first + rest.versions, end = rect.version_first + rect.versions;
    if (below < end) out.push_back({rect.first, rect.count, below, end - below});
  }
  return out;
}

Sweep::Sweep(const Gpu& gpu, Workspace& space, const Work& work, const Rect& rect, u32 sms)
    : gpu_(gpu), space_(space), plan_(rect, gpu.shape()) {
  scan_.count = rect.count;
  scan_.budget = u64{gpu.shape().launch_us} * static_cast<u64>(std::max(gpu.info().clock_khz, 1'000'000)) / 1000;
  scan_.first = static_cast<u32>(rect.first);
  scan_.chunk = plan_.chunk;
  scan_.versions = static_cast<u32>(rect.versions);
  for (int i = 0; i < 3; ++i) scan_.tail[i] = load_be(work.header + 64 + 4 * i);
  scan_.target_top = target_top(work);
  scan_.capacity = gpu.shape().capacity;
  scan_.one = 1;
  scan_.sms = sms;
  // Lanes beyond the versions compute, too: whatever was there before.
  std::vector<gpu::Lane> lanes;
  for (u64 i = 0; i < rect.versions; ++i) lanes.push_back(make_lane(work, rect.version_first + i));
  space_.begin(lanes);
}

void Sweep::run(bool asleep, const std::function<bool()>& halted,
                const std::function<bool(const std::vector<u64>&)>& take) {
  int oldest = 0, in_flight = 0;
  bool ended = false;
  Recall recall(space_.fence());
  const auto end = [&] {
    ended = true;
    recall.begin();
  };
  try {
    for (;;) {
      while (!ended && recall.is_on() && in_flight == 0) {  // a front lasts
        if (halted()) ended = true;
        else if (!space_.fence().occupied()) recall.end();
        else pause(asleep);
      }
      for (; !ended && !recall.is_on() && in_flight < kInFlight; ++in_flight)
        space_.launch((oldest + in_flight) % kInFlight, plan_.rolled ? gpu_.rolled() : gpu_.plain(), gpu_.blocks(),
                      gpu_.shape().threads, scan_);
      if (in_flight == 0 && ended) break;
      if (in_flight == 0) continue;  // called back just now
      while (!space_.passed(oldest)) {
        if (!recall.is_on() && halted()) end();
        recall.look();
        pause(asleep);
      }
      Snapshot now = space_.snapshot(oldest);
      oldest = (oldest + 1) % kInFlight, --in_flight;
      if (now.account.found > scan_.capacity) {
        overflowed_ = true;
        end();
        continue;
      }
      const auto candidates = space_.candidates(good_.account.found, now.account.found);
      stuck_ = scan_.sms != kAllSms && now.account.next >= plan_.chunks() && now.slots == good_.slots;
      good_ = std::move(now);
      if (take(candidates)) end();
      if (left().empty() || stuck_) ended = true;  // and what is queued finds nothing to do
    }
  } catch (...) {
    try {
      space_.abandon();
    } catch (const Error&) {  // the first one tells more
    }
    throw;
  }
}

u64 pairs_of(const std::vector<Rect>& rects) {
  u64 sum = 0;
  for (const Rect& r : rects) sum += r.count * r.versions;
  return sum;
}

}  // namespace ww::cuda
