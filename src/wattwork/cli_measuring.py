"""The commands that measure a device and report on it: what they share, and `ladder` and `switches`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from wattwork import defaults
from wattwork.engines.base import CPU_MODELS, PRESETS
from wattwork.outfile import check_writable

if TYPE_CHECKING:
    from wattwork.meters import Meter
    from wattwork.method import Progress
    from wattwork.report import Report


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """What all commands take that measure a device and report on it."""
    option = parser.add_argument
    devices = "cpu, or a GPU that `wattwork devices` lists (default: %(default)s)"
    option("device", nargs="?", default=defaults.DEVICE, metavar="DEVICE", help=devices)
    models = f"one of {', '.join(CPU_MODELS)}, on a GPU of {', '.join(PRESETS)} (default: %(default)s)"
    option("--model", metavar="NAME", default=defaults.MODEL, help=models)
    option("--threads", type=int, metavar="N", help="workers of the CPU (default: the CPUs this process may use)")
    sources = "auto, rapl, nvml, estimate, or a sum as rapl+nvml (default: auto, the best there is)"
    option("--meter", metavar="SOURCE", help=sources)
    option("--watts", type=float, metavar="W", help="your own reading of the device's power, in watts")
    log = "the log that a wall plug's meter writes meanwhile (columns: time and watts, joules or kwh)"
    option("--meter-csv", type=Path, metavar="FILE", help=log)
    option("--json", type=Path, metavar="FILE", help="write the report there, too ('-': to standard output)")
    option("--quiet", action="store_true", help="show neither progress nor tables")


def meter_of(args: argparse.Namespace) -> Meter | None:
    """The meter that was asked for; None: none was, and the device takes its own."""
    if args.meter is None and args.watts is None and args.meter_csv is None:
        return None
    from wattwork.meters import Meter

    return Meter(args.meter or "auto", device=args.device, watts=args.watts, csv=args.meter_csv)


def add_ladder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wattwork ladder`."""
    parser = commands.add_parser(
        "ladder",
        help="measure load levels, from the full rate down to active idle",
        description="Finds a device's full rate, then measures it at even steps of load down to active idle, as "
        "SPECpower_ssj2008 does: hashing by duty cycle or by threads, inference by the rate of its requests.",
    )
    option = parser.add_argument
    option("--mode", choices=("hash", "infer", "both"), default="both", help="the work (default: %(default)s)")
    option("--levels", type=int, metavar="N", default=defaults.LEVELS, help="how many (default: %(default)d)")
    shown = f"(default: {defaults.LADDER_SECONDS:g}; quick, {defaults.QUICK_LADDER_SECONDS:g})"
    option("--seconds", type=float, metavar="N", help=f"length of each window {shown}")
    repeats = "windows of each level (default: %(default)d)"
    option("--repeats", type=int, metavar="N", default=defaults.LADDER_REPEATS, help=repeats)
    option("--quick", action="store_true", help="short windows, for a first look")
    option("--by", choices=("duty", "threads"), default="duty", help="how hashing is slowed (default: %(default)s)")
    option("--csv", type=Path, metavar="FILE", help="write the levels there, too")
    option("--plot", type=Path, metavar="FILE", help="draw them there, too: .png, .svg or .pdf (needs matplotlib)")
    add_measuring(parser)
    parser.set_defaults(command=_ladder)


def add_switches(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wattwork switches`."""
    parser = commands.add_parser(
        "switches",
        help="measure what each switch between idle, hash, infer and mixed costs",
        description="Switches a device again and again, in random order, and shows as a matrix what each of the twelve "
        "switches between idle, hash, infer and mixed takes in seconds and joules.",
    )
    repeats = "of each switch (default: %(default)d)"
    parser.add_argument("--repeats", type=int, metavar="N", default=defaults.SWITCH_REPEATS, help=repeats)
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of the order (default: %(default)d)")
    add_measuring(parser)
    parser.set_defaults(command=_switches)


def _ladder(args: argparse.Namespace) -> int:
    check_writable(args.csv, "--csv")
    check_writable(args.plot, "--plot")
    seconds = defaults.QUICK_LADDER_SECONDS if args.quick else defaults.LADDER_SECONDS

    def make(progress: Progress) -> Report:
        from wattwork.ladder import ladder
        from wattwork.ladder_csv import write_csv
        from wattwork.ladder_plot import check_plot, plot

        check_plot(args.plot)
        report = ladder(
            args.device, mode=args.mode, levels=args.levels, repeats=args.repeats, by=args.by, model=args.model,
            seconds=seconds if args.seconds is None else args.seconds, threads=args.threads, meter=meter_of(args),
            progress=progress,
        )  # fmt: skip
        if args.csv is not None:
            write_csv(args.csv, report.ladder)
        if args.plot is not None:
            plot(report, args.plot)
        return report

    def show(report: Report) -> None:
        from wattwork.render import make_console
        from wattwork.render_levels import print_ladder

        print_ladder(report, make_console())

    return reported(args, make, show)


def _switches(args: argparse.Namespace) -> int:
    def make(progress: Progress) -> Report:
        from wattwork.switch_costs import measure_switches

        return measure_switches(
            args.device, repeats=args.repeats, model=args.model, threads=args.threads, meter=meter_of(args),
            seed=args.seed, progress=progress,
        )  # fmt: skip

    def show(report: Report) -> None:
        from wattwork.render import make_console
        from wattwork.render_levels import print_switches

        print_switches(report, make_console())

    return reported(args, make, show)


def reported(args: argparse.Namespace, make: Callable[[Progress], Report], show: Callable[[Report], None]) -> int:
    """Make a report with a bar for its progress; write it and show it as the options say."""
    check_writable(args.json)
    with _interrupts() as interrupted, _progress(quiet=args.quiet) as tell:

        def progress(step: str, share: float | None) -> None:
            if interrupted:
                raise KeyboardInterrupt
            tell(step, share)

        report = make(progress)
    if str(args.json) == "-":
        sys.stdout.write(report.to_json())
        return 0
    if args.json is not None:
        report.save(args.json)
    if not args.quiet:
        show(report)
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
