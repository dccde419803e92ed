"""The command `wattwork`. What it prints goes to standard output, progress and errors to standard error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wattwork import defaults
from wattwork.cli_measuring import add_ladder, add_measuring, add_switches, meter_of, reported
from wattwork.engines.base import CPU_MODELS
from wattwork.errors import WattworkError
from wattwork.outfile import check_writable

if TYPE_CHECKING:
    from wattwork.method import Progress
    from wattwork.report import Report

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
    option = compare.add_argument
    shown = "(default: %(default)g)"
    option("--seconds", type=float, metavar="N", default=defaults.SECONDS, help=f"length of each window {shown}")
    load = f"share of the engine's prompt capacity that the trace offers {shown}"
    option("--load", type=float, metavar="L", default=defaults.LOAD, help=load)
    add_measuring(compare)
    compare.set_defaults(command=_compare)
    add_ladder(commands)
    add_switches(commands)
    _add_hash(commands)
    _add_replay(commands)
    _add_worth(commands)
    schema = commands.add_parser("schema", help="print the JSON Schema of the reports that --json writes")
    schema.set_defaults(command=_schema)
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


def _add_worth(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "worth",
        help="what a device's work earns per MWh, beside ASICs",
        description="Shows what each mode of a measured device earns per MWh at the site's meter, up to which power "
        "price it is worth running, and from which price or efficiency on it would be; beside ASICs as their makers "
        "publish them. No price is assumed; what needs none is shown without.",
    )
    option = parser.add_argument
    option("files", nargs="*", type=Path, metavar="REPORT|PROFILE", help="a report's JSON, a profile's JSON or .npz")
    option("--json", type=Path, metavar="FILE", help="write the result there, too ('-': to standard output)")
    option = parser.add_argument_group("what hashing is paid").add_argument
    option("--hashprice", metavar="USD", help="USD per PH/s and day; or by the next four")
    option("--difficulty", metavar="D", help="the network's difficulty, 152e12 for example")
    option("--btc-usd", metavar="USD", help="price of a bitcoin")
    option("--subsidy", metavar="BTC", help="of a block (default: 3.125, that of the blocks 840,000 to 1,049,999)")
    option("--fees", metavar="SHARE", help="a block's fees as a share of its subsidy, 0.006 or 0.6%% (default: 0)")
    option("--pool-fee", metavar="SHARE", help="what the pool keeps, 0.02 or 2%% (default: 0)")
    option = parser.add_argument_group("what inference is paid").add_argument
    option("--usd-per-mtok", metavar="USD", help="per million output tokens")
    option("--usd-per-h", metavar="USD", help="per hour and device, where it is rented out instead")
    option("--watts", metavar="W", help="of a device to rent out that has no report; with --usd-per-h")
    option = parser.add_argument_group("what energy costs").add_argument
    option("--usd-per-mwh", metavar="USD[,USD...]", help="power prices to look at, 20,40,60 for example")
    option("--pue", metavar="X", help="energy at the site's meter over that at the device (default: 1)")
    option("--asic-pue", metavar="X", help="the same of the ASICs' site (default: 1)")
    option(
        "--heat-credit", metavar="USD", help="what a MWh of heat is sold for; all a device draws is heat (default: 0)"
    )
    parser.set_defaults(command=_worth)


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
    def make(progress: Progress) -> Report:
        from wattwork.comparison import compare

        return compare(
            args.device, model=args.model, seconds=args.seconds, threads=args.threads, meter=meter_of(args),
            load=args.load, progress=progress,
        )  # fmt: skip

    def show(report: Report) -> None:
        from wattwork.render import make_console, print_report

        print_report(report, make_console())

    return reported(args, make, show)


def _schema(args: argparse.Namespace) -> int:
    from wattwork.data import packaged_bytes

    sys.stdout.write(packaged_bytes("report.schema.json").decode())
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


def _worth(args: argparse.Namespace) -> int:
    check_writable(args.json)
    from wattwork import worth_command

    return worth_command.run(args)
