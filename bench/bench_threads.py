"""The search on several threads: how its rate grows, and how soon it returns once its stop word is set.

Scaling: for N = 2 to all cores, rounds of one thread, a team of N, and, as the control, N processes of one thread each
at once, interleaved; medians of the rounds' own ratios, over the rounds in which other programs had less than 2% of the
machine where there are three or more, and `rounds` says over how many. `of N x one`: the team's rate over N times that
of one thread; `processes`: the same of the control, what the machine's cores give when they work at once; `of
processes`: the one over the other, the search's own part. `per CPU s`: the team's pairs per second of processor time
over one thread's. `busy`: the share of the time that the team's threads had a core, and the control's processes.

Stopping: a sleeping thread wakes at a random moment of a long search, notes the time and sets the word; measured until
ww_search has returned. `free` is how many cores the searching threads leave to that thread.

    python bench/bench_threads.py [--rounds N] [--trials N]
"""

import argparse
import json
import os
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from statistics import median, quantiles

import wattwork
from wattwork._search import PYTHON_ISAS, isas

VERSIONS = {"plain": 1, "rolled": 32}
SCALING = 0.97  # what must be reached of N x one thread, on idle cores
P90_US = 200  # what must be reached when stopped, on idle cores
QUIET = 0.02  # what other programs may have of the machine in a round that counts
SIZES_MS = (400, 20, 2)  # of a search: the shorter, the more its beginning and end weigh


def build(source, folder):
    """The program, built with the compiler that built Python's extensions."""
    program, library, here = folder / "program", Path(wattwork.library_path()), Path(__file__).parent
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX"))[0]
    command = [compiler, "-std=c++20", "-O2", "-pthread", f"-I{wattwork.include_dir()}", f"-I{here.parent / 'csrc'}"]
    subprocess.run([*command, here / source, library, f"-Wl,-rpath,{library.parent}", "-o", program], check=True)
    return program


def run(program, *arguments):
    return json.loads(subprocess.run([program, *map(str, arguments)], check=True, capture_output=True).stdout)


def kinds():
    for isa in isas():
        if isa not in PYTHON_ISAS:
            yield from ((isa, kind) for kind in VERSIONS if (isa, kind) != ("shani", "rolled"))  # it has none


def scaling(program, cores, rounds):
    isa = isas()[0]
    print(f"{isa:10}{'':8}{'search, ms':>11}{'threads':>9}{'MH/s':>9}{'of N x one':>12}{'processes':>11}"
          f"{'of processes':>14}{'per CPU s':>11}{'busy':>13}{'others':>8}{'rounds':>8}")  # fmt: skip
    for kind in [kind for named, kind in kinds() if named == isa]:
        for ms in SIZES_MS:
            for n in range(2, cores + 1):
                columns = run(program, "scale", isa, VERSIONS[kind], n, rounds, ms)
                of_rounds = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
                quiet = [one for one in of_rounds if one["others"] < QUIET]
                if len(quiet) < 3:
                    quiet = of_rounds
                team = median(r["team"] / n / r["one"] for r in quiet)
                processes = median(r["processes"] / n / r["one"] for r in quiet)
                ours = median(r["team"] / r["processes"] for r in quiet)
                names = ("team", "of_cpu", "busy", "processes_busy", "others")
                rate, of_cpu, busy, apart_busy, others = (median(r[name] for r in quiet) for name in names)
                short = f"   below {SCALING}" if ms == SIZES_MS[0] and max(team, ours) < SCALING else ""
                print(f"{'':10}{kind:8}{ms:11}{n:9}{rate / 1e6:9.1f}{team:12.3f}{processes:11.3f}{ours:14.3f}"
                      f"{of_cpu:11.3f}{busy:7.3f}{apart_busy:6.3f}{others:8.1%}{len(quiet):5}/{len(of_rounds)}{short}",
                      flush=True)  # fmt: skip


def stopping(program, cores, trials):
    print(f"{'stop to return, us':18}{'threads':>9}{'free':>6}{'p50':>9}{'p90':>9}{'max':>9}")
    for threads in sorted({max(cores - 1, 1), cores}):
        for isa, kind in kinds():
            us = [ns / 1e3 for ns in run(program, "stop", isa, VERSIONS[kind], threads, trials)["latency_ns"]]
            p90 = quantiles(us, n=10)[-1]
            slow = "" if p90 <= P90_US else f"   above {P90_US}"
            print(f"{isa:10}{kind:8}{threads:9}{cores - threads:6}{median(us):9.1f}{p90:9.1f}{max(us):9.1f}{slow}",
                  flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--trials", type=int, default=500)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        program = build("threads.cpp", Path(folder))
        print(f"{cores} cores, load {os.getloadavg()[0]:.2f} of the last minute; {args.rounds} rounds; "
              f"{args.trials} trials")  # fmt: skip
        if cores > 1:
            scaling(program, cores, args.rounds)
        stopping(program, cores, args.trials)


if __name__ == "__main__":
    main()
