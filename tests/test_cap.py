"""A cap on power or temperature: its law on plants in virtual time, and its thread over a made-up powercap tree."""

import itertools
import threading
import time
from random import Random
from types import SimpleNamespace

import pytest
from backs import wait_until
from engines_for_tests import SumEngine, expected
from headers import GENESIS
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st
from powercap import Zone
from seeds import FRESH_SEED

from wattwork.cap import AIM, LEAST_FRONT, LOW, NOISE, Cap, Control, Shares, hottest_celsius
from wattwork.errors import InvalidInput
from wattwork.job import Job
from wattwork.meters import Meter
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.work import Work

CONFIG = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
HANG_MS = 60_000


class Plant:
    """Watts as idle + back + front, each by its share of the time; the reading has noise of up to `noise` watts."""

    def __init__(self, idle, back, front, random, noise=0.0):
        self.idle, self.back, self.front, self.random, self.noise = idle, back, front, random, noise

    def watts(self, shares):
        return self.idle + self.back * shares.back + self.front * shares.front

    def read(self, shares):
        return max(self.watts(shares) + self.random.uniform(-self.noise, self.noise), 0.0)


def run(control, plant, turns):
    """The shares of each turn."""
    shares, out = control.shares, []
    for _ in range(turns):
        shares = control.next_shares(plant.read(shares), None, 0.5)
        assert 0 <= shares.back <= 1
        assert LEAST_FRONT <= shares.front <= 1
        assert shares.front == 1 or shares.back == 0, "the front is slowed only when the back has nothing left to give"
        out.append(shares)
    return out


watts = st.floats(0, 1000, allow_subnormal=False)
plants = st.tuples(watts, watts, watts).filter(lambda p: sum(p) > 1)
TURNS = 2000  # what settling may take: moves are a part of the gap each


@seed(FRESH_SEED)
@settings(deadline=None)
@given(plants, st.floats(0.05, 1.5), st.floats(0, 1), st.integers(0, 2**32))
def test_it_settles_at_or_below_the_cap(parts, cap_share, noise, number):
    cap = cap_share * sum(parts)
    plant, control = Plant(*parts, Random(number), noise * NOISE * cap), Control(cap)
    settled = run(control, plant, TURNS + 200)[-200:]
    least = plant.watts(Shares(0.0, LEAST_FRONT))
    power = [plant.watts(shares) for shares in settled]
    tolerance = (1 + 2 * NOISE) * cap
    if least > tolerance:
        assert settled[-1] == Shares(0.0, LEAST_FRONT)
        assert control.over(plant.read(settled[-1]), None)
        return
    assert max(power) <= tolerance
    # No oscillation: what still moves are corrections of the noise, which only lower a power that is near the cap.
    assert max(power) - min(power) <= 2 * NOISE * cap + 1e-9
    full = plant.watts(Shares(1.0, 1.0))
    assert min(power) >= min((LOW - 2 * NOISE) * cap, full) - 1e-9, "and gives away no more than it must"


@seed(FRESH_SEED)
@settings(deadline=None)
@given(plants, st.floats(0.05, 0.95))
def test_without_noise_it_stands_still(parts, cap_share):
    cap = cap_share * sum(parts)
    plant, control = Plant(*parts, random=SimpleNamespace(uniform=lambda a, b: 0.0)), Control(cap)
    levels = []
    for _ in range(TURNS):
        run(control, plant, 1)
        levels.append(control.level)
    assert len(set(levels[-100:])) == 1
    moves = [b - a for a, b in itertools.pairwise(levels) if b != a]
    turns = sum(a * b < 0 for a, b in itertools.pairwise(moves))
    assert turns <= 1, "it goes down, and back at most once, where the front's part ends at once below the cap"


@seed(FRESH_SEED)
@settings(deadline=None)
@given(plants, st.floats(0.05, 1.0), st.floats(0, 1), st.integers(0, 2**32))
def test_everything_is_given_back_when_the_cap_is_raised(parts, cap_share, noise, number):
    full = sum(parts)
    control = Control(cap_share * full)
    plant = Plant(*parts, Random(number), noise * NOISE * cap_share * full)
    run(control, plant, 300)
    control.watts = 1.2 * full
    shares = run(control, plant, TURNS)
    assert shares[-1] == Shares(1.0, 1.0)
    levels = [shares.back + shares.front for shares in shares]
    assert levels == sorted(levels), "in the reverse order, without a step back"


@seed(FRESH_SEED)
@settings(deadline=None)
@given(plants, st.floats(0.2, 0.9), st.lists(st.floats(0, 1), min_size=1, max_size=8))
@example((0.0, 0.0, 2.0), 0.21875, [0.25, 0.5, 1.0])  # more than was ever read, were it not slowed
def test_a_load_that_comes_and_goes_is_followed(parts, cap_share, loads):
    """The front's requests come and go: whatever the level was, it settles for each load in turn."""
    idle, back, front = parts
    cap = max(cap_share * sum(parts), idle + LEAST_FRONT * front)
    control = Control(cap)
    still = SimpleNamespace(uniform=lambda a, b: 0.0)
    for load in loads:
        plant = Plant(idle, back, front * load, still)
        settled = run(control, plant, TURNS)[-1]
        assert plant.watts(settled) <= cap * (1 + 1e-9)


@pytest.mark.parametrize("tau_s", [1.0, 5.0, 20.0, 60.0])
@pytest.mark.parametrize("rise_c", [20.0, 60.0])
def test_a_temperature_that_lags_settles_below_its_cap(tau_s, rise_c):
    """A body that warms towards `ambient + rise x power` with a time constant: from cold and from hot."""
    cap, ambient = 60.0, 30.0
    for start in (ambient, ambient + 2 * rise_c):
        control, celsius, last = Control(celsius=cap), start, []
        for turn in range(6000):
            shares = control.next_shares(None, round(celsius), 0.5)
            goal = ambient + rise_c * (shares.back + shares.front)
            celsius += (goal - celsius) * 0.5 / tau_s
            if turn >= 5800:
                last.append((celsius, control.level))
        assert max(c for c, _ in last) <= cap + 1
        assert max(level for _, level in last) - min(level for _, level in last) < 1e-9


def test_both_caps_hold_at_once():
    control = Control(100.0, 60.0)
    assert control.next_shares(90.0, 50.0, 0.5) == Shares(1.0, 1.0)
    power = control.next_shares(150.0, 50.0, 0.5)
    assert power.back < 1
    assert control.next_shares(50.0, 90.0, 0.5).back < power.back, "the hotter one counts though there are watts"


def test_who_cannot_see_goes_slowly_and_recovers():
    control = Control(100.0)
    assert control.next_shares(None, None, 0.5) == Shares(0.0, 1.0)
    assert control.next_shares(None, None, 0.5) == Shares(0.0, 1.0), "the front is not slowed for a sensor's sake"
    for _ in range(100):
        control.next_shares(50.0, None, 0.5)
    assert control.shares == Shares(1.0, 1.0)


# ---- the real thread


class Tree:
    """A powercap tree whose power follows the shares of a scheduler: 20 W idle, 40 W the back, 30 W the front."""

    def __init__(self, root):
        self.uj, self.t, self.zone = 0.0, time.monotonic(), Zone(root / "intel-rapl:0", "package-0", lambda t: 0.0)
        self.scheduler, self.ended = None, threading.Event()
        self.thread = threading.Thread(target=self._drive)
        self.thread.start()

    def watts(self):
        if self.scheduler is None:
            return 90.0
        stats = self.scheduler.stats()
        return 20.0 + 40.0 * stats.back_share + 30.0 * stats.front_share

    def _drive(self):
        while not self.ended.wait(0.002):
            now = time.monotonic()
            self.uj += self.watts() * (now - self.t) * 1e6
            self.t = now
            self.zone.write(int(self.uj))

    def close(self):
        self.ended.set()
        self.thread.join()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path))
    made = Tree(tmp_path)
    yield made
    made.close()


def test_a_counter_is_kept_below_its_cap(tree):
    job = Job(Work.from_header(GENESIS, version_mask=0x1FFFE000))
    with Scheduler(CONFIG, SumEngine(CONFIG), job) as scheduler:
        tree.scheduler = scheduler
        meter = Meter("rapl")
        with Cap(scheduler, watts=70.0, meter=meter, interval_s=0.02) as cap:
            wait_until(lambda: cap.reading.watts and tree.watts() <= 70)
            assert scheduler.stats().front_share == 1
            cap.set(watts=45.0)  # less than without the back
            wait_until(lambda: scheduler.stats().front_share < 1)
            assert scheduler.stats().back_share == 0
            assert scheduler.submit([1], max_tokens=3).result(HANG_MS) == expected([1], 3)
            wait_until(lambda: tree.watts() <= 46)
            assert not cap.reading.over
            cap.set(watts=5.0)
            wait_until(lambda: cap.reading.over)
            assert cap.reading.shares == Shares(0.0, LEAST_FRONT)
            cap.set(watts=1000.0)
            wait_until(lambda: scheduler.stats().back_share == 1)
            cap.set(watts=45.0)
            wait_until(lambda: scheduler.stats().front_share < 1)
            (tree.zone.path / "energy_uj").chmod(0)
            tree.zone.path.rename(tree.zone.path.parent / "gone")
            tree.close()
            wait_until(lambda: cap.reading.error)
            assert "not there any more" in cap.reading.error
        stats = scheduler.stats()
        assert (stats.back_share, stats.front_share) == (1, 1)
        cap.close()
        meter.close()
        tree.scheduler = None


def test_the_hottest_sensor_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("WATTWORK_THERMAL_ROOT", str(tmp_path))
    assert hottest_celsius() is None
    with (
        Scheduler(CONFIG, None) as scheduler,
        pytest.raises(InvalidInput, match=r"no temperature sensor.*read_celsius="),
    ):
        Cap(scheduler, celsius=60.0)
    for name, text in {
        "thermal/thermal_zone0/temp": "41000\n",
        "thermal/thermal_zone1/temp": "-274000\n",
        "thermal/thermal_zone2/temp": "no number\n",
        "hwmon/hwmon3/temp1_input": "55500\n",
        "hwmon/hwmon3/temp2_input": "4294967295\n",
        "hwmon/hwmon3/fan1_input": "99000\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert hottest_celsius() == 55.5
    with Scheduler(CONFIG, None) as scheduler, Cap(scheduler, celsius=50.0, interval_s=0.005) as cap:
        wait_until(lambda: cap.reading.celsius == 55.5 and scheduler.stats().back_share < 1)


def test_a_reader_that_raises_is_told_and_the_back_rests():
    def broken():
        raise OSError("no bus")

    with Scheduler(CONFIG, None) as scheduler:
        with Cap(scheduler, celsius=50.0, read_celsius=broken, interval_s=0.005) as cap:
            wait_until(lambda: cap.reading.error == "OSError: no bus")
            wait_until(lambda: scheduler.stats().back_share == 0)
            assert scheduler.stats().front_share == 1
        assert scheduler.stats().back_share == 1


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "wattwork-cap"]


def test_it_ends_with_its_scheduler_or_when_it_is_let_go():
    scheduler = Scheduler(CONFIG, None)
    cap = Cap(scheduler, celsius=50.0, read_celsius=lambda: None, interval_s=0.005)
    wait_until(lambda: scheduler.stats().back_share == 0)
    del cap
    wait_until(lambda: not threads())
    assert scheduler.stats().back_share == 1
    cap = Cap(scheduler, celsius=50.0, read_celsius=lambda: None, interval_s=0.005)
    scheduler.close()
    wait_until(lambda: not threads())
    cap.close()


def test_what_is_asked_wrongly(tmp_path, monkeypatch):
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path / "none"))
    with Scheduler(CONFIG, None) as scheduler:
        with pytest.raises(InvalidInput, match="needs watts=, celsius="):
            Cap(scheduler)
        with pytest.raises(InvalidInput, match="a cap on an estimate is none"):
            Cap(scheduler, watts=50, meter=Meter("estimate"))
        with pytest.raises(InvalidInput, match=r"a cap on an estimate is none.*no RAPL"):
            Cap(scheduler, watts=50)
        for wrong in (0, -1, float("nan"), float("inf"), "50"):
            with pytest.raises(InvalidInput, match="watts is"):
                Cap(scheduler, watts=wrong, meter=Meter(watts=10))
            with pytest.raises(InvalidInput, match="celsius is"):
                Cap(scheduler, celsius=wrong)
        with pytest.raises(InvalidInput, match="interval_s"):
            Cap(scheduler, celsius=50, read_celsius=lambda: 20, interval_s=0)
        with Cap(scheduler, celsius=50, read_celsius=lambda: 20) as cap, pytest.raises(InvalidInput, match="meter="):
            cap.set(watts=20)
    assert not threads()
    assert LOW < AIM < 1
