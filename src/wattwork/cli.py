"""The command `wattwork`. What it prints goes to standard output, progress and errors to standard error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wattwork import defaults
from wattwork.engines.base import PRESETS
from wattwork.errors import InvalidInput, WattworkError

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
    models = f"one of {', '.join(PRESETS)} (default: %(default)s)"
    option("--model", metavar="NAME", default=defaults.MODEL, help=models)
    load = f"share of the engine's prompt capacity that the trace offers {shown}"
    option("--load", type=float, metavar="L", default=defaults.LOAD, help=load)
    option("--threads", type=int, metavar="N", help="workers (default: the CPUs this process may use)")
    option("--watts", type=float, metavar="W", help="your own reading of the device's power, in watts")
    option("--json", type=Path, metavar="FILE", help="write the report there, too ('-': to standard output)")
    option("--quiet", action="store_true", help="show neither progress nor tables")
    compare.set_defaults(command=_compare)
    return parser


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
    if args.json is not None and str(args.json) != "-":
        _check_writable(args.json)
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


def _check_writable(path: Path) -> None:
    """Before a minute's work, not after it."""
    if path.is_dir():
        raise InvalidInput(f"--json {path}: this is a folder; give a file.")
    if path.exists() and not path.is_file():
        return
    try:
        tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise InvalidInput(f"--json {path}: {error.strerror}; give a file in a writable folder.") from None
