"""The joules of a window over one counter, and what they can be off by.

A counter shows, at any moment, the energy up to its last update. Let E(t) be the energy up to t; wanted is
E(b) - E(a) for a window from a to b. Two ways, by whether the updates near a and b were seen:

*Aligned.* e1 is the first update within the window and en the last, each known to a bracket of some width w. Then
    E(b) - E(a) = R(en) - R(e1) + p1 (e1 - a) + pn (b - en)
with the readings R, and with p1 and pn the mean power between the window's first two and last two updates: the ends
are prorated by the power next to them, from inside, for a load often begins and stops with its window. Each end, at a
distance d <= 1.5 T of the update next to it, can be off
- by  p w/2 + d x (error of p), for when the updates were: bounds, from the brackets;
- by no more than  max(p, m - p) d, if the power there is anything from 0 to m (m as below);
- and by no more than  2A (1 + d/T) + c d (d + T)/2, where A is how far the counter's last 32 readings lie off a
  parabola, beyond what their brackets explain, and c the change of power over time by that parabola. For what the load
  does between updates shows as such scatter, unless it keeps time with them: E leaves the smooth curve by up to A
  anywhere, as at the updates, hence the end by 2A and p by 2A/T. Of loads with some rhythm about 1 in 25 keeps time so
  well (within 1/50 of a cycle per update) that 32 readings do not show it; such a load, a 10 Hz one under a 10 Hz
  counter, is not in the interval.
The smaller of the last two is taken; with fewer than 24 readings the first of the two, which needs none.

*Not aligned*: a counter updated too often to be followed, or one whose updates nobody could look at. At a and b it
lags by u and v, somewhere in [0, T] for the period T:  E(b) - E(a) = R(b) - R(a) + q v - p u  with the powers p and q
at the ends, of which only 0 <= p, q <= m is taken as known. Between u, v uniform and independent, and a load that is on
(m) half of the time and off (0) the other half, the worst mixture for a given mean m/2, the error has
    P(|error| > x m T) = (1 - x)^2/4 + (1 - x)/2,  which is 0.05 at x = 0.905;
a steady load's error is then within 0.388 of m T at 95 %. m is twice the window's mean, or the highest power among the
last 64 looks if that is more; twice either in a window of few updates, whose mean says little.

To both come two counter units and the time that the reads took. Counters are added end to end, no independence assumed.
The calibration of the sensor is not in it, for no counter tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wattwork.meters.track import Edge, Slope, Start, Track

FEW_UPDATES = 10  # a window with fewer says so
WORST_LAG = 0.905  # of a period, at 95 %: see above
ENOUGH = 24  # readings to see scatter in
FIT = 1.5  # a fit over that many points moves by up to half of what each is off
NEAR = 1.5  # periods from a window's end to the update next to it; farther off, that one is not the next


class Part(NamedTuple):
    """One counter's share of a window."""

    joules: float
    half_j: float
    updates: int
    aligned: bool
    swing_share: float  # the ends' share of `half_j` that comes from the load's variation


def part(track: Track, start: Start, begin_s: float, end_s: float, read_s: float) -> Part:
    """What the counter says of the window, up to the last read. `read_s`: how long the reads at its ends took."""
    seen = _aligned(track, start, begin_s, end_s, read_s) if start.edges else None
    return seen or _unaligned(track, start, end_s - begin_s, read_s)


def _aligned(track: Track, start: Start, begin_s: float, end_s: float, read_s: float) -> Part | None:
    if len(start.edges) < 2 or len(track.edges) < 2:
        return None
    unit_uj, period_s = track.counter.cadence.unit_uj, track.period_s
    first, last = start.edges[0], track.edges[-1]
    begin, end = Slope.between(first, start.edges[1], unit_uj), Slope.between(track.edges[-2], last, unit_uj)
    before_s, after_s = first.mid_s - begin_s, end_s - last.mid_s
    if not begin or not end or max(before_s, after_s) > NEAR * period_s:
        return None
    joules = (last.total_uj - first.total_uj) * 1e-6 + begin.watts * before_s + end.watts * after_s
    most_w = max(2 * joules / (end_s - begin_s), track.highest_w)
    within = [edge for edge in track.edges if edge.late_s > begin_s]
    scatter = _scatter(within if len(within) >= ENOUGH else track.edges, unit_uj)
    half_j, swing_j = 2e-6 * unit_uj, 0.0
    for slope, edge, away_s in ((begin, first, abs(before_s)), (end, last, abs(after_s))):
        half_j += slope.watts * (edge.width_s + read_s) / 2 + slope.error_w * away_s
        unseen_j = max(slope.watts, most_w - slope.watts) * away_s
        if scatter:
            off_j, change_w_per_s = scatter
            shown_j = 2 * off_j * (1 + away_s / period_s) + change_w_per_s * away_s * (away_s + period_s) / 2
            unseen_j = min(unseen_j, shown_j)
        swing_j += unseen_j
    half_j += swing_j
    return Part(joules, half_j, track.updates - start.updates, True, swing_j / half_j)


def _scatter(edges: Sequence[Edge], unit_uj: int) -> tuple[float, float] | None:
    """How far readings lie off a parabola, beyond their brackets' part, J; and the change of power by it, W/s."""
    if len(edges) < ENOUGH:
        return None
    import numpy as np  # heavy, and only slow counters need it

    times_s = np.array([edge.mid_s - edges[0].mid_s for edge in edges])
    joules = np.array([edge.total_uj - edges[0].total_uj for edge in edges]) * 1e-6
    curve = np.polyfit(times_s, joules, 2)
    power_w = joules[-1] / times_s[-1]
    blur_j = power_w * max(edge.width_s for edge in edges) / 2 + unit_uj * 1e-6
    off_j = np.abs(joules - np.polyval(curve, times_s)).max() - FIT * blur_j
    return max(0.0, float(off_j)), abs(2 * float(curve[0]))


def _unaligned(track: Track, start: Start, seconds: float, read_s: float) -> Part:
    cadence = track.counter.cadence
    joules = (track.total_uj - start.total_uj) * 1e-6
    mean_w = joules / seconds if seconds > 0 else 0.0
    highest_w = track.highest_w
    few = seconds < FEW_UPDATES * track.period_s
    edge_w = 2 * max(mean_w, highest_w) if few else max(2 * mean_w, highest_w)
    half_j = edge_w * (WORST_LAG * track.period_s + read_s / 2) + 2e-6 * cadence.unit_uj
    updates = track.updates - start.updates if track.followed else int(seconds / track.period_s)
    return Part(joules, half_j, updates, False, 0.0)
