// How a unit goes through its chunks, leaves and goes on: the protocol of search.h. On the host the same loop is a
// coroutine, so that the tests can run many units in any interleaving: WW_AWAIT marks where others may come between.
#pragma once

#include "rounds.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define WW_TASK __device__ __forceinline__ void
#define WW_AWAIT(x) (x)
#else
#define WW_TASK static typename Unit::Task
#define WW_AWAIT(x) co_await (x)
#endif

namespace ww::gpu {

// Where a unit is.
struct Place {
  u64 first;       // iterations (of its group) before its chunk
  u32 chunk;
  u32 group;       // of versions; plain: 0
  u32 done, size;  // of the chunk's iterations; equal: it has no chunk
};

WW_FN u32 div_up(u64 n, u32 by) { return static_cast<u32>(n - 1) / by + 1; }  // 1 <= n <= 2^32; the quotient is less

// The start of a chunk; size 0: there is none of that number. width: versions of a group; 0: plain.
WW_FN Place place_of(const Scan& scan, u32 width, u64 chunk) {
  const u64 iterations = width ? scan.count : (scan.count + 31) / 32;
  const u32 spans = div_up(iterations, scan.chunk), groups = width ? div_up(scan.versions, width) : 1;
  if (chunk >= u64{spans} * groups) return {};
  const u32 number = static_cast<u32>(chunk), group = number / spans;
  const u64 first = u64{number % spans} * scan.chunk, left = iterations - first;
  return {first, number, group, 0, left < scan.chunk ? static_cast<u32>(left) : scan.chunk};
}

WW_FN Place resumed(const Scan& scan, u32 width, u64 slot) {
  if (!slot) return {};
  Place place = place_of(scan, width, (slot >> 32) - 1);
  place.done = static_cast<u32>(slot);
  return place;
}

WW_FN u64 left_at(const Place& place) { return place.done < place.size ? slot_of(place.chunk, place.done) : 0; }

// What every thread of a unit does; Unit::kBatch is 1 or 2. any(x): whether x holds for one of them, the same for all.
// A batch's hits are reported when no thread broke off, so each is reported once: otherwise the batch is tested again.
template <class Unit>
WW_TASK walk(Unit& unit, const Scan& scan) {
  Place place = resumed(scan, unit.width(), unit.slot());
  bool leave = WW_AWAIT(unit.any(unit.unwanted()));
  bool begun = false;
  while (!leave) {
    if (place.done == place.size) {
      place = place_of(scan, unit.width(), WW_AWAIT(unit.claim()));
      if (place.size == 0) break;
      begun = false;
    }
    if (!begun) WW_AWAIT(unit.begin(place));
    begun = true;
    const u32 left = place.size - place.done;
    const u32 batch = Unit::kBatch == 1 || left < Unit::kBatch ? 1 : Unit::kBatch;
    u32 hits = 0;  // bit i: iteration i of the batch has one
    bool stop = unit.late();
    unit.ahead(place);
    for (u32 i = 0; i < batch && !stop; ++i) stop = WW_AWAIT(unit.iterate(place, i, hits));
    leave = WW_AWAIT(unit.any(stop));
    if (leave) break;
    if (hits) unit.report(place, hits);
    place.done += batch;
  }
  unit.leave(left_at(place));
}

}  // namespace ww::gpu
