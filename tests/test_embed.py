"""The programs of tests/embed, each as an embedder would write it, against the installed header and library."""

import itertools
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import wattwork
from wattwork.errors import WattworkError

PROGRAMS = Path(__file__).parent / "embed"


def output_of(*command, **environment):
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_c_program(source, folder):
    compiler = sysconfig.get_config_var("CC").split()[0]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{wattwork.include_dir()}"]
    library, program = wattwork.library_path(), folder / "program"
    output_of(compiler, *flags, PROGRAMS / source, library, f"-Wl,-rpath,{Path(library).parent}", "-lm", "-o", program)
    return output_of(program)


@pytest.mark.core
def test_search_in_c(tmp_path):
    assert "nonce 2083236893" in run_c_program("search.c", tmp_path)


@pytest.mark.core
def test_profile_in_c(tmp_path):
    assert run_c_program("profile.c", tmp_path) == "load 0.60\n"


@pytest.mark.core
def test_cffi():
    lines = output_of(sys.executable, PROGRAMS / "with_cffi.py").splitlines()
    assert lines[0].startswith("nonce 2083236893 by ")
    assert lines[1:] == ["watts 75.0 units_per_s 5000000.0"]


@pytest.mark.core
def test_numba_loop_and_its_cache(tmp_path):
    found = ["load 0.6000000000000001", "hashes 60000 nonce 2083236893"]
    for how in ("compiled", "cached"):
        out = output_of(sys.executable, PROGRAMS / "with_numba.py", NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
        assert out == [*found, how, how]


@pytest.mark.core
def test_structs_of_the_numba_program_are_those_of_the_header():
    from embed import with_numba
    from embed.with_cffi import ffi

    for name in ("Work", "Rect", "Hit", "Result", "Profile", "Point"):
        dtype, struct = getattr(with_numba, name), ffi.typeof(f"ww_{name.lower()}")
        assert dtype.itemsize == ffi.sizeof(struct)
        assert [(key, field.offset) for key, field in struct.fields] == [
            (key, dtype.fields[key][1]) for key in dtype.names
        ]


def test_without_the_core_an_error_says_so(monkeypatch):
    monkeypatch.setattr("wattwork.embed.HAVE_CORE", False)
    for where in (wattwork.include_dir, wattwork.library_path):
        with pytest.raises(WattworkError, match="native core"):
            where()


@pytest.mark.core
def test_a_day_s_plan(tmp_path):
    *hours, total = output_of(sys.executable, PROGRAMS / "plan_a_day.py", NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert len(hours) == 24
    assert {line.split()[3] for line in hours} == {"idle", "hash", "infer"}
    assert total.endswith(" USD")


@pytest.mark.core
def test_a_plan_is_the_best_of_all_plans():
    from embed import plan_a_day

    profile, rng = plan_a_day.made_up_device(), np.random.default_rng(5)

    def worth_of(modes, usd_per_unit, usd_per_j):
        total, now = 0.0, "idle"
        for mode, price in zip(modes, usd_per_j, strict=True):
            row, cost = profile.modes.index(mode), profile.switch(now, mode)
            points = [profile.at(mode, load) for load in profile.loads[row]]
            rate = max(point.units_per_s * usd_per_unit[row] - point.watts * price for point in points)
            total, now = total + rate * (3600 - cost.seconds) - cost.joules * price, mode
        return total

    chosen = set()
    for _ in range(20):
        usd_per_unit = np.array([0.0, rng.uniform(20, 60) / 8.64e19, rng.uniform(0.005, 0.05) * 1e-6])
        usd_per_j = rng.uniform(-50, 250, 4) / 3.6e9
        usd, modes, _ = plan_a_day.plan(profile.address, profile.loads, usd_per_unit, usd_per_j, 0)
        best = max(itertools.product(profile.modes, repeat=4), key=lambda p: worth_of(p, usd_per_unit, usd_per_j))
        assert usd == pytest.approx(worth_of(best, usd_per_unit, usd_per_j))
        assert worth_of([profile.modes[mode] for mode in modes], usd_per_unit, usd_per_j) == pytest.approx(usd)
        chosen |= set(best)
    assert chosen == {"idle", "hash", "infer"}  # so that each choice was put to the test


@pytest.mark.core
def test_a_profile_s_address_in_cffi():
    from embed.with_cffi import ffi, ww

    profile = wattwork.Profile.from_table("x", {"hash": [(0.0, 50.0, 0.0), (1.0, 150.0, 2e7)]})
    struct, point = ffi.cast("ww_profile *", profile.address), ffi.new("ww_point *")
    assert ww.ww_profile_check(struct) == ww.WW_OK
    assert ww.ww_profile_at(struct, 0, 0.25, point) == ww.WW_OK
    assert (point.watts, point.units_per_s) == profile.at("hash", 0.25)[:2]
    assert struct.watts[1] == 150.0
