"""NVML: what an NVIDIA GPU says of its energy, power, clocks and temperature, by nvidia-ml-py (extra `[nvml]`).

Of three readings the first that the GPU has is taken, all of the whole board:
1. the energy counter, nvmlDeviceGetTotalEnergyConsumption: mJ since the driver was loaded, Volta and later, 64 bits,
   hence without a wrap. Windows over it are those of `counter`: their interval holds the counter's update period.
2. instantaneous power, the field NVML_FI_DEV_POWER_INSTANT, added up as a source of the kind "sampled";
3. power as nvmlDeviceGetPowerUsage has it: the mean of the last second from Ampere (except GA100) on, instantaneous
   before (https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html), likewise.

All three come from one sensor. On A100 and H100 it looks 25 ms of each 100 ms (Yang, Adamek, Armour, "Part-time Power
Measurements: nvidia-smi's Lack of Attention", 2023, https://arxiv.org/abs/2312.02741); H200 and GH200 have H100's chip.
There the readings are the mean of what was looked at, taken for all of the time. A load in rhythm with the looks can be
anything between them, so the interval is what must be true: the share s of the reading that was seen, and in the rest
of the time from 0 W to the board's limit in force, and a tenth more, for the limiter is not instant:
    s J - e  <=  truth  <=  s J + e + (1 - s) x seconds x 1.1 limit,   e: the reading's own error, a look at each end
For a load without such a rhythm the reading itself is good; its own interval stands in `detail`. Of other GPUs it is
not known here how much of the time the sensor looks: their coverage is None, and a warning says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from wattwork.errors import InvalidInput, MeterError
from wattwork.meters.base import Clock, Energy, Kind, Token, redeem
from wattwork.meters.cadence import Cadence, probe
from wattwork.meters.counter import CounterSource
from wattwork.meters.track import Counter

UPDATE_S = 0.1  # of the sensor, on most GPUs (Yang et al.)
PROBE_S = 0.5  # to see some of them
LOOK_SHARE = {(8, 0): 0.25, (9, 0): 0.25}  # compute capability -> share of the time the sensor looks: GA100, GH100
MAX_BOARD_W = 2000.0  # above any one board sold
OVERSHOOT = 1.1  # of the power limit, within the tens of milliseconds between looks
READINGS = ("energy", "instant", "average")
_OWN_READING = "or give your own reading (--watts, in Python watts=)"


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU shows of itself at one moment; what it does not tell is None."""

    sm_mhz: int | None
    memory_mhz: int | None
    celsius: int | None
    power_limit_w: float | None


class Gpu:
    """One GPU of NVML's. `device` is CUDA's name, "cuda:0": CUDA_VISIBLE_DEVICES is heeded.

    MeterError where nvidia-ml-py, the driver or the GPU is missing, or where the GPU is divided by MIG.
    """

    def __init__(self, device: str) -> None:
        match = re.fullmatch(r"cuda:(\d+)", device)
        if not match:
            raise InvalidInput(f"the source 'nvml' is for GPUs, not {device!r}; give device='cuda:0', say.")
        self.device = device
        self._nvml = _library()
        self._handle = _handle(self._nvml, int(match[1]), device)
        if (self._optional("nvmlDeviceGetMigMode") or [0])[0]:
            raise _divided(device)
        self.name: str = self._optional("nvmlDeviceGetName") or "GPU"
        self.capability: tuple[int, int] = tuple(self._optional("nvmlDeviceGetCudaComputeCapability") or (0, 0))

    def energy_uj(self) -> int:
        """Microjoules since the driver was loaded."""
        return 1000 * int(self._read("nvmlDeviceGetTotalEnergyConsumption"))

    def instant_w(self) -> float:
        """Watts now."""
        field = self._read("nvmlDeviceGetFieldValues", [self._nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if field.nvmlReturn != 0:
            raise _said(self._nvml.NVMLError(field.nvmlReturn), self.device)
        return float(field.value.uiVal) * 1e-3

    def average_w(self) -> float:
        """Watts, the mean of the last second on most GPUs of today."""
        return float(self._read("nvmlDeviceGetPowerUsage")) * 1e-3

    def state(self) -> GpuState:
        """Clocks, temperature and the power limit in force."""
        limit_mw = self._optional("nvmlDeviceGetEnforcedPowerLimit")
        return GpuState(
            self._optional("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            self._optional("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_MEM),
            self._optional("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            None if limit_mw is None else limit_mw * 1e-3,
        )

    def _read(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except self._nvml.NVMLError as error:
            raise _said(error, self.device) from None

    def _optional(self, function: str, *arguments: Any) -> Any:
        try:
            return self._read(function, *arguments)
        except MeterError:
            return None


def _library() -> Any:
    try:
        nvml = import_module("pynvml")
    except ModuleNotFoundError:
        raise MeterError(
            f"reading a GPU's meter needs nvidia-ml-py: pip install 'wattwork[nvml]', {_OWN_READING}."
        ) from None
    try:
        nvml.nvmlInit()  # counted, and kept for the life of the process
    except nvml.NVMLError as error:
        raise _said(error, "NVML") from None
    return nvml


def _said(error: Any, device: str) -> MeterError:
    """NVML's error as a sentence that names the fix."""
    sentences = {
        "NVMLError_LibraryNotFound": "there is no NVIDIA driver here (libnvidia-ml.so.1 is missing); install it",
        "NVMLError_DriverNotLoaded": "the NVIDIA driver is not loaded; load it (modprobe nvidia)",
        "NVMLError_NoPermission": f"{device}: this user may not read the GPU's meter; run as root",
        "NVMLError_NotSupported": f"{device}: this GPU has no such reading; take one of Volta's age or later",
        "NVMLError_GpuIsLost": f"{device}: the GPU is lost; reset it or reboot",
    }
    sentence = sentences.get(type(error).__name__, f"{device}: NVML says '{error}'; see whether nvidia-smi works")
    return MeterError(f"{sentence}, {_OWN_READING}.")


def _divided(device: str) -> MeterError:
    return MeterError(
        f"{device} is divided by MIG, and its meter counts all instances together: turn MIG off "
        f"(nvidia-smi -mig 0), {_OWN_READING}."
    )


def _handle(nvml: Any, ordinal: int, device: str) -> Any:
    """CUDA's device with that ordinal. CUDA puts the fastest first, NVML goes by bus: the same among equal GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        shown = [str(i) for i in range(len(handles))] if visible is None else visible.split(",")
        wanted = shown[ordinal].strip() if ordinal < len(shown) else ""
        if wanted.startswith("MIG-"):
            raise _divided(device)
        if wanted.startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByUUID(wanted.encode())
        if not wanted.isdecimal() or int(wanted) >= len(handles):
            raise MeterError(f"there is no {device} here: {len(handles)} GPU(s), CUDA_VISIBLE_DEVICES={visible}.")
        if (
            len({nvml.nvmlDeviceGetName(h) for h in handles}) > 1
            and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
        ):
            raise MeterError(
                f"several models of GPU: which of them is {device} is not sure; set CUDA_DEVICE_ORDER=PCI_BUS_ID."
            )
        return handles[int(wanted)]
    except nvml.NVMLError as error:
        raise _said(error, device) from None


class _Rising:
    """The energy counter, which may only rise: one that went back has lost what it knew, and stays refused."""

    def __init__(self, read_uj: Callable[[], int], device: str) -> None:
        self._read_uj, self._device = read_uj, device
        self._highest_uj = 0

    def __call__(self) -> int:
        value_uj = self._read_uj()
        if value_uj < self._highest_uj:
            raise MeterError(
                f"{self._device}: the energy counter went back, as when the driver is loaded anew or the GPU reset; "
                "make a new Meter."
            )
        self._highest_uj = value_uj
        return value_uj


class _Integral:
    """A power sensor as a counter: each look adds the mean of two looks times the time between them."""

    def __init__(self, read_w: Callable[[], float], clock: Clock) -> None:
        self._read_w, self._clock = read_w, clock
        self._joules, self._last_s, self.last_w = 0.0, clock.now(), read_w()
        self.gap_s = 0.0  # time beyond two updates between looks, summed

    def __call__(self) -> int:
        watts, now_s = self._read_w(), self._clock.now()
        self._joules += (self.last_w + watts) / 2 * (now_s - self._last_s)
        self.gap_s += max(0.0, now_s - self._last_s - 2 * UPDATE_S)
        self._last_s, self.last_w = now_s, watts
        return int(self._joules * 1e6)


@dataclass(slots=True)
class _Token(Token):
    inner: object
    gap_s: float


class NvmlSource:
    """Windows over one GPU's reading: those of `CounterSource`, with the coverage of the sensor behind it."""

    name = "nvml"

    def __init__(self, gpu: Gpu, kind: Kind, counters: CounterSource, integral: _Integral | None, clock: Clock) -> None:
        self.gpu, self.kind, self.counters, self.period_s = gpu, kind, counters, counters.period_s
        self._integral, self._clock = integral, clock
        self._share = LOOK_SHARE.get(gpu.capability)

    def begin(self) -> _Token:
        """Open a window."""
        inner = self.counters.begin()
        return _Token(self, self._clock.now(), inner, self._integral.gap_s if self._integral else 0.0)

    def end(self, token: object) -> Energy:
        """Close a window."""
        token = redeem(token, _Token, self)
        energy = self.counters.end(token.inner)
        if energy.joules is None or energy.ci95_j is None:
            return replace(energy, source=self.kind)
        gap_s = min(energy.seconds, self._integral.gap_s - token.gap_s) if self._integral else 0.0
        low, high = energy.ci95_j
        warnings = [*energy.warnings]
        if gap_s > 0:
            warnings.append(
                f"for {gap_s:.3g} s nobody looked at the sensor; the interval holds up to {MAX_BOARD_W:g} W there"
            )
            low, high = low - MAX_BOARD_W * gap_s, high + MAX_BOARD_W * gap_s
        coverage = None
        if self._share is None:
            warnings.append("how much of the time this GPU's sensor looks is not known")
        else:
            coverage = self._share * (1 - gap_s / energy.seconds if energy.seconds > 0 else 1)
            warnings.append(
                f"the sensor looks {self._share:.0%} of the time; the interval holds any load between the looks, "
                f"{max(0.0, low):.6g} to {high:.6g} J would hold one that keeps no time with them"
            )
            limit_w = self._limit_w()
            ends_j = 2 * self._share * UPDATE_S * limit_w
            low = self._share * low - ends_j
            high = self._share * high + ends_j + (1 - self._share) * energy.seconds * limit_w
        added = warnings[len(energy.warnings) :]
        return replace(
            energy,
            source=self.kind,
            coverage=coverage,
            ci95_j=(max(0.0, low), high),
            detail="; ".join([energy.detail, *added]),
            warnings=tuple(warnings),
        )

    def _limit_w(self) -> float:
        """What the board is taken to draw at most between looks."""
        limit_w = self.gpu.state().power_limit_w
        return MAX_BOARD_W if limit_w is None else OVERSHOOT * limit_w

    def close(self) -> None:
        """Stop the helper thread."""
        self.counters.close()


def open_nvml(
    device: str, clock: Clock | None = None, *, readings: tuple[str, ...] = READINGS, helper: bool = True
) -> NvmlSource:
    """The first of `readings` that the GPU has. MeterError where it has none of them, or there is no GPU to read."""
    gpu, clock = Gpu(device), clock or Clock()
    refused: MeterError | None = None
    for reading in readings:
        try:
            return _source(gpu, reading, clock, helper)
        except MeterError as error:
            refused = error
    assert refused is not None
    raise refused


def _source(gpu: Gpu, reading: str, clock: Clock, helper: bool) -> NvmlSource:
    name = f"{gpu.name} ({gpu.device}), {reading}"
    if reading == "energy":
        rising = _Rising(gpu.energy_uj, gpu.device)
        counter = Counter(name, rising, 2**64 * 1000, MAX_BOARD_W, probe(rising, clock, PROBE_S))
        return NvmlSource(gpu, "counter", CounterSource("nvml", [counter], clock, helper=helper), None, clock)
    read_w = gpu.instant_w if reading == "instant" else gpu.average_w
    averaged = reading == "average" and gpu.capability > (8, 0)
    lag_s = UPDATE_S + (1.0 if averaged else UPDATE_S)  # the reading's age, and the time it is the mean of
    integral = _Integral(read_w, clock)
    note = f"power sensor, its readings up to {lag_s:g} s old; the interval holds that, not the sensor's calibration"
    cadence = Cadence(lag_s, 1, integral.last_w, (), note)
    counter = Counter(name, integral, 2**64 * 1000, MAX_BOARD_W, cadence, look_s=UPDATE_S / 4)
    return NvmlSource(gpu, "sampled", CounterSource("nvml", [counter], clock, helper=helper), integral, clock)
