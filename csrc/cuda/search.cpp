#include "cuda/search.h"

#include <algorithm>
#include <utility>

#include "sha256d/row.h"
#include "sha256d/sha256.h"

namespace ww::cuda {
namespace {

constexpr int64_t kPollNs = 20'000'000;

bool earlier(const Placed& a, const Placed& b) {
  return std::pair(a.number, a.hit.nonce) < std::pair(b.number, b.hit.nonce);
}

// What is left of a sweep if it is taken to have ended with this hit, in the order of hits: what was left before it,
// and all after it.
std::vector<Rect> left_after(const Placed& last, const Rect& whole, const std::vector<Rect>& left) {
  std::vector<Rect> out;
  const auto push = [&](const Rect& r) {
    if (r.count && r.versions) out.push_back(r);
  };
  const u64 next = u64{last.hit.nonce} + 1, below = last.number + 1;
  for (const Rect& r : left) {
    const u64 end = r.version_first + r.versions;
    if (r.version_first < last.number)
      push({r.first, r.count, r.version_first, std::min(end, last.number) - r.version_first});
    if (r.version_first <= last.number && last.number < end && r.first < next)
      push({r.first, std::min(r.first + r.count, next) - r.first, last.number, 1});
  }
  push({next, whole.first + whole.count - next, last.number, 1});
  push({whole.first, whole.count, below, whole.version_first + whole.versions - below});
  return out;
}

}  // namespace

std::vector<Placed> confirm(const Work& work, const Rect& rect, const std::vector<u64>& candidates) {
  std::vector<Placed> out;
  for (const u64 candidate : candidates) {
    const u64 number = rect.version_first + (candidate >> 32);
    Placed placed{number, {static_cast<u32>(candidate), version_at(work, number), {}}};
    uint8_t header[80];
    header_with(work, placed.hit.version, placed.hit.nonce, header);
    sha256d(header, placed.hit.hash);
    if (meets_target(placed.hit.hash, work.target)) out.push_back(placed);
  }
  return out;
}

bool Halt::operator()() {
  if (controls_.stop && controls_.stop->load(std::memory_order_acquire) != 0) halted_ = true;
  if (!halted_ && controls_.poll && now_ns() - polled_ns_ >= kPollNs) {
    halted_ = controls_.poll();
    polled_ns_ = now_ns();
  }
  return halted_;
}

Found search(Gpu& gpu, const Work& work, const Rect& rect, const Controls& controls) {
  const Current current(gpu.context());
  auto space = gpu.take_workspace();
  Todo todo(gpu.shape(), work);
  todo.push(rect);
  Halt halt(controls);
  std::vector<Placed> hits;
  Found found;
  const auto add = [&](u64 tested) {
    found.hashes += tested;
    if (controls.progress) controls.progress->fetch_add(tested, std::memory_order_relaxed);
  };
  while (!todo.empty() && !halt()) {
    Sweep sweep(gpu, *space, work, todo.take());
    const size_t before = hits.size();
    u64 untested = pairs_of({sweep.rect()});
    sweep.run(true, [&] { return halt(); }, [&](const std::vector<u64>& candidates) {
      const auto confirmed = confirm(work, sweep.rect(), candidates);
      hits.insert(hits.end(), confirmed.begin(), confirmed.end());
      const u64 now = pairs_of(sweep.left());
      add(untested - now);
      untested = now;
      if (hits.size() >= controls.max_hits) halt.set();
      return halt.is_set();
    });
    std::vector<Rect> left = sweep.left();
    if (hits.size() > controls.max_hits) {
      std::sort(hits.begin() + static_cast<std::ptrdiff_t>(before), hits.end(), earlier);
      hits.resize(controls.max_hits);
      left = left_after(hits.back(), sweep.rect(), left);
      add(untested - pairs_of(left));  // less than nothing, modulo 2^64
    }
    if (sweep.overflowed()) todo.take_smaller();
    for (auto r = left.rbegin(); r != left.rend(); ++r) todo.push(*r);
  }
  gpu.give_back(std::move(space));
  std::sort(hits.begin(), hits.end(), earlier);
  for (const Placed& placed : hits) found.hits.push_back(placed.hit);
  found.remaining.assign(todo.rects().rbegin(), todo.rects().rend());
  found.halted = halt.is_set();
  return found;
}

}  // namespace ww::cuda
