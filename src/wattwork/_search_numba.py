"""The search compiled by Numba (isa "numba"): for machines without the core, and a second opinion beside it.

SHA-256 after FIPS 180-4. Each variable is an array of LANES words, one per nonce, and every loop over them is one LLVM
turns into the widest vectors of the processor: 64 lanes are several vectors side by side, which hides the latency of
one dependent stream. Compiled when first imported (some seconds), then read from Numba's cache.
Measured by bench/bench_search.py (Numba 0.68, Intel Xeon of family 6, model 167, one thread): 18.7 MH/s.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from wattwork._search_numpy import INIT, ROUND
from wattwork.pace import Pace
from wattwork.stop import Stop

Words = NDArray[np.uint32]
u32 = np.uint32

CHUNK = 2**17  # nonces a thread claims at a time: some 6 ms, for which Ctrl-C and another thread's last hit wait
SPLITS = True  # holds no GIL: worth several threads
LANES = 64
CANDIDATES = 4096  # a scan ends early where there are more: an easy target makes every nonce one


@intrinsic
def _load_word(context: Any, address: Any) -> Any:
    """The uint32_t at an address that another thread may write: never kept in a register across the loop."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        return builder.load_atomic(pointer, "monotonic", 4)

    return types.uint32(types.uint64), generate


# Numba widens sums of uint32 to uint64: each result is cast back, so that LLVM sees 32-bit lanes.


@njit
def _rotr(x: u32, n: int) -> u32:
    return u32(u32(x >> n) | u32(x << (32 - n)))


@njit
def _swap_bytes(x: u32) -> u32:
    return u32(_rotr(x, 8) & u32(0xFF00FF00)) | u32(_rotr(x, 24) & u32(0x00FF00FF))


@njit
def _round(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, k_w: u32) -> tuple[u32, u32]:
    """The two variables a round changes, d and h; the caller moves the names on. `k_w` is K + W."""
    t1 = u32(h + k_w + u32(g ^ (e & (f ^ g))) + u32(_rotr(e, 6) ^ _rotr(e, 11) ^ _rotr(e, 25)))
    t2 = u32(u32(c ^ ((a ^ c) & (b ^ c))) + u32(_rotr(a, 2) ^ _rotr(a, 13) ^ _rotr(a, 22)))
    return u32(d + t1), u32(t1 + t2)


@njit
def _word(w16: u32, w15: u32, w7: u32, w2: u32) -> u32:
    """The schedule's next word, of those 16, 15, 7 and 2 before it."""
    small0 = u32(_rotr(w15, 7) ^ _rotr(w15, 18) ^ u32(w15 >> 3))
    small1 = u32(_rotr(w2, 17) ^ _rotr(w2, 19) ^ u32(w2 >> 10))
    return u32(w16 + small0 + w7 + small1)


# Rows lie end to end in flat arrays: with every distance a constant, LLVM knows that lanes do not overlap.


def _four_rounds(schedule: bool) -> Any:
    """Rounds r to r + 3, which add rows 0 to 3 of `w`; and words r + 16 to r + 19 into rows 16 to 19, if wanted."""

    @njit
    def rounds(state: Words, w: Words, r: int) -> None:
        k0, k1, k2, k3 = ROUND[r], ROUND[r + 1], ROUND[r + 2], ROUND[r + 3]
        for i in range(LANES):
            w0, w1, w2, w3 = w[i], w[LANES + i], w[2 * LANES + i], w[3 * LANES + i]
            if schedule:
                w16 = _word(w0, w1, w[9 * LANES + i], w[14 * LANES + i])
                w17 = _word(w1, w2, w[10 * LANES + i], w[15 * LANES + i])
                w[16 * LANES + i], w[17 * LANES + i] = w16, w17
                w[18 * LANES + i] = _word(w2, w3, w[11 * LANES + i], w16)
                w[19 * LANES + i] = _word(w3, w[4 * LANES + i], w[12 * LANES + i], w17)
            a, b, c, d = state[i], state[LANES + i], state[2 * LANES + i], state[3 * LANES + i]
            e, f, g, h = state[4 * LANES + i], state[5 * LANES + i], state[6 * LANES + i], state[7 * LANES + i]
            d, h = _round(a, b, c, d, e, f, g, h, u32(k0 + w0))
            c, g = _round(h, a, b, c, d, e, f, g, u32(k1 + w1))
            b, f = _round(g, h, a, b, c, d, e, f, u32(k2 + w2))
            a, e = _round(f, g, h, a, b, c, d, e, u32(k3 + w3))
            state[i], state[LANES + i], state[2 * LANES + i], state[3 * LANES + i] = e, f, g, h
            state[4 * LANES + i], state[5 * LANES + i], state[6 * LANES + i], state[7 * LANES + i] = a, b, c, d

    return rounds


_rounds, _last_rounds = _four_rounds(True), _four_rounds(False)


@njit
def _row(rows: Words, row: int) -> Words:
    return rows[row * LANES : (row + 1) * LANES]  # indices into it are surely not negative, or LLVM gives up


@njit
def _fill(row: Words, value: u32) -> None:
    for i in range(LANES):
        row[i] = value


@njit
def _add(row: Words, value: u32) -> None:
    for i in range(LANES):
        row[i] = u32(row[i] + value)


@njit
def _compress(state: Words, initial: Words, words: Words) -> None:
    """One compression in every lane, into rows 0 to 7 of `state`: from eight words common to all lanes, and rows 0 to
    15 of `words`, which has 64."""
    for row in range(8):
        _fill(_row(state, row), initial[row])
    for r in range(0, 48, 4):
        _rounds(state, words[r * LANES :], r)
    for r in range(48, 64, 4):
        _last_rounds(state, words[r * LANES :], r)
    for row in range(8):
        _add(_row(state, row), initial[row])


@njit
def _pad(words: Words, used: int, bits: int) -> None:
    """The padding of a block of `used` words that ends a message of `bits` bits."""
    for row in range(used, 16):
        _fill(_row(words, row), u32(0))
    _fill(_row(words, used), u32(0x80000000))
    _fill(_row(words, 15), u32(bits))


@njit
def _midstate(header: Words, state: Words, words: Words) -> Words:
    for row in range(16):
        _fill(_row(words, row), header[row])
    _compress(state, INIT, words)
    return state[::LANES].copy()


_SCAN = types.Tuple((types.int64, types.uint32[::1]))(
    types.uint32[::1], types.int64, types.int64, types.uint32, types.uint64
)


@njit(_SCAN, nogil=True, cache=True)
def _scan(header: Words, first: int, end: int, top: u32, stop_address: int) -> tuple[int, Words]:
    state, header_words, hash_words = np.empty(8 * LANES, u32), np.empty(64 * LANES, u32), np.empty(64 * LANES, u32)
    midstate = _midstate(header, state, header_words)
    for row in range(3):
        _fill(_row(header_words, row), header[16 + row])
    _pad(header_words, 4, 640)
    _pad(hash_words, 8, 256)
    candidates, n = np.empty(CANDIDATES, u32), 0
    for at in range(first, end, LANES):
        if _load_word(stop_address) or n > CANDIDATES - LANES:
            return at, candidates[:n]
        for i in range(LANES):
            header_words[3 * LANES + i] = _swap_bytes(u32(at + i))
        _compress(hash_words, midstate, header_words)  # the first hash is where the second one reads it
        _compress(state, INIT, hash_words)
        least = u32(0xFFFFFFFF)
        for i in range(LANES):
            least = min(least, _swap_bytes(state[7 * LANES + i]))
        if least <= top:
            for i in range(min(LANES, end - at)):
                if _swap_bytes(state[7 * LANES + i]) <= top:
                    candidates[n] = u32(at + i)
                    n += 1
    return end, candidates[:n]


def scan(
    header: bytes, first: int, end: int, top: int, stop: Stop, *, pace: Pace | None = None
) -> tuple[int, list[int]]:
    """Tests the nonces [first, end) until `stop` is set: where it ended, and those whose hash's top word is <= top.

    It looks at `stop` every LANES nonces, some 3 us, which is as often as it can: `pace` changes nothing.
    """
    words = np.frombuffer(header, dtype=">u4").astype(np.uint32)
    reached, candidates = _scan(words, first, end, np.uint32(top), stop.address)
    return reached, candidates.tolist()
