"""Bursts through the live scheduler without an interpreter: 100,000 requests from one thread, in batches of up to 64,
to an engine that does nothing, until the end of each is known. Requests per second; the first burst of a process, which
takes its memory from the system, apart from the median of those after it.

"plain": first come, first served. "ordered": priorities, tenants, deadlines and timeouts on each. "recorded": with the
log that `wattwork.replay` reads. From Python, and beside other schedulers: bench/peers/run.py.

    python bench/bench_burst.py [ROUNDS]
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench_threads import build, run

REQUESTS, BURSTS = 100_000, 10


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        program, log = build("bursts.cpp", Path(folder)), Path(folder) / "log"
        kinds = {"plain": (0,), "plain, recorded": (0, log), "ordered": (1,), "ordered, recorded": (1, log)}
        first, later = ({kind: [] for kind in kinds} for _ in range(2))
        for _ in range(rounds):
            for kind, arguments in kinds.items():
                rates = run(program, REQUESTS, BURSTS, *arguments)
                first[kind].append(rates[0])
                later[kind] += rates[1:]
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f} of the last minute; {rounds} rounds")
    print(f"{'requests/s':20}{'first':>12}{'later':>12}{'over plain':>12}")
    for kind in kinds:
        one, more = median(first[kind]), median(later[kind])
        print(f"{kind:20}{one:12,.0f}{more:12,.0f}{more / median(later['plain']):12.2f}")


if __name__ == "__main__":
    main()
