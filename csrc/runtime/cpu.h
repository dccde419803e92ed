// What this processor has, as far as a kernel here asks for it, and the operating system lets programs use. Each asks for
// all that the compiler was allowed to use for that name, or the assembly does.
#pragma once

namespace ww {

#if defined(__x86_64__)
bool has_avx2();
bool has_avx512();
bool has_shani();
#elif defined(__aarch64__)
bool has_neon();
bool has_armv8();
#endif

}  // namespace ww
