"""The programs of tests/embed, each as an embedder would write it, against the installed header and library."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

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
