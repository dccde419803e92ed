"""A powercap tree driven by a known power curve, and a clock that drives it."""

import itertools
import math
import os
import random
import threading

# Intel's usual unit, 2^-14 J, as the kernel holds it in nanojoules; and what it then gives as the counter's range.
UNIT_NJ = 61035
RANGE_UJ = (2**32 - 1) * UNIT_NJ // 1000


class FakeClock:
    """Time that goes on only when told, by 10 us at each look, so that reading takes time too."""

    def __init__(self):
        self.t = 1000.0
        self.listeners = []
        self._moving = threading.RLock()
        self.tick_s = 1e-5
        self.wall_ahead_s = 1.7e9  # of this time; a test that sets the wall clock moves it

    def now(self):
        self.sleep(self.tick_s)
        return self.t

    def wall(self):
        return self.t + self.wall_ahead_s

    def sleep(self, seconds):
        with self._moving:  # what moves with the time has moved before anybody goes on
            self.t += seconds
            for listener in self.listeners:
                listener(self.t)


class Zone:
    """One zone. `joules(t)` is the energy from time 0 on; the counter holds it as of its last update.

    An update comes up to `jitter_s` late, each anew. Without a path there are no files, and `shown_uj` is the counter.
    """

    def __init__(
        self,
        path,
        name,
        joules,
        *,
        period_s=1e-3,
        phase_s=0.0,
        jitter_s=0.0,
        start_count=0,
        counts=2**32,
        unit_nj=UNIT_NJ,
    ):
        self.path, self.joules, self.period_s, self.phase_s, self.jitter_s = path, joules, period_s, phase_s, jitter_s
        self.start_count, self.counts, self.unit_nj = start_count, counts, unit_nj
        self.shown_uj = None
        if path:
            self.make_files(name)
        self.update(0.0)

    def make_files(self, name):
        path, unit_nj = self.path, self.unit_nj
        path.mkdir()
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{(2**32 - 1) * unit_nj // 1000}\n")

    def update(self, t):
        number = math.floor((t - self.phase_s) / self.period_s)
        seen_s = self.updated_s(number)
        if seen_s > t:
            seen_s = self.updated_s(number - 1)
        count = (self.start_count + round(self.joules(seen_s) * 1e9 / self.unit_nj)) % self.counts
        self.write(count * self.unit_nj // 1000)

    def updated_s(self, number):
        late_s = self.jitter_s * random.Random(number).random() if self.jitter_s else 0.0
        return number * self.period_s + self.phase_s + late_s

    def write(self, energy_uj):
        if energy_uj == self.shown_uj:
            return
        self.shown_uj = energy_uj
        if self.path:
            write(self.path / "energy_uj", energy_uj)


def drive(source, clock, seconds):
    """Wait so long and do what the helper thread does meanwhile, when it would."""
    until_s = clock.t + seconds
    while clock.t < until_s:
        wait_s = source.poll()
        clock.sleep(max(0.0, min(until_s - clock.t, math.inf if wait_s is None else wait_s)))


_names = itertools.count()


def write(path, number):
    """At once, as a kernel's file changes: no reader sees half of it."""
    part = path.parent / f".part{next(_names)}"
    part.write_text(f"{number}\n")
    os.replace(part, path)


def constant(watts):
    return lambda t: watts * t


def ramp(watts_per_s, start_s=1000.0):
    return lambda t: watts_per_s * max(0.0, t - start_s) ** 2 / 2


def square(low_w, high_w, hz):
    """Low for the first half of each period, high for the second."""

    def joules(t):
        whole, part = divmod(t * hz, 1.0)
        return (whole * (low_w + high_w) / 2 + min(part, 0.5) * low_w + max(0.0, part - 0.5) * high_w) / hz

    return joules
