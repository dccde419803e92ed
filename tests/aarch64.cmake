# Cross-compiles for AArch64; what comes out runs under qemu. Both are looked for on the PATH, and may lie in a folder of
# their own, unpacked and not installed, as `make test-emulated` has them; LD_LIBRARY_PATH then names their libraries.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
find_program(CMAKE_CXX_COMPILER NAMES aarch64-linux-gnu-g++ REQUIRED)
find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static REQUIRED)
cmake_path(SET root NORMALIZE "${CMAKE_CXX_COMPILER}/../../..")
if(NOT root STREQUAL "/")
  set(CMAKE_SYSROOT "${root}")
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR "${QEMU_AARCH64};-L;${root}usr/aarch64-linux-gnu")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
