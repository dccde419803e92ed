#include "cuda/driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <string>

namespace ww::cuda {
namespace {

constexpr int kOldest = 12000;  // 1000 major + 10 minor

// Its version comes first: of a driver that is too old, that is what to say, whatever else it lacks.
void* open_library() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw Error(std::string("there is no NVIDIA driver here (") + dlerror() +
                "); install one, or use device 'cpu'.");
  const auto version = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDriverGetVersion"));
  int number = 0;
  if (!version || version(&number) != kSuccess)
    throw Error("libcuda.so.1 does not tell its version; install NVIDIA's driver anew, or use device 'cpu'.");
  if (number < kOldest)
    throw Error("the NVIDIA driver here is of CUDA " + std::to_string(number / 1000) + "." +
                std::to_string(number % 1000 / 10) + ", and wattwork needs CUDA 12.0 or later; install driver 525 or "
                "later, or use device 'cpu'.");
  return library;
}

std::string words(const Driver& driver, int code) {
  const char* text = nullptr;
  if (driver.error_string.entry(code, &text) != kSuccess || !text) text = "an unknown error";
  return std::string(text) + ", CUDA error " + std::to_string(code);
}

}  // namespace

void* symbol(const Driver& driver, const char* name) {
  if (void* const found = dlsym(driver.library, name)) return found;
  throw Error(std::string("libcuda.so.1 has no function ") + name +
              "; install NVIDIA's driver anew, or use device 'cpu'.");
}

void fail(const Driver& driver, const char* function, int code) {
  constexpr int kOutOfMemory = 2;
  if (code == kOutOfMemory)
    throw Error(std::string("the GPU has no memory left (") + function + "); free some, or use another device.");
  throw Error(std::string("the GPU failed at ") + function + " (" + words(driver, code) +
              "); use it from a new process, or use another device.");
}

Driver::Driver() : library(open_library()) {
  int count = 0;
  int code = init.entry(0);
  if (code == kSuccess) code = device_count.entry(&count);
  if (code == kNoDevice || (code == kSuccess && count == 0))
    throw Error("the NVIDIA driver finds no GPU here; see that CUDA_VISIBLE_DEVICES hides none, or use device 'cpu'.");
  if (code != kSuccess)
    throw Error("the NVIDIA driver does not start (" + words(*this, code) + "); see that nvidia-smi works, or use "
                "device 'cpu'.");
}

namespace {
const Driver* opened = nullptr;
pid_t owner = 0;
}  // namespace

const Driver& driver() {
  static const Driver the_driver;  // the next call tries again where this throws
  static const bool first = (opened = &the_driver, owner = getpid(), true);
  if (first && getpid() != owner)
    throw Error("CUDA does not survive a fork; start processes that use a GPU by 'spawn', or before its first use.");
  return the_driver;
}

const Driver* driver_to_end_with() noexcept { return getpid() == owner ? opened : nullptr; }

}  // namespace ww::cuda
