"""A trace in virtual time: the shipping scheduler, a cost model in place of the engine, and the figures of serving.

`csrc/scheduler/simulate.h` states the rules of the event loop; without the native core the twin runs them, slowly, to
the same decisions.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wattwork import _native
from wattwork.errors import InvalidInput, whole
from wattwork.serving import SLO, serving_metrics
from wattwork.trace import SizedTrace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wattwork.scheduler import SchedulerConfig
    from wattwork.trace import Trace

MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a step of an engine takes: step_s + per_token_s x tokens + per_sequence_s x sequences, in seconds.

    A scheduler that runs fits these three as it goes: `CostModel(*scheduler.stats().step_cost_s)`. `jitter`: each step
    takes a random factor more or less, drawn evenly from 1 ± jitter.
    """

    step_s: float
    per_token_s: float
    per_sequence_s: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1e6):
                raise InvalidInput(f"the cost model's {name} must be a number from 0 to 1e6, not {value}.")
        if self.jitter >= 1:
            raise InvalidInput(f"the cost model's jitter must be below 1, not {self.jitter}.")


@dataclass(frozen=True, eq=False)
class Replay:
    """How a simulation or a replay went.

    `decision_hash`: 64 bits over every decision; of several devices, each rotated by one bit after the one before.
    `requests`: an array of `scheduler.served.REQUEST`, one row a request, in order of arrival. `metrics`: those of
    `serving_metrics`, `steps`, `num_preemptions`, `deadline_misses`, and `idle_s`, the virtual time in which no step
    was under way, of all devices together. `wall_s`: how long this took.
    """

    decision_hash: int
    requests: NDArray[np.void] = field(repr=False)
    virtual_s: float
    wall_s: float
    metrics: dict[str, float] = field(repr=False)
    note: str = ""  # what must be said beside it; empty: nothing


def simulate(
    trace: Trace | SizedTrace,
    config: SchedulerConfig,
    cost_model: CostModel,
    *,
    devices: int = 1,
    seed: int = 0,
    slo: SLO | None = None,
) -> Replay:
    """Run the trace through the scheduler in virtual time: equal arguments, equal decisions, on every machine.

    Each of the `devices` has a scheduler of its own; a request goes to the one with the least outstanding tokens, the
    lowest number among equals. Every request has as many tokens as the trace says, where `config` lets it: else it
    counts as rejected. `seed` is for the cost model's jitter. InvalidInput for what cannot be.
    """
    devices, seed = check_devices(devices), whole("seed", seed)
    plain = trace.trace if isinstance(trace, SizedTrace) else trace
    c = cost_model
    start_s = time.perf_counter()
    requests, gaps_ns, ran, end_ns = _run()(
        config, *_columns(plain), (c.step_s, c.per_token_s, c.per_sequence_s, c.jitter), seed % 2**64, devices,
        threading.current_thread() is threading.main_thread(),
    )  # fmt: skip
    wall_s = time.perf_counter() - start_s
    decision_hash = 0
    for _, hash, _ in ran:
        decision_hash = (decision_hash << 1 & (2**64 - 1) | decision_hash >> 63) ^ hash
    begin_ns = int(requests["submitted_ns"][0])
    virtual_s = max(end_ns, int(requests["ended_ns"].max())) / 1e9 - begin_ns / 1e9
    metrics = serving_metrics(requests, gaps_ns, slo)
    metrics["steps"] = sum(counters["steps"] for counters, *_ in ran)
    metrics["num_preemptions"] = sum(counters["num_preemptions"] for counters, *_ in ran)
    metrics["deadline_misses"] = sum(counters["deadline_misses"] for counters, *_ in ran)
    metrics["idle_s"] = virtual_s * devices - sum(busy_ns for *_, busy_ns in ran) / 1e9
    return Replay(decision_hash, requests, virtual_s, wall_s, metrics)


def check_devices(devices: object) -> int:
    """The number of devices. InvalidInput unless it can be."""
    number = whole("devices", devices)
    if not 1 <= number <= MOST_DEVICES:
        raise InvalidInput(f"devices must be from 1 to {MOST_DEVICES}, not {number}.")
    return number


def _run() -> Any:
    if _native.HAVE_CORE:
        return _native.core.simulate
    from wattwork.scheduler.simulate_twin import simulate as run

    return run


def _columns(trace: Trace) -> tuple[NDArray[Any] | None, ...]:
    """The trace as `ww::SimArrivals`; columns that it has not stay None."""
    if len(trace) == 0 or (np.diff(trace.arrival_s) < 0).any():
        raise InvalidInput("a trace to simulate needs at least one request, in order of arrival.")
    lengths = [column.astype(np.int64) for column in (trace.prompt_tokens, trace.output_tokens)]
    if any(column.min() < 1 or column.max() >= 2**31 for column in lengths):
        raise InvalidInput("a trace's prompts and outputs must have from 1 to 2^31 - 1 tokens.")

    def ns(column_ms: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if column_ms is None else np.round(column_ms * 1e6).astype(np.int64)

    return (
        np.round(trace.arrival_s * 1e9).astype(np.int64),
        *(column.astype(np.int32) for column in lengths),
        None if trace.priority is None else trace.priority.astype(np.int32),
        None if trace.tenant is None else trace.tenant.astype(np.uint64),
        ns(trace.deadline_ms),
        ns(trace.timeout_ms),
    )
