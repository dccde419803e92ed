"""A day's plan in a Numba loop over the C ABI: for each hour's power price the mode and load that pay most.

Dynamic programming from the last hour back: a state is the mode that was on before the hour, and a switch costs the
seconds and joules of the profile. Within a mode, figures are linear between levels, so some level is the best load.
"""

import llvmlite.binding
import numpy as np
from numba import njit, types

import wattwork
from wattwork.economics import J_PER_MWH

llvmlite.binding.load_library_permanently(wattwork.library_path())
address = types.uintp
ww_profile_at = types.ExternalFunction("ww_profile_at", types.int32(address, types.uint32, types.float64, address))
ww_profile_switch = types.ExternalFunction(
    "ww_profile_switch", types.int32(address, types.uint32, types.uint32, address, address)
)
HOUR_S = 3600.0


@njit(nogil=True, cache=True)
def best_level(profile, loads, mode, usd_per_unit, usd_per_j, point):
    """(USD per second, load) of a mode's best level; what is unknown is no level to run at."""
    best, best_load = -np.inf, np.nan
    for load in loads[mode]:
        if ww_profile_at(profile, mode, load, point.ctypes.data) == 0:
            earned = point[1] * usd_per_unit if usd_per_unit > 0 else 0.0
            if earned - point[0] * usd_per_j > best:
                best, best_load = earned - point[0] * usd_per_j, load
    return best, best_load


@njit(nogil=True, cache=True)
def plan(profile, loads, usd_per_unit, usd_per_j, first_mode):
    """(USD in all, modes, loads) by the hour. `profile`: its address. `usd_per_unit`: [modes]. `usd_per_j`: [hours]."""
    hours, modes = usd_per_j.size, loads.shape[0]
    value, choice = np.zeros((hours + 1, modes)), np.zeros((hours, modes), np.int64)
    load_of, point, seconds, joules = np.zeros((hours, modes)), np.zeros(4), np.zeros(1), np.zeros(1)
    for hour in range(hours - 1, -1, -1):
        rate = np.zeros(modes)
        for to in range(modes):
            rate[to], load_of[hour, to] = best_level(profile, loads, to, usd_per_unit[to], usd_per_j[hour], point)
        for now in range(modes):
            value[hour, now] = -np.inf
            for to in range(modes):
                ww_profile_switch(profile, now, to, seconds.ctypes.data, joules.ctypes.data)
                usd = rate[to] * (HOUR_S - seconds[0]) - joules[0] * usd_per_j[hour] + value[hour + 1, to]
                if usd > value[hour, now]:  # never so where a cost is unknown
                    value[hour, now], choice[hour, now] = usd, to
    now, day_modes, day_loads = first_mode, np.zeros(hours, np.int64), np.zeros(hours)
    for hour in range(hours):
        now = choice[hour, now]
        day_modes[hour], day_loads[hour] = now, load_of[hour, now]
    return value[0, first_mode], day_modes, day_loads


def made_up_device():
    """Figures of no device that exists; `Profile.load(path)` reads those of one that does."""
    costs = {("idle", "hash"): (2.0, 4e3), ("hash", "idle"): (1.0, 2e3), ("idle", "infer"): (30.0, 2e4),
             ("infer", "idle"): (5.0, 5e3), ("hash", "infer"): (30.0, 2e4), ("infer", "hash"): (5.0, 6e3)}  # fmt: skip
    table = {
        "idle": [(0.0, 60.0, 0.0), (0.5, 60.0, 0.0), (1.0, 60.0, 0.0)],
        "hash": [(0.2, 700.0, 40e12), (0.5, 1500.0, 100e12), (1.0, 3500.0, 200e12)],
        "infer": [(0.1, 300.0, 100.0), (0.5, 500.0, 500.0), (1.0, 800.0, 1000.0)],
    }
    return wattwork.Profile.from_table("a device made up", table, switches=costs)


def main():
    profile = made_up_device()
    hours = np.arange(24)
    usd_per_mwh = 60 - 80 * np.exp(-(((hours - 12) / 3.0) ** 2)) + 90 * np.exp(-(((hours - 19) / 1.5) ** 2))
    usd_per_unit = np.array([0.0, 40.0 / (1e15 * 86_400), 0.03e-6])  # idle; 40 USD/PH/day; 0.03 USD/Mtok
    usd, modes, loads = plan(profile.address, profile.loads, usd_per_unit, usd_per_mwh / J_PER_MWH, 0)
    for hour, price, mode, load in zip(hours, usd_per_mwh, modes, loads, strict=True):
        print(f"{hour:02d}:00  {price:6.1f} USD/MWh  {profile.modes[mode]:5}  load {load:.1f}")
    print(f"{usd:.2f} USD")


if __name__ == "__main__":
    main()
