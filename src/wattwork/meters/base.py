"""What a meter is: an Energy, the protocol behind which each source stands, and the clock they are driven by."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from wattwork.errors import InvalidInput

# How a figure came about. `counter`: an energy counter summed it. `sampled`: a sensor looked at the power now and
# then. `external`: somebody else's reading. `estimated`: a model, no meter at all. Only the first two are measured.
Kind = Literal["counter", "sampled", "external", "estimated"]
KINDS: tuple[Kind, ...] = ("counter", "sampled", "external", "estimated")


@dataclass(frozen=True, slots=True)
class Energy:
    """What one window cost. What is unknown is None, and then `detail` says in a sentence why."""

    joules: float | None
    watts: float | None  # mean over the window
    ci95_j: tuple[float, float] | None  # 95 % interval of `joules`; None where nothing is known of the reading's error
    seconds: float
    source: Kind
    coverage: float | None  # share of the window the sensor really saw, 0 to 1; None where no sensor is read
    idle_watts: float | None = None  # the baseline, where an idle window was set with `Meter.set_idle`
    detail: str = ""
    updates: int | None = None  # of the counter or sensor within the window, the slowest part's; None: not known
    warnings: tuple[str, ...] = ()  # why the figure should not be trusted, a sentence each
    parts: tuple[tuple[str, Energy], ...] = ()  # of a sum over several meters, by name

    @property
    def measured(self) -> bool:
        """True only where a meter read by wattwork saw the window; never for an estimate or somebody else's reading."""
        return self.joules is not None and self.source in ("counter", "sampled")


@dataclass(slots=True)
class Token:
    """An open window: whose it is, and when it began."""

    owner: object
    t_s: float
    open: bool = field(default=True, kw_only=True)


T = TypeVar("T", bound=Token)


def redeem(token: object, kind: type[T], owner: object) -> T:
    """The token, marked as used. InvalidInput if it is another meter's or was used before."""
    if not isinstance(token, kind) or token.owner is not owner:
        raise InvalidInput("end() takes the token that begin() of the same meter gave.")
    if not token.open:
        raise InvalidInput("this window has already ended; begin() another.")
    token.open = False
    return token


class Source(Protocol):
    """One way to know energy. `begin` and `end` may be called from any thread, any number of windows at once.

    Only making a source raises (MeterError or InvalidInput). A sensor that fails later gives an Energy whose joules
    are None and whose detail names the failure, so that a run keeps its other results.
    """

    name: str  # as it is asked for: "rapl", "external", ...
    kind: Kind
    period_s: float | None  # between the sensor's updates, the slowest part's, as measured at start; None: no sensor

    def begin(self) -> object:
        """Open a window; the token closes it."""

    def end(self, token: object) -> Energy:
        """Close the window. InvalidInput if it was closed before or is another source's."""

    def close(self) -> None:
        """Stop helper threads. The source may still be used after; it starts them again."""


class Clock:
    """Seconds that never jump, and a sleep. Tests pass one of their own."""

    def now(self) -> float:
        """Seconds of a monotonic clock: setting the wall clock does not move it."""
        return time.perf_counter()

    def wall(self) -> float:
        """Seconds since 1970, by which a log from elsewhere is found; this one may jump."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
