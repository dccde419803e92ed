"""The back's work: a search that never runs dry."""

import threading
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from wattwork import cuda
from wattwork._native import HAVE_CORE, core
from wattwork._search import PYTHON_ISAS, choose_isa, core_threads
from wattwork.errors import InvalidInput, whole
from wattwork.machine import default_threads
from wattwork.pace import Pace
from wattwork.rectangle import NONCES, Rect
from wattwork.stop import Stop, on_main_thread
from wattwork.work import Work

HITS_KEPT = 2**16  # until they are taken; the core's kHitsKept
STRETCH = 2**24  # nonces the Python job takes at a time


class JobHit(NamedTuple):
    """A hit of a job, whose header time may have moved on.

    `work.header_with(nonce=..., version=..., time=...)` are the 80 bytes that `hash` is the double hash of.
    """

    nonce: int
    version: int
    time: int
    hash: bytes


class Job:
    """All nonces x the mask's versions of a work, then the same with header time + 1 s, and so on without end.

    `isa` forces an instruction set (None: `isas()[0]`); UnsupportedISA for one that is not usable here. `device`: as
    `search` takes it, but one GPU at most, with the same errors; a GPU's architecture is the job's `isa`. `sms`: of a
    GPU, how many of its multiprocessors the job may use, those numbered below; InvalidInput unless it has so many.
    `native` is the core's own object, which a native scheduler takes as its back; None where there is no core.
    `yield_target_us`: how soon, on average, isa "numpy" sees that it is to stop, at the cost of some of its rate (None:
    when its block is done, after milliseconds); a scheduler sets it to its own. The others look each few microseconds
    anyway.
    """

    yield_target_us: float | None = None

    def __init__(self, work: Work, isa: str | None = None, *, device: str = "cpu", sms: int | None = None) -> None:
        gpu = None if device == "cpu" else cuda.gpu(device, isa=isa)
        if sms is not None:
            _check_sms(sms, gpu)
        self.work, self.device = work, device
        self.isa = gpu.isa if gpu else choose_isa(isa)
        target = work.target.to_bytes(32, "little")
        self._python = _PythonJob(work, self.isa) if self.isa in PYTHON_ISAS else None
        self._core: core.Job | core.GpuJob
        self.native: core.Back | None = None
        if gpu:
            everything = (0, NONCES, 0, work.versions)
            self.native = self._core = core.GpuJob(gpu, work.header, target, work.version_mask, everything, sms)
        elif self._python is None:
            self.native = self._core = core.Job(work.header, target, work.version_mask, self.isa)
        elif HAVE_CORE:
            python = self._python
            self.native = core.PythonBack(
                lambda address, threads: python.run(Stop.at(address), threads, self.yield_target_us),
                lambda: python.units,
            )

    def run(self, stop: Stop, threads: int | None = None) -> None:
        """Searches until `stop` is set, or Ctrl-C; goes on from there when called again: no pair skipped or repeated.

        `threads` None: the CPUs this process may use ("numpy" works on one, a GPU on none but the caller's).
        Raises InvalidInput for one below 1, and DeviceError where the GPU fails.
        """
        n_threads = core_threads(threads)
        if self._python is not None:
            self._python.run(stop, n_threads, self.yield_target_us)
        else:
            self._core.run(stop.address, n_threads, on_main_thread())

    def front_begin(self, stream: int) -> None:
        """On a GPU, keeps the job's hashing away from what that stream does from here to `front_end`.

        `stream`: its address, as `torch.cuda.Stream.cuda_stream` and `cupy.cuda.Stream.ptr` are. Both only queue
        memory operations: the stream itself calls the hashing back, and lets it go on, exactly where it was, without
        the CPU. From any thread, whether the job runs or not. In one stream they nest; an end without a begin does
        nothing; four streams may have a front at once. Not in a stream that is being captured, whose graph may lie
        between them. Raises InvalidInput on a CPU, and DeviceError.
        """
        self._on_gpu().front_begin(stream)

    def front_end(self, stream: int) -> None:
        """The end of what `front_begin` began."""
        self._on_gpu().front_end(stream)

    def _on_gpu(self) -> "core.GpuJob":
        if self.device == "cpu":
            raise InvalidInput("a stream is a GPU's: make the job with device='cuda:0'.")
        assert isinstance(self._core, core.GpuJob)
        return self._core

    @property
    def units(self) -> int:
        """Pairs (hashes) done so far; may be read from any thread while `run` works."""
        return self._core.units if self._python is None else self._python.units

    @property
    def hits_lost(self) -> int:
        """Hits that nobody took in time: an easy target makes millions a second; only the latest 65,536 are kept."""
        return self._core.hits_lost if self._python is None else self._python.hits_lost

    def take_hits(self) -> tuple[JobHit, ...]:
        """The hits found since the last call."""
        raw = self._core.take_hits() if self._python is None else self._python.take_hits()
        return tuple(map(JobHit._make, raw))


def _check_sms(sms: int, gpu: "core.Gpu | None") -> None:
    if gpu is None:
        raise InvalidInput("sms is of a GPU: leave it out with device 'cpu', or take 'cuda:0'.")
    if not 1 <= whole("sms", sms) <= gpu.sms:
        raise InvalidInput(f"sms must be from 1 to {gpu.sms}, all that this GPU has, not {sms}.")


class _PythonJob:
    """The core's Job in Python, over the kernels in Python."""

    def __init__(self, work: Work, isa: str) -> None:
        from wattwork import _search_python

        self.units = 0
        self._work = work
        self._kernel = _search_python.kernel(isa)  # now, lest a metered phase begin with Numba compiling
        self._pace: Pace | None = None
        self._lock = threading.Lock()
        self._next = 0  # the next fresh stretch, counted over all versions and header times
        self._given_back: list[tuple[int, Rect]] = []  # (seconds past the header's time, rectangle)
        self._hits: deque[tuple[int, int, int, bytes]] = deque()
        self.hits_lost = 0

    def run(self, stop: Stop, threads: int, yield_target_us: float | None) -> None:
        from wattwork import _search_python

        if yield_target_us is None:
            self._pace = None
        elif self._pace is None or self._pace.target_s != yield_target_us * 1e-6:
            self._pace = Pace(yield_target_us * 1e-6)
        while not stop.is_set:
            seconds, rect = self._take()
            time = (self._work.time + seconds) % 2**32
            moved = replace(self._work, header=self._work.header_with(nonce=self._work.nonce, time=time))
            search = _search_python.Search(
                self._kernel, moved, rect, stop, max_hits=HITS_KEPT, progress=self._add_units, pace=self._pace
            )
            try:
                search.run(threads or default_threads())
            finally:  # also after Ctrl-C
                hits, remaining, _ = search.finish()
                with self._lock:
                    self._given_back += [(seconds, rest) for rest in reversed(remaining)]
                    self._hits += [(nonce, version, time, digest) for nonce, version, digest in hits]
                    while len(self._hits) > HITS_KEPT:
                        self._hits.popleft()
                        self.hits_lost += 1

    def _add_units(self, pairs: int) -> None:
        with self._lock:
            self.units += pairs

    def _take(self) -> tuple[int, Rect]:
        """The next stretch, as seconds past the header's time and nonces of one version: what was given back first."""
        with self._lock:
            if self._given_back:
                return self._given_back.pop()
            seconds, stretch = divmod(self._next, self._work.versions * (NONCES // STRETCH))
            number, first = divmod(stretch, NONCES // STRETCH)
            self._next += 1
            return seconds, Rect(first * STRETCH, STRETCH, number, 1)

    def take_hits(self) -> list[tuple[int, int, int, bytes]]:
        with self._lock:
            hits, self._hits = list(self._hits), deque()
        return hits
