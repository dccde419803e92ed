"""What AArch64's kernels cost at best, counted under emulation: nothing here is measured.

The pipes are those of Neoverse N1 and V1, after Arm's Software Optimization Guides as LLVM's scheduling models render
them: SHA-256's instructions in V0 alone; shifts in one pipe of N1's two, in two of V1's four; all else in any.

    make test-emulated && python bench/port_bound_arm.py [-v]
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

from port_bound import VERSIONS, cycles_at_best

BUILD = Path(__file__).parents[1] / "build" / "aarch64"
# Nonces that a kernel tests in one pass, and those whose schedules a rolled one computes at a time.
PASS = {"armv8": 4, "neon": 8, "portable": 4}
# What an instruction is, by the first pattern its text matches; "" takes no vector pipe.
KINDS = (
    (r"ld[a-z0-9]*\s|fmov\s+[sd]\d+, [wx]|dup\s+v\S+ [wx]", ""),
    (r"st[a-z0-9]*\s+[qdsv{]", "store"),
    (r"sha256", "sha"),
    (r"(shl|sri|sli|ushr|usra)\s+v", "shift"),
    (r"mov\s+v\d+\.16b", "move"),
    (r"\w+\s+[vsq]\d+|umov\s|s?mov\s+w\d+, v|fmov\s+w\d+, s", "other"),
)
N1 = {"sha": "0", "shift": "1", "move": "01", "other": "01", "store": "01"}
V1 = {"sha": "0", "shift": "13", "move": "0123", "other": "0123", "store": "01"}


def configured(name):
    return re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.M).group(1)


@cache
def texts():
    """Each instruction's text by its address, in the core's functions."""
    usr = Path(configured("CMAKE_CXX_COMPILER")).resolve().parents[1]  # or that of a folder it was unpacked in
    dump = subprocess.run(
        [configured("CMAKE_OBJDUMP"), "-d", "--no-show-raw-insn", BUILD / "one_pass"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(usr / "lib/x86_64-linux-gnu")},
    )
    functions = re.findall(r"^[0-9a-f]+ <_ZN2ww[^\n]*\n(.*?)(?:\n\n|\Z)", dump.stdout, re.M | re.S)
    return {int(at, 16): text for at, text in re.findall(r"^ *([0-9a-f]+):\t(.*)$", "\n".join(functions), re.M)}


def executed(isa, versions, nonces):
    """How often each address is executed by one call of a kernel, and all around it."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        emulator = [configured("QEMU_AARCH64"), "-one-insn-per-tb", "-d", "exec,nochain", "-D", log]
        subprocess.run([*emulator, BUILD / "one_pass", isa, str(versions), str(nonces)], check=True)
        with log.open() as lines:
            return Counter(int(line.split("/")[1], 16) for line in lines if line.startswith("Trace"))


def per_pair(isa, versions):
    """How many instructions of each kind a pair costs: the difference of two calls."""
    difference, counts = executed(isa, versions, 2 * PASS[isa]), Counter()
    difference.subtract(executed(isa, versions, PASS[isa]))
    for address, n in difference.items():
        text = texts().get(address, "")
        kind = next((kind for pattern, kind in KINDS if re.match(pattern, text)), "")
        counts[kind] += n * (1 + text.startswith("stp"))
    return {kind: n / (PASS[isa] * versions) for kind, n in counts.items() if n}


def main():
    print(f"{'':12}{'':>8}{'operations':>12}{'cycles at best, N1':>20}{'V1':>8}   per nonce, not measured")
    for isa in PASS:
        for name, versions in (("plain", 1), ("rolled", VERSIONS)):
            counts = per_pair(isa, versions)
            operations = sum(n for kind, n in counts.items() if kind)
            cycles = []
            for pipes in (N1, V1):
                load = Counter()
                for kind, n in counts.items():
                    if kind:
                        load[pipes[kind]] += n * (2 if kind == "store" and pipes is N1 else 1)
                cycles.append(cycles_at_best(load))
            print(f"{isa:12}{name:>8}{operations:12.1f}{cycles[0]:20.1f}{cycles[1]:8.1f}")
            if "-v" in sys.argv:
                print({kind or "none": round(n, 1) for kind, n in counts.items()})


if __name__ == "__main__":
    main()
