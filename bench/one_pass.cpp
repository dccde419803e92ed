// Runs one kernel once, for its instructions to be counted (bench/port_bound_arm.py): one_pass ISA VERSIONS NONCES
#include <cstdlib>
#include <string>

#include "sha256d/table.h"

int main(int, char** argv) {
  const auto versions = static_cast<uint32_t>(std::atoi(argv[2]));
  const auto nonces = static_cast<uint32_t>(std::atoi(argv[3]));
  const uint32_t never = 0;
  ww::Run run{0, nonces, {&never, &never}, 0, {}};
  ww::Rows rows{};  // all zeros: what is hashed makes no difference to the count
  rows.versions = versions;
  for (const ww::Kernel* kernel : ww::supported_kernels()) {
    if (kernel->name != std::string(argv[1])) continue;
    return (versions == 1 ? kernel->scan({}, run) : kernel->roll(rows, run)) != nonces;
  }
  return 2;
}
