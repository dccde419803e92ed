#include "cuda/watch.h"

#include "runtime/pool.h"

namespace ww::cuda {

Watch::Watch(Fence& fence) : fence_(fence) {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, Fence::kPatience / 4, [this] { return over_; })) fence_.look(now_ns());
  });
}

Watch::~Watch() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace ww::cuda
