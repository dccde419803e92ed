// Things of the driver's that end with their owner.
#pragma once

#include "cuda/gpu.h"

namespace ww::cuda {

template <class T> class Owned {
 public:
  Owned(Context context, T thing, const Function<T>& end) : context_(context), thing_(thing), end_(&end) {}
  ~Owned() {
    const Driver* const last = driver_to_end_with();
    if (!last || last->push_context.entry(context_) != kSuccess) return;
    Context popped;
    end_->entry(thing_);
    last->pop_context.entry(&popped);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  operator T() const { return thing_; }

 private:
  Context context_;
  T thing_;
  const Function<T>* end_;
};

// With the context current.
inline Owned<Stream> make_stream(Context context, bool urgent) {
  constexpr unsigned kNonBlocking = 1;
  int least = 0, greatest = 0;
  driver().priorities(&least, &greatest);
  Stream made = nullptr;
  driver().create_stream(&made, kNonBlocking, urgent ? greatest : least);
  return {context, made, driver().destroy_stream};
}

inline Owned<Event> make_event(Context context) {
  constexpr unsigned kWithoutTiming = 2;
  Event made = nullptr;
  driver().create_event(&made, kWithoutTiming);
  return {context, made, driver().destroy_event};
}

inline Owned<Pointer> make_memory(Context context, size_t bytes) {
  Pointer made = 0;
  driver().allocate(&made, bytes);
  return {context, made, driver().free};
}

inline Owned<void*> make_pinned(Context context, size_t bytes) {
  void* made = nullptr;
  driver().allocate_host(&made, bytes);
  return {context, made, driver().free_host};
}

}  // namespace ww::cuda
