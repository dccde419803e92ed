"""What a machine tells of itself while it is measured: clock, temperature, throttling, and who else keeps it busy.

CPU: /sys/devices/system/cpu/*/cpufreq and .../thermal_throttle, /sys/class/hwmon, /sys/class/thermal, and /proc/stat
beside this process's own CPU time. GPU: NVML. What is not told is None: a guest of a virtual machine sees little.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wattwork.errors import MeterError
from wattwork.machine import usable_threads

if TYPE_CHECKING:
    from wattwork.meters.nvml import Gpu

EVERY_S = 1.0  # between looks: reading the files of many CPUs costs the work that is measured
TICKS_PER_S = os.sysconf("SC_CLK_TCK")  # of /proc/stat
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # of hwmon
_CPU_ZONE = re.compile(r"x86_pkg_temp|cpu", re.IGNORECASE)  # of /sys/class/thermal


@dataclass(frozen=True, slots=True)
class Conditions:
    """Over a phase: (lowest, highest) of what was seen; None where the machine does not tell."""

    clock_mhz: tuple[float, float] | None = None  # the mean over the CPUs in use, or the GPU's SMs
    celsius: tuple[float, float] | None = None  # the hottest sensor
    celsius_limit: float | None = None  # where the maker calls it critical
    throttled: int | None = None  # times the processor slowed itself for heat
    other_load: float | None = None  # share of the machine's CPU time that other processes took
    steal: float | None = None  # share of it that the hypervisor gave to others


class Seen(NamedTuple):
    """One look at the sensors."""

    clock_mhz: float | None
    celsius: float | None


class Times(NamedTuple):
    """Seconds of CPU time so far: of the whole machine, busy in it, stolen from it, and this process's own."""

    total_s: float
    busy_s: float
    steal_s: float
    own_s: float


class Watch:
    """Looks at the machine as a phase goes on: call `look` often, and `conditions` at the end.

    `device`: "cpu" or "cuda:0". `root`: where /sys and /proc are, for tests.
    """

    def __init__(self, device: str = "cpu", *, root: str | Path = "/") -> None:
        self._root, self._next_s = Path(root), 0.0
        self._gpu = None if device == "cpu" else _gpu(device)
        self._cpu = device == "cpu"
        self._seen: list[Seen] = []
        self._throttled = self._throttle_count()
        self._times = cpu_times(self._root)
        self.look()

    def look(self) -> None:
        """Note clock and temperature, unless it was done within EVERY_S."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        self._seen.append(self._sensors())

    def conditions(self) -> Conditions:
        """All since the start."""
        self._seen.append(self._sensors())
        throttled, other, steal = self._throttle_count(), None, None
        times = cpu_times(self._root)
        if times and self._times and times.total_s > self._times.total_s:
            total_s, busy_s, steal_s, own_s = (new - old for new, old in zip(times, self._times, strict=True))
            other = min(1.0, max(0.0, busy_s - own_s) / total_s)
            steal = min(1.0, max(0.0, steal_s) / total_s)
        return Conditions(
            clock_mhz=_range([seen.clock_mhz for seen in self._seen]),
            celsius=_range([seen.celsius for seen in self._seen]),
            celsius_limit=_limit(self._root) if self._cpu else None,
            throttled=None if throttled is None or self._throttled is None else max(0, throttled - self._throttled),
            other_load=other,
            steal=steal,
        )

    def _sensors(self) -> Seen:
        if self._gpu is not None:
            state = self._gpu.state()
            return Seen(state.sm_mhz, state.celsius)
        return Seen(_clock_mhz(self._root), _celsius(self._root)) if self._cpu else Seen(None, None)

    def _throttle_count(self) -> int | None:
        if not self._cpu:
            return None
        folder = "thermal_throttle"
        counts = [
            *self._root.glob(f"sys/devices/system/cpu/cpu[0-9]*/{folder}/core_throttle_count"),
            *self._root.glob(f"sys/devices/system/cpu/cpu[0-9]*/{folder}/package_throttle_count"),
        ]
        known = [int(value) for value in map(_number, counts) if value is not None]
        return sum(known) if known else None


def cpu_times(root: Path) -> Times | None:
    """From /proc/stat (proc(5); guest time is within user time), and this process's; None where there is none.

    What it was idle or waited for a disk counts as not busy, and what a hypervisor took as nobody's work here.
    """
    try:
        words = (root / "proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, idle, iowait, irq, softirq, steal = (int(word) / TICKS_PER_S for word in words[1:9])
    except (OSError, ValueError):
        return None
    busy_s = user + nice + system + irq + softirq
    return Times(busy_s + idle + iowait + steal, busy_s, steal, time.process_time())


def _gpu(device: str) -> Gpu | None:
    from wattwork.meters.nvml import Gpu

    try:
        return Gpu(device)
    except MeterError:
        return None


def _clock_mhz(root: Path) -> float | None:
    """The mean over the CPUs this process may use."""
    paths = (root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in usable_threads())
    known = [khz / 1e3 for khz in map(_number, paths) if khz is not None]
    return sum(known) / len(known) if known else None


def _chips(root: Path) -> list[Path]:
    """The folders of the processor's own sensors."""
    return [chip for chip in sorted(root.glob("sys/class/hwmon/hwmon*")) if _text(chip / "name") in _CPU_CHIPS]


def _celsius(root: Path) -> float | None:
    """The hottest of the processor's sensors."""
    files = [path for chip in _chips(root) for path in chip.glob("temp*_input")]
    if not files:
        zones = root.glob("sys/class/thermal/thermal_zone*")
        files = [zone / "temp" for zone in zones if _CPU_ZONE.search(_text(zone / "type"))]
    known = [milli / 1e3 for milli in map(_number, files) if milli is not None]
    return max(known) if known else None


def _limit(root: Path) -> float | None:
    known = [_number(path) for chip in _chips(root) for path in chip.glob("temp*_crit")]
    return min((milli / 1e3 for milli in known if milli), default=None)


def _range(values: list[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
