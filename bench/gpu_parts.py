"""The record that bench/gpu.py keeps: its steps, each within its part's time, and what a part needs."""

import faulthandler
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# By when each part begins nothing new, in seconds from the start; what comes first is what nothing else can tell.
ENDS_S = {"search": 270, "inference": 400, "front": 500}
LIMIT_S = 535  # by when it ends, whatever hangs
BUILD = (
    "WATTWORK_REQUIRE_NATIVE=1 python3 -m pip install --no-build-isolation --no-deps --target build/site . && "
    "export PYTHONPATH=$PWD/build/site"
)


class Record:
    """gpu.json as it grows: it is written after every step, so that what was measured is kept when it is cut off."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self.result, self.failed, self._start_s = folder / "gpu.json", result, list[str](), time.monotonic()
        self._end_s = float("inf")
        faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=sys.__stderr__)

    def part(self, name: str) -> None:
        """What follows belongs to this part."""
        self._end_s = self._start_s + ENDS_S[name]

    def in_time(self) -> bool:
        return time.monotonic() < self._end_s

    def step(self, *names: str, measure: Callable[[], Any]) -> Any:
        """result[names[0]][names[1]]... = what is measured, and kept; None where that fails or its time is over."""
        value = None
        if not self.in_time():
            self._put(names, {"skipped": "the time of its part was over"})
            return None
        try:
            value = measure()
            self._put(names, value)
        except Exception as error:  # of the driver, of PyTorch, of wattwork: the others go on
            said = f"{error}" or type(error).__name__
            self.failed.append(f"{', '.join(names)}: {said}")
            self._put(names, {"failed": said})
        return value

    def leave_out(self, name: str, why: str) -> None:
        self._put((name,), {"skipped": why})

    def _put(self, names: tuple[str, ...], value: Any) -> None:
        place = self.result
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = value
        self._path.write_text(json.dumps(self.result, indent=2) + "\n")
        print(f"{', '.join(names)}: {f'{value:.3f}' if isinstance(value, float) else value}", flush=True)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self.failed:
            raise SystemExit("bench/gpu.py: some steps failed:\n" + "\n".join(self.failed))


def missing(*, core: bool) -> str | None:
    """Why wattwork's engine, or with its core the whole of it, cannot work here; None: it can."""
    for module in ("numpy", "torch"):
        if find_spec(module) is None:
            return f"{module} is not installed"
    if not core:
        return None
    try:
        from wattwork._native import HAVE_CORE
    except ModuleNotFoundError:
        HAVE_CORE = False
    return None if HAVE_CORE else f"wattwork's native core is not built; in the checkout, without a network: {BUILD}"
