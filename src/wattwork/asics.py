"""Miners as their makers publish them: `data/asics.csv`. Nothing here is a measurement of ours."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from wattwork.data import packaged_bytes
from wattwork.errors import InvalidInput

REFERENCE = "Antminer S21"  # the one that others are held against


@dataclass(frozen=True, slots=True)
class Asic:
    """A row of the table. Rate and watts are None where the maker's figure is not known to us."""

    name: str
    joules_per_th: float
    published: str  # YYYY or YYYY-MM
    source: str
    th_per_s: float | None = None
    watts: float | None = None


@cache
def asics() -> dict[str, Asic]:
    """All of them by name, the most frugal generation first."""
    rows = csv.DictReader(packaged_bytes("asics.csv").decode().splitlines())
    return {
        row["name"]: Asic(
            name=row["name"],
            joules_per_th=float(row["joules_per_th"]),
            published=row["published"],
            source=row["source"],
            th_per_s=float(row["th_per_s"]) if row["th_per_s"] else None,
            watts=float(row["watts"]) if row["watts"] else None,
        )
        for row in rows
    }


def asic(name: str = REFERENCE) -> Asic:
    """One of them. InvalidInput names the others if it is not in the table."""
    if name not in asics():
        raise InvalidInput(f"there is no {name!r} in the table of ASICs; choose one of {', '.join(asics())}.")
    return asics()[name]
