"""The search kernels' machine code, counted: what bounds them on an SM of sm_90, in instructions executed per nonce.

    python bench/sass_bound.py [--bin DIR]     DIR has nvcc and cuobjdump; default: $WATTWORK_CUDA_BIN, or the PATH

Each kernel is compiled, disassembled and cut into loops. What a nonce costs is the longest way around the loop of
iterations that claims no chunk and reports no hit, loops inside it as often as they run. An SM starts 4 instructions
of 32 lanes a cycle, half of them at most on the ALU pipe and half on the FMA pipe, so a nonce costs
max(ALU/64, FMA/64, all/128) cycles of the SM.
"""

import argparse
import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
SMS, GHZ = 132, 1.98  # an H200's SMs, and their greatest clock
VARIANTS = {
    "default": (),
    "no rotations on the FMA pipe": ("-DWW_ROTATE_FMA=0",),
    "more rotations on the FMA pipe": ("-DWW_ROTATE_FMA=10",),
    "right shifts on the ALU pipe too": ("-DWW_ROTATE_FMA=0", "-DWW_SHIFT_ALU"),
}
BLOCK = 256  # threads of a block: search_rolled's schedule is shared by so many

# Which pipe an opcode goes to. NVIDIA's CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions",
# compute capability 9.0: 64 results a cycle and SM for integer add, compare, shift and logic, and 64 for integer
# multiply-add. Nsight Compute's documentation, "Pipelines": the ALU takes integer and logic instructions but IMAD, the
# FMA pipe's heavy half takes IMAD. IMAD.HI and IMAD.WIDE have no line of their own in either: counted like IMAD,
# and the bounds at half that rate are given beside. The rest only takes an issue slot here.
ALU = "LOP3 SHF IADD3 VIADD PRMT ISETP SEL LEA MOV PLOP3 IMNMX VIMNMX LOP P2R R2P VOTE"
FMA = "IMAD HFMA2"
OTHER = """
    LDG STG ATOMG LDS STS LDC SHFL MEMBAR ERRBAR CCTL  CS2R S2R S2UR R2UR  MUFU I2F F2I POPC FLO
    ULDC UMOV UIADD3 ULOP3 USHF UISETP ULEA UIMAD USEL UPLOP3 UPOPC UFLO VOTEU UPRMT UP2UR UR2UP
    BRA BSSY BSYNC BREAK EXIT CALL RET NOP YIELD WARPSYNC BAR B2R DEPBAR BMOV
"""
PIPE = {name: pipe for pipe, names in (("alu", ALU), ("fma", FMA), ("other", OTHER)) for name in names.split()}
COLD = {"ATOMG.E.ADD.64.STRONG.GPU", "LDG.E", "MUFU.RCP", "EXIT"}  # in what claims, begins a chunk, reports, leaves


@dataclass(frozen=True)
class Count:
    """Instructions executed per nonce."""

    alu: float
    fma: float
    other: float
    upper: float  # of fma: IMAD.HI and IMAD.WIDE

    @property
    def all(self) -> float:
        return self.alu + self.fma + self.other

    def gh_s(self, upper_cost: float = 1) -> float:
        """The bound for a whole GPU, if an upper half takes that many times an IMAD's cycles."""
        fma = self.fma + self.upper * (upper_cost - 1)
        return SMS * GHZ / max(self.alu / 64, fma / 64, self.all / 128)


@dataclass(frozen=True)
class Kernel:
    code: list[tuple[int, str, str]]  # address, predicate, instruction
    registers: int
    spills: int  # bytes
    shared: int  # bytes


def build(folder: Path, cubin: Path, *options: str, source: str = "sha256d.cu", arch: str = "sm_90") -> str:
    """kernels/`source`, built with the nvcc of `folder`; what the assembler says about its kernels."""
    nvcc = [folder / "nvcc", "-std=c++17", f"-arch={arch}", "-cubin", "--resource-usage", "-Werror", "all-warnings"]
    command = [*nvcc, *options, "-I", KERNELS, "-o", cubin, KERNELS / source]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def compiled(folder: Path, *options: str, arch: str = "sm_90") -> dict[str, Kernel]:
    """The kernels of kernels/sha256d.cu by name, built with the tools of `folder`."""
    with tempfile.TemporaryDirectory() as out:
        cubin = Path(out, "k.cubin")
        usage = build(folder, cubin, *options, arch=arch)
        text = subprocess.run([folder / "cuobjdump", "-sass", cubin], check=True, capture_output=True, text=True).stdout
    kernels = {}
    for part in text.split("Function : ")[1:]:
        name, own = part.split()[0], usage.split(f"'{part.split()[0]}'")[1].split("Compiling")[0]
        code = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+)?\s*([^;/]+?) ?;", part)
        registers, shared = re.search(r"Used (\d+) registers", own), re.search(r"(\d+) bytes smem", own)
        kernels[name] = Kernel(
            code=[(int(address, 16), predicate, text) for address, predicate, text in code],
            registers=int(registers[1]),
            spills=sum(map(int, re.findall(r"(\d+) bytes spill", own))),
            shared=int(shared[1]) if shared else 0,
        )
    return kernels


def opcode(text: str) -> str:
    return re.split(r"[. ]", text, maxsplit=1)[0]


class Graph:
    """A kernel's basic blocks: `nodes[start]` = their instructions, `after[start]` = where they may go."""

    def __init__(self, kernel: Kernel) -> None:
        code, jumps = kernel.code, {}
        for address, predicate, text in code:
            op = text.split()[0]
            if op.startswith("BRA") and op != "BRA.DIV":  # that one is for what a warp of one mind never does
                sometimes = predicate or re.match(r"\S+ !?U?P", text)
                jumps[address] = (int(text.split()[-1], 16), bool(sometimes))
            elif op in ("EXIT", "RET.REL.NODEC"):
                jumps[address] = (None, bool(predicate))
        ends = {address + 16 for address in jumps}
        starts = sorted({0} | {to for to, _ in jumps.values() if to is not None} | ends)
        self.nodes: dict[int, list[str]] = {}
        self.after: dict[int, set[int]] = {}
        for start, end in zip(starts, [*starts[1:], code[-1][0] + 16], strict=True):
            if start >= end:
                continue
            self.nodes[start] = [text for address, _, text in code if start <= address < end]
            to, sometimes = jumps.get(end - 16, (end, False))
            following = {to} if to is not None else set()
            if sometimes or end - 16 not in jumps:
                following.add(end)
            self.after[start] = following
        self.after = {a: {b for b in to if b in self.nodes} for a, to in self.after.items()}

    def reached(self, without: int) -> set[int]:
        """The blocks that can be reached although one is gone."""
        seen, todo = set(), [0]
        while todo:
            at = todo.pop()
            if at not in seen and at != without:
                seen.add(at)
                todo += self.after[at]
        return seen

    def loops(self) -> list[tuple[int, set[int]]]:
        """The natural loops: head and blocks; those with one head are one. Inner ones first."""
        loops: dict[int, set[int]] = {}
        before = {b: {a for a in self.nodes if b in self.after[a]} for b in self.nodes}
        for tail, heads in self.after.items():
            for head in heads:
                if tail not in self.reached(without=head):
                    body, todo = {head}, [tail]
                    while todo:
                        at = todo.pop()
                        if at not in body:
                            body.add(at)
                            todo += before[at]
                    loops.setdefault(head, set()).update(body)
        return sorted(loops.items(), key=lambda loop: len(loop[1]))

    def longest(self, head: int, body: set[int], inner: list[tuple[int, set[int], Counter[str]]]) -> Counter[str]:
        """What is executed on the longest way around a loop. inner: loops within, and what they cost in all."""
        owner = {block: first for first, blocks, _ in inner for block in blocks}
        costs = {first: cost for first, _, cost in inner}
        best: dict[int, Counter[str]] = {}

        def way(at: int) -> Counter[str]:
            if at in best:
                return best[at]
            best[at] = Counter()
            members = next((blocks for first, blocks, _ in inner if first == at), {at})
            onward = {owner.get(to, to) for block in members for to in self.after[block] if to in body} - {at, head}
            onward = {to for to in onward if COLD.isdisjoint(text.split()[0] for text in self.nodes[to])}
            own = costs.get(at) or Counter(self.weighed(at))
            best[at] = own + max((way(to) for to in onward), key=lambda cost: cost.total(), default=Counter())
            return best[at]

        return way(head)

    def weighed(self, block: int) -> dict[str, float]:
        """A block's instructions. One that writes shared memory is for one warp of its block."""
        count = Counter(text.split()[0] for text in self.nodes[block])
        weight = 32 / BLOCK if any(name.startswith("STS") for name in count) else 1
        return {name: n * weight for name, n in count.items()}


def executed(kernel: Kernel, batch: int) -> Counter[str]:
    """What one lane executes per nonce, by opcode with its modifiers. batch: how often the inner loop runs."""
    graph = Graph(kernel)
    hot = [(h, body) for h, body in graph.loops() if sum(len(graph.nodes[block]) for block in body) > 2000]
    if len(hot) != (1 if batch == 1 else 2):
        raise SystemExit(f"bench/sass_bound.py: {len(hot)} loops go around a hash; the kernel's form has changed.")
    inner: list[tuple[int, set[int], Counter[str]]] = []
    for head, body in hot:
        cost = graph.longest(head, body, inner)
        if (head, body) != hot[-1]:
            inner.append((head, body, Counter({name: n * batch for name, n in cost.items()})))
    return Counter({name: n / batch for name, n in cost.items()})


def count(instructions: Counter[str]) -> Count:
    pipes: Counter[str] = Counter()
    for name, n in instructions.items():
        if opcode(name) not in PIPE:
            raise SystemExit(f"bench/sass_bound.py: no pipe is known for {name}; add it to the table.")
        pipes[PIPE[opcode(name)]] += n
        pipes["upper"] += n if name.startswith(("IMAD.HI", "IMAD.WIDE")) else 0
    return Count(pipes["alu"], pipes["fma"], pipes["other"], pipes["upper"])


BATCH = {"search_plain": 1, "search_rolled": 2}  # Unit::kBatch in kernels/sha256d.cu


def bounds(folder: Path, *options: str) -> dict[str, tuple[Kernel, Count]]:
    """Each kernel as built with these options, and what it executes per nonce."""
    kernels = compiled(folder, *options)
    return {name: (kernels[name], count(executed(kernels[name], batch))) for name, batch in BATCH.items()}


def tools() -> Path:
    """Where nvcc and cuobjdump are."""
    named = os.environ.get("WATTWORK_CUDA_BIN")
    places = [named] if named else os.environ.get("PATH", "").split(os.pathsep)
    for place in places:
        if all(Path(place, tool).exists() for tool in ("nvcc", "cuobjdump")):
            return Path(place)
    raise SystemExit("bench/sass_bound.py: no nvcc and cuobjdump here; name their folder in WATTWORK_CUDA_BIN.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--bin", type=Path, help="folder with nvcc and cuobjdump")
    parser.add_argument("--opcodes", action="store_true", help="also how often each opcode is executed")
    args = parser.parse_args()
    folder = args.bin or tools()
    print(
        f"per nonce, sm_90, blocks of {BLOCK} threads; GH/s at {SMS} SMs x {GHZ} GHz; (..): upper halves at half rate"
    )
    for variant, options in VARIANTS.items():
        silent = bounds(folder, *options, "-DWW_NO_POLL")
        for name, (kernel, n) in bounds(folder, *options).items():
            polling = 1 - silent[name][1].all / n.all
            print(
                f"{name:13} {variant:32} ALU {n.alu:6.1f}  FMA {n.fma:6.1f} ({n.upper:.1f} upper)  other {n.other:5.1f}"
                f"  all {n.all:6.1f}  {n.gh_s():5.2f} ({n.gh_s(2):.2f}) GH/s  polling {polling:.2%}"
                f"  {kernel.registers} registers, {kernel.spills} spilled, {kernel.shared} B shared"
            )
            if args.opcodes:
                instructions = executed(kernel, BATCH[name])
                print(*(f"    {n:8.2f} {text}" for text, n in instructions.most_common()), sep="\n")


if __name__ == "__main__":
    main()
