"""A search in slices: together they are the search."""

import pytest
from headers import GENESIS, oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork import sliced_search
from wattwork._search import isas, search, versions_side_by_side
from wattwork.rectangle import Rect, rectangle
from wattwork.sliced_search import SlicedSearch, cut
from wattwork.work import MAX_TARGET, Work

MASK = 0x1FFFE000


def pairs_of(rect):
    return rect.count * rect.versions


@given(
    st.integers(1, 2**32), st.integers(1, 2**16), st.integers(1, 2**48), st.sampled_from([1, 8, 32])
)  # fmt: skip
def test_a_cut_is_exact_and_of_about_the_size_asked_for(count, versions, pairs, side_by_side):
    rect = Rect(7, count, 3, versions)
    piece, rest = cut(rect, pairs, side_by_side)
    assert pairs_of(piece) + sum(map(pairs_of, rest)) == pairs_of(rect)
    strip, below = rest if len(rest) == 2 else (None, None)
    if len(rest) == 2:
        assert strip == (7 + piece.count, count - piece.count, 3, piece.versions)
        assert below == (7, count, 3 + piece.versions, versions - piece.versions)
    assert piece[::2] == (7, 3)
    assert pairs_of(piece) <= max(pairs, side_by_side)
    if rest:
        assert piece.versions % side_by_side == 0 or piece.versions == versions  # no lane is idle
        assert pairs_of(piece) > min(pairs, pairs_of(rect)) / 2 - side_by_side


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(isas()), st.integers(0, 100), st.integers(0, 3), st.integers(0, 40), st.sampled_from([None, 1, 7])
)
def test_its_slices_are_the_search(isa, count, version_first, versions, max_hits):
    work = Work.from_header(GENESIS, target=2**250, version_mask=MASK)
    rect = rectangle(work, 10, count, version_first=version_first, versions=versions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_search, "LEAST_PAIRS", 128)
        patch.setattr(sliced_search, "SLICE_S", 1e-9)
        sliced, hits, slices = SlicedSearch(work, rect, isa=isa, threads=2, max_hits=max_hits), [], 0
        while not sliced.done:
            hits += sliced.step()
            slices += 1
    assert slices >= sliced.hashes // max(128, versions_side_by_side(isa))
    assert sliced.hashes + sum(map(pairs_of, sliced.remaining)) == sliced.pairs == pairs_of(rect)
    for rest in sliced.remaining:  # what remains holds the hits that are wanting
        hits += search(work, **rest._asdict(), isa=isa).hits
    assert sorted(hits) == sorted(oracle(work, *rect))
    assert len(hits) == len(set(hits))


def test_slices_grow_to_the_rate_but_not_where_every_pair_is_a_hit():
    hard, easy = (Work.from_header(GENESIS, target=target) for target in (1, MAX_TARGET))
    rect = Rect(0, 2**22, 0, 1)
    growing = SlicedSearch(hard, rect)
    growing.step()
    first = growing.hashes
    growing.step()
    assert first == 2**16
    assert growing.hashes > 3 * first
    flooded = SlicedSearch(easy, rect)
    for _ in range(2):
        assert len(flooded.step()) == 2**16


def test_where_it_is_interrupted_the_slice_remains(monkeypatch):
    sliced = SlicedSearch(Work.from_header(GENESIS), Rect(0, 1000, 0, 1))
    monkeypatch.setattr(sliced_search, "search", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sliced.step()
    assert (sliced.hashes, sliced.remaining) == (0, [Rect(0, 1000, 0, 1)])
