"""Opcodes on bits, and comparisons. The uniform ones (U...) are the same, on one lane."""

from functools import reduce

import numpy as np

from sass.opcodes import opcode
from sass.operands import (
    ALL,
    I32,
    I64,
    U32,
    U64,
    constant,
    dest,
    is_predicate,
    lanes_of,
    mask_of,
    numbers,
    predicate,
    predicate_dest,
    source,
)

COMPARE = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
}
COMBINE = {"AND": lambda a, b: a & b, "OR": lambda a, b: a | b, "XOR": lambda a, b: a ^ b}


def truth(table):
    """f(a, b, c) whose truth table (bit 4a + 2b + c) is `table`: a sum of products modulo 2 (algebraic normal form)."""
    terms = [table >> k & 1 for k in range(8)]
    for bit in (1, 2, 4):
        for k in range(8):
            if k & bit:
                terms[k] ^= terms[k ^ bit]
    products = [[n for n, bit in enumerate((4, 2, 1)) if k & bit] for k in range(1, 8) if terms[k]]

    def f(*inputs):
        total = ALL if terms[0] else 0
        for first, *others in products:
            product = inputs[first]
            for n in others:
                product = product & inputs[n]
            total = product ^ total
        return total

    return f


@opcode("LOP3", "ULOP3", flags="LUT")
def lop3(i):
    p_out = predicate_dest(i.operands[0]) if is_predicate(i.operands[0]) else None
    target, *sources, table, p_in = i.operands[p_out is not None :]
    (a, b, c), f = map(source, sources), truth(int(table, 0))
    write, also = dest(target), predicate(p_in)

    def run(warp, active):
        result = np.asarray(f(a(warp, active), b(warp, active), c(warp, active)), U32).reshape(-1)
        write(warp, active, result)
        if p_out:
            p_out(warp, active, mask_of(result != 0) | also(warp, active))

    return run


@opcode("PLOP3", "UPLOP3", flags="LUT")
def plop3(i):
    first, second, *sources, table, other = i.operands
    a, b, c = map(predicate, sources)
    outs = [(predicate_dest(p), truth(int(t, 0))) for p, t in ((first, table), (second, other))]

    def run(warp, active):
        inputs = [sure(p, warp, active) for p in (a, b, c)]
        for write, f in outs:
            decide(f, inputs, write, warp, active)

    return run


def sure(read, warp, active):
    """(mask, lanes in which it is undefined) of a predicate."""
    warp.unsure = 0
    return read(warp, active), warp.unsure


def decide(f, inputs, write, warp, active):
    """Writes f of the inputs' masks; undefined where an undefined input makes a difference."""
    masks, doubts = zip(*inputs, strict=True)
    result = f(*masks)
    others = (
        f(*(mask ^ doubt if n >> k & 1 else mask for k, (mask, doubt) in enumerate(inputs)))
        for n in range(1 << len(inputs) if any(doubts) else 0)
    )
    warp.unsure = reduce(lambda lanes, other: lanes | other ^ result, others, 0)
    write(warp, active, result)


def funnel(low, shift, high, *, left, upper, bits=32, wrap=False, signed=False):
    """A word of high:low, shifted. The shift is taken modulo `bits` (wrap) or at most `bits`."""
    low, shift, high = source(low), source(shift), source(high)

    def value(warp, active):
        both = low(warp, active) | high(warp, active).astype(U64) << U64(32)
        n = shift(warp, active).astype(U64)
        n = n & U64(bits - 1) if wrap else np.minimum(n, U64(bits))
        if left:
            both = both << n
        elif signed:
            both = (both.view(I64) >> n.view(I64)).view(U64)
        else:
            both = both >> n
        return (both >> U64(32 if upper else 0)).astype(U32)

    return value


@opcode("SHF", "USHF", flags="L R W U32 S32 U64 S64 HI")
def shf(i):
    target, low, shift, high = i.operands
    (side,) = {"L", "R"} & set(i.flags)
    (kind,) = {"U32", "S32", "U64", "S64"} & set(i.flags)
    value = funnel(
        low,
        shift,
        high,
        left=side == "L",
        upper="HI" in i.flags,
        bits=int(kind[1:]),
        wrap="W" in i.flags,
        signed=kind[0] == "S",
    )
    write = dest(target)
    return lambda warp, active: write(warp, active, value(warp, active))


@opcode("PRMT", "UPRMT")
def prmt(i):
    """Four bytes of c:a, each by four bits of the selector; the fourth bit: its sign, eight times."""
    target, a, selector, c = i.operands
    low, pick, high, write = source(a), source(selector), source(c), dest(target)

    def run(warp, active):
        both = low(warp, active) | high(warp, active).astype(U64) << U64(32)
        chosen, result = pick(warp, active).astype(U64), U64(0)
        for k in range(4):
            nibble = chosen >> U64(4 * k) & U64(15)
            byte = both >> (nibble & U64(7)) * U64(8) & U64(0xFF)
            sign = (byte >> U64(7)) * U64(0xFF)
            result = result | np.where(nibble > 7, sign, byte) << U64(8 * k)
        write(warp, active, result)

    return run


@opcode("MOV", "UMOV")
def mov(i):
    target, a = i.operands
    read, write = source(a), dest(target)
    return lambda warp, active: write(warp, active, read(warp, active))


@opcode("ISETP", "UISETP", flags="LT LE GT GE EQ NE U32 AND OR XOR EX")
def isetp(i):
    """Two predicates: of the comparison and of its contrary, each combined with a third. EX: of upper words, where the
    lower words' comparison decides between equal ones."""
    first, second, a, b, other, *lower = i.operands
    (relation,) = COMPARE.keys() & set(i.flags)
    (how,) = COMBINE.keys() & set(i.flags)
    compare, combine, kind = COMPARE[relation], COMBINE[how], U32 if "U32" in i.flags else I32
    x, y, third = source(a), source(b), predicate(other)
    yes, no = predicate_dest(first), predicate_dest(second)
    if len(lower) != ("EX" in i.flags):
        raise ValueError("EX and a fourth predicate go together")
    below = [predicate(p) for p in lower]

    def run(warp, active):
        left, right = x(warp, active).view(kind), y(warp, active).view(kind)
        result = mask_of(compare(left, right))
        for p in below:
            same = mask_of(left == right)
            result = result & ~same | p(warp, active) & same
        doubt = warp.unsure
        beside = sure(third, warp, active)
        decide(combine, [(result, doubt), beside], yes, warp, active)
        decide(combine, [(result ^ ALL, doubt), beside], no, warp, active)

    return run


@opcode("SEL", "USEL")
def sel(i):
    target, a, b, p = i.operands
    x, y, which, write = source(a), source(b), predicate(p), dest(target)

    def run(warp, active):
        chosen = which(warp, active)  # the source that a lane does not take may be anything
        left, right = x(warp, active & chosen), y(warp, active & ~chosen)
        write(warp, active, np.where(lanes_of(chosen), left, right))

    return run


@opcode("VIMNMX", "IMNMX", "UIMNMX", flags="U32")
def minimum_or_maximum(i):
    target, a, b, p = i.operands
    x, y, which, write = source(a), source(b), predicate(p), dest(target)
    kind = U32 if "U32" in i.flags else I32

    def run(warp, active):
        left, right = x(warp, active).view(kind), y(warp, active).view(kind)
        smaller = lanes_of(which(warp, active))
        write(warp, active, np.where(smaller, np.minimum(left, right), np.maximum(left, right)).view(U32))

    return run


def unary(f):
    def decoder(i):
        target, a = i.operands
        return numbers(f, source(a), dest(target))

    return decoder


opcode("POPC", "UPOPC")(unary(lambda v: v.bit_count()))
opcode("BREV", "UBREV")(unary(lambda v: int(f"{v:032b}"[::-1], 2)))
opcode("IABS")(unary(lambda v: min(v, (1 << 32) - v)))


@opcode("FLO", "UFLO", flags="U32 SH")
def flo(i):
    """The highest one's place, or (SH) its distance from bit 31; all ones where there is none."""
    if "U32" not in i.flags:
        raise ValueError("FLO of signed numbers")
    return unary(lambda v: ALL if v == 0 else 32 - v.bit_length() if "SH" in i.flags else v.bit_length() - 1)(i)


@opcode("HFMA2", flags="MMA")
def hfma2(i):
    """Only as ptxas writes a constant's two halves: 0 * 0 + (upper, lower), as 16-bit floats."""
    target, a, b, upper, lower = i.operands
    if (a, b) != ("-RZ", "RZ"):
        raise ValueError("HFMA2 that is not a constant")
    high, low = (int(np.array(float(text), np.float16).view(np.uint16)) for text in (upper, lower))
    value, write = constant(high << 16 | low), dest(target)
    return lambda warp, active: write(warp, active, value(warp, active))
