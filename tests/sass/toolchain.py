"""Builds kernels for the machine, with the tools in the folder that WATTWORK_CUDA_BIN names (`make test` does)."""

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from sass.cubin import Kernel
from sass.machine import Machine

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
TOOLS = os.environ.get("WATTWORK_CUDA_BIN")
needs_tools = pytest.mark.skipif(not TOOLS, reason="WATTWORK_CUDA_BIN names no folder with nvcc and nvdisasm")


def built(folder, source, *options):
    """machine(name) of the kernels in a source; `folder` takes the cubin."""
    cubin = folder / "k.cubin"
    command = [Path(TOOLS, "nvcc"), "-std=c++17", "-arch=sm_90", "-cubin", *options, "-I", KERNELS, "-o", cubin, source]
    subprocess.run(command, check=True)
    return cache(lambda name: Machine(Kernel.read(cubin, name, Path(TOOLS, "nvdisasm"))))
