"""The GPU kernels' arithmetic without a GPU: the same source, compiled for the host, against hashlib."""

import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork import Work
from wattwork.data import MAINNET_HEIGHTS, mainnet_header

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import gpu as bench  # noqa: E402
import gpu_driver as gpu  # noqa: E402
import gpu_yield  # noqa: E402

pytestmark = pytest.mark.core  # a compiler is needed, as for the core
COMPILE = ["c++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]
VARIANTS = {"default": (), "on the ALU": ("-DWW_SHIFT_ALU", "-DWW_ROTATE_FMA=0"), "on the FMA": ("-DWW_ROTATE_FMA=16",)}
HEADERS = st.binary(min_size=80, max_size=80)


@pytest.fixture(scope="module", params=VARIANTS)
def host(request, tmp_path_factory):
    """The kernels' arithmetic as a library of this machine."""
    library = tmp_path_factory.mktemp("kernels") / "arithmetic.so"
    source = ROOT / "tests" / "cpp" / "gpu_arithmetic.cpp"
    subprocess.run([*COMPILE, *VARIANTS[request.param], "-I", ROOT / "kernels", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def tops(host, header, first, count):
    """What the plain and the rolled kernel take for the top 32 bits of each nonce's hash."""
    scan = gpu.Scan.of(header, 0, range(first, first + count), capacity=0)
    plain, rolled = (gpu.U32 * count)(), (gpu.U32 * count)()
    host.gpu_tops(ctypes.byref(scan), ctypes.byref(gpu.Lane.of(header)), gpu.U32(first), count, plain, rolled)
    return list(plain), list(rolled)


def true_top(header, nonce):
    digest = hashlib.sha256(hashlib.sha256(header[:76] + nonce.to_bytes(4, "little")).digest()).digest()
    return int.from_bytes(digest[28:], "little")


def test_both_sides_agree_on_the_sizes(host):
    assert [host.gpu_sizes(i) for i in range(3)] == [ctypes.sizeof(t) for t in (gpu.Scan, gpu.Lane, gpu.Account)]


@pytest.mark.parametrize("height", MAINNET_HEIGHTS)
def test_a_mined_header_meets_its_target(host, height):
    header = mainnet_header(height)
    nonce, target = int.from_bytes(header[76:], "little"), Work.from_header(header).target
    for found in tops(host, header, nonce, 1):
        assert found == [true_top(header, nonce)]
        assert found[0] <= target >> 224


@settings(max_examples=50, deadline=None)
@given(HEADERS, st.integers(0, 2**32 - 1))
def test_every_top_is_hashlibs(host, header, first):
    expected = [true_top(header, (first + i) % 2**32) for i in range(40)]
    assert tops(host, header, first, 40) == (expected, expected)


@settings(max_examples=30, deadline=None)
@given(HEADERS, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_rolled_version_is_the_one_that_work_names(host, header, mask, number):
    number %= 1 << mask.bit_count()
    work = Work.from_header(header, target=1, version_mask=mask)
    (rolled,) = gpu.rolled(header, mask, [number])
    assert int.from_bytes(rolled[:4], "little") == work.version_at(number)
    expected = [true_top(rolled, nonce) for nonce in range(3)]
    assert tops(host, rolled, 0, 3) == (expected, expected)


@pytest.mark.parametrize(("at", "looks", "whole"), [(0, 1, False), (1, 2, False), (2, 2, True)])
def test_a_hash_is_broken_off_at_either_look(host, at, looks, whole):
    scan, done = gpu.Scan.of(bytes(80), 0, range(1), capacity=0), ctypes.c_bool(not whole)
    assert host.gpu_looks(ctypes.byref(scan), ctypes.byref(gpu.Lane.of(bytes(80))), at, ctypes.byref(done)) == looks
    assert done.value is whole


def test_the_benchs_own_hits_are_hashlibs_whatever_the_version():
    target, span = 2**253, range(1000, 1040)
    headers = gpu.rolled(bench.GENESIS, bench.MASK, range(3))
    expected = [(i, n) for i, one in enumerate(headers) for n in span if true_top(one, n) <= target >> 224]
    exact = bench.of_target(bench.GENESIS, target, expected, 3)
    assert 0 < len(exact) <= len(expected)
    assert bench.true_hits(bench.GENESIS, target, span, 3) == exact


def test_the_bench_tries_one_to_eight_warps_a_scheduler_in_whole_blocks():
    for rolls in (False, True):
        assert {blocks * threads for blocks, threads in bench.shapes(rolls)} == {128 * warps for warps in range(1, 9)}


def test_stream_memory_operations_are_laid_out_as_in_cuda_h():
    writes = gpu_yield.write_values(0x700000000, 7, barrier=False)
    assert ctypes.sizeof(writes) == 48 * 16
    words = list((gpu.U64 * 6).from_buffer(writes, 48))
    assert words[:4] == [2, 0x700000080, 7, 1]


def test_quantiles():
    assert gpu_yield.quantiles_us([float(i) for i in range(1000)]) == {"p50_us": 500, "p99_us": 990, "max_us": 999}


def test_without_a_driver_the_bench_says_so(tmp_path):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")  # in front of one that may be here
    command = [sys.executable, ROOT / "bench" / "gpu.py", "--out", tmp_path]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert (run.returncode, run.stderr) == (1, "bench/gpu.py: no NVIDIA driver here (libcuda.so.1 does not load).\n")
