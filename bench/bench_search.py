"""The nonce search on one thread, plain and version-rolled, beside OpenSSL's SHA-256 and a hashlib loop.

The ratio to OpenSSL is nonces per second over its compressions per second (16 KiB blocks): a nonce costs some two
compressions, less what the midstate, constant words and the early end save. Rounds of all are interleaved, each figure
is the median of its rounds, by the time the process had the processor. Beside each stands what this processor's ports
allow (see port_bound.py), where they are known, and the share of it that was reached.

    python bench/bench_search.py [ROUNDS]
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from statistics import median
from time import process_time

from port_bound import VERSIONS, bound, clock_ghz, countable

from wattwork._search import isas, search
from wattwork.work import Work

WORK = Work.from_header(bytes(range(80)), target=1, version_mask=0x1FFFE000)
PAIRS = {"numpy": 2**15, "numba": 2**20, "portable": 2**19}  # some 0.1 s
HASHLIB_NONCES = 2**16


def searched_mh_s(isa, versions):
    pairs = PAIRS.get(isa, 2**21)
    begin = process_time()
    result = search(WORK, 0, pairs // versions, versions=versions, isa=isa, threads=1)
    return result.hashes / (process_time() - begin) / 1e6


def hashlib_mh_s():
    head, begin = WORK.header[:76], process_time()
    for nonce in range(HASHLIB_NONCES):
        digest = hashlib.sha256(hashlib.sha256(head + nonce.to_bytes(4, "little")).digest()).digest()
        if digest[-4:] == b"\0\0\0\0":
            raise AssertionError("no hit was expected")
    return HASHLIB_NONCES / (process_time() - begin) / 1e6


def openssl_mh_s():
    """Millions of 64-byte compressions per second, by the processor's time in user mode."""
    command = ["openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", "sha256"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"^sha256\s+([\d.]+)k", out, re.M | re.I).group(1)) * 1e3 / 64 / 1e6


def contenders():
    """What is measured: name and kind, and a function for one round's rate."""
    all_of_them = {("hashlib", ""): hashlib_mh_s}
    if shutil.which("openssl"):
        all_of_them["openssl", ""] = openssl_mh_s
    for isa in isas():
        all_of_them[isa, "plain"] = lambda isa=isa: searched_mh_s(isa, 1)
        if isa not in ("numpy", "numba", "shani"):  # these have no rolled path
            all_of_them[isa, "rolled"] = lambda isa=isa: searched_mh_s(isa, VERSIONS)
    return all_of_them


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rates = {name: [] for name in contenders()}
    for _ in range(rounds):
        for name, one_round in contenders().items():
            rates[name].append(one_round())
    mh_s = {name: median(values) for name, values in rates.items()}
    clock = clock_ghz()
    heads = f"{'MH/s':>8}{'x hashlib':>11}{'x OpenSSL':>11}{'operations':>12}{'bound, MH/s':>13}{'reached':>9}"
    print(f"{'':18}{heads}")
    for (name, kind), rate in mh_s.items():
        ratio = f"{rate / mh_s['openssl', '']:11.3f}" if ("openssl", "") in mh_s else f"{'unknown':>11}"
        line = f"{name:10}{kind:8}{rate:8.2f}{rate / mh_s['hashlib', '']:11.2f}{ratio}"
        if kind and countable(name):
            operations, cycles = bound(name, 1 if kind == "plain" else VERSIONS)
            line += f"{operations:12.1f}"
            if cycles and clock:
                line += f"{clock * 1e3 / cycles:13.1f}{rate * cycles / clock / 1e3:9.0%}"
        print(line)
    print(
        f"Medians of {rounds} interleaved rounds; openssl: M compressions/s; operations: the vector units', per nonce;"
    )
    print(f"bound: at {clock:.2f} GHz, the clock of scalar code.")


if __name__ == "__main__":
    main()
