"""How GPU units share a search, give way and go on: the kernels' own loop, on the host, in random interleavings.

Flags are raised and lowered and budgets end at any moment, and launches follow each other. Exact at every launch's end:
what the account and the slots say was tested is what was tested, each hit reported once; at the end, every pair once.

The fence, too: csrc/cuda's own launches, gates and recalls, with the streams of two fronts and a CPU that stops and
goes on, interleaved at random. The same, and no unit begins while a front's kernels run, and nothing waits for ever:
also when a front's thread waits for the whole device, and all calls of the driver for that thread.
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
# What is defined there is meant there, also where the process has the core, which defines the same.
COMPILE += ["-Wl,-Bsymbolic", "-fno-gnu-unique"]
HOST_SIDE = ("fence.cpp", "gpu.cpp", "sweep.cpp", "workspace.cpp")  # of csrc/cuda


def ran(name, root, folder, count, more=()):
    """What goes wrong in `count` of what tests/cpp/NAME.cpp draws, and in which; None: nothing. `root`: the sources."""
    library = folder / f"{name}.so"
    includes = [f"-I{root / part}" for part in ("kernels", "csrc", "csrc/include")]
    source = ROOT / "tests" / "cpp" / f"{name}.cpp"
    subprocess.run([*COMPILE, *includes, source, *more, "-o", library], check=True)
    run, what = getattr(ctypes.CDLL(str(library)), name), ctypes.c_char_p()
    run.restype = ctypes.c_uint64
    failed = run(ctypes.c_uint64(FRESH_SEED), ctypes.c_uint64(count), ctypes.byref(what))
    return f"{what.value.decode()} (number {failed})" if what.value else None


def searches(root, folder, count):
    return ran("gpu_protocol", root, folder, count)


def fences(root, folder, count):
    return ran("gpu_fence", root, folder, count, [root / "csrc" / "cuda" / name for name in HOST_SIDE])


def changed(tmp_path, path, right, wrong):
    """A root whose file at that path has something wrong."""
    for part in ("kernels", "csrc"):
        shutil.copytree(ROOT / part, tmp_path / part)
    source = (tmp_path / path).read_text()
    assert source.count(right) == 1
    (tmp_path / path).write_text(source.replace(right, wrong))
    return tmp_path


def test_every_pair_is_tested_once_and_the_account_is_exact(tmp_path):
    assert searches(ROOT, tmp_path, 100_000) is None


@pytest.mark.long
def test_every_pair_is_tested_once_in_a_million_searches(tmp_path):
    assert searches(ROOT, tmp_path, 1_000_000) is None


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
    assert searches(changed(tmp_path, "kernels/walk.h", right, wrong), tmp_path, 5_000) is not None


def test_no_unit_begins_beside_a_front_and_nothing_is_lost(tmp_path):
    assert fences(ROOT, tmp_path, 100_000) is None


@pytest.mark.long
def test_no_unit_begins_beside_a_front_in_a_million_interleavings(tmp_path):
    assert fences(ROOT, tmp_path, 1_000_000) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("? kAnyTime : kAfterAll});\n  wait();", "? kAnyTime : kAfterAll});"),  # no second look at the gates
        ("  std::atomic_ref(word(kFronts)).store(1);", ""),  # lets pass, and recalls nothing
        ("  swap_gates(kShut, kLetPass);", ""),  # recalls, and lets nothing pass
        ("  swap_gates(kLetPass, kShut);", ""),  # and goes on doing so after it
        ("value == kShut && i < kFlags", "i > kFlags"),  # a gate without a flag
        ("if (fronts_[place].depth == 1) write", "write"),  # an inner end opens the gate
        ("copy_of(flags_, i % kFlags), 0,", "copy_of(flags_, i % kFlags), 1,"),  # nobody lowers the flag
    ],
)
def test_a_wrong_fence_is_found_out(tmp_path, right, wrong):
    assert fences(changed(tmp_path, "csrc/cuda/fence.cpp", right, wrong), tmp_path, 3_000) is not None


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("csrc/cuda/sweep.cpp", "  Watch watch_;", "  Fence& watch_;"),  # only the searching thread looks
        ("csrc/cuda/fence.cpp", "now_ns - free_ns_ >= patience_ns", "patience_ns < 0"),  # nobody loses patience
    ],
)
def test_a_wait_for_the_whole_device_that_holds_up_the_search_for_ever_is_found_out(tmp_path, path, right, wrong):
    assert "a deadlock" in (fences(changed(tmp_path, path, right, wrong), tmp_path, 3_000) or "")
