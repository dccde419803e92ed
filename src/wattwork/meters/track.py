"""One counter over time: its total without the wraps, its updates as they were seen, and how the power varied.

An update is never seen itself: it lies between the last read that showed the old value and the first that shows the
new one. Those two times are an `Edge`, and all that is said of time further on is said of such brackets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from wattwork.meters.cadence import Cadence

FOLLOWED_FROM_S = 10e-3  # a counter updated more often is not followed: it would take a core, and buys next to nothing
SHARP = 0.25  # an edge known to this share of a period is worth keeping
MEMORY = 64  # powers that are remembered, also from one window to the next
EDGES = 32  # and edges
LOOK_S = 10e-3  # between looks at a counter that is not followed, in a young window
LOOK_SHARE = 1 / 64  # of the window's age, in an older one: its ends matter less and less
FINEST_S = 100e-6  # between looks while an update is awaited
FINENESS = 2e-3  # of the period
AGED_FINENESS = 2e-4  # of the window's age


@dataclass(frozen=True, slots=True)
class Counter:
    """One wrapping energy counter. `read` gives microjoules; it raises MeterError with a sentence when it cannot."""

    name: str
    read: Callable[[], int]
    modulus_uj: int  # what a wrap takes away
    max_w: float  # more than it can ever show: sets the shortest wrap time
    cadence: Cadence
    look_s: float | None = None  # fixed time between looks, where each look is itself a sample; None: by the cadence


class Edge(NamedTuple):
    """An update: between these two times the counter came to show `total_uj`."""

    early_s: float
    late_s: float
    total_uj: int

    @property
    def mid_s(self) -> float:
        return (self.early_s + self.late_s) / 2

    @property
    def width_s(self) -> float:
        return self.late_s - self.early_s


class Slope(NamedTuple):
    """Mean power between two edges, and how far it can be off for their widths and the counter's unit."""

    watts: float
    error_w: float

    @classmethod
    def between(cls, first: Edge, last: Edge, unit_uj: int) -> Slope | None:
        """None where the edges are too blurred, or too close, to say."""
        span_s, blur_s = last.mid_s - first.mid_s, (first.width_s + last.width_s) / 2
        if 4 * blur_s > span_s:
            return None
        watts = (last.total_uj - first.total_uj) * 1e-6 / span_s
        return cls(watts, (watts * blur_s + unit_uj * 1e-6) / (span_s - blur_s))


@dataclass(slots=True)
class Start:
    """Where a window began on one counter, and the first two edges within it once they were seen."""

    total_uj: int
    missed_uj: int
    updates: int
    edges: list[Edge]


class Track:
    """What is known of one counter's past. The source's lock guards it."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.period_s = counter.cadence.period_s
        self.followed = counter.look_s is None and self.period_s >= FOLLOWED_FROM_S
        self.total_uj = 0
        self.missed_uj = 0  # that may have wrapped away unseen, summed
        self.updates = 0
        self.edges: deque[Edge] = deque(maxlen=EDGES if self.followed else 1)
        self.highest_w = counter.cadence.watts  # of these:
        self._powers_w: deque[float] = deque([self.highest_w], MEMORY)  # from edge to edge
        self._young: list[Start] = []
        self._raw_uj: int | None = None
        self._read_s = 0.0  # when it was last read, the read's begin
        self._due_s = self._margin_s = 0.0  # of the next update
        self._jitter_s = self.period_s / 100

    def forget(self) -> None:
        """Nobody needs what went before; the powers stay."""
        self._raw_uj = None
        self.edges.clear()

    def observe(self, before_s: float, after_s: float, raw_uj: int) -> bool:
        """A read between these times. True if since the last one a whole wrap could have gone by unseen."""
        counter, missed_uj = self.counter, 0
        if self._raw_uj is None:
            self._due_s, self._margin_s = after_s + self.period_s, self.period_s
        else:
            delta_uj = raw_uj - self._raw_uj
            if delta_uj < 0:
                delta_uj += counter.modulus_uj
            self.total_uj += delta_uj
            possible_uj = counter.max_w * (after_s - self._read_s) * 1e6 - delta_uj
            if possible_uj >= counter.modulus_uj:
                missed_uj = int(possible_uj // counter.modulus_uj) * counter.modulus_uj
                self.missed_uj += missed_uj
            if delta_uj:
                self._moved(Edge(max(self._read_s, before_s - self.period_s), after_s, self.total_uj))
        self._raw_uj, self._read_s = raw_uj, before_s
        return missed_uj > 0

    def begin(self) -> Start:
        """A window begins at the last read."""
        start = Start(self.total_uj, self.missed_uj, self.updates, [])
        if self.followed:
            self._young.append(start)
        return start

    def end(self, start: Start) -> None:
        """It ends."""
        if start in self._young:
            self._young.remove(start)

    def wait_s(self, now_s: float, age_s: float) -> float:
        """When to look again, for a window of that age: often while an update is due, and hardly in between."""
        if not self.followed:
            return self.counter.look_s or max(LOOK_S, age_s * LOOK_SHARE)
        fine_s = min(max(FINEST_S, FINENESS * self.period_s, AGED_FINENESS * age_s), SHARP / 2 * self.period_s)
        # A counter that stands still is looked at ever more seldom.
        return max(fine_s, self._due_s - self._margin_s - now_s, (now_s - self._due_s) / 8)

    def _moved(self, edge: Edge) -> None:
        self.updates += 1
        if self.followed:
            sharp = edge.width_s <= SHARP * self.period_s
            if sharp and self.edges and edge.mid_s - self.edges[-1].mid_s < 1.5 * self.period_s:
                self._jitter_s = max(0.9 * self._jitter_s, abs(edge.mid_s - self._due_s))
            self._due_s, self._margin_s = edge.mid_s + self.period_s, 2 * self._jitter_s + edge.width_s
            if not sharp:
                return
            for start in self._young:
                start.edges.append(edge)
            self._young = [start for start in self._young if len(start.edges) < 2]
        slope = Slope.between(self.edges[-1], edge, self.counter.cadence.unit_uj) if self.edges else None
        if slope:
            self._powers_w.append(slope.watts)
            self.highest_w = max(self._powers_w)
        if slope or not self.edges or self.followed:  # else the next one is farther from it, and says more
            self.edges.append(edge)
