"""An estimate where there is no meter: a guess from the processor's kind and how busy this process kept it.

The model, `cores-tdp/1`:  P = cores x W x (i + (1 - i) x u)
- cores: physical cores this process may run on;
- W: power of one core at full load, the rest of the package shared out over the cores: a range of thermal design
  power / cores, from the makers' datasheets of 2019 to 2025;
- i: what an idle machine takes of that, as a share: 0.1 to 0.5, 0.25 in the middle (the active-idle to full-load ratios
  that SPECpower_ssj2008 results show for servers of those years);
- u: CPU time of this process / (cores x time), at most 1.
Not in it: memory, disks, power supply, and what other processes do. The interval is the range of the guesses, not a
statistical one; nothing of this was taken from a sensor.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from wattwork import machine
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem

MODEL = "cores-tdp/1"
IDLE_SHARE = (0.10, 0.25, 0.50)
# Processor's name -> watts per core: least, middle, most. First match counts.
_CORE_W: tuple[tuple[str, tuple[float, float, float]], ...] = (
    (r"xeon", (2.3, 6.5, 15.0)),  # Xeon 6780E 330 W/144; Platinum 8480+ 350/56; the fast few-core ones
    (r"epyc", (2.8, 4.4, 20.0)),  # EPYC 9754 360/128; 7763 280/64; 9174F 320/16
    (r"neoverse|graviton|ampere|altra|aarch64|arm", (1.0, 2.5, 5.0)),  # Altra Q80-33 250/80; Grace 250/72
    (r"", (1.5, 6.0, 20.0)),  # desktops and laptops: Ryzen 9 7950X 170/16; Core i9-13900K 253/24; 15 W/8
)


@dataclass(slots=True)
class _Token(Token):
    cpu_s: float


class EstimateSource:
    """The model above as a source. `reason` says why no meter was taken; it stands in each window's detail."""

    name = "estimate"
    kind: Kind = "estimated"
    period_s: float | None = None

    def __init__(
        self, reason: str = "", clock: Clock | None = None, *, cpu_s: Callable[[], float] = time.process_time
    ) -> None:
        """`cpu_s` tells the process's CPU time in seconds."""
        self.reason = reason
        self._clock = clock or Clock()
        self._cpu_s = cpu_s
        self._cores = machine.usable_cores()
        self._cpu = machine.cpu_name()

    def begin(self) -> _Token:
        """Open a window."""
        return _Token(self, self._clock.now(), self._cpu_s())

    def end(self, token: object) -> Energy:
        """Close a window."""
        token = redeem(token, _Token, self)
        seconds, busy_s = self._clock.now() - token.t_s, self._cpu_s() - token.cpu_s
        utilisation = min(1.0, max(0.0, busy_s / (self._cores * seconds))) if seconds > 0 else 0.0
        core_w = watts_per_core(self._cpu)
        low_w, watts, high_w = (
            self._cores * w * (idle + (1 - idle) * utilisation) for w, idle in zip(core_w, IDLE_SHARE, strict=True)
        )
        detail = (
            f"estimate from the model {MODEL}, no meter: {self._cores} core(s) of '{self._cpu}' at "
            f"{core_w[0]:g} to {core_w[2]:g} W each (middle {core_w[1]:g}), {utilisation:.0%} busy with this process; "
            "the interval is the range of these guesses"
        )
        if self.reason:
            detail += f"; why: {self.reason.rstrip('.')}"
        interval = (low_w * seconds, high_w * seconds)
        return Energy(watts * seconds, watts, interval, seconds, self.kind, None, None, detail)

    def close(self) -> None:
        """Nothing to stop."""


def watts_per_core(cpu_name: str) -> tuple[float, float, float]:
    """Watts of one core at full load for a processor of that name: (least, middle, most) of the model."""
    return next(core_w for pattern, core_w in _CORE_W if re.search(pattern, cpu_name, re.IGNORECASE))
