"""Repeated switches: the order, the figures, and joules no finer than the meter."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wattwork as ww
from wattwork.data import mainnet_header
from wattwork.errors import InvalidInput
from wattwork.meters import Energy
from wattwork.report import MODES, Report
from wattwork.switch_costs import _joules, measure_switches, switch_costs, walk

PAIRS = [(before, after) for before in MODES for after in MODES if before != after]


@given(st.integers(0, 2**64))
def test_a_walk_takes_every_switch_once_and_ends_where_it_began(seed):
    steps = walk(random.Random(seed))
    assert sorted(steps) == sorted(PAIRS)
    assert steps[0][0] == steps[-1][1] == "idle"
    assert all(a[1] == b[0] for a, b in pairwise(steps))
    assert steps == walk(random.Random(seed))


def test_walks_differ():
    order = random.Random(0)
    assert len({tuple(walk(order)) for _ in range(20)}) > 10


def test_every_switch_of_a_device_has_its_cost():
    engine = ww.make_engine("tiny-15m", threads=2)
    with ww.Device("cpu", threads=2, meter=ww.Meter("external", watts=10.0)) as device:
        device.bind(ww.Job(ww.Work.from_header(mainnet_header(0))), engine)
        costs = switch_costs(device, repeats=2, dwell_s=0.02)
        assert device.mode == "idle"
    engine.close()
    assert [(cost.from_mode, cost.to_mode) for cost in costs] == PAIRS
    starts = {"hash": {"back"}, "infer": {"front"}, "mixed": {"front", "back"}, "idle": set()}
    for cost in costs:
        assert cost.command_s.n == 2
        assert cost.command_s.ci95[0] <= cost.command_s.median
        assert (cost.first_unit_s is not None) == bool(starts[cost.to_mode] - starts[cost.from_mode])
        assert cost.joules.median > 0
        assert cost.source == "external"
    report = Report(switch_costs=costs)
    assert Report.from_json(report.to_json()) == report


def energy(joules, seconds, half=None):
    interval = None if half is None or joules is None else (joules - half, joules + half)
    return Energy(joules, 1.0, interval, seconds, "counter", 1.0)


def test_joules_of_a_switch_shorter_than_the_meter_s_period_are_not_made_up():
    assert _joules([energy(1.0, 0.05), energy(2.0, 0.2), energy(3.0, 0.01)], 0.1) is None
    assert _joules([energy(1.0, 0.05), energy(2.0, 0.2), energy(3.0, 0.3)], 0.1).median == 2.0
    assert _joules([energy(1.0, 1.0), energy(None, 1.0)], None) is None


def test_the_interval_of_the_joules_holds_the_meter_s_own():
    assert _joules([energy(5.0, 1.0, 0.5)] * 3, None).ci95 == pytest.approx((4.5, 5.5))
    assert _joules([energy(5.0, 1.0, 9.0)] * 3, None).ci95 == pytest.approx((0.0, 14.0))
    assert _joules([energy(5.0, 1.0, 0.5)], None).ci95 == (4.5, 5.5)
    assert _joules([energy(5.0, 1.0)], None).ci95 is None


def test_arguments_that_do_not_fit():
    with pytest.raises(InvalidInput, match="repeats must be from 1"):
        measure_switches(repeats=0)
    with pytest.raises(InvalidInput, match="dwell_s must be above 0"), ww.Device("cpu") as device:
        switch_costs(device, dwell_s=0.0)
    with pytest.raises(InvalidInput, match="needs an engine"), ww.Device("cpu") as device:
        switch_costs(device)
