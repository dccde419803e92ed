"""Latencies by their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattwork.latency import Latency, Timing, latency_of


def test_definitions_on_a_request_by_hand():
    request = Timing(1.0, (1.5, 1.7, 2.1))
    latency = latency_of([request])
    assert latency.p50_ttft_ms == latency.p99_ttft_ms == pytest.approx(500)
    assert latency.p50_e2el_ms == pytest.approx(1100)
    assert latency.p50_tpot_ms == pytest.approx((1100 - 500) / 2)
    assert latency.p50_itl_ms == pytest.approx(300)
    assert latency.p99_itl_ms == pytest.approx(200 + 0.99 * 200)


def test_requests_without_tokens_or_with_one():
    assert latency_of([]) == Latency()
    assert latency_of([Timing(0.0)]) == Latency()
    single = latency_of([Timing(0.0, (0.25,))])
    assert single.p50_ttft_ms == single.p50_e2el_ms == 250
    assert single.p50_tpot_ms is None
    assert single.p50_itl_ms is None


@given(st.lists(st.tuples(st.floats(0, 10), st.lists(st.floats(0, 10), min_size=1, max_size=5)), min_size=1))
def test_percentiles_are_numpys(requests):
    times = [Timing(arrival, tuple(np.cumsum([arrival, *gaps])[1:])) for arrival, gaps in requests]
    latency = latency_of(times)
    ttft = [gaps[0] * 1e3 for _, gaps in requests]
    assert latency.p50_ttft_ms == pytest.approx(np.median(ttft), abs=1e-6)
    assert latency.p99_ttft_ms == pytest.approx(np.percentile(ttft, 99), abs=1e-6)
    assert latency.p99_e2el_ms == pytest.approx(np.percentile([sum(g) * 1e3 for _, g in requests], 99), abs=1e-6)
