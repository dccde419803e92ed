"""The meter: which source is taken, and windows over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters.base import Clock, Energy, Kind, Source
from wattwork.meters.estimate import EstimateSource
from wattwork.meters.external import ExternalSource, LogSource
from wattwork.meters.nvml import open_nvml
from wattwork.meters.rapl import open_rapl
from wattwork.meters.total import TotalSource

_RAPL = ("rapl", "rapl-powercap", "rapl-perf")
SOURCES = ("auto", *_RAPL, "nvml", "external", "estimate")


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

    `source`: "rapl" reads the processor packages' counters, "rapl:core" those of a part; "nvml" an NVIDIA GPU's, by its
    `device` ("cuda:0"); "external" takes the operator's own reading, `watts` or the log `csv`; "estimate" is a model,
    never a measurement; "auto" is external where a reading is given, else NVML for a GPU, and for the CPU RAPL, else
    the estimate. "rapl+nvml" is the sum of the two, its parts in each window's `parts`.
    Raises InvalidInput for arguments that do not fit and MeterError where the source is not here or not readable. Once
    made it never raises for a sensor that fails: such a window's joules are None and its detail says why. Windows may
    overlap, and be opened and closed on any thread.
    """

    def __init__(
        self,
        source: str = "auto",
        *,
        device: str = "cpu",
        watts: float | None = None,
        csv: str | Path | None = None,
        csv_offset_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        """`watts`, or `csv` (a file with the columns time and watts, joules or kwh) belong to "external" (and "auto").

        `csv_offset_s` is added to the log's times to make them this machine's. `clock` replaces the time for tests.
        """
        self._source = _choose(source, _Asked(device, watts, csv, csv_offset_s, clock))
        self.device = device
        self.idle_watts: float | None = None

    @property
    def source(self) -> str:
        """The source taken: "rapl-powercap", "rapl-perf", "nvml", "external" or "estimate"; of a sum, "a+b"."""
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A Meter's arguments but for the source."""

    device: str
    watts: float | None
    csv: str | Path | None
    csv_offset_s: float
    clock: Clock | None


def _choose(source: str, asked: _Asked) -> Source:
    terms = source.split("+")
    for given, name in ((asked.watts, "watts"), (asked.csv, "csv")):
        if given is not None and not {"auto", "external"} & set(terms):
            raise InvalidInput(f"{name}= is a reading of your own: it goes with the source 'external', not {source!r}.")
    if asked.watts is not None and asked.csv is not None:
        raise InvalidInput("watts= and csv= are two readings for one source: give one of them.")
    if len(terms) == 1:
        return _one(source, asked)
    if "auto" in terms or len(set(terms)) < len(terms):
        raise InvalidInput(f"a sum of meters names each once and none 'auto', unlike {source!r}.")
    # Of a sum, what sees the processor sees it whatever the device is.
    cpu = replace(asked, device="cpu")
    return TotalSource([_one(term, asked if term == "nvml" else cpu) for term in terms])


def _one(source: str, asked: _Asked) -> Source:
    name, _, parts = source.partition(":")
    if name not in SOURCES or (parts and name not in _RAPL):
        raise InvalidInput(f"there is no meter source {source!r}; choose one of {', '.join(SOURCES)}.")
    if name in ("auto", "external") and asked.csv is not None:
        return LogSource(asked.csv, asked.clock, offset_s=asked.csv_offset_s)
    if name in ("auto", "external") and asked.watts is not None:
        return ExternalSource(asked.watts, asked.clock)
    if name == "external":
        raise InvalidInput("the source 'external' needs your own reading: give watts=, or csv=.")
    if name == "nvml" or (name == "auto" and asked.device.startswith("cuda")):
        return open_nvml(asked.device, asked.clock)
    if asked.device != "cpu":
        raise InvalidInput(f"there is no such meter for the device {asked.device!r} but your own reading: give watts=.")
    if name == "estimate":
        return EstimateSource(clock=asked.clock)
    try:
        return open_rapl(asked.clock, name="rapl" if name == "auto" else name, parts=parts.split(",") if parts else ())
    except MeterError as error:
        if name != "auto":
            raise
        return EstimateSource(str(error), asked.clock)
