"""Profiles: held against the C ABI, numpy.interp, and their own files."""

import ctypes
import io
import json
import pickle
from contextlib import suppress
from importlib import resources

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports_by_hand import figure, ladder_report, phases_report, rung

import wattwork
from wattwork.errors import InvalidInput
from wattwork.profile import MATRICES, TABLES, Profile
from wattwork.report import Report

FIGURES = TABLES[1:]
amounts = st.floats(0, 1e15) | st.just(float("nan"))


@st.composite
def profiles(draw):
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rows = st.lists(st.floats(0, 1), min_size=k, max_size=k, unique=True).map(sorted)
    loads = draw(st.lists(rows, min_size=n, max_size=n))
    tables = {name: np.array(draw(st.lists(amounts, min_size=n * k, max_size=n * k))).reshape(n, k) for name in FIGURES}
    matrices = {
        name: np.array(draw(st.lists(amounts, min_size=n * n, max_size=n * n))).reshape(n, n) for name in MATRICES
    }
    return Profile(
        device=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
        modes=tuple(f"mode {i}" for i in range(n)),
        units=tuple(draw(st.sampled_from(["hashes", "output_tokens", None])) for _ in range(n)),
        source=draw(st.sampled_from(["counter", "sampled", "external", "estimated", "published"])),
        date=draw(st.sampled_from([None, "2026", "2026-11-21"])),
        loads=loads, **tables, **matrices,
    )  # fmt: skip


def same(a, b):
    words = ("device", "modes", "units", "source", "date", "detail")
    assert [getattr(a, name) for name in words] == [getattr(b, name) for name in words]
    for name in (*TABLES, *MATRICES):
        x, y = getattr(a, name), getattr(b, name)
        assert x.shape == y.shape
        assert np.array_equal(np.isnan(x), np.isnan(y))
        known = ~np.isnan(x)
        assert x[known].tobytes() == y[known].tobytes()


@settings(max_examples=60, deadline=None)
@given(profile=profiles(), suffix=st.sampled_from([".json", ".npz"]))
def test_files_keep_every_bit(tmp_path_factory, profile, suffix):
    path = tmp_path_factory.mktemp("profile") / f"p{suffix}"
    profile.save(path)
    same(Profile.load(path), profile)
    if suffix == ".json":
        schema = json.loads(resources.files("wattwork.data").joinpath("profile.schema.json").read_text())
        jsonschema.validate(json.loads(path.read_text()), schema)


@given(profile=profiles(), load=st.floats(-0.1, 1.1), data=st.data())
def test_interpolation_is_numpy_s_and_nothing_is_extrapolated(profile, load, data):
    row = data.draw(st.integers(0, len(profile.modes) - 1))
    loads = profile.loads[row]
    load = data.draw(st.sampled_from([load, *loads.tolist()]))
    if not loads[0] <= load <= loads[-1]:
        with pytest.raises(InvalidInput, match="nothing is extrapolated"):
            profile.at(profile.modes[row], load)
        return
    point = profile.at(profile.modes[row], load)
    for name in FIGURES:
        figures, found = getattr(profile, name)[row], getattr(point, name)
        if load in loads:
            assert found == pytest.approx(figures[list(loads).index(load)], rel=0, abs=0, nan_ok=True)
        else:
            i = int(np.searchsorted(loads, load))
            expected = np.interp(load, loads[i - 1 : i + 1], figures[i - 1 : i + 1])
            width = abs(figures[i] - figures[i - 1])  # numpy.interp goes up from below; rounding differs
            assert np.isnan(expected) or min(figures[i - 1 : i + 1]) <= found <= max(figures[i - 1 : i + 1])
            assert found == pytest.approx(expected, rel=1e-12, abs=0 if np.isnan(width) else 1e-9 * width, nan_ok=True)


class CPoint(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_double) for name in FIGURES)


@pytest.fixture(scope="module")
def ww():
    library = ctypes.CDLL(wattwork.library_path())
    library.ww_profile_at.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_double, ctypes.c_void_p]
    library.ww_profile_check.argtypes = [ctypes.c_void_p]
    return library


@pytest.mark.core
@given(profile=profiles(), load=st.floats(0, 1), data=st.data())
def test_c_answers_the_same(ww, profile, load, data):
    row = data.draw(st.integers(0, len(profile.modes) - 1))
    load = data.draw(st.sampled_from([load, *profile.loads[row].tolist()]))
    assert ww.ww_profile_check(profile.address) == 0
    point = CPoint()
    code = ww.ww_profile_at(ctypes.byref(profile.c_struct()), row, load, ctypes.byref(point))
    try:
        expected = profile.at(profile.modes[row], load)
    except InvalidInput:
        assert code != 0
        return
    assert code == 0  # compilers may contract a product and a sum: the last bits are theirs
    found = [getattr(point, name) for name in FIGURES]
    assert found == pytest.approx(list(expected), rel=1e-14, abs=1e-300, nan_ok=True)
    for to_row, to_mode in enumerate(profile.modes):
        seconds, joules = ctypes.c_double(), ctypes.c_double()
        answers = ctypes.byref(seconds), ctypes.byref(joules)
        assert ww.ww_profile_switch(ctypes.byref(profile.c_struct()), row, to_row, *answers) == 0
        cost = profile.switch(profile.modes[row], to_mode)
        assert (seconds.value, joules.value) == pytest.approx(tuple(cost), rel=0, abs=0, nan_ok=True)


@pytest.mark.core
@given(data=st.data())
def test_what_python_takes_is_what_c_takes(ww, data):
    loads = data.draw(st.lists(st.sampled_from([-0.1, 0.0, 0.5, 1.0, 1.1, float("nan")]), min_size=3, max_size=3))
    watts = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 5.0, float("inf"), float("nan")]), min_size=3, max_size=3))
    right = Profile.from_table("x", {"hash": [(0.0, 1.0, 0.0), (0.5, 2.0, 1.0), (1.0, 3.0, 2.0)]}).c_struct()
    struct = type(right).from_buffer_copy(right)
    arrays = np.array(loads), np.array(watts)
    struct.load, struct.watts = (array.ctypes.data for array in arrays)
    try:
        Profile.from_table("x", {"hash": list(zip(loads, watts, [0.0, 1.0, 2.0], strict=True))})
        taken = True
    except InvalidInput:
        taken = False
    assert taken == (ww.ww_profile_check(ctypes.byref(struct)) == 0)


def test_the_arrays_are_not_copied_and_outlive_the_profile():
    profile = Profile.from_table("x", {"hash": [(0.0, 10.0, 0.0), (1.0, 30.0, 2e7)]})
    struct = profile.c_struct()
    assert struct.watts == profile.watts.ctypes.data
    assert ctypes.addressof(struct) == profile.address
    for name in (*TABLES, *MATRICES):
        array = getattr(profile, name)
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    del profile, array
    assert ctypes.cast(struct.watts, ctypes.POINTER(ctypes.c_double))[1] == 30.0


def test_levels_of_a_ladder():
    profile = ladder_report().profile("2026-11-21")
    assert (profile.modes, profile.units) == (("idle", "hash", "infer"), (None, "hashes", "output_tokens"))
    assert (profile.source, profile.device, profile.date) == ("counter", "made by hand", "2026-11-21")
    assert profile.loads.shape == (3, 5)  # hash has four levels and idle
    assert profile.at("hash", 1.0)[:2] == (200.0, 2e8)
    assert profile.at("hash", 0.5)[:2] == (100.0, 1e8)
    assert profile.at("hash", 1.0).sigma_w == pytest.approx(4.0 / 1.959964)
    assert np.isnan(profile.at("hash", 0.5).sigma_w)  # of one repeat nothing is known
    assert np.isnan(profile.at("hash", 0.25).watts)  # its meter failed
    assert profile.at("hash", 0.0)[:3] == (20.0, 0.0, pytest.approx(1.0 / 1.959964))  # active idle
    assert profile.at("idle", 0.7).watts == 20.0
    assert profile.at("infer", 0.49)[:2] == (90.0, 1960.0)


def test_levels_that_are_put_between_change_nothing():
    profile = ladder_report().profile()
    for load in np.linspace(0, 1, 101):
        point = profile.at("infer", float(load))
        assert point.watts == pytest.approx(np.interp(load, [0, 0.49, 1], [20, 90, 180]))
        assert point.units_per_s == pytest.approx(np.interp(load, [0, 0.49, 1], [0, 1960, 4000]))


def test_switches_repeated_before_single_and_until_the_first_unit():
    profile = ladder_report().profile()
    assert profile.switch("idle", "hash") == (0.005, 0.5)
    seconds, joules = profile.switch("hash", "idle")  # nothing new comes when idle: until the old work has stopped
    assert (seconds, np.isnan(joules)) == (0.002, True)
    assert profile.switch("hash", "infer") == (0.3, 7.0)
    assert profile.switch("infer", "infer") == (0.0, 0.0)
    assert np.isnan(profile.switch("infer", "hash").seconds)


def test_from_phases_alone():
    profile = phases_report().profile()
    assert profile.modes == ("idle", "hash", "infer", "mixed")
    assert profile.source == "estimated"
    assert "full load alone" in profile.detail
    assert profile.at("hash", 1.0)[:2] == (100.0, 1e8)
    assert profile.at("hash", 0.5)[:2] == (52.0, 5e7)
    assert profile.at("infer", 1.0)[:2] == (100.0, 1000.0)  # flat out, not the trace's
    assert profile.at("hash", 1.0).sigma_w == pytest.approx(10.0 / 1.959964)
    mixed = profile.at("mixed", 0.3)
    assert mixed.watts == 100.0
    assert np.isnan(mixed.units_per_s)  # two kinds of work are no one number


loads = st.lists(st.integers(1, 100), min_size=1, max_size=10, unique=True).map(lambda found: [*sorted(found), 100])


@given(hashing=loads, inferring=loads, idle=st.booleans())
def test_every_level_of_a_ladder_is_in_its_profile_as_it_was(hashing, inferring, idle):
    report = Report(ladder=[
        rung(mode, load / 100, figure(3.7 * load), figure(20 + 1.3 * load + load**2 / 7))
        for mode, steps in (("hash", hashing), ("infer", inferring)) for load in dict.fromkeys(steps)
    ])  # fmt: skip
    if idle:
        report.phases = [phases_report().phases[0]]
    profile = report.profile()
    for level in report.ladder:
        point = profile.at(level.mode, level.load)
        assert point[:2] == (level.watts.median, level.units_per_s.median)
    for mode, steps in (("hash", hashing), ("infer", inferring)):
        known = ([0] if idle else []) + list(dict.fromkeys(steps))
        watts = [4.0 if load == 0 else 20 + 1.3 * load + load**2 / 7 for load in known]
        for load in np.linspace(known[0], 100, 7):
            assert profile.at(mode, load / 100).watts == pytest.approx(np.interp(load, known, watts))
        if known[0] > 0:
            with pytest.raises(InvalidInput, match="nothing is extrapolated"):
                profile.at(mode, known[0] / 200)


def test_a_mode_known_at_full_load_alone_is_known_nowhere_else():
    report = ladder_report()
    report.ladder = [level for level in report.ladder if level.mode == "hash" or level.target == 1.0]  # no idle
    profile = report.profile()
    assert profile.modes == ("hash", "infer")
    assert profile.at("infer", 1.0)[:2] == (180.0, 4000.0)
    with pytest.raises(InvalidInput, match="nothing is extrapolated"):
        profile.at("infer", 0.99)


def test_a_trace_s_arrivals_are_no_full_load():
    report = phases_report()
    report.phases = [phase for phase in report.phases if phase.scenario != "offline"]
    assert report.profile().modes == ("idle", "hash", "mixed")


def test_the_least_certain_source_is_the_profile_s():
    report = ladder_report()
    assert report.profile().source == "counter"
    report.ladder.append(rung("infer", 0.1, figure(400.0), figure(30.0), source="external"))
    assert report.profile().source == "external"
    report.phases = phases_report(source="estimated").phases[:1]
    assert report.profile().source == "estimated"


def test_an_empty_report_has_no_profile():
    with pytest.raises(InvalidInput, match="neither levels nor phases"):
        Report().profile()


def test_asics_are_published():
    s21 = Profile.from_table("Antminer S21")
    assert (s21.source, s21.date) == ("published", "2023-09")
    assert s21.at("hash", 1.0)[:2] == (3500.0, 200e12)
    with pytest.raises(InvalidInput, match=r"only its 16\.8 J/TH"):
        Profile.from_table("Avalon A15 Pro")
    with pytest.raises(InvalidInput, match="choose one of"):
        Profile.from_table("Antminer S9")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "at least one mode"),
        ({"hash": [(1, 2, 3)], "idle": []}, "as many levels"),
        ({"hash": [(1, 2)]}, "three numbers"),
        ({"hash": [(1, "much", 3)]}, "three numbers"),
        ({"hash": [(1, 2, 3), (0.5, 2, 3)]}, "ascend"),
        ({"hash": [(1, 2, 3), (1, 2, 3)]}, "ascend"),
        ({"hash": [(2, 2, 3)]}, r"\[0, 1\]"),
        ({"hash": [(1, -2, 3)]}, "watts must hold"),
    ],
)
def test_tables_that_mean_nothing(table, said):
    with pytest.raises(InvalidInput, match=said):
        Profile.from_table("x", table)


def test_switches_of_a_table():
    table = {"idle": [(1, 5, 0)], "hash": [(1, 50, 1e6)]}
    profile = Profile.from_table("x", table, switches={("idle", "hash"): (0.5, 20.0)})
    assert profile.switch("idle", "hash") == (0.5, 20.0)
    assert np.isnan(profile.switch("hash", "idle").seconds)
    with pytest.raises(InvalidInput, match="switch idle to infer"):
        Profile.from_table("x", table, switches={("idle", "infer"): (0.5, 20.0)})


def test_unknown_modes_name_the_known():
    with pytest.raises(InvalidInput, match="choose one of hash"):
        Profile.from_table("Antminer S21").at("infer", 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "wattwork.profile/9"}, "reads 'wattwork.profile/1'"),
        ({"watts": [[True]]}, "watts must be rows of numbers"),
        ({"watts": [[float("nan")]]}, "watts must be rows of numbers"),
        ({"watts": [[10**400]]}, "watts must be rows of numbers"),
        ({"watts": [[1.0, 2.0]]}, r"watts must be 1 row\(s\) of 1"),
        ({"watts": "many"}, "watts must be rows of numbers"),
        ({"loads": [[1.5]]}, "loads must lie"),
        ({"loads": []}, "loads must be"),
        ({"modes": ["a", "b"]}, "units must be"),
        ({"modes": [None]}, "at least one mode"),
        ({"modes": 3}, "modes must be a list"),
        ({"units": ["miles"]}, "units must be"),
        ({"source": "hearsay"}, "source must be one of"),
        ({"date": "yesterday"}, "date must be"),
        ({"date": 2026}, "date must be"),
        ({"device": None}, "device must be a string"),
    ],
)
def test_bad_json_says_what_and_where(tmp_path, change, said):
    path = tmp_path / "p.json"
    Profile.from_table("Antminer S21").save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InvalidInput, match=said) as caught:
        Profile.load(path)
    assert str(path) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(suffix=st.sampled_from([".json", ".npz"]), at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, suffix, at, byte):
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    Profile.from_table("Antminer S21").save(path)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] = byte
    path.write_bytes(content)
    with suppress(InvalidInput):
        Profile.load(path)


def test_bad_files(tmp_path):
    good = tmp_path / "good.npz"
    Profile.from_table("Antminer S21").save(good)
    bad = tmp_path / "bad.npz"
    lone = io.BytesIO()
    np.save(lone, np.zeros(3))
    for content in (b"", b"no zip", lone.getvalue(), good.read_bytes()[:-40], pickle.dumps({"watts": 1})):
        bad.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"bad\.npz is no profile"):
            Profile.load(bad)
    with np.load(good) as file:
        members = dict(file)
    for change, said in (
        ({"watts": np.array([object()])}, "is no profile"),  # pickled, and never unpickled
        ({"watts": np.array(["x"])}, "watts must be"),
        ({"words": np.array("{")}, "not valid JSON"),
    ):
        np.savez(bad, **{**members, **change})
        with pytest.raises(InvalidInput, match=said):
            Profile.load(bad)
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    for name, said in (("bad.json", "cannot be read"), ("none.json", "No such file"), ("none.npz", "No such file")):
        with pytest.raises(InvalidInput, match=said):
            Profile.load(tmp_path / name)
    with pytest.raises(InvalidInput, match="cannot be written"):
        Profile.from_table("Antminer S21").save(tmp_path / "none" / "p.npz")
