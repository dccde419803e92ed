"""One search on several GPUs: each takes a share of the rectangle, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from wattwork._native import core
from wattwork._search_python import RawHit
from wattwork.errors import DeviceError
from wattwork.rectangle import Rect, joined
from wattwork.stop import Stop
from wattwork.work import Work

LOOK_S = 0.005  # how often the stop word, and Ctrl-C, are looked at


def search(
    gpus: Sequence[core.Gpu], work: Work, rect: Rect, stop: Stop, max_hits: int
) -> tuple[list[RawHit], list[Rect], int]:
    """Hits, what remains, pairs tested. DeviceError names the GPU that failed; the others are stopped first."""
    shares = shares_of(rect, len(gpus), max(gpu.versions_side_by_side for gpu in gpus))
    every = Stop()  # of all shares
    searches = [
        _Share(k, gpu, work=work, share=share, stop=every, max_hits=max_hits)
        for k, (gpu, share) in enumerate(zip(gpus, shares, strict=True))
    ]
    try:
        for one in searches:
            one.start()
        # Not by join(): Python 3.11 takes a thread for ended where Ctrl-C interrupts that.
        while not all(one.done.wait(LOOK_S) for one in searches):
            if stop.is_set or sum(len(one.hits) for one in searches) >= max_hits:
                every.set()
    except BaseException:
        every.set()
        raise
    finally:
        for one in searches:
            if one.ident is not None:
                one.join()
    for one in searches:
        if one.error:
            raise one.error
    hits = sorted((_number(work, hit[1]), hit[0], hit) for one in searches for hit in one.hits)
    remaining = [rest for one in searches for rest in one.remaining]
    # What was found beyond the limit counts as not tested.
    remaining += [Rect(nonce, 1, number, 1) for number, nonce, _ in hits[max_hits:]]
    hashes = sum(one.hashes for one in searches) - len(hits[max_hits:])
    return [hit for _, _, hit in hits[:max_hits]], joined(remaining), hashes


def shares_of(rect: Rect, parts: int, side_by_side: int) -> list[Rect]:
    """As many disjoint rectangles, of equal size or nearly: whole groups of versions that are rolled side by side where
    there are enough of them, and otherwise nonces."""
    groups = rect.versions // side_by_side
    out = []
    for k in range(parts):
        if groups >= parts:
            begin, end = (groups * i // parts * side_by_side for i in (k, k + 1))
            end = rect.versions if k == parts - 1 else end
            out.append(rect._replace(version_first=rect.version_first + begin, versions=end - begin))
        else:
            begin, end = (rect.count * i // parts for i in (k, k + 1))
            out.append(rect._replace(first=rect.first + begin, count=end - begin))
    return out


class _Share(threading.Thread):
    def __init__(self, ordinal: int, gpu: core.Gpu, *, work: Work, share: Rect, stop: Stop, max_hits: int) -> None:
        super().__init__(name=f"wattwork-cuda:{ordinal}")
        self._ordinal, self._gpu, self._work, self._share = ordinal, gpu, work, share
        self._stop_word, self._max_hits = stop, max_hits
        self.hits: list[RawHit] = []
        self.remaining: list[Rect] = []
        self.hashes = 0
        self.error: Exception | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.done.set()

    def _run(self) -> None:
        work, stop = self._work, self._stop_word
        target = work.target.to_bytes(32, "little")
        try:
            self.hits, remaining, self.hashes = self._gpu.search(
                work.header, target, work.version_mask, self._share, stop.address, self._max_hits, False
            )
            self.remaining = list(map(Rect._make, remaining))
        except DeviceError as error:
            self.error = DeviceError(f"cuda:{self._ordinal}: {error}")
            stop.set()
        except Exception as error:
            self.error = error
            stop.set()


def _number(work: Work, version: int) -> int:
    """The version number that rolls this version."""
    own = int.from_bytes(work.header[:4], "little")
    places = [bit for bit in range(32) if work.version_mask >> bit & 1]
    return sum(((version ^ own) >> place & 1) << i for i, place in enumerate(places))
