"""A scheduler's state for Prometheus, under the names that operators of vLLM know (extra `wattwork[metrics]`).

    from prometheus_client import REGISTRY, start_http_server
    REGISTRY.register(SchedulerMetrics(scheduler))
    start_http_server(8000)

With `prefix="vllm:"` dashboards made for vLLM show it. Histograms get one value a request, when it ends: those of
requests that ended before the collector was made are not in them.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from wattwork.errors import InvalidInput
from wattwork.scheduler.twin import EndEvent, Outcome

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise InvalidInput("metrics need prometheus-client; install wattwork[metrics].") from error

if TYPE_CHECKING:
    from wattwork.scheduler import Scheduler, Stats

# The bounds that vLLM's histograms have, in seconds.
TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
TPOT_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2EL_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


class _Histogram:
    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        names = [*(str(bound) for bound in self.bounds_s), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class SchedulerMetrics(Collector):
    """A collector over `Scheduler.stats()`, which costs nothing until it is read. `labels` stand on every sample.

    It does not keep the scheduler alive: of one that is gone there are no samples. One collector a scheduler.
    """

    def __init__(
        self, scheduler: Scheduler, *, prefix: str = "wattwork:", labels: Mapping[str, str] | None = None
    ) -> None:
        self._scheduler = weakref.ref(scheduler)
        self._prefix = prefix
        self._labels = dict(labels or {})
        self._lock = threading.Lock()
        self._histograms = {
            "time_to_first_token_seconds": _Histogram(TTFT_S),
            "time_per_output_token_seconds": _Histogram(TPOT_S),
            "e2e_request_latency_seconds": _Histogram(E2EL_S),
        }
        observe = weakref.WeakMethod(self._observe)
        scheduler.on_ends(lambda ends: (method := observe()) and method(ends))

    def _observe(self, ends: Sequence[EndEvent]) -> None:
        ttft, tpot, e2el = self._histograms.values()
        with self._lock:
            for _, outcome, _, n_output, submitted_ns, first_ns, ended_ns, *_ in ends:
                if first_ns >= 0:
                    ttft.observe((first_ns - submitted_ns) / 1e9)
                if outcome == Outcome.FINISHED:
                    e2el.observe((ended_ns - submitted_ns) / 1e9)
                    if n_output > 1:
                        tpot.observe((ended_ns - first_ns) / 1e9 / (n_output - 1))

    def collect(self) -> Iterator[Metric]:
        """All families, as of now."""
        scheduler = self._scheduler()
        if scheduler is None:
            return
        stats = scheduler.stats()
        yield from self._state(stats, scheduler.config.num_blocks)
        yield from self._work(stats)
        yield from self._back(stats, scheduler.hashes)
        with self._lock:
            for name, histogram in self._histograms.items():
                family = HistogramMetricFamily(self._prefix + name, _HELP[name], labels=list(self._labels))
                family.add_metric(list(self._labels.values()), histogram.buckets(), histogram.sum_s)
                yield family

    def _state(self, stats: Stats, num_blocks: int) -> Iterator[Metric]:
        yield self._gauge("num_requests_running", stats.num_requests_running)
        yield self._gauge("num_requests_waiting", stats.num_requests_waiting)
        yield self._gauge("num_queued_tokens", stats.num_queued_tokens)
        yield self._gauge("kv_cache_usage_perc", stats.kv_blocks_used / num_blocks)

    def _work(self, stats: Stats) -> Iterator[Metric]:
        yield self._counter("num_preemptions", stats.num_preemptions)
        yield self._counter("prompt_tokens", stats.prompt_tokens)
        yield self._counter("prefix_cache_hits", stats.prefix_shared_tokens)
        yield self._counter("generation_tokens", stats.output_tokens)
        yield self._counter("steps", stats.steps)
        ended = {outcome.name.lower() for outcome in Outcome} - {"rejected"}
        yield self._counters(
            "request_success", "finished_reason", {name: getattr(stats, name) for name in sorted(ended)}
        )
        yield self._counter("requests_rejected", stats.rejected)
        yield self._counter("deadline_misses", stats.deadline_misses)
        yield self._counters("batch_releases", "reason", stats.releases)

    def _back(self, stats: Stats, hashes: int) -> Iterator[Metric]:
        yield self._counter("hashes", hashes)
        yield self._counter("back_yields", stats.yields)
        yield self._counter("back_busy_seconds", stats.back_busy_ns / 1e9)

    def _gauge(self, name: str, value: float) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, _HELP[name], labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, value: float) -> Metric:
        family = CounterMetricFamily(self._prefix + name, _HELP[name], labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counters(self, name: str, label: str, values: Mapping[str, float]) -> Metric:
        family = CounterMetricFamily(self._prefix + name, _HELP[name], labels=[*self._labels, label])
        for which, value in values.items():
            family.add_metric([*self._labels.values(), which], value)
        return family


_HELP = {
    "num_requests_running": "Requests in the batches that run.",
    "num_requests_waiting": "Requests waiting.",
    "num_queued_tokens": "Tokens of the requests waiting.",
    "kv_cache_usage_perc": "KV blocks in use; 1 is all.",
    "num_preemptions": "Requests that gave up their KV blocks and were computed anew.",
    "prompt_tokens": "Prompt tokens computed, each once however often recomputed.",
    "prefix_cache_hits": "Tokens not computed, since others held the KV blocks of the same prefix.",
    "generation_tokens": "Output tokens.",
    "steps": "Batches given to the engine.",
    "request_success": "Requests ended, by how.",
    "requests_rejected": "Requests refused: the queue full, a deadline that cannot be met, or too large.",
    "deadline_misses": "Requests that ended after their deadline.",
    "batch_releases": "Batches, by why each went when it did.",
    "hashes": "Hashes of the present back.",
    "back_yields": "Times the back gave way.",
    "back_busy_seconds": "Time in which the back worked.",
    "time_to_first_token_seconds": "From arrival to the first output token.",
    "time_per_output_token_seconds": "Per output token after the first, the mean of each finished request.",
    "e2e_request_latency_seconds": "From arrival to the end, of finished requests.",
}
