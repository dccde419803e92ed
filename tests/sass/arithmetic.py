"""Opcodes that add and multiply, and what a division needs. The uniform ones (U...) are the same, on one lane."""

import numpy as np

from sass.logic import funnel
from sass.opcodes import opcode
from sass.operands import (
    I32,
    I64,
    U32,
    U64,
    dest,
    is_predicate,
    lanes_of,
    mask_of,
    numbers,
    predicate,
    predicate_dest,
    source,
    wide,
    wide_dest,
)


def split(operands):
    """Into the destination, predicates right after it (carries out), sources, predicates at the end (carries in)."""
    target, *rest = operands
    first = next(k for k, text in enumerate(rest) if not is_predicate(text))
    last = next(k for k in range(len(rest), 0, -1) if not is_predicate(rest[k - 1]))
    return target, rest[:first], rest[first:last], rest[last:]


def term(text):
    """A source as u64 such that sums carry as the hardware's do: -x is the complement of x, plus one."""
    if text.startswith("-") and not text[1].isdigit():
        plain = source(text[1:])
        return lambda warp, active: U64(1 << 32) - plain(warp, active).astype(U64)
    plain = source(text)
    return lambda warp, active: plain(warp, active).astype(U64)


def adder(target, outs, terms, ins):
    """Sum of u64 terms and carries in; the k-th carry out says whether the sum overflowed at least k times."""
    write, outs, ins = dest(target), [predicate_dest(p) for p in outs], [predicate(p) for p in ins]

    def run(warp, active):
        total = sum((t(warp, active) for t in terms), np.zeros(1, U64))
        for carry in ins:
            total = total + lanes_of(carry(warp, active))
        write(warp, active, total)
        for k, out in enumerate(outs, 1):
            out(warp, active, mask_of(total >> U64(32) >= k))

    return run


@opcode("IADD3", "UIADD3", flags="X")
def iadd3(i):
    target, outs, sources, ins = split(i.operands)
    a, b, c = sources
    return adder(target, outs, [term(a), term(b), term(c)], ins)


@opcode("VIADD")
def viadd(i):
    target, a, b = i.operands
    return adder(target, [], [term(a), term(b)], [])


@opcode("LEA", "ULEA", flags="HI X SX32")
def lea(i):
    """(a << n) + b; HI: the upper word of c:a (SX32: of a with its sign) << n, + b."""
    target, outs, sources, ins = split(i.operands)
    if "HI" not in i.flags:
        a, b, n = sources
        low = source(a)
        shifted = lambda warp, active: low(warp, active) << U32(int(n, 0))  # noqa: E731
    elif "SX32" in i.flags:
        a, b, n = sources
        low = source(a)
        shifted = lambda warp, active: (low(warp, active).view(I32).astype(I64) << int(n, 0) >> 32).astype(U32)  # noqa: E731
    else:
        a, b, c, n = sources
        shifted = funnel(a, n, c, left=True, upper=True)
    if b[0] == "-":
        raise ValueError("LEA with a negative addend")
    return adder(target, outs, [lambda warp, active: shifted(warp, active).astype(U64), term(b)], ins)


@opcode("IMAD", "UIMAD", flags="MOV IADD SHL U32 HI WIDE X")
def imad(i):
    """a * b + c. HI: the upper word of the 64-bit a * b + c:c'; WIDE: both. MOV, IADD, SHL only say what b is."""
    target, outs, (a, b, c), ins = split(i.operands)
    if not {"HI", "WIDE"} & set(i.flags):
        x, y = source(a), source(b)
        return adder(target, outs, [lambda warp, active: (x(warp, active) * y(warp, active)).astype(U64), term(c)], ins)
    widen = (lambda v: v.astype(U64)) if "U32" in i.flags else (lambda v: v.view(I32).astype(I64).view(U64))
    x, y, z, cin = source(a), source(b), wide(c), [predicate(p) for p in ins]
    write, cout = (dest if "HI" in i.flags else wide_dest)(target), [predicate_dest(p) for p in outs]
    shift = U64(32 if "HI" in i.flags else 0)

    def run(warp, active):
        product = widen(x(warp, active)) * widen(y(warp, active))
        total = product + z(warp, active)
        over = total < product
        for carry in cin:
            with_carry = total + lanes_of(carry(warp, active))
            total, over = with_carry, over | (with_carry < total)
        write(warp, active, total >> shift)
        for out in cout:
            out(warp, active, mask_of(over))

    return run


# Division of integers: ptxas starts from an approximate reciprocal of the divisor, and corrects what follows from it.


def float_bits(x):
    return int(np.float32(x).view(U32))


def float_of(bits):
    return U32(bits).view(np.float32)


@opcode("I2F", flags="U32 U64 RP")
def i2f(i):
    """To the float at or above it."""
    target, a = i.operands
    kind, _ = i.flags

    def upwards(v):
        x = np.float32(v)
        return float_bits(x if int(x) >= v else np.nextafter(x, np.float32(np.inf)))

    return numbers(upwards, (wide if kind == "U64" else source)(a), dest(target))


@opcode("MUFU", flags="RCP")
def mufu(i):
    """The nearest float; the hardware's is one of the next."""
    target, a = i.operands
    return numbers(lambda v: float_bits(1 / float(float_of(v))), source(a), dest(target))


@opcode("F2I", flags="FTZ U32 U64 TRUNC NTZ")
def f2i(i):
    target, a = i.operands
    (kind,) = {"U32", "U64"} & set(i.flags)
    limit = (1 << int(kind[1:])) - 1
    write = (wide_dest if kind == "U64" else dest)(target)
    return numbers(lambda v: min(limit, max(0, int(float_of(v)))), source(a), write)
