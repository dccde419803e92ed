// Searches as told on the standard input, through the C ABI: where Python does not run, this is what its tests drive.
// A line is  ISA HEADER TARGET MASK FIRST COUNT VERSION_FIRST VERSIONS  (header and target in hex). The answer's is the
// number of pairs tested, then NONCE VERSION HASH of each hit. First of all a line of the instruction sets, best first.
#include <iostream>
#include <string>
#include <vector>

#include "check.h"
#include "wattwork/wattwork.h"

static void from_hex(const std::string& hex, uint8_t* bytes, size_t n) {
  CHECK(hex.size() == 2 * n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
}

static void print_hex(const uint8_t* bytes, size_t n) {
  for (size_t i = 0; i < n; ++i) std::printf("%02x", bytes[i]);
}

int main() {
  const char* isas[16];
  size_t n_isas;
  CHECK(ww_isa_list(isas, 16, &n_isas) == WW_OK);
  for (size_t i = 0; i < n_isas; ++i) std::printf("%s%c", isas[i], i + 1 < n_isas ? ' ' : '\n');
  std::vector<ww_hit> hits(1 << 16);
  std::string isa, header, target;
  ww_work work{};
  ww_rect rect, remaining[4];
  while (std::cin >> isa >> header >> target >> work.version_mask >> rect.first >> rect.count >> rect.version_first >>
         rect.versions) {
    from_hex(header, work.header, 80);
    from_hex(target, work.target, 32);
    ww_result result;
    CHECK(ww_search(&work, &rect, isa.c_str(), 1, nullptr, hits.data(), hits.size(), remaining, 4, &result) == WW_OK);
    CHECK(result.n_remaining == 0 && result.isa == isa);
    std::printf("%llu", static_cast<unsigned long long>(result.hashes));
    for (size_t i = 0; i < result.n_hits; ++i) {
      std::printf(" %u %u ", hits[i].nonce, hits[i].version);
      print_hex(hits[i].hash, 32);
    }
    std::printf("\n");
  }
}
