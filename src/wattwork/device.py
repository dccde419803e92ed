"""A device, and the switch between the kinds of work it does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from wattwork import cuda
from wattwork.bounds import gpu_engine, scheduler_config, suited
from wattwork.errors import InvalidInput
from wattwork.latency import latency_of, yields_of
from wattwork.load import SHORT_TOKENS, OfflineLoad, PacedLoad, Tick, run_trace, wait_until
from wattwork.machine import check_threads, default_threads
from wattwork.meters import Meter
from wattwork.report import MODES, Mode, PhaseResult, Power, Switch
from wattwork.scheduler import Handle, Scheduler, SchedulerConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wattwork.engines import ModelConfig, StepEngine
    from wattwork.job import Job
    from wattwork.trace import SizedTrace, Trace

FRONT_MODES: tuple[Mode, ...] = ("infer", "mixed")  # inference is served
BACK_MODES: tuple[Mode, ...] = ("hash", "mixed")  # hashing takes what time is left

__all__ = ["BACK_MODES", "FRONT_MODES", "MODES", "Device", "scheduler_config"]


class Device:
    """One device: idle, hashing, inferring, or both with inference in front.

    `name`: "cpu", or a GPU: "cuda:0" is the first. `threads`: workers of a CPU, for hashing and inference alike
    (default: the CPUs this process may use; an engine made with fewer uses fewer); a GPU takes none. `meter`: where the
    joules come from (default `Meter("auto")`). Use it as a context manager, or `close()` it. DeviceError where the GPU
    is not here or fails.

    On a CPU hashing fills the time in which no step runs. On a GPU it works all along, and the stream of the engine's
    kernels sends it away just before them and lets it come back after them, without a trip through the CPU.
    """

    def __init__(self, name: str = "cpu", *, threads: int | None = None, meter: Meter | None = None) -> None:
        if name != "cpu":
            cuda.gpu(name, threads=threads)  # or it raises
        self.name, self.kind = name, name.partition(":")[0]
        self.meter = meter or Meter("auto", device=name)
        self.threads = suited(name).threads or check_threads(threads) or default_threads()
        self._mode: Mode = "idle"
        self._job: Job | None = None
        self._engine: StepEngine | None = None
        self._trace: Trace | SizedTrace | None = None
        self._scheduler: Scheduler | None = None
        self._offline: OfflineLoad | None = None

    @property
    def mode(self) -> Mode:
        """What it does now: idle, hash, infer or mixed."""
        return self._mode

    @property
    def plays_trace(self) -> bool:
        """Whether `run` plays the trace that is bound: the front is open, and there is one."""
        return self._mode in FRONT_MODES and self._trace is not None

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of what is bound. InvalidInput while nothing is."""
        if self._scheduler is None:
            raise InvalidInput("nothing is bound to the device; bind(job=..., engine=...) first.")
        return self._scheduler

    # ---- what it works on

    def bind(
        self,
        job: Job | None = None,
        engine: StepEngine | None = None,
        trace: Trace | SizedTrace | None = None,
    ) -> Self:
        """Bind exactly these: what the back hashes, the loaded engine, the trace `run` plays (None: flat out).

        Job and trace may change in any mode that does not use them; another engine only while the device is idle. A
        GPU's engine, a `wattwork.engines.GpuEngine`, meets every kind of step here: that may take a minute.
        """
        if engine is not self._engine and self._mode != "idle":
            raise InvalidInput(f"the device is in mode {self._mode!r}; switch('idle') before binding another engine.")
        if job is not self._job and self._mode in BACK_MODES:
            raise InvalidInput(f"the device is in mode {self._mode!r}; switch('idle') before binding another job.")
        for what, its in (("job", job and job.device), ("engine", engine and engine.caps.device)):
            if its not in (None, self.name):
                raise InvalidInput(f"the {what} is for device {its!r}; bind one that was made for {self.name!r}.")
        if trace is not None:
            _check_fits(_plain(trace), engine)
        if engine is not self._engine or self._scheduler is None:
            if self._scheduler is not None:
                self._scheduler.close()
            self._scheduler = self._offline = self._job = self._engine = self._trace = None
            self._scheduler = _scheduler_for(engine, self.name, self.threads)
        self._job, self._engine, self._trace = job, engine, trace
        return self

    def submit(self, tokens: Sequence[int] | NDArray[np.integer[Any]], *, max_tokens: int, **options: Any) -> Handle:
        """A request for the front, as `Scheduler.submit`. InvalidInput unless the mode is infer or mixed."""
        self._check_front()
        return self.scheduler.submit(tokens, max_tokens=max_tokens, **options)

    def _check_front(self) -> None:
        if self._mode not in FRONT_MODES:
            raise InvalidInput(f"the device is in mode {self._mode!r}; switch('infer') or switch('mixed') first.")

    # ---- switching

    def switch(self, mode: Mode) -> Switch:
        """Change over: requests that were accepted are finished first, and nothing of the job is lost.

        `command_s`: until the old work has fully stopped. `first_unit_s`: until the first new quantum of hashing or
        token is done; None where nothing new starts. Both count from the call.
        """
        self._check_bound_for(mode)
        front, back = mode in FRONT_MODES, mode in BACK_MODES
        had_front, had_back = self._mode in FRONT_MODES, self._mode in BACK_MODES
        token, start_s = self.meter.begin(), time.perf_counter()
        if had_back and not back:
            self.scheduler.set_back(None)
        if had_front and not front:
            self._stop_offline()
            self.scheduler.drain()
        self._fence(front and back)
        command_s = time.perf_counter() - start_s
        first_unit_s = None
        if back and not had_back:
            self._start_back()
            first_unit_s = time.perf_counter() - start_s
        elif front and not had_front:
            self.scheduler.submit([0], max_tokens=1).result()
            first_unit_s = time.perf_counter() - start_s
        before, self._mode = self._mode, mode
        return Switch(before, mode, command_s, first_unit_s, self.meter.end(token).joules)

    def _check_bound_for(self, mode: str) -> None:
        if mode not in MODES:
            raise InvalidInput(f"there is no mode {mode!r}; choose one of {', '.join(MODES)}.")
        if mode in BACK_MODES and self._job is None:
            raise InvalidInput(f"mode {mode!r} needs a job to hash; bind(job=Job(work)) first.")
        if mode in FRONT_MODES and self._engine is None:
            raise InvalidInput(f"mode {mode!r} needs an engine; bind(engine=make_engine('tiny-15m')) first.")

    def _fence(self, both: bool) -> None:
        """Whether the engine's stream sends the job away: on a GPU, where both work."""
        if self.kind == "cuda" and self._engine is not None:
            gpu_engine(self._engine).front = self._job if both else None

    def _start_back(self) -> None:
        assert self._job is not None
        before = self._job.units
        self.scheduler.set_back(self._job)
        while self._job.units == before:
            if self.scheduler.stats().back_error:
                self.scheduler.set_back(None)  # raises it
            time.sleep(20e-6)

    def _stop_offline(self) -> None:
        if self._offline is not None:
            self._offline.cancel()
            self._offline = None

    # ---- working

    def offer(self, requests_per_s: float | None) -> None:
        """Until the front is left, `run` sends it short requests (`load.SHORT_TOKENS`) where no trace is bound, evenly
        at that rate; None: flat out. InvalidInput unless the mode is infer or mixed.
        """
        self._check_front()
        if requests_per_s is not None and isinstance(self._offline, PacedLoad):
            self._offline.requests_per_s = requests_per_s  # without a break
            return
        self._stop_offline()
        if requests_per_s is None:
            self._offline = OfflineLoad(self.scheduler, self._model(), *SHORT_TOKENS)
        else:
            self._offline = PacedLoad(self.scheduler, self._model(), requests_per_s)

    def run(self, seconds: float, *, tick: Tick = lambda: None) -> PhaseResult:
        """Work in the present mode for so long, metered over the same window; `tick` is called as it goes.

        With a trace bound the front plays it, and the window lasts until its last request has ended. Without one the
        front is flat out: short prompts, batched, never waiting (`load.OfflineLoad`). RequestFailed if one of the
        trace's requests failed.
        """
        if not seconds > 0:
            raise InvalidInput(f"seconds must be above 0, not {seconds}.")
        front, trace = self._mode in FRONT_MODES, self._trace
        if front and trace is not None:
            self._stop_offline()
            self.scheduler.drain()
        counts = _Counts(self._job, self._scheduler)

        def look() -> None:
            counts.sample()
            tick()

        result, handles = PhaseResult(self._mode, 0.0), list[Handle]()
        with self.meter.window() as window:
            counts.start()
            if front and trace is not None:
                handles = run_trace(self.scheduler, _plain(trace), self._model().vocab, seconds, look)
            elif front:
                result.scenario = "offline"
                self._offline = self._offline or OfflineLoad(self.scheduler, self._model())
                self._offline.run(seconds, look)
            else:
                wait_until(time.perf_counter() + seconds, look)
            counts.sample()
        counts.write_to(result)
        if front and trace is not None:
            _write_trace(result, trace, handles)
        if self._mode == "idle":
            self.meter.set_idle(window.energy)  # the baseline of the windows that follow
        result.power = Power.from_energy(window.energy)
        return result

    def _model(self) -> ModelConfig:
        assert self._engine is not None
        return self._engine.config

    # ---- the end

    def close(self) -> None:
        """Stop everything; requests in flight end as cancelled. The engine is the caller's, and stays open."""
        if self._scheduler is not None:
            self._scheduler.close()
        self._fence(False)
        self._scheduler, self._mode = None, "idle"
        self._job = self._engine = self._trace = self._offline = None
        self.meter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Counts:
    """Work done in a window: the counters of job and scheduler, read together, less what they were at the start."""

    def __init__(self, job: Job | None, scheduler: Scheduler | None) -> None:
        self._job, self._scheduler = job, scheduler
        self._zero: dict[str, Any] = {}
        self._yields = 0
        self.samples: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        stats = self._scheduler.stats() if self._scheduler else None
        return {
            "t_s": time.perf_counter(),
            "hashes": self._job.units if self._job else 0,
            "output_tokens": stats.output_tokens if stats else 0,
            "prompt_tokens": stats.prompt_tokens if stats else 0,
        }

    def start(self) -> None:
        self._yields = self._scheduler.stats().yields if self._scheduler else 0
        self._zero = self._read()

    def sample(self) -> None:
        self.samples.append({name: value - self._zero[name] for name, value in self._read().items()})

    def write_to(self, result: PhaseResult) -> None:
        last = self.samples[-1]
        result.seconds = last["t_s"]
        result.hashes = last["hashes"]
        result.output_tokens, result.prompt_tokens = last["output_tokens"], last["prompt_tokens"]
        result.samples = self.samples
        if self._scheduler and result.mode in BACK_MODES:
            stats = self._scheduler.stats()
            count = stats.yields - self._yields
            result.yields = yields_of(stats.yield_times_ns[-count:] if count else (), count)


def _write_trace(result: PhaseResult, trace: Trace | SizedTrace, handles: list[Handle]) -> None:
    from wattwork.trace import SizedTrace

    for handle in handles:
        handle.result()  # raises for one that failed: latencies of the others alone would say nothing of it
    result.scenario = "trace"
    result.trace = trace.info.to_dict() if isinstance(trace, SizedTrace) else {"source": trace.source}
    result.latency = latency_of([handle.timing for handle in handles])


def _scheduler_for(engine: StepEngine | None, device: str, threads: int) -> Scheduler:
    config = SchedulerConfig() if engine is None else scheduler_config(engine)
    if engine is not None and device != "cpu":
        gpu_engine(engine).warm_up(config.max_num_seqs, config.max_num_batched_tokens, config.max_model_len)
    return Scheduler(config, engine, threads=threads, back_mode=suited(device).back_mode)


def _plain(trace: Trace | SizedTrace) -> Trace:
    from wattwork.trace import SizedTrace

    return trace.trace if isinstance(trace, SizedTrace) else trace


def _check_fits(trace: Trace, engine: StepEngine | None) -> None:
    if engine is None:
        raise InvalidInput("a trace needs an engine to play it to; bind(engine=..., trace=...).")
    longest = int((trace.prompt_tokens + trace.output_tokens).max())
    if longest > engine.caps.max_len:
        raise InvalidInput(
            f"the trace's longest request has {longest} tokens, but the engine takes {engine.caps.max_len}; "
            "size it with size_trace(trace, context=...) first."
        )
