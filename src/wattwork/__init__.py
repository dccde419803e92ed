"""One device, two kinds of work, one meter: SHA-256d hashing and AI inference on the same watts.

Names are imported when they are first used, so `import wattwork` alone costs next to nothing. Type checkers read
`__init__.pyi`, which says the same.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Cap": "cap",
    "CostModel": "simulation",
    "DeadlineInfeasible": "errors",
    "Device": "device",
    "DeviceError": "errors",
    "Energy": "meters",
    "Handle": "scheduler",
    "Hit": "rectangle",
    "InvalidInput": "errors",
    "Job": "job",
    "Meter": "meters",
    "MeterError": "errors",
    "ModelConfig": "engines",
    "PRESETS": "engines",
    "PhaseResult": "report",
    "Profile": "profile",
    "QueueFull": "errors",
    "Replay": "simulation",
    "Report": "report",
    "RequestFailed": "errors",
    "SLO": "serving",
    "Sampling": "scheduler",
    "Scheduler": "scheduler",
    "SchedulerConfig": "scheduler",
    "SearchResult": "_search",
    "StepEngine": "engines",
    "Stop": "stop",
    "Switch": "report",
    "Trace": "trace",
    "UnsupportedISA": "errors",
    "WattworkError": "errors",
    "Work": "work",
    "compare": "comparison",
    "include_dir": "embed",
    "isas": "_search",
    "library_path": "embed",
    "make_engine": "engines",
    "measure": "method",
    "packaged_trace": "trace",
    "read_trace": "trace",
    "replay": "recording",
    "search": "_search",
    "simulate": "simulation",
    "size_trace": "trace",
}

__all__ = [
    "PRESETS",
    "SLO",
    "Cap",
    "CostModel",
    "DeadlineInfeasible",
    "Device",
    "DeviceError",
    "Energy",
    "Handle",
    "Hit",
    "InvalidInput",
    "Job",
    "Meter",
    "MeterError",
    "ModelConfig",
    "PhaseResult",
    "Profile",
    "QueueFull",
    "Replay",
    "Report",
    "RequestFailed",
    "Sampling",
    "Scheduler",
    "SchedulerConfig",
    "SearchResult",
    "StepEngine",
    "Stop",
    "Switch",
    "Trace",
    "UnsupportedISA",
    "WattworkError",
    "Work",
    "compare",
    "include_dir",
    "isas",
    "library_path",
    "make_engine",
    "measure",
    "packaged_trace",
    "read_trace",
    "replay",
    "search",
    "simulate",
    "size_trace",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("wattwork")
    if name not in _HOME:
        raise AttributeError(f"module 'wattwork' has no attribute {name!r}")
    value = getattr(import_module(f"wattwork.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
