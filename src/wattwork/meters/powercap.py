"""RAPL's counters as Linux's powercap files: `energy_uj` of each zone, which wraps, and which root alone may read.

The top-level zones `intel-rapl:N` (AMD's too bear this name) are packages, or psys; their subzones `intel-rapl:N:M` are
core, uncore and dram, under these names in the zone's `name`. The same counters by memory-mapped registers,
`intel-rapl-mmio:N`, are left out. https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from wattwork.errors import MeterError
from wattwork.meters.base import Clock
from wattwork.meters.cadence import probe
from wattwork.meters.track import Counter

DEFAULT_ROOT = "/sys/class/powercap"
# Above the peaks of any one package sold (the largest sockets of 2025 are specified at 500 to 600 W).
MAX_PACKAGE_W = 1000.0
STANDS_S = 0.05  # no counter stands still for so long, unless its device does
_ZONE = re.compile(r"intel-rapl:(\d+)(?::(\d+))?")


def powercap_root() -> Path:
    """Where the powercap zones are: WATTWORK_POWERCAP_ROOT, or the kernel's own place."""
    return Path(os.environ.get("WATTWORK_POWERCAP_ROOT") or DEFAULT_ROOT)


def counters(parts: Sequence[str], clock: Clock) -> dict[str, list[Counter]]:
    """The counters of these parts of every package, by part. MeterError where there is none, or none readable."""
    root = powercap_root()
    zones = _zones(root)
    if not zones:
        raise MeterError(
            f"there is no RAPL energy counter in {root} (virtual machines rarely have one); "
            "give your own reading (--watts, in Python watts=) for better than an estimate."
        )
    found: dict[str, list[Counter]] = {}
    for zone, package in zones:
        name = _name(zone)
        part = name.split("-")[0]
        if package is None and part != "psys":
            part = "package"
        if part in parts:
            label = name if package is None else f"{name} of {package}"
            found.setdefault(part, []).append(_counter(zone, label, clock))
    return found


def _zones(root: Path) -> list[tuple[Path, str | None]]:
    """Each zone, and for a subzone the name of the package it is of; in the order of their numbers."""
    try:
        matches = [match for name in os.listdir(root) if (match := _ZONE.fullmatch(name))]
    except OSError:
        return []
    matches.sort(key=lambda match: (int(match[1]), int(match[2] or -1)))
    return [(root / m[0], _name(root / f"intel-rapl:{m[1]}") if m[2] else None) for m in matches]


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return zone.name


def _counter(zone: Path, label: str, clock: Clock) -> Counter:
    read = Reader(str(zone / "energy_uj"))
    cadence = probe(read, clock)
    range_uj = Reader(str(zone / "max_energy_range_uj"))()
    if range_uj <= 0:
        raise MeterError(f"{zone}/max_energy_range_uj is {range_uj}, so a wrap of the counter could not be undone.")
    return Counter(label, read, modulus_uj(range_uj, cadence.readings_uj), MAX_PACKAGE_W, cadence)


def modulus_uj(range_uj: int, readings_uj: tuple[int, ...]) -> int:
    """What a wrap takes away from the counter, in microjoules.

    The hardware counts 2^32 units; the kernel shows floor(count x unit), the unit in whole nanojoules, and as range the
    count 2^32 - 1 (drivers/powercap/intel_rapl_common.c): a wrap takes one unit more than the range. Where the range or
    the readings are not of that form, the range is taken as it stands.
    """
    unit_nj = -(-range_uj * 1000 // (2**32 - 1))

    def shown(count: int) -> int:
        return count * unit_nj // 1000

    hardware = shown(2**32 - 1) == range_uj and all(
        shown(-(-value * 1000 // unit_nj)) == value for value in readings_uj if unit_nj >= 1000
    )
    return shown(2**32) if hardware else range_uj


class Reader:
    """A number in a file, read again and again: it stays open, and is opened anew should its name mean another now.

    Only a number that stood still is doubted: at once whether the file has still a name, and after a while whether it
    is the same one. One of sysfs never: there, a zone that is gone fails to be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._inode = -1
        self._doubted, self._last, self._stands_s = True, b"", 0.0
        self._finalizer: weakref.finalize[..., Reader] | None = None

    def __call__(self) -> int:
        """MeterError with a sentence where it cannot be read."""
        try:
            if self._descriptor < 0:
                self._open()
            text = os.pread(self._descriptor, 32, 0)
            if text != self._last:
                self._stands_s = time.monotonic() + STANDS_S
            elif self._doubted and (not os.fstat(self._descriptor).st_nlink or self._is_another()):
                self._open()
                text = os.pread(self._descriptor, 32, 0)
            self._last = text
            return int(text)
        except PermissionError:
            raise MeterError(
                f"{self._path} may be read by root only: run as root, or allow it with "
                f"`sudo chmod a+r {DEFAULT_ROOT}/intel-rapl:*/energy_uj` (until the next boot), "
                "or give Python the capability CAP_DAC_READ_SEARCH."
            ) from None
        except FileNotFoundError:
            raise MeterError(f"the energy counter {self._path} is not there any more.") from None
        except (OSError, ValueError) as error:
            self._close()  # a zone that is gone says ENODEV for ever
            raise MeterError(f"the energy counter {self._path} cannot be read ({error}).") from None

    def _is_another(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._stands_s:
            return False
        self._stands_s = now_s + STANDS_S
        return os.stat(self._path).st_ino != self._inode

    def _open(self) -> None:
        self._close()
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        opened = os.fstat(self._descriptor)
        self._inode, self._doubted = opened.st_ino, opened.st_dev != _sysfs()

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer, self._descriptor = None, -1


@cache
def _sysfs() -> int:
    """The device that /sys is; -1 where there is none."""
    try:
        return os.stat("/sys/class").st_dev
    except OSError:
        return -1
