// The fuzz target: an input's first byte chooses a part of wattwork.h, the others its arguments. Every answer is held
// against the header's words. libFuzzer calls it (`make fuzz`), or drive.cpp.
#include <cstring>
#include <vector>

#include "../cpp/check.h"
#include "input.h"
#include "wattwork/wattwork.h"

void fuzz_names(Input& in) {
  CHECK(ww_abi_version() == WW_ABI_VERSION);
  const char* words = ww_strerror(static_cast<int>(in.u32()));
  CHECK(words && *words);

  const size_t capacity = in.below(8);
  std::vector<const char*> names(capacity + 1, nullptr);
  size_t n = 0, all = 0;
  const int code = ww_isa_list(capacity || in.one_in(2) ? names.data() : nullptr, capacity, &n);
  CHECK(n >= 1 && code == (n <= capacity ? WW_OK : WW_E_CAPACITY));
  for (size_t i = 0; i <= capacity; ++i) CHECK((names[i] != nullptr) == (i < n && i < capacity));
  CHECK(ww_isa_list(nullptr, 0, &all) == WW_E_CAPACITY && all == n);
  CHECK(ww_isa_list(nullptr, 1, &n) == WW_E_INVALID && ww_isa_list(names.data(), capacity, nullptr) == WW_E_INVALID);

  for (const char* unknown : {"", "nonesuch", "numpy", "AVX2", "portable "}) CHECK(ww_self_test(unknown) == WW_E_ISA);
  if (capacity && in.one_in(32)) CHECK(ww_self_test(names[0]) == WW_OK);
  if (in.one_in(128)) CHECK(ww_self_test(nullptr) == WW_OK);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  const uint64_t part = in.below(16);
  if (part < 11) fuzz_search(in);
  else if (part < 15) fuzz_profile(in);
  else fuzz_names(in);
  return 0;
}
