"""Replays of what `Scheduler(..., record=PATH)` recorded: decision for decision, by the very scheduler."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from wattwork import _native
from wattwork.errors import InvalidInput, WattworkError
from wattwork.scheduler.log import MAGIC
from wattwork.serving import SLO, serving_metrics
from wattwork.simulation import Replay


def replay(log: str | Path, *, slo: SLO | None = None) -> Replay:
    """Run the recorded calls through the scheduler again, at their times.

    A log that was cut off (a process killed, a full disk) or damaged is replayed up to there; `note` says so.
    InvalidInput if it is no log; WattworkError, naming the step, if this build decides otherwise than the recorded run.
    """
    try:
        data = Path(log).read_bytes()
    except OSError as error:
        raise InvalidInput(f"the log {log} cannot be read: {error.strerror}.") from None
    start_s = time.perf_counter()
    try:
        answer = _run()(data, threading.current_thread() is threading.main_thread())
    except (ValueError, MemoryError) as error:
        raise InvalidInput(
            f"{log} is not a log that this version of wattwork can replay ({error}); record it with "
            "Scheduler(..., record=PATH)."
        ) from None
    wall_s = time.perf_counter() - start_s
    requests, gaps_ns, counters, decision_hash, (begin_ns, end_ns, busy_ns), cut_at, differs_at = answer
    if differs_at >= 0:
        raise WattworkError(
            f"step {differs_at} of {log}, {(end_ns - begin_ns) / 1e9:.3f} s in, is decided otherwise here than in the "
            "recorded run; replay it with the version of wattwork that recorded it."
        )
    metrics = serving_metrics(requests, gaps_ns, slo)
    metrics |= {name: counters[name] for name in ("steps", "num_preemptions", "deadline_misses")}
    virtual_s = (end_ns - begin_ns) / 1e9
    metrics["idle_s"] = virtual_s - busy_ns / 1e9
    note = ""
    if cut_at >= 0:
        note = f"{log} is cut off or damaged at byte {cut_at}: this is what came before, {counters['steps']} steps."
    return Replay(decision_hash, requests, virtual_s, wall_s, metrics, note)


def is_log(path: str | Path) -> bool:
    """Whether the file begins as a log does, of whatever version."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC) - 1) == MAGIC[:-1]
    except OSError:
        return False


def _run() -> Any:
    if _native.HAVE_CORE:
        return _native.core.replay
    from wattwork.scheduler.log import replay as run

    return run
