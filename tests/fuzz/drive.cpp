// Drives the fuzz target where there is no libFuzzer: with inputs of a pseudo-random generator, the same each time.
//
//     fuzz_abi [-runs=N] [-seed=N] [-max_total_time=SECONDS]     libFuzzer's names; ends at whichever comes first
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static unsigned long long seed = 1, input = 0;
static bool ended = false;

static void tell_where() {  // a failed CHECK exits
  if (!ended) std::fprintf(stderr, "input %llu: run again with -seed=%llu -runs=1\n", input, seed + input);
}

int main(int argc, char** argv) {
  unsigned long long runs = 2000, seconds = 0;
  bool runs_given = false;
  for (int i = 1; i < argc; ++i) {
    runs_given |= std::sscanf(argv[i], "-runs=%llu", &runs) == 1;
    std::sscanf(argv[i], "-seed=%llu", &seed);
    std::sscanf(argv[i], "-max_total_time=%llu", &seconds);
  }
  std::atexit(tell_where);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<uint8_t> bytes;
  for (; input < runs || (seconds && !runs_given); ++input) {
    if (seconds && std::chrono::steady_clock::now() - begin > std::chrono::seconds(seconds)) break;
    std::mt19937_64 random(seed + input);
    bytes.resize(random() % 256);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  ended = true;
  std::printf("%llu inputs from seed %llu\n", input, seed);
  return 0;
}
