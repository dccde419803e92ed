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
from wattwork.engines import preset
from wattwork.errors import WattworkError
from wattwork.load import check_window
from wattwork.meters import Meter
from wattwork.method import Progress, measure, ticker
from wattwork.report import Mode, PhaseResult, Proof, Report
from wattwork.trace import Trace, fit_to_context, packaged_trace, prompt_token_ids, size_trace
from wattwork.work import Work
from wattwork.workbench import workbench

if TYPE_CHECKING:
    from wattwork.engines import ModelConfig

PROOF_REACH = 20_000  # nonces searched on either side of the true one
CAPACITY_S = 1.5  # prompts are fed at least so long to learn the engine's solo capacity


def compare(
    name: str = defaults.DEVICE,
    *,
    model: str = defaults.MODEL,
    seconds: float = defaults.SECONDS,
    threads: int | None = None,
    meter: Meter | None = None,
    load: float = defaults.LOAD,
    progress: Progress = lambda step, share: None,
) -> Report:
    """Idle, hash, infer offline, infer on a trace, and mixed, each metered for about `seconds`; and every switch.

    Each is measured as `method.measure` does it, in one window, so without intervals of repeats.
    `name`: "cpu", or a GPU: "cuda:0" is the first. `model`: a preset's name (dummy weights). `threads`: workers of a
    CPU (None: those this process may use). `meter`: where the joules come from (None: the device's own choice).
    `load`: share of the engine's prompt capacity that the trace offers. A window with a trace lasts until its last
    request has ended.
    InvalidInput names an argument that cannot be; DeviceError and MeterError say what is not here.
    """
    check_window(seconds, load)
    with workbench(name, model=model, threads=threads, meter=meter, progress=progress) as bench:
        device, report = bench.device, bench.report
        progress("proof: a known nonce, found again", None)
        report.proof = prove(threads=threads, device=name)
        run = _Run(device, report, seconds, progress)
        run.window("idle")
        run.switch("hash")
        alone = run.window("hash")
        run.switch("infer")
        trace = packaged_trace()  # solo: before the offline window, whose unfinished requests go on running
        tick = ticker(progress, "infer, capacity", CAPACITY_S)
        capacity_tok_s = solo_capacity_tok_s(device, trace, preset(model), tick)
        run.window("infer, offline")
        longest = device.scheduler.config.max_model_len
        sized = size_trace(trace, capacity_tok_s=capacity_tok_s, window_s=seconds, context=longest, load=load)
        device.bind(bench.job, bench.engine, sized)
        run.window("infer, trace")
        run.switch("mixed")
        mixed = run.window("mixed")
        run.switch("idle")
        if alone.hashes_per_s:
            mixed.harvested_share = (mixed.hashes_per_s or 0.0) / alone.hashes_per_s
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

    def switch(self, mode: Mode) -> None:
        self._report.switches.append(self._device.switch(mode))

    def window(self, step: str) -> PhaseResult:
        phase = measure(
            self._device, self._device.mode, seconds=self._seconds, repeats=1, progress=self._progress, step=step
        )
        self._report.phases.append(phase)
        return phase
