"""The CUDA driver through ctypes, and what kernels/search.h tells the search kernels: for bench/gpu.py and the tests.

Nothing but the driver (libcuda.so.1) is needed; importing this needs nothing at all.
"""

import ctypes
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
U32, U64 = ctypes.c_uint32, ctypes.c_uint64
FLAGS, FLAG_STRIDE = 16, 32  # kFlags, kFlagStride

# FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
PRIMES = [p for p in range(2, 312) if all(p % q for q in range(2, int(p**0.5) + 1))]
K = [int(p ** (1 / 3) % 1 * 2**32) for p in PRIMES]
INIT = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)


class Scan(ctypes.Structure):
    """`struct Scan`: one search of `count` nonces from `first`, for each of `versions` lanes."""

    _fields_ = (
        ("count", U64),
        ("budget", U64),
        ("first", U32),
        ("chunk", U32),
        ("versions", U32),
        ("tail", U32 * 3),
        ("target_top", U32),
        ("capacity", U32),
        ("one", U32),
    )

    @classmethod
    def of(
        cls, header: bytes, target: int, span: range, *, versions: int = 1, chunk: int = 256, capacity: int, budget: int = 0
    ) -> "Scan":
        tail = struct.unpack(">3I", header[64:76])
        return cls(len(span), budget, span.start, chunk, versions, tail, target >> 224, capacity, 1)


class Lane(ctypes.Structure):
    """`struct Lane`: what the nonces of one version share."""

    _fields_ = (("midstate", U32 * 8), ("start", U32 * 8))

    @classmethod
    def of(cls, header: bytes) -> "Lane":
        midstate = compress(INIT, struct.unpack(">16I", header[:64]))
        return cls(midstate, rounds(midstate, (*struct.unpack(">3I", header[64:76]), *[0] * 13), 3))


class Account(ctypes.Structure):
    """`struct Account`: the next chunk to claim, and the candidates found."""

    _fields_ = (("next", U64), ("found", U64))


def lanes(headers: Sequence[bytes]) -> ctypes.Array[Lane]:
    return (Lane * len(headers))(*map(Lane.of, headers))


def rolled(header: bytes, mask: int, numbers: Iterable[int]) -> list[bytes]:
    """The header with these of its versions: number i deposits i ^ own number in the mask's bits."""
    own, places = int.from_bytes(header[:4], "little"), [bit for bit in range(32) if mask >> bit & 1]

    def version(number: int) -> int:
        return own ^ sum(1 << place for i, place in enumerate(places) if number >> i & 1)

    return [version(number).to_bytes(4, "little") + header[4:] for number in numbers]


def rotr(x: int, n: int) -> int:
    return (x >> n | x << (32 - n)) & 0xFFFFFFFF


def rounds(state: tuple[int, ...], words: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` rounds (FIPS 180-4, 6.2.2)."""
    w = list(words)
    for i in range(16, count):
        s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for i in range(count):
        big1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)
        t1 = h + big1 + ((e & f) ^ (~e & g)) + K[i] + w[i]
        t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        a, b, c, d, e, f, g, h = (t1 + t2) & 0xFFFFFFFF, a, b, c, (d + t1) & 0xFFFFFFFF, e, f, g
    return a, b, c, d, e, f, g, h


def compress(state: tuple[int, ...], words: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((s + r) & 0xFFFFFFFF for s, r in zip(state, rounds(state, words, 64), strict=True))


