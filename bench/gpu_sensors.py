"""Watts, joules and clock of the first GPU through ctypes: for bench/gpu.py."""

import ctypes
import time


class Sensors:
    """Watts, joules and clock of the first GPU, by libnvidia-ml.so.1; None where it does not say."""

    def __init__(self) -> None:
        self._device = ctypes.c_void_p()
        try:
            self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
            answers = (
                self._nvml.nvmlInit_v2(),
                self._nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)),
            )
        except (OSError, AttributeError):
            answers = (1,)
        self._works = not any(answers)

    def _ask(self, name: str, value: ctypes._SimpleCData, *args: int) -> int | None:
        if not self._works or getattr(self._nvml, name)(self._device, *args, ctypes.byref(value)):
            return None
        return value.value

    def joules(self) -> float | None:
        mj = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if mj is None else mj / 1e3

    def sm_mhz(self) -> int | None:
        return self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), 1)  # NVML_CLOCK_SM

    def edge(self) -> tuple[float, float] | None:
        """Joules and the time, just when the counter has moved on; None: there is none that moves."""
        first, patience = self.joules(), time.perf_counter() + 1
        while (now := self.joules()) == first:
            if now is None or time.perf_counter() > patience:
                return None
        return now, time.perf_counter()
