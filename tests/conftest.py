"""Two environments run this suite: with the core (nothing may skip for want of it), and the pure-Python fallback."""

import signal
from pathlib import Path

import pytest
from seeds import FRESH_SEED

from wattwork import _native
from wattwork._native import HAVE_CORE

# What tests the sources: left out where this folder stands alone, beside an installed wheel.
OF_THE_SOURCES = ("bench_*", "cuda", "emulated", "gpu_protocol", "kernels", "packaging", "readme", "sass*")
if not (Path(__file__).parents[1] / "pyproject.toml").exists():
    collect_ignore_glob = [f"test_{name}.py" for name in OF_THE_SOURCES]

# A shell's background job ignores Ctrl-C, and so would the processes whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["installed", "python"])
def loop(request, monkeypatch):
    """Schedulers made in the test run on the installed loop, and on the Python one."""
    if request.param == "python":
        monkeypatch.setattr(_native, "HAVE_CORE", False)
    return request.param


def pytest_report_header():
    return f"fresh seed: {FRESH_SEED} (WATTWORK_TEST_SEED={FRESH_SEED} repeats it)"


def pytest_collection_modifyitems(config, items):
    if HAVE_CORE:
        return
    without = [item for item in items if item.get_closest_marker("core")]
    config.hook.pytest_deselected(items=without)
    items[:] = [item for item in items if item not in without]
