"""`wattwork hash`: a search of one header's nonces, whose hits are printed as they come.

Hashes are shown as block explorers show them: the 32 bytes reversed, as one hexadecimal number.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from wattwork._search_python import sha256d
from wattwork.errors import WattworkError
from wattwork.hash_options import max_hits_of, rect_of, work_of
from wattwork.machine import default_threads
from wattwork.outfile import write_json
from wattwork.progress import bar
from wattwork.rectangle import Hit, Rect
from wattwork.render import si
from wattwork.sliced_search import SlicedSearch
from wattwork.work import Work

SCHEMA = "wattwork.hash/1"
INTERRUPTED = 130
MOST_RECTANGLES = 4  # that are worth printing as options


def run(args: argparse.Namespace) -> int:
    """Search as the options say; the exit code: 0 with hits and without, 130 after Ctrl-C."""
    work = work_of(args)
    rect = rect_of(args, work)
    with _noted_interrupts() as interrupted:
        search = SlicedSearch(
            work, rect, device=args.device or "cpu", isa=args.isa, threads=args.threads, max_hits=max_hits_of(args)
        )
        result = _Result(work, rect, search, _threads(search, args.threads))
        quiet = str(args.json) == "-"
        if not quiet:
            print("\n".join(result.heading(genesis=args.header is None)), flush=True)
        try:
            with bar() as progress:
                while not search.done and not interrupted:
                    hits = result.step()
                    if args.json is not None:
                        result.hits += hits
                    if hits and not quiet:
                        progress.hide()
                        print("\n".join(map(hit_line, hits)), flush=True)
                    progress.show(result.state(), search.hashes / search.pairs)
        finally:  # whatever ends it: what was found is not lost
            if args.json is not None:
                write_json(args.json, result.as_json(), "the result")
        stopped = bool(interrupted) and not search.done
        if not quiet:
            print("\n".join(result.ending(interrupted=stopped)))
    return INTERRUPTED if stopped else 0


class _Result:
    """A search as it stands, in words and as JSON."""

    def __init__(self, work: Work, rect: Rect, search: SlicedSearch, threads: int | None) -> None:
        self.hits: list[Hit] = []  # for the JSON
        self._work, self._rect, self._search, self._threads = work, rect, search, threads
        self._begin = time.perf_counter()
        self._seconds = 0.0

    def step(self) -> Sequence[Hit]:
        """The next slice's hits, each held against hashlib."""
        hits = self._search.step()
        for hit in hits:
            check(self._work, hit)
        self._seconds = time.perf_counter() - self._begin
        return hits

    @property
    def _rate(self) -> float | None:
        return self._search.hashes / self._seconds if self._seconds else None

    def heading(self, *, genesis: bool) -> list[str]:
        """What is searched, and with what."""
        rect, search, difficulty = self._rect, self._search, self._work.difficulty
        versions = f" x {rect.versions:,} versions" if self._work.version_mask else ""
        where = f", {self._threads} thread(s)" if self._threads else f" on {search.device}"
        expected = search.pairs * (self._work.target + 1) / 2**256
        return [
            *(["No --header is given: this is the genesis block's."] if genesis else []),
            f"wattwork hash: {rect.count:,} nonces{versions} at difficulty {difficulty:.6g}; hits expected: "
            f"{f'{expected:,.0f}' if expected >= 100 else f'{expected:.3g}'}; {search.isa}{where}",
        ]

    def state(self) -> str:
        """Beside the bar."""
        rate = self._rate
        left = _duration((self._search.pairs - self._search.hashes) / rate) if rate else "?"
        return f"{si(rate, 'H/s')}, {_counted(self._search.hits)}, {left} left"

    def ending(self, *, interrupted: bool) -> list[str]:
        """What was done, and how to go on."""
        search = self._search
        tested = f"{search.hashes:,} of {search.pairs:,}" if search.remaining else f"all {search.pairs:,}"
        took = f"tested in {self._seconds:.1f} s, {si(self._rate, 'H/s')}"
        lines = [f"{'interrupted: ' if interrupted else ''}{tested} {took}: {_counted(search.hits)}"]
        if len(search.remaining) > MOST_RECTANGLES:
            return [*lines, f"{len(search.remaining)} rectangles remain; --json lists them."]
        for i, rect in enumerate(search.remaining):
            begin = "and then with" if i else "To go on, give the same command with"
            lines.append(f"{begin} {_as_options(rect, rolled=bool(self._work.version_mask))}")
        return lines

    def as_json(self) -> dict[str, object]:
        """The result as data: hashes and target are 64 hexadecimal digits, the most significant first.

        `rect` and `remaining` are rectangles of nonces x version numbers, as in `search`; `hits` come in the order they
        were found; `version` is the field that was hashed. What was tested and what remains make up `rect`; `complete`
        says that nothing remains. `hashes_per_s` is null where nothing was tested, `threads` on a GPU.
        """
        search, work = self._search, self._work
        return {
            "schema": SCHEMA,
            "header": work.header.hex(),
            "target": f"{work.target:064x}",
            "version_mask": f"{work.version_mask:08x}",
            "rect": self._rect._asdict(),
            "hits": [{"nonce": h.nonce, "version": h.version, "hash": h.hash[::-1].hex()} for h in self.hits],
            "hashes": search.hashes,
            "seconds": self._seconds,
            "hashes_per_s": self._rate,
            "remaining": [rect._asdict() for rect in search.remaining],
            "device": search.device,
            "isa": search.isa,
            "threads": self._threads,
            "complete": not search.remaining,
        }


def _threads(search: SlicedSearch, asked: int | None) -> int | None:
    """As many as work on it; None: a GPU does."""
    if search.device != "cpu":
        return None
    return 1 if search.isa == "numpy" else asked or default_threads()


def check(work: Work, hit: Hit) -> None:
    """WattworkError unless hashlib gives the hit's hash, and that meets the target."""
    header = work.header_with(nonce=hit.nonce, version=hit.version)
    if sha256d(header) != hit.hash or int.from_bytes(hit.hash, "little") > work.target:
        raise WattworkError(
            f"hashlib does not confirm nonce {hit.nonce}, version {hit.version:#010x}; "
            "do not trust this machine with this instruction set or GPU; choose another with --isa or --device."
        )


def hit_line(hit: Hit) -> str:
    """A hit as it is printed."""
    return f"hit: nonce {hit.nonce}, version 0x{hit.version:08x}, hash {hit.hash[::-1].hex()}"


def _counted(hits: int) -> str:
    return f"{hits:,} hit" + ("" if hits == 1 else "s")


def _duration(seconds: float) -> str:
    days = seconds / 86_400
    if days < 2:
        return str(timedelta(seconds=round(seconds)))
    return f"{days:,.0f} days" if days < 1000 else f"{days / 365.25:,.0f} years"


def _as_options(rect: Rect, *, rolled: bool) -> str:
    versions = f" --version-first {rect.version_first} --versions {rect.versions}" if rolled else ""
    return f"--first {rect.first} --count {rect.count}{versions}"


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Ctrl-C is noted in the list, so that the slice under way is finished; a second one raises as ever."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
