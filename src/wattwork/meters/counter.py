"""Windows over energy counters that only ever count up, and wrap.

Totals are kept unwrapped from one read to the next. A window holds the totals at its begin, so any number of windows
may be open. While one is, a helper thread reads each quarter of the shortest wrap time, so that no wrap is missed.

What the interval holds. A counter that is updated each `period_s` shows at any moment the energy of up to one period
ago. The lags at begin and end differ by less than one period, hence an error below period_s x power to either side.
What the power was at the very edges is not known: twice the window's mean is taken (a load that is on half of the
time), in a window of few updates twice the highest mean this counter has shown. To it come one counter unit at each end
and half the time that the reads took. The calibration of the sensor is not in the interval, for no counter tells it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from wattwork.errors import MeterError
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem
from wattwork.meters.cadence import Cadence

SHORTEST_HELPER_PERIOD_S = 1e-3  # below it the helper would be a load of its own
FEW_UPDATES = 10  # a window with fewer says so


@dataclass(frozen=True, slots=True)
class Counter:
    """One wrapping energy counter. `read` gives microjoules; it raises MeterError with a sentence when it cannot."""

    name: str
    read: Callable[[], int]
    modulus_uj: int  # what a wrap takes away
    max_w: float  # more than it can ever show: sets the shortest wrap time
    cadence: Cadence


@dataclass(slots=True)
class _Token(Token):
    read_s: float  # how long the reads took
    total_uj: list[int]
    blind_s: float
    missed_uj: int
    error: str | None


class CounterSource:
    """The sum of several counters, as one source."""

    kind: Kind = "counter"

    def __init__(
        self, name: str, counters: Sequence[Counter], clock: Clock | None = None, *, helper: bool = True
    ) -> None:
        """`helper=False` starts no thread; then `poll()` must be called as often as the thread would."""
        self.name = name
        self.counters = tuple(counters)
        self.period_s: float | None = max(c.cadence.period_s for c in self.counters)
        self._clock = clock or Clock()
        self._helper = helper
        shortest_wrap_s = min(c.modulus_uj * 1e-6 / c.max_w for c in self.counters)
        self.helper_period_s = max(shortest_wrap_s / 4, SHORTEST_HELPER_PERIOD_S)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._open = 0
        self._last_uj: list[int] | None = None  # None: nobody needs what went before
        self._last_s = 0.0
        self._total_uj = [0] * len(self.counters)
        self._peak_w = [c.cadence.watts for c in self.counters]
        # Sums over all stretches in which a whole wrap could have gone by unseen.
        self._blind_s = 0.0
        self._missed_uj = 0
        _sources.add(self)

    def begin(self) -> _Token:
        """Open a window."""
        with self._lock:
            if self._open == 0:
                self._last_uj = None
            self._open += 1
            try:
                t_s, read_s, error = *self._read(), None
            except MeterError as failure:
                t_s, read_s, error = self._clock.now(), 0.0, str(failure)
            token = _Token(self, t_s, read_s, self._total_uj.copy(), self._blind_s, self._missed_uj, error)
            if self._helper and (self._thread is None or not self._thread.is_alive()):
                self._start_helper()
        return token

    def end(self, token: object) -> Energy:
        """Close a window."""
        with self._lock:
            token = redeem(token, _Token, self)
            self._open -= 1
            try:
                t_s, read_s, error = *self._read(), token.error
            except MeterError as failure:
                t_s, read_s, error = self._clock.now(), 0.0, token.error or str(failure)
            parts_uj = [now - then for now, then in zip(self._total_uj, token.total_uj, strict=True)]
            blind_s, missed_uj = self._blind_s - token.blind_s, self._missed_uj - token.missed_uj
            peak_w = self._peak_w.copy()
        seconds = t_s - token.t_s
        if error is not None:
            return Energy(None, None, None, seconds, self.kind, 0.0, None, f"{self.name}: {error}")
        return self._energy(
            seconds, parts_uj, peak_w, read_s=token.read_s + read_s, blind_s=blind_s, missed_uj=missed_uj
        )

    def poll(self) -> None:
        """What the helper thread does each `helper_period_s`: see every wrap while a window is open."""
        with self._lock:
            if self._open:
                # Should the counter come back, the next read sees how long nobody looked; if not, end() says it.
                with suppress(MeterError):
                    self._read()

    def close(self) -> None:
        """Stop the helper thread."""
        with self._lock:
            self._stop.set()
            self._thread = None

    def _read(self) -> tuple[float, float]:
        """Bring the totals up to now: (time, how long reading took). Raises before anything is changed."""
        before_s = self._clock.now()
        raw = [counter.read() for counter in self.counters]
        after_s = self._clock.now()
        t_s = (before_s + after_s) / 2
        if self._last_uj is not None:
            elapsed_s, missed_uj = t_s - self._last_s, 0
            for i, counter in enumerate(self.counters):
                delta_uj = raw[i] - self._last_uj[i]
                if delta_uj < 0:
                    delta_uj += counter.modulus_uj
                self._total_uj[i] += delta_uj
                possible_uj = counter.max_w * elapsed_s * 1e6 - delta_uj
                missed_uj += max(0, int(possible_uj // counter.modulus_uj)) * counter.modulus_uj
                # At least this much power was there, wherever in its period the counter stood.
                shown_w = delta_uj * 1e-6 / (elapsed_s + counter.cadence.period_s)
                self._peak_w[i] = max(self._peak_w[i], shown_w)
            if missed_uj:
                self._blind_s += elapsed_s
                self._missed_uj += missed_uj
        self._last_uj, self._last_s = raw, t_s
        return t_s, after_s - before_s

    def _energy(
        self, seconds: float, parts_uj: list[int], peak_w: list[float], *, read_s: float, blind_s: float, missed_uj: int
    ) -> Energy:
        joules = sum(parts_uj) * 1e-6
        slowest = max((c.cadence for c in self.counters), key=lambda cadence: cadence.period_s)
        few = seconds < FEW_UPDATES * slowest.period_s
        half_j = 0.0
        for counter, part_uj, peak in zip(self.counters, parts_uj, peak_w, strict=True):
            mean_w = part_uj * 1e-6 / seconds if seconds > 0 else 0.0
            edge_w = 2 * (max(mean_w, peak) if few else mean_w)
            half_j += edge_w * (counter.cadence.period_s + read_s / 2) + 2e-6 * counter.cadence.unit_uj
        notes = [f"{self.name}: " + " + ".join(c.name for c in self.counters)]
        notes.append(slowest.note)
        if few:
            notes.append(f"the window holds fewer than {FEW_UPDATES} counter updates: make it longer")
        if missed_uj:
            notes.append(
                f"for {blind_s:.3g} s nobody read the counter, in which up to {missed_uj * 1e-6:.6g} J more may have "
                "wrapped away; the interval holds them, the joules do not"
            )
        coverage = 1.0 if seconds <= 0 else max(0.0, 1.0 - blind_s / seconds)
        watts = joules / seconds if seconds > 0 else None
        interval = (max(0.0, joules - half_j), joules + half_j + missed_uj * 1e-6)
        return Energy(joules, watts, interval, seconds, self.kind, coverage, None, "; ".join(notes))

    def _start_helper(self) -> None:
        # The thread holds no reference to the source between reads: a forgotten meter is collected and ends it.
        self._stop = threading.Event()
        weakref.finalize(self, self._stop.set).atexit = False
        loop = partial(_help, weakref.ref(self), self._stop, self.helper_period_s)
        self._thread = threading.Thread(target=loop, name="wattwork-meter", daemon=True)
        self._thread.start()

    def _after_fork(self) -> None:
        # The helper did not come along, and may have held these.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None


def _help(source: weakref.ref[CounterSource], stop: threading.Event, period_s: float) -> None:
    while not stop.wait(period_s):
        alive = source()
        if alive is None:
            return
        alive.poll()
        del alive


_sources: weakref.WeakSet[CounterSource] = weakref.WeakSet()


def _after_fork() -> None:
    for source in _sources:
        source._after_fork()


os.register_at_fork(after_in_child=_after_fork)
