"""What each kernel costs at best: its instructions per nonce, counted, over the ports that can take them.

Counted by running the search one machine instruction at a time (ptrace), so loops and what is computed once for many
nonces weigh what they should. The bound is what this processor's ports allow if every one of them were always busy: for
each set of ports, the instructions that fit nowhere else over the number of ports; the largest of these.

    python bench/port_bound.py [-v]
"""

import ctypes
import mmap
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from time import perf_counter

import wattwork
from wattwork._search import isas

LIBRARY = Path(wattwork.__file__).parent / "libwattwork.so"
PTRACE_TRACEME, PTRACE_PEEKUSER, PTRACE_SINGLESTEP = 0, 3, 9
RIP = 16 * 8  # in the kernel's struct user
VERSIONS = 32  # side by side, where rolled
# Nonces that a kernel tests in one pass, and as many whose schedules a rolled one computes at a time.
PASS = {"avx512": 16, "avx2": 8, "shani": 4, "portable": 4}

# What an instruction is, by the first pattern its text matches; "" is none of the vector units' business. Loads, stores
# and moves between registers (which are renamed) take none of their ports.
KINDS = (
    (r"sha256", "sha"),
    (r"v?p(srl|sll|ror|rol)", "shift"),
    (r"v?(pshuf|shufp|palignr|punpck|pinsr)|vpbroadcastd +%[re]", "shuffle"),
    (r"v?mov[dq] +(%[re]\w+,%xmm|%xmm\d+,%[re])", "shuffle"),
    (r"v?p(add|sub|xor|and|or|ternlog|cmp|min|movmsk)|v?movmskps|vblendps|v?(xor|and|or|andn)p[sd]", "alu"),
)
# Ports of a kind of instruction, on Intel's cores since Ice Lake: port 1 takes no vector work beside 512-bit vectors.
INTEL = {512: {"shift": "0", "alu": "05", "shuffle": "5"}, 256: {"shift": "01", "alu": "015", "shuffle": "15"}}
# sha256rnds2 keeps its unit for so many cycles (measured on a core of family 6, model 167, alone and beside the
# schedule's two instructions, which fit between).
RNDS2_CYCLES = 3
# sha256msg1 and sha256msg2 are several operations on AMD's cores (measured on one of family 25, model 17, beside
# additions): sha256msg2 keeps all four pipes for a cycle.
AMD_OPERATIONS = {"sha256rnds2": 1, "sha256msg1": 2, "sha256msg2": 4}
# AMD's Zen 5: four pipes; rotates, shifts and shuffles in two of them.
ZEN5 = {512: {"shift": "01", "alu": "0123", "shuffle": "12"}}
ZEN5[256] = ZEN5[512]
# Zen 3 and Zen 4: the same pipes, 256 bits wide; a 512-bit vector keeps one for two cycles, so they count as two.
ZEN4 = {512: {"shift": "0", "alu": "01", "shuffle": "0"}, 256: ZEN5[256]}
PORTS = {("GenuineIntel", 6): INTEL, ("AuthenticAMD", 25): ZEN4, ("AuthenticAMD", 26): ZEN5}


class Work(ctypes.Structure):
    _fields_ = [("header", ctypes.c_uint8 * 80), ("target", ctypes.c_uint8 * 32), ("version_mask", ctypes.c_uint32)]


def instructions():
    """Of the library: each one's text by its address."""
    dump = subprocess.run(["objdump", "-d", "--no-show-raw-insn", LIBRARY], check=True, capture_output=True, text=True)
    return {int(at, 16): text for at, text in re.findall(r"^ *([0-9a-f]+):\t(.*)$", dump.stdout, re.M)}


def base_address(pid):
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(str(LIBRARY)):
            return int(line.split("-")[0], 16)
    raise AssertionError("the library is loaded")


def executed(isa, count, versions):
    """How often each address of the library is executed by a search."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype, libc.ptrace.argtypes = ctypes.c_long, [ctypes.c_long] * 4
    library = ctypes.CDLL(str(LIBRARY))
    work, rect = Work(version_mask=0x1FFFE000), (ctypes.c_uint64 * 4)(0, count, 0, versions)
    hits, rests, result = ctypes.create_string_buffer(400), ctypes.create_string_buffer(400), (ctypes.c_uint64 * 4)()
    search = [ctypes.byref(work), rect, isa.encode(), 1, None, hits, 10, rests, 10, result]
    if library.ww_search(*search):  # also chooses and measures kernels, which is not to be counted
        raise AssertionError("the search works")
    pid = os.fork()
    if not pid:
        libc.ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        library.ww_search(*search)
        os._exit(0)
    os.waitpid(pid, 0)
    base, addresses = base_address(pid), Counter()
    while True:
        libc.ptrace(PTRACE_SINGLESTEP, pid, 0, 0)
        if not os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            return addresses
        addresses[libc.ptrace(PTRACE_PEEKUSER, pid, RIP, 0) - base] += 1


def per_pair(isa, versions):
    """How many instructions of each kind and width a pair costs: the difference of two searches."""
    texts, counts, nonces = instructions(), Counter(), PASS[isa]
    difference = executed(isa, 1 + nonces, versions)
    difference.subtract(executed(isa, 1, versions))
    for address, n in difference.items():
        text = texts.get(address, "")
        kind = next((name for pattern, name in KINDS if re.match(pattern, text)), "")
        kind = text.split()[0] if kind == "sha" else kind
        counts[kind, 512 if "%zmm" in text else 256] += n
    return {key: n / (nonces * versions) for key, n in counts.items() if n}


def countable(isa):
    return isa in PASS and os.uname().machine == "x86_64"


def clock_ghz():
    """The clock of this core, by a chain of dependent additions; 0 where this is not an x86."""
    if os.uname().machine != "x86_64":
        return 0.0
    additions, turns = 64, 20_000
    code = b"\x48\x01\xc0" * additions + b"\xff\xcf"  # add %rax, %rax; dec %edi
    code += b"\x0f\x85" + (-len(code) - 6).to_bytes(4, "little", signed=True) + b"\xc3"  # jnz to the start; ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    run = ctypes.CFUNCTYPE(None, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    best = float("inf")
    for _ in range(200):
        begin = perf_counter()
        run(turns)
        best = min(best, perf_counter() - begin)
    return additions * turns / best / 1e9


def processor():
    text = Path("/proc/cpuinfo").read_text()
    return tuple(re.search(rf"^{field}\s*: (.*)$", text, re.M).group(1) for field in ("vendor_id", "cpu family"))


def cycles_at_best(load):
    """For so many instructions by the ports that can take them, a port a letter."""
    every = sorted(set("".join(load)))
    sets = [chosen for size in range(1, len(every) + 1) for chosen in combinations(every, size)]
    return max(sum(n for at, n in load.items() if set(at) <= set(s)) / len(s) for s in sets)


@cache
def bound(isa, versions=1):
    """(vector operations per pair, cycles per pair at best); cycles None where the processor's ports are not known."""
    counts = per_pair(isa, versions)
    operations = sum(n for (kind, _), n in counts.items() if kind)
    vendor, family = processor()
    model = PORTS.get((vendor, int(family)))
    if model is None or (isa == "shani" and int(family) == 26):  # whose SHA unit was not measured
        return operations, None
    if isa == "shani" and vendor == "GenuineIntel":
        return operations, counts["sha256rnds2", 256] * RNDS2_CYCLES
    ports = model[512 if any(kind and width == 512 for kind, width in counts) else 256]
    load = Counter()
    for (kind, _), n in counts.items():
        if kind:
            load[ports.get(kind, ports["alu"])] += n * AMD_OPERATIONS.get(kind, 1)
    return operations, cycles_at_best(load)


def main():
    print(f"{'':12}{'':>8}{'operations':>12}{'cycles at best':>16}   per nonce")
    for isa in isas():
        for name, versions in (("plain", 1), ("rolled", VERSIONS)):
            if not countable(isa) or (isa == "shani" and versions > 1):
                continue
            operations, cycles = bound(isa, versions)
            print(f"{isa:12}{name:>8}{operations:12.1f}{cycles or float('nan'):16.1f}")
            if "-v" in sys.argv:
                print(per_pair(isa, versions))


if __name__ == "__main__":
    main()
