"""Writes the AVX-512 kernels as assembly:  python avx512_pipeline.py FILE.S

The double hash of 16 lanes is written down once as a straight line of vector operations and cut into thirds. The loop
holds the three thirds woven into one another, each with a different group of lanes: what one third has done, the next
takes over in the next pass. So three independent streams keep the ports busy, while each instruction stands only once:
18 to 22 kB, which processors' caches of decoded instructions hold; three hashes side by side would be three times that.

Each third has eight registers for the state (zmm0-7, 8-15, 16-23); all share zmm24-31 for what lives shortly. A group's
message schedule lies in its ring of 16 vectors in memory, which moves from third to third with it.

The two kernels take an `Avx512Pipeline` (avx512.cpp, which also asserts the offsets used here).
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

from fips180 import HASH_BITS, HEADER_BITS, INIT, PAD_ONE, K

# A schedule word: a number, or where it is in memory: "...{1to16}" where it is the same in all lanes.
Word = int | str
# What a stage finds its row, ring or sums by, stage by stage.
Pointers = dict[str, tuple[str, ...]]

GROUP = 16  # lanes
STAGES = 3
LEAD = 2  # rounds ahead of its use that a schedule word is computed
KEPT = range(24, 32)  # registers for what lives shortly
MOST = 4  # of these, that one stage needs at a time

# The offsets of Row and Rows, whose fields are rows of 32 versions.
MIDSTATE, START, START_SUM = 0, 32, 64
WORD16, WORD17, WORD18, WORD19, WORD31, WORD32, TARGET_TOP = range(76, 104, 4)
VERSIONS = 32 * 4
ROWS_START, ROWS_START_SUM, ROWS_TARGET_TOP = 8 * VERSIONS, 16 * VERSIONS, 19 * VERSIONS + TARGET_TOP - WORD16
SUMS = 256 * 4  # from one round's row of K + W to the next one's


def rotr(x: int, n: int) -> int:
    return (x >> n | x << (32 - n)) % 2**32


def small0(x: int) -> int:
    return rotr(x, 7) ^ rotr(x, 18) ^ x >> 3


def small1(x: int) -> int:
    return rotr(x, 17) ^ rotr(x, 19) ^ x >> 10


class Operation:
    """One instruction: `s0`..`s7` are its stage's state, `t1`.. what lives shortly, all else is assembly already."""

    def __init__(self, name: str, sources: list[str], to: str, reads_to: bool = False) -> None:
        self.name, self.sources, self.to = name, sources, to
        self.reads = [x for x in sources if is_register(x)] + [to] * reads_to

    @property
    def counts(self) -> bool:
        """Whether it takes a port of the vector units, as loads, stores and copies do not."""
        return self.name not in ("vmovdqu32", "vpbroadcastd")


def is_register(x: str) -> bool:
    return x[0] in "st" and x[1:].isdigit()


class Constants:
    """The table at %rcx: byte order, lane numbers, then 32-bit constants, within reach of one byte of displacement."""

    ORDER, LANES = "-640(%rcx)", "-576(%rcx)"

    def __init__(self) -> None:
        self.values: list[int] = []

    def __call__(self, x: int) -> str:
        x %= 2**32
        if x not in self.values:
            self.values.append(x)
        return f"{4 * self.values.index(x) - 512}(%rcx){{1to16}}"

    def text(self) -> str:
        order = [i // 4 * 4 + 3 - i % 4 for i in range(16)] * 4
        return (
            f".section .rodata\n.balign 64\ntable:\n.byte {', '.join(map(str, order))}\n"
            f".long {', '.join(map(str, range(GROUP)))}\n.long {', '.join(map(hex, self.values))}\n"
            '.section .note.GNU-stack, "", @progbits\n'
        )


constant = Constants()


def row(offset: int) -> str:
    return f"{offset}(ROW){{1to16}}"


def ring(t: int) -> str:
    return f"{64 * (t % 16)}(RING)"


class Line:
    """The straight line of operations, and where it may be cut: before a round."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.cuts: list[int] = []
        self.names = 0

    def new(self) -> str:
        self.names += 1
        return f"t{self.names}"

    def do(self, name: str, *sources: str, to: str = "", reads_to: bool = False) -> str:
        to = to or self.new()
        self.operations.append(Operation(name, list(sources), to, reads_to))
        return to

    def add(self, to: str, a: str, b: str) -> str:
        return self.do("vpaddd", b, a, to=to)

    def load(self, memory: str, to: str = "") -> str:
        if memory.endswith("{1to16}"):
            return self.do("vpbroadcastd", memory.removesuffix("{1to16}"), to=to)
        return self.do("vmovdqu32", memory, to=to)

    def store(self, x: str, memory: str) -> None:
        self.do("vmovdqu32", x, to=memory)

    def ternary(self, x: str, y: str, z: str, table: int) -> str:
        """The function of x, y, z of that truth table, in the place of x."""
        return self.do("vpternlogd", f"${table}", z, y, to=x, reads_to=True)

    def sigma(self, x: str, *distances: int, shift: int = 0) -> str:
        """x (which may be in memory) rotated right by each distance, and shifted; the three xored."""
        parts = [self.do("vprord", f"${n}", x) for n in distances]
        if shift:
            parts.append(self.do("vpsrld", f"${shift}", x))
        return self.ternary(*parts, 0x96)

    def variable(self, name: str, r: int) -> str:
        """Variable a ... h before round r: the registers stand still, the names move."""
        return f"s{('abcdefgh'.index(name) - r) % 8}"

    def round(self, r: int, *sums: str, only_e: bool = False) -> None:
        """Round r; K + W are the sum of what is added to h."""
        self.cuts.append(len(self.operations))
        a, b, c, d, e, f, g, h = (self.variable(name, r) for name in "abcdefgh")
        for x in sums:
            self.add(h, h, x)
        ch = self.ternary(self.load(e), f, g, 0xCA)
        big1 = self.sigma(e, 6, 11, 25)
        self.add(h, h, ch)
        self.add(h, h, big1)
        self.add(d, d, h)
        if not only_e:
            maj = self.ternary(self.load(a), b, c, 0xE8)
            big0 = self.sigma(a, 2, 13, 22)
            self.add(h, h, maj)
            self.add(h, h, big0)

    def word(self, t: int, words: dict[int, Word], folded: str = "", without: tuple[int, ...] = ()) -> None:
        """Schedule word t into the ring: the recurrence (FIPS 180-4, 6.2.2 step 1), where `folded` stands for the terms
        of the words in `without`, and what is known is folded here. The newest word's term comes last."""
        known, memory, sigmas = 0, [folded] * bool(folded), []
        for i, distances, function in (
            (t - 15, (7, 18, 3), small0),
            (t - 16, (), int),
            (t - 7, (), int),
            (t - 2, (17, 19, 10), small1),
        ):
            if i in without:
                continue
            x = words[i]
            if isinstance(x, int):
                known += function(x)
            elif distances:
                sigmas.append((x, distances))
            else:
                memory.append(x)
        if known % 2**32:
            memory.append(constant(known))
        total = ""
        for term in [*sigmas[:1], *memory, *sigmas[1:]]:
            x = term if isinstance(term, str) else self.sigma(term[0], *term[1][:2], shift=term[1][2])
            total = self.add(total, total, x) if total else x if is_register(x) else self.load(x)
        self.store(total, ring(t))
        words[t] = ring(t)


def plain_block1(line: Line) -> None:
    """Block 1 from round 4 on, as Row prepares it; lanes hold nonces, the first one's in %esi."""
    nonce = line.do("vpbroadcastd", "%esi")
    line.add(nonce, nonce, Constants.LANES)
    line.do("vpshufb", Constants.ORDER, nonce, to=nonce)
    line.store(nonce, ring(3))
    for i, name in enumerate("abcdefgh"):
        x = line.load(row(START + 4 * i), line.variable(name, 4))
        if name in "ae":
            line.add(x, x, nonce)
    words: dict[int, Word] = {3: ring(3), 4: PAD_ONE, **dict.fromkeys(range(5, 15), 0), 15: HEADER_BITS}
    words |= {16: row(WORD16), 17: row(WORD17)}
    folded = {
        18: (row(WORD18), (2, 11, 16)),
        19: (row(WORD19), (4, 12, 17)),
        31: (row(WORD31), (15, 16)),
        32: (row(WORD32), (16, 17)),
    }
    for r in range(4, 64):
        for t in scheduled(r, 18, 64):
            line.word(t, words, *folded.get(t, ()))
        if r < 7:  # h is still the midstate's, and in this sum
            line.load(row(START_SUM + 4 * (r - 4)), line.variable("h", r))
            line.round(r)
        else:
            line.round(r, *key_and_word(r, words[r]))


def rolled_block1(line: Line) -> None:
    """The same where lanes hold versions, with K + W from a table. The nonce is in %esi, as the header has it."""
    nonce = line.do("vpbroadcastd", "%esi")
    for i, name in enumerate("abcdefgh"):
        x, start = line.variable(name, 4), f"{ROWS_START + VERSIONS * i}(ROW)"
        if name in "ae":
            line.add(x, nonce, start)
        else:
            line.load(start, x)
    for r in range(4, 64):
        if r < 7:
            line.load(f"{ROWS_START_SUM + VERSIONS * (r - 4)}(ROW)", line.variable("h", r))
            line.round(r)
        elif r < 16:
            line.round(r, constant(K[r] + (HEADER_BITS if r == 15 else 0)))
        else:
            line.round(r, f"{SUMS * (r - 16)}(SUMS){{1to16}}")


def scheduled(r: int, first: int, end: int) -> range:
    """The word to compute before round r, of those from `first` on."""
    return range(max(first, r + LEAD), min(r + LEAD + 1, end))


def key_and_word(r: int, word: Word) -> tuple[str, ...]:
    return (constant(K[r] + word),) if isinstance(word, int) else (constant(K[r]), word)


def block2(line: Line, midstate: Callable[[int], str], target_top: str) -> None:
    """The end of block 1, and the second hash up to e after round 60: the hash's last word, less a constant."""
    line.cuts.append(len(line.operations))
    for i, name in enumerate("abcdefgh"):
        x = line.variable(name, 64)
        line.add(x, x, midstate(i))
        line.store(x, ring(i))
    # Round 0, on the constant initial state: W0 + t1 goes to the new e, and with t2 to the new a.
    a, b, c, d, e, f, g, h = INIT
    t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (e & f ^ ~e & g) + K[0]
    t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + (a & b ^ a & c ^ b & c)
    word0 = line.variable("a", 64)
    line.add(line.variable("e", 1), word0, constant(t1 + d))
    line.add(line.variable("a", 1), word0, constant(t1 + t2))
    for name, x in zip("bcdfg", (a, b, c, e, f), strict=True):
        line.load(constant(x), line.variable(name, 1))
    words: dict[int, Word] = {i: ring(i) for i in range(8)}
    words |= {8: PAD_ONE, **dict.fromkeys(range(9, 15), 0), 15: HASH_BITS}
    for r in range(1, 61):
        for t in scheduled(r, 16, 61):
            line.word(t, words)
        if r < 4:  # h is still a word of the initial state
            line.load(constant(K[r] + INIT[7 - r]), line.variable("h", r))
            line.round(r, ring(r))
        else:
            line.round(r, *key_and_word(r, words[r]), only_e=r > 56)
    line.cuts.append(len(line.operations))
    hash7 = line.add(line.new(), line.variable("e", 61), constant(INIT[7]))
    line.do("vpshufb", Constants.ORDER, hash7, to=hash7)
    line.do("vpcmpud", "$2", target_top, hash7, to="%k1")


def thirds(line: Line) -> list[list[Operation]]:
    """Cut where each part has about as many operations that take a port."""
    done = list(accumulate((operation.counts for operation in line.operations), initial=0))
    at = [min(line.cuts, key=lambda cut: abs(done[cut] - done[-1] * i / STAGES)) for i in range(1, STAGES)]
    return [line.operations[i:j] for i, j in pairwise([0, *at, len(line.operations)])]


class Stage:
    """One third on its way into the loop: what is left of it, and where what lives shortly is kept."""

    def __init__(self, number: int, operations: list[Operation], pointers: Pointers) -> None:
        self.number, self.left, self.size = number, operations[::-1], len(operations)
        self.pointers = pointers
        self.place: dict[str, int] = {}
        self.uses = Counter(x for operation in operations for x in {*operation.reads, operation.to})

    def share_done(self) -> float:
        return (self.size - len(self.left) + 0.5) / self.size

    def text(self, x: str) -> str:
        if is_register(x):
            return f"%zmm{8 * self.number + int(x[1:]) if x[0] == 's' else self.place[x]}"
        return re.sub(r"ROW|RING|SUMS", lambda name: self.pointers[name[0]][self.number], x)


def weave(parts: list[list[Operation]], pointers: Pointers) -> list[str]:
    """The stages' operations in turn, each stage's in their order, in registers that are free there."""
    stages, free, text = [Stage(i, part, pointers) for i, part in enumerate(parts)], list(KEPT), []

    def can_take(stage: Stage) -> bool:
        """Whether after it takes a register there is still a stage with all it can need: then none waits for ever."""
        return any(len(s.place) + (s is stage) + len(free) - 1 >= MOST for s in stages) and bool(free)

    while waiting := sorted((s for s in stages if s.left), key=Stage.share_done):
        for stage in waiting:
            operation = stage.left[-1]
            to = operation.to
            kept = [x for x in dict.fromkeys([*operation.reads, to]) if x[0] == "t" and is_register(x)]
            last = [x for x in kept if stage.uses[x] == 1 and x != to]
            if to in kept and to not in stage.place:
                if last:  # its source's register is free from here on
                    stage.place[to] = stage.place[last[0]]
                elif can_take(stage):
                    stage.place[to] = free.pop(0)
                else:
                    continue
            stage.left.pop()
            text.append(f"{operation.name} {', '.join(map(stage.text, [*operation.sources, to]))}")
            stage.uses.subtract(kept)
            for x in [x for x in kept if not stage.uses[x]]:
                place = stage.place.pop(x)
                if place not in stage.place.values():
                    free.append(place)
            break
        else:
            raise AssertionError("a stage needs more registers than MOST")
    return text


# The loop keeps in %rcx the constants, in %esi the nonce, in %rdx where the next bits go, in %r13 where they end; and
# each stage's row, ring and sums (K + W):
RINGS = ("%r8", "%r9", "%r10")
PLAIN = {"ROW": ("%rdi",) * STAGES, "RING": RINGS}
ROLLED = {"ROW": ("%rdi", "%rbx"), "RING": RINGS, "SUMS": ("%r11", "%r12")}
SAVED = ("%rbx", "%r12", "%r13", "%r14", "%r15")
STOP, HALT, BELOW = (f"{1024 * STAGES + 8 * i}(%rsp)" for i in range(3))

PLAIN_FIRST = """
    mov 48(%rdi), %esi
    mov (%rdi), %rdi"""
PLAIN_NEXT = f"""
    add ${GROUP}, %esi"""
# %r14 is the first version's row, %r15 the end: where a nonce's versions are through, the next nonce begins.
ROLLED_FIRST = """
    mov 48(%rdi), %esi
    bswap %esi
    mov 52(%rdi), %r15d
    mov 40(%rdi), %r11
    mov (%rdi), %rdi
    lea (%rdi, %r15, 4), %r15
    mov %rdi, %r14
    mov %rdi, %rbx
    mov %r11, %r12"""
ROLLED_NEXT = f"""
    mov %rdi, %rbx
    mov %r11, %r12
    xor %eax, %eax
    add ${4 * GROUP}, %rdi
    cmp %r15, %rdi
    sete %al
    cmove %r14, %rdi
    lea (%r11, %rax, 4), %r11
    bswap %esi
    add %eax, %esi
    bswap %esi"""

FUNCTION = """
    .text
    .globl {name}
    .hidden {name}
    .type {name}, @function
    .balign 64
{name}:
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    {push}
    sub ${frame}, %rsp
    and $-64, %rsp
    mov %rsp, %r8
    lea 1024(%rsp), %r9
    lea 2048(%rsp), %r10
    lea table + 640(%rip), %rcx
    mov 8(%rdi), %rax
    mov %rax, {STOP}
    mov 16(%rdi), %rax
    mov %rax, {HALT}
    mov 24(%rdi), %rdx
    mov %rdx, {BELOW}
    mov 32(%rdi), %rax
    lea {unfinished}(%rdx, %rax, 2), %r13{first}
    .balign 64
1:
    {body}
    {hand_on}
    kmovw %k1, %eax
    mov %ax, (%rdx)
    add $2, %rdx{next}
    mov %r10, %rax
    mov %r9, %r10
    mov %r8, %r9
    mov %rax, %r8
    mov {STOP}, %rax
    cmpl $0, (%rax)
    jne 2f
    mov {HALT}, %rax
    cmpl $0, (%rax)
    jne 2f
    cmp %r13, %rdx
    jne 1b
2:
    mov %rdx, %rax
    sub {BELOW}, %rax
    sub ${unfinished}, %rax
    sar $1, %rax
    vzeroupper
    lea -{saved}(%rbp), %rsp
    {pop}
    pop %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size {name}, . - {name}
"""


def function(name: str, line: Line, pointers: Pointers, first: str, next: str) -> str:
    """The whole of a kernel: passes until all groups are through, or a word says to end; then how many are."""
    separator = "\n    "
    return FUNCTION.format(
        name=name,
        first=first,
        next=next,
        body=separator.join(weave(thirds(line), pointers)),
        hand_on=separator.join(f"vmovdqa64 %zmm{i - 8}, %zmm{i}" for i in range(8 * STAGES - 1, 7, -1)),
        push=separator.join(f"push {x}\n    .cfi_offset {x}, {-24 - 8 * i}" for i, x in enumerate(SAVED)),
        pop=separator.join(f"pop {x}" for x in reversed(SAVED)),
        saved=8 * len(SAVED),
        frame=1024 * STAGES + 64,
        unfinished=2 * (STAGES - 1),
        STOP=STOP,
        HALT=HALT,
        BELOW=BELOW,
    )


def main() -> None:
    plain, rolled = Line(), Line()
    plain_block1(plain)
    block2(plain, lambda i: row(MIDSTATE + 4 * i), row(TARGET_TOP))
    rolled_block1(rolled)
    block2(rolled, lambda i: f"{VERSIONS * i}(ROW)", f"{ROWS_TARGET_TOP}(%r14){{1to16}}")
    text = function("wattwork_avx512_plain", plain, PLAIN, PLAIN_FIRST, PLAIN_NEXT)
    text += function("wattwork_avx512_rolled", rolled, ROLLED, ROLLED_FIRST, ROLLED_NEXT)
    Path(sys.argv[1]).write_text(text + constant.text(), encoding="ascii")


if __name__ == "__main__":
    main()
