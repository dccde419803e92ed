// What fills a device's idle time (hashing), as the loop sees it.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/pool.h"

namespace ww {

// The yield flag: 0 while the back may work. Set before a request is queued, polled by every worker of the back.
using YieldFlag = std::atomic<uint32_t>;

class WW_API Back {
 public:
  virtual ~Back() = default;
  // Works on `team` until `yield` is nonzero; then returns as soon as every worker has left its quantum. What was
  // begun and not done is kept for the next call: no unit is skipped, none is done twice. Two threads may be in it at
  // once, each with a team and a flag of its own. May throw: it is not called again then.
  virtual void run(Team& team, const YieldFlag& yield) = 0;
  // Units (hashes) done so far; may be read from any thread while run() works.
  virtual uint64_t units() const = 0;
  // Whether one thread in run() drives it all: a second one would only wait for the first.
  virtual bool one_caller() const { return false; }
};

}  // namespace ww
