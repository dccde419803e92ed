"""RAPL: the energy counters of Intel's and AMD's processor packages, through powercap's files or perf's events.

Which parts are summed. `package` is a whole socket; `core` and `uncore` are planes within it; `dram`, the memory at the
socket, is beside the package, not within (Intel SDM vol. 3B, "RAPL Domains and Platform Specificity": the package
domain is the processor die, DRAM a domain of its own); `psys` is the platform and holds all of them. So the default is
every package and, where the part has one, its DRAM; the others are there by name: "rapl:core", "rapl:psys".

Powercap is taken where its counters may be read, else perf; "rapl-powercap" and "rapl-perf" take that one alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters import perf, powercap
from wattwork.meters.base import Clock
from wattwork.meters.counter import CounterSource
from wattwork.meters.track import Counter

PARTS = ("package", "dram", "core", "uncore", "psys")
DEFAULT_PARTS = ("package", "dram")
WAYS = {"rapl-powercap": powercap.counters, "rapl-perf": perf.counters}
_WITHIN = {"core": ("package", "psys"), "uncore": ("package", "psys"), "package": ("psys",), "dram": ("psys",)}


def open_rapl(
    clock: Clock | None = None, *, name: str = "rapl", parts: Sequence[str] = (), helper: bool = True
) -> CounterSource:
    """The sum of all counters of these parts, by default packages and DRAM.

    `name`: "rapl", "rapl-powercap" or "rapl-perf"; the source bears the name of the one taken. MeterError where there
    is no counter or none may be read; the sentence names the fix. InvalidInput for parts that hold one another.
    """
    _check(parts)
    clock = clock or Clock()
    if name == "rapl":
        return _first_that_works(clock, parts, helper)
    return _open(name, clock, parts, helper)


def _first_that_works(clock: Clock, parts: Sequence[str], helper: bool) -> CounterSource:
    """The one place where it is decided: powercap, which is there from boot, before perf."""
    try:
        return _open("rapl-powercap", clock, parts, helper)
    except MeterError as error:
        if os.environ.get("WATTWORK_POWERCAP_ROOT"):
            raise  # whoever names a tree means it
        try:
            return _open("rapl-perf", clock, parts, helper)
        except perf.NoEvents:
            raise error from None
        except MeterError as other:
            raise MeterError(f"{str(error).rstrip('.')}; or by perf's events: {other}") from None


def _open(name: str, clock: Clock, parts: Sequence[str], helper: bool) -> CounterSource:
    found: dict[str, list[Counter]] = WAYS[name](parts or DEFAULT_PARTS, clock)
    missing = [part for part in parts if part not in found]
    if missing or not found:
        what = ", ".join(missing or DEFAULT_PARTS)
        raise MeterError(f"{name}: this processor has no counter of {what}; ask for less.")
    return CounterSource(name, [counter for counters in found.values() for counter in counters], clock, helper=helper)


def _check(parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            raise InvalidInput(f"RAPL has no part {part!r}; choose from {', '.join(PARTS)}.")
        holder = next((whole for whole in _WITHIN.get(part, ()) if whole in parts), None)
        if holder or parts.count(part) > 1:
            raise InvalidInput(f"{part} is counted within {holder or 'itself'} already; ask for one of them.")
