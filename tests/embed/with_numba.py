"""The C ABI inside a Numba loop: free of the GIL, and cached, so that the next process compiles nothing.

A function named by `types.ExternalFunction` is looked up by its symbol when the cached code is loaded; an address, as
of ctypes or cffi, would be baked into the code, and could not be cached.
"""

import llvmlite.binding
import numpy as np
from numba import njit, types

import wattwork
from wattwork.data import mainnet_header

llvmlite.binding.load_library_permanently(wattwork.library_path())  # before any of the functions below is called

address, size = types.uintp, types.uintp
ww_work_init = types.ExternalFunction("ww_work_init", types.int32(address, address, types.uint32))
ww_search = types.ExternalFunction(
    "ww_search",
    types.int32(address, address, address, types.uint32, address, address, size, address, size, address),
)
ww_profile_at = types.ExternalFunction("ww_profile_at", types.int32(address, types.uint32, types.float64, address))

# The structs of wattwork.h, as NumPy records with C's padding.
Work = np.dtype([("header", "u1", 80), ("target", "u1", 32), ("version_mask", "u4")], align=True)
Rect = np.dtype([("first", "u8"), ("count", "u8"), ("version_first", "u8"), ("versions", "u8")], align=True)
Hit = np.dtype([("nonce", "u4"), ("version", "u4"), ("hash", "u1", 32)], align=True)
Result = np.dtype([("n_hits", "u8"), ("n_remaining", "u8"), ("hashes", "u8"), ("isa", "u8")], align=True)
Profile = np.dtype(
    [("n_modes", "u4"), ("n_levels", "u4")]
    + [
        (name, "u8")
        for name in ("load", "watts", "units_per_s", "sigma_w", "sigma_units_per_s", "switch_s", "switch_j")
    ],
    align=True,
)
Point = np.dtype([(name, "f8") for name in ("watts", "units_per_s", "sigma_w", "sigma_units_per_s")], align=True)


def profile_of(load, watts, units_per_s):
    """A ww_profile of float64[modes, levels] arrays, which the caller keeps alive."""
    profile = np.zeros(1, Profile)
    profile["n_modes"], profile["n_levels"] = load.shape
    for name, array in {"load": load, "watts": watts, "units_per_s": units_per_s}.items():
        profile[name] = array.ctypes.data
    return profile


@njit(nogil=True, cache=True)
def cheapest_load(profile, mode, loads, point):
    """The load of a mode with the least energy per unit of work."""
    best, best_load = np.inf, np.nan
    for load in loads:
        if ww_profile_at(profile.ctypes.data, mode, load, point.ctypes.data) == 0:
            joules = point[0].watts / point[0].units_per_s
            if joules < best:
                best, best_load = joules, load
    return best_load


@njit(nogil=True, cache=True)
def search_in_steps(work, rect, steps, hits, remaining, result):
    """Searches `steps` rectangles one after the other; returns the hashes done, or a WW_E_* code."""
    hashes = 0
    for _ in range(steps):
        code = ww_search(
            work.ctypes.data, rect.ctypes.data, 0, 1, 0,
            hits.ctypes.data, hits.size, remaining.ctypes.data, remaining.size, result.ctypes.data,
        )  # fmt: skip
        if code != 0:
            return code
        hashes += result[0].hashes
        if result[0].n_hits > 0:
            break
        rect[0].first += rect[0].count
    return hashes


def main():
    load, watts = np.array([[0.2, 0.6, 1.0]]), np.array([[60.0, 100.0, 200.0]])
    units_per_s = np.array([[2e7, 6e7, 1e8]])
    profile = profile_of(load, watts, units_per_s)
    print("load", cheapest_load(profile, 0, np.linspace(0.2, 1, 9), np.zeros(1, Point)))

    genesis = mainnet_header(0)
    work = np.zeros(1, Work)
    work["header"] = np.frombuffer(genesis, np.uint8)
    work["target"][0, 26:28] = 255  # that of difficulty 1
    rect = np.array([(2083236893 - 50_000, 20_000, 0, 1)], Rect)
    hits, remaining, result = np.zeros(4, Hit), np.zeros(4, Rect), np.zeros(1, Result)
    print("hashes", search_in_steps(work, rect, 10, hits, remaining, result), "nonce", hits[0]["nonce"])

    for function in (cheapest_load, search_in_steps):
        print("cached" if sum(function.stats.cache_hits.values()) else "compiled")


if __name__ == "__main__":
    main()
