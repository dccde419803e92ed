"""What sets a device's load: hashing by duty cycle or by threads, inference by the rate of its requests."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Protocol

from wattwork.device import Device
from wattwork.levels import Unit
from wattwork.load import SHORT_TOKENS
from wattwork.report import Mode

if TYPE_CHECKING:
    from wattwork.job import Job


class Knob(Protocol):
    """What sets the load of a device that works in one mode."""

    mode: Mode
    unit: Unit
    device: Device

    def set(self, share: float, full_units_per_s: float | None) -> None:
        """Set the load to a share of the full rate, 1 being flat out. The full rate is None while it is not known."""


class Duty:
    """Hashing for a share of the time (`Scheduler.throttle`)."""

    mode: Mode = "hash"
    unit: Unit = "hashes"

    def __init__(self, device: Device) -> None:
        self.device = device
        device.switch(self.mode)

    def set(self, share: float, full_units_per_s: float | None) -> None:
        self.device.scheduler.throttle(back=share)


class Threads:
    """Hashing on as few threads as can do that share, of which the last few per cent by duty cycle."""

    mode: Mode = "hash"
    unit: Unit = "hashes"

    def __init__(self, device: Device, job: Job) -> None:
        self._most, self._job, self._meter = device.threads, job, device.meter
        self.device = device

    def set(self, share: float, full_units_per_s: float | None) -> None:
        n = max(1, ceil(share * self._most - 1e-9))
        if self.device.mode != self.mode or self.device.threads != n:
            self.close()
            self.device = Device(self.device.name, threads=n, meter=self._meter).bind(self._job)
            self.device.switch(self.mode)
        self.device.scheduler.throttle(back=min(1.0, share * self._most / n))

    def close(self) -> None:
        """Stop hashing on those threads; the first device is its maker's."""
        if self.device.mode == self.mode:
            self.device.close()


class Rate:
    """Inference of short requests, offered evenly at a rate; flat out at the full level."""

    mode: Mode = "infer"
    unit: Unit = "output_tokens"

    def __init__(self, device: Device) -> None:
        self.device = device
        device.switch(self.mode)

    def set(self, share: float, full_units_per_s: float | None) -> None:
        self.device.offer(None if full_units_per_s is None else share * full_units_per_s / SHORT_TOKENS[1])
