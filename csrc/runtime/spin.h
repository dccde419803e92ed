// To wait without sleeping, for the microseconds in which what is waited for mostly comes.
#pragma once

#include <sched.h>

#include <cstdint>
#include <mutex>

#include "runtime/pool.h"

namespace ww {

// How long a thread spins before it sleeps. Longer than the gap between two layers of a decoder, and than a preempted
// worker is away for a thread that only submits a request: waking a virtual processor that went to sleep takes
// longer than that. Shorter than anything a second pool on the same cores would notice.
constexpr int64_t kSpinNs = 50'000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Spins until `done` is true, for kSpinNs at most; whether it is. Who else is ready to run on this core goes first: it may
// be who makes it true. (A pause is 40 cycles on one processor, 140 on another.)
template <class F> bool spin_until(F&& done) {
  for (const int64_t end = now_ns() + kSpinNs; now_ns() < end; sched_yield())
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      pause();
    }
  return done();
}

// A lock on what is never held for long: to sleep for it, and be woken, would take longer.
inline std::unique_lock<std::mutex> lock_soon(std::mutex& mutex) {
  std::unique_lock lock(mutex, std::try_to_lock);
  if (!lock && !spin_until([&] { return lock.try_lock(); })) lock.lock();
  return lock;
}

}  // namespace ww
