// Units of a GPU search on the host: kernels/walk.h, the very loop that the kernels run, as coroutines, which others may
// come between at any step. Every pair counts as a hit, so that what was reported is what was tested.
#pragma once

#include "walk.h"

#include <algorithm>
#include <coroutine>
#include <exception>
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

// What is searched, where a GPU's memory holds what is known of it, and what was done.
struct World {
  Random random{};
  Scan scan{};
  bool rolled = false;
  u32 warps = 1, warp_lanes = 32;  // of a unit
  u32 units = 1;
  Account* account = nullptr;
  u64 *slots = nullptr, *hits = nullptr;
  const u32* flags = nullptr;
  u32 lateness = 0;  // one in so many looks at the clock finds the budget spent; 0: none
  std::vector<u32> tested;  // times each pair was reported: [version][nonce]
  u32 fronts = 0;  // kernels of a front at work, beside which no unit may begin
  const char* wrong = nullptr;

  u32 width() const { return rolled ? warps * warp_lanes : 0; }
  void check(bool holds, const char* what) {
    if (!holds && !wrong) wrong = what;
  }
  void report(u64 offset, u32 version) {
    if (offset >= scan.count || version >= scan.versions) return;
    ++tested[version * scan.count + offset];
    const u64 place = account->found++;
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
  bool flagged() const { return world.flags[number % kFlags * kFlagStride] != 0; }
  bool unwanted() {
    const bool no = flagged() || *world.scan.recall != 0;
    world.check(no || world.fronts == 0, "a unit begins beside a front");
    return no;
  }
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
    if (warp == 0) block.chunk = world.account->next++;
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

// A launch's warps, which take steps in any order.
template <u32 batch>
class Launch {
 public:
  explicit Launch(World& world) : world_(world), blocks_(world.units) {
    for (u32 unit = 0; unit < world.units; ++unit)
      for (u32 warp = 0; warp < world.warps; ++warp) {
        warps_.push_back(std::make_unique<Warp<batch>>(Warp<batch>{world, blocks_[unit], unit, warp}));
        tasks_.push_back(walk(*warps_.back(), world.scan));
      }
    left_ = static_cast<u32>(tasks_.size());
  }
  ~Launch() {
    for (const Task& task : tasks_) task.handle.destroy();
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  bool ended() const { return left_ == 0; }
  void step() {
    const u32 i = world_.random(static_cast<u32>(tasks_.size()));
    if (tasks_[i].handle.done() || !warps_[i]->can_go_on()) return;
    tasks_[i].handle.resume();
    left_ -= tasks_[i].handle.done();
  }

 private:
  World& world_;
  std::vector<Block> blocks_;
  std::vector<std::unique_ptr<Warp<batch>>> warps_;
  std::vector<Task> tasks_;
  u32 left_;
};

// kernels/search.h: chunks below `next`, but of each slot's chunk only the first `done` iterations. Not by place_of.
inline void check_account(World& world) {
  const Scan& scan = world.scan;
  const u64 width = world.width(), iterations = width ? scan.count : (scan.count + 31) / 32;
  const u64 spans = (iterations + scan.chunk - 1) / scan.chunk;
  std::vector<u64> done(spans * (width ? (scan.versions + width - 1) / width : 1));
  for (u64 chunk = 0; chunk < done.size() && chunk < world.account->next; ++chunk) done[chunk] = scan.chunk;
  for (u32 unit = 0; unit < world.units; ++unit)
    if (const u64 slot = world.slots[unit]) {
      world.check((slot >> 32) - 1 < std::min<u64>(done.size(), world.account->next), "a slot names an unclaimed chunk");
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
  world.check(world.account->found == reported, "`found` is not the number of hits");
}

}  // namespace ww::gpu
