// The one thread pool of the process, for hashing and inference alike.
//
// Helpers park until a Team leases them; a Team is its calling thread plus the helpers it got. Within a team, one
// phase of parallel work follows another cheaply: helpers spin for some tens of microseconds before they sleep, and
// nobody waits for a helper that has taken no work. So the caller always gets on alone, two callers never wait for
// each other, and there are never more runnable workers than threads asked for.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "wattwork/wattwork.h"

namespace ww {

// CPUs this process may use: its affinity mask, within the cgroup's CPU quota (rounded up). At least 1.
WW_API int default_threads();

// A monotonic clock, in nanoseconds: the runtime's own, for what it measures of itself.
WW_API int64_t now_ns();

struct TeamState;

class WW_API Team {
 public:
  // Leases up to `threads - 1` idle helpers (0: as many as default_threads() allows). Inside another Team's lifetime
  // on the same thread it is that team, so that an engine's step needs no helpers of its own. `among`: where several
  // teams share out a number of workers, that number, so that the pool has helpers enough for all of them.
  explicit Team(int threads = 0, int among = 0);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Workers that may take part: the caller and its helpers.
  int size() const;

  // Calls f(i) once for each i in [0, n), in no stated order or thread; returns when all have returned.
  // What f throws first, run() throws again at the end. A phase that f starts on the caller's thread (in a signal
  // handler, say) is done there, by the caller alone; f must not start one elsewhere.
  template <class F>
  void run(int n, F&& f) {
    using Fn = std::remove_reference_t<F>;
    run_raw(n, [](void* ctx, int i) { (*static_cast<Fn*>(ctx))(i); }, const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  void run_raw(int n, void (*fn)(void*, int), void* ctx);
  TeamState* state_;
  bool owner_;
};

}  // namespace ww
