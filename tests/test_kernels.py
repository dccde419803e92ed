"""The GPU kernels without a GPU: their arithmetic, compiled for the host, against hashlib; and that nvcc takes them."""

import ctypes
import hashlib
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork.data import MAINNET_HEIGHTS, mainnet_header

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "kernels"
spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench" / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)
pytestmark = pytest.mark.core  # a compiler is needed, as for the core


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """scan(header, target, first, count) -> candidates, by the kernel's own source on the host."""
    library = tmp_path_factory.mktemp("kernels") / "sha256d.so"
    command = ["c++", "-x", "c++", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, KERNELS / "sha256d.cu", "-o", library], check=True)
    host = ctypes.CDLL(str(library)).scan_plain_host

    def call(header, target, first, count, capacity=1 << 16):
        found = (ctypes.c_uint32 * capacity)()
        n = host(ctypes.byref(gpu.Row.of(header, target)), first, count, capacity, found)
        return n, list(found[: min(n, capacity)])

    return call


@pytest.mark.parametrize("height", MAINNET_HEIGHTS)
def test_the_true_nonce_is_the_one_candidate_around_it(scan, height):
    header = mainnet_header(height)
    nonce = int.from_bytes(header[76:], "little")
    bits = int.from_bytes(header[72:76], "little")
    target = (bits & 0x7FFFFF) << 8 * ((bits >> 24) - 3)
    _, candidates = scan(header, target, max(0, nonce - 20000), 40001)
    assert gpu.hits(header, target, candidates) == [nonce]


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=80, max_size=80), st.integers(0, 2**32 - 300), st.sampled_from([2**256 - 1, 2**252, 2**248]))
def test_candidates_are_those_that_hashlib_gives(scan, header, first, target):
    def top(nonce):
        digest = hashlib.sha256(hashlib.sha256(header[:76] + nonce.to_bytes(4, "little")).digest()).digest()
        return int.from_bytes(digest[28:], "little")

    expected = [nonce for nonce in range(first, first + 300) if top(nonce) <= target >> 224]
    assert scan(header, target, first, 300) == (len(expected), expected)


def test_an_overflow_of_the_buffer_shows(scan):
    n, candidates = scan(bytes(80), 2**256 - 1, 7, 100, capacity=10)
    assert (n, candidates) == (100, list(range(7, 17)))


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on this machine")
@pytest.mark.parametrize("options", gpu.VARIANTS.values(), ids=gpu.VARIANTS)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_nvcc_takes_the_scan_without_spills_in_64_registers(tmp_path, arch, options):
    command = ["nvcc", f"-arch={arch}", "-cubin", "--resource-usage", "-Werror", "all-warnings", *options]
    run = subprocess.run(
        [*command, "-o", tmp_path / "k.cubin", KERNELS / "sha256d.cu"], check=True, capture_output=True, text=True
    )
    assert "0 bytes spill stores, 0 bytes spill loads" in run.stderr
    assert int(run.stderr.split("Used ")[1].split()[0]) <= 64


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on this machine")
def test_nvcc_takes_the_pipe_kernels(tmp_path):
    subprocess.run(["nvcc", "-arch=sm_90", "-cubin", "-o", tmp_path / "p.cubin", KERNELS / "pipes.cu"], check=True)
