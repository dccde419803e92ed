"""A device in virtual time: it does what a test says it does, at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

from wattwork.report import PhaseResult, Power


class StandIn:
    """Hashes at `rate(share, t_s)` per second and draws `watts(share, t_s)`, both with relative noise."""

    name = "cpu"
    plays_trace = False

    def __init__(
        self,
        rate: Callable[[float, float], float] = lambda share, t_s: 1e6 * share,
        watts: Callable[[float, float], float] = lambda share, t_s: 10 + 40 * share,
        noise: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.rate, self.watts, self.noise = rate, watts, noise
        self.mode, self.share, self.t_s = "hash", 1.0, 0.0
        self.meter = SimpleNamespace(period_s=None, kind="external")
        self.lengths_s: list[float] = []
        self._random = random.Random(seed)

    def switch(self, mode: str) -> None:
        self.mode = mode

    def run(self, seconds: float, *, tick: Callable[[], None] = lambda: None) -> PhaseResult:
        tick()
        busy = self.mode == "hash"
        share = self.share if busy else 0.0
        rate, watts = (self._random.gauss(1, self.noise) * f(share, self.t_s) for f in (self.rate, self.watts))
        hashes = round(rate * seconds) if busy else 0
        self.t_s += seconds
        self.lengths_s.append(seconds)
        power = Power(watts * seconds, watts, (0.9 * watts * seconds, 1.1 * watts * seconds), "external", None, "", 99)
        sample = {"t_s": seconds, "hashes": hashes}
        return PhaseResult(self.mode, seconds, hashes, power=power, samples=[sample])


class Knob:
    """Sets a stand-in's share, and remembers how."""

    mode = "hash"
    unit = "hashes"

    def __init__(self, device: StandIn) -> None:
        self.device = device
        self.shares: list[float] = []

    def set(self, share: float, full_units_per_s: float | None) -> None:
        self.device.share = share
        self.shares.append(share)
