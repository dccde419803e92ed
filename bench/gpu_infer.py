"""Inference on a GPU by wattwork's PyTorch engine, beside what its memory allows: for bench/gpu.py.

A decode step reads all weights and every sequence's keys and values once: its roofline is their bytes over the memory's
bandwidth, once as a copy within the same run measures it, once as the maker publishes it. Weights are dummy ones, the
sequences' tokens drawn at random; each sequence has CONTEXT positions when its next token is decoded, and that step is
done again and again. The time of a step is the host's clock from its call until its tokens are here.
"""

import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_driver import Gpu
from gpu_parts import Record
from gpu_sensors import Sensors

try:
    import wattwork
except ModuleNotFoundError:  # a bare checkout: PyTorch's engine needs no build
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    import wattwork

from wattwork.engines import Batch, ModelConfig, Out, StepEngine, make_engine

__all__ = ["wattwork"]

MODELS = ("llama-3.2-1b", "llama-3.1-8b")
BATCHES, CONTEXT = (1, 64, 256), 1024
REPEATS, STEPS = 5, 20
# NVIDIA's datasheets, by the name that the driver gives.
PUBLISHED_TB_S = {"NVIDIA H200": 4.8}
COPIED, RANDOM = 1 << 31, 1 << 26  # bytes of one copy, and of the random ones that fill it


def copy_tb_s(gpu: Gpu) -> float:
    """Bytes read and written per second by copies of random bytes within the GPU's memory; the median of 10."""
    source, target = gpu.allocated(COPIED), gpu.allocated(COPIED)
    gpu.write(source, (ctypes.c_ubyte * RANDOM).from_buffer_copy(os.urandom(RANDOM)))
    done = RANDOM
    while done < COPIED:
        size = min(done, COPIED - done)
        gpu("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(source.value + done), source, ctypes.c_size_t(size), None)
        done += size
    events, rates = (gpu.event(), gpu.event()), []
    for _ in range(11):
        gpu("cuEventRecord", events[0], None)
        gpu("cuMemcpyDtoDAsync_v2", target, source, ctypes.c_size_t(COPIED), None)
        gpu("cuEventRecord", events[1], None)
        gpu("cuEventSynchronize", events[1])
        rates.append(2 * COPIED / gpu.elapsed_us(*events) / 1e6)
    gpu.drop(events=events)
    gpu.free(source, target)
    return statistics.median(rates[1:])


def element_bytes(engine: StepEngine) -> int:
    return 2 if engine.caps.dtype == "bf16" else 4


def kv_bytes(config: ModelConfig, element: int) -> int:
    """Of one position: keys and values of all layers."""
    return 2 * config.layers * config.kv_heads * config.head_dim * element


def step_bytes(config: ModelConfig, element: int, rows: int, positions: int) -> int:
    """What a decode step has to read: each weight that it multiplies by, and every position's keys and values."""
    looked_up = 0 if config.tied else config.vocab * config.hidden  # of an embedding it reads a few rows only
    return element * (config.parameters - looked_up) + rows * positions * kv_bytes(config, element)


class Sequences:
    """As many sequences as the largest batch has, in an engine's KV cache."""

    def __init__(self, engine: StepEngine, rows: int, context: int) -> None:
        self.engine, self.rows, self.context, self.block = engine, rows, context, engine.caps.block_size
        columns = -(-context // self.block)
        # A CPU's engine, in tests, keeps something more than keys and values.
        budget = rows * columns * self.block * (kv_bytes(engine.config, element_bytes(engine)) + 8)
        assert engine.alloc_kv(budget) >= rows * columns
        self.table = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
        self.tokens = np.random.default_rng(0).integers(0, engine.config.vocab, (rows, context), np.int32)

    def batch(self, rows: range, first: int, stop: int) -> Batch:
        """Positions [first, stop) of those rows."""
        n, at = len(rows), np.arange(first, stop, dtype=np.int32)
        table = self.table[rows.start : rows.stop]
        slots = table[:, at // self.block] * self.block + at % self.block
        return Batch(
            np.ascontiguousarray(self.tokens[rows.start : rows.stop, first:stop]).reshape(-1),
            np.arange(n + 1, dtype=np.int32) * len(at),
            np.full(n, first, np.int32),
            table,
            np.ascontiguousarray(slots.reshape(-1), np.int32),
            np.ones(n, np.uint8),
        )

    def step(self, batch: Batch) -> None:
        self.engine.step(batch, Out(np.zeros(len(batch.ctx_len), np.int32)))
        self.engine.sync()

    def prompts_tok_s(self) -> float:
        """All but the last position of each, as many rows to a step as it takes."""
        at_once = max(1, min(self.rows, self.engine.caps.max_tokens // self.context))
        begun_s = time.perf_counter()
        for first in range(0, self.rows, at_once):
            self.step(self.batch(range(first, min(first + at_once, self.rows)), 0, self.context - 1))
        return self.rows * (self.context - 1) / (time.perf_counter() - begun_s)

    def decode(self, rows: int) -> Batch:
        return self.batch(range(rows), self.context - 1, self.context)


def step_times_s(step: Callable[[], None]) -> list[float]:
    """The mean of STEPS steps, REPEATS times, after some to warm up."""
    for _ in range(3):
        step()
    times = []
    for _ in range(REPEATS):
        begun_s = time.perf_counter()
        for _ in range(STEPS):
            step()
        times.append((time.perf_counter() - begun_s) / STEPS)
    return times


def busy_watts(step: Callable[[], None], sensors: Sensors, seconds: float) -> float | None:
    """Between two edges of the energy counter that many seconds apart, with steps all the while; None: it has none."""
    edges: list[tuple[float, float]] = []
    last, end_s = sensors.joules(), time.perf_counter() + seconds + 1
    while last is not None and time.perf_counter() < end_s:
        step()
        now = sensors.joules()
        if now != last and now is not None:
            edges.append((now, time.perf_counter()))
            if edges[-1][1] - edges[0][1] >= seconds:
                break
        last = now
    if len(edges) < 2:
        return None
    (first_j, first_s), (last_j, last_s) = edges[0], edges[-1]
    return (last_j - first_j) / (last_s - first_s)


def decode(at: Sequences, rows: int, tb_s: dict[str, float | None], sensors: Sensors, seconds: float) -> dict[str, Any]:
    """One batch size: tok/s, its share of each roofline in `tb_s` (None: not known), watts and tok/J."""
    config, batch = at.engine.config, at.decode(rows)
    times_s = step_times_s(lambda: at.step(batch))
    step_s = statistics.median(times_s)
    read = step_bytes(config, element_bytes(at.engine), rows, at.context)
    watts = busy_watts(lambda: at.step(batch), sensors, seconds)
    return {
        "tok_s": rows / step_s,
        "repeats_tok_s": [rows / s for s in times_s],
        "step_ms": step_s * 1e3,
        "bytes_read": read,
        "roofline_share": {name: read / (rate * 1e12) / step_s if rate else None for name, rate in tb_s.items()},
        "watts": watts,
        "tok_per_j": rows / step_s / watts if watts else None,
    }


def loaded(model: str) -> Sequences:
    return Sequences(make_engine(model, device="cuda:0"), max(BATCHES), CONTEXT)


def run(record: Record, gpu: Gpu, sensors: Sensors, seconds: float) -> None:
    """The part "inference" of gpu.json."""
    copied = record.step("copy_tb_s", measure=partial(copy_tb_s, gpu))
    tb_s = {"measured": copied, "published": PUBLISHED_TB_S.get(gpu.name)}
    for model in MODELS:
        made: list[Sequences] = []
        if record.step("inference", model, "prompts_tok_s", measure=partial(prompted, model, made)):
            for rows in BATCHES:
                measure = partial(decode, made[0], rows, tb_s, sensors, seconds)
                record.step("inference", model, f"batch {rows}", measure=measure)
        for sequences in made:
            sequences.engine.close()


def prompted(model: str, made: list[Sequences]) -> float:
    made.append(loaded(model))
    return made[0].prompts_tok_s()
