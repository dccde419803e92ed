"""How fast each instruction set searches here, plain and version-rolled, beside OpenSSL's SHA-256 and a hashlib loop.

The ratio to OpenSSL is hashes per second over its compressions per second (of 64 bytes, in 16 KiB blocks): a hash costs
some two compressions, less what the midstate, constant words and the early end save. Rounds of all are interleaved, and
each figure is the median of its rounds. One thread is timed by the processor time it had, pinned to one CPU; several by
the clock on the wall. A Python loop over hashlib keeps to one thread in any case.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import median
from time import perf_counter, process_time

from wattwork._search import choose_isa, isas, search, versions_side_by_side
from wattwork._search_python import sha256d
from wattwork.errors import InvalidInput, WattworkError
from wattwork.hash_options import SEARCH_OPTIONS
from wattwork.machine import check_threads, cpu_name, describe_device, describe_versions
from wattwork.outfile import write_json
from wattwork.progress import bar
from wattwork.rectangle import Hit, Rect
from wattwork.work import BIP320_MASK, Work

SCHEMA = "wattwork.search_bench/1"
VERSIONS = 32  # side by side, where rolled
ROUND_S = 0.1  # of each instruction set
HASHLIB_NONCES = 2**15
WORK = Work.from_header(bytes(range(80)), target=1, version_mask=BIP320_MASK)  # no hit in a lifetime

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Rate:
    """What was measured of one contender: "hashlib", "openssl" (compressions) or an instruction set's name."""

    name: str
    kind: str  # "plain" or "rolled"; "" where that means nothing
    per_s: tuple[float, ...]  # of each round

    @property
    def median(self) -> float:
        """Hashes per second; OpenSSL's compressions."""
        return median(self.per_s)


def measure(
    names: Sequence[str], *, threads: int = 1, rounds: int, progress: Progress = lambda said, share: None
) -> list[Rate]:
    """The rates of hashlib, of OpenSSL where it can be measured, and of the instruction sets, in this order.

    Each instruction set is first held against hashlib; WattworkError names one that is wrong.
    """
    contenders: dict[tuple[str, str], Callable[[], float | None]] = {("hashlib", ""): _hashlib_per_s}
    if shutil.which("openssl"):
        contenders["openssl", ""] = lambda: _openssl_per_s(threads)
    for name in names:
        progress(f"{name} beside hashlib", 0.0)
        self_test(name)
        for kind, versions in (("plain", 1), ("rolled", VERSIONS)):
            if versions == 1 or versions_side_by_side(name) > 1:
                contenders[name, kind] = _searcher(name, versions, threads)
    rates: dict[tuple[str, str], list[float]] = {contender: [] for contender in contenders}
    with _pinned(threads == 1):
        for i in range(rounds):
            for j, (contender, per_s) in enumerate(contenders.items()):
                share = (i + j / len(contenders)) / rounds
                progress(f"round {i + 1} of {rounds}: {' '.join(contender).strip()}", share)
                rate = per_s()
                if rate is not None:
                    rates[contender].append(rate)
    return [Rate(*contender, tuple(per_s)) for contender, per_s in rates.items() if per_s]


def self_test(isa: str) -> None:
    """Holds an instruction set against hashlib, exactly, over small rectangles; WattworkError if it is wrong."""
    for work, rect, expected in _exam():
        if search(work, *rect[:2], version_first=rect[2], versions=rect[3], isa=isa).hits != expected:
            raise WattworkError(
                f"{isa} does not find what hashlib finds over header {work.header.hex()}, target {work.target:#x}; "
                "do not use it, and choose another with --isa."
            )


@cache
def _exam() -> list[tuple[Work, Rect, tuple[Hit, ...]]]:
    """Random headers and targets, and what hashlib finds: some hits to some hundred, of one version and of several."""
    some, exam = random.Random(), []
    for versions in (1, VERSIONS, VERSIONS + 1):
        target = 2 ** some.randrange(250, 256) - 1
        work = Work.from_header(some.randbytes(80), target=target, version_mask=BIP320_MASK)
        rect = Rect(some.randrange(2**32 - 64), 64, some.randrange(work.versions - versions), versions)
        exam.append((work, rect, tuple(_by_hashlib(work, rect))))
    return exam


def _by_hashlib(work: Work, rect: Rect) -> Iterator[Hit]:
    for number in range(rect.version_first, rect.version_first + rect.versions):
        version = work.version_at(number)
        for nonce in range(rect.first, rect.first + rect.count):
            digest = sha256d(work.header_with(nonce=nonce, version=version))
            if int.from_bytes(digest, "little") <= work.target:
                yield Hit(nonce, version, digest)


def _searcher(isa: str, versions: int, threads: int) -> Callable[[], float]:
    """A function for one round's rate."""
    now = process_time if threads == 1 else perf_counter
    pairs = 2**15 * threads

    def per_s() -> float:
        nonlocal pairs
        begin = now()
        result = search(WORK, 0, max(1, pairs // versions), versions=versions, isa=isa, threads=threads)
        rate = result.hashes / (now() - begin)
        pairs = min(int(rate * ROUND_S), 2**32)
        return rate

    per_s()  # short ones, which tell how many pairs make a round
    per_s()
    return per_s


def _hashlib_per_s() -> float:
    head, begin = WORK.header[:76], process_time()
    for nonce in range(HASHLIB_NONCES):
        digest = hashlib.sha256(hashlib.sha256(head + nonce.to_bytes(4, "little")).digest()).digest()
        if digest[-4:] == b"\0\0\0\0":
            raise AssertionError("no hit was expected")
    return HASHLIB_NONCES / (process_time() - begin)


def _openssl_per_s(threads: int) -> float | None:
    """64-byte compressions per second; None where this openssl cannot say."""
    several = ["-multi", str(threads), "-elapsed"] if threads > 1 else []
    command = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", "16384", *several, "-evp", "sha256"]
    out = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = re.findall(r"^\+F:\d+:sha256:([\d.]+)$", out, re.M | re.I)
    return float(found[-1]) / 64 if found else None


@contextmanager
def _pinned(wanted: bool) -> Iterator[None]:
    """This thread, and the processes it starts, kept to one CPU where the system can."""
    if not wanted or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(args: argparse.Namespace) -> int:
    """`wattwork hash --bench`; the exit code."""
    given = [name for name in SEARCH_OPTIONS if getattr(args, name) is not None]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise InvalidInput(f"--bench takes --isa, --threads and --json only; leave {option} out.")
    if args.bench < 1:
        raise InvalidInput(f"--bench must be at least 1 round, not {args.bench}.")
    threads = check_threads(args.threads) or 1
    names = isas() if args.isa is None else (choose_isa(args.isa),)
    with bar() as progress:
        rates = measure(names, threads=threads, rounds=args.bench, progress=progress.show)
    if str(args.json) != "-":
        _print(rates, threads, args.bench)
    if args.json is not None:
        write_json(args.json, as_json(rates, threads, args.bench), "the result")
    return 0


def as_json(rates: Sequence[Rate], threads: int, rounds: int) -> dict[str, object]:
    """The result as data. Rates are per second, the median and those of each round; OpenSSL's null where unknown."""
    hashlib_, openssl = (next((r for r in rates if r.name == name), None) for name in ("hashlib", "openssl"))
    return {
        "schema": SCHEMA,
        "device": describe_device(threads=threads),
        "versions": describe_versions(),
        "rounds": rounds,
        "hashlib_hashes_per_s": hashlib_ and hashlib_.median,
        "openssl_compressions_per_s": openssl and openssl.median,
        "searches": [
            {"isa": r.name, "kind": r.kind, "hashes_per_s": r.median, "rounds_hashes_per_s": r.per_s}
            for r in rates
            if r.kind
        ],
    }


def _print(rates: Sequence[Rate], threads: int, rounds: int) -> None:
    compiler = describe_versions()["compiler"] or "without the native core"
    per_s = {r.name: r.median for r in rates if not r.kind}
    openssl = per_s.get("openssl")
    print(f"wattwork hash --bench: {cpu_name()}, {threads} thread(s), {compiler}\n")
    print(f"{'instruction set':27}{'MH/s':>10}{'x hashlib':>11}{'x OpenSSL':>11}")
    for r in rates:
        if r.kind:
            name = f"{r.name}, version-rolled" if r.kind == "rolled" else r.name
            ratio = f"{r.median / openssl:.3f}" if openssl else "unknown"
            print(f"{name:27}{r.median / 1e6:10.2f}{r.median / per_s['hashlib']:11.2f}{ratio:>11}")
    print()
    for note in _notes(per_s, threads, rounds):
        print(f"• {note}")


def _notes(per_s: dict[str, float], threads: int, rounds: int) -> Iterator[str]:
    yield "Each found exactly what hashlib finds, over random headers and targets."
    how = "processor time of one thread, pinned to one CPU" if threads == 1 else "wall time"
    yield f"Medians of {rounds} interleaved round(s), {how}."
    yield f"hashlib: {per_s['hashlib'] / 1e6:.2f} MH/s, in a Python loop on one thread."
    if "openssl" in per_s:
        yield f"OpenSSL: {per_s['openssl'] / 1e6:.1f} M compressions/s on {threads} thread(s); a hash is some two."
    else:
        why = "cannot be measured here" if shutil.which("openssl") else "is not installed"
        yield f"openssl {why}: no ratio to it."
