"""From a report to a profile: the ladder's levels where there is one, and the phases' two ends where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from wattwork.errors import InvalidInput
from wattwork.levels import Z95, Figure, Level, Unit
from wattwork.meters.base import KINDS
from wattwork.profile import NAN, TABLES, Floats, Profile, unknown_switches
from wattwork.report import Mode, PhaseResult, Report

KINDS_OF_WORK: dict[Mode, Unit] = {"hash": "hashes", "infer": "output_tokens"}
_LADDER = "levels of a ladder"
_PHASES = "windows at full load alone; what lies between them and idle is drawn as a straight line"


class _Row(NamedTuple):
    """A level, in the order of TABLES."""

    load: float
    watts: float
    units_per_s: float
    sigma_w: float
    sigma_units_per_s: float


def profile_of(report: Report, date: str | None = None) -> Profile:
    """The report's profile: modes idle, hash, infer and mixed, those that it knows.

    Hash and infer have the ladder's levels, at the loads that were reached; where there is no ladder, the phase at
    full load alone (of infer, the offline one). Load 0 is active idle, where that is known. Idle and mixed have one
    speed, so their levels differ in load alone; mixed does two kinds of work, so its units_per_s is unknown. A mode
    with fewer levels than another gets more by interpolation, which changes nothing of what `at` answers. A switch
    lasts until the first new unit is done. InvalidInput if the report knows no mode.
    """
    idle = _idle(report)
    rows: dict[Mode, list[_Row]] = {}
    if idle:
        rows["idle"] = [idle]
    for mode in KINDS_OF_WORK:
        levels = _levels(report, mode)
        if levels and idle and levels[0].load > 0:
            levels.insert(0, idle._replace(load=0.0, sigma_units_per_s=0.0))
        if levels:
            rows[mode] = levels
    mixed = report.phase("mixed")
    if mixed:
        rows["mixed"] = [_phase_row(mixed, 0.0, NAN)]
    if not rows:
        raise InvalidInput("the report has neither levels nor phases, so there is nothing to make a profile of.")
    n_levels = max(map(len, rows.values()))
    tables = np.array([_rectangular(mode, levels, n_levels) for mode, levels in rows.items()])
    modes = tuple(rows)
    seconds, joules = _switches(report, modes)
    return Profile(
        device=str(report.device.get("name", "unknown")),
        modes=modes,
        units=tuple(KINDS_OF_WORK.get(mode) for mode in modes),
        source=_source(report),
        date=date,
        detail=_LADDER if any(level.mode != "idle" for level in report.ladder) else _PHASES,
        **dict(zip(TABLES, np.moveaxis(tables, 2, 0), strict=True)),
        switch_s=seconds,
        switch_j=joules,
    )


def _idle(report: Report) -> _Row | None:
    level = next((level for level in report.ladder if level.mode == "idle"), None)
    if level:
        return _Row(0.0, _median(level.watts), 0.0, _sigma(level.watts), 0.0)
    phase = report.phase("idle")
    return _phase_row(phase, 0.0, 0.0)._replace(sigma_units_per_s=0.0) if phase else None


def _levels(report: Report, mode: Mode) -> list[_Row]:
    """Ascending in load. Of two at one load the later target stays: that was asked to do more."""
    rungs = sorted((level for level in report.ladder if level.mode == mode), key=lambda level: level.target)
    found = {row.load: row for row in map(_level_row, rungs) if row}
    if found:
        return [found[load] for load in sorted(found)]
    phase = _full(report, mode)
    rate = phase and (phase.hashes_per_s if mode == "hash" else phase.output_throughput)
    return [_phase_row(phase, 1.0, rate)] if phase and rate else []


def _full(report: Report, mode: Mode) -> PhaseResult | None:
    """The phase at full load: a trace's arrivals are no full load."""
    return next((phase for phase in report.phases if phase.mode == mode and phase.scenario != "trace"), None)


def _level_row(level: Level) -> _Row | None:
    if level.load is None or level.units_per_s is None:
        return None
    load = min(max(level.load, 0.0), 1.0)  # noise leads a little beyond the full level's rate
    rate = level.units_per_s
    return _Row(load, _median(level.watts), rate.median, _sigma(level.watts), _sigma(rate))


def _phase_row(phase: PhaseResult, load: float, units_per_s: float) -> _Row:
    power = phase.power
    watts = NAN if power is None or power.watts is None else power.watts
    sigma_w = _half(power.ci95_j) / phase.seconds / Z95 if power and power.ci95_j and phase.seconds else NAN
    return _Row(load, watts, units_per_s, sigma_w, NAN)


def _rectangular(mode: Mode, levels: Sequence[_Row], n_levels: int) -> list[_Row]:
    """As many levels as the longest mode has."""
    levels = list(levels)
    if len(levels) == 1:
        loads = np.linspace(0, 1, n_levels) if n_levels > 1 else [levels[0].load]
        if mode in KINDS_OF_WORK:  # known at this load alone: the others lie as close below it as numbers can
            loads = _crowd(levels[0].load, n_levels)
        return [levels[0]._replace(load=float(load)) for load in loads]
    while len(levels) < n_levels:  # halve the widest gap
        i = max(range(1, len(levels)), key=lambda i: levels[i].load - levels[i - 1].load)
        levels.insert(i, _Row(*((low + high) / 2 for low, high in zip(levels[i - 1], levels[i], strict=True))))
    return levels


def _crowd(load: float, n: int) -> list[float]:
    loads = [load]
    while len(loads) < n:
        loads.insert(0, float(np.nextafter(loads[0], 0)))
    return loads


def _switches(report: Report, modes: Sequence[Mode]) -> tuple[Floats, Floats]:
    """Medians of the repeated switches; where there are none, of the report's single ones."""
    seconds, joules = unknown_switches(len(modes)), unknown_switches(len(modes))
    single: dict[tuple[Mode, Mode], list[tuple[float, float | None]]] = {}
    for s in report.switches:
        lasted_s = s.command_s if s.first_unit_s is None else s.first_unit_s
        single.setdefault((s.from_mode, s.to_mode), []).append((lasted_s, s.joules))
    found = {
        pair: (median(s for s, _ in several), _median_of([j for _, j in several if j is not None]))
        for pair, several in single.items()
    }
    for cost in report.switch_costs:
        found[cost.from_mode, cost.to_mode] = (cost.first_unit_s or cost.command_s).median, _median(cost.joules)
    for (from_mode, to_mode), (lasted_s, spent_j) in found.items():
        if from_mode != to_mode and from_mode in modes and to_mode in modes:
            at = modes.index(from_mode), modes.index(to_mode)
            seconds[at], joules[at] = lasted_s, spent_j
    return seconds, joules


def _source(report: Report) -> str:
    """A profile has one source: the least certain one of the report."""
    sources = [phase.power.source for phase in report.phases if phase.power]
    sources += [level.source for level in report.ladder]
    return max(sources, key=KINDS.index, default="estimated")  # KINDS go from the most certain to the least


def _median(figure: Figure | None) -> float:
    return NAN if figure is None else figure.median


def _median_of(figures: Sequence[float]) -> float:
    return median(figures) if figures else NAN


def _sigma(figure: Figure | None) -> float:
    return NAN if figure is None or figure.ci95 is None else _half(figure.ci95) / Z95


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
