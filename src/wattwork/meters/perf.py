"""RAPL's counters as perf events: the PMU `power`, which Intel's and AMD's processors have under the same name.

The kernel sums the events to 64 bits and undoes the wraps itself; a count times `events/energy-pkg.scale` is joules
(arch/x86/events/rapl.c; 2^-32 J). `cpumask` names one CPU of each package (of each die, where they count apart), and
on each an event is opened. `events/energy-*` says which parts there are. AMD's per-core PMU `power_core` is left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from wattwork.errors import MeterError
from wattwork.meters.base import Clock
from wattwork.meters.cadence import probe
from wattwork.meters.powercap import MAX_PACKAGE_W
from wattwork.meters.track import Counter

DEFAULT_ROOT = "/sys/bus/event_source/devices/power"
EVENTS = {
    "package": "energy-pkg",
    "dram": "energy-ram",
    "core": "energy-cores",
    "uncore": "energy-gpu",
    "psys": "energy-psys",
}
_SYSCALL = {"x86_64": 298, "i386": 336, "i686": 336}  # perf_event_open(2)
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
Opener = Callable[[int, int, int], Callable[[], int]]  # (type, config, cpu) -> a reader of counts


class NoEvents(MeterError):
    """There is no such PMU here at all: nothing to be fixed."""


class _Attr(ctypes.Structure):
    """`struct perf_event_attr` as far as PERF_ATTR_SIZE_VER0; all but these is zero: counting, from now on."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )


def open_event(kind: int, config: int, cpu: int) -> Callable[[], int]:
    """Open a system-wide event on one CPU: a reader of its count. OSError where the kernel says no."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attr = _Attr(kind, ctypes.sizeof(_Attr), config)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        ctypes.c_long(number),
        ctypes.byref(attr),
        ctypes.c_int(-1),
        ctypes.c_int(cpu),
        ctypes.c_int(-1),
        ctypes.c_ulong(_CLOEXEC),
    )
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

    def read() -> int:
        return int.from_bytes(os.read(descriptor, 8), "little")

    weakref.finalize(read, os.close, descriptor)
    return read


def counters(
    parts: Sequence[str], clock: Clock, *, root: str = DEFAULT_ROOT, opener: Opener = open_event
) -> dict[str, list[Counter]]:
    """The counters of these parts of every package, by part. MeterError where there is none, or none readable."""
    folder = Path(root)
    if not folder.is_dir():
        raise NoEvents(f"there is no RAPL energy counter in {root} (virtual machines rarely have one).")
    try:
        kind = int((folder / "type").read_text())
        cpus = _cpus((folder / "cpumask").read_text())
        found = {}
        for part in parts:
            event = folder / "events" / EVENTS[part]
            if event.exists():
                config, scale_j = _config(event), float(Path(f"{event}.scale").read_text())
                readers = [opener(kind, config, cpu) for cpu in cpus]
                found[part] = [_counter(f"{part}-{i}", count, scale_j, clock) for i, count in enumerate(readers)]
    except PermissionError:
        raise MeterError(
            f"{root} may not be counted by this user: run as root, set `sudo sysctl kernel.perf_event_paranoid=0`, "
            "or give Python the capability CAP_PERFMON."
        ) from None
    except (OSError, ValueError) as error:
        raise MeterError(f"the energy events in {root} cannot be opened ({error}).") from None
    return found


def _counter(name: str, count: Callable[[], int], scale_j: float, clock: Clock) -> Counter:
    def read() -> int:
        try:
            return int(count() * (scale_j * 1e6))
        except OSError as error:
            raise MeterError(f"the energy event {name} cannot be read any more ({error}).") from None

    return Counter(name, read, int(2**64 * scale_j * 1e6), MAX_PACKAGE_W, probe(read, clock))


def _config(event: Path) -> int:
    """`event=0x02` -> 2. https://docs.kernel.org/admin-guide/sysfs-pmus.html: `event` is config's lowest byte here."""
    match = re.fullmatch(r"event=(0x[0-9a-f]+|\d+)", event.read_text().strip())
    if not match:
        raise ValueError(f"{event} is not of the form event=0x02")
    return int(match[1], 0)


def _cpus(mask: str) -> list[int]:
    """`0,18-19` -> [0, 18, 19]."""
    cpus: list[int] = []
    for item in mask.strip().split(","):
        first, _, last = item.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus
