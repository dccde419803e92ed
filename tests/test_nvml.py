"""The NVML meter against a libnvidia-ml.so.1 of our own, whose power is known; it stands first on LD_LIBRARY_PATH."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters import Meter, nvml

FOLDER = Path(__file__).parent / "fake_nvml"
pytestmark = pytest.mark.core  # a compiler is there where the core is


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", FOLDER / "nvml.c", "-lm"]
    subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1"], check=True)
    return folder


@pytest.fixture
def run(library, tmp_path):
    def run(code, **environment):
        """What the code answers, run by the driver with FAKE_NVML_<NAME> set."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "FAKE_NVML_"))}
        path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), inherited.get("PYTHONPATH", "")])
        fake = {k if k.startswith("CUDA_") else f"FAKE_NVML_{k}": str(v) for k, v in environment.items()}
        ended = subprocess.run(
            [sys.executable, FOLDER / "driver.py", code, str(tmp_path)],
            env={**inherited, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(library), **fake},
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        return json.loads(ended.stdout)

    return run


def refused(run, code="try_to(source)", **environment):
    answer = run(code, **environment)
    assert answer["error"] == "MeterError", answer
    assert answer["said"].endswith(".")
    return answer["said"]


WINDOWS = """
inside, said = windows(source({reading}), 60)
energies = [energy for _, energy in said]
answer(inside=inside, kinds=sorted({{e.source for e in energies}}), coverages=sorted({{e.coverage for e in energies}}),
       half=max((e.ci95_j[1] - e.ci95_j[0]) / 2 / e.joules for e in energies), detail=energies[0].detail,
       measured=all(e.measured for e in energies), ratio=said[0][0],
       flagged=all(any("looks 25%" in w for w in e.warnings) for e in energies))
"""
WHOLE = {"PERIOD_S": 0.1, "CAPABILITY": 86}  # one whose sensor is not known to look only now and then


@pytest.mark.parametrize("curve", ["constant:80", "ramp:30", "square:60:700:3.7"])
@pytest.mark.parametrize(("reading", "kind"), [("energy", "counter"), ("instant", "sampled"), ("average", "sampled")])
def test_truth_lies_within_the_interval(run, curve, reading, kind):
    answer = run(WINDOWS.format(reading=repr(reading)), CURVE=curve, **WHOLE)
    assert answer["inside"] >= 57
    assert answer["kinds"] == [kind]
    assert answer["measured"]
    assert reading in answer["detail"]
    assert "Fake 0 (cuda:0)" in answer["detail"]


def test_the_interval_is_no_wider_than_the_counters_period_asks_for(run):
    answer = run(WINDOWS.format(reading="'energy'"), CURVE="constant:80", PERIOD_S=0.02, CAPABILITY=86)
    assert answer["half"] < 0.1  # 2 x 20 ms of 0.6 s, and some jitter
    assert "each 20 ms" in answer["detail"]


def test_a_sensor_that_looks_part_of_the_time_is_flagged_also_behind_the_counter(run):
    for reading in ("energy", "instant", "average"):
        answer = run(WINDOWS.format(reading=repr(reading)), CURVE="constant:80", LOOK_S=0.025)
        assert answer["inside"] == 60
        assert answer["coverages"] == [0.25]
        assert "looks 25% of the time" in answer["detail"]
        assert answer["flagged"]


# In rhythm with the looks, which come at the end of each 100 ms: on while the sensor looks, or while it does not.
@pytest.mark.parametrize("curve", ["square:100:600:10", "square:600:100:10", "square:60:700:9.7", "ramp:3"])
@pytest.mark.parametrize("reading", ["energy", "instant", "average"])
def test_what_such_a_sensor_misses_is_in_the_interval(run, curve, reading):
    answer = run(WINDOWS.format(reading=repr(reading)), CURVE=curve, LOOK_S=0.025)
    assert answer["inside"] == 60
    assert answer["flagged"]
    if reading == "energy" and curve == "square:100:600:10":
        assert answer["ratio"] > 1.5  # so wrong is the reading itself


@pytest.mark.parametrize(("capability", "coverage"), [(80, 0.25), (90, 0.25), (86, None), (100, None)])
def test_coverage_is_known_of_some_and_null_of_others(run, capability, coverage):
    code = "energy, _ = window(source(), 1.0)\nanswer(coverage=energy.coverage, detail=energy.detail)"
    answer = run(code, CAPABILITY=capability)
    assert answer["coverage"] == coverage
    assert ("not known" in answer["detail"]) == (coverage is None)


def test_the_first_reading_there_is_is_taken(run):
    code = "s = source(); answer(kind=s.kind, name=s.counters.counters[0].name)"
    assert run(code)["kind"] == "counter"
    instant = run(code, ENERGY=3)
    assert (instant["kind"], instant["name"]) == ("sampled", "Fake 0 (cuda:0), instant")
    assert run(code, ENERGY=3, INSTANT=3)["name"] == "Fake 0 (cuda:0), average"
    assert "Volta" in refused(run, ENERGY=3, INSTANT=3, POWER=3)


def test_a_mean_of_a_second_widens_the_interval_on_those_that_have_it(run):
    code = WINDOWS.format(reading="'average'")
    old, new = (run(code, CURVE="constant:80", CAPABILITY=c, AVERAGE_S=a) for c, a in ((75, 0.1), (86, 1)))
    assert new["half"] > 3 * old["half"]


def test_a_counter_that_goes_back_is_flagged_not_guessed(run):
    answer = run(
        "s = source()\nclock.sleep(1)\ngood, _ = window(s, 1.0)\nlost, _ = window(s, 40.0)\nafter, _ = window(s, 1.0)\n"
        "answer(good=good.joules, lost=lost.joules, detail=lost.detail, measured=lost.measured, after=after.joules)",
        RESET_S=1030,
    )
    assert answer["good"] == pytest.approx(100, rel=0.11)
    assert answer["lost"] is answer["after"] is None
    assert not answer["measured"]
    assert "went back" in answer["detail"]


def test_a_reading_that_fails_later_leaves_the_other_windows(run):
    answer = run(
        "s = source()\ntoken = s.begin()\nfake.fake_nvml_fail_energy(15)\nlost = s.end(token)\n"
        "fake.fake_nvml_fail_energy(0)\ngood, _ = window(s, 1.0)\n"
        "answer(lost=lost.joules, detail=lost.detail, good=good.joules)"
    )
    assert answer["lost"] is None
    assert "is lost" in answer["detail"]
    assert answer["good"] == pytest.approx(100, rel=0.11)


def test_a_gpu_that_dies_leaves_the_cpus_joules_in_a_sum(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WATTWORK_POWERCAP_ROOT", str(tmp_path))
    code = """
from pathlib import Path
from powercap import Zone, constant
from wattwork.meters import Meter
zone = Zone(Path(sys.argv[2]) / "intel-rapl:0", "package-0", constant(50.0))
clock.listeners.append(zone.update)
meter = Meter("rapl+nvml", device="cuda:0", clock=clock)
def once(error):
    token = meter.begin()
    clock.sleep(2.0)
    fake.fake_nvml_fail_energy(error)
    return meter.end(token)
whole, lost = once(0), once(15)
answer(whole=whole.joules, low=whole.ci95_j[0], high=whole.ci95_j[1], coverage=whole.coverage, kind=whole.source,
       names=[name for name, _ in whole.parts], lost=lost.joules, interval=lost.ci95_j, detail=lost.detail,
       kept=[part.joules for _, part in lost.parts])
"""
    answer = run(code, CURVE="constant:100")
    assert answer["whole"] == pytest.approx(2 * 150, abs=11)
    assert answer["low"] <= 300 <= answer["high"]
    assert (answer["coverage"], answer["kind"]) == (0.25, "counter")
    assert answer["names"] == ["rapl-powercap", "nvml"]
    assert answer["lost"] is answer["interval"] is None
    assert "nothing is known of nvml" in answer["detail"]
    assert "is lost" in answer["detail"]
    assert answer["kept"] == [pytest.approx(100, rel=1e-2), None]


@pytest.mark.parametrize("reading", ["energy", "instant", "average"])
def test_a_long_window_of_steady_power_is_exact(run, reading):
    code = f"energy, truth_j = window(source('{reading}'), 1000.0, look_s=0.1)\nanswer(ratio=energy.joules / truth_j)"
    assert run(code, CURVE="constant:80")["ratio"] == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("phase_s", [0.5, 1.5])  # each look falls into the low half, or the high one
def test_a_gap_between_looks_is_flagged(run, phase_s):
    code = (
        f"s = source('instant')\nclock.sleep(({phase_s} - clock.t) % 2)\n"
        "energy, truth_j = window(s, 8.0, look_s={})\nlow, high = energy.ci95_j\n"
        "answer(coverage=energy.coverage, detail=energy.detail, low=low, high=high, truth=truth_j,"
        "joules=energy.joules)"
    )
    seen, unseen = (run(code.format(look_s), CURVE="square:50:600:0.5") for look_s in (0.025, 2.0))
    assert seen["coverage"] == 0.25
    assert unseen["coverage"] < 0.1
    assert "nobody looked" in unseen["detail"]
    assert "nobody looked" not in seen["detail"]
    assert abs(unseen["joules"] - unseen["truth"]) > 500
    assert unseen["low"] <= unseen["truth"] <= unseen["high"]


def test_overlapping_windows_and_tokens(run):
    answer = run(
        "s = source()\nouter = s.begin()\nwait(s, 2.0)\ninner, _ = window(s, 3.0)\nwhole = s.end(outer)\n"
        "from wattwork.errors import InvalidInput\n"
        "try:\n    s.end(outer)\nexcept InvalidInput as error:\n    said = str(error)\n"
        "answer(inner=inner.joules, whole=whole.joules, said=said)"
    )
    assert answer["inner"] == pytest.approx(300, abs=11)
    assert answer["whole"] == pytest.approx(500, abs=11)
    assert "already ended" in answer["said"]


def test_the_thread_looks_on_real_time(run):
    """As a user meets it: Meter("nvml"), the real clock, the helper thread. The fake's clock stands: constant power."""
    answer = run(
        "import threading, time\nfrom wattwork.meters import Meter\nmeter = Meter('nvml', device='cuda:0')\n"
        "with meter.window() as seen:\n"
        "    before = meter._source._integral._last_s\n"
        "    while meter._source._integral._last_s == before:\n        time.sleep(1e-3)\n"
        "e = seen.energy\nmeter.close()\n"
        "answer(kind=meter.kind, name=meter.source, watts=e.watts, source=e.source)",
        CURVE="constant:90",
        ENERGY=3,
    )
    assert (answer["kind"], answer["name"], answer["source"]) == ("sampled", "nvml", "sampled")
    assert answer["watts"] == pytest.approx(90, rel=1e-2)


def test_clocks_temperature_and_limit(run):
    answer = run("from dataclasses import asdict\nanswer(**asdict(source().gpu.state()))")
    assert answer == {"sm_mhz": 1980, "memory_mhz": 3201, "celsius": 41, "power_limit_w": 700.0}


def test_what_is_not_there_is_said(run):
    assert "divided by MIG" in refused(run, MIG=1)
    assert "not loaded" in refused(run, INIT=9)
    assert "may not read" in refused(run, ENERGY=4, INSTANT=4, POWER=4)
    assert "version mismatch" in refused(run, INIT=18)
    assert "there is no cuda:1 here" in refused(run, "try_to(lambda: source(device='cuda:1'))")
    assert "there is no cuda:0 here" in refused(run, CUDA_VISIBLE_DEVICES="")
    assert "there is no cuda:0 here" in refused(run, COUNT=0)
    assert "CUDA_DEVICE_ORDER" in refused(run, COUNT=2, MIXED=1)


def test_cudas_numbers_are_heeded(run):
    code = "answer(name=source(device='cuda:0').gpu.name)"
    two = {"COUNT": 2, "MIXED": 1, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert run(code, **two)["name"] == "Fake 0"
    assert run(code, CUDA_VISIBLE_DEVICES="1,0", **two)["name"] == "Fake 1"
    assert run(code, CUDA_VISIBLE_DEVICES="GPU-1", COUNT=2, MIXED=1)["name"] == "Fake 1"
    assert "divided by MIG" in refused(run, CUDA_VISIBLE_DEVICES="MIG-1234")


def test_without_library_or_extra_one_sentence(monkeypatch):
    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    for source in ("nvml", "auto"):
        with pytest.raises(MeterError, match=r"libnvidia-ml\.so\.1 is missing"):
            Meter(source, device="cuda:0")
    monkeypatch.setattr(nvml, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name)))
    with pytest.raises(MeterError, match=r"pip install 'wattwork\[nvml\]'"):
        Meter("nvml", device="cuda:0")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:x", "cuda:-1"])
def test_other_devices_have_no_nvml(device):
    with pytest.raises(InvalidInput, match="give device='cuda:0'"):
        Meter("nvml", device=device)
