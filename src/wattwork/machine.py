"""What this machine's processor is, from /proc and /sys. `root` is there for tests."""

from __future__ import annotations

import os
import platform
from pathlib import Path


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
