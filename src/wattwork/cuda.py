"""NVIDIA GPUs by their names, "cuda:0" and so on, with the search kernels loaded.

Where wattwork was built without nvcc, the kernels are compiled here by NVRTC, through CuPy (the extra
`wattwork[cuda13]`). WATTWORK_CUBIN names a cubin or fat binary to take instead, as `nvcc` makes it of
kernels/sha256d.cu.
"""

import os
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
        raise InvalidInput(f"there is no device {device!r} for this; choose 'cpu', or a GPU: 'cuda:0' is the first.")
    for name, value in (("isa", isa), ("threads", threads)):
        if value is not None:
            raise InvalidInput(f"{name} is of device 'cpu': leave it out with {device!r}.")
    _check_core()
    return _gpu(int(match[1]))


def all_gpus(*, isa: str | None = None, threads: int | None = None) -> "list[core.Gpu]":
    """Device "cuda": all that the driver shows, in its order, with the errors of `gpu`."""
    return [gpu(f"cuda:{k}", isa=isa, threads=threads) for k in range(len(gpus()))]


@cache
def _gpu(ordinal: int) -> "core.Gpu":
    return core.Gpu(ordinal, _image(ordinal), {})


def _image(ordinal: int) -> bytes:
    """The kernels for that GPU; nothing for those that are built in. Where there are none, the core says so."""
    if path := os.environ.get("WATTWORK_CUBIN"):
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise InvalidInput(f"WATTWORK_CUBIN={path}: {error.strerror}; name a file, or unset it.") from None
    infos = gpus()
    if core.gpu_kernels_built_in() or ordinal >= len(infos):
        return b""
    try:
        return compiled(infos[ordinal].isa)
    except ImportError:
        return b""


def compiled(isa: str) -> bytes:
    """A cubin of the kernels for that architecture, by NVRTC, which needs no GPU. ImportError without CuPy."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram((KERNELS / "sha256d.cu").read_text(), "sha256d.cu", (), ())
    try:
        # Constexpr functions that both sides share are for the device, too.
        nvrtc.compileProgram(program, (f"-arch={isa}", f"-I{KERNELS}", "-std=c++17", "-default-device"))
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip().splitlines() or [str(error)]
        raise DeviceError(f"CuPy's NVRTC does not compile the GPU kernels ({log[0]}); update cupy-cuda13x.") from error
    finally:
        nvrtc.destroyProgram(program)


def _check_core() -> None:
    if not HAVE_CORE:
        raise DeviceError(
            "a GPU needs wattwork's native core; install a C++20 compiler and reinstall, or use device 'cpu'."
        )
