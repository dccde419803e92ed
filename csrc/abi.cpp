// The C ABI's face: argument checks and error codes, no logic.
#include "wattwork/wattwork.h"

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

}  // extern "C"
