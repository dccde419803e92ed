"""A report as a person reads it: tables, and plain sentences beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wattwork.economics import beside_asic
from wattwork.errors import DeviceError, MeterError
from wattwork.levels import LEAST_S

if TYPE_CHECKING:
    from wattwork.levels import Figure
    from wattwork.report import PhaseResult, Report

LEAST_WIDTH = 100  # columns, where the output is no terminal
NONE = "–"
FEW_REQUESTS = 20
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
SOURCES = {"counter": "measured", "sampled": "measured", "external": "as told", "estimated": "estimate"}


def make_console() -> Console:
    """Standard output, without squeezing tables where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(LEAST_WIDTH, console.width))


def print_report(report: Report, console: Console) -> None:
    """The whole report."""
    console.print(Text(headline("compare", report), style="bold"))
    console.print(_work_table(report))
    console.print(_latency_table(report))
    console.print(_switch_table(report))
    for note in notes(report):
        console.print(Text(f"• {note}"))


def print_devices(console: Console) -> None:
    """What this machine has to work with."""
    from wattwork._search import isas
    from wattwork.engines.base import CPU_MODELS
    from wattwork.machine import default_threads, describe_device
    from wattwork.meters import Meter

    device = describe_device("cpu")
    table = make_table("device", "", "")
    table.add_row("cpu", "processor", f"{device['name']} ({device['architecture']})")
    table.add_row("", "threads", f"{default_threads()} on {device['cores']} cores")
    table.add_row("", "hashing", ", ".join(isas()))
    table.add_row("", "inference", f"{_engine_name()}; models {', '.join(CPU_MODELS)}")
    try:
        meter = Meter("auto")
        source = f"{meter.source} ({SOURCES[meter.kind]})" + (f": {meter.reason}" if meter.reason else "")
    except MeterError as error:
        source = str(error)
    table.add_row("", "meter", source)
    for name, what in _gpus():
        table.add_row(name, "GPU", what)
    console.print(table)


def _gpus() -> list[tuple[str, str]]:
    """Names and descriptions; or in one line why there are none."""
    from wattwork.cuda import gpus
    from wattwork.machine import describe_device

    try:
        rows = []
        for i, gpu in enumerate(gpus()):
            what = f"{gpu.name} ({gpu.isa}), {gpu.sms} SMs, {gpu.memory_bytes / 2**30:.1f} GiB"
            state = gpu_state(describe_device(f"cuda:{i}"))
            rows.append((f"cuda:{i}", f"{what}; {state}" if state else what))
        return rows
    except DeviceError as error:
        return [("cuda", str(error))]


def gpu_state(device: dict[str, Any]) -> str:
    """A GPU's clock, temperature and power limit, of a report's `device`; empty where they are not known."""
    units = {"sm_mhz": "{} MHz", "celsius": "{} °C", "power_limit_w": "limit {:g} W"}
    return ", ".join(text.format(device[key]) for key, text in units.items() if device.get(key) is not None)


def notes(report: Report) -> list[str]:
    """What must be said beside the figures."""
    parts = (_slow_path, _power, _conditions, _trace, _asic, _proof, _doubts)
    return [sentence for part in parts for sentence in part(report)]


def si(value: float | None, unit: str) -> str:
    """Three significant digits with an SI prefix: 45.1 MH/s."""
    if value is None:
        return NONE
    factor, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), (1, ""))
    return f"{three(value / factor)} {prefix}{unit}"


def _rate(value: float | None, unit: str) -> str:
    """The same without a prefix: nobody counts in kilotokens."""
    return NONE if value is None else f"{three(value)} {unit}"


def three(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def amount(value: float, unit: str) -> str:
    """Three significant digits; hashes with an SI prefix."""
    return f"{three(value)} {unit}" if unit.startswith("tok") or unit == "W" else si(value, unit)


def with_interval(figure: Figure | None, unit: str) -> str:
    """A median and the larger half of its interval: 41.2 MH/s ±0.8%."""
    if figure is None:
        return NONE
    said = amount(figure.median, unit)
    if figure.ci95 is None or not figure.median:
        return said
    half = max(figure.median - figure.ci95[0], figure.ci95[1] - figure.median) / abs(figure.median)
    return f"{said} ±{f'{half:.1%}' if half < 0.1 else f'{half:.0%}' if half < 10 else f'{half:.0f}x'}"


def label(phase: PhaseResult) -> str:
    """How a phase is called in the tables."""
    return f"{phase.mode}, {phase.scenario}" if phase.mode == "infer" else phase.mode


def headline(command: str, report: Report) -> str:
    """What a command measured."""
    device = report.device
    threads = f"{device.get('threads_used')} thread(s)" if device.get("kind") == "cpu" else None
    parts = (device.get("name"), threads, device.get("isa"), gpu_state(device), device.get("model"))
    return f"wattwork {command}: {', '.join(str(part) for part in parts if part)}"


def make_table(*columns: str) -> Table:
    """Columns of figures, right-aligned, beside a first one of names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    return table


def _work_table(report: Report) -> Table:
    table = make_table("phase", "work", "power", "units per joule", "joules per unit", "window")
    for phase in report.phases:
        rows = _work_rows(phase) or [(NONE, NONE, NONE)]
        if len(rows) > 1:  # one window's joules paid for both kinds: a price of each would count them twice
            rows = [(work, NONE, NONE) for work, *_ in rows]
        for i, (work, per_joule, per_unit) in enumerate(rows):
            head = (label(phase), _watts(phase), f"{phase.seconds:.1f} s") if i == 0 else ("", "", "")
            table.add_row(head[0], work, head[1], per_joule, per_unit, head[2])
    return table


def _work_rows(phase: PhaseResult) -> list[tuple[str, str, str]]:
    """(rate, units per joule, joules per unit) of each kind of work the phase does."""
    rows = []
    if phase.mode in ("infer", "mixed"):
        rate = _repeated(phase, "output_throughput", "tok/s") or _rate(phase.output_throughput or 0, "tok/s")
        rows.append((rate, _rate(phase.output_tokens_per_joule, "tok/J"), si(phase.joules_per_output_token, "J/tok")))
    if phase.mode in ("hash", "mixed"):
        j_per_th = None if phase.joules_per_hash is None else phase.joules_per_hash * 1e12
        rate = _repeated(phase, "hashes_per_s", "H/s") or si(phase.hashes_per_s, "H/s")
        rows.append((rate, si(phase.hashes_per_joule, "H/J"), si(j_per_th, "J/TH")))
    return rows


def _watts(phase: PhaseResult) -> str:
    power = phase.power
    if power is None or power.watts is None:
        return NONE
    return f"{_repeated(phase, 'watts', 'W') or amount(power.watts, 'W')} {SOURCES[power.source]}"


def _repeated(phase: PhaseResult, name: str, unit: str) -> str:
    """The median of repeats with its interval; empty where there were none."""
    figure = phase.method.figures.get(name) if phase.method else None
    return with_interval(figure, unit) if figure and figure.ci95 else ""


def _latency_table(report: Report) -> Table:
    table = make_table("requests of the trace", "TTFT p50", "p99", "TPOT p50", "p99", "hashing behind", "gives way in")
    names = ("p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "p99_tpot_ms")
    alone, mixed = report.phase("infer", "trace"), report.phase("mixed")
    figures: list[list[float | None]] = []
    for phase in (alone, mixed):
        if phase is None or phase.latency is None:
            continue
        figures.append([getattr(phase.latency, name) for name in names])
        share = phase.harvested_share
        harvest = NONE if share is None else f"{share:.0%} of hash alone"
        ms = [NONE if value is None else f"{three(value)} ms" for value in figures[-1]]
        y = phase.yields
        gives_way = NONE if y is None else f"{three(y.p50_us)} µs (p90 {three(y.p90_us)})"
        table.add_row("inference alone" if phase is alone else "mixed", *ms, harvest, gives_way)
    if len(figures) == 2:
        change = [NONE if not a or b is None else f"{b / a - 1:+.1%}" for a, b in zip(*figures, strict=True)]
        table.add_row("mixed beside alone", *change, "", "")
    return table


def _switch_table(report: Report) -> Table:
    power = report.phases[0].power if report.phases else None
    table = make_table(
        "switch", "old work stopped", "first new unit", f"energy, {SOURCES[power.source]}" if power else "energy"
    )
    for s in report.switches:
        row = (f"{s.from_mode} → {s.to_mode}", si(s.command_s, "s"), si(s.first_unit_s, "s"), si(s.joules, "J"))
        table.add_row(*row)
    return table


def _slow_path(report: Report) -> list[str]:
    if report.versions.get("core"):
        return []
    return ["This is the slow path: NumPy does all the work; reinstall with a C++20 compiler for the native core."]


def _power(report: Report) -> list[str]:
    """Where the watts come from, with the interval of the hash window as the example."""
    phase = report.phase("hash") or next(iter(report.phases), None)
    power = phase and phase.power
    if not power or not phase:
        return []
    said = f"Watts: {power.detail}."
    if power.ci95_j and power.watts and phase.seconds:
        low, high = (joules / phase.seconds for joules in power.ci95_j)
        said += f" The 95 % interval of the {label(phase)} window is {three(low)} to {three(high)} W."
    return [said]


def _trace(report: Report) -> list[str]:
    phase = report.phase("infer", "trace")
    t = phase and phase.trace
    if not t or "capacity_tok_s" not in t:
        return []
    said = [
        f"Trace: {t['requests']} requests of {t['source']}; time x {t['stretch']:.3g}, lengths x {t['scale']:.3g}, so "
        f"that over {t['duration_s']:.1f} s it offers {t['load']:g} of the engine's {t['capacity_tok_s']:,.0f} prompt "
        "tok/s."
    ]
    if t["requests"] < FEW_REQUESTS:
        said.append(
            f"The window held only {t['requests']} requests: its p99 is the longest of them, and its harvest says "
            "little; give --seconds more."
        )
    return said


def _asic(report: Report) -> list[str]:
    phase = report.phase("hash")
    if phase is None or not phase.joules_per_hash or phase.power is None:
        return []
    said = beside_asic(phase.joules_per_hash * 1e12, estimated=phase.power.source == "estimated")
    return [said] if said else []


def _proof(report: Report) -> list[str]:
    if report.proof is None:
        return []
    return [
        f"Proof: around a mainnet block's nonce the search found exactly it, {report.proof.nonce}; hashlib gives the "
        f"same hash, {bytes.fromhex(report.proof.hash)[::-1].hex()}."
    ]


def _conditions(report: Report) -> list[str]:
    """Clock and temperature over all phases, where the machine told them."""
    seen = [phase.conditions for phase in report.phases if phase.conditions]
    said = []
    for name, unit in (("clock_mhz", "MHz"), ("celsius", "°C")):
        ranges = [span for conditions in seen if (span := getattr(conditions, name))]
        if ranges:
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            said.append(f"{low:,.0f} to {high:,.0f} {unit}")
    return [f"The device ran at {', '.join(said)}."] if said else []


def _doubts(report: Report) -> list[str]:
    """Why phases should not be trusted; and whether they were short."""
    quick = [phase for phase in report.phases if phase.method and phase.method.quick]
    said = grouped([(label(phase), phase.warnings) for phase in report.phases], "all phases")
    if quick:
        said.append(
            f"Quick: windows of {min(phase.seconds for phase in quick):.1f} s; for figures to rely on, give --seconds "
            f"{LEAST_S:.0f}."
        )
    return said


def grouped(warnings: Sequence[tuple[str, Sequence[str]]], everywhere: str) -> list[str]:
    """One sentence for what was said of several, in the words of the first, whatever its numbers.

    `warnings`: what each is called, and what was said of it. `everywhere`: what all of them together are called.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, sentences in warnings:
        for said in sentences:
            groups.setdefault(re.sub(r"\d+(?:[.,]\d+)*", "#", said), []).append((name, said))
    lines = []
    for pairs in groups.values():
        name, said = pairs[0]
        more = len(pairs) - 1
        if more + 1 == len(warnings) > 1:
            name = everywhere if all(other == said for _, other in pairs) else f"{everywhere}, as in {name}"
        elif more:
            name = f"{name} and likewise {more} more"
        lines.append(f"{name}: {said}")
    return lines


def _engine_name() -> str:
    from wattwork._native import HAVE_CORE, core

    return f"native f32, {core.decoder_isas()[0]}" if HAVE_CORE else "NumPy f32 (slow: installed without a compiler)"
