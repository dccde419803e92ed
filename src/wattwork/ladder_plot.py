"""A ladder as a picture: power over load, and the work per joule that leaves. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattwork.errors import InvalidInput
from wattwork.render import SOURCES, amount, headline

if TYPE_CHECKING:
    from wattwork.levels import Figure, Level
    from wattwork.report import Report

SUFFIXES = (".png", ".svg", ".pdf")
_COLOURS = {"hash": "#d95f02", "infer": "#1b6ca8", "idle": "#555555"}
_MARKERS = {"hash": "o", "infer": "s", "idle": "D"}
_UNITS = {"hash": "H/J", "infer": "tok/J"}


def check_plot(path: Path | None) -> None:
    """Before the work, not after it. InvalidInput where there is no matplotlib, or the file's name is no picture's."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(f"--plot {path}: give a file that ends in {', '.join(SUFFIXES)}.")
    if find_spec("matplotlib") is None:
        raise InvalidInput("--plot needs matplotlib: pip install 'wattwork[plot]'.")


def plot(report: Report, path: Path) -> None:
    """Draw the report's ladder into that file, PNG, SVG or PDF by its suffix. InvalidInput if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(9.0, 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    picture.suptitle(headline("ladder", report), fontsize=10)
    power, efficiency = picture.subplots(1, 2)
    source = SOURCES[report.ladder[0].source]
    for mode in ("hash", "infer"):
        levels = [level for level in report.ladder if level.mode == mode]
        if levels:
            _power(power, mode, levels)
            _efficiency(efficiency, mode, levels)
    idle = [level for level in report.ladder if level.mode == "idle" and level.watts]
    for level in idle:
        _points(power, "active idle", "idle", [0.0], [level.watts])
    for axes, title, unit in ((power, "Power", f"W ({source})"), (efficiency, "Work per joule", "% of full load's")):
        axes.set(title=title, xlabel="load, % of the full rate", ylabel=unit)
        axes.set(xlim=(-3, max(104.0, axes.get_xlim()[1])), ylim=(0, None))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="lower right")
    efficiency.axhline(100, color="#888888", linewidth=0.8, linestyle=":")
    _save(picture, path)


def _power(axes: Any, mode: str, levels: list[Level]) -> None:
    rows = [(level.load, level.watts) for level in levels if level.watts and level.load is not None]
    rows.sort(key=lambda row: row[0])  # one that missed its load may lie past another
    _points(axes, mode, mode, [100 * load for load, _ in rows], [watts for _, watts in rows])


def _points(axes: Any, label: str, mode: str, x: list[float], figures: list[Figure | None]) -> None:
    """Medians, with their intervals as bars where there are some."""
    known = [figure for figure in figures if figure]
    y = [figure.median for figure in known]
    ends = [figure.ci95 or (figure.median, figure.median) for figure in known]
    below = [middle - low for middle, (low, _) in zip(y, ends, strict=True)]
    above = [high - middle for middle, (_, high) in zip(y, ends, strict=True)]
    style = {"color": _COLOURS[mode], "marker": _MARKERS[mode], "markersize": 4, "linewidth": 1.4, "capsize": 2}
    axes.errorbar(x, y, yerr=(below, above), label=label, linestyle="none" if mode == "idle" else "-", **style)


def _efficiency(axes: Any, mode: str, levels: list[Level]) -> None:
    rows = [
        (100 * level.load, level.units_per_s.median / level.watts.median)
        for level in levels
        if level.load is not None and level.units_per_s and level.watts and level.watts.median
    ]
    if not rows:
        return
    full = rows[0][1]  # the full level comes first
    rows.sort()
    label = f"{mode}: 100% is {amount(full, _UNITS[mode])}"
    style = {"color": _COLOURS[mode], "marker": _MARKERS[mode], "markersize": 4, "linewidth": 1.4}
    axes.plot([x for x, _ in rows], [100 * y / full for _, y in rows], label=label, **style)


def _save(picture: Any, path: Path) -> None:
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        try:
            picture.savefig(part, dpi=150)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"the plot cannot be written to {path}: {error.strerror}.") from None
