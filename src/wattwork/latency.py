"""Latencies of served requests, defined and named as `vllm bench serve` does, percentiles as NumPy's (linear).

TTFT, time to first token: first output token - arrival.
E2EL, end-to-end latency: last output token - arrival.
Arrival is when the scheduler took the request.
TPOT, time per output token: (E2EL - TTFT) / (output tokens - 1); a request of one output token has none.
ITL, inter-token latency: between one output token and the next, over all requests together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Timing:
    """One request's times, in seconds of `time.monotonic()`."""

    submitted_s: float
    token_times_s: tuple[float, ...] = ()  # when each output token was there, so far
    finished_s: float | None = None  # when it ended, however it did; None: it has not

    @property
    def ttft_s(self) -> float | None:
        """Time to first token; None if no token came."""
        return self.token_times_s[0] - self.submitted_s if self.token_times_s else None

    @property
    def e2el_s(self) -> float | None:
        """End-to-end latency; None if no token came."""
        return self.token_times_s[-1] - self.submitted_s if self.token_times_s else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None with fewer than two."""
        times = self.token_times_s
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies."""
        return tuple(after - before for before, after in pairwise(self.token_times_s))


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and 99th percentile, in milliseconds; None where no request had such a time."""

    p50_ttft_ms: float | None = None
    p99_ttft_ms: float | None = None
    p50_tpot_ms: float | None = None
    p99_tpot_ms: float | None = None
    p50_itl_ms: float | None = None
    p99_itl_ms: float | None = None
    p50_e2el_ms: float | None = None
    p99_e2el_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Yields:
    """How long the back took to give way: from its flag being raised to its last worker's leaving, in microseconds."""

    count: int
    p50_us: float
    p90_us: float


def yields_of(times_ns: Sequence[int], count: int) -> Yields | None:
    """The percentiles of these times, of `count` yields in all; None of none."""
    if not times_ns:
        return None
    import numpy as np

    p50, p90 = np.percentile(times_ns, (50, 90)) / 1e3
    return Yields(count, float(p50), float(p90))


def percentile_ms(values_s: Iterable[float | None], percent: float) -> float | None:
    """The percentile in milliseconds of times in seconds, None left out; None of none."""
    import numpy as np

    known = [value for value in values_s if value is not None]
    return float(np.percentile(known, percent)) * 1e3 if known else None


def latency_of(requests: Sequence[Timing]) -> Latency:
    """The percentiles over these requests."""
    times: dict[str, Sequence[float | None]] = {
        "ttft": [request.ttft_s for request in requests],
        "tpot": [request.tpot_s for request in requests],
        "itl": [time for request in requests for time in request.itl_s],
        "e2el": [request.e2el_s for request in requests],
    }
    return Latency(**{f"p{p}_{name}_ms": percentile_ms(values, p) for name, values in times.items() for p in (50, 99)})
