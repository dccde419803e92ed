"""The back gives way to the front, and goes on where it was: over the installed loop, and over the Python one."""

import gc
import threading
import time

import pytest
from backs import moves, wait_until
from engines_for_tests import SumEngine, expected
from headers import GENESIS

from wattwork import _native, _search_numpy
from wattwork.errors import InvalidInput, WattworkError
from wattwork.job import Job
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.work import Work

CONFIG = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=8, block_size=4, num_blocks=12, max_model_len=40)
HANG_MS = 60_000
WORK = Work.from_header(GENESIS, version_mask=0x1FFFE000)


pytestmark = pytest.mark.usefixtures("loop")


def test_requests_interrupt_the_back_and_it_goes_on():
    job = Job(WORK)
    with Scheduler(CONFIG, SumEngine(CONFIG), back=job) as scheduler:
        for i in range(20):
            moves(job)
            assert scheduler.submit([i, 3], max_tokens=4).result(HANG_MS) == expected([i, 3], 4)
        moves(job)
        stats = scheduler.stats()
        assert stats.yields >= 20
        assert len(stats.yield_times_ns) == stats.yields
        assert min(stats.yield_times_ns) >= 0
        busy_ns = stats.back_busy_ns
        assert 0 < busy_ns < scheduler.stats().back_busy_ns


def test_units_stand_still_once_the_back_is_taken_away():
    first, second = Job(WORK), Job(WORK)
    with Scheduler(CONFIG, None, back=first) as scheduler:
        moves(first)
        scheduler.set_back(second)
        at_swap = first.units
        moves(second)
        scheduler.set_back(None)
        stopped = second.units
        busy_ns = scheduler.stats().back_busy_ns
        time.sleep(0.02)
        assert (first.units, second.units) == (at_swap, stopped)
        assert scheduler.stats().back_busy_ns == busy_ns
        scheduler.set_back(first)
        moves(first)
    closed = first.units
    time.sleep(0.02)
    assert first.units == closed


def test_back_is_silent_while_there_is_work():
    job, engine = Job(WORK), SumEngine(CONFIG)
    with Scheduler(CONFIG, engine, back=job) as scheduler:
        moves(job)
        engine.gate.clear()
        handle = scheduler.submit([1], max_tokens=2)
        assert engine.stepping.wait(60)
        units = job.units
        time.sleep(0.02)
        assert job.units == units
        engine.gate.set()
        assert handle.result(HANG_MS) == expected([1], 2)
        moves(job)


def test_backs_change_hands_from_many_threads():
    jobs = [Job(WORK) for _ in range(3)]
    with Scheduler(CONFIG, SumEngine(CONFIG)) as scheduler:

        def swap(job):
            for _ in range(20):
                scheduler.set_back(job)
                scheduler.set_back(None)

        threads = [threading.Thread(target=swap, args=(job,)) for job in jobs]
        for t in threads:
            t.start()
        for i in range(20):
            assert scheduler.submit([i], max_tokens=2).result(HANG_MS) == expected([i], 2)
        for t in threads:
            t.join()


def test_collected_on_the_thread_that_hashes(monkeypatch):
    """The garbage collector may find a scheduler on any thread, also on one that the scheduler waits for at its end."""
    real, cycle = _search_numpy.scan, []

    def collecting_scan(*args, **kwargs):
        gc.collect()
        return real(*args, **kwargs)

    job = Job(WORK, "numpy")
    cycle += [cycle, Scheduler(CONFIG, None, back=job)]
    moves(job)
    gc.disable()
    try:
        del cycle
        monkeypatch.setattr(_search_numpy, "scan", collecting_scan)
        its_own = "wattwork-loop", "wattwork-courier", "wattwork-close"  # not the callbacks' threads, which stay
        wait_until(lambda: not any(t.name.startswith(its_own) for t in threading.enumerate()))
    finally:
        gc.enable()


def test_what_cannot_be_a_back(loop):
    class Broken:
        def run(self, stop):
            raise ValueError("no more nonces")

    with Scheduler(CONFIG, SumEngine(CONFIG)) as scheduler:
        if loop == "installed" and _native.HAVE_CORE:
            with pytest.raises(InvalidInput, match=r"wattwork\.Job"):
                scheduler.set_back(Broken())
        else:
            scheduler.set_back(Broken())
            wait_until(lambda: scheduler._loop._back is None)
            assert scheduler.submit([1], max_tokens=1).result(HANG_MS) == [1]
            with pytest.raises(WattworkError, match="no more nonces"):
                scheduler.set_back(None)
        scheduler.set_back(None)
