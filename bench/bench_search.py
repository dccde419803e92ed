"""The nonce search beside OpenSSL's SHA-256 and a hashlib loop, on one thread; the table is printed at the end.

The ratio is nonces per second over OpenSSL's compressions per second (16 KiB blocks): a nonce costs some two
compressions, less what the midstate, constant words and the early end save. Each figure is the best of its rounds, by
the wall clock.
"""

import hashlib
import re
import shutil
import subprocess

import pytest

from wattwork._search import isas, search
from wattwork.work import Work

NONCES = {"numpy": 2**16, "numba": 2**22, "portable": 2**21}
HASHLIB_NONCES = 2**17
WORK = Work.from_header(bytes(range(80)), target=1)
rates_mh_s = {}


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    openssl = openssl_compressions_mh_s()
    hashlib_rate = rates_mh_s["hashlib"]
    print(f"\n\n{'':12}{'MH/s':>10}{'x hashlib':>12}{'x OpenSSL':>12}")
    for name, rate in rates_mh_s.items():
        ratio = f"{rate / openssl:12.3f}" if openssl else f"{'unknown':>12}"
        print(f"{name:12}{rate:10.2f}{rate / hashlib_rate:12.2f}{ratio}")
    if openssl:
        print(f"OpenSSL: {openssl:.1f} M compressions/s")


def openssl_compressions_mh_s():
    """Millions of 64-byte compressions per second, the best of three; None where there is no openssl."""
    if not shutil.which("openssl"):
        return None
    command = ["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "16384", "-evp", "sha256"]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    return max(float(re.search(r"^sha256\s+([\d.]+)k", out, re.M | re.I).group(1)) for out in outputs) * 1e3 / 64 / 1e6


@pytest.mark.parametrize("isa", isas())
def test_search(benchmark, isa):
    count = NONCES.get(isa, 2**23)
    benchmark.pedantic(search, (WORK, 0, count), {"isa": isa, "threads": 1}, rounds=7, warmup_rounds=1)
    rates_mh_s[isa] = count / benchmark.stats.stats.min / 1e6


def hashlib_loop():
    head = WORK.header[:76]
    for nonce in range(HASHLIB_NONCES):
        digest = hashlib.sha256(hashlib.sha256(head + nonce.to_bytes(4, "little")).digest()).digest()
        if digest[-4:] == b"\0\0\0\0":
            raise AssertionError("no hit was expected")


def test_hashlib(benchmark):
    benchmark.pedantic(hashlib_loop, rounds=5, warmup_rounds=1)
    rates_mh_s["hashlib"] = HASHLIB_NONCES / benchmark.stats.stats.min / 1e6
