// A thread that looks at a fence now and then and never calls the driver. The searching thread may be stopped in a call of
// its own, be it a query of an event: by the lock of a thread that waits for the whole device, and so for the launches
// that wait at a gate.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "cuda/fence.h"

namespace ww::cuda {

class Watch {
 public:
  explicit Watch(Fence& fence);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Fence& fence_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace ww::cuda
