// A test is a program: CHECK what must hold, return from main. The first failure names its line and ends it.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (0)

// Whether a process with many threads may fork here: under TSan the child's new threads are not followed, and in an
// emulator (qemu's user mode) the child may wait for ever for a lock of the emulator's own.
inline bool can_fork() {
#if defined(__SANITIZE_THREAD__)
  return false;
#else
  return std::getenv("WATTWORK_TEST_EMULATED") == nullptr;
#endif
}
