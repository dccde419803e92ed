"""Figures from repeats: a median with its interval, and whether a row of values stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wattwork.levels import Figure

SEED = 0  # of the resamples: equal values give equal intervals
RESAMPLES = 2000
_MOST_AT_ONCE = 1 << 20  # drawn values, so that many repeats do not take the memory

# The steady-state test looks at so many windows. A trend counts as none where it comes to no more than LEAST_CHANGE of
# the mean over the look, or stands out of its noise by less than LEAST_T standard errors. White noise passes 80 % of
# the looks at LEAST_T (Student's t, 8 degrees of freedom, two-sided), and a trend of four times the noise, over the
# look, less than 1 %.
LOOK = 10
LEAST_CHANGE = 0.01
LEAST_T = 1.397

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t, 1 to 10 degrees


def figure(values: Sequence[float | None], *, seed: int = SEED) -> Figure | None:
    """The median of the values and its 95 % interval by the bootstrap; None if one of them is None, or of none at all.

    RESAMPLES medians of as many values drawn with replacement by `seed`; then the distances of their 2.5th and 97.5th
    percentiles from the median are stretched by t / z x sqrt(n / (n - 1)), as percentile intervals of few values are
    too narrow by that (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015,
    https://doi.org/10.1080/00031305.2015.1089789). Of normal values it holds the truth in 91 to 98 % of the cases from
    2 repeats on. What is never below zero has an interval that is not, either. It tells how repeats differ; what all of
    them share, as a sensor's calibration, it cannot see.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    import numpy as np

    n, data = len(known), np.asarray(known, np.float64)
    median = float(np.median(data))
    if n == 1:
        return Figure(median, None, 1)
    random = np.random.default_rng(seed)
    rows = max(1, _MOST_AT_ONCE // n)
    parts = (random.integers(0, n, (min(rows, RESAMPLES - done), n)) for done in range(0, RESAMPLES, rows))
    medians = np.concatenate([np.median(data[part], axis=1) for part in parts])
    low, high = (float(q) for q in np.percentile(medians, (2.5, 97.5)))
    stretch = _t_975(n - 1) / 1.96 * math.sqrt(n / (n - 1))
    low, high = median - stretch * (median - low), median + stretch * (high - median)
    return Figure(median, (max(low, 0.0) if min(known) >= 0 else low, high), n)


def _t_975(degrees: int) -> float:
    """The 97.5th percentile of Student's t; past the table within 0.001 (Abramowitz and Stegun 26.7.5)."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    return 1.96 + 2.372 / degrees + 2.823 / degrees**2


def trend(values: Sequence[float]) -> tuple[float, float]:
    """What a straight line through the values rises by from the first to the last, and that over its standard error.

    Least squares; of fewer than three values the error is unknown and the second figure 0.
    """
    n = len(values)
    if n < 2:
        return 0.0, 0.0
    middle, mean = (n - 1) / 2, math.fsum(values) / n
    spread = n * (n * n - 1) / 12  # of the places about their middle, squared
    slope = math.fsum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread
    if n == 2:
        return slope, 0.0
    rest = math.fsum((value - mean - slope * (i - middle)) ** 2 for i, value in enumerate(values))
    error = math.sqrt(rest / (n - 2) / spread)
    if error <= 1e-12 * abs(slope):
        return slope * (n - 1), math.copysign(math.inf, slope) if slope else 0.0
    return slope * (n - 1), slope / error


def is_steady(values: Sequence[float]) -> bool:
    """Whether these windows, one after another, stand still: their slope is small, or none beside their noise.

    Steady state is found in the run itself, as Georges, Buytaert and Eeckhout have it ("Statistically Rigorous Java
    Performance Evaluation", OOPSLA 2007), by a test of the slope instead of their coefficient of variation, which a
    noisy but steady machine never meets. False of fewer than LOOK windows; of more, the latest count.
    """
    if len(values) < LOOK:
        return False
    latest = values[-LOOK:]
    change, t = trend(latest)
    return abs(change) <= LEAST_CHANGE * abs(math.fsum(latest) / LOOK) or abs(t) < LEAST_T
