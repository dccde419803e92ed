"""The package as installed."""

import importlib.metadata
import subprocess
import sys

import pytest


def test_version_is_known():
    assert importlib.metadata.version("wattwork")


@pytest.mark.parametrize("module", ["meters", "report", "trace", "latency", "economics", "data", "machine"])
def test_importing_does_not_bring_numpy(module):
    code = f"import sys, wattwork.{module}; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
