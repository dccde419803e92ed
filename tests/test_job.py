"""The job never runs dry, and yields at any moment without skipping or repeating a pair."""

import threading
import time
from random import Random

import pytest
from headers import GENESIS, oracle, sha256d

from wattwork._search import PYTHON_ISAS, isas, search
from wattwork.errors import UnsupportedISA
from wattwork.job import HITS_KEPT, STRETCH, Job
from wattwork.rectangle import NONCES, Rect
from wattwork.stop import Stop
from wattwork.work import Work

WORK = Work.from_header(GENESIS, target=2**240, version_mask=0x6000)
per_isa = pytest.mark.parametrize("isa", isas())


def run_for(job, seconds, threads=None):
    stop = Stop()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    job.run(stop, threads=threads)
    timer.join()


def side_by_side(job, work):
    """How many versions the job's first piece holds, once that is taken."""
    time, (first, count, version_first, _) = job.native.next_fresh()
    assert (time - work.time, first, count) == (not version_first, 0, NONCES)
    return version_first or work.versions


@per_isa
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_yields_at_random_moments(isa, threads):
    job, rng, hits = Job(WORK, isa=isa), Random(threads), []
    units = []
    for _ in range(10):
        run_for(job, rng.random() * 0.02, threads)
        units.append(job.units)
        hits += job.take_hits()
    assert units == sorted(units)
    assert units[-1] > 0
    # Everything tested lies at the front of the first piece, but for a few gaps near its end: search it again, whole.
    versions = 1 if isa in PYTHON_ISAS else side_by_side(job, WORK)
    assert {hit.time for hit in hits} <= {WORK.time}
    pairs = [(hit.version, hit.nonce) for hit in hits]
    assert len(set(pairs)) == len(pairs)
    surely_tested = (units[-1] - (threads + 3) * 200_000) // versions
    if surely_tested > 0:
        again = search(WORK, 0, surely_tested, versions=versions)
        found = {(hit.version, hit.nonce) for hit in again.hits}
        assert found == {(version, nonce) for version, nonce in pairs if nonce < surely_tested}


@pytest.mark.core
@pytest.mark.parametrize("isa", [isa for isa in isas() if isa not in PYTHON_ISAS])
@pytest.mark.parametrize("mask", [0, 0x6000, 0x1FFFE000])
def test_tested_and_given_back_are_a_partition(isa, mask):
    work = Work.from_header(GENESIS, target=2**240, version_mask=mask)
    job, rng = Job(work, isa=isa), Random(1)
    for _ in range(20):
        run_for(job, rng.random() * 0.005)
    side = side_by_side(job, work)
    at, tested = 0, []
    for _, (first, count, version_first, versions) in sorted(job.native.given_back()):
        assert (version_first, versions) == (0, side)
        assert first >= at
        tested.append((at, first - at))
        at = first + count
    assert at == NONCES
    assert sum(count for _, count in tested) * side == job.units
    again = [hit for first, count in tested for hit in search(work, first, count, versions=side).hits]
    found = sorted((hit.nonce, hit.version, hit.hash) for hit in job.take_hits())
    assert found == sorted((hit.nonce, hit.version, hit.hash) for hit in again)


@pytest.mark.core
@pytest.mark.parametrize("isa", [isa for isa in isas() if isa not in PYTHON_ISAS])
def test_rows_follow_one_another_then_the_time_moves_on(isa):
    job = Job(WORK, isa=isa)
    side = 4 if isa in ("portable", "neon", "armv8") else 1  # four lanes take the mask's four versions at once
    pieces = [job.native.take() for _ in range(9)]
    assert pieces == [(WORK.time + i * side // 4, (0, NONCES, i * side % 4, side)) for i in range(9)]


@pytest.mark.core
@pytest.mark.parametrize("isa", [isa for isa in isas() if isa not in PYTHON_ISAS])
def test_versions_lie_side_by_side_where_the_mask_allows(isa):
    job = Job(Work.from_header(GENESIS, version_mask=0x1FFFE000), isa=isa)
    job.native.take()
    _, (_, _, version_first, versions) = job.native.next_fresh()
    assert version_first == versions == (1 if isa == "shani" else 32)


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa in PYTHON_ISAS])
def test_stretches_tile_rows_then_the_time_moves_on(isa):
    job = Job(WORK, isa=isa)._python
    in_a_row = NONCES // STRETCH
    for n in (0, 1, in_a_row - 1, in_a_row, 4 * in_a_row - 1, 4 * in_a_row, 9 * in_a_row + 5):
        job._next = n
        row, place = divmod(n, in_a_row)
        assert job._take() == (row // 4, (place * STRETCH, STRETCH, row % 4, 1))
    assert NONCES % STRETCH == 0


@per_isa
def test_hits_carry_the_time_they_were_found_at(isa):
    work = Work.from_header(GENESIS, target=2**248)
    job, rect = Job(work, isa=isa), Rect(100, 2000, 0, 1)
    if job.isa not in PYTHON_ISAS:
        job.native.give_back(work.time + 3, rect)
    else:
        job._python._given_back.append((3, rect))
    while job.units < rect.count:  # on a busy machine the time may be over before any thread ran
        run_for(job, 0.05)
    later = Work.from_header(work.header_with(nonce=0, time=work.time + 3), target=work.target)
    hits = [hit for hit in job.take_hits() if hit.time == work.time + 3]
    assert [(hit.nonce, hit.version, hit.hash) for hit in hits] == list(oracle(later, 100, 2000))
    for hit in hits:
        header = work.header_with(nonce=hit.nonce, version=hit.version, time=hit.time)
        assert sha256d(header) == hit.hash


@per_isa
def test_stop_set_beforehand(isa):
    stop = Stop()
    stop.set()
    job = Job(WORK, isa=isa)
    job.run(stop)
    assert (job.units, job.take_hits()) == (0, ())


@per_isa
def test_units_are_live(isa):
    job, stop = Job(WORK, isa=isa), Stop()
    runner = threading.Thread(target=job.run, args=(stop,))
    runner.start()
    deadline = time.monotonic() + 30
    while not job.units and time.monotonic() < deadline:
        time.sleep(0.001)
    live = job.units
    stop.set()
    runner.join()
    assert 0 < live <= job.units


def test_unknown_isa_is_an_error():
    with pytest.raises(UnsupportedISA, match="nonesuch"):
        Job(WORK, isa="nonesuch")


@per_isa
def test_an_easy_target_keeps_the_latest_hits_and_counts_the_rest(isa):
    job = Job(Work.from_header(GENESIS, target=2**256 - 1), isa=isa)
    while not job.hits_lost:
        run_for(job, 0.1)
    hits = job.take_hits()
    assert len(hits) == HITS_KEPT
    assert len(hits) + job.hits_lost == job.units
    assert job.take_hits() == ()
