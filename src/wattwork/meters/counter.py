"""Windows over energy counters that only ever count up, and wrap.

Totals are kept unwrapped from one read to the next (`track`), so any number of windows may be open. While one is, and
for a second after, a helper thread looks at the counters: so often that no wrap is missed, now and then to see how the
power varies, and around each update of a slow counter to see when it comes. Neither begin nor end waits for an update:
end takes the last one seen, and `interval` says what is then to be had of the joules, and what they can be off by.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from wattwork.errors import MeterError
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem
from wattwork.meters.interval import FEW_UPDATES, Part, part
from wattwork.meters.track import Counter, Start, Track

SHORTEST_HELPER_PERIOD_S = 1e-3  # for wraps; below it the helper would be a load of its own
LINGER_S = 1.0  # after the last window's end the helper goes on this long: the next window finds it at work
VARYING = 0.5  # share of the interval from which the load's variation is named as its cause


@dataclass(slots=True)
class _Token(Token):
    read_s: float  # how long the reads took
    starts: list[Start]
    blind_s: float
    error: str | None


class CounterSource:
    """The sum of several counters, as one source."""

    kind: Kind = "counter"

    def __init__(
        self, name: str, counters: Sequence[Counter], clock: Clock | None = None, *, helper: bool = True
    ) -> None:
        """`helper=False` starts no thread; then `poll()` must be called as the thread would."""
        self.name = name
        self.counters = tuple(counters)
        self._reads = tuple(counter.read for counter in self.counters)
        self.period_s: float | None = max(c.cadence.period_s for c in self.counters)
        self._clock = clock or Clock()
        self._helper = helper
        shortest_wrap_s = min(c.modulus_uj * 1e-6 / c.max_w for c in self.counters)
        self.helper_period_s = max(shortest_wrap_s / 4, SHORTEST_HELPER_PERIOD_S)  # at most
        slowest = max(self.counters, key=lambda counter: counter.cadence.period_s)
        self._said = f"{name}: " + " + ".join(c.name for c in self.counters) + f"; {slowest.cadence.note}"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._finalizer: weakref.finalize[[], CounterSource] | None = None
        self._tracks = [Track(counter) for counter in self.counters]
        self._open = 0
        self._begun_s = 0.0  # the youngest window
        self._idle_from_s = 0.0  # when lingering ends
        self._last_s: float | None = None  # the last read; None: nobody needs what went before
        self._blind_s = 0.0  # summed over all stretches in which a whole wrap could have gone by unseen
        _sources.add(self)

    def begin(self) -> _Token:
        """Open a window."""
        with self._lock:
            try:
                t_s, read_s, error = *self._read(), None
            except MeterError as failure:
                t_s, read_s, error = self._clock.now(), 0.0, str(failure)
            self._open += 1
            self._begun_s = t_s
            token = _Token(self, t_s, read_s, [track.begin() for track in self._tracks], self._blind_s, error)
            if self._helper and self._thread is None:
                self._start_helper()
        return token

    def end(self, token: object) -> Energy:
        """Close a window."""
        with self._lock:
            token = redeem(token, _Token, self)
            try:
                t_s, read_s, error = *self._read(), token.error
            except MeterError as failure:
                t_s, read_s, error = self._clock.now(), 0.0, token.error or str(failure)
            self._open -= 1
            self._idle_from_s = t_s + LINGER_S
            parts = []
            missed_uj = 0
            for track, start in zip(self._tracks, token.starts, strict=True):
                if track.followed:
                    track.end(start)
                parts.append(part(track, start, token.t_s, t_s, token.read_s + read_s))
                missed_uj += track.missed_uj - start.missed_uj
            blind_s = self._blind_s - token.blind_s
        seconds = t_s - token.t_s
        if error is not None:
            said = f"{self.name}: {error}"
            return Energy(None, None, None, seconds, self.kind, 0.0, None, said, warnings=(said,))
        return self._energy(seconds, parts, blind_s, missed_uj)

    def poll(self) -> float | None:
        """What the helper thread does while a window is open: look, and say in how many seconds to look again.

        None: no window is open or was of late, and the next begin() starts anew.
        """
        with self._lock:
            now_s = self._clock.now()
            if self._open == 0 and now_s >= self._idle_from_s:
                self._thread = None
                return None
            # Should the counter come back, the next read sees how long nobody looked; if not, end() says it.
            with suppress(MeterError):
                now_s, _ = self._read()
            age_s = now_s - self._begun_s
            return min(self.helper_period_s, *(track.wait_s(now_s, age_s) for track in self._tracks))

    def close(self) -> None:
        """Stop the helper thread."""
        with self._lock:
            self._stop.set()
            self._thread = None

    def _read(self) -> tuple[float, float]:
        """Bring the tracks up to now: (time, how long reading took). Raises before anything is changed."""
        before_s = self._clock.now()
        raw = [read() for read in self._reads]
        after_s = self._clock.now()
        t_s = (before_s + after_s) / 2
        if self._open == 0 and before_s >= self._idle_from_s:
            self._last_s = None
            for track in self._tracks:
                track.forget()
        blind = [track.observe(before_s, after_s, raw_uj) for track, raw_uj in zip(self._tracks, raw, strict=True)]
        if self._last_s is not None and True in blind:
            self._blind_s += t_s - self._last_s
        self._last_s = t_s
        return t_s, after_s - before_s

    def _energy(self, seconds: float, parts: list[Part], blind_s: float, missed_uj: int) -> Energy:
        joules = half_j = swing_share = 0.0
        updates, unseen = parts[0].updates, False
        for track, seen in zip(self._tracks, parts, strict=True):
            joules += seen.joules
            half_j += seen.half_j
            updates = min(updates, seen.updates)
            swing_share = max(swing_share, seen.swing_share)
            unseen |= track.followed and not seen.aligned
        warnings = []
        if updates < FEW_UPDATES:
            warnings.append(
                f"the window holds {updates} counter updates, fewer than {FEW_UPDATES}: make it longer; what the load "
                "does in rhythm with them is not seen"
            )
        if unseen:
            warnings.append("the counter's updates near the window's ends were not seen; the interval holds a period")
        if swing_share > VARYING:
            warnings.append("the load varied from one counter update to the next, which makes most of the interval")
        if missed_uj:
            warnings.append(
                f"for {blind_s:.3g} s nobody read the counter, in which up to {missed_uj * 1e-6:.6g} J more may have "
                "wrapped away; the interval holds them, the joules do not"
            )
        coverage = 1.0 if seconds <= 0 else max(0.0, 1.0 - blind_s / seconds)
        watts = joules / seconds if seconds > 0 else None
        interval = (max(0.0, joules - half_j), joules + half_j + missed_uj * 1e-6)
        detail = "; ".join([self._said, *warnings])
        return Energy(joules, watts, interval, seconds, self.kind, coverage, None, detail, updates, tuple(warnings))

    def _start_helper(self) -> None:
        # The thread holds no reference to the source between reads: a forgotten meter is collected and ends it.
        if self._finalizer is not None:
            self._finalizer.detach()
        self._stop = threading.Event()
        self._finalizer = weakref.finalize(self, self._stop.set)
        self._finalizer.atexit = False
        loop = partial(_help, weakref.ref(self), self._stop)
        self._thread = threading.Thread(target=loop, name="wattwork-meter", daemon=True)
        self._thread.start()

    def _after_fork(self) -> None:
        # The helper did not come along, and may have held these.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None


def _help(source: weakref.ref[CounterSource], stop: threading.Event) -> None:
    wait_s: float | None = 0.0
    while wait_s is not None and not stop.wait(wait_s):
        alive = source()
        if alive is None:
            return
        wait_s = alive.poll()
        del alive


_sources: weakref.WeakSet[CounterSource] = weakref.WeakSet()


def _after_fork() -> None:
    for source in _sources:
        source._after_fork()


os.register_at_fork(after_in_child=_after_fork)
