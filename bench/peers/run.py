"""wattwork's scheduler beside the batching of Ray Serve, BentoML and NVIDIA Triton, in turn on this machine's CPUs, all
serving a model that does nothing.

burst      requests per second, all enqueued at once, in batches of up to 64
asyncio    requests per second of 256 callers on one event loop, each awaiting its answer before it sends the next
cancel     with the model blocked and many queued, 1000 of them cancelled one after another: until the call returns,
           until the caller is told, and how many were executed all the same
timeout    with the model blocked and many queued, 1000 more with a timeout of 50 ms: when their callers are told, and
           how many were executed all the same

Each peer is installed from PyPI into an environment of its own under build/peers (1.2 GB of disk), and runs in a
process of its own in every round. Medians of the rounds, and ratios to wattwork called from Python with an engine in
C++. How each is called: its own file.

    python bench/peers/run.py [--peers ray,bentoml,triton] [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "peers"
SCRIPTS = {"wattwork": "ours.py", "ray": "ray_serve.py", "bentoml": "bentoml_service.py", "triton": "triton.py"}
PINS = {"ray": "ray[serve]==2.60.0", "bentoml": "bentoml==1.4.39", "triton": "nvidia-pytriton==0.7.0"}
INSTALL_S, RUN_S = 1800, 600
MARK = "WATTWORK_PEERS_RUN"


class Failed(Exception):
    pass


def tail(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def call(command, seconds, env):
    """What it printed. It is ended after `seconds`, and so is all that it started, daemons in their own groups too."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        list(map(str, command)),
        env={**env, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failed(f"took more than {seconds} s") from None
    finally:
        end_all(mark)
        process.wait()
    if process.returncode:
        raise Failed(tail(err))
    return out


def end_all(mark):
    """Processes inherit the mark, whatever they do else."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(20):  # one may start another meanwhile
        left = 0
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in environ.read_bytes().split(b"\0"):
                    os.kill(int(environ.parent.name), signal.SIGKILL)
                    left += 1
            except OSError:  # it has ended, or is not ours
                continue
        if not left:
            return
        time.sleep(0.1)


def install(peer):
    """Its Python. Nothing is done where the pinned version is there."""
    folder, pin = CACHE / peer, PINS[peer]
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not (stamp.exists() and stamp.read_text() == pin):
        print(f"installing {pin}", file=sys.stderr, flush=True)
        env = {**os.environ, "PYTHONNOUSERSITE": "1"}
        call([sys.executable, "-m", "venv", "--clear", folder], INSTALL_S, env)
        call([python, "-m", "pip", "install", "-qq", "--upgrade", "pip>=25.1"], INSTALL_S, env)
        call([python, "-m", "pip", "install", "-qq", pin], INSTALL_S, env)
        stamp.write_text(pin)
    return python


def environment(system):
    env = {**os.environ, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0", "BENTOML_DO_NOT_TRACK": "True"}
    if system == "triton":  # it starts an interpreter by libpython, and its own libraries by name
        libraries = [sysconfig.get_config_var("LIBDIR"), *(CACHE / "triton").glob("lib/*/*-packages/*pytriton.libs")]
        env["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
    return env


def measure(system, python):
    out = call([python, HERE / SCRIPTS[system]], RUN_S, environment(system))
    for line in reversed(out.splitlines()):
        if line.startswith('{"version"'):
            return json.loads(line)
    raise Failed("printed no figures: " + tail(out))


def middle(rounds):
    """The rounds' figures, each the median, in the shape that one round has."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: middle([one[key] for one in rounds]) for key in first}
    return median(rounds) if isinstance(first, (int, float)) else first


def duration(seconds):
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def rate(figures, ours):
    if not figures:
        return "-"
    many = f" of {figures['n']:,}" if figures["n"] != ours["n"] else ""
    return f"{figures['per_s']:,.0f} ({figures['per_s'] / ours['per_s']:.3g}x){many}"


def cells(row, ours):
    cancel, timeout = row["cancel"], row["timeout"]
    rates = [rate(row["burst"], ours["burst"]), rate(row["asyncio"], ours["asyncio"])]
    if cancel is None:
        return [*rates, *["-"] * 7]
    at_end = cancel["told_while_blocked"] < cancel["samples"] / 2
    told = "at step's end" if at_end else duration(cancel["told_us"] / 1e6)
    late = "" if timeout["told_while_blocked"] >= timeout["samples"] / 2 else " at step's end"
    return [
        *rates,
        f"{cancel['queued']:,}",
        duration(cancel["returned_us"] / 1e6),
        told,
        f"{cancel['executed']:g}/{cancel['samples']:g}",
        f"{timeout['queued']:,}",
        f"{timeout['p50_ms']:.1f} / {timeout['p90_ms']:.1f} ms{late}",
        f"{timeout['executed']:g}/{timeout['samples']:g}",
    ]


HEAD = ["system", "version", "burst, 1/s", "asyncio, 1/s", "queued", "cancel returns", "told", "executed", "queued",
        "timeout told, p50 / p90", "executed"]  # fmt: skip


def table(rows):
    """`rows`: (name, version, figures); all are compared with the first that was measured throughout, which is ours."""
    ours = next(figures for _, _, figures in rows if all(figures.values()))
    lines = [HEAD, *([name, version, *cells(figures, ours)] for name, version, figures in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PINS), help="which, of " + ",".join(PINS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    args = parser.parse_args()
    peers = [peer for peer in args.peers.split(",") if peer]
    if unknown := set(peers) - set(PINS):
        parser.error(f"no peer is called {', '.join(sorted(unknown))}; choose of {', '.join(PINS)}")
    pythons, failed, rounds = {"wattwork": sys.executable}, {}, []
    for peer in peers:
        try:
            pythons[peer] = install(peer)
        except Failed as error:
            failed[peer] = f"{PINS[peer]} cannot be installed here: {error}"
    for n in range(args.rounds):
        rounds.append({})
        for system in [name for name in pythons if name not in failed]:
            print(f"round {n + 1} of {args.rounds}: {system}", file=sys.stderr, flush=True)
            try:
                rounds[-1][system] = measure(system, pythons[system])
            except Failed as error:
                if system == "wattwork":
                    raise SystemExit(f"wattwork itself failed: {error}") from None
                failed[system] = f"{PINS[system]} cannot be measured here: {error}"
    rows = []
    for system in pythons:
        if done := [one[system] for one in rounds if system in one]:
            figures = middle([one["rows"] for one in done])
            rows += [(name, done[0]["version"], figures[name]) for name in figures]
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f} of the last minute; medians of "
          f"{args.rounds} rounds")  # fmt: skip
    table(rows)
    for sentence in failed.values():
        print(sentence)
    if args.json:
        Path(args.json).write_text(json.dumps({"rounds": rounds, "failed": failed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
