"""Opcodes on memory, global (...G) and shared (...S): loads, stores, atomics; each lane's access after the other's."""

import re

import numpy as np

from sass.fault import Fault
from sass.opcodes import opcode
from sass.operands import ALL, LANES, U32, U64, active_lanes, at_lane, dest, register, source, wide, wide_dest

WIDTHS = {"64": 8, "128": 16}
CACHING = (
    "E CONSTANT STRONG WEAK GPU SYS SM CTA"  # said of the memory order and the caches; here every access is strong
)
ATOMIC = {
    "ADD": lambda old, x: old + x,
    "AND": lambda old, x: old & x,
    "OR": lambda old, x: old | x,
    "XOR": lambda old, x: old ^ x,
    "MIN": min,
    "MAX": max,
    "EXCH": lambda old, x: x,
}


def size_of(i):
    return next((WIDTHS[flag] for flag in i.flags if flag in WIDTHS), 4)


def indirect(text):
    """`[R4+UR5+0x10]` -> the parts between the signs."""
    match = re.fullmatch(r"(?:desc\[UR\d+\])?\[(.+)\]", text)
    if match is None:
        raise Fault(f"{text!r} is no address")
    return match[1].split("+")


def address(text, *, is_global):
    """read(warp, active) -> u64: a register pair (global) or words, plus constants."""
    parts = []
    for part in indirect(text):
        name, _, kind = part.partition(".")
        if is_global and (kind == "64" or name.startswith("U")):
            parts.append(wide(name))
        elif kind in ("", "X4", "X8", "X16") and (not is_global or name[0] not in "RU"):
            parts.append(_scaled(source(name), int(kind[1:] or 1) if kind else 1))
        else:
            raise Fault(f"{part!r} in an address")
    limit = U64((1 << 64) - 1 if is_global else ALL)
    return lambda warp, active: sum((p(warp, active) for p in parts), np.zeros(1, U64)) & limit


def _scaled(read, factor):
    return lambda warp, active: read(warp, active).astype(U64) * U64(factor)


def memory_of(name):
    return (lambda warp: warp.block.shared) if name.endswith("S") else (lambda warp: warp.machine.memory)


def words(text, size):
    """The registers of one operand of `size` bytes."""
    uniform, n = register(text)
    if text.endswith("RZ"):
        return [text] * (size // 4)
    return [f"{'U' * uniform}R{n + k}" for k in range(size // 4)]


@opcode("LDG", "LDS", flags=f"{CACHING} 64 128", acts=True)
def load(i):
    target, where = i.operands
    size = size_of(i)
    base, memory = address(where, is_global=i.opcode == "LDG"), memory_of(i.opcode)
    writes = [dest(name) for name in words(target, size)]

    def run(warp, active):
        addresses, found = base(warp, active), np.zeros((len(writes), LANES), U32)
        for lane in active_lanes(active):
            value = memory(warp).load(at_lane(addresses, lane), size)
            for k in range(len(writes)):
                found[k, lane] = value >> 32 * k & ALL
        for write, row in zip(writes, found, strict=True):
            write(warp, active, row)

    return run


@opcode("STG", "STS", flags=f"{CACHING} 64 128", acts=True)
def store(i):
    where, text = i.operands
    size = size_of(i)
    base, memory = address(where, is_global=i.opcode == "STG"), memory_of(i.opcode)
    sources = [source(name) for name in words(text, size)]

    def run(warp, active):
        addresses, values = base(warp, active), [read(warp, active) for read in sources]
        for lane in active_lanes(active):
            value = sum(at_lane(v, lane) << 32 * k for k, v in enumerate(values))
            memory(warp).store(at_lane(addresses, lane), size, value)

    return run


@opcode("ATOMG", "ATOMS", "REDG", flags=f"{CACHING} {' '.join(ATOMIC)} CAS 64", acts=True)
def atomic(i):
    operands = list(i.operands)
    if i.opcode == "ATOMG" and operands.pop(0) != "PT":
        raise ValueError("an atomic that sets a predicate")
    target = "RZ" if i.opcode == "REDG" else operands.pop(0)
    where, *texts = operands
    size, memory = size_of(i), memory_of(i.opcode)
    base, write = address(where, is_global=i.opcode != "ATOMS"), (wide_dest if size == 8 else dest)(target)
    sources = [(wide if size == 8 else source)(text) for text in texts]
    if "CAS" in i.flags:
        compare, swap = sources
    else:
        (operand,) = sources
        (how,) = ATOMIC.keys() & set(i.flags)

    def update(warp, active, lane, old):
        if "CAS" in i.flags:
            return at_lane(swap(warp, active), lane) if old == at_lane(compare(warp, active), lane) else old
        return ATOMIC[how](old, at_lane(operand(warp, active), lane))

    def run(warp, active):
        addresses, before = base(warp, active), np.zeros(LANES, U64)
        for lane in active_lanes(active):
            at = at_lane(addresses, lane)
            old = memory(warp).load(at, size)
            memory(warp).store(at, size, update(warp, active, lane, old) & (1 << 8 * size) - 1)
            before[lane] = old
        write(warp, active, before)

    return run
