"""The search in vectorised NumPy (isa "numpy"): for machines without the core, and a second opinion beside it.

SHA-256 after FIPS 180-4. A chunk of nonces shares a midstate; a block of some thousand nonces is hashed at once, and
the stop word is looked at before each. About 0.5 MH/s.

With a pace, as behind requests, the stop word is looked at three times in each of a block's 128 rounds; a block that
is not done then counts as untested, and goes on where it was if it comes next. A block of 4096 then sees a stop after
12 us on average, at the same rate; one of 1024 after 8 us, at 0.4 of it, and the overhead of the calls in between lets
none be much sooner (a virtual core of an AMD EPYC, by CPU time). The GIL may add more.
"""

import time
from collections.abc import Generator
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from wattwork.pace import Pace
from wattwork.stop import Stop

Words = NDArray[np.uint32]
T = TypeVar("T")
CHUNK = 2**14  # some 30 ms, for which Ctrl-C waits
SPLITS = False  # holds the GIL half of the time
LANES = 4096  # arrays of 16 KiB: a compression's working set stays in the second-level cache
LEAST_LANES = 1024  # with fewer a round is hardly shorter: its calls take longer than its arithmetic
LOOKS = 2 * (64 + 64 + 48)  # at the stop word, in the two compressions of a block


def _root_fractions(n: int, root: int) -> list[int]:
    """The first 32 bits of the fractional parts of the square or cube roots of the first n primes (4.2.2, 5.3.3)."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < n:
        if all(candidate % p for p in primes):
            primes.append(candidate)
        candidate += 1
    return [_integer_root(p << 32 * root, root) & 0xFFFFFFFF for p in primes]


def _integer_root(x: int, root: int) -> int:
    low, high = 0, 1 << (x.bit_length() // root + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**root <= x else (low, middle)
    return low


INIT = np.array(_root_fractions(8, 2), dtype=np.uint32)
ROUND = np.array(_root_fractions(64, 3), dtype=np.uint32)


def _rotr(x: Words, n: int) -> Words:
    return x >> np.uint32(n) | x << np.uint32(32 - n)


Steps = Generator[None, None, T]  # work that pauses where the stop word may be looked at


def _compress(state: list[Words], words: list[Words]) -> Steps[list[Words]]:
    """One compression: eight words of state and sixteen of the block, each an array of one word per lane."""
    w = list(words)
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        if i >= 16:
            yield
            x, y = w[i - 15], w[i - 2]
            small0 = _rotr(x, 7) ^ _rotr(x, 18) ^ x >> np.uint32(3)
            small1 = _rotr(y, 17) ^ _rotr(y, 19) ^ y >> np.uint32(10)
            w.append(w[i - 16] + small0 + w[i - 7] + small1)
        yield
        t1 = h + (_rotr(e, 6) ^ _rotr(e, 11) ^ _rotr(e, 25)) + (g ^ (e & (f ^ g))) + ROUND[i : i + 1] + w[i]
        yield
        t2 = (_rotr(a, 2) ^ _rotr(a, 13) ^ _rotr(a, 22)) + ((a & b) | (c & (a | b)))
        a, b, c, d, e, f, g, h = t1 + t2, a, b, c, d + t1, e, f, g
    return [x + y for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _lanes(*values: int) -> list[Words]:
    return [np.array([value], dtype=np.uint32) for value in values]


def _done(steps: Steps[T], stop: Stop | None = None) -> T | None:
    """What it comes to; None if `stop` was set before."""
    try:
        while stop is None or not stop.is_set:
            next(steps)
    except StopIteration as end:
        return cast(T, end.value)
    return None


def _top_words(midstate: list[Words], tail: list[Words], nonces: Words) -> Steps[Words]:
    """The most significant 32 bits of each nonce's double hash, that being read as a little-endian number."""
    first = yield from _compress(midstate, [*tail, nonces.byteswap(), *_lanes(0x80000000, *[0] * 10, 640)])
    second = yield from _compress([x.reshape(1) for x in INIT], [*first, *_lanes(0x80000000, *[0] * 6, 256)])
    return second[7].byteswap()


def scan(
    header: bytes, first: int, end: int, top: int, stop: Stop, *, pace: Pace | None = None
) -> tuple[int, list[int]]:
    """A kernel's scan, block after block."""
    words = np.frombuffer(header, dtype=">u4").astype(np.uint32)
    midstate = _done(_compress([x.reshape(1) for x in INIT], [x.reshape(1) for x in words[:16]]))
    assert midstate is not None
    tail = [x.reshape(1) for x in words[16:19]]
    candidates: list[int] = []
    while first < end and not stop.is_set:
        lanes = LANES if pace is None else min(max(pace.size, LEAST_LANES), LANES)
        nonces = np.arange(first, min(first + lanes, end), dtype=np.uint64).astype(np.uint32)
        begun = pace.take(header, first, len(nonces)) if pace else None
        block = begun or _top_words(midstate, tail, nonces)
        start_s = time.perf_counter()
        tops = _done(block, stop if pace else None)
        if tops is None:
            assert pace is not None
            pace.keep(header, first, len(nonces), block)
            break
        if pace and begun is None and len(nonces) == lanes:
            pace.took(lanes, (time.perf_counter() - start_s) / LOOKS)
        candidates += nonces[tops <= np.uint32(top)].tolist()
        first += len(nonces)
    return first, candidates
