#include "runtime/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace ww {

#if defined(__x86_64__)
namespace {

// CPUID's bits, and XCR0: the registers that the system saves. (__builtin_cpu_supports is gcc's: with another runtime
// library it may answer no to everything.) Intel SDM, volume 1, chapters 14 and 15.
struct Cpu {
  unsigned leaf1_ecx = 0, leaf7_ebx = 0, xcr0 = 0;

  Cpu() {
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) leaf7_ebx = b;
    if (leaf1_ecx >> 27 & 1) asm("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));  // OSXSAVE: there is an XCR0
  }
  bool saves(unsigned registers) const { return (xcr0 & registers) == registers; }
  bool avx() const { return (leaf1_ecx >> 28 & 1) && saves(0x06); }   // XMM, YMM
  bool fma() const { return avx() && (leaf1_ecx >> 12 & 1); }
  bool leaf7(int bit) const { return leaf7_ebx >> bit & 1; }
};

const Cpu& cpu() {
  static const Cpu found;
  return found;
}

}  // namespace

bool has_avx2() { return cpu().fma() && cpu().leaf7(5); }
bool has_avx512() {  // F, DQ, BW, VL; opmasks and all of ZMM
  return cpu().fma() && cpu().saves(0xe6) && cpu().leaf7(16) && cpu().leaf7(17) && cpu().leaf7(30) && cpu().leaf7(31);
}
bool has_shani() { return cpu().avx() && cpu().leaf7(29); }
#elif defined(__aarch64__) && defined(__APPLE__)
bool has_neon() { return true; }  // as every processor of Apple's
bool has_armv8() { return true; }
#elif defined(__aarch64__)
namespace {

// What the kernel says this processor has.
bool has(unsigned long features) { return (getauxval(AT_HWCAP) & features) == features; }

}  // namespace

bool has_neon() { return has(HWCAP_ASIMD); }
bool has_armv8() { return has(HWCAP_ASIMD | HWCAP_SHA2 | HWCAP_AES); }  // +crypto lets the compiler use AES, too
#endif

}  // namespace ww
