"""A trace in virtual time: held against cases worked out by hand, the twin, and itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork import _native
from wattwork.errors import InvalidInput
from wattwork.scheduler import SchedulerConfig
from wattwork.scheduler.served import REQUEST
from wattwork.scheduler.simulate_twin import simulate as simulate_twin
from wattwork.scheduler.twin import Outcome
from wattwork.serving import SLO, serving_metrics
from wattwork.simulation import CostModel, simulate
from wattwork.trace import Trace, packaged_trace

COST = CostModel(step_s=0.010, per_token_s=0.001, per_sequence_s=0.002)
CONFIG = SchedulerConfig(max_num_seqs=2, max_num_batched_tokens=4, block_size=4, num_blocks=16, max_model_len=32)


def trace(*requests, **columns):
    arrival_s, prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    return Trace(arrival_s.astype(float), prompt, output, "made up", **columns)


def same(a, b):
    assert a.decision_hash == b.decision_hash
    assert (a.requests == b.requests).all()
    assert a.metrics == b.metrics
    assert a.virtual_s == b.virtual_s


def twin(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.setattr(_native, "HAVE_CORE", False)
        return simulate(*args, **kwargs)


def test_a_case_worked_out_by_hand():
    """Prompt 6, output 2, then prompt 1, output 3 that comes during the first step. Budget: 4 tokens a step.

    0 ms: the first's tokens 0-3: 10 + 4 + 2 = 16 ms. 16: its tokens 4-5, and the second's one: 10 + 3 + 4 = 17 ms, both
    have their first token at 33. 33: two decodes, 10 + 2 + 4 = 16 ms: at 49 the first ends. 49: one decode, 13 ms: 62.
    """
    run = simulate(trace((5.0, 6, 2), (5.005, 1, 3)), CONFIG, COST, slo=SLO(ttft_ms=30))
    first, second = run.requests
    ms = [[int(r[name]) / 1e6 - 5000 for name in REQUEST.names[:4]] for r in (first, second)]
    assert ms == [[0, 33, 49, 49], [5, 33, 62, 62]]
    m = run.metrics
    assert (m["completed"], m["steps"], m["total_input_tokens"], m["total_output_tokens"]) == (2, 4, 7, 5)
    assert run.virtual_s == pytest.approx(0.062)
    assert m["idle_s"] == pytest.approx(0)
    assert m["duration"] == pytest.approx(0.062)
    assert m["request_throughput"] == pytest.approx(2 / 0.062)
    assert m["output_throughput"] == pytest.approx(5 / 0.062)
    assert m["total_token_throughput"] == pytest.approx(12 / 0.062)
    assert m["request_goodput"] == pytest.approx(1 / 0.062)  # TTFT 33 and 28 ms
    assert m["mean_ttft_ms"] == pytest.approx(30.5)
    assert m["mean_tpot_ms"] == pytest.approx((16 + 14.5) / 2)
    assert m["median_itl_ms"] == pytest.approx(16)
    assert m["mean_itl_ms"] == pytest.approx((16 + 16 + 13) / 3)
    assert m["p99_e2el_ms"] == pytest.approx(np.percentile([49, 57], 99))


def test_idle_time_between_requests():
    run = simulate(trace((0, 1, 1), (1, 1, 1)), CONFIG, COST)
    assert run.virtual_s == pytest.approx(1.013)
    assert run.metrics["idle_s"] == pytest.approx(1.013 - 2 * 0.013)


def test_a_request_goes_to_the_least_loaded_device():
    run = simulate(trace((0, 8, 8), (0, 1, 1), (0, 1, 2), (0, 1, 1), (2, 1, 1)), CONFIG, COST, devices=3)
    # Outstanding: 16 | 2 | 3, then the second has the least; at 2 s all are free again, and the lowest number goes.
    assert run.requests["device"].tolist() == [0, 1, 2, 1, 0]


def test_what_could_never_run_counts_as_rejected():
    run = simulate(trace((0, 40, 1), (0, 2, 1)), CONFIG, COST)
    assert run.requests["outcome"].tolist() == [Outcome.REJECTED, Outcome.FINISHED]
    assert (run.metrics["completed"], run.metrics["rejected"]) == (1, 1)


def test_priorities_deadlines_and_timeouts_of_a_trace():
    columns = {
        "priority": np.array([0, 0, 5]),
        "timeout_ms": np.array([0, 20.5, 0]),
        "deadline_ms": np.array([1.0, 0, 0]),
    }
    config = SchedulerConfig(max_num_seqs=1, max_num_batched_tokens=4, block_size=4, num_blocks=16, max_model_len=32)
    run = simulate(trace((0, 8, 2), (0.001, 1, 1), (0.002, 1, 1), **columns), config, COST)
    assert run.requests["outcome"].tolist() == [Outcome.FINISHED, Outcome.TIMED_OUT, Outcome.FINISHED]
    assert run.requests["ended_ns"][1] == 21_500_000, "on time, in the middle of a step"
    assert run.requests["last_token_ns"][2] < run.requests["first_token_ns"][0], "the urgent one displaces the first"
    assert (run.metrics["deadline_misses"], run.metrics["num_preemptions"]) == (1, 1)


def test_the_packaged_trace_twice_and_over_the_twin(monkeypatch):
    config = SchedulerConfig(8, 512, num_blocks=600, max_model_len=8192, max_queue_delay_us=300)
    args = (packaged_trace(), config, CostModel(2e-4, 1 / 14_000, 1e-4, jitter=0.2))
    run = simulate(*args, devices=2, seed=7)
    same(run, simulate(*args, devices=2, seed=7))
    same(run, twin(monkeypatch, *args, devices=2, seed=7))
    assert simulate(*args, devices=2, seed=8).virtual_s != run.virtual_s
    assert run.metrics["completed"] == 256
    assert run.metrics["total_input_tokens"] == packaged_trace().prompt_tokens.sum()


LENGTHS = st.integers(1, 20)
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 40),
        LENGTHS,
        LENGTHS,
        st.integers(-1, 1),
        st.integers(0, 2),
        st.integers(0, 90),
        st.integers(0, 90),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.core
@settings(max_examples=150, deadline=None)
@given(REQUESTS, st.integers(1, 3), st.sampled_from([0, 5000]), st.sampled_from([0.0, 0.3]), st.integers(0, 2**64 - 1))
def test_the_core_and_the_twin_agree(requests, devices, delay_us, jitter, seed):
    gaps, prompt, output, priority, tenant, deadline, timeout = (np.array(c) for c in zip(*requests, strict=True))
    played = Trace(
        np.cumsum(gaps) / 1e3, prompt, output, "drawn", priority, tenant, deadline.astype(float), timeout.astype(float)
    )
    config = SchedulerConfig(3, 5, 8, 60, 2, 12, 30, max_queue_delay_us=delay_us, max_overtakes=3)
    cost = CostModel(0.001, 0.0005, 0.0003, jitter)
    run = simulate(played, config, cost, devices=devices, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        same(run, twin(patch, played, config, cost, devices=devices, seed=seed))
    assert (run.requests["outcome"] >= 0).all(), "each ends"


def test_a_simulation_has_no_contents_to_share(monkeypatch):
    played = trace((0, 20, 5), (0, 20, 5), (2, 20, 5))
    bounds = {"max_num_seqs": 2, "max_num_batched_tokens": 8, "block_size": 2, "num_blocks": 40}
    run = simulate(played, SchedulerConfig(**bounds), COST)
    sharing = SchedulerConfig(**bounds, enable_prefix_sharing=True)
    same(run, simulate(played, sharing, COST))
    same(run, twin(monkeypatch, played, sharing, COST))


def test_metrics_are_numpys():
    rng = np.random.default_rng(3)
    rows = np.zeros(50, REQUEST)
    rows["submitted_ns"] = rng.integers(0, 10**9, 50)
    rows["first_token_ns"] = rows["submitted_ns"] + rng.integers(1, 10**8, 50)
    rows["output_tokens"] = rng.integers(1, 5, 50)
    rows["last_token_ns"] = rows["first_token_ns"] + (rows["output_tokens"] - 1) * 10**6
    gaps = np.stack([rng.integers(1, 9, 30), rng.integers(1, 5, 30)], axis=1)
    m = serving_metrics(rows, gaps)
    ttft = (rows["first_token_ns"] - rows["submitted_ns"]) / 1e6
    itl = np.repeat(gaps[:, 0], gaps[:, 1]) / 1e6
    for name, values in (("ttft", ttft), ("itl", itl)):
        assert m[f"mean_{name}_ms"] == pytest.approx(values.mean())
        assert m[f"std_{name}_ms"] == pytest.approx(values.std())
        assert m[f"median_{name}_ms"] == pytest.approx(np.median(values))
        for p in (90, 99):
            assert m[f"p{p}_{name}_ms"] == pytest.approx(np.percentile(values, p))
    assert m["median_tpot_ms"] == pytest.approx(1)
    empty = serving_metrics(np.array([], REQUEST), np.zeros((0, 2), np.int64))
    assert empty["completed"] == empty["duration"] == 0


def test_what_cannot_be_simulated_is_said():
    one = trace((0, 1, 1))
    for cost in ((-1, 0), (0, float("nan")), (0, 0, 0, 1.0)):
        with pytest.raises(InvalidInput, match="the cost model's"):
            CostModel(*cost)
    with pytest.raises(InvalidInput, match="devices must be from 1"):
        simulate(one, CONFIG, COST, devices=0)
    with pytest.raises(InvalidInput, match="in order of arrival"):
        simulate(trace((1, 1, 1), (0, 1, 1)), CONFIG, COST)
    with pytest.raises(InvalidInput, match="SLO ttft_ms"):
        SLO(ttft_ms=0)


def test_without_the_core_the_twin_runs(monkeypatch):
    monkeypatch.setattr(_native, "HAVE_CORE", False)
    from wattwork import simulation

    assert simulation._run() is simulate_twin
