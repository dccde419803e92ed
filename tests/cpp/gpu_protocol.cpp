// The GPU search's protocol in random interleavings, for tests/test_gpu_protocol.py: kernels/walk.h, the very loop that
// the kernels run, as coroutines. A launch steps its warps in any order; flags go up and down and budgets end at any
// moment. Every pair counts as a hit, so that what was reported is what was tested.

#include "walk.h"

#include <algorithm>
#include <coroutine>
#include <cstdio>
#include <memory>
#include <vector>

namespace ww::gpu {

struct Task {
  struct promise_type {
    Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};

// Others may come between; then the step is made.
template <class Make>
struct Step {
  Make make;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<>) const {}
  auto await_resume() { return make(); }
};
template <class Make>
Step(Make) -> Step<Make>;

struct Random {
  u64 x;
  u32 operator()(u32 below) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return static_cast<u32>((x >> 32) % below);
  }
};

// What a GPU's memory holds.
struct World {
  Random random{};
  Scan scan{};
  bool rolled = false;
  u32 warps = 1, warp_lanes = 32;  // of a unit
  Account account{};
  std::vector<u64> slots, hits;
  u32 flags[kFlags] = {};
  u32 lateness = 0;  // one in so many looks at the clock finds the budget spent; 0: none
  std::vector<u32> tested;  // times each pair was reported: [version][nonce]
  const char* wrong = nullptr;

  u32 width() const { return rolled ? warps * warp_lanes : 0; }
  void check(bool holds, const char* what) {
    if (!holds && !wrong) wrong = what;
  }
  void report(u64 offset, u32 version) {
    if (offset >= scan.count || version >= scan.versions) return;
    ++tested[version * scan.count + offset];
    const u64 place = account.found++;
    if (place < scan.capacity) hits[place] = hit_of(version, scan.first + static_cast<u32>(offset));
  }
};

// A unit's shared memory and its barrier.
struct Block {
  u32 passed = 0, arrived = 0;
  bool any = false, answer = false;
  u64 chunk = 0;
  u64 keyed[2][2] = {};  // the nonce whose schedule lies there, + 1
};

// One warp of a unit.
template <u32 batch>
struct Warp {
  using Task = gpu::Task;
  static constexpr u32 kBatch = batch;
  World& world;
  Block& block;
  u32 number, warp;  // of the unit; of its warps
  u32 turn = 0, waits_for = 0;

  u32 width() const { return world.width(); }
  u64 slot() const { return world.slots[number]; }
  bool flagged() const { return world.flags[number % kFlags] != 0; }
  bool late() const { return world.lateness && world.random(world.lateness) == 0; }
  bool can_go_on() const { return block.passed >= waits_for; }

  void arrive(bool x) {
    waits_for = block.passed + 1;
    block.any |= x;
    if (++block.arrived < world.warps) return;
    block.answer = block.any;
    block.arrived = 0, block.any = false, ++block.passed;
  }
  auto any(bool x) {
    arrive(x);
    return Step{[this] { return block.answer; }};
  }
  auto claim() {
    if (warp == 0) block.chunk = world.account.next++;
    arrive(false);
    return Step{[this] { return block.chunk; }};
  }
  auto begin(const Place& place) {
    if (warp == 0)
      for (u32 i = 0; i < kBatch; ++i) schedule(place, i);
    arrive(false);
    return Step{[] {}};
  }
  u64& keyed(const Place& place, u32 i) { return block.keyed[(place.done / kBatch + i / kBatch) & 1][i % kBatch]; }
  void schedule(const Place& place, u32 i) { keyed(place, i) = place.first + place.done + i + 1; }
  void ahead(const Place& place) {
    if (turn == warp)
      for (u32 i = 0; i < kBatch; ++i) schedule(place, kBatch + i);
    if (++turn == world.warps) turn = 0;
  }
  auto iterate(const Place& place, u32 i, u32& found) {
    return Step{[this, &place, i, &found] {
      world.check(keyed(place, i) == place.first + place.done + i + 1, "a schedule was overwritten before its use");
      if (flagged()) return true;
      found |= 1u << i;
      return false;
    }};
  }
  void report(const Place& place, u32 found) {
    for (u32 i = 0; i < kBatch; ++i)
      for (u32 lane = 0; lane < world.warp_lanes && (found >> i & 1); ++lane)
        if (world.rolled)
          world.report(place.first + place.done + i, place.group * width() + warp * world.warp_lanes + lane);
        else
          world.report((place.first + place.done) * 32 + lane, 0);
  }
  void leave(u64 slot) {
    if (warp == 0) world.slots[number] = slot;
  }
};

// All units to their end. Flags change at random as long as `trouble`.
template <u32 batch>
void launch(World& world, bool trouble) {
  std::vector<Block> blocks(world.slots.size());
  std::vector<std::unique_ptr<Warp<batch>>> warps;
  std::vector<Task> tasks;
  for (u32 unit = 0; unit < blocks.size(); ++unit)
    for (u32 warp = 0; warp < world.warps; ++warp) {
      warps.push_back(std::make_unique<Warp<batch>>(Warp<batch>{world, blocks[unit], unit, warp}));
      tasks.push_back(walk(*warps.back(), world.scan));
    }
  for (u32 left = static_cast<u32>(tasks.size()), steps = 0; left; ++steps) {
    if (steps > 1000000) return world.check(false, "a launch does not end");
    if (trouble && world.random(8) == 0) world.flags[world.random(kFlags)] = world.random(3) == 0;
    const u32 i = world.random(static_cast<u32>(tasks.size()));
    if (tasks[i].handle.done() || !warps[i]->can_go_on()) continue;
    tasks[i].handle.resume();
    left -= tasks[i].handle.done();
  }
  for (const Task& task : tasks) task.handle.destroy();
}

// kernels/search.h: chunks below `next`, but of each slot's chunk only the first `done` iterations. Not by place_of.
void check_account(World& world) {
  const Scan& scan = world.scan;
  const u64 width = world.width(), iterations = width ? scan.count : (scan.count + 31) / 32;
  const u64 spans = (iterations + scan.chunk - 1) / scan.chunk;
  std::vector<u64> done(spans * (width ? (scan.versions + width - 1) / width : 1));
  for (u64 chunk = 0; chunk < done.size() && chunk < world.account.next; ++chunk) done[chunk] = scan.chunk;
  for (const u64 slot : world.slots)
    if (slot) {
      world.check((slot >> 32) - 1 < std::min<u64>(done.size(), world.account.next), "a slot names an unclaimed chunk");
      if (!world.wrong) done[(slot >> 32) - 1] = static_cast<u32>(slot);
    }
  u64 reported = 0;
  for (u64 version = 0; version < scan.versions; ++version)
    for (u64 offset = 0; offset < scan.count; ++offset) {
      const u64 iteration = width ? offset : offset / 32, group = width ? version / width : 0;
      const bool accounted = iteration % scan.chunk < done[group * spans + iteration / scan.chunk];
      const u32 times = world.tested[version * scan.count + offset];
      world.check(times <= 1, "a pair was tested twice");
      world.check(times == accounted, "the account is not what was tested");
      reported += times;
    }
  world.check(world.account.found == reported, "`found` is not the number of hits");
}

// One random search from its first launch to its last. Null, or what was wrong.
const char* search(u64 seed) {
  World world;
  world.random.x = seed * 0x9E3779B97F4A7C15 | 1;
  Random& random = world.random;
  for (int i = 0; i < 4; ++i) random(2);
  world.rolled = random(2);
  world.warps = world.rolled ? 1 + random(3) : 1;
  world.warp_lanes = world.rolled ? 1 + random(3) : 32;
  Scan& scan = world.scan;
  scan.count = 1 + random(world.rolled ? 40 : 700);
  scan.first = static_cast<u32>(random(2) ? random(1000) : 0u - random(1000));
  scan.versions = world.rolled ? 1 + random(12) : 1;
  scan.chunk = 1 + random(9);
  scan.capacity = random(2) ? 1000 : random(100);
  world.slots.resize(1 + random(20));
  world.hits.resize(scan.capacity);
  world.tested.resize(scan.versions * scan.count);
  for (u32 launches = random(6) + 1; launches; --launches) {
    const bool last = launches == 1, trouble = !last && random(4) != 0;
    for (u32& flag : world.flags) flag = trouble && random(8) == 0;
    world.lateness = last || random(2) ? 0 : 1 + random(30);
    world.rolled ? launch<2>(world, trouble) : launch<1>(world, trouble);
    check_account(world);
    if (world.wrong) return world.wrong;
  }
  for (const u32 times : world.tested) world.check(times == 1, "a pair was never tested");
  for (u64 i = 0; i < std::min<u64>(world.account.found, scan.capacity); ++i) {
    const u32 version = static_cast<u32>(world.hits[i] >> 32), offset = static_cast<u32>(world.hits[i]) - scan.first;
    world.check(version < scan.versions && offset < scan.count, "a hit lies outside the rectangle");
    if (!world.wrong) world.check(world.tested[version * scan.count + offset]++ == 1, "a hit was written twice");
  }
  return world.wrong;
}

}  // namespace ww::gpu

// Searches `seed` to seed + count - 1. The first that goes wrong, and what; or seed + count.
extern "C" unsigned long long gpu_protocol(unsigned long long seed, unsigned long long count, const char** what) {
  for (ww::gpu::u64 i = 0; i < count; ++i)
    if ((*what = ww::gpu::search(seed + i))) return seed + i;
  return seed + count;
}
