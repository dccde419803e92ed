"""The main job: take a device through its work and report on each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from wattwork import defaults
from wattwork._search import search
from wattwork.data import MAINNET_HEIGHTS, mainnet_header
from wattwork.device import Device
from wattwork.engines import make_engine, preset
from wattwork.errors import WattworkError
from wattwork.job import Job
from wattwork.load import check_window
from wattwork.machine import describe_device, describe_versions
from wattwork.meters import Meter
from wattwork.report import Mode, PhaseResult, Proof, Report
from wattwork.trace import Trace, fit_to_context, packaged_trace, prompt_token_ids, size_trace
from wattwork.work import Work

if TYPE_CHECKING:
    from wattwork.engines import ModelConfig

# Told as the work goes: the step, and how far along it is from 0 to 1 (None: no telling).
Progress = Callable[[str, float | None], None]

PROOF_REACH = 20_000  # nonces searched on either side of the true one
WARM_UP_S = 0.5  # flat out before a window: caches, clocks
MOST_WARM_UP_S = 30.0  # however long the first batch takes
CAPACITY_S = 1.5  # prompts are fed at least so long to learn the engine's solo capacity


def compare(
    name: str = defaults.DEVICE,
    *,
    model: str = defaults.MODEL,
    seconds: float = defaults.SECONDS,
    threads: int | None = None,
    watts: float | None = None,
    load: float = defaults.LOAD,
    progress: Progress = lambda step, share: None,
) -> Report:
    """Idle, hash, infer offline, infer on a trace, and mixed, each metered for about `seconds`; and every switch.

    `name`: "cpu", or a GPU: "cuda:0" is the first. `model`: a preset's name (dummy weights). `threads`: workers of a
    CPU (None: those this process may use). `watts`: the operator's own reading, in place of a meter. `load`: share of
    the engine's prompt capacity that the trace offers. A window with a trace lasts until its last request has ended.
    InvalidInput names an argument that cannot be; DeviceError and MeterError say what is not here.
    """
    check_window(seconds, load)
    config = preset(model)
    with Device(name, threads=threads, meter=None if watts is None else Meter(device=name, watts=watts)) as device:
        progress("proof: a known nonce, found again", None)
        report = Report(proof=prove(threads=threads, device=name))
        progress(f"loading {model}", None)
        engine = make_engine(config, threads=threads, device=name)
        job = Job(Work.from_header(mainnet_header(MAINNET_HEIGHTS[-1])), device=name)
        report.device = describe_device(name, isa=job.isa, threads=device.threads) | {"model": model}
        report.versions = describe_versions()
        run = _Run(device, report, seconds, progress)
        device.bind(job, engine)
        longest = device.scheduler.config.max_model_len

        run.window("idle")
        run.switch("hash")
        alone = run.window("hash", warm_up=True)
        run.switch("infer")
        trace = packaged_trace()  # solo: before the offline window, whose unfinished requests go on running
        capacity_tok_s = solo_capacity_tok_s(device, trace, config, run.ticker("infer, capacity", CAPACITY_S))
        run.window("infer, offline", warm_up=True)
        sized = size_trace(trace, capacity_tok_s=capacity_tok_s, window_s=seconds, context=longest, load=load)
        device.bind(job, engine, sized)
        run.window("infer, trace")
        run.switch("mixed")
        mixed = run.window("mixed")
        run.switch("idle")
        if alone.hashes_per_s:
            mixed.harvested_share = (mixed.hashes_per_s or 0.0) / alone.hashes_per_s
        device.close()
        engine.close()
    return report


def prove(height: int = MAINNET_HEIGHTS[-1], *, threads: int | None = None, device: str = "cpu") -> Proof:
    """Search around a mainnet block's true nonce: exactly that nonce must be found, and `hashlib` must agree.

    WattworkError if not: then nothing that this build measures is worth anything.
    """
    header = mainnet_header(height)
    true_nonce = int.from_bytes(header[76:80], "little")
    first = max(0, true_nonce - PROOF_REACH)
    count = min(true_nonce + PROOF_REACH + 1, 2**32) - first
    result = search(Work.from_header(header), first, count, threads=threads, device=device)
    digest = hashlib.sha256(hashlib.sha256(header).digest()).digest()
    if [(hit.nonce, hit.hash) for hit in result.hits] != [(true_nonce, digest)] or result.hashes != count:
        raise WattworkError(
            f"the search ({result.isa}) did not find exactly the nonce of block {height}: this build is broken; "
            "report it with your processor or GPU, and compiler."
        )
    return Proof(header.hex(), true_nonce, digest.hex())


def solo_capacity_tok_s(device: Device, trace: Trace, model: ModelConfig, tick: Callable[[], None]) -> float:
    """The engine's solo capacity in prompt tok/s: the trace's own prompts, one after another, nothing behind."""
    lengths = fit_to_context(trace, device.scheduler.config.max_model_len)[0].prompt_tokens
    device.submit(prompt_token_ids(1, 0, 16, model.vocab), max_tokens=1).result()
    start_s, done, i = time.perf_counter(), 0, 0
    while (spent_s := time.perf_counter() - start_s) < CAPACITY_S:
        length = int(lengths[i % len(lengths)])
        device.submit(prompt_token_ids(1, i, length, model.vocab), max_tokens=1).result()
        done, i = done + length, i + 1
        tick()
    return done / spent_s


class _Run:
    """The windows and switches of one run, written into one report."""

    def __init__(self, device: Device, report: Report, seconds: float, progress: Progress) -> None:
        self._device, self._report, self._seconds, self._progress = device, report, seconds, progress

    def ticker(self, step: str, seconds: float) -> Callable[[], None]:
        """Something to call often; it tells how far along the step is."""
        start_s = time.perf_counter()
        self._progress(step, 0.0)
        return lambda: self._progress(step, min(1.0, (time.perf_counter() - start_s) / seconds))

    def switch(self, mode: Mode) -> None:
        self._report.switches.append(self._device.switch(mode))

    def _warm_up(self, step: str) -> None:
        """Flat out for WARM_UP_S; inference until a batch of requests has come and gone.

        Before that a window sees the first batch's prompts and hardly any output: its length would make the rate.
        """
        scheduler, until_s = self._device.scheduler, time.perf_counter() + MOST_WARM_UP_S
        batch = scheduler.config.max_num_seqs if self._device.mode == "infer" else 0
        enough = scheduler.stats().finished + batch
        self._device.run(WARM_UP_S, tick=lambda: self._progress(step, None))
        while scheduler.stats().finished < enough and time.perf_counter() < until_s:
            self._device.run(WARM_UP_S, tick=lambda: self._progress(step, None))

    def window(self, step: str, *, warm_up: bool = False) -> PhaseResult:
        if warm_up:
            self._warm_up(f"{step}: warm-up")
        phase = self._device.run(self._seconds, tick=self.ticker(step, self._seconds))
        self._report.phases.append(phase)
        return phase
