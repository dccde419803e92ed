"""Figures from repeats: what one load level does and draws, and what a switch costs. Parts of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wattwork.meters.base import Kind
    from wattwork.report import Mode

Unit = Literal["hashes", "output_tokens"]
Z95 = 1.959964  # a 95 % interval of a normal figure is this many standard deviations to each side


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over repeats, and its 95 % interval (None: of one repeat nothing can be said)."""

    median: float
    ci95: tuple[float, float] | None
    n: int  # repeats


@dataclass(frozen=True, slots=True)
class Level:
    """One step of a ladder: a mode at a share of its full rate. Active idle has mode "idle" and target 0."""

    mode: Mode
    target: float  # share of the full rate, 0 to 1
    load: float | None  # the share reached: units_per_s over that of the full level; None for idle
    unit: Unit | None  # what units_per_s counts; None for idle
    units_per_s: Figure | None
    watts: Figure | None  # None where the meter failed
    source: Kind
    seconds: float  # all its windows together
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SwitchCost:
    """What going from one mode to another takes, from repeated switches; fields as those of `report.Switch`."""

    from_mode: Mode
    to_mode: Mode
    command_s: Figure
    first_unit_s: Figure | None  # None into idle
    joules: Figure | None  # None where the meter failed
    source: Kind
