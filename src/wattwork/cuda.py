"""NVIDIA GPUs by their names, "cuda:0" and so on, with the search kernels loaded.

Where wattwork was built without nvcc, the kernels are compiled here by NVRTC, through CuPy (the extra
`wattwork[cuda13]`).
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from wattwork._native import HAVE_CORE, core
from wattwork.errors import DeviceError, InvalidInput

KERNELS = Path(__file__).parent / "kernels"


class GpuInfo(NamedTuple):
    """A GPU as the driver describes it: `isa` is its architecture, "sm_90" say; `sms` its multiprocessors."""

    name: str
    isa: str
    sms: int
    memory_bytes: int


def gpus() -> list[GpuInfo]:
    """Those that this process can use: the first is "cuda:0". DeviceError, with the reason, where there is none."""
    _check_core()
    return [GpuInfo(name, f"sm_{sm}", sms, memory) for name, sm, sms, memory in core.gpu_list()]


def gpu(device: str, *, isa: str | None = None, threads: int | None = None) -> "core.Gpu":
    """The GPU of that name. A GPU takes neither an instruction set nor threads: they are here to be refused.

    Raises InvalidInput for another name, or for isa or threads, and DeviceError.
    """
    match = re.fullmatch(r"cuda:(\d{1,4})", device)
    if not match:
        raise InvalidInput(f"there is no device {device!r}; choose 'cpu', or a GPU: 'cuda:0' is the first.")
    for name, value in (("isa", isa), ("threads", threads)):
        if value is not None:
            raise InvalidInput(f"{name} is of device 'cpu': leave it out with {device!r}.")
    _check_core()
    return _gpu(int(match[1]))


@cache
def _gpu(ordinal: int) -> "core.Gpu":
    image = b"" if core.gpu_kernels_built_in() else _compiled(ordinal)
    return core.Gpu(ordinal, image, {})


def _compiled(ordinal: int) -> bytes:
    """The kernels, compiled for that GPU; nothing where CuPy is missing: the core then says what to install."""
    infos = gpus()
    try:
        from cupy.cuda import compiler
    except ImportError:
        return b""
    if ordinal >= len(infos):
        return b""  # the core refuses the ordinal
    source, arch = (KERNELS / "sha256d.cu").read_text(), infos[ordinal].isa.removeprefix("sm_")
    try:
        cubin, _ = compiler.compile_using_nvrtc(source, ("-I" + str(KERNELS), "-std=c++17"), arch, "sha256d.cu")
    except Exception as error:
        raise DeviceError(f"CuPy could not compile the GPU kernels ({error}); see that cupy-cuda13x works.") from error
    return bytes(cubin)


def _check_core() -> None:
    if not HAVE_CORE:
        raise DeviceError(
            "a GPU needs wattwork's native core; install a C++20 compiler and reinstall, or use device 'cpu'."
        )
