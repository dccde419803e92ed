"""Operands: each text becomes, once, a function that reads or writes a warp.

Values are NumPy arrays of 32 lanes, or of one where all lanes share it (uniform registers, constants, immediates):
they broadcast. Predicates are numbers of 32 bits, one a lane.
"""

import re
from functools import cache

import numpy as np

from sass.fault import Fault

LANES, ALL = 32, 0xFFFF_FFFF
U32, U64, I32, I64 = np.uint32, np.uint64, np.int32, np.int64
REGISTER = re.compile(r"(U?)R(\d+|Z)")
PREDICATE = re.compile(r"(!?)(U?)P(\d|T)")
CONSTANT = re.compile(r"c\[(0x[0-9a-f]+)\]\[(0x[0-9a-f]+)\]")
NUMBER = re.compile(r"-?(0x[0-9a-f]+|\d+)")


class Registers:
    """A register file; the last one reads as zero. `known`: the lanes in which each has a defined value.

    ptxas reads undefined registers where the result does not matter. So what is read undefined makes the instruction's
    results undefined (`warp.unsure`), and only who acts on them faults.
    """

    def __init__(self, count, lanes):
        self.rows = list(np.zeros((count, lanes), U32))
        self.known = [0] * (count - 1) + [ALL]
        self.last = count - 1

    def write(self, n, active, value, unsure):
        if n == self.last:
            return
        row = self.rows[n]
        if active == ALL:
            row[:] = value
        else:
            np.copyto(row, value, where=lanes_of(active), casting="unsafe")
        self.known[n] = self.known[n] & ~active | active & ~unsure


class Predicates:
    """A file of eight; the last one is true."""

    def __init__(self):
        self.rows, self.known = [0] * 7 + [ALL], [0] * 7 + [ALL]

    def write(self, n, active, mask, unsure):
        if n != 7:
            self.rows[n] = self.rows[n] & ~active | mask & active
            self.known[n] = self.known[n] & ~active | active & ~unsure


@cache
def lanes_of(mask):
    """A mask's lanes as 32 booleans."""
    lanes = np.array([mask >> i & 1 for i in range(LANES)], bool)
    lanes.setflags(write=False)
    return lanes


def mask_of(lanes):
    """Booleans, 32 or one for all, as a mask."""
    if lanes.size == 1:
        return ALL if lanes[0] else 0
    return int.from_bytes(np.packbits(lanes, bitorder="little").tobytes(), "little")


def active_lanes(active):
    return np.flatnonzero(lanes_of(active)).tolist()


def at_lane(values, lane):
    return int(values[lane % values.size])


def only(values):
    """The one value that all of these are."""
    if values.size > 1 and (values != values[0]).any():
        raise Fault("lanes differ where they must agree")
    return values[:1]


def constant(number, dtype=U32):
    value = np.array([number % (1 << 8 * dtype().itemsize)], dtype)
    return lambda warp, active: value


def is_predicate(text):
    return PREDICATE.fullmatch(text) is not None


def register(text):
    """(whether uniform, its number); Fault for anything else."""
    match = REGISTER.fullmatch(text)
    if match is None:
        raise Fault(f"{text!r} is no register")
    uniform = match[1] == "U"
    return uniform, (63 if uniform else 255) if match[2] == "Z" else int(match[2])


def source(text):
    """read(warp, active) -> u32: a register, a constant or an immediate, with its sign or complement."""
    if NUMBER.fullmatch(text):
        return constant(int(text, 0))
    if text[0] == "-":
        plain = source(text[1:])
        return lambda warp, active: U32(0) - plain(warp, active)
    if text[0] == "~":
        plain = source(text[1:])
        return lambda warp, active: ~plain(warp, active)
    if match := CONSTANT.fullmatch(text):
        bank, offset = int(match[1], 16), int(match[2], 16)
        return lambda warp, active: warp.constant(bank, offset)
    uniform, n = register(text)

    def read(warp, active):
        file = warp.uniform if uniform else warp.vector
        warp.unsure |= active & ~file.known[n]
        return file.rows[n]

    return read


def wide(text):
    """read(warp, active) -> u64: two neighbours, the lower first; an immediate that is not negative."""
    if NUMBER.fullmatch(text) and 0 <= int(text, 0) < 1 << 31:
        return constant(int(text, 0), U64)
    if match := CONSTANT.fullmatch(text):
        second = f"c[{match[1]}][{int(match[2], 16) + 4:#x}]"
    else:
        uniform, n = register(text)
        second = text if text.endswith("RZ") else f"{'U' * uniform}R{n + 1}"
    low, high = source(text), source(second)
    return lambda warp, active: low(warp, active) | high(warp, active).astype(U64) << U64(32)


def dest(text):
    """write(warp, active, value): the value's lowest 32 bits."""
    uniform, n = register(text)
    if uniform:
        return lambda warp, active, value: warp.uniform.write(n, ALL, only(value), ALL if warp.unsure else 0)
    return lambda warp, active, value: warp.vector.write(n, active, value, warp.unsure)


def wide_dest(text):
    """write(warp, active, value): all 64 bits, to two neighbours."""
    if text.endswith("RZ"):
        return lambda warp, active, value: None
    uniform, n = register(text)
    low, high = dest(text), dest(f"{'U' * uniform}R{n + 1}")

    def write(warp, active, value):
        low(warp, active, value)
        high(warp, active, value >> U64(32))

    return write


def predicate(text):
    """read(warp, active) -> mask; a uniform one counts for all lanes."""
    match = PREDICATE.fullmatch(text)
    if match is None:
        raise Fault(f"{text!r} is no predicate")
    flip, n, uniform = ALL if match[1] else 0, 7 if match[3] == "T" else int(match[3]), match[2]

    def read(warp, active):
        file = warp.uniform_predicates if uniform else warp.predicates
        warp.unsure |= active & ~file.known[n]
        return file.rows[n] ^ flip

    return read


def predicate_dest(text):
    """write(warp, active, mask)."""
    match = PREDICATE.fullmatch(text)
    if match is None or match[1]:
        raise Fault(f"{text!r} is no predicate to write")
    n = 7 if match[3] == "T" else int(match[3])
    if match[2]:
        return lambda warp, active, mask: warp.uniform_predicates.write(n, ALL, mask, ALL if warp.unsure else 0)
    return lambda warp, active, mask: warp.predicates.write(n, active, mask, warp.unsure)


def numbers(f, read, write):
    """Lane by lane, the active ones, by Python's numbers."""

    def run(warp, active):
        values = read(warp, active)
        used = [True] if values.size == 1 else lanes_of(active)
        write(warp, active, np.array([f(int(v)) if u else 0 for v, u in zip(values, used, strict=True)], U64))

    return run
