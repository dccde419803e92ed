"""The meter: which source is taken, and windows over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters.base import Clock, Energy, Kind, Source
from wattwork.meters.estimate import EstimateSource
from wattwork.meters.external import ExternalSource
from wattwork.meters.nvml import open_nvml
from wattwork.meters.rapl import open_rapl

SOURCES = ("auto", "rapl", "nvml", "external", "estimate")


class Window:
    """A stretch of time on a meter; `energy` is there once it has ended."""

    __slots__ = ("_energy",)

    def __init__(self) -> None:
        self._energy: Energy | None = None

    @property
    def energy(self) -> Energy:
        """What the window cost. MeterError while it is still open."""
        if self._energy is None:
            raise MeterError("this window is still open; read its energy after the with block.")
        return self._energy


class Meter:
    """Joules per window, with a 95 % interval, from one source.

    `source`: "rapl" reads the processor packages' counters; "nvml" an NVIDIA GPU's, by its `device` ("cuda:0");
    "external" takes the operator's own reading, `watts`; "estimate" is a model, never a measurement; "auto" is external
    where `watts` is given, else NVML for a GPU, and for the CPU RAPL, else the estimate.
    Raises InvalidInput for arguments that do not fit and MeterError where the source is not here or not readable. Once
    made it never raises for a sensor that fails: such a window's joules are None and its detail says why. Windows may
    overlap, and be opened and closed on any thread.
    """

    def __init__(
        self, source: str = "auto", *, device: str = "cpu", watts: float | None = None, clock: Clock | None = None
    ) -> None:
        """`watts` belongs to "external" (and so "auto"); `clock` replaces the time for tests."""
        self._source = _choose(source, device, watts, clock)
        self.device = device
        self.idle_watts: float | None = None

    @property
    def source(self) -> str:
        """The source taken: "rapl", "nvml", "external" or "estimate"."""
        return self._source.name

    @property
    def kind(self) -> Kind:
        """How the figures come about, as reports name it: "counter", "sampled", "external" or "estimated"."""
        return self._source.kind

    @property
    def period_s(self) -> float | None:
        """Seconds between the sensor's updates (the slowest part's), measured at start; None where none is read."""
        return self._source.period_s

    @property
    def reason(self) -> str:
        """Why "auto" fell back to the estimate, as a sentence; else empty."""
        return getattr(self._source, "reason", "")

    def begin(self) -> object:
        """Open a window; `end(token)` closes it."""
        return self._source.begin()

    def end(self, token: object) -> Energy:
        """Close the window that `begin()` opened. InvalidInput if it is closed already or another meter's."""
        energy = self._source.end(token)
        return energy if self.idle_watts is None else replace(energy, idle_watts=self.idle_watts)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """`with meter.window() as w: ...` and then `w.energy`, also where the block raised."""
        window, token = Window(), self.begin()
        try:
            yield window
        finally:
            window._energy = self.end(token)

    def set_idle(self, energy: Energy) -> None:
        """Take a window in which the device stood idle as the baseline of the windows that follow."""
        if energy.source != self.kind:
            raise InvalidInput(f"an idle window from '{energy.source}' is no baseline for windows from '{self.kind}'.")
        self.idle_watts = energy.watts

    def close(self) -> None:
        """Stop the helper thread, if there is one."""
        self._source.close()


def _choose(source: str, device: str, watts: float | None, clock: Clock | None) -> Source:
    if source not in SOURCES:
        raise InvalidInput(f"there is no meter source {source!r}; choose one of {', '.join(SOURCES)}.")
    if watts is not None:
        if source not in ("auto", "external"):
            raise InvalidInput(f"watts= is a reading of your own: it goes with the source 'external', not {source!r}.")
        return ExternalSource(watts, clock)
    if source == "external":
        raise InvalidInput("the source 'external' needs your own reading: give watts=.")
    if source == "nvml" or (source == "auto" and device.startswith("cuda")):
        return open_nvml(device, clock)
    if device != "cpu":
        raise InvalidInput(f"there is no such meter for the device {device!r} but your own reading: give watts=.")
    if source == "estimate":
        return EstimateSource(clock=clock)
    try:
        return open_rapl(clock)
    except MeterError as error:
        if source == "rapl":
            raise
        return EstimateSource(str(error), clock)
