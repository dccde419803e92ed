"""Meters against powercap trees whose true energy is known."""

import errno
import gc
import os
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from powercap import RANGE_UJ, UNIT_NJ, FakeClock, Zone, constant, ramp, square, write

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters import Meter, estimate, powercap, rapl
from wattwork.meters.cadence import Cadence, probe
from wattwork.meters.counter import CounterSource
from wattwork.meters.estimate import EstimateSource
from wattwork.meters.track import Counter

UNIT_J = UNIT_NJ * 1e-9


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock():
    return FakeClock()


def zone(root, clock, number=0, joules=None, **how):
    made = Zone(root / f"intel-rapl:{number}", f"package-{number}", joules or constant(50.0), **how)
    clock.listeners.append(made.update)
    made.update(clock.t)
    return made


def window(source, clock, seconds):
    """A window of about `seconds`: (energy, begin, end)."""
    begin_s = clock.t
    token = source.begin()
    begin_s = (begin_s + clock.t) / 2
    clock.sleep(seconds)
    end_s = clock.t
    energy = source.end(token)
    return energy, begin_s, (end_s + clock.t) / 2


@pytest.mark.parametrize(
    "joules", [constant(80.0), square(20.0, 200.0, 10.0), ramp(3.0)], ids=["flat", "square", "ramp"]
)
@pytest.mark.parametrize("period_s", [1e-3, 0.1])
def test_truth_lies_within_the_interval(root, clock, joules, period_s):
    zone(root, clock, joules=joules, period_s=period_s, phase_s=0.00037)
    clock.sleep(3.0)
    source = rapl.open_rapl(clock, helper=False)
    random_s = random.Random(1)
    inside = 0
    for _ in range(100):
        clock.sleep(random_s.uniform(0.0, 0.2))
        energy, begin_s, end_s = window(source, clock, random_s.uniform(0.6, 1.7))
        low, high = energy.ci95_j
        inside += low <= joules(end_s) - joules(begin_s) <= high
        assert low <= energy.joules <= high
        assert energy.coverage == 1.0
        assert energy.watts == pytest.approx(energy.joules / energy.seconds)
    assert inside >= 95


def test_interval_is_small_for_a_quick_counter(root, clock):
    zone(root, clock, joules=constant(80.0))
    energy, _, _ = window(rapl.open_rapl(clock, helper=False), clock, 0.737)
    low, high = energy.ci95_j
    assert (high - low) / 2 < 0.005 * energy.joules


def test_period_and_unit_are_taken_from_the_counter(root, clock):
    made = zone(root, clock, joules=constant(80.0), period_s=0.013)
    cadence = probe(powercap.Reader(str(made.path / "energy_uj")), clock)
    assert cadence.period_s == pytest.approx(0.013, rel=0.05)
    assert cadence.watts == pytest.approx(80.0, rel=0.05)
    clock.listeners.clear()
    still = probe(lambda: 7, clock)
    assert still.period_s == 0.3
    assert "not seen" in still.note


def test_thousands_of_wraps_leave_no_error(root, clock):
    # 2^14 counts are one joule: at 50 W a wrap each 20 ms.
    source = rapl_with_counts(root, clock, 2**14)
    token = source.begin()
    begin_s = clock.t
    for _ in range(2000):
        clock.sleep(0.005)
        source.poll()
    energy = source.end(token)
    assert 50.0 * (clock.t - begin_s) / (2**14 * UNIT_J) > 490  # wraps
    assert abs(energy.joules - 50.0 * (clock.t - begin_s)) <= 50.0 * 1.2e-3 + 2 * UNIT_J
    assert energy.coverage == 1.0


def rapl_with_counts(root, clock, counts, max_w=100.0):
    """The range of a real counter is worth an hour; one of a few counts makes wraps frequent."""
    made = zone(root, clock, counts=counts, start_count=counts - 5)
    read = powercap.Reader(str(made.path / "energy_uj"))
    counter = Counter("package-0", read, counts * UNIT_NJ // 1000, max_w, probe(read, clock))
    return CounterSource("rapl", [counter], clock, helper=False)


def test_a_gap_longer_than_a_wrap_is_flagged_and_not_guessed(root, clock):
    source = rapl_with_counts(root, clock, 2**14)
    truth, begin_s, end_s = window(source, clock, 0.3)  # 15 wraps of which nobody saw any
    low, high = truth.ci95_j
    assert truth.coverage < 0.01
    assert "nobody read" in truth.detail
    assert low <= 50.0 * (end_s - begin_s) <= high
    after, begin_s, end_s = window(source, clock, 0.009)
    assert after.coverage == 1.0
    assert after.joules == pytest.approx(50.0 * (end_s - begin_s), abs=0.06)


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(0, 2**31), min_size=1, max_size=6))
def test_a_wrap_never_gives_a_negative_or_wrong_window(start, steps):
    """Raw counts through the kernel's own arithmetic, each step below a wrap: exact but for the kernel's rounding."""
    count = start
    clock = FakeClock()
    modulus_uj = powercap.modulus_uj(RANGE_UJ, (start * UNIT_NJ // 1000,))
    counter = Counter("package-0", lambda: count * UNIT_NJ // 1000, modulus_uj, 1000.0, Cadence(1e-3, 61, 0.0, (), ""))
    source = CounterSource("rapl", [counter], clock, helper=False)
    token = source.begin()
    for step in steps:
        count = (count + step) % 2**32
        clock.sleep(200.0)
        source.poll()
    energy = source.end(token)
    assert energy.joules == pytest.approx(sum(steps) * UNIT_J, abs=1e-5)
    assert energy.ci95_j[0] <= sum(steps) * UNIT_J <= energy.ci95_j[1]
    assert energy.coverage == 1.0


def test_a_range_that_is_not_the_hardwares_is_taken_as_it_stands():
    assert powercap.modulus_uj(1_000_000, (5, 7)) == 1_000_000
    assert powercap.modulus_uj(RANGE_UJ, (1000,)) == RANGE_UJ  # 1000 uJ is no count of this unit


def test_one_wrap_on_real_time(root):
    """As a user meets it: the real clock, the helper thread, a counter about to wrap."""
    (root / "intel-rapl:0").mkdir()
    for name, value in (("max_energy_range_uj", RANGE_UJ), ("energy_uj", RANGE_UJ)):
        write(root / "intel-rapl:0" / name, value)
    meter = Meter("rapl")
    with meter.window() as seen:
        write(root / "intel-rapl:0" / "energy_uj", 1037)  # 17 counts
    assert seen.energy.joules == pytest.approx(18 * UNIT_J, abs=1e-6)
    assert seen.energy.source == "counter"
    assert seen.energy.measured
    meter.close()


def test_all_packages_count_once(root, clock):
    zone(root, clock, 0, constant(30.0))
    zone(root, clock, 1, constant(40.0), phase_s=0.0004)
    zone(root, clock, 10, constant(50.0))
    for name, number in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
        Zone(root / name, number, constant(0.0)).write(5)
    energy, begin_s, end_s = window(rapl.open_rapl(clock, helper=False), clock, 1.37)
    assert energy.joules == pytest.approx(120.0 * (end_s - begin_s), rel=2e-3)
    assert "package-0 + package-1 + package-10" in energy.detail


def test_windows_overlap(root, clock):
    zone(root, clock)
    meter = Meter("rapl", clock=clock)
    outer = meter.begin()
    clock.sleep(1.0)
    with meter.window() as first:
        inner = meter.begin()
        clock.sleep(2.0)
    whole = meter.end(outer)
    clock.sleep(3.0)
    late = meter.end(inner)
    assert [round(e.joules) for e in (whole, first.energy, late)] == [150, 100, 250]
    meter.close()


def test_windows_on_many_threads_add_up(root):
    path = root / "intel-rapl:0"
    Zone(path, "package-0", constant(0.0))
    meter = Meter("rapl")
    failures = []
    stop = threading.Event()

    def count():
        uj = 0
        while not stop.is_set():
            uj += 1000
            write(path / "energy_uj", uj)

    def measure():
        try:
            for _ in range(30):
                with meter.window() as outer, meter.window() as inner:
                    time.sleep(0)
                assert 0.0 <= inner.energy.joules <= outer.energy.joules
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=measure) for _ in range(6)]
    writer = threading.Thread(target=count)
    for thread in (writer, *threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    writer.join(60)
    assert not failures
    meter.close()


def test_the_helper_sees_wraps_nobody_else_looks_at(root, monkeypatch):
    monkeypatch.setattr(powercap, "MAX_PACKAGE_W", 1e9)  # makes the shortest wrap 262 us, so the helper reads each ms
    path = root / "intel-rapl:0"
    Zone(path, "package-0", constant(0.0))
    meter = Meter("rapl")
    token = meter.begin()
    for uj in (int(RANGE_UJ * 0.9), int(RANGE_UJ * 0.8), int(RANGE_UJ * 0.7)):  # two wraps
        before = meter._source._last_s
        write(path / "energy_uj", uj)
        written_s = time.perf_counter()
        while meter._source._last_s <= max(before, written_s):
            time.sleep(1e-3)
    energy = meter.end(token)
    assert energy.joules == pytest.approx(RANGE_UJ * 2.7e-6, rel=1e-6)
    meter.close()


def test_the_helper_is_a_daemon_and_ends_with_its_meter(root, clock):
    zone(root, clock)

    def helpers():
        return [t for t in threading.enumerate() if t.name == "wattwork-meter"]

    before = set(helpers())
    meter = Meter("rapl")
    assert set(helpers()) <= before  # none before the first window
    with meter.window():
        thread = meter._source._thread
        assert thread in helpers()
        assert thread.daemon
    del meter
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_a_meter_goes_on_after_fork(root, clock):
    zone(root, clock)
    meter = Meter("rapl")
    token = meter.begin()
    child = os.fork()
    if child == 0:
        with meter.window() as seen:
            pass
        os._exit(0 if seen.energy.joules == 0 and meter._source._thread.is_alive() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert meter.end(token).joules == 0
    meter.close()


def test_a_counter_that_vanishes_keeps_the_other_windows(root, clock):
    made = zone(root, clock)
    source = rapl.open_rapl(clock, helper=False)
    good, _, _ = window(source, clock, 1.0)
    clock.listeners.clear()
    token = source.begin()
    (made.path / "energy_uj").unlink()
    source.poll()
    lost = source.end(token)
    assert good.joules > 49
    assert (lost.joules, lost.watts, lost.ci95_j, lost.coverage) == (None, None, None, 0.0)
    assert "is not there any more." in lost.detail
    assert not lost.measured
    never, _, _ = window(source, clock, 1.0)
    assert never.joules is None
    write(made.path / "energy_uj", 0)
    again, _, _ = window(source, clock, 1.0)
    assert again.joules == 0.0


def test_a_window_begun_while_the_counter_was_away_spoils_no_other(root, clock):
    made = zone(root, clock, joules=constant(50.0))
    source = rapl.open_rapl(clock, helper=False)
    (made.path / "energy_uj").unlink()
    clock.listeners.clear()
    lost = source.begin()
    clock.listeners.append(made.update)
    clock.sleep(0.01)
    good, begin_s, end_s = window(source, clock, 1.0)
    assert good.joules == pytest.approx(50.0 * (end_s - begin_s), rel=5e-3)
    assert good.ci95_j[1] - good.ci95_j[0] < 1.0
    assert source.end(lost).joules is None


def refuse(monkeypatch, error):
    def refusing(path, *args):
        raise OSError(error, os.strerror(error), path)

    monkeypatch.setattr(powercap.os, "open", refusing)


def test_unreadable_counters_name_the_fix(root, clock, monkeypatch):
    zone(root, clock)
    refuse(monkeypatch, errno.EACCES)
    with pytest.raises(MeterError, match=r"chmod a\+r .*energy_uj"):
        Meter("rapl")
    meter = Meter()
    assert meter.source == "estimate"
    assert meter.kind == "estimated"
    assert "read by root only" in meter.reason


def test_other_trouble_with_the_files(root, clock, monkeypatch):
    made = zone(root, clock)
    write(made.path / "max_energy_range_uj", 0)
    with pytest.raises(MeterError, match="max_energy_range_uj is 0"):
        Meter("rapl")
    (made.path / "energy_uj").write_text("nonsense")
    with pytest.raises(MeterError, match="cannot be read"):
        Meter("rapl")
    refuse(monkeypatch, errno.ENODEV)
    with pytest.raises(MeterError, match="cannot be read"):
        Meter("rapl")


def test_no_meter_is_never_called_measured(root):
    with pytest.raises(MeterError, match="there is no RAPL energy counter"):
        Meter("rapl")
    meter = Meter()
    with meter.window() as seen:
        sum(range(10_000))
    energy = seen.energy
    low, high = energy.ci95_j
    assert energy.source == "estimated"
    assert not energy.measured
    assert "measured" not in energy.detail
    assert estimate.MODEL in energy.detail
    assert "no RAPL energy counter" in energy.detail
    assert low < energy.joules < high
    assert high > 2 * energy.joules


def test_the_estimate_follows_utilisation(clock):
    spent = [0.0]
    source = EstimateSource(clock=clock, cpu_s=lambda: spent[0])
    least, watts, most = estimate.watts_per_core(source._cpu)
    idle, _, _ = window(source, clock, 10.0)
    token = source.begin()
    clock.sleep(10.0)
    spent[0] += 1e6  # more than there are cores: full
    full = source.end(token)
    assert full.watts == pytest.approx(source._cores * watts)
    assert full.ci95_j == pytest.approx((full.joules * least / watts, full.joules * most / watts))
    assert idle.watts == pytest.approx(0.25 * full.watts)
    assert estimate.watts_per_core("AMD EPYC 7763 64-Core Processor")[1] == 4.4
    assert estimate.watts_per_core("Something else")[1] == 6.0


def test_external_is_the_operators_own_reading(clock):
    meter = Meter(watts=65.0, clock=clock)
    token = meter.begin()
    clock.sleep(2.0)
    energy = meter.end(token)
    assert meter.source == energy.source == "external"
    assert energy.joules == pytest.approx(65.0 * energy.seconds)
    assert energy.ci95_j is None
    assert not energy.measured
    assert "operator's own" in energy.detail
    assert "measured" not in energy.detail


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tea", "cpu", None), "choose one of auto, rapl, .*, nvml, external, estimate"),
        (("external", "cpu", None), "give watts="),
        (("external", "cpu", float("nan")), "finite"),
        (("external", "cpu", -1.0), "from 0 up"),
        (("rapl", "cpu", 65.0), "goes with the source 'external'"),
        (("rapl", "cuda:0", None), "no such meter for the device 'cuda:0'"),
        (("auto", "tpu:0", None), "no such meter for the device 'tpu:0'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, sentence):
    source, device, watts = arguments
    with pytest.raises(InvalidInput, match=sentence):
        Meter(source, device=device, watts=watts)


@pytest.mark.parametrize("source", ["rapl", "external", "estimate"])
def test_a_window_ends_once_and_on_its_own_meter(root, clock, source):
    zone(root, clock)
    watts = 1.0 if source == "external" else None
    meter, other = (Meter(source, watts=watts, clock=clock) for _ in range(2))
    token = meter.begin()
    with pytest.raises(InvalidInput, match="same meter"):
        other.end(token)
    meter.end(token)
    with pytest.raises(InvalidInput, match="already ended"):
        meter.end(token)
    with meter.window() as seen, pytest.raises(MeterError, match="still open"):
        seen.energy
    with pytest.raises(ZeroDivisionError), meter.window() as broken:
        1 / 0
    assert broken.energy.seconds > 0
    meter.close()


def test_idle_baseline(clock):
    meter = Meter("external", watts=12.0, clock=clock)
    with meter.window() as idle:
        clock.sleep(1.0)
    assert idle.energy.idle_watts is None
    meter.set_idle(idle.energy)
    with meter.window() as busy:
        pass
    assert busy.energy.idle_watts == 12.0
    with pytest.raises(InvalidInput, match="no baseline"):
        Meter("estimate").set_idle(idle.energy)
