"""Writes the SHA-NI kernel's loop as assembly:  python shani_streams.py FILE.S

A pass is the double hash of four nonces, each a stream: that many hide the latency of sha256rnds2. What limits it then
are the four pipes, so nothing but loads, stores and SHA-256 should stand here. Three registers a stream make this
possible: two for the state and one for the newest four words of the schedule, on which the next ones wait. The older
words lie in the stream's ring in memory, from where instructions take them as operands. AVX's encodings, with a
destination of their own, do the rest; a compiler copies around sha256rnds2's fixed register instead.

The kernel takes a `ShaniStreams` (shani.cpp, which also asserts the offsets used here).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from fips180 import HASH_BITS, HEADER_BITS, INIT, PAD_ONE, K

# An operand: a value, which gets its register in the end, or assembly already.
Operand = int | str

STREAMS = 4
SUM = "%xmm0"  # where sha256rnds2 finds K + W of its rounds, in the lower half
HIGH = "$0x0e"  # shuffles the upper half down
SWAP = (0x00010203, 0x04050607, 0x08090A0B, 0x0C0D0E0F)  # vpshufb: the bytes of each word
RING = 64 * STREAMS
ABEF, CDGH, WORDS16, WORDS18, WORDS20, WORDS28 = (f"{RING + 16 * i}(%rdi)" for i in range(6))
MID_ABEF, MID_CDGH, TARGET = (f"{RING + 96 + 16 * i}(%rdi)" for i in range(3))
ENDS0, ENDS1, FIRST, PASSES, BELOW = (f"{RING + 144 + i}(%rdi)" for i in (0, 8, 16, 20, 24))


class Line:
    """The straight line of operations."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, tuple[Operand, ...]]] = []
        self.values = 0
        self.constants: list[tuple[int, ...]] = []

    def constant(self, *words: int) -> str:
        """Four words in memory, most of them within reach of one byte of displacement."""
        vector = tuple(word % 2**32 for word in words)
        if vector not in self.constants:
            self.constants.append(vector)
        return f"{16 * self.constants.index(vector) - 128}(%rcx)"

    def do(self, name: str, *sources: Operand, to: Operand = -1) -> Operand:
        """Into `to`, or into a new value."""
        if to == -1:
            to, self.values = self.values, self.values + 1
        self.operations.append((name, (*sources, to)))
        return to

    def load(self, memory: str, to: Operand = -1) -> Operand:
        return self.do("vmovdqa", memory, to=to)

    def store(self, x: Operand, memory: str) -> None:
        self.do("vmovdqa", x, to=memory)

    def text(self) -> list[str]:
        """With registers: a value's is free again after its last use."""
        last = {x: i for i, (_, operands) in enumerate(self.operations) for x in operands}
        free, place, text = [f"%xmm{i}" for i in range(1, 16)], dict[Operand, str](), list[str]()
        for i, (name, operands) in enumerate(self.operations):
            *sources, to = operands
            named: dict[Operand, str] = {x: place[x] for x in sources if isinstance(x, int)}
            free += [place.pop(x) for x in named if last[x] == i]
            if isinstance(to, int):
                named[to] = place[to] if to in place else place.setdefault(to, free.pop(0))
            text.append(f"{name} {', '.join(named.get(x, str(x)) for x in operands)}")
        return text


class Stream:
    """One nonce's state and newest words; words 4q ... 4q + 3 are vector q."""

    def __init__(self, line: Line, number: int) -> None:
        self.line, self.number = line, number
        self.constants: dict[int, str] = {}  # vectors that are the same in all streams
        self.abef: Operand = -1
        self.cdgh: Operand = -1
        self.last: Operand = -1

    def vector(self, q: int) -> str:
        return self.constants.get(q) or f"{64 * self.number + 16 * (q % 4)}(%rdi)"

    def append(self, q: int, x: Operand) -> None:
        """x is vector q. The last two are never an older one."""
        self.last = x
        if q < 14:
            self.line.store(x, self.vector(q))

    def two_rounds(self) -> None:
        """The new a b e f come where c d g h were."""
        self.line.do("sha256rnds2", self.abef, to=self.cdgh)
        self.abef, self.cdgh = self.cdgh, self.abef

    def rounds(self, q: int, words: Operand, only_two: bool = False) -> None:
        """Rounds 4q ... 4q + 3, or the first two of them."""
        self.line.do("vpaddd", self.line.constant(*K[4 * q : 4 * q + 4]), words, to=SUM)
        self.two_rounds()
        if not only_two:
            self.line.do("vpshufd", HIGH, SUM, to=SUM)
            self.two_rounds()

    def rounds_and_next(self, q: int, folded: dict[int, str]) -> None:
        """Rounds 4q ... 4q + 3, and vector q + 1 by the recurrence. W[t - 16] + s0(W[t - 15]) may be folded already."""
        do, new = self.line.do, q + 1
        if new in folded:
            total = do("vpalignr", "$4", self.vector(new - 2), self.last)
            if folded[new]:
                do("vpaddd", folded[new], total, to=total)
        else:
            total = self.line.load(self.vector(new - 4))
            do("sha256msg1", self.vector(new - 3), to=total)
            do("vpaddd", do("vpalignr", "$4", self.vector(new - 2), self.last), total, to=total)
        self.rounds(q, self.last)
        do("sha256msg2", self.last, to=total)
        self.append(new, total)


def constant_rounds(line: Line, streams: Sequence[Stream], q: int, *words: int) -> None:
    """Rounds 4q ... 4q + 3 where the words are the same in all streams."""
    sums = [a + b for a, b in zip(K[4 * q : 4 * q + 4], words, strict=True)]
    for memory in (line.constant(*sums), line.constant(*sums[2:], 0, 0)):
        line.load(memory, to=SUM)
        for stream in streams:
            stream.two_rounds()


def block1(line: Line, streams: Sequence[Stream]) -> None:
    """Block 1, the first nonce in %esi, from round 4 on."""
    do, constant = line.do, line.constant
    nonces = do("vmovd", "%esi")
    do("vpshufd", "$0", nonces, to=nonces)
    do("vpaddd", constant(*range(STREAMS)), nonces, to=nonces)
    do("vpshufb", constant(*SWAP), nonces, to=nonces)
    small0 = do("vpsrld", "$3", nonces)
    for distance in (7, 18):
        do("vpxor", do("vpsrld", f"${distance}", nonces), small0, to=small0)
        do("vpxor", do("vpslld", f"${32 - distance}", nonces), small0, to=small0)
    # Words 16 and 17 are the same in all streams; words 18 and 19 lack s0(nonce) and the nonce.
    pairs = [do(f"vpunpck{half}dq", nonces, small0) for half in "lh"]
    words16 = line.load(WORDS16)
    for stream in streams:
        pair = pairs[stream.number // 2]
        if stream.number % 2:
            x = do("vblendps", "$0x0c", pair, words16)
        else:
            do("vpaddd", WORDS18, pair, to=pair)
            x = do("vpunpcklqdq", pair, words16)
        stream.append(4, x)
    zero = 0x80808080
    for stream in streams:
        own = sum((4 * stream.number + i) << 8 * i for i in range(4))
        stream.abef = do("vpshufb", constant(zero, own, zero, own), nonces)
    for stream in streams:
        do("vpaddd", ABEF, stream.abef, to=stream.abef)
        stream.cdgh = line.load(CDGH)
    constant_rounds(line, streams, 1, PAD_ONE, 0, 0, 0)
    constant_rounds(line, streams, 2, 0, 0, 0, 0)
    constant_rounds(line, streams, 3, 0, 0, 0, HEADER_BITS)
    for stream in streams:
        stream.rounds(4, stream.last)
        stream.append(5, do("sha256msg2", stream.last, to=line.load(WORDS20)))
    for q in range(5, 15):
        for stream in streams:
            stream.rounds_and_next(q, {6: "", 7: WORDS28})


def block2(line: Line, streams: Sequence[Stream]) -> Sequence[Operand]:
    """The end of block 1, and the second hash; in the lowest lanes e after round 60: the hash's last word, less h."""
    do, constant = line.do, line.constant
    a, b, c, d, e, f, g, h = INIT
    pad, length = (PAD_ONE, 0, 0, 0), (0, 0, 0, HASH_BITS)
    for stream in streams:
        stream.rounds(15, stream.last)
        do("vpaddd", MID_ABEF, stream.abef, to=stream.abef)
        do("vpaddd", MID_CDGH, stream.cdgh, to=stream.cdgh)
        vector0 = do("vshufps", "$0xbb", stream.cdgh, stream.abef)
        vector1 = do("vshufps", "$0x11", stream.cdgh, stream.abef)
        stream.abef, stream.cdgh = line.load(constant(f, e, b, a)), line.load(constant(h, g, d, c))
        stream.append(1, vector1)
        stream.rounds(0, vector0)
        stream.rounds(1, vector1)
        stream.constants = {2: constant(*pad), 3: constant(*length)}
        do("sha256msg1", vector1, to=vector0)
        do("sha256msg2", constant(*length), to=vector0)  # no word of the other terms is set
        stream.append(4, vector0)
    constant_rounds(line, streams, 2, *pad)
    constant_rounds(line, streams, 3, *length)
    for q in range(4, 15):
        for stream in streams:
            stream.rounds_and_next(q, {6: constant(*pad)})
    for stream in streams:
        stream.rounds(15, stream.last, only_two=True)
    return [stream.abef for stream in streams]


def compare(line: Line, e: Sequence[Operand]) -> None:
    """Into %eax a bit for each stream whose hash's top 32 bits are at most the target's."""
    do = line.do
    tops = do("vpunpcklqdq", do("vpunpckldq", e[3], e[2]), do("vpunpckldq", e[1], e[0]))
    do("vpaddd", line.constant(*INIT[7:] * 4), tops, to=tops)
    do("vpshufb", line.constant(*SWAP), tops, to=tops)
    do("vpcmpeqd", do("vpminud", TARGET, tops), tops, to=tops)
    do("vmovmskps", tops, to="%eax")


# Passes until all are done, a word says to end, or one has candidates. sha256rnds2 and its like have no encoding of
# AVX's, which on Intel's cores costs nothing as long as the upper halves of the registers are zero.
FUNCTION = f"""
    .text
    .globl wattwork_shani
    .hidden wattwork_shani
    .type wattwork_shani, @function
    .balign 64
wattwork_shani:
    .cfi_startproc
    vzeroupper
    mov {ENDS0}, %r8
    mov {ENDS1}, %r9
    mov {FIRST}, %esi
    mov {PASSES}, %r10d
    lea table + 128(%rip), %rcx
    xor %edx, %edx
    xor %eax, %eax
    .balign 64
1:
    mov (%r8), %r11d
    or (%r9), %r11d
    jnz 2f
    {{body}}
    add ${STREAMS}, %esi
    inc %edx
    test %eax, %eax
    jnz 2f
    cmp %r10d, %edx
    jne 1b
2:
    mov %eax, {BELOW}
    mov %edx, %eax
    ret
    .cfi_endproc
    .size wattwork_shani, . - wattwork_shani

    .section .rodata
    .balign 64
table:
    {{table}}
    .section .note.GNU-stack, "", @progbits
"""


def main() -> None:
    line = Line()
    streams = [Stream(line, i) for i in range(STREAMS)]
    for q in range(16):
        line.constant(*K[4 * q : 4 * q + 4])
    block1(line, streams)
    compare(line, block2(line, streams))
    separator = "\n    "
    table = separator.join(f".long {', '.join(map(hex, vector))}" for vector in line.constants)
    text = FUNCTION.format(body=separator.join(line.text()), table=table)
    Path(sys.argv[1]).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
