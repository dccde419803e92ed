"""Single instructions of the machine that runs compiled kernels: what each does, said by Python's numbers.

R1, R2, R3 are a, b, c; R5:R4 is w; P1 is p, lane by lane.
"""

import numpy as np
import pytest
from sass import Instruction
from sass.machine import Block
from sass.opcodes import decode
from sass.operands import ALL
from sass.words import numbers, signed
from seeds import FRESH_SEED

M32 = (1 << 32) - 1


def execute(text, active=ALL, **registers):
    """A warp after one instruction. Registers by name: 32 numbers, or a mask for a predicate."""
    warp = Block(None, (0, 0, 0), (32, 1, 1), 0).warps[0]
    for name, value in registers.items():
        if name[0] == "P":
            warp.predicates.write(int(name[1:]), ALL, value, 0)
        else:
            warp.vector.write(int(name[1:]), ALL, np.asarray(value, np.uint32), 0)
    run, _ = decode(Instruction.of(text))
    run(warp, active)
    return warp


def rotated(x, n):
    return (x << 32 | x) >> n & M32


SUMS = {  # bits from the 32nd on: carries
    "IADD3 R0, P0, R1, R2, RZ": lambda a, b, c, w, p: a + b,
    "IADD3 R0, P0, R1, -R2, RZ": lambda a, b, c, w, p: a + (M32 + 1 - b),
    "IADD3 R0, P0, P2, R1, R2, R3": lambda a, b, c, w, p: a + b + c,
    "IADD3.X R0, P0, R1, ~R2, RZ, P1, !PT": lambda a, b, c, w, p: a + (M32 - b) + p,
    "IADD3.X R0, P0, P2, R1, R2, R3, P1, PT": lambda a, b, c, w, p: a + b + c + p + 1,
    "VIADD R0, -R1, 0x7": lambda a, b, c, w, p: (7 - a) & M32,
    "LEA R0, P0, R1, R2, 0x5": lambda a, b, c, w, p: (a << 5 & M32) + b,
    "LEA.HI R0, R1, R2, R3, 0x7": lambda a, b, c, w, p: ((c << 32 | a) >> 25 & M32) + b & M32,
    "LEA.HI.X R0, P0, R1, R2, R3, 0x7, P1": lambda a, b, c, w, p: ((c << 32 | a) >> 25 & M32) + b + p,
    "LEA.HI.SX32 R0, R1, R2, 0x1b": lambda a, b, c, w, p: (signed(a) >> 5) + b & M32,
    "IMAD R0, R1, R2, -R3": lambda a, b, c, w, p: a * b - c & M32,
    "IMAD.X R0, P0, R1, 0x1, R3, P1": lambda a, b, c, w, p: a + c + p,
    "IMAD.HI.U32 R0, R1, R2, R4": lambda a, b, c, w, p: a * b + w >> 32 & M32,
    "IMAD.HI R0, R1, R2, RZ": lambda a, b, c, w, p: signed(a) * signed(b) >> 32 & M32,
    "SHF.R.W.U32 R0, R1, R2, R1": lambda a, b, c, w, p: rotated(a, b & 31),
    "SHF.L.W.U32.HI R0, R1, 0x7, R1": lambda a, b, c, w, p: rotated(a, 25),
    "SHF.R.U32.HI R0, RZ, 0x3, R1": lambda a, b, c, w, p: a >> 3,
    "SHF.R.U32 R0, R1, R2, R3": lambda a, b, c, w, p: (c << 32 | a) >> min(b, 32) & M32,
    "SHF.L.U32 R0, R1, R2, RZ": lambda a, b, c, w, p: a << min(b, 32) & M32,
    "SHF.R.S32.HI R0, RZ, 0x1f, R1": lambda a, b, c, w, p: M32 if a >> 31 else 0,
    "PRMT R0, R1, 0x123, RZ": lambda a, b, c, w, p: int.from_bytes(a.to_bytes(4, "little"), "big"),
    "SEL R0, R1, R2, P1": lambda a, b, c, w, p: a if p else b,
    "SEL R0, R1, R2, !P1": lambda a, b, c, w, p: b if p else a,
    "VIMNMX R0, R1, R2, PT": lambda a, b, c, w, p: min(signed(a), signed(b)) & M32,
    "VIMNMX.U32 R0, R1, R2, !PT": lambda a, b, c, w, p: max(a, b),
    "FLO.U32 R0, R1": lambda a, b, c, w, p: a.bit_length() - 1 & M32,
    "FLO.U32.SH R0, R1": lambda a, b, c, w, p: 32 - a.bit_length() if a else M32,
    "HFMA2.MMA R0, -RZ, RZ, 1.875, 5.9604644775390625e-08": lambda a, b, c, w, p: 0x3F800001,
    "P2R R0, PR, R1, 0x2": lambda a, b, c, w, p: a & ~2 | 2 * p,
}
PREDICATES = {  # P0, and P2 where there is one
    "ISETP.LT.AND P0, P2, R1, R2, P1": lambda a, b, c, p: (signed(a) < signed(b) and p, signed(a) >= signed(b) and p),
    "ISETP.GE.U32.OR P0, P2, R1, R2, !P1": lambda a, b, c, p: (a >= b or not p, a < b or not p),
    "ISETP.NE.XOR P0, P2, R1, R2, P1": lambda a, b, c, p: ((a != b) ^ p, (a == b) ^ p),
    "ISETP.GT.U32.AND.EX P0, P2, R1, R2, PT, P1": lambda a, b, c, p: ((a, p) > (b, 0), (a, p) <= (b, 0)),
    "ISETP.LE.AND.EX P0, PT, R1, R2, PT, P1": lambda a, b, c, p: (signed(a) < signed(b) or (a == b and p),),
    "LOP3.LUT P0, RZ, R1, R2, RZ, 0xc0, !PT": lambda a, b, c, p: (a & b != 0,),
    "R2P PR, R1, 0x5": lambda a, b, c, p: (a & 1, a >> 2 & 1),
}


@pytest.fixture(params=[ALL, 0x0F0F_1234])
def lanes(request):
    """Registers of a warp, and the lanes that are active."""
    rng = np.random.default_rng(FRESH_SEED)
    a, b, c, low, high = (numbers(rng, 32) for _ in range(5))
    b[::4] = a[::4]
    b[1::8] %= 70  # a shift's distance
    registers = {
        "R0": [0xABCD] * 32,
        "R1": a,
        "R2": b,
        "R3": c,
        "R4": low,
        "R5": high,
        "P0": 0xF0F,
        "P2": 0xFF,
        "P1": 0x1357_9BDF,
    }
    rows = [(*map(int, row), 0x1357_9BDF >> k & 1) for k, row in enumerate(zip(a, b, c, low, high, strict=True))]
    return registers, [(x, y, z, v << 32 | u, p) for x, y, z, u, v, p in rows], request.param


@pytest.mark.parametrize("text", SUMS)
def test_one_instruction(lanes, text):
    registers, rows, active = lanes
    warp = execute(text, active, **registers)
    for k, row in enumerate(rows):
        right, carries = SUMS[text](*row) & M32, SUMS[text](*row) >> 32
        if not active >> k & 1:
            right = 0xABCD
        assert warp.vector.rows[0][k] == right, (k, row)
        for n, (place, before) in enumerate([("P0", 0xF0F), ("P2", 0xFF)], 1):
            expected = carries >= n if active >> k & 1 and f" {place}," in text else before >> k & 1
            assert warp.predicates.rows[int(place[1:])] >> k & 1 == expected, (k, row, place)


@pytest.mark.parametrize("text", PREDICATES)
def test_one_predicate(lanes, text):
    registers, rows, active = lanes
    warp = execute(text, active, **registers)
    for k, (a, b, c, _, p) in enumerate(rows):
        for place, right, before in zip((0, 2), PREDICATES[text](a, b, c, p), (0xF0F, 0xFF), strict=False):
            assert warp.predicates.rows[place] >> k & 1 == (bool(right) if active >> k & 1 else before >> k & 1)


def test_every_truth_table():
    a, b, c = ([-(row >> bit & 1) & M32 for row in range(32)] for bit in (2, 1, 0))
    masks = {f"P{n}": sum((row >> bit & 1) << row for row in range(32)) for n, bit in ((1, 2), (2, 1), (3, 0))}
    for table in range(256):
        bits = [table >> (row & 7) & 1 for row in range(32)]
        warp = execute(f"LOP3.LUT R0, R1, R2, R3, {table:#x}, !PT", R1=a, R2=b, R3=c)
        assert warp.vector.rows[0].tolist() == [-bit & M32 for bit in bits], table
        warp = execute(f"PLOP3.LUT P0, P4, P1, P2, P3, {table:#x}, {table ^ 255:#x}", **masks)
        assert warp.predicates.rows[0] == sum(bit << row for row, bit in enumerate(bits)), table
        assert warp.predicates.rows[4] == warp.predicates.rows[0] ^ ALL, table
