"""A ladder and a matrix of switch costs as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from wattwork import defaults
from wattwork.levels import LEAST_S, overall
from wattwork.render import NONE, SOURCES, amount, grouped, headline, make_table, with_interval

if TYPE_CHECKING:
    from wattwork.levels import Level, SwitchCost
    from wattwork.report import Report

UNITS = {"hash": ("H/s", "H/J"), "infer": ("tok/s", "tok/J")}
MODES = ("idle", "hash", "infer", "mixed")


def print_ladder(report: Report, console: Console) -> None:
    """Its table, the overall figures, and what must be said beside them."""
    console.print(Text(headline("ladder", report), style="bold"))
    source = SOURCES[report.ladder[0].source] if report.ladder else ""
    table = make_table("level", "load", "work", f"power, {source}", "units per joule")
    for before, level in zip([None, *report.ladder], report.ladder, strict=False):
        if before and before.mode != level.mode:
            table.add_section()
        table.add_row(name_of(level), *_row(level))
    console.print(table)
    for mode in ("hash", "infer"):
        figure = overall(report.ladder, mode)
        if figure is not None:
            said = f"{mode}, overall: {amount(figure, UNITS[mode][1])}, the sum of all levels' work over that of their"
            console.print(Text(f"{said} watts and active idle's."))
    for note in ladder_notes(report):
        console.print(Text(f"• {note}"))


def name_of(level: Level) -> str:
    """How a level is called: hash at 70%."""
    return "active idle" if level.mode == "idle" else f"{level.mode} at {level.target:.0%}"


def _row(level: Level) -> tuple[str, str, str, str]:
    watts = with_interval(level.watts, "W")
    if level.units_per_s is None or level.load is None:
        return NONE, NONE, watts, NONE
    unit, per_joule = UNITS[level.mode]
    rate = with_interval(level.units_per_s, unit)
    w = level.watts.median if level.watts else 0.0
    return f"{level.load:.1%}", rate, watts, amount(level.units_per_s.median / w, per_joule) if w else NONE


def ladder_notes(report: Report) -> list[str]:
    """How the levels were made, and what was doubtful of which."""
    notes = []
    levels = [level for level in report.ladder if level.mode != "idle"]
    if any(level.quick for level in report.ladder):
        least_s = min(level.seconds for level in report.ladder)
        notes.append(f"Quick: levels of {least_s:.1f} s; for figures to rely on give them {LEAST_S:.0f} s or more.")
    if any(level.units_per_s and level.units_per_s.ci95 for level in levels):
        notes.append("± is the larger half of the 95 % interval that repeats show; a meter's own error is not in it.")
    if requests := report.device.get("requests"):
        notes.append(
            f"Inference: requests of {requests['prompt_tokens']} prompt and {requests['output_tokens']} output tokens, "
            "offered evenly; flat out at 100%."
        )
    if any(level.mode == "hash" for level in levels):
        notes.append(
            f"Hashing is slowed by {'duty cycle' if report.device.get('hashing_by') == 'duty' else 'threads'}."
        )
    return notes + grouped([(name_of(level), level.warnings) for level in report.ladder], "all levels")


def print_switches(report: Report, console: Console) -> None:
    """The matrix: rows from, columns to."""
    costs = report.switch_costs
    console.print(Text(headline("switches", report), style="bold"))
    cells: dict[tuple[str, str], str] = {(cost.from_mode, cost.to_mode): _cell(cost) for cost in costs}
    table = make_table("from", *(f"to {mode}" for mode in MODES))
    for before in MODES:
        table.add_row(
            f"{before}: stopped\n  first unit\n  energy", *(cells.get((before, after), NONE) for after in MODES)
        )
        table.add_section()
    console.print(table)
    for note in switch_notes(report):
        console.print(Text(f"• {note}"))


def _cell(cost: SwitchCost) -> str:
    figures = ((cost.command_s, "s"), (cost.first_unit_s, "s"), (cost.joules, "J"))
    return "\n".join(with_interval(figure, unit) for figure, unit in figures)


def switch_notes(report: Report) -> list[str]:
    """What the three lines of a cell are."""
    costs = report.switch_costs
    if not costs:
        return []
    notes = [
        "From the command until the old work had stopped, until the first unit of new work, and the device's energy "
        f"({SOURCES[costs[0].source]}) until then: medians of {costs[0].command_s.n} switches ± the larger half of "
        "the 95 % interval, which for the energy holds the meter's own.",
        f"Inference was at {defaults.LOAD:g} of its flat-out rate, in short requests, when it was left or joined.",
    ]
    if any(cost.joules is None for cost in costs):
        notes.append("No energy where a switch is over before the meter's next update, or the meter failed.")
    return notes
