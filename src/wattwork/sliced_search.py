"""A search cut into slices of about a third of a second: between two of them its hits, its rate and what remains are
known, and it can be left without losing anything.

A slice is a rectangle too, as wide as the instruction set rolls versions side by side; so slices cost next to nothing.
"""

from __future__ import annotations

from wattwork._search import search, versions_side_by_side
from wattwork.rectangle import Hit, Rect, joined
from wattwork.work import Work

SLICE_S = 0.3  # shorter ones cost more: the threads wait for the last one at each end
LEAST_PAIRS = 2**16  # some 0.1 s of NumPy's; also the first slice, when no rate is known
GROWTH = 8  # from one slice to the next, at most
HITS_IN_A_SLICE = 2**16  # expected: an easy target makes every pair one, and hits cost memory


class SlicedSearch:
    """What `search` does with the same arguments, one slice per `step()`."""

    def __init__(
        self,
        work: Work,
        rect: Rect,
        *,
        device: str = "cpu",
        isa: str | None = None,
        threads: int | None = None,
        max_hits: int | None = None,
    ) -> None:
        # A search of nothing refuses wrong arguments; Numba compiles, and a GPU loads, now and not in the first slice.
        self.isa = search(work, rect.first, 0, device=device, isa=isa, threads=threads, max_hits=max_hits).isa
        self.device = device
        self.pairs = rect.count * rect.versions  # in all
        self.hashes = 0  # pairs tested
        self.hits = 0
        self.remaining = [rect] if self.pairs else []  # disjoint; with what was tested, the whole
        self._work, self._threads, self._max_hits = work, threads, max_hits
        self._side_by_side = versions_side_by_side(self.isa, device)
        self._pairs = LEAST_PAIRS
        self._most_pairs = max(1, HITS_IN_A_SLICE * 2**256 // (work.target + 1))

    @property
    def done(self) -> bool:
        """Whether all was tested, or `max_hits` were found."""
        return not self.remaining or self.hits == self._max_hits

    def step(self) -> tuple[Hit, ...]:
        """Searches the next slice; its hits. Where it raises, the slice remains."""
        head, *below = self.remaining
        piece, rest = cut(head, min(self._pairs, self._most_pairs), self._side_by_side)
        left = None if self._max_hits is None else self._max_hits - self.hits
        isa = self.isa if self.device == "cpu" else None
        result = search(
            self._work, **piece._asdict(), device=self.device, isa=isa, threads=self._threads, max_hits=left
        )
        self.remaining = joined([*result.remaining, *rest, *below])
        self.hashes += result.hashes
        self.hits += len(result.hits)
        if 2 * result.hashes > self._pairs:  # the last slice of a strip may be too short to tell the rate
            wanted = int(result.hashes * SLICE_S / max(result.seconds, 1e-9))
            self._pairs = max(LEAST_PAIRS, min(wanted, GROWTH * self._pairs))
        return result.hits


def cut(rect: Rect, pairs: int, side_by_side: int) -> tuple[Rect, list[Rect]]:
    """About so many pairs off the start of a rectangle, and what is left of it: the rest of a strip, and those below.

    A strip has `side_by_side` versions; where several strips are not too many pairs, a slice is all of them.
    """
    versions = min(rect.versions, max(side_by_side, pairs // rect.count // side_by_side * side_by_side))
    count = min(rect.count, max(1, pairs // versions))
    strip = Rect(rect.first + count, rect.count - count, rect.version_first, versions)
    below = Rect(rect.first, rect.count, rect.version_first + versions, rect.versions - versions)
    return Rect(rect.first, count, rect.version_first, versions), [r for r in (strip, below) if r.count and r.versions]
