// The one table of instruction sets, and the one place that chooses among them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "sha256d/kernel.h"
#include "wattwork/wattwork.h"

namespace ww {

struct Kernel {
  const char* name;
  bool (*supported)();
  ScanFn scan;
  uint32_t quantum;  // pairs that take some 20 us
  RollFn roll;       // where lanes can hold versions, or else null
  uint32_t lanes;    // of one vector of versions

  // How many of so many versions, left in a rectangle, are best tested side by side; 1: use scan.
  uint32_t side_by_side(uint64_t versions) const {
    if (!roll || versions < lanes) return 1;
    return versions < kMaxVersions ? static_cast<uint32_t>(versions) / lanes * lanes : kMaxVersions;
  }
};

struct UnsupportedIsa : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Kernels this machine has and that passed their self-test, the fastest first, each in the faster of its ways: measured
// once, for some milliseconds.
WW_API const std::vector<const Kernel*>& usable_kernels();

// The kernel of that name; "": $WATTWORK_ISA if that is set, or else the fastest. Throws UnsupportedIsa for a name
// that is unknown or not usable here: never another kernel instead.
WW_API const Kernel& choose_kernel(const std::string& name);

// Kernels this machine has, tested or not.
WW_API std::vector<const Kernel*> supported_kernels();

// Holds a kernel against the plain scalar code.
WW_API bool self_test(const Kernel& kernel);

}  // namespace ww
