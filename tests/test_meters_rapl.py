"""RAPL's parts and its two ways, against trees of files like the kernel's; perf's counts come from a reader of ours."""

import errno
import os

import pytest
from powercap import FakeClock, Zone, constant

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters import Meter, perf, rapl

WATTS = {"package": 40.0, "core": 25.0, "uncore": 3.0, "dram": 7.0, "psys": 90.0}
SCALE_J = 2.3283064365386962890625e-10


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def tree(tmp_path, monkeypatch, clock):
    """Two packages with core, uncore and DRAM each, and psys, as powercap lays them out."""
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path))
    zones = {"intel-rapl:2": ("psys", "psys")}
    for package in range(2):
        zones[f"intel-rapl:{package}"] = (f"package-{package}", "package")
        zones |= {f"intel-rapl:{package}:{i}": (part, part) for i, part in enumerate(("core", "uncore", "dram"))}
    for folder, (name, part) in zones.items():
        zone = Zone(tmp_path / folder, name, constant(WATTS[part]))
        clock.listeners.append(zone.update)
    return tmp_path


def energy_of(meter, clock, seconds=2.0):
    token = meter.begin()
    clock.sleep(seconds)
    return meter.end(token)


@pytest.mark.parametrize(
    ("source", "watts"),
    [
        ("rapl", 2 * (40 + 7)),
        ("rapl:package", 80),
        ("rapl:dram", 14),
        ("rapl:core,uncore", 56),
        ("rapl-powercap:psys", 90),
    ],
)
def test_nothing_is_counted_twice_and_each_part_has_a_name(tree, clock, source, watts):
    meter = Meter(source, clock=clock)
    energy = energy_of(meter, clock)
    assert meter.source == "rapl-powercap"
    assert energy.joules == pytest.approx(watts * energy.seconds, rel=5e-3)
    assert energy.ci95_j[0] <= watts * energy.seconds <= energy.ci95_j[1]
    meter.close()


def test_the_names_say_which_package(tree, clock):
    detail = energy_of(rapl.open_rapl(clock, helper=False), clock).detail
    assert "package-0 + package-1 + dram of package-0 + dram of package-1" in detail
    assert detail.startswith("rapl-powercap: ")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("rapl:core,package", "core is counted within package"),
        ("rapl:psys,dram", "dram is counted within psys"),
        ("rapl:core,core", "core is counted within itself"),
        ("rapl:gpu", "no part 'gpu'; choose from package, dram, core, uncore, psys"),
        ("nvml:core", "no meter source 'nvml:core'"),
    ],
)
def test_parts_that_do_not_fit(tree, clock, source, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        Meter(source, clock=clock)


def test_a_part_that_is_not_there(tmp_path, monkeypatch, clock):
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path))
    Zone(tmp_path / "intel-rapl:0", "package-0", constant(1.0))
    with pytest.raises(MeterError, match=r"no counter of core; ask for less\."):
        Meter("rapl:core", clock=clock)


@pytest.fixture
def pmu(tmp_path):
    root = tmp_path / "power"
    (root / "events").mkdir(parents=True)
    (root / "type").write_text("21\n")
    (root / "cpumask").write_text("0,18-19\n")
    for event, number in (("energy-pkg", 2), ("energy-ram", 3), ("energy-cores", 1)):
        (root / "events" / event).write_text(f"event=0x0{number}\n")
        (root / "events" / f"{event}.scale").write_text(f"{SCALE_J}\n")
        (root / "events" / f"{event}.unit").write_text("Joules\n")
    return root


class Counts:
    """perf's reader: counts of 2^-32 J since it was opened, updated each millisecond."""

    def __init__(self, clock, watts=50.0, error=0):
        self.clock, self.watts, self.error, self.opened = clock, watts, error, []

    def __call__(self, kind, config, cpu):
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.opened.append((kind, config, cpu))
        from_s = self.clock.t
        return lambda: self.read(from_s)

    def read(self, from_s):
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return int(self.watts * int((self.clock.t - from_s) * 1e3) * 1e-3 / SCALE_J)


@pytest.fixture
def by_perf(pmu, clock, monkeypatch):
    """`open_rapl` with perf's tree and counts in place of the kernel's, and no powercap."""

    def open_with(counts, name="rapl", parts=()):
        def counters(parts, clock):
            return perf.counters(parts, clock, root=str(pmu), opener=counts)

        monkeypatch.delenv("WATTWORK_POWERCAP_ROOT", raising=False)
        monkeypatch.setattr(rapl.powercap, "DEFAULT_ROOT", str(pmu.parent / "none"))
        monkeypatch.setitem(rapl.WAYS, "rapl-perf", counters)
        return rapl.open_rapl(clock, name=name, parts=parts, helper=False)

    return open_with


def test_perf_counts_each_package_where_powercap_does_not(by_perf, clock):
    counts = Counts(clock)
    source = by_perf(counts)
    assert source.name == "rapl-perf"
    assert counts.opened == [(21, event, cpu) for event in (2, 3) for cpu in (0, 18, 19)]
    energy = energy_of(source, clock)
    truth_j = 6 * 50.0 * energy.seconds
    assert energy.joules == pytest.approx(truth_j, rel=5e-3)
    assert energy.ci95_j[0] <= truth_j <= energy.ci95_j[1]
    assert "package-0 + package-1 + package-2 + dram-0" in energy.detail


def test_perf_needs_no_wraps_undone(by_perf, clock):
    energy = energy_of(by_perf(Counts(clock, watts=900.0), parts=("core",)), clock, seconds=1e7)
    assert energy.coverage == 1.0
    assert energy.joules == pytest.approx(3 * 900.0 * 1e7, rel=1e-6)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM])
def test_perf_names_the_fix(by_perf, clock, error):
    with pytest.raises(MeterError, match=r"perf_event_paranoid=0.*CAP_PERFMON"):
        by_perf(Counts(clock, error=error), name="rapl-perf")
    with pytest.raises(MeterError, match=r"no RAPL energy counter.*; or by perf's events: .*CAP_PERFMON"):
        by_perf(Counts(clock, error=error))


def test_perf_that_fails_later_keeps_the_other_windows(by_perf, clock):
    counts = Counts(clock)
    source = by_perf(counts)
    good = energy_of(source, clock)
    counts.error = errno.ENODEV
    lost = energy_of(source, clock)
    assert good.joules > 0
    assert lost.joules is None
    assert "cannot be read any more" in lost.detail


def test_without_either_powercaps_sentence_stands(by_perf, pmu, clock):
    for file in sorted(pmu.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    pmu.rmdir()
    with pytest.raises(MeterError, match=r"virtual machines rarely have one.*--watts"):
        by_perf(Counts(clock))


def test_a_scale_or_event_of_another_form_is_refused(by_perf, pmu, clock):
    (pmu / "events" / "energy-pkg").write_text("event=0x02,umask=0x1\n")
    with pytest.raises(MeterError, match=r"cannot be opened .*not of the form event=0x02"):
        by_perf(Counts(clock), name="rapl-perf")


def test_perf_event_open_itself():
    """The call as the kernel takes it: a type of event that none has is refused, for that or for want of rights."""
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as refused:
        perf.open_event(0xFFFF, 0, 0)
    assert refused.value.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSYS)


def test_perf_counts_where_this_machine_allows_it():
    """With an event that every kernel has: the clock of one CPU, in nanoseconds."""
    try:
        read = perf.open_event(1, 0, 0)
    except PermissionError:
        pytest.skip("perf events are not for this user")
    first = read()
    assert read() > first
