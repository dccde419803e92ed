"""The operator's own reading, of a wall plug or a rack's meter: a constant power in watts."""

from __future__ import annotations

import math

from wattwork.errors import InvalidInput
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem


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
