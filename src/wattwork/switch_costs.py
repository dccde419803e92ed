"""What each switch takes, from switching again and again: seconds and joules of all twelve, with intervals."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import get_args

from wattwork import defaults
from wattwork.device import FRONT_MODES, Device
from wattwork.errors import InvalidInput
from wattwork.figures import SEED, figure
from wattwork.levels import Figure, SwitchCost
from wattwork.load import SHORT_TOKENS
from wattwork.meters import Energy, Meter
from wattwork.method import Progress, check_repeats
from wattwork.report import Mode, Report, Switch
from wattwork.workbench import workbench

CALIBRATE_S = 1.0
DWELL_S = 0.25  # of work in a mode before it is left, so that there is something to stop
_MODES: tuple[Mode, ...] = get_args(Mode)


def switch_costs(
    device: Device,
    *,
    repeats: int = defaults.SWITCH_REPEATS,
    dwell_s: float = DWELL_S,
    seed: int = SEED,
    progress: Progress = lambda step, share: None,
) -> list[SwitchCost]:
    """The cost of each of the twelve switches between idle, hash, infer and mixed, from `repeats` of each.

    `device` has a job and an engine bound, and no trace; it is left idle. Between two switches it works for `dwell_s`
    seconds, inference at `defaults.LOAD` of its flat-out rate: flat out it would leave hashing nothing. The order is a
    walk that takes every switch once, another one each time, drawn by `seed`. Medians with bootstrap intervals. The
    joules are those of the whole device while the switch lasts, and their interval holds the meter's own, too; where
    most of the switches of a pair end before the meter's next update, they are None. InvalidInput for figures that
    cannot be.
    """
    check_repeats(repeats)
    if not 0 < dwell_s <= 3600:
        raise InvalidInput(f"dwell_s must be above 0 and at most 3600, not {dwell_s}.")
    seen: dict[tuple[str, str], list[tuple[Switch, Energy]]] = defaultdict(list)
    order = random.Random(seed)
    progress("switches: the engine's rate", None)
    requests_per_s = _requests_per_s(device)
    device.switch("idle")
    for i in range(repeats):
        for n, (before, after) in enumerate(walk(order)):
            if before in FRONT_MODES:
                device.offer(requests_per_s)
            device.run(dwell_s, tick=partial(progress, f"switches, round {i + 1} of {repeats}", n / 12))
            with device.meter.window() as window:
                switch = device.switch(after)
            seen[before, after].append((switch, window.energy))
    return [_cost(device, seen[before, after]) for before in _MODES for after in _MODES if before != after]


def walk(order: random.Random) -> list[tuple[Mode, Mode]]:
    """From idle to idle over all twelve switches, each once, at random.

    An Euler tour of the complete directed graph on four modes, by Hierholzer's algorithm: it walks on by edges not yet
    used until it is back, and turns the places left behind into detours.
    """
    left = {mode: order.sample([other for other in _MODES if other != mode], len(_MODES) - 1) for mode in _MODES}
    tour: list[Mode] = []
    path: list[Mode] = ["idle"]
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            tour.append(path.pop())
    tour.reverse()
    return list(pairwise(tour))


def _requests_per_s(device: Device) -> float:
    """Of short requests, for the load."""
    device.switch("infer")
    device.offer(None)
    device.run(CALIBRATE_S)
    rate = device.run(CALIBRATE_S).output_throughput or 1.0
    return defaults.LOAD * rate / SHORT_TOKENS[1]


def measure_switches(
    name: str = defaults.DEVICE,
    *,
    repeats: int = defaults.SWITCH_REPEATS,
    model: str = defaults.MODEL,
    threads: int | None = None,
    meter: Meter | None = None,
    seed: int = SEED,
    progress: Progress = lambda step, share: None,
) -> Report:
    """The report of a device whose `switch_costs` are those above. Arguments as `compare` takes them."""
    check_repeats(repeats)
    with workbench(name, model=model, threads=threads, meter=meter, progress=progress) as bench:
        bench.report.switch_costs += switch_costs(bench.device, repeats=repeats, seed=seed, progress=progress)
    return bench.report


def _cost(device: Device, seen: Sequence[tuple[Switch, Energy]]) -> SwitchCost:
    first, energies = seen[0][0], [energy for _, energy in seen]
    command_s = figure([switch.command_s for switch, _ in seen])
    assert command_s is not None
    return SwitchCost(
        first.from_mode,
        first.to_mode,
        command_s,
        figure([switch.first_unit_s for switch, _ in seen]),
        _joules(energies, device.meter.period_s),
        device.meter.kind,
    )


def _joules(energies: Sequence[Energy], period_s: float | None) -> Figure | None:
    """The median; to its interval the half-widths of the meter's own are added on each side."""
    if period_s is not None and median(energy.seconds for energy in energies) < period_s:
        return None
    found = figure([energy.joules for energy in energies])
    own = [(e.joules - e.ci95_j[0], e.ci95_j[1] - e.joules) for e in energies if e.joules is not None and e.ci95_j]
    if found is None or len(own) < len(energies):
        return found
    low, high = found.ci95 or (found.median, found.median)
    below, above = (median(side) for side in zip(*own, strict=True))
    return Figure(found.median, (max(0.0, low - below), high + above), found.n)
