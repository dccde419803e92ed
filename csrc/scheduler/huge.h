// Memory for large tables that are met at random places: in huge pages where the system gives them, since each place
// then costs a miss of the cache, but none of the address translation beside it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ww {

template <class T>
struct HugeAllocator {
  using value_type = T;
  static constexpr size_t kHuge = size_t{1} << 21;

  HugeAllocator() = default;
  template <class U>
  HugeAllocator(const HugeAllocator<U>&) {}

  T* allocate(size_t n) {
    const size_t bytes = n * sizeof(T);
    void* memory = ::operator new(bytes, alignment(bytes));
#if defined(MADV_HUGEPAGE)
    if (bytes >= kHuge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t n) { ::operator delete(memory, alignment(n * sizeof(T))); }

  bool operator==(const HugeAllocator&) const = default;

 private:
  static std::align_val_t alignment(size_t bytes) {
    return std::align_val_t{bytes >= kHuge ? kHuge : std::max(alignof(T), size_t{64})};
  }
};

}  // namespace ww
