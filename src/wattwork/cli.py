"""The command `wattwork`. What it prints goes to standard output, progress and errors to standard error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wattwork import defaults
from wattwork.engines.base import CPU_MODELS
from wattwork.errors import WattworkError
from wattwork.outfile import check_writable

if TYPE_CHECKING:
    from wattwork.measure import Progress

UNREAD, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. 2: the input is wrong, and one sentence says what to change."""
    try:
        args = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except WattworkError as error:
        print(f"wattwork: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        # CPython ends with the signal, whatever we return, once a KeyboardInterrupt has left an `exec` of a string (as
        # in an import that makes dataclasses), caught or not; only another such run makes it forget that.
        exec("")
        print("wattwork: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # nobody reads standard output any more, or its disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at exit, Python must be able to write the rest
        if not isinstance(error, BrokenPipeError):
            print(f"wattwork: the output cannot be written: {error.strerror}.", file=sys.stderr)
        return UNREAD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wattwork",
        description="One device, two kinds of work, one meter: SHA-256d hashing and AI inference on the same watts.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    devices = commands.add_parser("devices", help="list what this machine has to work with")
    devices.set_defaults(command=_devices)

    compare = commands.add_parser(
        "compare",
        help="take a device through its work and report on each",
        description="Takes a device through idle, hashing, inference flat out, inference on a real request trace, and "
        "the same trace with hashing behind it; then shows work per second, watts and latency of each, and what the "
        "switches cost.",
    )
    compare.add_argument(
        "device", nargs="?", default=defaults.DEVICE, metavar="DEVICE", help="what to measure (default: %(default)s)"
    )
    option = compare.add_argument
    shown = "(default: %(default)g)"
    option("--seconds", type=float, metavar="N", default=defaults.SECONDS, help=f"length of each window {shown}")
    models = f"one of {', '.join(CPU_MODELS)} (default: %(default)s)"
    option("--model", metavar="NAME", default=defaults.MODEL, help=models)
    load = f"share of the engine's prompt capacity that the trace offers {shown}"
    option("--load", type=float, metavar="L", default=defaults.LOAD, help=load)
    option("--threads", type=int, metavar="N", help="workers (default: the CPUs this process may use)")
    option("--watts", type=float, metavar="W", help="your own reading of the device's power, in watts")
    option("--json", type=Path, metavar="FILE", help="write the report there, too ('-': to standard output)")
    option("--quiet", action="store_true", help="show neither progress nor tables")
    compare.set_defaults(command=_compare)
    _add_hash(commands)
    _add_replay(commands)
    return parser


def _add_hash(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "hash",
        help="search a block header's nonces, or measure how fast that is",
        usage="wattwork hash [--header HEX|FILE|-] [OPTION ...]\n"
        "       wattwork hash --bench [ROUNDS] [--isa NAME] [--threads N] [--json FILE]",
        description="Searches a block header's nonces, and versions where they may be rolled, for hashes that meet a "
        "target. Each hit is checked with hashlib, and printed as soon as it is known. Ctrl-C says how to go on. "
        "Numbers may be decimal, or 0x and hexadecimal.",
    )
    option = parser.add_argument_group("what to search").add_argument
    option(
        "--header",
        metavar="HEX|FILE|-",
        help="80 bytes: as 160 hexadecimal digits, or those or the raw bytes in a file or ('-') on standard input "
        "(default: the genesis block's)",
    )
    option("--first", metavar="N", help="the first nonce (default: 0)")
    option("--count", metavar="N", help="how many nonces (default: up to the last, 2**32 - 1)")
    option("--version-mask", metavar="HEX", help="version bits that may be rolled, 1fffe000 by BIP 320 (default: none)")
    option("--versions", metavar="N|all", help="how many versions of those the mask makes (default: all)")
    option("--version-first", metavar="N", help="number of the first version; 0 is the header's own (default: 0)")
    option("--max-hits", metavar="N", help="end at so many (default: never)")
    group = parser.add_argument_group("what is a hit (default: what meets the header's own bits)")
    option = group.add_mutually_exclusive_group().add_argument
    option("--target", metavar="HEX", help="a hash up to this number")
    option("--bits", metavar="HEX", help="the same in a header's compact form, 1d00ffff for example")
    option("--difficulty", metavar="X", help="the same as a multiple of difficulty 1")
    option = parser.add_argument_group("how").add_argument
    option(
        "--device",
        metavar="NAME",
        help="cpu, a GPU that `wattwork devices` lists, or cuda for all of them (default: cpu)",
    )
    option("--isa", metavar="NAME", help="instruction set, one that `wattwork devices` lists (default: the fastest)")
    option("--threads", type=int, metavar="N", help="workers (default: the CPUs this process may use; --bench: 1)")
    option("--json", type=Path, metavar="FILE", help="write the result there, too ('-': to standard output)")
    option(
        "--bench",
        type=int,
        nargs="?",
        metavar="ROUNDS",
        const=defaults.BENCH_ROUNDS,
        help="search nothing, but measure every instruction set beside OpenSSL and hashlib (default: %(const)s rounds)",
    )
    parser.set_defaults(command=_hash)


def _add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "replay",
        help="play a request trace, live or in virtual time",
        usage="wattwork replay TRACE [OPTION ...]\n       wattwork replay TRACE --simulate [--cost A,B,C] [OPTION ...]",
        description="Plays a request trace to this machine's engine with hashing behind it, or to a cost model in "
        "virtual time, and shows latencies, throughput and goodput as `vllm bench serve` does, and what the back "
        "harvested. The trace's order and relative gaps are kept; time is stretched to the load.",
    )
    option = parser.add_argument
    option(
        "trace",
        metavar="TRACE",
        help="an Azure LLM inference trace (CSV: TIMESTAMP,ContextTokens,GeneratedTokens); azure-code, the packaged "
        "slice of one; or a log that Scheduler(..., record=PATH) wrote",
    )
    load = "share of the prompt capacity that the trace offers (default: %(default)g)"
    option("--load", type=float, metavar="L", default=defaults.LOAD, help=load)
    shown = f"(default: {defaults.REPLAY_SECONDS:g}; simulated, {defaults.SIMULATED_SECONDS:g})"
    option("--seconds", type=float, metavar="S", help=f"how long it lasts {shown}")
    models = f"one of {', '.join(CPU_MODELS)} (default: %(default)s)"
    option("--model", metavar="NAME", default=defaults.MODEL, help=models)
    option("--threads", type=int, metavar="N", help="workers (default: the CPUs this process may use)")
    option("--back", choices=("gap", "off"), default="gap", help="hash while no request is there, or never")
    for name in ("ttft", "tpot", "e2el"):
        option(f"--slo-{name}-ms", type=float, metavar="MS", help=f"a good request's {name.upper()} is at most this")
    option("--json", type=Path, metavar="FILE", help="write the result there, too ('-': to standard output)")
    option = parser.add_argument_group("in virtual time").add_argument
    option("--simulate", action="store_true", help="run no engine: a step takes what a cost model says")
    cost = "seconds per step, per token and per sequence (default: measured on this machine's engine)"
    option("--cost", metavar="A,B,C", help=cost)
    option("--devices", type=int, metavar="N", help="how many, each with a scheduler of its own (default: 1)")
    option("--seed", type=int, metavar="N", help="for a fourth number in --cost, by which a step's time varies")
    for name in ("seqs", "batched-tokens"):
        option(f"--max-num-{name}", type=int, metavar="N", help="of one step (default: as on this machine)")
    option("--max-model-len", type=int, metavar="N", help="longer requests are scaled down (default: the model's)")
    parser.set_defaults(command=_replay)


class _Version(argparse.Action):
    """`--version`, without paying for the version's look-up at every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import wattwork

        print(f"wattwork {wattwork.__version__}")
        parser.exit()


def _devices(args: argparse.Namespace) -> int:
    from wattwork.render import make_console, print_devices

    print_devices(make_console())
    return 0


def _compare(args: argparse.Namespace) -> int:
    check_writable(args.json)
    with _interrupts() as interrupted, _progress(quiet=args.quiet) as show:
        from wattwork.measure import compare
        from wattwork.render import make_console, print_report

        def progress(step: str, share: float | None) -> None:
            if interrupted:
                raise KeyboardInterrupt
            show(step, share)

        report = compare(
            args.device,
            model=args.model,
            seconds=args.seconds,
            threads=args.threads,
            watts=args.watts,
            load=args.load,
            progress=progress,
        )
    if str(args.json) == "-":
        sys.stdout.write(report.to_json())
        return 0
    if args.json is not None:
        report.save(args.json)
    if not args.quiet:
        print_report(report, make_console())
    return 0


def _hash(args: argparse.Namespace) -> int:
    check_writable(args.json)
    if args.bench is not None:
        from wattwork import search_bench

        return search_bench.run(args)
    from wattwork import hash_command

    return hash_command.run(args)


def _replay(args: argparse.Namespace) -> int:
    check_writable(args.json)
    from wattwork import replay_command

    return replay_command.run(args)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises as ever, and is noted in the list: an import that is under way may swallow the exception."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar on standard error while the work goes on; nothing where that is no terminal, or on `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield lambda step, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def show(step: str, share: float | None) -> None:
            if step != bar.tasks[0].description:  # each step has its own time
                bar.reset(task, description=step, total=None if share is None else 1.0)
            bar.update(task, completed=share or 0.0)

        yield show
