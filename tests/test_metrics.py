"""The Prometheus collector, read as a server reads it: from the exposition text."""

import gc
import subprocess
import sys

import pytest
from engines_for_tests import SumEngine
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from wattwork._search import isas
from wattwork.data import mainnet_header
from wattwork.errors import RequestFailed
from wattwork.job import Job
from wattwork.metrics import SchedulerMetrics
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.work import Work

CONFIG = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
HANG_MS = 60_000


def samples(registry):
    """{(name, labels): value} of the text."""
    text = generate_latest(registry).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_state_work_and_histograms():
    engine = SumEngine(CONFIG, poison=1000)
    registry = CollectorRegistry()
    with Scheduler(CONFIG, engine) as scheduler:
        registry.register(SchedulerMetrics(scheduler))
        for i in range(3):
            scheduler.submit([i, 5], max_tokens=4, deadline_ms=1e-3).result(HANG_MS)
        with pytest.raises(RequestFailed):
            scheduler.submit([1000], max_tokens=1).result(HANG_MS)
        engine.gate.clear()
        engine.stepping.clear()
        running = scheduler.submit([1] * 5, max_tokens=2)
        assert engine.stepping.wait(60)
        waiting = scheduler.submit([1, 2, 3], max_tokens=2)
        waiting.cancel()
        waiting = scheduler.submit([1, 2, 3], max_tokens=2)
        now = samples(registry)
        assert now["wattwork:num_requests_running",] == 1
        assert now["wattwork:num_requests_waiting",] == 1
        assert now["wattwork:num_queued_tokens",] == 3
        assert now["wattwork:kv_cache_usage_perc",] == pytest.approx(2 / 12)
        engine.gate.set()
        running.result(HANG_MS), waiting.result(HANG_MS)
        assert scheduler.drain(HANG_MS)
        now, stats = samples(registry), scheduler.stats()
    assert now["wattwork:num_preemptions_total",] == stats.num_preemptions
    assert now["wattwork:prompt_tokens_total",] == stats.prompt_tokens == 14
    assert now["wattwork:generation_tokens_total",] == stats.output_tokens == 16
    assert now["wattwork:steps_total",] == stats.steps
    assert now["wattwork:deadline_misses_total",] == 3
    assert now["wattwork:requests_rejected_total",] == 0
    reasons = {"finished": 5, "cancelled": 1, "timed_out": 0, "failed": 1}
    for reason, count in reasons.items():
        assert now["wattwork:request_success_total", ("finished_reason", reason)] == count
    for reason, count in stats.releases.items():
        assert now["wattwork:batch_releases_total", ("reason", reason)] == count
    assert sum(stats.releases.values()) == stats.steps
    for name in ("time_to_first_token", "time_per_output_token", "e2e_request_latency"):
        name = f"wattwork:{name}_seconds"
        buckets = [(float(key[1][1]), value) for key, value in now.items() if key[0] == f"{name}_bucket"]
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert buckets[-1] == (float("inf"), 5) == (float("inf"), now[f"{name}_count",])
        assert now[f"{name}_sum",] > 0


def test_the_back_the_prefix_and_labels():
    registry = CollectorRegistry()
    job = Job(Work.from_header(mainnet_header(0)), isa=isas()[-1])
    with Scheduler(CONFIG, SumEngine(CONFIG), job) as scheduler:
        registry.register(SchedulerMetrics(scheduler, prefix="vllm:", labels={"model_name": "tiny"}))
        label = ("model_name", "tiny")
        while samples(registry)["vllm:hashes_total", label] == 0:
            pass
        scheduler.submit([1], max_tokens=2).result(HANG_MS)
        now = samples(registry)
        assert now["vllm:back_yields_total", label] >= 1
        assert now["vllm:back_busy_seconds_total", label] > 0
        assert now["vllm:request_success_total", ("finished_reason", "finished"), label] == 1


def test_it_does_not_keep_the_scheduler():
    registry = CollectorRegistry()
    scheduler = Scheduler(CONFIG, SumEngine(CONFIG))
    registry.register(SchedulerMetrics(scheduler))
    scheduler.close()
    assert samples(registry)
    del scheduler
    gc.collect()
    assert samples(registry) == {}


def test_without_prometheus_client_the_extra_is_named():
    code = "import sys; sys.modules['prometheus_client.core'] = None; import wattwork.metrics"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "metrics need prometheus-client; install wattwork[metrics]." in run.stderr
