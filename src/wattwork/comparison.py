"""The main job: take a device through its work, compare what it does, and report on each."""

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
from wattwork.errors import InvalidInput, WattworkError
from wattwork.job import Job
from wattwork.load import check_window
from wattwork.machine import describe_device, describe_versions
from wattwork.meters import Meter
from wattwork.method import Progress, measure, ticker
from wattwork.report import Mode, PhaseResult, Proof, Report
from wattwork.trace import Trace, fit_to_context, packaged_trace, prompt_token_ids, size_trace
from wattwork.work import Work

if TYPE_CHECKING:
    from wattwork.engines import ModelConfig

DEVICES = ("cpu",)  # that can do all of it
PROOF_REACH = 20_000  # nonces searched on either side of the true one
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

    Each is measured as `method.measure` does it, in one window, so without intervals of repeats.
    `model`: a preset's name (dummy weights). `threads`: workers (None: the CPUs this process may use). `watts`: the
    operator's own reading, in place of a meter. `load`: share of the engine's prompt capacity that the trace offers.
    A window with a trace lasts until its last request has ended. InvalidInput names an argument that cannot be.
    """
    check_window(seconds, load)
    if name not in DEVICES:
        raise InvalidInput(f"compare does not measure {name!r} yet; choose one of {', '.join(DEVICES)}.")
    config = preset(model)
    with Device(name, threads=threads, meter=Meter("auto", device=name, watts=watts)) as device:
        progress("proof: a known nonce, found again", None)
        report = Report(proof=prove(threads=threads))
        progress(f"loading {model}", None)
        engine = make_engine(config, threads=threads)
        job = Job(Work.from_header(mainnet_header(MAINNET_HEIGHTS[-1])))
        report.device = describe_device(name, isa=job.isa, threads=device.threads) | {"model": model}
        report.versions = describe_versions()
        run = _Run(device, report, seconds, progress)
        device.bind(job, engine)

        run.window("idle")
        run.switch("hash")
        alone = run.window("hash")
        run.switch("infer")
        trace = packaged_trace()  # solo: before the offline window, whose unfinished requests go on running
        tick = ticker(progress, "infer, capacity", CAPACITY_S)
        capacity_tok_s = solo_capacity_tok_s(device, trace, config, tick)
        run.window("infer, offline")
        sized = size_trace(trace, capacity_tok_s=capacity_tok_s, window_s=seconds, context=config.context, load=load)
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


def prove(height: int = MAINNET_HEIGHTS[-1], *, threads: int | None = None) -> Proof:
    """Search around a mainnet block's true nonce: exactly that nonce must be found, and `hashlib` must agree.

    WattworkError if not: then nothing that this build measures is worth anything.
    """
    header = mainnet_header(height)
    true_nonce = int.from_bytes(header[76:80], "little")
    first = max(0, true_nonce - PROOF_REACH)
    count = min(true_nonce + PROOF_REACH + 1, 2**32) - first
    result = search(Work.from_header(header), first, count, threads=threads)
    digest = hashlib.sha256(hashlib.sha256(header).digest()).digest()
    if [(hit.nonce, hit.hash) for hit in result.hits] != [(true_nonce, digest)] or result.hashes != count:
        raise WattworkError(
            f"the search ({result.isa}) did not find exactly the nonce of block {height}: this build is broken; "
            "report it with your processor and compiler."
        )
    return Proof(header.hex(), true_nonce, digest.hex())


def solo_capacity_tok_s(device: Device, trace: Trace, model: ModelConfig, tick: Callable[[], None]) -> float:
    """The engine's solo capacity in prompt tok/s: the trace's own prompts, one after another, nothing behind."""
    lengths = fit_to_context(trace, model.context)[0].prompt_tokens
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

    def switch(self, mode: Mode) -> None:
        self._report.switches.append(self._device.switch(mode))

    def window(self, step: str) -> PhaseResult:
        phase = measure(
            self._device, self._device.mode, seconds=self._seconds, repeats=1, progress=self._progress, step=step
        )
        self._report.phases.append(phase)
        return phase
