#include "sha256d/table.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "runtime/cpu.h"
#include "runtime/pool.h"
#include "sha256d/row.h"
#include "sha256d/sha256.h"

namespace ww {
namespace {

bool always() { return true; }

const Kernel kKernels[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, scan_avx512, 1024, roll_avx512, 16},
    {"avx2", has_avx2, scan_avx2, 384, roll_avx2, 8},
    {"shani", has_shani, scan_shani, 384, nullptr, 1},
#elif defined(__aarch64__)
    {"armv8", has_armv8, scan_armv8, 512, roll_armv8, 4},
    {"neon", has_neon, scan_neon, 128, roll_neon, 4},
#endif
    {"portable", always, scan_portable, 128, roll_portable, 4},
};

ww_work test_work(uint8_t target_top) {
  ww_work work{};
  for (int i = 0; i < 80; ++i) work.header[i] = static_cast<uint8_t>(37 * i + 11);
  std::memset(work.target, 0xff, 31);
  work.target[31] = target_top;
  work.version_mask = 0x1fffe000;
  return work;
}

constexpr uint32_t kNever = 0;

// What a kernel finds, one version at a time or several, and what the plain scalar code does.
std::vector<uint32_t> candidates(const Kernel& kernel, const ww_work& work, uint64_t number, uint32_t versions,
                                 uint32_t first, uint32_t count) {
  Run run{first, count, {&kNever, &kNever}, 0, {}};
  const uint32_t done = versions == 1 ? kernel.scan(make_row(work, version_at(work, number)), run)
                                      : kernel.roll(make_rows(work, number, versions), run);
  if (done != count) return {done};  // there was room for all
  std::sort(run.candidates, run.candidates + run.found);
  return {run.candidates, run.candidates + run.found};
}

std::vector<uint32_t> expected(const ww_work& work, uint64_t number, uint32_t versions, uint32_t first,
                               uint32_t count) {
  std::vector<uint32_t> found;
  for (uint32_t i = 0; i < count * versions; ++i) {
    uint8_t header[80], hash[32];
    header_with(work, version_at(work, number + i % versions), first + i / versions, header);
    sha256d(header, hash);
    if (hash[31] <= work.target[31]) found.push_back(i);
  }
  return found;
}

// Nanoseconds a pair, in the faster of the kernel's ways: the best of a few quanta each, so that what interrupts does not
// count.
double pair_ns(const Kernel& kernel) {
  const ww_work work = test_work(0);
  const Row row = make_row(work, 0);
  const Rows rows = make_rows(work, 0, kMaxVersions);
  Run run{0, 0, {&kNever, &kNever}, 0, {}};
  const auto best_of_few = [&](uint32_t versions, const auto& test) {
    run.count = kernel.quantum / versions;
    int64_t best = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < 20; ++i) {
      const int64_t begin = now_ns();
      run.first = static_cast<uint32_t>(i);
      test();
      best = std::min(best, now_ns() - begin);
    }
    return static_cast<double>(best) / (run.count * versions);
  };
  const double scan = best_of_few(1, [&] { kernel.scan(row, run); });
  return kernel.roll ? std::min(scan, best_of_few(kMaxVersions, [&] { kernel.roll(rows, run); })) : scan;
}

std::vector<const Kernel*> measure() {
  std::vector<std::pair<double, const Kernel*>> timed;
  for (const Kernel* kernel : supported_kernels())
    if (self_test(*kernel)) timed.emplace_back(pair_ns(*kernel), kernel);
  std::sort(timed.begin(), timed.end());
  std::vector<const Kernel*> kernels;
  for (const auto& entry : timed) kernels.push_back(entry.second);
  return kernels;
}

}  // namespace

std::vector<const Kernel*> supported_kernels() {
  std::vector<const Kernel*> kernels;
  for (const Kernel& kernel : kKernels)
    if (kernel.supported()) kernels.push_back(&kernel);
  return kernels;
}

bool self_test(const Kernel& kernel) {
  for (const uint8_t top : {0xff, 0x1f, 0x03}) {
    const ww_work work = test_work(top);
    for (const uint32_t count : {1u, 31u, 130u}) {
      const uint32_t first = 0u - 140u + count / 31;
      if (candidates(kernel, work, count, 1, first, count) != expected(work, count, 1, first, count)) return false;
      for (uint32_t versions = kernel.lanes; kernel.roll && versions <= kMaxVersions; versions += kernel.lanes)
        if (candidates(kernel, work, 7, versions, first, count / 2 + 1) !=
            expected(work, 7, versions, first, count / 2 + 1))
          return false;
    }
  }
  return true;
}

const std::vector<const Kernel*>& usable_kernels() {
  static const std::vector<const Kernel*> usable = measure();
  return usable;
}

const Kernel& choose_kernel(const std::string& name) {
  const auto& usable = usable_kernels();
  std::string wanted = name;
  if (wanted.empty())
    if (const char* forced = std::getenv("WATTWORK_ISA")) wanted = forced;
  if (wanted.empty()) return *usable.at(0);
  for (const Kernel* kernel : usable)
    if (wanted == kernel->name) return *kernel;
  std::string names;
  for (const Kernel* kernel : usable) names += (names.empty() ? "" : ", ") + std::string(kernel->name);
  throw UnsupportedIsa("The instruction set '" + wanted + "' is unknown or not usable on this machine; use one of " +
                       names + ".");
}

}  // namespace ww
