"""Inference in front and hashing behind it on a GPU, by wattwork's Device: for bench/gpu.py.

Short requests come at random (Poisson) at each of RATES: alone, with hashing behind, and alone once more; what the two
runs alone differ by is what the figures can tell apart. The same requests at the same times each time. The engine is
idle while no step is under way, from its call until its tokens are here; the share harvested of that time is the hashes
done over those that hashing alone does in so long.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gpu_parts import Record

from wattwork import Device, Job, QueueFull, Work
from wattwork.data import mainnet_header
from wattwork.engines import StepEngine, make_engine, preset
from wattwork.latency import latency_of
from wattwork.load import wait_until
from wattwork.meters import Meter

MODEL, CONTEXT = "llama-3.2-1b", 512  # a short context: few sizes of steps to meet beforehand
PROMPT_TOKENS, OUTPUT_TOKENS = 32, 4
RATES = (50, 200, 2000)  # requests a second
WINDOW_S, WARM_UP_S = 5.0, 0.5
PATIENCE_S = 30  # after a window, for a request
MASK = 0x1FFFE000  # of BIP 320


class Front:
    """The device with an engine whose steps are timed, and a job for both."""

    def __init__(self, engine: StepEngine, job: Job, name: str = "cuda:0") -> None:
        self.engine, self.job, self.busy_s, self._began_s = engine, job, 0.0, 0.0
        engine.step = self._begun(engine.step)  # type: ignore[method-assign]
        engine.sync = self._ended(engine.sync)  # type: ignore[method-assign]
        # Joules are not asked for here; the meter needs to be one that is always there.
        self.device = Device(name, meter=Meter("external", device=name, watts=1.0))
        self.device.bind(job, engine)
        self._alone_h_s = 0.0

    def _begun(self, step: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            begun_s = time.perf_counter()
            step(*args)  # which may sync the step before
            self._began_s = begun_s

        return timed

    def _ended(self, sync: Callable[[], None]) -> Callable[[], None]:
        def timed() -> None:
            sync()
            if self._began_s:
                self.busy_s += time.perf_counter() - self._began_s
                self._began_s = 0.0

        return timed

    def hashing_alone(self, seconds: float) -> dict[str, float]:
        """And with the front in place but without requests."""
        rates = {}
        for mode, name in (("hash", "alone"), ("mixed", "no requests")):
            self.device.switch(mode)
            time.sleep(WARM_UP_S)
            before, begun_s = self.job.units, time.perf_counter()
            time.sleep(seconds)
            rates[name] = (self.job.units - before) / (time.perf_counter() - begun_s)
        self.device.switch("idle")
        self._alone_h_s = rates["alone"]
        return {"gh_s": rates["alone"] / 1e9, "harvested_without_requests": rates["no requests"] / rates["alone"]}

    def at(self, rate: float, seconds: float) -> dict[str, Any]:
        """The three runs at that rate."""
        arrivals_s = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)))
        runs = (("alone", "infer"), ("hashing behind", "mixed"), ("alone again", "infer"))
        return {name: self._window(mode, arrivals_s) for name, mode in runs}

    def _window(self, mode: Any, arrivals_s: np.ndarray) -> dict[str, Any]:
        self.device.switch(mode)
        vocab, draw = self.engine.config.vocab, np.random.default_rng(1)
        prompts = draw.integers(0, vocab, (len(arrivals_s), PROMPT_TOKENS), np.int32)
        self._send(prompts[:20], np.arange(20) / 100)  # to warm up
        units, busy_s, begun_s = self.job.units, self.busy_s, time.perf_counter()
        timings = self._send(prompts, arrivals_s)
        took_s, units, busy_s = time.perf_counter() - begun_s, self.job.units - units, self.busy_s - busy_s
        self.device.switch("idle")
        idle_s = max(0.0, took_s - busy_s)
        said = {"served": len(timings), "refused": len(prompts) - len(timings), "idle_share": idle_s / took_s}
        figures = dataclasses.asdict(latency_of(timings))
        said |= {name: ms for name, ms in figures.items() if name.endswith(("ttft_ms", "e2el_ms"))}
        if mode == "mixed":
            said["gh_s"] = units / took_s / 1e9
            said["idle_harvested"] = units / (self._alone_h_s * idle_s) if idle_s else None
        return said

    def _send(self, prompts: np.ndarray, arrivals_s: np.ndarray) -> list[Any]:
        """The timings of the requests that were taken, all of them finished."""
        start_s, handles = time.perf_counter(), []
        for prompt, arrival_s in zip(prompts, arrivals_s, strict=False):
            wait_until(start_s + float(arrival_s), lambda: None)
            with contextlib.suppress(QueueFull):
                handles.append(self.device.submit(prompt, max_tokens=OUTPUT_TOKENS))
        for handle in handles:
            handle.result(timeout_ms=PATIENCE_S * 1e3)
        return [handle.timing for handle in handles]

    def close(self) -> None:
        self.device.close()
        self.engine.close()


def front() -> Front:
    """On the first GPU."""
    engine = make_engine(dataclasses.replace(preset(MODEL), context=CONTEXT), device="cuda:0")
    return Front(engine, Job(Work.from_header(mainnet_header(0), version_mask=MASK), device="cuda:0"))


def run(record: Record, *_: Any) -> None:
    """The part "front" of gpu.json."""
    made: list[Front] = []
    if record.step("front", "hashing", measure=partial(hashing, made)):
        for rate in RATES:
            record.step("front", f"{rate} requests/s", measure=partial(made[0].at, rate, WINDOW_S))
    for one in made:
        one.close()


def hashing(made: list[Front]) -> dict[str, float]:
    made.append(front())
    return made[0].hashing_alone(WINDOW_S)
