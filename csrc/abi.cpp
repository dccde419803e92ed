// The C ABI's face: argument checks and error codes, no logic.
#include "wattwork/wattwork.h"

#include <algorithm>
#include <cstring>

#include "runtime/pool.h"
#include "sha256d/row.h"
#include "sha256d/search.h"
#include "sha256d/table.h"

namespace {

// No exception leaves the library.
template <class F> int guarded(F&& f) {
  try {
    return f();
  } catch (const ww::UnsupportedIsa&) {
    return WW_E_ISA;
  } catch (...) {
    return WW_E_FAILED;
  }
}

int search(const ww_work& work, const ww_rect& rect, const char* isa, int threads, const ww_stop* stop, ww_hit* hits,
           size_t hits_capacity, ww_rect* remaining, ww_result& result) {
  if (isa && !*isa) return WW_E_ISA;  // an empty name is not the choice left open
  const ww::Kernel& kernel = ww::choose_kernel(isa ? isa : "");
  ww::Controls controls;
  if (stop) controls.stop = ww::as_stop(&stop->word);
  controls.max_hits = hits_capacity;
  const ww::Found found = ww::search(work, rect, kernel, threads, controls);
  std::copy(found.hits.begin(), found.hits.end(), hits);
  std::copy(found.remaining.begin(), found.remaining.end(), remaining);
  result = {found.hits.size(), found.remaining.size(), found.hashes, kernel.name};
  return WW_OK;
}

}  // namespace

extern "C" {

uint32_t ww_abi_version(void) { return WW_ABI_VERSION; }

const char* ww_strerror(int code) {
  switch (code) {
    case WW_OK: return "ok";
    case WW_E_INVALID: return "an argument is out of its range";
    case WW_E_ISA: return "the instruction set is unknown, or this machine lacks it";
    case WW_E_CAPACITY: return "the array for the answer is too short";
    case WW_E_FAILED: return "a self-test or an engine failed";
    default: return "unknown error code";
  }
}

int ww_isa_list(const char** names, size_t names_capacity, size_t* n_names) {
  if ((!names && names_capacity) || !n_names) return WW_E_INVALID;
  return guarded([&] {
    const auto& kernels = ww::usable_kernels();
    *n_names = kernels.size();
    for (size_t i = 0; i < std::min(names_capacity, kernels.size()); ++i) names[i] = kernels[i]->name;
    return kernels.size() <= names_capacity ? WW_OK : WW_E_CAPACITY;
  });
}

int ww_self_test(const char* isa) {
  return guarded([&] {
    bool known = false;
    for (const ww::Kernel* kernel : ww::supported_kernels()) {
      if (isa && std::strcmp(isa, kernel->name) != 0) continue;
      if (!ww::self_test(*kernel)) return WW_E_FAILED;
      known = true;
    }
    return known ? WW_OK : WW_E_ISA;
  });
}

int ww_work_init(ww_work* work, const uint8_t header[80], uint32_t version_mask) {
  if (!work || !header) return WW_E_INVALID;
  std::memmove(work->header, header, 80);  // the header may be the work's own
  work->version_mask = version_mask;
  return ww::target_from_bits(ww::header_bits(*work), work->target) ? WW_OK : WW_E_INVALID;
}

int ww_search(const ww_work* work, const ww_rect* rect, const char* isa, uint32_t threads, const ww_stop* stop,
              ww_hit* hits, size_t hits_capacity, ww_rect* remaining, size_t remaining_capacity, ww_result* result) {
  constexpr uint32_t kMaxThreads = 1u << 16;
  if (!work || !rect || !hits || !remaining || !result || threads > kMaxThreads) return WW_E_INVALID;
  if (!ww::is_valid(*work, *rect)) return WW_E_INVALID;
  const int wanted = threads ? static_cast<int>(threads) : ww::default_threads();
  if (hits_capacity == 0 || remaining_capacity < static_cast<size_t>(wanted) + 3) return WW_E_CAPACITY;
  return guarded([&] { return search(*work, *rect, isa, wanted, stop, hits, hits_capacity, remaining, *result); });
}

void ww_stop_set(ww_stop* stop) { __atomic_store_n(&stop->word, 1, __ATOMIC_RELEASE); }
void ww_stop_clear(ww_stop* stop) { __atomic_store_n(&stop->word, 0, __ATOMIC_RELEASE); }

}  // extern "C"
