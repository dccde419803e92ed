"""What a call of the C ABI costs inside a Numba loop, in nanoseconds: beside the empty loop, the best of many runs."""

import sys
import time
from pathlib import Path

import numpy as np
from numba import njit, types

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "embed"))
from with_numba import Hit, Point, Rect, Result, Work, profile_of, ww_profile_at, ww_search

from wattwork._search import isas

CALLS, SEARCHES, RUNS = 100_000, 2_000, 30
ww_abi_version = types.ExternalFunction("ww_abi_version", types.uint32())


@njit(nogil=True)
def no_call(n, loads):
    total = 0.0
    for i in range(n):
        total += loads[i & 1023]
    return total


@njit(nogil=True)
def abi_version(n, loads):
    total = 0.0
    for i in range(n):
        total += loads[i & 1023] + ww_abi_version()
    return total


@njit(nogil=True)
def profile_at(n, loads, profile, point):
    total = 0.0
    for i in range(n):
        if ww_profile_at(profile.ctypes.data, 0, loads[i & 1023], point.ctypes.data) == 0:
            total += point[0].watts
    return total


@njit(nogil=True)
def search(n, work, rect, hits, remaining, result):
    total = 0
    for _ in range(n):
        total += ww_search(
            work.ctypes.data, rect.ctypes.data, 0, 1, 0,
            hits.ctypes.data, hits.size, remaining.ctypes.data, remaining.size, result.ctypes.data,
        )  # fmt: skip
    return total


def best_ns(function, calls, *arguments):
    function(calls, *arguments)
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        function(calls, *arguments)
        times.append(time.perf_counter() - begin)
    return min(times) / calls * 1e9


def main():
    isas()  # self-tested and timed once for the process: not part of a call
    load = np.linspace(0, 1, 8).reshape(1, 8)
    profile, loads = profile_of(load, 50 + 100 * load, 2e7 * load), np.random.default_rng(1).random(1024)
    empty = best_ns(no_call, CALLS, loads)
    print(f"empty loop          {empty:8.1f} ns")
    print(f"ww_abi_version      {best_ns(abi_version, CALLS, loads) - empty:8.1f} ns more")
    at = best_ns(profile_at, CALLS, loads, profile, np.zeros(1, Point))
    print(f"ww_profile_at       {at - empty:8.1f} ns more (8 levels, random loads)")
    work, hits, remaining, result = np.zeros(1, Work), np.zeros(4, Hit), np.zeros(4, Rect), np.zeros(1, Result)
    for count in (0, 1):
        ns = best_ns(search, SEARCHES, work, np.array([(0, count, 0, 1)], Rect), hits, remaining, result)
        print(f"ww_search, count {count}  {ns:8.1f} ns (one thread)")


if __name__ == "__main__":
    main()
