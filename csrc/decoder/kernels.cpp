#include "decoder/kernels.h"

#include <cstring>

#include "runtime/cpu.h"

namespace ww::decoder {

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512;
#endif

namespace {

// The one table, best first, each with whether this CPU and its operating system can run it.
struct Entry {
  const Kernels* kernels;
  bool (*usable)();
};

const Entry kTable[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_portable, [] { return true; }},
};

}  // namespace

const Kernels* find_kernels(const char* isa) {
  for (const Entry& entry : kTable)
    if ((*isa == '\0' || std::strcmp(isa, entry.kernels->isa) == 0) && entry.usable()) return entry.kernels;
  return nullptr;
}

void each_kernels(void (*f)(void* ctx, const char* isa), void* ctx) {
  for (const Entry& entry : kTable)
    if (entry.usable()) f(ctx, entry.kernels->isa);
}

}  // namespace ww::decoder
