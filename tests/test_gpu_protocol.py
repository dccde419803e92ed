"""How GPU units share a search, give way and go on: the kernels' own loop, on the host, in random interleavings.

Flags are raised and lowered and budgets end at any moment, and launches follow each other. Exact at every launch's end:
what the account and the slots say was tested is what was tested, each hit reported once; at the end, every pair once.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from seeds import FRESH_SEED

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.core  # a compiler is needed, as for the core
COMPILE = ["c++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]


def searches(kernels, folder, count, seed=FRESH_SEED):
    """What goes wrong in `count` random searches with the walk.h of `kernels`, and in which; None: nothing."""
    library = folder / "protocol.so"
    source = ROOT / "tests" / "cpp" / "gpu_protocol.cpp"
    subprocess.run([*COMPILE, "-I", kernels, source, "-o", library], check=True)
    run, what = ctypes.CDLL(str(library)).gpu_protocol, ctypes.c_char_p()
    run.restype = ctypes.c_uint64
    failed = run(ctypes.c_uint64(seed), ctypes.c_uint64(count), ctypes.byref(what))
    return f"{what.value.decode()} (search {failed})" if what.value else None


def test_every_pair_is_tested_once_and_the_account_is_exact(tmp_path):
    assert searches(ROOT / "kernels", tmp_path, 100_000) is None


@pytest.mark.long
def test_every_pair_is_tested_once_in_a_million_searches(tmp_path):
    assert searches(ROOT / "kernels", tmp_path, 1_000_000) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if (leave) break;", "if (leave) { place.done += batch; break; }"),  # what was broken off counts as done
        ("if (leave) break;\n    if (hits)", "if (hits)"),  # and is reported
        ("leave = WW_AWAIT(unit.any(stop));", "WW_AWAIT(unit.any(stop)); leave = stop;"),  # warps do not agree
        ("place.done = static_cast<u32>(slot);", ""),  # a chunk begun is begun again
        ("place.done < place.size ? slot_of", "place.done + 1 < place.size ? slot_of"),  # its last iteration is lost
        ("number % spans} * scan.chunk", "number % spans} * scan.chunk + (number > 3)"),  # chunks overlap
    ],
)
def test_a_wrong_loop_is_found_out(tmp_path, right, wrong):
    kernels = shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    source = (kernels / "walk.h").read_text()
    assert source.count(right) == 1
    (kernels / "walk.h").write_text(source.replace(right, wrong))
    assert searches(kernels, tmp_path, 5_000) is not None
