"""Load levels: what a device does and draws at 100 % of its rate, at 90 %, ..., and standing by.

As SPECpower_ssj2008 has it (Run and Reporting Rules, 2.3.2, https://www.spec.org/power/docs/
SPECpower_ssj2008-Run_Reporting_Rules.html): a calibration finds the full rate, then the target loads follow from the
highest down, active idle comes last: ready for work, and given none. Here the calibration is the full level itself.

A controller corrects the share that is set until the rate that is measured is within SETTLED of the target, and goes
on between the windows. A level that ends further than WITHIN away is measured again, and if it stays so says so.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from wattwork import defaults
from wattwork.conditions import Watch
from wattwork.device import Device
from wattwork.errors import InvalidInput, whole
from wattwork.figures import figure
from wattwork.knobs import Duty, Knob, Rate, Threads
from wattwork.levels import Level, Unit
from wattwork.load import SHORT_TOKENS, check_window
from wattwork.machine import check_threads
from wattwork.meters import Meter
from wattwork.method import Progress, both, check_repeats, ticker, unsteady, warm_up
from wattwork.report import PhaseResult, Report
from wattwork.trust import doubts
from wattwork.workbench import workbench

By = Literal["duty", "threads"]
Kinds = Literal["hash", "infer", "both"]

WITHIN = 0.02  # of its target a level's load must be
SETTLED = 0.01  # the controller aims at that
SETTLE_ROUNDS = 8
SETTLE_SHARE = 0.1  # of a window's length, for the short ones before it,
LEAST_SETTLE_S = 1.0  # and so long at least, or half a window
TRIES = 2
LEAST_SHARE = 1e-4
MOST_FACTOR = 2.0  # of one correction
MOST_LEVELS = 100


def ladder(
    name: str = defaults.DEVICE,
    *,
    mode: Kinds = "both",
    levels: int = defaults.LEVELS,
    seconds: float = defaults.LADDER_SECONDS,
    repeats: int = defaults.LADDER_REPEATS,
    by: By = "duty",
    model: str = defaults.MODEL,
    threads: int | None = None,
    meter: Meter | None = None,
    progress: Progress = lambda step, share: None,
) -> Report:
    """The report of a device whose `ladder` holds the levels of hashing, then of inference, then active idle.

    `mode`: which of the two. `levels`: how many, evenly from the full rate down. Each is measured in `repeats` windows
    of `seconds`. `by`: hashing is slowed by duty cycle, or by threads. The rest as `compare` takes it. InvalidInput
    names an argument that cannot be.
    """
    _check(name, mode=mode, levels=levels, seconds=seconds, by=by, threads=threads)
    steps = Ladder(levels, seconds, check_repeats(repeats), progress)
    needed = model if mode != "hash" else None
    with workbench(name, model=needed, threads=threads, meter=meter, progress=progress) as bench:
        device, report = bench.device, bench.report
        report.device["hashing_by"] = by if mode != "infer" else None
        if mode != "infer" and by == "duty":
            report.ladder += steps.climb(Duty(device))
            device.scheduler.throttle()
        elif mode != "infer":
            with closing(Threads(device, bench.job)) as knob:
                report.ladder += steps.climb(knob)
        if bench.engine is not None:
            report.ladder += steps.climb(Rate(device))
            report.device["requests"] = {
                "prompt_tokens": SHORT_TOKENS[0],
                "output_tokens": SHORT_TOKENS[1],
                "even": True,
            }
        device.switch("idle")
        report.ladder.append(steps.active_idle(device))
    return report


def _check(name: str, *, mode: str, levels: int, seconds: float, by: str, threads: int | None) -> None:
    check_window(seconds, 1.0)
    check_threads(threads)
    for what, value, among in (("mode", mode, get_args(Kinds)), ("by", by, get_args(By))):
        if value not in among:
            raise InvalidInput(f"{what} must be one of {', '.join(among)}, not {value!r}.")
    if not 1 <= whole("levels", levels) <= MOST_LEVELS:
        raise InvalidInput(f"levels must be from 1 to {MOST_LEVELS}, not {levels}.")
    if by == "threads" and name != "cpu":
        raise InvalidInput(f"levels by threads are the CPU's; choose by duty for {name!r}.")


@dataclass(frozen=True, slots=True)
class Ladder:
    """How the levels are measured."""

    levels: int
    seconds: float  # of a window
    repeats: int  # windows of a level
    progress: Progress

    def climb(self, knob: Knob) -> list[Level]:
        """The levels of one kind of work, from the full one down. InvalidInput if that one does nothing."""
        knob.set(1.0, None)
        doubt = unsteady(*warm_up(knob.device, self.seconds, lambda: self.progress(f"{knob.mode}: warm-up", None)))
        full, share = self._measured(knob, 1.0, 1.0, None)
        if not full.units_per_s or not full.units_per_s.median:
            raise InvalidInput(f"in windows of {self.seconds:g} s the device did nothing; give more seconds.")
        made = [replace(full, warnings=(*doubt, *full.warnings))]
        for i in range(self.levels - 1, 0, -1):
            share *= i / (i + 1)
            for _ in range(TRIES):
                share = self._settled(knob, i / self.levels, share, full.units_per_s.median)
                level, share = self._measured(knob, i / self.levels, share, full.units_per_s.median)
                if not missed(level):
                    break
            made.append(level)
        return made

    def active_idle(self, device: Device) -> Level:
        """Ready for work, and given none."""
        doubt = unsteady(*warm_up(device, self.seconds, lambda: self.progress("active idle: warm-up", None)))
        watch = Watch(device.name)
        windows = [self._window(device, f"active idle, {i + 1} of {self.repeats}", watch) for i in range(self.repeats)]
        level = _level(None, device, windows, 0.0, None)
        return replace(level, warnings=(*doubt, *doubts(windows, watch.conditions(), flat_out=False)))

    def _settled(self, knob: Knob, target: float, share: float, full_units_per_s: float) -> float:
        """The share with which a short window comes near the target, or the last one tried.

        A correction that went past the target halves the ones that follow: the rate need not follow the share.
        """
        gain, below = 1.0, None
        seconds = max(SETTLE_SHARE * self.seconds, min(LEAST_SETTLE_S, self.seconds / 2))
        for _ in range(SETTLE_ROUNDS):
            knob.set(share, full_units_per_s)
            tick = partial(self.progress, f"{knob.mode} at {target:.0%}: settling", None)
            window = knob.device.run(seconds, tick=tick)
            load = _units_per_s([window], knob.unit) / full_units_per_s
            if abs(load / target - 1) <= SETTLED:
                break
            if below not in (None, load < target):
                gain /= 2
            below = load < target
            share = corrected(share, target, load, gain)
        return share

    def _measured(self, knob: Knob, target: float, share: float, full_units_per_s: float | None) -> tuple[Level, float]:
        """The level, and the share it ended with."""
        watch = Watch(knob.device.name)
        windows: list[PhaseResult] = []
        for i in range(self.repeats):
            if windows and full_units_per_s:
                load = _units_per_s(windows, knob.unit) / full_units_per_s
                share = share if abs(load / target - 1) <= SETTLED else corrected(share, target, load, 0.5)
            if full_units_per_s:
                knob.set(share, full_units_per_s)
            windows.append(self._window(knob.device, f"{knob.mode} at {target:.0%}, {i + 1} of {self.repeats}", watch))
        level = _level(knob, knob.device, windows, target, full_units_per_s)
        full = full_units_per_s is None
        doubt = doubts(windows, watch.conditions(), flat_out=full, still=full)
        return replace(level, warnings=(*missed(level), *doubt)), share

    def _window(self, device: Device, step: str, watch: Watch) -> PhaseResult:
        return device.run(self.seconds, tick=both(watch.look, ticker(self.progress, step, self.seconds)))


def corrected(share: float, target: float, load: float, gain: float = 1.0) -> float:
    """The share to set next, where this one gave that load: in proportion, by MOST_FACTOR at most.

    `gain` 1 is right where the load follows the share; less is careful.
    """
    factor = (target / load) ** gain if load > 0 else MOST_FACTOR
    return min(1.0, max(LEAST_SHARE, share * min(MOST_FACTOR, max(1 / MOST_FACTOR, factor))))


def missed(level: Level) -> tuple[str, ...]:
    """What to say of a level that is further than WITHIN from its target; () of one that is not."""
    if level.load is None or abs(level.load / level.target - 1) <= WITHIN:
        return ()
    return (f"The load was {level.load:.1%}, not {level.target:.0%} within {WITHIN:.0%}; give more seconds.",)


def _units_per_s(windows: list[PhaseResult], unit: Unit) -> float:
    seconds = sum(window.seconds for window in windows)
    return sum(getattr(window, unit) for window in windows) / seconds if seconds else 0.0


def _level(knob: Knob | None, device: Device, windows: list[PhaseResult], target: float, full: float | None) -> Level:
    """From its windows; without a knob it is active idle, without `full` units per second the full level."""
    watts = figure([window.power.watts if window.power else None for window in windows])
    seconds = sum(window.seconds for window in windows)
    if knob is None:
        return Level("idle", 0.0, None, None, None, watts, device.meter.kind, seconds)
    rates = figure([_units_per_s([window], knob.unit) for window in windows])
    load = rates.median / (full or rates.median) if rates and rates.median else 0.0
    return Level(knob.mode, target, load, knob.unit, rates, watts, device.meter.kind, seconds)
