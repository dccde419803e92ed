"""A cap on power or temperature: a controller that slows a scheduler, the back first, then the front.

Everything is one number, the level: 2 is all of both; from 2 to 1 the back's share falls to 0; from 1 to 0 the front's
falls to LEAST_FRONT. So the front is never slowed while the back has a share left, and gets its own back first.

Power. A reading is the mean over an interval, so what a level takes is seen in the next one. Between LOW x cap and
the cap the level stands still. Outside, it moves by (AIM x cap - watts) / peak, the peak being the highest reading so
far: no part of a device takes more than the whole, so such a move never goes past the aim, whatever share of the
power the part takes, and however often it is made. A load that grows while it is slowed may take more at full speed
than was ever read; a change of level shows it, as so many watts per level, and these count for a peak, too. Where a
move closed less than a quarter of the gap, for that part is a small one, the next is twice as long: still none goes
past it by more than the noise. So in a steady load the level settles; with noise up to NOISE x cap at a level whose
true power is at most the cap.

Temperature follows with a delay of many seconds, and would swing if it were chased: its moves are (cap - AIM_BELOW_C -
celsius) / peak x (interval / SETTLE_S), four times as fast downwards. Of both moves the lower one is made.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from wattwork.errors import InvalidInput, WattworkError
from wattwork.meters import Energy, Kind, Meter
from wattwork.scheduler import Scheduler

LEAST_FRONT = 0.05  # the front's least share: it is slowed, never stopped
LOW, AIM, NOISE = 0.95, 0.975, 0.01  # of the cap in watts: where there is room, where moves lead, the noise allowed for
LEAST_CHANGE = 0.05  # of the level: from a smaller one nothing is concluded
MOST_STRETCH = 64.0  # of a move; a part of less than 1/64 of the power is not worth more
AIM_BELOW_C, LOW_BELOW_C = 2.0, 4.0  # the same in degrees below the cap
SETTLE_S = 20.0
DEFAULT_ROOT = "/sys/class"
PLAUSIBLE_C = (-40.0, 200.0)  # sensors that are not there show 0 K, or all ones


class Shares(NamedTuple):
    """Shares of time, as `Scheduler.throttle` takes them."""

    back: float
    front: float


class Reading(NamedTuple):
    """What a cap last saw and set. None: not read, or the sensor failed, which `error` says."""

    watts: float | None
    celsius: float | None
    shares: Shares
    over: bool  # above the cap with nothing left to slow
    error: str


class Source(Protocol):
    """What a cap takes for a meter: a `wattwork.Meter`, or anything with these."""

    @property
    def kind(self) -> Kind:
        """How its figures come about."""

    def begin(self) -> object:
        """Open a window."""

    def end(self, token: object) -> Energy:
        """Close it."""


class Control:
    """The law above, without a clock or a sensor: readings in, shares out."""

    def __init__(self, watts: float | None = None, celsius: float | None = None) -> None:
        self.watts, self.celsius = watts, celsius
        self.level = 2.0
        self._peak_w = self._peak_c = 0.0
        self._stretch = 1.0
        self._gap_w = 0.0  # the last move's; 0: there was none
        self._seen = (2.0, math.nan)  # the last reading's level and watts

    def next_shares(self, watts: float | None, celsius: float | None, seconds: float) -> Shares:
        """The shares for the next interval, after the readings of one of so many seconds. A reading that is wanted and
        is None leaves the back no share: who cannot see goes slowly."""
        moves = []
        if self.watts is not None:
            moves.append(min(1 - self.level, 0.0) if watts is None else self._power(watts, self.watts))
        if self.celsius is not None:
            moves.append(min(1 - self.level, 0.0) if celsius is None else self._heat(celsius, self.celsius, seconds))
        move = min(moves)
        # At 1 a move ends: beyond it another part is slowed, which may take much more of the power.
        low, high = (1.0, 2.0) if self.level > 1 or (self.level == 1 and move > 0) else (0.0, 1.0)
        level = min(max(self.level + move, low), high)
        if level in (0.0, 1.0, 2.0):
            self._stretch, self._gap_w = 1.0, 0.0
        self.level = level
        return self.shares

    @property
    def shares(self) -> Shares:
        """The shares at the present level."""
        if self.level >= 1:
            return Shares(self.level - 1, 1.0)
        return Shares(0.0, LEAST_FRONT + (1 - LEAST_FRONT) * self.level)

    def over(self, watts: float | None, celsius: float | None) -> bool:
        """Whether a reading is above its cap though nothing is left to slow."""
        pairs = ((watts, self.watts), (celsius, self.celsius))
        return self.level == 0 and any(x is not None and cap is not None and x > cap for x, cap in pairs)

    def _power(self, watts: float, cap: float) -> float:
        level, before = self._seen
        self._seen = (self.level, watts)
        if abs(self.level - level) >= LEAST_CHANGE and not math.isnan(before):
            steepness = (abs(watts - before) - 2 * NOISE * cap) / abs(self.level - level)
            self._peak_w = max(self._peak_w, steepness)
        self._peak_w = max(self._peak_w, watts)
        if LOW * cap <= watts <= cap or self._peak_w <= 0:
            self._stretch, self._gap_w = 1.0, 0.0
            return 0.0
        gap_w = AIM * cap - watts
        same_side = gap_w * self._gap_w > 0
        if not same_side:
            self._stretch = 1.0
        elif abs(gap_w) > 0.75 * abs(self._gap_w):
            self._stretch = min(2 * self._stretch, MOST_STRETCH)
        self._gap_w = gap_w
        return self._stretch * gap_w / self._peak_w

    def _heat(self, celsius: float, cap: float, seconds: float) -> float:
        self._peak_c = max(self._peak_c, celsius)
        if cap - LOW_BELOW_C <= celsius <= cap or self._peak_c <= 0:
            return 0.0
        move = (cap - AIM_BELOW_C - celsius) / self._peak_c * min(seconds / SETTLE_S, 1.0)
        return move if move > 0 else 4 * move


class Cap:
    """Keeps a scheduler's device at or below a power or a temperature, as long as it is open.

    `watts`: the cap on the mean power of each interval, as `meter` reads it (default: `Meter("auto")`). `celsius`: the
    cap on what `read_celsius` answers (default: the hottest sensor under /sys/class/thermal and /sys/class/hwmon;
    WATTWORK_THERMAL_ROOT moves /sys/class). `interval_s`: seconds between readings. At least one of the two caps; they
    may be changed while it is open, by `set`. A meter whose source is "external" must be one that follows the device.

    It slows the back first, from all of its time down to none, then the front down to a share of 0.05, and gives back
    in the reverse order. In a steady load the power settles between 0.94 of the cap and the cap, or where everything is
    given back; each step of it is an interval. Where a sensor fails the back rests until it is back. It owns
    `scheduler.throttle`: `close()` gives all shares back, as does leaving the `with` block.

    InvalidInput for a meter that only estimates, without a temperature sensor where one is needed, and for numbers out
    of range.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        watts: float | None = None,
        celsius: float | None = None,
        meter: Source | None = None,
        read_celsius: Callable[[], float | None] | None = None,
        interval_s: float = 0.5,
    ) -> None:
        _check_caps(watts, celsius)
        if not (isinstance(interval_s, (int, float)) and 0.001 <= interval_s <= 3600):
            raise InvalidInput(f"interval_s is {interval_s!r}; give seconds from 0.001 to 3600.")
        self._own_meter = Meter("auto") if watts is not None and meter is None else None
        self._meter = self._own_meter or meter
        if watts is not None:
            _check_meter(self._meter)
        self._read_celsius = read_celsius
        if celsius is not None:
            self._need_celsius()
        self._control = Control(watts, celsius)
        self._lock = threading.Lock()  # of the control, between set() and the thread
        self.reading = Reading(None, None, self._control.shares, False, "")
        self._stop = threading.Event()
        scheduler.throttle()
        # It keeps neither the cap nor the scheduler alive.
        run = (weakref.ref(self), weakref.ref(scheduler), self._meter, self._stop, interval_s)
        self._thread = threading.Thread(target=_run, args=run, name="wattwork-cap", daemon=True)
        self._finalizer = weakref.finalize(self, self._stop.set)
        self._thread.start()

    def set(self, *, watts: float | None = None, celsius: float | None = None) -> None:
        """Other caps from the next reading on; None: none of that kind. InvalidInput as above."""
        _check_caps(watts, celsius)
        if watts is not None:
            _check_meter(self._meter)
        if celsius is not None:
            self._need_celsius()
        with self._lock:
            self._control.watts, self._control.celsius = watts, celsius

    def close(self) -> None:
        """End it, and give everything back. May be called again."""
        if self._finalizer.detach() is None:
            return
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._own_meter is not None:
            self._own_meter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _need_celsius(self) -> None:
        if self._read_celsius is None:
            if hottest_celsius() is None:
                raise InvalidInput(
                    f"there is no temperature sensor under {thermal_root()}; give read_celsius=, or a cap in watts=."
                )
            self._read_celsius = hottest_celsius

    def _turn(self, energy: Energy | None, seconds: float) -> Shares:
        """One interval's readings, and what follows from them."""
        error = ""
        watts = celsius = None
        with self._lock:
            control = self._control
            if control.watts is not None and energy is not None:
                watts = _finite(energy.watts)
                error = "" if watts is not None else energy.detail or "the meter showed no power"
            if control.celsius is not None and self._read_celsius is not None:
                try:
                    celsius = _finite(self._read_celsius())
                except Exception as failure:  # whatever a sensor's reader raises, the cap goes on, slowly
                    error = f"{type(failure).__name__}: {failure}"
                else:
                    error = error if celsius is not None else "the temperature sensor cannot be read"
            over = control.over(watts, celsius)
            shares = control.next_shares(watts, celsius, seconds)
            self.reading = Reading(watts, celsius, shares, over, error)
        return shares


def _run(
    cap: weakref.ref[Cap],
    scheduler: weakref.ref[Scheduler],
    meter: Source | None,
    stop: threading.Event,
    interval_s: float,
) -> None:
    shares = Shares(1.0, 1.0)
    with suppress(WattworkError):  # the scheduler was closed
        while True:
            token = None if meter is None else meter.begin()
            stopped = stop.wait(interval_s)
            energy = None if meter is None else meter.end(token)
            here, device = cap(), scheduler()
            if stopped or here is None or device is None:
                break
            before, shares = shares, here._turn(energy, interval_s)
            if shares != before:
                device.throttle(*shares)
            else:
                device._check_open()
            del here, device
        if device is not None:
            device.throttle()


def thermal_root() -> Path:
    """Where `thermal` and `hwmon` are: WATTWORK_THERMAL_ROOT, or /sys/class."""
    return Path(os.environ.get("WATTWORK_THERMAL_ROOT") or DEFAULT_ROOT)


def hottest_celsius() -> float | None:
    """The hottest of the kernel's sensors in degrees Celsius; None where none can be read."""
    root = thermal_root()
    files = (*root.glob("thermal/thermal_zone*/temp"), *root.glob("hwmon/hwmon*/temp*_input"))
    readings = [celsius for file in files if (celsius := _celsius(file)) is not None]
    return max(readings, default=None)


def _celsius(file: Path) -> float | None:
    try:
        celsius = int(file.read_text()) / 1e3
    except (OSError, ValueError):
        return None
    return celsius if PLAUSIBLE_C[0] < celsius < PLAUSIBLE_C[1] else None


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def _check_caps(watts: float | None, celsius: float | None) -> None:
    if watts is None and celsius is None:
        raise InvalidInput("a cap needs watts=, celsius=, or both.")
    for name, cap in (("watts", watts), ("celsius", celsius)):
        if cap is not None and not (isinstance(cap, (int, float)) and 0 < cap < math.inf):
            raise InvalidInput(f"{name} is {cap!r}; give a finite number above 0.")


def _check_meter(meter: Source | None) -> None:
    if meter is None:
        raise InvalidInput("this cap was made without a meter; make one with watts= or meter=.")
    if meter.kind == "estimated":
        reason = getattr(meter, "reason", "")
        raise InvalidInput(
            "a cap on an estimate is none: give a meter= that measures, or a cap in celsius="
            + (f" ({reason.rstrip('.')})." if reason else ".")
        )
