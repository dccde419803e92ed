"""Somebody else's reading: the operator's constant power in watts, or the log of a wall plug or a rack's meter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from wattwork.errors import InvalidInput
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem
from wattwork.meters.wall_log import read_log

SKEW_S = 0.5  # by which the log's clock may be off from this machine's, beyond the offset given
JUMP_S = 0.5  # a wall clock that moved by more within a window was set


class ExternalSource:
    """Energy as the constant the operator gave times the time of the window.

    Nothing is known of that reading's error or of how it varied: interval and coverage are None.
    """

    name = "external"
    kind: Kind = "external"
    period_s: float | None = None

    def __init__(self, watts: float, clock: Clock | None = None) -> None:
        """`watts` is finite and not negative, or InvalidInput."""
        if not (math.isfinite(watts) and watts >= 0):
            raise InvalidInput(f"watts must be a finite number from 0 up, not {watts}.")
        self.watts = float(watts)
        self._clock = clock or Clock()

    def begin(self) -> Token:
        """Open a window."""
        return Token(self, self._clock.now())

    def end(self, token: object) -> Energy:
        """Close a window."""
        seconds = self._clock.now() - redeem(token, Token, self).t_s
        detail = f"the operator's own constant reading of {self.watts:g} W; its error is not known"
        return Energy(self.watts * seconds, self.watts, None, seconds, self.kind, None, None, detail)

    def close(self) -> None:
        """Nothing to stop."""


@dataclass(slots=True)
class _Token(Token):
    wall_s: float


class LogSource:
    """Energy from a meter's log (`wall_log` says of what form), by the wall clock's time.

    The file is read at each window's end, so that a logger may go on writing it. The window's length is that of the
    monotonic clock from its begin on: a wall clock set meanwhile moves nothing, and is named. The interval holds the
    sampling, the rounding, and half a second of difference between the clocks; not the meter's calibration.
    """

    name = "external"
    kind: Kind = "external"

    def __init__(self, csv: str | Path, clock: Clock | None = None, *, offset_s: float = 0.0) -> None:
        """`offset_s` is added to the log's times to make them this machine's. InvalidInput if the file is no log."""
        if not math.isfinite(offset_s):
            raise InvalidInput(f"csv_offset_s must be a finite number of seconds, not {offset_s}.")
        self.csv, self.offset_s = Path(csv), offset_s
        self.period_s: float | None = read_log(csv).period_s
        self._clock = clock or Clock()

    def begin(self) -> _Token:
        """Open a window."""
        return _Token(self, self._clock.now(), self._clock.wall())

    def end(self, token: object) -> Energy:
        """Close a window, and read what the log says of it by now."""
        token = redeem(token, _Token, self)
        seconds = self._clock.now() - token.t_s
        jump_s = self._clock.wall() - token.wall_s - seconds
        begin_s = token.wall_s - self.offset_s
        try:
            log = read_log(self.csv)
        except InvalidInput as error:
            return Energy(None, None, None, seconds, self.kind, 0.0, None, str(error), warnings=(str(error),))
        within = sum(begin_s <= t <= begin_s + seconds for t in log.times_s)
        seen = log.energy_j(begin_s, begin_s + seconds, SKEW_S)
        if seen is None or seen[2] >= seconds:
            said = f"the log {self.csv} has nothing of this window: see its times, and csv_offset_s"
            return Energy(None, None, None, seconds, self.kind, 0.0, None, said, within, (said,))
        joules, half_j, hole_s = seen
        warnings = []
        if hole_s > 0:
            warnings.append(f"the log has holes of {hole_s:.3g} s in this window, filled in from beside them")
        if within < 10:
            warnings.append(f"the window holds {within} samples of the log, fewer than 10: make it longer")
        if abs(jump_s) > JUMP_S:
            warnings.append(f"the wall clock was set by {jump_s:+.3g} s within the window, which goes by the old time")
        detail = (
            f"the log {self.csv}, a sample each {log.period_s:.3g} s, its times shifted by {self.offset_s:g} s; the "
            f"interval allows {SKEW_S:g} s more between the clocks, and holds sampling and rounding, not calibration"
        )
        return Energy(
            joules,
            joules / seconds if seconds > 0 else None,
            (max(0.0, joules - half_j), joules + half_j),
            seconds,
            self.kind,
            1.0 - hole_s / seconds if seconds > 0 else 1.0,
            detail="; ".join([detail, *warnings]),
            updates=within,
            warnings=tuple(warnings),
        )

    def close(self) -> None:
        """Nothing to stop."""
