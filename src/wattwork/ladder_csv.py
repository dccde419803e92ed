"""A ladder as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from wattwork.outfile import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattwork.levels import Figure, Level

COLUMNS = (
    "mode", "target", "load", "unit", "units_per_s", "units_per_s_low", "units_per_s_high", "watts", "watts_low",
    "watts_high", "units_per_joule", "repeats", "seconds", "source", "warnings",
)  # fmt: skip


def csv_of(levels: Sequence[Level]) -> str:
    """One line a level below the names; an empty field is unknown, `_low` and `_high` are the 95 % interval."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for level in levels:
        rate, watts = level.units_per_s, level.watts
        per_joule = rate.median / watts.median if rate and watts and watts.median else None
        n = watts.n if watts else rate.n if rate else None
        head = (level.mode, level.target, level.load, level.unit)
        tail = (per_joule, n, level.seconds, level.source, " ".join(level.warnings))
        rows.writerow([*head, *_three(rate), *_three(watts), *tail])
    return text.getvalue()


def _three(figure: Figure | None) -> tuple[float | None, ...]:
    return (None, None, None) if figure is None else (figure.median, *(figure.ci95 or (None, None)))


def write_csv(path: Path, levels: Sequence[Level]) -> None:
    """InvalidInput if it cannot be written."""
    write_whole(path, csv_of(levels), "the CSV")
