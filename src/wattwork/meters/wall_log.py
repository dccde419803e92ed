"""A meter's log as CSV: the power over time, or an energy counter's readings, as a wall plug writes them.

The header names the columns: `time`, and one of `watts`, `joules`, `kwh`; the last two are counters that only rise.
`time` is seconds since 1970, or ISO 8601 (without an offset it is local time). Other columns are left alone.
"""

from __future__ import annotations

import csv
import math
import statistics
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from wattwork.errors import InvalidInput

UNITS_J = {"joules": 1.0, "kwh": 3.6e6}
GAP = 3.0  # a hole in the log is longer than this many of its periods


@dataclass(frozen=True, slots=True)
class WallLog:
    """Samples in the order of time. `values`: watts; or joules where `counter`. `step`: of their last written digit."""

    times_s: list[float]
    values: list[float]
    counter: bool
    period_s: float  # median
    step: float

    def energy_j(self, begin_s: float, end_s: float, skew_s: float) -> tuple[float, float, float] | None:
        """(joules, half of the 95 % interval, seconds within holes of the log) from `begin_s` to `end_s`, wall time.

        Between samples the power is taken as linear, a counter's as constant; before the first and after the last it
        is held. What the truth may be off by: between two samples, half the difference of their power for their time
        (a step anywhere between them), each independent; all of them together for the values' rounding, half a step;
        and for clocks that differ by up to `skew_s`, which shifts the whole window, that time x the difference of power
        between its ends, and x the largest change between samples at either end. None without two samples.
        """
        first = max(0, bisect_right(self.times_s, begin_s) - 2)
        last = min(len(self.times_s), bisect_left(self.times_s, end_s) + 2)
        knots = self._power(first, last)
        if not knots:
            return None
        joules = hole_s = squares = 0.0
        spread_w = 0.0
        ends_w: list[float] = []
        padded = [(min(begin_s, knots[0][0]), *knots[0][1:]), *knots, (max(end_s, knots[-1][0]), *knots[-1][1:])]
        for (t0, w0, _), (t1, w1, between_w) in pairwise(padded):
            low, high = max(t0, begin_s), min(t1, end_s)
            if high <= low:
                continue
            at = [w0 + (w1 - w0) * (t - t0) / (t1 - t0) for t in (low, high)]
            ends_w += at
            joules += sum(at) / 2 * (high - low)
            squares += (between_w / 2 * (high - low)) ** 2
            spread_w = max(spread_w, between_w)
            if t1 - t0 > GAP * self.period_s:
                hole_s += high - low
        rounding_j = self.step if self.counter else self.step / 2 * (end_s - begin_s)
        shift_w = abs(ends_w[-1] - ends_w[0]) + 2 * spread_w if ends_w else 0.0
        return joules, 1.96 * math.sqrt(squares) + shift_w * skew_s + rounding_j, hole_s

    def _power(self, first: int, last: int) -> list[tuple[float, float, float]]:
        """(time, watts, how far the power went since the one before) of these samples."""
        times, values = self.times_s[first:last], self.values[first:last]
        if len(times) < 2:
            return []
        if not self.counter:
            moved = [0.0, *(abs(b - a) for a, b in pairwise(values))]
            return list(zip(times, values, moved, strict=True))
        watts = [(v1 - v0) / (t1 - t0) for (t0, v0), (t1, v1) in pairwise(zip(times, values, strict=True))]
        knots = []
        for i, w in enumerate(watts):
            near = max((abs(w - other) for other in watts[max(0, i - 1) : i + 2]), default=0.0)
            knots += [(times[i], w, 0.0), (times[i + 1], w, near)]
        return knots


def read_log(path: str | Path) -> WallLog:
    """The log in that file. InvalidInput names the file, the line and what is wrong."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _parse(csv.DictReader(file), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"the meter's log {path} cannot be read: {why}.") from None


def _parse(rows: csv.DictReader[str], path: str) -> WallLog:
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
    columns = [name for name in ("watts", *UNITS_J) if name in rows.fieldnames]
    if "time" not in rows.fieldnames or len(columns) != 1:
        raise InvalidInput(f"{path} needs a header with the column 'time' and one of 'watts', 'joules' or 'kwh'.")
    column = columns[0]
    times: list[float] = []
    values: list[float] = []
    digits = 9  # the power of ten of the last one written
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        try:
            time_s, value = _seconds(row["time"] or ""), float(row[column] or "") * UNITS_J.get(column, 1.0)
        except ValueError:
            raise InvalidInput(f"{where}: 'time' and '{column}' must be a time and a number.") from None
        if not (math.isfinite(time_s) and math.isfinite(value) and value >= 0):
            raise InvalidInput(f"{where}: '{column}' must be a finite number from 0 up.")
        if times and time_s <= times[-1]:
            raise InvalidInput(f"{where}: its time is not later than that of the line before; sort the log.")
        if times and column != "watts" and value < values[-1]:
            raise InvalidInput(f"{where}: the counter went back; cut the log there.")
        times.append(time_s)
        values.append(value)
        digits = min(digits, int(Decimal(row[column].strip()).as_tuple().exponent))
    if len(times) < 2:
        raise InvalidInput(f"{path} holds {len(times)} samples; at least two are needed.")
    period_s = statistics.median(b - a for a, b in pairwise(times))
    return WallLog(times, values, column != "watts", period_s, 10.0**digits * UNITS_J.get(column, 1.0))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.strip()).timestamp()
