// The GPU search's protocol in random interleavings, for tests/test_gpu_protocol.py. A launch steps its warps in any order;
// flags go up and down and budgets end at any moment.

#include "gpu_world.h"

namespace ww::gpu {

// All units to their end. Flags change at random as long as `trouble`.
template <u32 batch>
void launch(World& world, std::vector<u32>& flags, bool trouble) {
  Launch<batch> units(world);
  for (u32 steps = 0; !units.ended(); ++steps) {
    if (steps > 1000000) return world.check(false, "a launch does not end");
    if (trouble && world.random(8) == 0) flags[world.random(kFlags) * kFlagStride] = world.random(3) == 0;
    units.step();
  }
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
  world.units = 1 + random(20);
  Account account{};
  std::vector<u64> slots(world.units), hits(scan.capacity);
  std::vector<u32> flags(kFlagWords);
  u32 recall = 0;
  scan.recall = &recall;
  world.account = &account, world.slots = slots.data(), world.hits = hits.data(), world.flags = flags.data();
  world.tested.resize(scan.versions * scan.count);
  for (u32 launches = random(6) + 1; launches; --launches) {
    const bool last = launches == 1, trouble = !last && random(4) != 0;
    for (u32 i = 0; i < kFlags; ++i) flags[i * kFlagStride] = trouble && random(8) == 0;
    recall = trouble && random(8) == 0;
    world.lateness = last || random(2) ? 0 : 1 + random(30);
    world.rolled ? launch<2>(world, flags, trouble) : launch<1>(world, flags, trouble);
    check_account(world);
    if (world.wrong) return world.wrong;
  }
  for (const u32 times : world.tested) world.check(times == 1, "a pair was never tested");
  for (u64 i = 0; i < std::min<u64>(account.found, scan.capacity); ++i) {
    const u32 version = static_cast<u32>(hits[i] >> 32), offset = static_cast<u32>(hits[i]) - scan.first;
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
