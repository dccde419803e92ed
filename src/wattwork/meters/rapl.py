"""RAPL: the energy counters of Intel's and AMD's processor packages, through Linux's powercap files.

Every package counts once: the top-level zones `intel-rapl:N` (AMD's too bear this name). Their subzones (core,
uncore, dram) are left out, for most are parts of the package, and so is `psys`, which holds the packages.
https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from wattwork.errors import MeterError
from wattwork.meters.base import Clock
from wattwork.meters.cadence import probe
from wattwork.meters.counter import Counter, CounterSource

DEFAULT_ROOT = "/sys/class/powercap"
# Above the peaks of any one package sold (the largest sockets of 2025 are specified at 500 to 600 W).
MAX_PACKAGE_W = 1000.0
_PACKAGE = re.compile(r"intel-rapl:(\d+)")


def powercap_root() -> Path:
    """Where the powercap zones are: WATTWORK_POWERCAP_ROOT, or the kernel's own place."""
    return Path(os.environ.get("WATTWORK_POWERCAP_ROOT") or DEFAULT_ROOT)


def open_rapl(clock: Clock | None = None, *, helper: bool = True) -> CounterSource:
    """The sum of all packages. MeterError where there is no counter or none may be read; the sentence names the fix."""
    root, clock = powercap_root(), clock or Clock()
    zones = _packages(root)
    if not zones:
        raise MeterError(
            f"there is no RAPL energy counter in {root} (virtual machines rarely have one); "
            "give your own reading (--watts, in Python watts=) for better than an estimate."
        )
    return CounterSource("rapl", [_counter(zone, clock) for zone in zones], clock, helper=helper)


def _packages(root: Path) -> list[Path]:
    try:
        found = [(int(match[1]), root / name) for name in os.listdir(root) if (match := _PACKAGE.fullmatch(name))]
    except OSError:
        return []
    return [zone for _, zone in sorted(found) if not _name(zone).startswith("psys")]


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return zone.name


def _counter(zone: Path, clock: Clock) -> Counter:
    read = partial(_read_uj, str(zone / "energy_uj"))
    cadence = probe(read, clock)
    range_uj = _read_uj(str(zone / "max_energy_range_uj"))
    if range_uj <= 0:
        raise MeterError(f"{zone}/max_energy_range_uj is {range_uj}, so a wrap of the counter could not be undone.")
    return Counter(_name(zone), read, modulus_uj(range_uj, cadence.readings_uj), MAX_PACKAGE_W, cadence)


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


def _read_uj(path: str) -> int:
    # Opened anew each time: a descriptor kept open would go on reading a zone that is gone.
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return int(os.read(descriptor, 32))
        finally:
            os.close(descriptor)
    except PermissionError:
        raise MeterError(
            f"{path} may be read by root only: run as root, or allow it with "
            f"`sudo chmod a+r {DEFAULT_ROOT}/intel-rapl:*/energy_uj` (until the next boot), "
            "or give Python the capability CAP_DAC_READ_SEARCH."
        ) from None
    except FileNotFoundError:
        raise MeterError(f"the energy counter {path} is not there any more.") from None
    except (OSError, ValueError) as error:
        raise MeterError(f"the energy counter {path} cannot be read ({error}).") from None
