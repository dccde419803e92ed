"""How a phase is measured: in virtual time, and once for real."""

import math

import pytest
from machine_tree import MachineTree
from stand_in import StandIn

import wattwork as ww
from wattwork.conditions import Watch
from wattwork.data import mainnet_header
from wattwork.errors import InvalidInput
from wattwork.figures import LOOK, figure
from wattwork.latency import Latency, Yields
from wattwork.method import WARM_UP_WINDOWS, measure, together, warm_up
from wattwork.report import PhaseResult, Power


@pytest.fixture
def watch(tmp_path):
    tree = MachineTree(tmp_path)
    return lambda: Watch(root=tree.root)


def test_a_steady_device_is_measured_after_the_shortest_warm_up(watch):
    device = StandIn()
    phase = measure(device, "hash", watch=watch)
    assert device.lengths_s == [1.0] * LOOK + [60.0] * 5
    assert (phase.seconds, phase.hashes, phase.joules) == (300.0, 300 * 10**6, 300 * 50.0)
    assert phase.method.steady is True
    assert (phase.method.repeats, phase.method.quick, phase.method.warm_up_s) == (5, False, 10.0)
    assert phase.method.figures["hashes_per_s"] == figure([1e6] * 5)
    assert phase.method.figures["hashes_per_joule"].median == 2e4
    assert phase.method.figures["watts"].median == 50.0
    assert "output_throughput" not in phase.method.figures
    assert phase.conditions.clock_mhz == (3000.0, 3000.0)
    assert phase.warnings == ()


def test_the_window_begins_when_the_device_has_warmed_up(watch):
    device = StandIn(rate=lambda share, t_s: 1e6 * (1 + 0.5 * math.exp(-t_s / 5)), noise=1e-3)
    phase = measure(device, "hash", repeats=1, watch=watch)
    assert phase.method.steady
    assert phase.method.warm_up_s > 15
    assert phase.hashes_per_s == pytest.approx(1e6, rel=0.02)


def test_power_must_be_steady_too(watch):
    device = StandIn(watts=lambda share, t_s: 50 - 20 * math.exp(-t_s / 5), noise=1e-3)
    assert measure(device, "hash", repeats=1, watch=watch).method.warm_up_s > 15
    idle = StandIn(watts=lambda share, t_s: 50 + 20 * math.exp(-t_s / 5), noise=1e-3)
    assert measure(idle, "idle", repeats=1, watch=watch).method.warm_up_s > 15


def test_what_never_stands_still_is_measured_all_the_same_and_told(watch):
    device = StandIn(rate=lambda share, t_s: 1e6 * (1 + t_s / 100))
    phase = measure(device, "hash", watch=watch)
    assert phase.method.steady is False
    assert phase.method.warm_up_s == WARM_UP_WINDOWS * 1.0
    assert phase.warnings[0] == "Throughput or power was not steady after a warm-up of 40.0 s."
    assert any("hash rate drifted by" in said for said in phase.warnings)


def test_quick_says_so(watch):
    device = StandIn()
    phase = measure(device, "hash", quick=True, watch=watch)
    assert phase.method.quick
    assert (phase.method.repeats, phase.seconds) == (3, 15.0)
    assert not measure(device, "hash", seconds=20, repeats=3, watch=watch).method.quick


def test_a_slow_meter_makes_the_warm_up_s_windows_longer():
    device = StandIn()
    device.meter.period_s = 2.0
    assert warm_up(device, 60.0, lambda: None) == (True, LOOK * 4.0)


def test_a_trace_has_no_steady_state_to_wait_for(watch):
    device = StandIn()
    device.plays_trace = True
    phase = measure(device, "hash", seconds=10.0, repeats=2, watch=watch)
    assert device.lengths_s == [10.0, 10.0]
    assert (phase.method.steady, phase.method.warm_up_s) == (None, 0.0)


def test_progress_names_each_window(watch):
    said = []
    measure(StandIn(), "hash", repeats=2, watch=watch, progress=lambda step, share: said.append(step))
    assert list(dict.fromkeys(said)) == ["hash: warm-up", "hash, 1 of 2", "hash, 2 of 2"]


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_lengths_that_cannot_be(seconds):
    device = StandIn()
    with pytest.raises(InvalidInput, match="seconds must be above 0"):
        measure(device, "hash", seconds=seconds)
    assert device.lengths_s == []


@pytest.mark.parametrize("repeats", [0, -1, 10_001, 1.5])
def test_repeats_that_cannot_be(repeats):
    with pytest.raises(InvalidInput, match="repeats must be"):
        measure(StandIn(), "hash", repeats=repeats)


def window(n, **fields):
    power = Power(10.0 * n, 10.0, (9.0 * n, 12.0 * n), "counter", 1 / n, f"window {n}", 100 * n, (f"said {n}", "both"))
    return PhaseResult("mixed", float(n), n, 10 * n, 100 * n, "trace", **({"power": power} | fields))


def test_windows_together_are_their_sums():
    a = window(1, latency=Latency(1.0, 5.0), yields=Yields(2, 1.0, 9.0), samples=[{"t_s": 1.0, "hashes": 1}])
    b = window(2, latency=Latency(3.0, 9.0), yields=Yields(3, 2.0, 7.0), samples=[{"t_s": 2.0, "hashes": 2}])
    both = together([a, b])
    assert (both.seconds, both.hashes, both.output_tokens, both.prompt_tokens) == (3.0, 3, 30, 300)
    assert both.power == Power(30.0, 10.0, (27.0, 36.0), "counter", 0.5, "window 2", 300, ("said 1", "both", "said 2"))
    assert both.latency == Latency(2.0, 7.0)
    assert both.yields == Yields(5, 1.5, 8.0)
    assert both.samples == [{"t_s": 1.0, "hashes": 1}, {"t_s": 3.0, "hashes": 3}]
    assert together([a]) is a


def test_windows_together_know_no_more_than_each():
    lost = Power(None, None, None, "counter", 0.0, "the counter is gone.")
    both = together([window(1), window(2, power=lost), window(3)])
    assert (both.joules, both.power.watts, both.power.ci95_j, both.power.updates) == (None, None, None, None)
    assert (both.power.detail, both.power.coverage) == ("the counter is gone.", 0.0)
    assert both.hashes == 6
    assert together([window(1), window(2, power=None)]).power is None


def test_a_device_is_measured():
    job = ww.Job(ww.Work.from_header(mainnet_header(0)))
    with ww.Device("cpu", meter=ww.Meter("external", watts=10.0)) as device:
        device.bind(job)
        phase = ww.measure(device, "hash", seconds=0.2, repeats=3)
        assert device.mode == "hash"
    assert phase.hashes > 0
    assert phase.method.quick
    assert phase.method.figures["hashes_per_s"].n == 3
    assert phase.method.figures["watts"].median == pytest.approx(10.0)
    report = ww.Report(phases=[phase])
    assert ww.Report.from_json(report.to_json()) == report
