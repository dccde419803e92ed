"""Opcodes that move: constants, special registers, what lanes tell one another, predicates as a number; and fences."""

import re

import numpy as np

from sass.fault import Fault
from sass.opcodes import opcode
from sass.operands import (
    ALL,
    LANES,
    U32,
    U64,
    active_lanes,
    at_lane,
    dest,
    is_predicate,
    lanes_of,
    mask_of,
    predicate,
    predicate_dest,
    register,
    source,
    wide,
    wide_dest,
)


@opcode("LDC", "ULDC", flags="64", acts=True)
def load_constant(i):
    target, where = i.operands
    match = re.fullmatch(r"c\[(0x[0-9a-f]+)\]\[(U?R(?:\d+|Z))(?:\+(-?0x[0-9a-f]+))?\]", where)
    write = (wide_dest if "64" in i.flags else dest)(target)
    if match is None:
        read = (wide if "64" in i.flags else source)(where)
        return lambda warp, active: write(warp, active, read(warp, active))
    if "64" in i.flags:
        raise ValueError("64 bits by a register")
    bank, index, offset = int(match[1], 16), source(match[2]), int(match[3] or "0", 16)

    def run(warp, active):
        places, found = index(warp, active), np.zeros(LANES, U32)
        for lane in active_lanes(active):
            found[lane] = warp.constant(bank, at_lane(places, lane) + offset)[0]
        write(warp, active, found[: places.size])

    return run


def _lanes_where(relation):
    masks = np.array([sum(1 << k for k in range(LANES) if relation(k, lane)) for lane in range(LANES)], U32)
    return lambda warp: masks


SPECIAL = {
    "SR_LANEID": lambda warp: np.arange(LANES, dtype=U32),
    "SR_EQMASK": _lanes_where(lambda k, lane: k == lane),
    "SR_LTMASK": _lanes_where(lambda k, lane: k < lane),
    "SR_LEMASK": _lanes_where(lambda k, lane: k <= lane),
    "SR_GTMASK": _lanes_where(lambda k, lane: k > lane),
    "SR_GEMASK": _lanes_where(lambda k, lane: k >= lane),
    "SR_CgaCtaId": lambda warp: np.zeros(1, U32),  # a cluster of one block
    "SR_VIRTUALSMID": lambda warp: np.array([warp.block.sm], U32),
    "SR_CLOCKLO": lambda warp: np.array([warp.machine.clock & ALL], U32),
    "SRZ": lambda warp: np.zeros(1, U32),
}
for axis, letter in enumerate("XYZ"):
    SPECIAL[f"SR_TID.{letter}"] = lambda warp, axis=axis: warp.thread[axis]
    SPECIAL[f"SR_CTAID.{letter}"] = lambda warp, axis=axis: warp.block.number[axis]


@opcode("S2R", "S2UR")
def special(i):
    target, name = i.operands
    value, write = SPECIAL[name], dest(target)
    return lambda warp, active: write(warp, active, value(warp))


@opcode("CS2R", flags="32")
def special_wide(i):
    if "32" in i.flags:
        return special(i)
    target, name = i.operands
    if name not in ("SR_CLOCKLO", "SRZ"):
        raise ValueError(f"64 bits of {name}")
    write, counts = wide_dest(target), name == "SR_CLOCKLO"
    return lambda warp, active: write(warp, active, np.array([warp.machine.clock if counts else 0], U64))


@opcode("SHFL", flags="IDX UP DOWN BFLY")
def shuffle(i):
    """Lane j of the source, j as the PTX ISA's shfl has it; only j's register must have been written."""
    p, target, text, which, control = i.operands
    _, n = register(text)
    step, bounds, write, inside = source(which), source(control), dest(target), predicate_dest(p)
    (mode,) = i.flags

    def run(warp, active):
        steps, limits = step(warp, active), bounds(warp, active)
        found, valid = np.zeros(LANES, U32), 0
        for lane in active_lanes(active):
            by, limit = at_lane(steps, lane) & 31, at_lane(limits, lane)
            segment, clamp = limit >> 8 & 31, limit & 31
            low, high = lane & segment, lane & segment | clamp & ~segment
            j = {"IDX": low | by & ~segment, "UP": lane - by, "DOWN": lane + by, "BFLY": lane ^ by}[mode]
            within = j >= high if mode == "UP" else j <= high
            j = j if within else lane
            if not active >> j & 1:
                raise Fault(f"lane {lane} asks lane {j}, which is not there")
            found[lane] = warp.vector.rows[n][j]
            warp.unsure |= (~warp.vector.known[n] >> j & 1) << lane
            valid |= within << lane
        write(warp, active, found)
        inside(warp, active, valid)

    return run


@opcode("VOTE", "VOTEU", flags="ANY ALL EQ", acts=True)
def vote(i):
    """A register: the lanes for it, of those active; a predicate: whether any, all, or all or none are for it."""
    *outs, text = i.operands
    ballot = predicate(text)
    write = None if is_predicate(outs[0]) else dest(outs[0])
    verdict = predicate_dest(outs[-1]) if is_predicate(outs[-1]) else None
    (mode,) = i.flags

    def run(warp, active):
        ayes = ballot(warp, active) & active
        if write:
            write(warp, active, np.array([ayes], U32))
        if verdict:
            true = {"ANY": ayes != 0, "ALL": ayes == active, "EQ": ayes in (0, active)}[mode]
            verdict(warp, active, ALL if true else 0)

    return run


@opcode("R2UR")
def to_uniform(i):
    target, text = i.operands
    read, write = source(text), dest(target)

    def run(warp, active):
        values = read(warp, active)
        write(warp, active, values if values.size == 1 else values[lanes_of(active)])

    return run


REDUCE = {"SUM": np.add, "AND": np.bitwise_and, "OR": np.bitwise_or, "XOR": np.bitwise_xor}


@opcode("REDUX", flags=" ".join(REDUCE))
def reduction(i):
    """Over the active lanes."""
    target, text = i.operands
    (how,) = i.flags
    read, write = source(text), dest(target)

    def run(warp, active):
        values = np.broadcast_to(read(warp, active), LANES)[lanes_of(active)]
        write(warp, active, REDUCE[how].reduce(values, keepdims=True, dtype=U32))

    return run


@opcode("P2R")
def predicates_to_register(i):
    target, kind, text, mask = i.operands
    base, write, chosen = source(text), dest(target), int(mask, 0)
    if kind != "PR" or chosen > 0x7F:
        raise ValueError("only predicates, and only the lowest byte")
    inputs = [predicate(f"P{n}") for n in range(7)]

    def run(warp, active):
        result = base(warp, active) & U32(~chosen & ALL)
        for n in range(7):
            if chosen >> n & 1:
                result = result | lanes_of(inputs[n](warp, active)).astype(U32) << U32(n)
        write(warp, active, result)

    return run


@opcode("R2P")
def register_to_predicates(i):
    kind, text, mask = i.operands
    read, chosen = source(text), int(mask, 0)
    if kind != "PR" or chosen > 0x7F:
        raise ValueError("only predicates, and only the lowest byte")
    outputs = [predicate_dest(f"P{n}") for n in range(7)]

    def run(warp, active):
        value = read(warp, active)
        for n in range(7):
            if chosen >> n & 1:
                outputs[n](warp, active, mask_of(value >> U32(n) & U32(1) != 0))

    return run


opcode("MEMBAR", flags="SC ALL GPU SYS CTA")(lambda i: lambda warp, active: None)
opcode("ERRBAR", "CGAERRBAR", "NOP", "NANOSLEEP", "YIELD", "ENDCOLLECTIVE")(lambda i: lambda warp, active: None)
opcode("DEPBAR", flags="LE")(lambda i: lambda warp, active: None)
opcode("CCTL", flags="IVALL")(lambda i: lambda warp, active: None)
