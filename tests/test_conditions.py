"""Clock, temperature, throttling and other load, on a machine made of files; and what should be said of them."""

import pytest
from machine_tree import MachineTree

from wattwork import conditions
from wattwork.conditions import Conditions, Watch
from wattwork.report import PhaseResult, Power
from wattwork.trust import doubts


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(conditions, "EVERY_S", 0.0)
    return MachineTree(tmp_path)


def test_what_the_machine_tells_over_a_phase(tree, monkeypatch):
    monkeypatch.setattr(conditions.time, "process_time", iter([10.0, 40.0]).__next__)
    watch = Watch(root=tree.root)
    tree.clock(2500)
    tree.celsius(81.5)
    watch.look()
    tree.clock(2900)
    tree.celsius(70)
    tree.throttled(9)
    tree.stat(busy_s=150.0, idle_s=945.0, steal_s=5.0)
    assert watch.conditions() == Conditions((2500.0, 3000.0), (50.0, 81.5), 100.0, 2, 0.2, 0.05)


def test_what_is_not_told_is_none(tmp_path):
    watch = Watch(root=tmp_path)
    watch.look()
    assert watch.conditions() == Conditions()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu what is this\n")
    assert Watch(root=tmp_path).conditions() == Conditions()


def test_a_thermal_zone_does_where_no_chip_is_known(tmp_path):
    for i, (kind, milli) in enumerate((("acpitz", 30_000), ("x86_pkg_temp", 64_000))):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{i}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(f"{milli}\n")
    assert Watch(root=tmp_path).conditions().celsius == (64.0, 64.0)


def test_looks_are_rare(tree, monkeypatch):
    monkeypatch.setattr(conditions, "EVERY_S", 1e6)
    watch = Watch(root=tree.root)
    tree.clock(100)
    watch.look()
    tree.clock(3000)
    assert watch.conditions().clock_mhz == (3000.0, 3000.0)


def test_this_machine_can_be_watched():
    seen = Watch().conditions()
    assert seen.other_load is None or 0 <= seen.other_load <= 1


def windows(n=1, power=None, rates=None):
    rates = rates or [100] * n
    return [PhaseResult("hash", 1.0, rate, power=power) for rate in rates]


METERED = Power(50.0, 50.0, (49.0, 51.0), "counter", 1.0, "rapl", 1000)


def test_nothing_is_said_of_a_good_measurement():
    good = Conditions((2990.0, 3000.0), (50.0, 60.0), 100.0, 0, 0.01, 0.0)
    assert doubts(windows(5, METERED), good, flat_out=True) == ()
    assert doubts(windows(5, METERED), Conditions(), flat_out=True) == ()


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (Conditions(clock_mhz=(2000.0, 3000.0)), "The clock fell from 3,000 to 2,000 MHz"),
        (Conditions(throttled=3), "slowed itself for heat, 3 times"),
        (Conditions(celsius=(60.0, 97.0), celsius_limit=100.0), "At 97 °C the processor was near its limit of 100 °C."),
        (Conditions(other_load=0.3), "Other processes took 30% of the machine's CPU time"),
        (Conditions(steal=0.05), "The hypervisor gave 5% of the CPU time to other guests."),
    ],
)
def test_each_doubt_has_its_sentence(seen, sentence):
    said = doubts(windows(1, METERED), seen, flat_out=True)
    assert len(said) == 1
    assert sentence in said[0]


def test_a_clock_that_follows_its_load_is_no_throttling():
    assert doubts(windows(1, METERED), Conditions(clock_mhz=(2000.0, 3000.0)), flat_out=False) == ()


@pytest.mark.parametrize(
    ("power", "sentence"),
    [
        (None, "there is no meter"),
        (Power(10.0, 10.0, (1.0, 20.0), "estimated"), "No meter: the watts are a model's estimate"),
        (Power(None, None, None, "counter", 0.0, "the counter is gone."), "The meter failed: the counter is gone."),
        (Power(1.0, 1.0, None, "counter", 1.0, "", 4), "updated only 4 times in a window"),
        (Power(1.0, 1.0, None, "counter", 0.2, "", 40, ("Only a fifth was seen.",)), "Only a fifth was seen."),
    ],
)
def test_doubts_about_the_meter(power, sentence):
    said = doubts(windows(2, power), Conditions(), flat_out=False)
    assert len(said) == 1
    assert sentence in said[0]


def test_drift_is_told_where_it_stands_out_and_nothing_was_changed():
    rising = windows(power=METERED, rates=[100, 102, 103, 106, 108])
    assert doubts(rising, Conditions(), flat_out=True) == ("The hash rate drifted by +7.7% over the 5 repeats.",)
    assert doubts(rising, Conditions(), flat_out=True, still=False) == ()
    noise = windows(power=METERED, rates=[100, 104, 97, 105, 101])
    assert doubts(noise, Conditions(), flat_out=True) == ()
    assert doubts(windows(power=METERED, rates=[100, 200]), Conditions(), flat_out=True) == ()  # of two, nothing
