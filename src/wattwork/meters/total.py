"""Several meters as one: their sum, with each part kept by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattwork.meters.base import KINDS, Energy, Kind, Source, Token, redeem


@dataclass(slots=True)
class _Token(Token):
    inner: list[object]


class TotalSource:
    """The sum over sources that see different things: a CPU and a GPU, say.

    Its kind is the weakest of its parts', its coverage the least, its interval the sum of the parts' ends: whatever
    the errors have to do with one another, it holds the truth where each part's holds its own. Where one part is not
    known the sum is not, and the parts (`Energy.parts`) keep what they have.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.name = "+".join(source.name for source in self.sources)
        self.kind: Kind = max((source.kind for source in self.sources), key=KINDS.index)
        self.period_s = max((s.period_s for s in self.sources if s.period_s is not None), default=None)

    def begin(self) -> _Token:
        """Open a window on each, in their order."""
        return _Token(self, 0.0, [source.begin() for source in self.sources])

    def end(self, token: object) -> Energy:
        """Close it on each, in the same order, so that all are as long."""
        inner = redeem(token, _Token, self).inner
        parts = [source.end(part) for source, part in zip(self.sources, inner, strict=True)]
        known = [part for part in parts if part.joules is not None]
        lost = [source.name for source, part in zip(self.sources, parts, strict=True) if part.joules is None]
        seconds = max(part.seconds for part in parts)
        notes = [f"the sum of {self.name}"] + [f"nothing is known of {name}, hence not of the sum" for name in lost]
        joules = None if lost else sum(part.joules or 0.0 for part in parts)
        intervals = [part.ci95_j for part in known if part.ci95_j is not None]
        whole = len(intervals) == len(parts)
        coverages = [part.coverage for part in parts]
        updates = [part.updates for part in parts if part.updates is not None]
        return Energy(
            joules,
            joules / seconds if joules is not None and seconds > 0 else None,
            (sum(low for low, _ in intervals), sum(high for _, high in intervals)) if whole else None,
            seconds,
            self.kind,
            None if None in coverages else min(c for c in coverages if c is not None),
            detail="; ".join(notes + [part.detail for part in parts]),
            updates=min(updates, default=None),
            warnings=tuple(
                f"{source.name}: {said.removeprefix(f'{source.name}: ')}"
                for source, part in zip(self.sources, parts, strict=True)
                for said in part.warnings
            ),
            parts=tuple((source.name, part) for source, part in zip(self.sources, parts, strict=True)),
        )

    def close(self) -> None:
        """Stop the helper threads of all."""
        for source in self.sources:
            source.close()
