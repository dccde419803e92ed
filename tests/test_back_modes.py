"""When the back works, and how much of the time: over the installed loop, and over the Python one."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from backs import moves, wait_until
from engines_for_tests import SumEngine, expected
from headers import GENESIS

from wattwork import _native, _search_numpy
from wattwork._search import isas, search
from wattwork.errors import InvalidInput, WattworkError
from wattwork.job import STRETCH, Job
from wattwork.pace import Pace
from wattwork.recording import replay
from wattwork.rectangle import NONCES
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.stop import Stop
from wattwork.work import Work

CONFIG = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=8, block_size=4, num_blocks=12, max_model_len=40)
FOREVER = replace(CONFIG, max_queue_delay_us=2**31 - 1)  # longer than any test
HANG_MS = 60_000
WORK = Work.from_header(GENESIS, version_mask=0x1FFFE000)

pytestmark = pytest.mark.usefixtures("loop")
only_installed = pytest.mark.parametrize("loop", ["installed"], indirect=True)


@pytest.fixture
def engine():
    made = SumEngine(CONFIG)
    yield made
    made.gate.set()


def stands(job):
    before = job.units
    time.sleep(0.02)
    assert job.units == before


def corun_is_here(loop):
    return loop == "installed" and _native.HAVE_CORE


def test_off_keeps_the_job_and_hashes_nothing(engine):
    job = Job(WORK)
    with Scheduler(CONFIG, engine, job, back_mode="off") as scheduler:
        stands(job)
        assert (job.units, scheduler.stats().back_mode, scheduler.stats().back_busy_ns) == (0, "off", 0)
        scheduler.set_back_mode("gap")
        moves(job)
        scheduler.set_back_mode("off")
        stands(job)
        assert scheduler.submit([1], max_tokens=3).result(HANG_MS) == expected([1], 3)
        stands(job)
        assert scheduler.hashes == job.units > 0
        scheduler.set_back_mode("gap")
        moves(job)


@pytest.mark.core
def test_corun_hashes_beside_a_step(loop, engine):
    if not corun_is_here(loop):
        with pytest.raises(InvalidInput, match="needs the native core"):
            Scheduler(CONFIG, engine, back_mode="corun", threads=2)
        return
    first, second = Job(WORK), Job(WORK)
    with Scheduler(CONFIG, engine, first, back_mode="corun", threads=2) as scheduler:
        moves(first)
        engine.gate.clear()
        handle = scheduler.submit([1], max_tokens=2)
        assert engine.stepping.wait(60)
        moves(first)
        assert scheduler.hashes == first.units
        scheduler.set_back(second)
        stands(first)
        moves(second)
        scheduler.throttle(back=0.3)
        moves(second)
        scheduler.throttle(back=0)
        wait_until(lambda: scheduler.stats().back_busy_ns == scheduler.stats().back_busy_ns)
        stands(second)
        scheduler.throttle()
        scheduler.set_back_mode("gap")
        stands(second)
        scheduler.set_back_mode("corun")
        moves(second)
        scheduler.set_back(None)
        stands(second)
        engine.gate.set()
        assert handle.result(HANG_MS) == expected([1], 2)
        scheduler.set_back(first)
        moves(first)


@pytest.mark.core
@only_installed
@pytest.mark.parametrize("isa", isas())
def test_corun_and_gap_share_one_job_exactly(engine, isa):
    """Two threads of the loop in one job: what hits they find are those of a search, none twice."""
    work = Work.from_header(GENESIS, target=2**240, version_mask=0)
    job = Job(work, isa)
    with Scheduler(CONFIG, engine, job, back_mode="corun", threads=3, corun_threads=1) as scheduler:
        for i in range(12):
            moves(job)
            assert scheduler.submit([i], max_tokens=3).result(HANG_MS) == expected([i], 3)
            if i % 4 == 3:
                scheduler.set_back_mode("gap")
                moves(job)
                scheduler.set_back_mode("corun")
        moves(job)
        scheduler.set_back(None)
    assert job.hits_lost == 0
    check_partition(job, job.take_hits())


def check_partition(job, hits):
    """What is not given back was tested, once: for a work of one version."""
    left, units, again = rests(job), 0, []
    for time_, end in taken(job).items():
        moved, at = replace(job.work, header=job.work.header_with(nonce=0, time=time_)), 0
        for first, count in [*sorted(rest for t, rest in left if t == time_), (end, 0)]:
            assert first >= at
            units += first - at
            again += [(time_, hit.nonce) for hit in search(moved, at, first - at).hits]
            at = first + count
    assert sorted((hit.time, hit.nonce) for hit in hits) == again
    assert units == job.units > 0


def rests(job):
    """(header time, (first nonce, count)) of what was taken and given back."""
    if job._python is not None:
        return [(WORK.time + seconds, rest[:2]) for seconds, rest in job._python._given_back]
    return [(time, rest[:2]) for time, rest in job.native.given_back()]


def taken(job):
    """{header time: end of the nonces taken}."""
    if job._python is not None:
        return {WORK.time: job._python._next * STRETCH}
    fresh, _ = job.native.next_fresh()
    return dict.fromkeys(range(WORK.time, fresh), NONCES)


def test_a_held_batch_leaves_the_time_to_the_back(engine):
    job = Job(WORK)
    with Scheduler(FOREVER, engine, job) as scheduler:
        handles = [scheduler.submit([0], max_tokens=1)]
        moves(job)
        handles.append(scheduler.submit([1], max_tokens=1))
        moves(job)
        assert not engine.seen
        scheduler.set_back_mode("off")
        stands(job)
        scheduler.set_back_mode("gap")
        moves(job)
        handles += [scheduler.submit([i], max_tokens=1) for i in (2, 3)]
        assert [h.result(HANG_MS) for h in handles] == [[0], [1], [2], [3]]
        last = scheduler.submit([4], max_tokens=1)
        moves(job)
        assert scheduler.drain(HANG_MS)
        assert last.outcome == "finished"


@pytest.mark.parametrize("back", [1.0, 0.5])
def test_a_held_batch_goes_when_its_delay_is_over(engine, back):
    job = Job(WORK)
    with Scheduler(replace(CONFIG, max_queue_delay_us=50_000), engine, job) as scheduler:
        scheduler.throttle(back=back)
        for i in range(3):
            assert scheduler.submit([i], max_tokens=1).result(HANG_MS) == [i]
        assert scheduler.stats().releases["delay"] == 3
        assert job.units > 0


def test_a_throttled_back_works_its_share(engine):
    """Of busy and idle time, as the loop counts them; nothing is hashed at 0."""
    job = Job(WORK)
    with Scheduler(CONFIG, engine, job) as scheduler:
        moves(job)
        scheduler.throttle(back=0.25)
        stats = scheduler.stats()
        assert (stats.back_share, stats.front_share) == (0.25, 1.0)
        start, busy, yields = time.monotonic_ns(), stats.back_busy_ns, stats.yields
        time.sleep(0.5)
        stats, wall = scheduler.stats(), time.monotonic_ns() - start
        assert 0 < stats.back_busy_ns - busy < 0.75 * wall  # a sleep that comes late on a busy machine works less
        assert stats.yields - yields <= 1, "the end of a turn is no yield"
        assert scheduler.submit([1], max_tokens=3).result(HANG_MS) == expected([1], 3)
        moves(job)
        scheduler.throttle(back=0)
        scheduler.set_back_mode("off")  # returns when it has left
        scheduler.set_back_mode("gap")
        stands(job)
        scheduler.throttle()
        moves(job)


def test_a_throttled_front_decides_the_same(engine, tmp_path):
    hashes = []
    for front in (1.0, 0.5):
        path = tmp_path / f"{front}.log"
        with Scheduler(CONFIG, engine, record=path) as scheduler:
            scheduler.throttle(front=front)
            for i in range(5):
                assert scheduler.submit([i, 1], max_tokens=4).result(HANG_MS) == expected([i, 1], 4)
            assert scheduler.stats().front_share == front
            assert scheduler.stats().steps == 20
            hashes.append(scheduler.stats().decision_hash)
        assert replay(path).decision_hash == hashes[-1]


def test_a_rest_of_the_front_ends_at_once(engine):
    engine.step_s = 0.01
    with Scheduler(CONFIG, engine) as scheduler:
        scheduler.throttle(front=1e-6)  # hours
        handle = scheduler.submit([1], max_tokens=2)
        wait_until(lambda: scheduler.stats().output_tokens == 1)
        scheduler.throttle()
        assert handle.result(HANG_MS) == expected([1], 2)
        scheduler.throttle(front=1e-6)
        scheduler.submit([1], max_tokens=2)
        wait_until(lambda: scheduler.stats().output_tokens == 3)


def test_modes_and_shares_change_hands_from_many_threads(loop, engine):
    job = Job(WORK)
    modes = ("gap", "off", "corun") if corun_is_here(loop) else ("gap", "off")
    with Scheduler(CONFIG, engine, job, threads=2) as scheduler:

        def change(what, values):
            for i in range(30):
                what(values[i % len(values)])

        threads = [
            threading.Thread(target=change, args=(scheduler.set_back_mode, modes)),
            threading.Thread(target=change, args=(scheduler.set_back, (None, job))),
            threading.Thread(target=change, args=(lambda share: scheduler.throttle(back=share), (0.0, 0.5, 1.0))),
        ]
        for t in threads:
            t.start()
        for i in range(20):
            assert scheduler.submit([i], max_tokens=2).result(HANG_MS) == expected([i], 2)
        for t in threads:
            t.join()
        scheduler.throttle()
        scheduler.set_back_mode("gap")
        scheduler.set_back(job)
        moves(job)


def test_what_is_asked_wrongly(engine):
    for mode in ("both", "", None):
        with pytest.raises(InvalidInput, match="choose one of gap, corun, off"):
            Scheduler(CONFIG, engine, back_mode=mode)
    with pytest.raises(InvalidInput, match="corun_threads is 0"):
        Scheduler(CONFIG, engine, corun_threads=0)
    with pytest.raises(InvalidInput, match="corun_threads"):
        Scheduler(CONFIG, engine, corun_threads=1.5)
    for target in (0, -1, "1", float("nan")):
        with pytest.raises(InvalidInput, match="yield_target_us"):
            Scheduler(CONFIG, engine, yield_target_us=target)
    with Scheduler(CONFIG, engine, threads=1) as scheduler:
        with pytest.raises(InvalidInput, match="choose one of"):
            scheduler.set_back_mode("sometimes")
        with pytest.raises(InvalidInput, match=r"native core|the engine needs at least one"):
            scheduler.set_back_mode("corun")
        for back in (-0.1, 1.1, float("nan"), "1"):
            with pytest.raises(InvalidInput, match="back is"):
                scheduler.throttle(back=back)
        for front in (0, 1.1, None):
            with pytest.raises(InvalidInput, match="front is"):
                scheduler.throttle(front=front)
        assert (scheduler.stats().back_mode, scheduler.stats().back_share) == ("gap", 1.0)
    for use in (lambda: scheduler.throttle(), lambda: scheduler.set_back_mode("off")):
        with pytest.raises(WattworkError, match="closed"):
            use()


PROLOGUE = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from backs import moves, wait_until
from engines_for_tests import SumEngine, expected
from wattwork.job import Job
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.work import Work
config = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
job = Job(Work.from_header({GENESIS!r}, version_mask=0x1FFFE000), ISA)
scheduler = Scheduler(config, SumEngine(config, step_s=0.002), job, back_mode="corun", threads=2)
scheduler.throttle(back=0.7)
handles = [scheduler.submit([i], max_tokens=30) for i in range(20)]
while not job.units: time.sleep(0.001)
"""


@pytest.mark.core
@only_installed
@pytest.mark.parametrize("isa", [isas()[0], "numba"])
@pytest.mark.parametrize(
    "ending",
    [
        "",
        "scheduler.close()",
        "del scheduler",
        """
pid = os.fork()
if pid == 0:
    scheduler.close()
    with Scheduler(config, SumEngine(config), job, back_mode="corun", threads=2) as fresh:
        assert fresh.submit([1], max_tokens=3).result(60_000) == expected([1], 3)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
    ],
)
def test_the_end_with_corun_at_work(ending, isa):
    code = PROLOGUE.replace("ISA)", f"{isa!r})") + ending
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@only_installed
def test_a_pace_follows_the_measured_time():
    """A round costs `fixed` and so much a lane: the quantum that takes twice the target is found, from either side."""
    for start in (1, 10_000):
        pace = Pace(20e-6)
        pace.size = start
        for _ in range(60):
            pace.took(pace.size, 15e-6 + pace.size * 0.01e-6)
        assert pace.size == pytest.approx(2500, rel=0.02)
    pace.took(pace.size, 1.0)
    assert pace.size >= 1225, "one that was held up halves it at most"
    for _ in range(40):
        pace.took(pace.size, 50e-6)  # no size is short enough
    assert pace.size == 1


@only_installed
@pytest.mark.parametrize("isa", ["numpy", "numba"])
def test_a_paced_job_skips_and_repeats_nothing(isa):
    """Stopped in the midst of blocks, which are dropped: they stay to be tested."""
    work = Work.from_header(GENESIS, target=2**244)
    job = Job(work, isa)
    job.yield_target_us = 20.0
    hits = []
    for i in range(60):
        stop = Stop()
        timer = threading.Timer(0.001 * (i % 15), stop.set)
        timer.start()
        job.run(stop)
        timer.join()
        hits += job.take_hits()
    while job.units < 5000:
        stop = Stop()
        threading.Timer(0.05, stop.set).start()
        job.run(stop)
        hits += job.take_hits()
    check_partition(job, hits)


@only_installed
def test_the_shortest_gaps_add_up():
    """A block of NumPy that is stopped again and again goes on where it was; one that others took begins anew."""

    class After:
        def __init__(self, looks):
            self.looks = looks

        @property
        def is_set(self):
            self.looks -= 1
            return self.looks < 0

    work, pace = Work.from_header(GENESIS, target=2**252), Pace(1e-9)
    header, top = work.header_with(nonce=0), work.target >> 224
    count = _search_numpy.LEAST_LANES
    calls = 0
    while (found := _search_numpy.scan(header, 0, count, top, After(50), pace=pace))[0] == 0:
        calls += 1
        assert found == (0, [])
        assert calls < 10
    assert calls == _search_numpy.LOOKS // 50
    assert found == _search_numpy.scan(header, 0, count, top, Stop())
    assert len(found[1]) > 10
    for first in range(20):
        assert _search_numpy.scan(header, first, 2 * count, top, After(50), pace=pace) == (first, [])
    assert len(pace._begun) <= 4
    assert _search_numpy.scan(header, 0, count, top, Stop(), pace=pace) == found


def test_a_schedulers_target_reaches_its_job(engine):
    job = Job(WORK, "numpy")
    with Scheduler(CONFIG, engine, job, yield_target_us=35) as scheduler:
        assert job.yield_target_us == 35
        wait_until(lambda: job._python._pace is not None)
        assert job._python._pace.target_s == pytest.approx(35e-6)
        moves(job)
        assert job._python._pace.size > 0, "it was measured"
        assert scheduler.submit([1], max_tokens=1).result(HANG_MS) == [1]
