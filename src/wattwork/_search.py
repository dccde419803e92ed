"""The nonce search: every (nonce, version) pair of a rectangle tested exactly once.

The module is not named `search`: importing it would put itself in the place of the function `wattwork.search`.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

from wattwork import cuda
from wattwork._native import HAVE_CORE, core
from wattwork.errors import InvalidInput, UnsupportedISA
from wattwork.machine import check_threads, default_threads
from wattwork.rectangle import Hit, Rect, joined, rectangle
from wattwork.stop import Stop, on_main_thread
from wattwork.work import Work

UNLIMITED = 2**64 - 1
PYTHON_ISAS = ("numba", "numpy")  # not the core's


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How a search ended.

    `hits` are sorted by (version number, nonce); `hashes` is the number of pairs tested, in `seconds` of wall time;
    `remaining` are the rectangles not tested: with what was tested they make up the whole; `isa` did the work.
    """

    hits: tuple[Hit, ...]
    hashes: int
    seconds: float
    remaining: tuple[Rect, ...]
    isa: str


def isas() -> tuple[str, ...]:
    """The instruction sets usable here, best first: the first is what a search takes by default.

    The native ones were self-tested and timed when first asked for; "numba" (the extra `wattwork[numba]`) and "numpy"
    need no compiler. WATTWORK_ISA moves one to the front; UnsupportedISA is raised where it names one that is unknown
    or not usable here.
    """
    usable = _usable()
    forced = os.environ.get("WATTWORK_ISA")
    return (
        (_among(usable, forced, f"WATTWORK_ISA={forced}"), *(isa for isa in usable if isa != forced))
        if forced
        else usable
    )


def choose_isa(isa: str | None) -> str:
    """The one named, or the default; raises UnsupportedISA, never takes another instead."""
    return isas()[0] if isa is None else _among(_usable(), isa, f"isa={isa!r}")


def _usable() -> tuple[str, ...]:
    return (*(core.isa_list() if HAVE_CORE else ()), *(PYTHON_ISAS if _have_numba() else PYTHON_ISAS[1:]))


@cache
def _have_numba() -> bool:
    """Without importing it, which takes half a second."""
    return find_spec("numba") is not None


def _among(usable: tuple[str, ...], isa: str, said: str) -> str:
    if isa not in usable:
        raise UnsupportedISA(
            f"{said} names an instruction set that is unknown or not usable here; choose one of {', '.join(usable)}."
        )
    return isa


def search(
    work: Work,
    first: int = 0,
    count: int | None = None,
    *,
    versions: int | Literal["all"] = 1,
    version_first: int = 0,
    device: str = "cpu",
    isa: str | None = None,
    threads: int | None = None,
    stop: Stop | None = None,
    max_hits: int | None = None,
) -> SearchResult:
    """Tests the nonces [first, first + count) with each of `versions` versions, from number `version_first` on.

    `count` None: up to the last nonce, 2**32 - 1. `versions` "all": as many as the work's mask makes; 1: the header's
    own. `isa` None: `isas()[0]`. `threads` None: the CPUs this process may use ("numpy" works on one). The search ends
    early where `stop` is set, or `max_hits` hits are found; what it left is in the result's `remaining`. Ctrl-C ends
    it, too. It holds the GIL only with isa "numpy". The first with isa "numba" imports it, and compiles for some
    seconds where Numba's cache is empty.

    `device`: "cpu", or a GPU, "cuda:0" and so on, or "cuda", all GPUs there are, each with an equal share. GPUs take
    neither isa nor threads; the result's `isa` is then their architecture, "sm_90" say ("sm_80+sm_90" where they
    differ). The first search loads the kernels.

    Raises InvalidInput for a range past 2**32, more versions than the mask makes, threads or max_hits below 1, or
    an unknown device, UnsupportedISA, and DeviceError for a GPU that is not here or fails.
    """
    rect = rectangle(work, first, count, versions=versions, version_first=version_first)
    if max_hits is not None and max_hits < 1:
        raise InvalidInput(f"max_hits must be at least 1, or None for all, not {max_hits}.")
    stop, limit = stop or Stop(), UNLIMITED if max_hits is None else min(max_hits, UNLIMITED)
    target = work.target.to_bytes(32, "little")
    rest: Sequence[tuple[int, int, int, int]]
    if device == "cuda":
        from wattwork import _search_gpus

        gpus = cuda.all_gpus(isa=isa, threads=threads)
        chosen, begin = "+".join(sorted({gpu.isa for gpu in gpus})), time.perf_counter()
        raw, rest, hashes = _search_gpus.search(gpus, work, rect, stop, limit)
    elif device != "cpu":
        gpu = cuda.gpu(device, isa=isa, threads=threads)
        chosen, begin = gpu.isa, time.perf_counter()
        raw, rest, hashes = gpu.search(
            work.header, target, work.version_mask, rect, stop.address, limit, on_main_thread()
        )
    elif (chosen := choose_isa(isa)) in PYTHON_ISAS:
        from wattwork import _search_python

        python = _search_python.Search(_search_python.kernel(chosen), work, rect, stop, max_hits=limit)
        begin = time.perf_counter()
        python.run(core_threads(threads) or default_threads())
        raw, rest, hashes = python.finish()
    else:
        begin = time.perf_counter()
        raw, rest, hashes = core.search(
            work.header,
            target,
            work.version_mask,
            rect,
            chosen,
            core_threads(threads),
            stop.address,
            limit,
            on_main_thread(),
        )
    seconds = time.perf_counter() - begin
    return SearchResult(tuple(map(Hit._make, raw)), hashes, seconds, tuple(joined(map(Rect._make, rest))), chosen)


def versions_side_by_side(isa: str, device: str = "cpu") -> int:
    """How many versions share a nonce's message schedule where an instruction set rolls them; 1: they gain nothing.

    Of several GPUs, all together: so many a slice needs, lest one have nothing to do.
    """
    if device == "cuda":
        return sum(gpu.versions_side_by_side for gpu in cuda.all_gpus())
    if device != "cpu":
        return cuda.gpu(device).versions_side_by_side
    return 1 if isa in PYTHON_ISAS else core.versions_side_by_side(isa)


def core_threads(threads: int | None) -> int:
    """The thread count as the core takes it: 0 lets it choose. Raises InvalidInput."""
    return check_threads(threads) or 0
