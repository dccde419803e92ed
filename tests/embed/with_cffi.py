"""The C ABI through cffi's ABI mode: the header itself is the declaration, and nothing is compiled."""

import re
from pathlib import Path

import cffi
import numpy as np

import wattwork

header = (Path(wattwork.include_dir()) / "wattwork" / "wattwork.h").read_text()
header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.S)
header = re.sub(r"^#.*$|\bWW_API\b", "", header, flags=re.M)
ffi = cffi.FFI()
ffi.cdef(header)
ww = ffi.dlopen(wattwork.library_path())


def check(code):
    if code != ww.WW_OK:
        raise RuntimeError(ffi.string(ww.ww_strerror(code)).decode())


# Search: structs and arrays are ours; the library keeps nothing.
genesis = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
)
work, rect = ffi.new("ww_work *"), ffi.new("ww_rect *", [2083236893 - 20000, 40000, 0, 1])
hits, remaining, result = ffi.new("ww_hit[4]"), ffi.new("ww_rect[4]"), ffi.new("ww_result *")
check(ww.ww_work_init(work, genesis, 0))
check(ww.ww_search(work, rect, ffi.NULL, 1, ffi.NULL, hits, len(hits), remaining, len(remaining), result))
print("nonce", *(hits[i].nonce for i in range(result.n_hits)), "by", ffi.string(result.isa).decode())

# A profile over NumPy arrays, which the library reads where they lie.
load, watts, units = np.array([[0.0, 1.0]]), np.array([[50.0, 150.0]]), np.array([[0.0, 2e7]])
profile = ffi.new("ww_profile *", {"n_modes": 1, "n_levels": 2})
for name, array in {"load": load, "watts": watts, "units_per_s": units}.items():
    setattr(profile, name, ffi.from_buffer("double[]", array))
point = ffi.new("ww_point *")
check(ww.ww_profile_check(profile))
check(ww.ww_profile_at(profile, 0, 0.25, point))
print("watts", point.watts, "units_per_s", point.units_per_s)
