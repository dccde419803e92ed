"""A trace played live: inference in front, hashing behind it, and what both did."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wattwork.bounds import scheduler_config
from wattwork.comparison import CAPACITY_S, solo_capacity_tok_s
from wattwork.device import Device
from wattwork.engines import make_engine, preset
from wattwork.job import Job
from wattwork.latency import Yields, yields_of
from wattwork.load import OfflineLoad, run_trace
from wattwork.machine import default_threads
from wattwork.meters import Meter
from wattwork.recording import replay
from wattwork.scheduler import Scheduler
from wattwork.serving import SLO
from wattwork.simulation import CostModel, Replay
from wattwork.trace import SizedTrace, Trace, size_trace
from wattwork.work import Work

if TYPE_CHECKING:
    from wattwork.engines import StepEngine
    from wattwork.scheduler import SchedulerConfig

WARM_UP_S, SOLO_S = 0.3, 1.5  # of hashing alone
COST_S = 2.0  # flat out, to fit a step's cost
LOG_NAME = "run.wwlog"

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Harvest:
    """What the back did while the trace was played."""

    hashes: int
    seconds: float  # from before the first request to after the last one's end
    solo_hashes_per_s: float  # hashing alone, measured just before
    idle_s: float  # of `seconds`, those in which no step was under way
    busy_s: float  # of `seconds`, those in which the back worked
    yields: Yields | None

    @property
    def hashes_per_s(self) -> float:
        """Over the whole time."""
        return self.hashes / self.seconds

    @property
    def share_of_solo(self) -> float:
        """Of the rate of hashing alone, over the whole time."""
        return self.hashes_per_s / self.solo_hashes_per_s

    @property
    def share_of_idle(self) -> float | None:
        """Of what hashing alone does in the idle time."""
        return self.hashes / (self.solo_hashes_per_s * self.idle_s) if self.idle_s > 0 else None

    @property
    def rate_while_working(self) -> float | None:
        """Its rate while it worked, over that of hashing alone."""
        return self.hashes / (self.solo_hashes_per_s * self.busy_s) if self.busy_s > 0 else None

    def to_dict(self) -> dict[str, object]:
        """As in the JSON."""
        names = ("hashes_per_s", "share_of_solo", "share_of_idle", "rate_while_working")
        return asdict(self) | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Played:
    """A trace as it was played: the figures are those of its log, replayed."""

    run: Replay
    sized: SizedTrace
    config: SchedulerConfig
    harvest: Harvest | None


def play(
    trace: Trace,
    *,
    model: str,
    seconds: float,
    load: float,
    threads: int | None,
    back: bool,
    header: bytes,
    slo: SLO,
    progress: Progress,
) -> Played:
    """Measure what the engine and hashing do alone, size the trace, play it, and replay the log of it."""
    progress(f"loading {model}", 0.0)
    with closing(make_engine(preset(model), threads=threads)) as engine:
        job = Job(Work.from_header(header)) if back else None
        with _device(threads) as device:
            device.bind(job, engine)
            solo = 0.0
            if job is not None:
                progress("hashing alone", 0.0)
                solo = solo_hashes_per_s(device, _ticker(progress, "hashing alone", SOLO_S))
            device.switch("infer")
            tick = _ticker(progress, "the engine's capacity", CAPACITY_S)
            capacity_tok_s = solo_capacity_tok_s(device, trace, engine.config, tick)
        sized = size_trace(
            trace, capacity_tok_s=capacity_tok_s, window_s=seconds, context=engine.config.context, load=load
        )
        config = scheduler_config(engine)
        tick = _ticker(progress, "playing the trace", sized.duration_s)
        run, harvest = play_once(sized, config, engine, job, threads=threads, solo=solo, slo=slo, tick=tick)
    return Played(run, sized, config, harvest)


def play_once(
    sized: SizedTrace,
    config: SchedulerConfig,
    engine: StepEngine,
    job: Job | None,
    *,
    threads: int | None,
    solo: float,
    slo: SLO,
    tick: Callable[[], None],
) -> tuple[Replay, Harvest | None]:
    """Play a sized trace to the engine, the job behind it; `solo` is what the job does alone, in hashes per second."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / LOG_NAME
        with Scheduler(config, engine, job, threads=threads or default_threads(), record=log) as scheduler:
            time.sleep(WARM_UP_S)
            begin_s, before = time.perf_counter(), job.units if job else 0
            begun = scheduler.stats()
            run_trace(scheduler, sized.trace, engine.config.vocab, sized.duration_s, tick)
            scheduler.set_back(None)
            took_s, stats = time.perf_counter() - begin_s, scheduler.stats()
        run = replay(log, slo=slo)
    if job is None:
        return run, None
    count = stats.yields - begun.yields
    harvest = Harvest(
        hashes=job.units - before,
        seconds=took_s,
        solo_hashes_per_s=solo,
        idle_s=took_s - (run.virtual_s - run.metrics["idle_s"]),
        busy_s=(stats.back_busy_ns - begun.back_busy_ns) / 1e9,
        yields=yields_of(stats.yield_times_ns[-count:] if count else (), count),
    )
    return run, harvest


def solo_hashes_per_s(device: Device, tick: Callable[[], None] = lambda: None) -> float:
    """The rate of what is bound to the device, alone."""
    device.switch("hash")
    device.run(WARM_UP_S)
    return device.run(SOLO_S, tick=tick).hashes_per_s or 0.0


def measure_cost(trace: Trace, *, model: str, threads: int | None, progress: Progress) -> CostModel:
    """What a step costs on this machine's engine: prompts alone, then batches, as the scheduler's own fit has it."""
    progress(f"loading {model}", 0.0)
    with closing(make_engine(preset(model), threads=threads)) as engine, _device(threads) as device:
        device.bind(None, engine)
        device.switch("infer")
        tick = _ticker(progress, "a step's cost", CAPACITY_S + COST_S)
        solo_capacity_tok_s(device, trace, engine.config, tick)
        OfflineLoad(device.scheduler, engine.config).run(COST_S, tick)
        return CostModel(*device.scheduler.stats().step_cost_s)


def _device(threads: int | None) -> Device:
    return Device("cpu", threads=threads, meter=Meter("estimate"))


def _ticker(progress: Progress, step: str, seconds: float) -> Callable[[], None]:
    start_s = time.perf_counter()
    return lambda: progress(step, min(1.0, (time.perf_counter() - start_s) / seconds))
