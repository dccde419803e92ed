"""What this machine's processor is, from /proc and /sys. `root` is there for tests."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path

from wattwork.errors import DeviceError, InvalidInput, MeterError

MAX_THREADS = 1024  # more than any machine's processors: past that it is a mistake, and would exhaust the process


def cpu_name(root: str | Path = "/") -> str:
    """The processor's name as the kernel gives it, or its architecture where the kernel names none."""
    try:
        text = (Path(root) / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return value.strip()
    return platform.machine() or "unknown"


def usable_threads() -> list[int]:
    """The logical processors this process may run on."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return list(range(os.cpu_count() or 1))


def usable_cores(root: str | Path = "/") -> int:
    """The physical cores behind `usable_threads()`; each thread counts as one where the kernel does not say."""
    cores = set()
    for cpu in usable_threads():
        topology = Path(root) / f"sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            cores.add(tuple((topology / part).read_text().strip() for part in ("physical_package_id", "core_id")))
        except OSError:
            cores.add((f"cpu{cpu}",))
    return len(cores)


def default_threads() -> int:
    """How many workers hash and infer by default: the usable CPUs, with the core within the cgroup's quota, too."""
    from wattwork._native import HAVE_CORE, core

    return core.default_threads() if HAVE_CORE else len(usable_threads())


def check_threads(threads: int | None) -> int | None:
    """The number of workers as it was given; InvalidInput unless it is None or from 1 to MAX_THREADS."""
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MAX_THREADS):
        raise InvalidInput(f"threads must be from 1 to {MAX_THREADS}, not {threads}.")
    return threads


def describe_device(device: str = "cpu", *, isa: str | None = None, threads: int | None = None) -> dict[str, object]:
    """A report's `device`. `isa` and `threads` are those the run used; unknown is None.

    The processor is the one the process runs on, also where the device is a GPU, which is described beside it.
    """
    described: dict[str, object] = {
        "id": device,
        "name": cpu_name(),
        "kind": device.partition(":")[0],
        "architecture": platform.machine() or None,
        "cores": usable_cores(),
        "threads": len(usable_threads()),
        "threads_used": threads,
        "isa": isa,
        "system": f"{platform.system()} {platform.release()}",
    }
    return described if device == "cpu" else described | _describe_gpu(device)


def _describe_gpu(device: str) -> dict[str, object]:
    """Its name in the processor's place, and how it stands just now, as far as driver and NVML tell."""
    from wattwork.cuda import gpus
    from wattwork.meters.nvml import Gpu, GpuState

    try:
        gpu = gpus()[int(device.partition(":")[2])]
        card: dict[str, object] = {"name": gpu.name, "sms": gpu.sms, "memory_bytes": gpu.memory_bytes}
    except (DeviceError, IndexError):
        card = {"name": None, "sms": None, "memory_bytes": None}
    try:
        state = Gpu(device).state()
    except MeterError:
        state = GpuState(None, None, None, None)
    return {"processor": cpu_name(), **card, **asdict(state)}


def describe_versions() -> dict[str, object]:
    """A report's `versions`: of wattwork, Python, NumPy, and the compiler of the native core; unknown is None."""
    from wattwork._native import HAVE_CORE, core

    return {
        "wattwork": _version("wattwork"),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "core": HAVE_CORE,
        "compiler": core.compiler if HAVE_CORE else None,
    }


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
