#!/bin/sh
# Fuzzes wattwork.h under ASan+UBSan for so many seconds: with clang's libFuzzer, its corpus kept in build/fuzz-corpus;
# where there is none to be had, with the driver of its own.
set -eu
cd "$(dirname "$0")/../.."
seconds="$1"
PATH="$PWD/.venv/bin:$PATH"
packages="clang-19 libclang-rt-19-dev libclang-common-19-dev libclang-cpp19 libllvm19 libz3-4"

works() { echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
          "$1" -x c++ - -fsanitize=fuzzer,address -o build/clang-works 2>/dev/null && rm build/clang-works; }

# Debian's packages (51 MB, 274 MB unpacked, some seconds) need no root where they are only unpacked.
fetch() { mkdir -p build/clang && cd build/clang && apt-get download $packages >/dev/null 2>&1 &&
          for package in *.deb; do dpkg -x "$package" . && rm "$package"; done; }

mkdir -p build/fuzz-corpus
clang=""
export LD_LIBRARY_PATH="$PWD/build/clang/usr/lib/x86_64-linux-gnu"
for try in clang++-19 clang++ "$PWD/build/clang/usr/lib/llvm-19/bin/clang++"; do
  case "$try" in /*) [ -x "$try" ] || (fetch) || true ;; esac
  if works "$try"; then clang="$try"; break; fi
done

if [ -n "$clang" ]; then build=build/fuzz-clang; else build=build/fuzz; fi
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DWATTWORK_TESTS=ON \
      -DWATTWORK_SANITIZE=address,undefined -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g" \
      ${clang:+-DCMAKE_CXX_COMPILER="$clang" -DWATTWORK_FUZZER=ON} >/dev/null
cmake --build "$build" --target fuzz_abi
if [ -n "$clang" ]; then
  "$build/fuzz_abi" -max_total_time="$seconds" -max_len=256 -len_control=0 -timeout=60 -print_final_stats=1 \
                    -artifact_prefix="$build/" build/fuzz-corpus
else
  echo "no libFuzzer: pseudo-random inputs instead"
  "$build/fuzz_abi" -max_total_time="$seconds" -seed="$(date +%s)"
fi
