"""Why a measurement should not be trusted, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wattwork.figures import trend

if TYPE_CHECKING:
    from wattwork.conditions import Conditions
    from wattwork.report import PhaseResult, Power

LEAST_UPDATES = 10  # of the sensor in a window
MOST_OTHER_LOAD = 0.05  # share of the machine's CPU time
MOST_STEAL = 0.01
MOST_CLOCK_FALL = 0.05  # share of the highest clock seen
NEAR_LIMIT_C = 5.0
MOST_DRIFT = 0.02  # over the repeats, share of the mean
DRIFT_T = 2.0  # standard errors by which it must stand out


def doubts(
    windows: Sequence[PhaseResult], conditions: Conditions, *, flat_out: bool, still: bool = True
) -> tuple[str, ...]:
    """Sentences for what is doubtful in these windows of one mode, measured one after another; () where nothing is.

    `flat_out`: the work left no pauses, so that the clock has no reason to fall but heat or a limit. `still`: nothing
    was set anew between the windows, so that they have no reason to drift.
    """
    return (*_meter(windows), *_machine(conditions, flat_out), *(_drift(windows) if still else ()))


def _meter(windows: Sequence[PhaseResult]) -> list[str]:
    powers = [window.power for window in windows if window.power]
    if not powers:
        return ["Nothing is known of the energy: there is no meter."]
    said = list(dict.fromkeys(sentence for power in powers for sentence in power.warnings))
    if any(power.joules is None for power in powers):
        said.append(f"The meter failed: {_reason(powers)}.")
    elif powers[0].source == "estimated":
        said.append("No meter: the watts are a model's estimate; give your own reading (--watts).")
    updates = [power.updates for power in powers if power.updates is not None]
    if updates and min(updates) < LEAST_UPDATES:
        said.append(f"The meter was updated only {min(updates)} times in a window; give longer windows (--seconds).")
    return said


def _reason(powers: Sequence[Power]) -> str:
    return next(power.detail for power in powers if power.joules is None).rstrip(".")


def _machine(seen: Conditions, flat_out: bool) -> list[str]:
    said = []
    if flat_out and seen.clock_mhz and seen.clock_mhz[0] < (1 - MOST_CLOCK_FALL) * seen.clock_mhz[1]:
        low, high = seen.clock_mhz
        said.append(f"The clock fell from {high:,.0f} to {low:,.0f} MHz: throttling, or a power limit.")
    if seen.throttled:
        said.append(f"The processor slowed itself for heat, {seen.throttled} times; cool it better.")
    if seen.celsius and seen.celsius_limit and seen.celsius[1] > seen.celsius_limit - NEAR_LIMIT_C:
        said.append(f"At {seen.celsius[1]:.0f} °C the processor was near its limit of {seen.celsius_limit:.0f} °C.")
    if seen.other_load is not None and seen.other_load > MOST_OTHER_LOAD:
        said.append(f"Other processes took {seen.other_load:.0%} of the machine's CPU time; end them.")
    if seen.steal is not None and seen.steal > MOST_STEAL:
        said.append(f"The hypervisor gave {seen.steal:.0%} of the CPU time to other guests.")
    return said


def _drift(windows: Sequence[PhaseResult]) -> list[str]:
    rows = {
        "hash rate": [window.hashes_per_s for window in windows],
        "token rate": [window.output_throughput for window in windows],
        "power": [window.power.watts if window.power else None for window in windows],
    }
    said = []
    for name, values in rows.items():
        known = [value for value in values if value is not None]
        if len(known) < max(3, len(windows)):
            continue
        change, t = trend(known)
        share = change / (math.fsum(known) / len(known) or 1.0)
        if abs(share) > MOST_DRIFT and abs(t) > DRIFT_T:
            said.append(f"The {name} drifted by {share:+.1%} over the {len(known)} repeats.")
    return said
