"""What served requests amount to: the figures that `vllm bench serve` prints, under its names.

TTFT, TPOT, ITL and E2EL are as `latency` defines them; percentiles are NumPy's (linear). Latencies are of the requests
that finished; tokens count for all. Goodput: finished requests per second that met each SLO given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wattwork.errors import InvalidInput
from wattwork.scheduler.twin import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (90, 99)  # beside mean, median and standard deviation


@dataclass(frozen=True, slots=True)
class SLO:
    """What a good request keeps to; None: anything. InvalidInput for a bound that is not above 0."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise InvalidInput(f"the SLO {name} must be above 0, not {bound}.")


def serving_metrics(requests: NDArray[np.void], gaps_ns: NDArray[np.int64], slo: SLO | None = None) -> dict[str, float]:
    """The figures over these requests (REQUEST) and the gaps between their tokens, as rows (gap, how many).

    `duration` runs from the first arrival to the last token. A latency that no request has is left out, and so is
    `request_goodput` without an SLO.
    """
    done = requests[requests["outcome"] == Outcome.FINISHED]
    several = done["output_tokens"] > 1
    ttft = (done["first_token_ns"] - done["submitted_ns"]) / 1e6
    e2el = (done["last_token_ns"] - done["submitted_ns"]) / 1e6
    decode_ms = (done["last_token_ns"] - done["first_token_ns"]) / 1e6
    tpot = decode_ms[several] / (done["output_tokens"][several] - 1)
    last_ns = max(int(requests["last_token_ns"].max(initial=-1)), int(requests["ended_ns"].max(initial=-1)))
    seconds = (last_ns - int(requests["submitted_ns"].min())) / 1e9 if len(requests) else 0.0
    prompts, outputs = int(done["prompt_tokens"].sum()), int(requests["output_tokens"].sum())
    figures: dict[str, float] = {
        "duration": seconds,
        "completed": len(done),
        **{outcome.name.lower(): int((requests["outcome"] == outcome).sum()) for outcome in Outcome if outcome},
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        "request_throughput": _per(len(done), seconds),
        "output_throughput": _per(outputs, seconds),
        "total_token_throughput": _per(prompts + outputs, seconds),
    }
    if slo is not None and (slo.ttft_ms or slo.tpot_ms or slo.e2el_ms):
        good = np.ones(len(done), bool)
        if slo.ttft_ms:
            good &= ttft <= slo.ttft_ms
        if slo.tpot_ms:
            good[several] &= tpot <= slo.tpot_ms
        if slo.e2el_ms:
            good &= e2el <= slo.e2el_ms
        figures["request_goodput"] = _per(int(good.sum()), seconds)
    for name, values in (("ttft", ttft), ("tpot", tpot), ("e2el", e2el)):
        figures |= _spread(name, values, np.ones(len(values), np.int64))
    return figures | _spread("itl", gaps_ns[:, 0] / 1e6, gaps_ns[:, 1])


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _spread(name: str, values: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Mean, median, standard deviation and percentiles of values that occur so often each."""
    n = int(counts.sum())
    if n == 0:
        return {}
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(counts[order])
    mean = float((values * counts[order]).sum() / n)
    std = float(np.sqrt(((values - mean) ** 2 * counts[order]).sum() / n))

    def percentile(percent: float) -> float:
        place = (n - 1) * percent / 100
        low, high = (values[np.searchsorted(below, int(i), side="right")] for i in (place, np.ceil(place)))
        return float(low + (high - low) * (place - int(place)))

    figures = {f"mean_{name}_ms": mean, f"median_{name}_ms": percentile(50), f"std_{name}_ms": std}
    return figures | {f"p{p}_{name}_ms": percentile(p) for p in PERCENTILES}
