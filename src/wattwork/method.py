"""How a phase is measured: warmed up until it is steady, long enough, repeatedly, and told where it is doubtful."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from wattwork.conditions import Watch
from wattwork.errors import InvalidInput, whole
from wattwork.figures import LOOK, figure, is_steady
from wattwork.latency import Latency, Yields
from wattwork.levels import LEAST_S, Figure, Method
from wattwork.load import Tick, check_window
from wattwork.report import Mode, PhaseResult, Power
from wattwork.trust import doubts

if TYPE_CHECKING:
    from wattwork.device import Device

# Told as the work goes: the step, and how far along it is from 0 to 1 (None: no telling).
Progress = Callable[[str, float | None], None]

REPEATS = 5
QUICK_S, QUICK_REPEATS = 5.0, 3

WARM_UP_WINDOWS = 40  # of a warm-up at most, LOOK at least; more would take `compare` past 90 s
WARM_UP_S = 1.0  # each, where the windows that follow last a minute
LEAST_WARM_UP_S = 0.02
MOST_BATCH_S = 30.0  # however long the first batch takes


def measure(
    device: Device,
    mode: Mode,
    *,
    seconds: float | None = None,
    repeats: int | None = None,
    quick: bool = False,
    watch: Callable[[], Watch] | None = None,
    progress: Progress = lambda step, share: None,
    step: str = "",
) -> PhaseResult:
    """Measure a mode of a device that has bound what the mode needs; it is left in that mode.

    First it warms up until throughput and power are steady (`figures.is_steady`), at most for two thirds of a window's
    length. Then `repeats` windows (default 5) of `seconds` each (default 60), energy and work of the same window;
    `quick` makes that 3 of 5 s. In sum they are the phase; its `method` has the windows' medians with their intervals,
    `conditions` the machine's clock and temperature, and `warnings` says in sentences why it should not be trusted.
    A phase of less than 60 s says that it is quick. With a trace bound each window plays it from its start, which has
    no steady state to wait for. `watch` makes what looks at the machine. InvalidInput for lengths that cannot be.
    """
    seconds = (QUICK_S if quick else LEAST_S) if seconds is None else seconds
    repeats = (QUICK_REPEATS if quick else REPEATS) if repeats is None else check_repeats(repeats)
    check_window(seconds, 1.0)
    if device.mode != mode:
        device.switch(mode)
    step = step or mode
    steady, warm_up_s = None, 0.0
    if not device.plays_trace:
        steady, warm_up_s = warm_up(device, seconds, lambda: progress(f"{step}: warm-up", None))
    watched = watch() if watch else Watch(device.name)
    windows = []
    for i in range(repeats):
        name = f"{step}, {i + 1} of {repeats}" if repeats > 1 else step
        windows.append(device.run(seconds, tick=both(watched.look, ticker(progress, name, seconds))))
    conditions = watched.conditions()
    phase = together(windows)
    phase.method = Method(repeats, phase.seconds < LEAST_S, steady, warm_up_s, figures(windows))
    phase.conditions = conditions
    flat_out = mode != "idle" and steady is not None
    phase.warnings = (*unsteady(steady, warm_up_s), *doubts(windows, conditions, flat_out=flat_out))
    return phase


def check_repeats(repeats: int) -> int:
    """InvalidInput unless it is a whole number from 1 to 10,000."""
    if not 1 <= whole("repeats", repeats) <= 10_000:
        raise InvalidInput(f"repeats must be from 1 to 10000, not {repeats}.")
    return repeats


def ticker(progress: Progress, step: str, seconds: float) -> Tick:
    """Something to call often; it tells how far along the step is."""
    start_s = time.perf_counter()
    progress(step, 0.0)
    return lambda: progress(step, min(1.0, (time.perf_counter() - start_s) / seconds))


def both(first: Tick, second: Tick) -> Tick:
    """One after the other."""

    def tick() -> None:
        first()
        second()

    return tick


def warm_up(device: Device, seconds: float, tick: Tick) -> tuple[bool, float]:
    """Work until throughput and power are steady, before windows of so many seconds: (whether they are, seconds spent).

    Short windows, WARM_UP_WINDOWS of them at most; each sees some updates of the meter. Inference also until a batch
    of requests has come and gone: before that a window sees the first one's prompts and hardly any output.
    """
    window_s = max(LEAST_WARM_UP_S, WARM_UP_S * min(1.0, seconds / LEAST_S), 2 * (device.meter.period_s or 0.0))
    spent_s = _first_batch(device, window_s, tick)
    rates: list[float] = []
    watts: list[float] = []
    for n in range(1, WARM_UP_WINDOWS + 1):
        window = device.run(window_s, tick=tick)
        spent_s += window.seconds
        rates.append((window.hashes + window.output_tokens) / window.seconds)
        if window.power and window.power.watts is not None:
            watts.append(window.power.watts)
        if n >= LOOK and is_steady(rates) and (len(watts) < n or is_steady(watts)):
            return True, spent_s
    return False, spent_s


def _first_batch(device: Device, window_s: float, tick: Tick) -> float:
    if device.mode != "infer":
        return 0.0
    scheduler, spent_s = device.scheduler, 0.0
    enough = scheduler.stats().finished + scheduler.config.max_num_seqs
    while scheduler.stats().finished < enough and spent_s < MOST_BATCH_S:
        spent_s += device.run(window_s, tick=tick).seconds
    return spent_s


def unsteady(steady: bool | None, warm_up_s: float) -> tuple[str, ...]:
    """What to say of a warm-up's end; () where that was steady, or there was none."""
    if steady is not False:
        return ()
    return (f"Throughput or power was not steady after a warm-up of {warm_up_s:.1f} s.",)


def figures(windows: Sequence[PhaseResult]) -> dict[str, Figure]:
    """Medians over the windows, under the names of PhaseResult's figures; only those that every window has."""
    names = ("hashes_per_s", "output_throughput", "prompt_throughput", "hashes_per_joule", "output_tokens_per_joule")
    rows: dict[str, list[float | None]] = {name: [getattr(window, name) for window in windows] for name in names}
    rows["watts"] = [window.power.watts if window.power else None for window in windows]
    made = {name: figure(values) for name, values in rows.items()}
    return {name: value for name, value in made.items() if value}


def together(windows: Sequence[PhaseResult]) -> PhaseResult:
    """Windows of one mode, one after another, as one: sums of time, work and energy; latencies are medians."""
    if len(windows) == 1:
        return windows[0]
    latencies = [window.latency for window in windows if window.latency]
    yields = [window.yields for window in windows if window.yields]
    return replace(
        windows[0],
        seconds=sum(window.seconds for window in windows),
        hashes=sum(window.hashes for window in windows),
        output_tokens=sum(window.output_tokens for window in windows),
        prompt_tokens=sum(window.prompt_tokens for window in windows),
        power=_power(windows),
        latency=Latency(**{name: _middle(latencies, name) for name in Latency.__slots__}) if latencies else None,
        yields=Yields(
            sum(part.count for part in yields),
            median(part.p50_us for part in yields),
            median(part.p90_us for part in yields),
        )
        if yields
        else None,
        samples=_samples(windows),
    )


def _middle(parts: Sequence[object], name: str) -> float | None:
    known = [value for part in parts if (value := getattr(part, name)) is not None]
    return median(known) if known else None


def _power(windows: Sequence[PhaseResult]) -> Power | None:
    """The sum. Its interval is the sum of theirs, as if all erred to the same side: what they share, they do."""
    powers = [window.power for window in windows if window.power]
    if len(powers) < len(windows):
        return None
    last = next((power for power in powers if power.joules is None), powers[-1])
    joules = [power.joules for power in powers if power.joules is not None]
    intervals = [power.ci95_j for power in powers if power.ci95_j]
    coverages = [power.coverage for power in powers if power.coverage is not None]
    updates = [power.updates for power in powers if power.updates is not None]
    whole_j = sum(joules) if len(joules) == len(powers) else None
    seconds = sum(window.seconds for window in windows)
    return replace(
        last,
        joules=whole_j,
        watts=None if whole_j is None else whole_j / seconds,
        ci95_j=_sum_of(intervals) if whole_j is not None and len(intervals) == len(powers) else None,
        coverage=min(coverages, default=None),
        updates=sum(updates) if len(updates) == len(powers) else None,
        warnings=tuple(dict.fromkeys(said for power in powers for said in power.warnings)),
    )


def _sum_of(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(low for low, _ in intervals), sum(high for _, high in intervals)


def _samples(windows: Sequence[PhaseResult]) -> list[dict[str, Any]]:
    """Those of each window, counted on from the end of the one before."""
    samples: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for window in windows:
        part = [{name: value + before.get(name, 0) for name, value in sample.items()} for sample in window.samples]
        samples += part
        before = part[-1] if part else before
    return samples
