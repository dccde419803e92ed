"""A search without the core, over a kernel in Python: rectangles, threads and hits, for `isa` "numba" and "numpy".

As in csrc/sha256d/search.cpp, threads claim chunks of one version's row in order, every candidate is hashed again (by
`hashlib`), and what was claimed but not tested, or never claimed, remains.
"""

import hashlib
import threading
from collections.abc import Callable
from typing import Protocol

from wattwork.pace import Pace
from wattwork.rectangle import Rect, joined
from wattwork.stop import Stop, on_main_thread
from wattwork.work import Work

RawHit = tuple[int, int, bytes]


class Kernel(Protocol):
    """A module that tests the nonces of one header."""

    CHUNK: int  # nonces a thread claims at a time
    SPLITS: bool  # whether several threads are faster than one

    def scan(
        self, header: bytes, first: int, end: int, top: int, stop: Stop, *, pace: Pace | None = None
    ) -> tuple[int, list[int]]:
        """Tests the nonces [first, end), until `stop` is set or it has many candidates. `pace`: how often it looks.

        Returns where it ended, and the candidates in order: those whose hash's most significant 32 bits, as a
        little-endian number, are at most `top`.
        """


def kernel(isa: str) -> Kernel:
    """Imported when first asked for: Numba takes half a second."""
    if isa == "numba":
        from wattwork import _search_numba

        return _search_numba
    from wattwork import _search_numpy

    return _search_numpy


def sha256d(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


class Search:
    """One search of a rectangle: `run` it, then `finish`. `progress` is told of pairs tested as they come."""

    def __init__(
        self,
        kernel: Kernel,
        work: Work,
        rect: Rect,
        stop: Stop,
        *,
        max_hits: int,
        progress: Callable[[int], None] = lambda pairs: None,
        pace: Pace | None = None,
    ) -> None:
        self._kernel, self._work, self._rect, self._stop, self._max_hits = kernel, work, rect, stop, max_hits
        self._progress, self._pace = progress, pace
        self._in_a_row = -(-rect.count // kernel.CHUNK)
        self._chunks = self._in_a_row * rect.versions
        self._halt = False
        self._lock = threading.Lock()  # of what follows
        self._next = 0
        self._hits: list[tuple[int, RawHit]] = []  # with the number of the version
        self._remaining: list[Rect] = []
        self._error: BaseException | None = None

    def run(self, threads: int) -> None:
        """Works on so many threads, or fewer where the rectangle or the kernel is not worth them.

        Signals reach the main thread only, so that does not work but waits: Ctrl-C then leaves every count exact.
        """
        n = min(threads if self._kernel.SPLITS else 1, self._chunks)
        if n == 1 and not on_main_thread():
            self._run_worker()
        else:
            workers = [threading.Thread(target=self._run_worker, name="wattwork-search") for _ in range(n)]
            try:
                for worker in workers:
                    worker.start()
            finally:
                self._join([worker for worker in workers if worker.ident])
        if self._error:
            raise self._error

    def _join(self, workers: list[threading.Thread]) -> None:
        try:
            for worker in workers:
                worker.join()
        finally:
            self._halt = True
            for worker in workers:
                worker.join()

    def finish(self) -> tuple[list[RawHit], list[Rect], int]:
        """Hits by (version number, nonce), rectangles that remain, and pairs tested."""
        remaining = joined(self._remaining + self._unclaimed())
        whole = self._rect.count * self._rect.versions
        hashes = whole - sum(rest.count * rest.versions for rest in remaining)
        self._hits.sort(key=lambda placed: (placed[0], placed[1]))
        return [hit for _, hit in self._hits], remaining, hashes

    def _run_worker(self) -> None:
        try:
            while (index := self._claim()) is not None:
                self._search_chunk(*self._chunk(index))
        except BaseException as error:
            self._error, self._halt = error, True

    def _halted(self) -> bool:
        return self._halt or self._stop.is_set

    def _claim(self) -> int | None:
        with self._lock:
            if self._halted() or self._next >= self._chunks:
                return None
            self._next += 1
            return self._next - 1

    def _chunk(self, index: int) -> tuple[int, int, int]:
        """Version number, first nonce and end."""
        row, place = divmod(index, self._in_a_row)
        begin = place * self._kernel.CHUNK
        end = min(begin + self._kernel.CHUNK, self._rect.count)
        return self._rect.version_first + row, self._rect.first + begin, self._rect.first + end

    def _search_chunk(self, number: int, first: int, end: int) -> None:
        version, at = self._work.version_at(number), first
        header, top = self._work.header_with(nonce=0, version=version), self._work.target >> 224
        try:
            while at < end and not self._halted():
                reached, candidates = self._kernel.scan(header, at, end, top, self._stop, pace=self._pace)
                reached = self._take_hits(number, version, candidates, reached)
                self._progress(reached - at)
                at = reached
        finally:
            if at < end:
                with self._lock:
                    self._remaining.append(Rect(at, end - at, number, 1))

    def _take_hits(self, number: int, version: int, candidates: list[int], reached: int) -> int:
        """Where the tested part ends: short of `reached` where the last hit wanted was found, here or elsewhere."""
        for nonce in candidates:
            digest = sha256d(self._work.header_with(nonce=nonce, version=version))
            if int.from_bytes(digest, "little") > self._work.target:
                continue
            with self._lock:
                if len(self._hits) == self._max_hits:
                    return nonce
                self._hits.append((number, (nonce, version, digest)))
                if len(self._hits) == self._max_hits:
                    self._halt = True
                    return nonce + 1
        return reached

    def _unclaimed(self) -> list[Rect]:
        """The rest of one row, and the rows below it."""
        if self._next >= self._chunks:
            return []
        rect, (number, first, _) = self._rect, self._chunk(self._next)
        rest = []
        if first > rect.first:
            rest.append(Rect(first, rect.first + rect.count - first, number, 1))
            number += 1
        if below := rect.version_first + rect.versions - number:
            rest.append(Rect(rect.first, rect.count, number, below))
        return rest
