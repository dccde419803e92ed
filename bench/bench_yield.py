"""How soon hashing gives way to a request, and how soon a lone request is done, for an engine that does nothing.

A sleeping thread wakes at a random moment, submits a request of one token and waits until it is told of its end.
`yield`: from the yield flag's being set to the last hashing worker's having left, by the core's own clock. `request`:
from submit to its end being known, by who spins for it some tens of microseconds before it sleeps (as a handle's
`result()` does), and by who sleeps at once; with hashing behind and, as the control, with nothing behind. `free` is how
many cores the hashing leaves to the submitting thread. All in microseconds.

    python bench/bench_yield.py [TRIALS]
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import quantiles

from bench_threads import build, kinds, run


def percentiles(times_ns):
    cuts = quantiles((ns / 1e3 for ns in times_ns), n=100)
    return "".join(f"{cuts[percent - 1]:9.1f}" for percent in (50, 90, 99))


def measure(program, isa, threads, trials, free):
    for eager, how in ((1, "request"), (0, "request, asleep")):
        times = run(program, isa or "portable", threads, trials, int(isa is not None), eager)
        rows = {"yield": times["yields"]} if isa and eager else {}
        for title, ns in (rows | {how: times["requests"]}).items():
            print(f"{isa or 'alone':10}{title:16}{free:5}{percentiles(ns)}", flush=True)


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    cores = len(os.sched_getaffinity(0))
    names = [isa for isa, kind in kinds() if kind == "plain"]
    with tempfile.TemporaryDirectory() as folder:
        program = build("yields.cpp", Path(folder))
        print(f"{cores} cores, load {os.getloadavg()[0]:.2f} of the last minute; {trials} trials")
        print(f"{'':26}{'free':>5}{'p50':>9}{'p90':>9}{'p99':>9}")
        for threads in sorted({max(cores - 1, 1), cores}):
            for isa in names:
                measure(program, isa, threads, trials, cores - threads)
            measure(program, None, threads, trials, cores - threads)


if __name__ == "__main__":
    main()
