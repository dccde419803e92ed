#!/bin/sh
# Builds the C++ tests with the sanitizers named (as -fsanitize= takes them) and runs them.
set -eu
cd "$(dirname "$0")/.."
build="build/sanitize-$(echo "$1" | tr , -)"
PATH="$PWD/.venv/bin:$PATH"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DWATTWORK_TESTS=ON -DWATTWORK_WERROR=ON \
      -DWATTWORK_SANITIZE="$1" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g" >/dev/null
cmake --build "$build"
ASAN_OPTIONS=detect_leaks=1 ctest --test-dir "$build" --output-on-failure
