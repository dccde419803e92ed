"""How a counter moves: its update period and its unit, taken from the counter itself at start."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from wattwork.meters.base import Clock

UPDATES = 16  # to see; 16 ms for a counter that is updated each millisecond
BUDGET_S = 0.3  # and no longer than this
POLL_S = 50e-6


@dataclass(frozen=True, slots=True)
class Cadence:
    """`period_s`: between updates, jitter added. `unit_uj`: the smallest step. `watts`: mean power while looking."""

    period_s: float
    unit_uj: int
    watts: float
    readings_uj: tuple[int, ...]
    note: str


def probe(read_uj: Callable[[], int], clock: Clock, budget_s: float = BUDGET_S) -> Cadence:
    """Look at a counter until it moved some times or the budget is spent. Raises what `read_uj` raises.

    The period is the median time between changes plus the spread of its quartiles. A counter that did not move is
    taken to be updated once in the whole budget, and the note says so.
    """
    start_s = clock.now()
    readings = [read_uj()]
    times: list[float] = []  # of the changes
    while len(times) <= UPDATES and clock.now() - start_s < budget_s:
        clock.sleep(POLL_S)
        value = read_uj()
        if value != readings[-1]:
            readings.append(value)
            times.append(clock.now())
    steps = [b - a for a, b in pairwise(readings) if b > a]  # a wrap is no step
    gaps = [b - a for a, b in pairwise(times)]
    unit_uj = math.gcd(*steps) if steps else 1
    if not gaps:
        note = f"the counter was not seen to be updated twice within {budget_s:g} s at start"
        return Cadence(budget_s, unit_uj, 0.0, tuple(readings), note)
    quartiles = statistics.quantiles(gaps, n=4) if len(gaps) > 1 else [gaps[0]] * 3
    period_s = quartiles[1] + (quartiles[2] - quartiles[0])
    watts = sum(steps[1:]) * 1e-6 / (times[-1] - times[0])
    note = f"counter updated each {quartiles[1] * 1e3:.3g} ms; the interval holds that, not the sensor's calibration"
    return Cadence(period_s, unit_uj, watts, tuple(readings), note)
