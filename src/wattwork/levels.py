"""Figures from repeats: what one load level does and draws, and what a switch costs. Parts of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from wattwork.meters.base import Kind
    from wattwork.report import Mode

Unit = Literal["hashes", "output_tokens"]
Z95 = 1.959964  # a 95 % interval of a normal figure is this many standard deviations to each side

# MLPerf Power wants a run of 60 s at least, and power and performance of the same one (Tschand et al., "MLPerf Power",
# 2024, https://arxiv.org/abs/2410.12032). What is shorter is called quick.
LEAST_S = 60.0


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

    @property
    def quick(self) -> bool:
        """Whether it was measured for less than a minute."""
        return self.seconds < LEAST_S


@dataclass(frozen=True, slots=True)
class SwitchCost:
    """What going from one mode to another takes, from repeated switches; fields as those of `report.Switch`."""

    from_mode: Mode
    to_mode: Mode
    command_s: Figure
    first_unit_s: Figure | None  # None into idle
    joules: Figure | None  # None where the meter failed, or is too slow to see a switch
    source: Kind

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        data = asdict(self)
        return {"from": data.pop("from_mode"), "to": data.pop("to_mode"), **data}


@dataclass(frozen=True, slots=True)
class Method:
    """How a phase was measured, and what its repeats say."""

    repeats: int
    quick: bool  # less than a minute in all
    steady: bool | None  # whether the warm-up ended in a steady state; None: there was none to wait for
    warm_up_s: float
    figures: dict[str, Figure] = field(default_factory=dict)  # by the names of PhaseResult's figures, and "watts"


def overall(levels: Sequence[Level], mode: Mode) -> float | None:
    """A ladder's overall figure for hash or infer, in units per joule: the sum of its levels' throughput over the sum
    of their watts and those of active idle, as SPECpower_ssj2008 has it (its "Result File Fields", 4.4,
    https://www.spec.org/power/docs/SPECpower_ssj2008-Result_File_Fields.html). None without such levels or their watts.
    """
    rates = [level.units_per_s for level in levels if level.mode == mode and mode != "idle"]
    watts = [level.watts for level in levels if level.mode in (mode, "idle")]
    total_w = sum(figure.median for figure in watts if figure)
    if not rates or None in rates or None in watts or not total_w:
        return None
    return sum(figure.median for figure in rates if figure) / total_w
