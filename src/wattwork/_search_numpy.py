"""The search in vectorised NumPy (isa "numpy"): for machines without the core, and a second opinion beside it.

SHA-256 after FIPS 180-4. A chunk of nonces shares a midstate; a block of some thousand nonces is hashed at once, and
the stop word is looked at before each. About 0.5 MH/s.
"""

import numpy as np
from numpy.typing import NDArray

from wattwork.stop import Stop

Words = NDArray[np.uint32]
CHUNK = 2**14  # some 30 ms, for which Ctrl-C waits
SPLITS = False  # holds the GIL half of the time
LANES = 4096  # arrays of 16 KiB: a compression's working set stays in the second-level cache


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


def _compress(state: list[Words], words: list[Words]) -> list[Words]:
    """One compression: eight words of state and sixteen of the block, each an array of one word per lane."""
    w = list(words)
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        if i >= 16:
            x, y = w[i - 15], w[i - 2]
            small0 = _rotr(x, 7) ^ _rotr(x, 18) ^ x >> np.uint32(3)
            small1 = _rotr(y, 17) ^ _rotr(y, 19) ^ y >> np.uint32(10)
            w.append(w[i - 16] + small0 + w[i - 7] + small1)
        t1 = h + (_rotr(e, 6) ^ _rotr(e, 11) ^ _rotr(e, 25)) + (g ^ (e & (f ^ g))) + ROUND[i : i + 1] + w[i]
        t2 = (_rotr(a, 2) ^ _rotr(a, 13) ^ _rotr(a, 22)) + ((a & b) | (c & (a | b)))
        a, b, c, d, e, f, g, h = t1 + t2, a, b, c, d + t1, e, f, g
    return [x + y for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _lanes(*values: int) -> list[Words]:
    return [np.array([value], dtype=np.uint32) for value in values]


def _top_words(midstate: list[Words], tail: list[Words], nonces: Words) -> Words:
    """The most significant 32 bits of each nonce's double hash, that being read as a little-endian number."""
    first = _compress(midstate, [*tail, nonces.byteswap(), *_lanes(0x80000000, *[0] * 10, 640)])
    return _compress([x.reshape(1) for x in INIT], [*first, *_lanes(0x80000000, *[0] * 6, 256)])[7].byteswap()


def scan(header: bytes, first: int, end: int, top: int, stop: Stop) -> tuple[int, list[int]]:
    """A kernel's scan, block after block."""
    words = np.frombuffer(header, dtype=">u4").astype(np.uint32)
    midstate = _compress([x.reshape(1) for x in INIT], [x.reshape(1) for x in words[:16]])
    tail = [x.reshape(1) for x in words[16:19]]
    candidates: list[int] = []
    while first < end and not stop.is_set:
        nonces = np.arange(first, min(first + LANES, end), dtype=np.uint64).astype(np.uint32)
        candidates += nonces[_top_words(midstate, tail, nonces) <= np.uint32(top)].tolist()
        first += len(nonces)
    return first, candidates
