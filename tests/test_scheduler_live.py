"""The live scheduler, over the native loop or the fallback: whichever is installed."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines_for_tests import SumEngine, expected

from wattwork.errors import DeadlineInfeasible, InvalidInput, QueueFull, RequestFailed, WattworkError
from wattwork.scheduler import Sampling, Scheduler, SchedulerConfig

CONFIG = SchedulerConfig(
    max_num_seqs=4, max_num_batched_tokens=8, max_num_queued_reqs=1000, block_size=4, num_blocks=12, max_model_len=40
)
HANG_MS = 60_000  # a guard, not a measure


@pytest.fixture
def engine():
    return SumEngine(CONFIG, poison=1000)


@pytest.fixture
def scheduler(engine):
    with Scheduler(CONFIG, engine) as s:
        yield s
        engine.gate.set()


def test_tokens_are_right_under_any_schedule(scheduler):
    prompts = [list(range(i, i + 1 + i % 20)) for i in range(60)]
    handles = [scheduler.submit(p, max_tokens=1 + i % 18) for i, p in enumerate(prompts)]
    for i, (handle, prompt) in enumerate(zip(handles, prompts, strict=True)):
        assert handle.result(HANG_MS) == expected(prompt, 1 + i % 18)
        assert handle.outcome == "finished"
    stats = scheduler.stats()
    assert stats.finished == 60
    assert stats.output_tokens == sum(1 + i % 18 for i in range(60))
    assert stats.prompt_tokens == sum(map(len, prompts))
    assert stats.num_preemptions > 0


def test_many_threads(scheduler):
    wrong = []

    def client(seed):
        for i in range(20):
            prompt = [seed, i, 5]
            if scheduler.submit(prompt, max_tokens=6).result(HANG_MS) != expected(prompt, 6):
                wrong.append(prompt)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert scheduler.stats().finished == 120


def test_iteration_stop_token_and_timing(scheduler):
    tokens = expected([3, 4], 9)
    handle = scheduler.submit(np.array([3, 4]), max_tokens=9, stop_token_id=tokens[4])
    assert list(handle) == tokens[:5] == list(handle) == handle.result()
    timing = handle.timing
    assert timing.submitted_s <= timing.token_times_s[0] <= timing.finished_s <= time.monotonic()
    assert len(timing.token_times_s) == 5
    assert len(timing.itl_s) == 4
    assert timing.ttft_s >= 0
    assert timing.tpot_s >= 0
    assert timing.e2el_s >= timing.ttft_s


def test_cancelled_while_queued_is_never_executed(scheduler, engine):
    engine.gate.clear()
    first = scheduler.submit([1], max_tokens=3)
    assert engine.stepping.wait(60)
    queued = [scheduler.submit([500 + i], max_tokens=3) for i in range(50)]
    assert all(h.cancel() for h in queued)
    assert not queued[0].cancel()
    with pytest.raises(RequestFailed) as error:
        queued[0].result(HANG_MS)
    assert error.value.reason == "cancelled"
    engine.gate.set()
    assert first.result(HANG_MS) == expected([1], 3)
    assert scheduler.drain(HANG_MS)
    assert not {500 + i for i in range(50)} & engine.seen
    assert scheduler.stats().kv_blocks_used == 0


def test_cancelled_in_flight_ends_at_once(scheduler, engine):
    engine.gate.clear()
    handle = scheduler.submit([1, 2], max_tokens=30)
    assert engine.stepping.wait(60)
    assert handle.cancel()
    with pytest.raises(RequestFailed, match="cancelled"):
        handle.result(HANG_MS)
    assert scheduler.stats().kv_blocks_used > 0, "its step is still under way"
    engine.gate.set()
    assert scheduler.drain(HANG_MS)
    assert scheduler.stats().kv_blocks_used == 0
    assert scheduler.stats().output_tokens == 0


def test_engine_that_raises_fails_its_batch_alone(scheduler, engine):
    engine.gate.clear()
    blocker = scheduler.submit([1], max_tokens=1)
    assert engine.stepping.wait(60)
    batch = [scheduler.submit([1000], max_tokens=2), scheduler.submit([2], max_tokens=2)]
    later = [scheduler.submit(list(range(9)), max_tokens=3) for _ in range(3)]  # more than the next step's budget
    engine.gate.set()
    assert blocker.result(HANG_MS) == [1]
    for handle in batch:
        with pytest.raises(RequestFailed, match="ValueError: poisoned") as error:
            handle.result(HANG_MS)
        assert error.value.reason == "failed"
    assert later[1].result(HANG_MS) == later[2].result(HANG_MS) == expected(range(9), 3)
    assert scheduler.submit([2], max_tokens=2).result(HANG_MS) == expected([2], 2)


def test_a_callback_that_raises_or_is_slow_holds_nobody_up(scheduler, engine, caplog):
    free, called = threading.Event(), []
    scheduler.on_ends(lambda ends: 1 / 0)
    slow = scheduler.submit([1], max_tokens=1)
    slow.add_done_callback(lambda handle: free.wait(60))
    broken = scheduler.submit([2], max_tokens=1)
    broken.add_done_callback(lambda handle: handle.no_such_thing)
    assert (slow.result(HANG_MS), broken.result(HANG_MS)) == ([1], [2])
    assert scheduler.drain(HANG_MS)
    last, told = scheduler.submit([3], max_tokens=2), threading.Event()
    last.add_done_callback(lambda handle: (called.append(handle), told.set()))
    assert last.result(HANG_MS) == expected([3], 2)
    assert told.wait(60)
    late = threading.Event()
    last.add_done_callback(lambda handle: late.set())
    assert late.wait(60), "one that comes too late is called at once"
    assert called == [last]
    assert not free.is_set(), "the slow one is still at it"
    free.set()

    def raised(kind):
        return sum(record.exc_info[0] is kind for record in caplog.records)

    deadline = time.monotonic() + 60
    while not raised(AttributeError) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert raised(AttributeError) == 1
    assert raised(ZeroDivisionError) >= 2


def test_who_cancels_finds_it_cancelled(scheduler, engine):
    engine.gate.clear()
    for _ in range(200):
        handle = scheduler.submit([1], max_tokens=3)
        assert handle.cancel()
        assert handle.outcome == "cancelled"
    first, second = (scheduler.submit([1], max_tokens=3) for _ in range(2))
    scheduler.on_ends(lambda ends: second.cancel())
    assert first.cancel()
    engine.gate.set()
    with pytest.raises(RequestFailed, match="cancelled"):
        second.result(HANG_MS)


def test_many_threads_wait_for_the_same_request(scheduler, engine):
    def wait(i, handle, results):
        tokens = [lambda: handle.result(HANG_MS), lambda: list(handle), lambda: asyncio.run(_await(handle))][i % 3]()
        results.append(tokens)

    for _ in range(50):
        engine.gate.clear()
        handle, results = scheduler.submit([1], max_tokens=3), []
        threads = [threading.Thread(target=wait, args=(i, handle, results)) for i in range(12)]
        for thread in threads:
            thread.start()
        engine.gate.set()
        for thread in threads:
            thread.join(60)
        assert results == [expected([1], 3)] * 12


async def _await(handle):
    return await handle


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.core
@pytest.mark.parametrize(
    ("error", "text"), [(OSError("no file \udcff"), r"OSError: no file \\udcff"), (Mute(), "Mute")]
)
def test_an_engines_error_need_not_have_a_text(scheduler, engine, monkeypatch, error, text):
    def step(batch, out):
        raise error

    monkeypatch.setattr(engine, "step", step)
    with pytest.raises(RequestFailed, match=text):
        scheduler.submit([1], max_tokens=1).result(HANG_MS)
    monkeypatch.undo()
    assert scheduler.submit([2], max_tokens=1).result(HANG_MS) == [2]


@pytest.mark.core
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_back_that_raises_is_in_nobodys_way(engine):
    from wattwork._native import core

    class Broken:
        native = core.PythonBack(lambda address, threads: 1 / 0, lambda: 0)

    with Scheduler(CONFIG, engine, Broken()) as scheduler:
        time.sleep(0.05)
        assert scheduler.submit([2], max_tokens=1).result(HANG_MS) == [2]
        assert scheduler.stats().back_error == "ZeroDivisionError: division by zero"
        with pytest.raises(WattworkError, match="the back stopped with ZeroDivisionError"):
            scheduler.set_back(None)
        scheduler.set_back(None)


def test_queue_full_then_admits_again(engine):
    config = SchedulerConfig(4, 8, 3, 100, 4, 12, 40)
    with Scheduler(config, engine) as scheduler:
        engine.gate.clear()
        handles = [scheduler.submit([1], max_tokens=2)]
        assert engine.stepping.wait(60)
        handles += [scheduler.submit([1], max_tokens=2) for _ in range(3)]
        with pytest.raises(QueueFull, match="max_num_queued_reqs"):
            scheduler.submit([1], max_tokens=2)
        engine.gate.set()
        assert all(h.result(HANG_MS) == expected([1], 2) for h in handles)
        assert scheduler.submit([1], max_tokens=2).result(HANG_MS) == expected([1], 2)
        assert scheduler.stats().rejected == 1


def test_drain_refuses_then_admits(scheduler, engine):
    engine.gate.clear()
    handle = scheduler.submit([1], max_tokens=2)
    assert engine.stepping.wait(60)
    assert not scheduler.drain(timeout_ms=5)
    drained = []
    thread = threading.Thread(target=lambda: drained.append(scheduler.drain(HANG_MS)))
    thread.start()
    refused = False
    while not refused:
        try:
            scheduler.submit([1], max_tokens=1).cancel()
        except QueueFull as error:
            refused = "draining" in str(error)
    engine.gate.set()
    thread.join()
    assert drained == [True]
    assert handle.outcome == "finished"
    assert scheduler.submit([1], max_tokens=1).result(HANG_MS) == [1]


def test_close_with_work_in_flight(engine):
    scheduler = Scheduler(CONFIG, engine)
    handles = [scheduler.submit([i], max_tokens=30) for i in range(30)]
    scheduler.close()
    scheduler.close()
    for handle in handles:
        assert handle.outcome in {"finished", "cancelled"}
    assert "cancelled" in {h.outcome for h in handles}
    with pytest.raises(WattworkError, match="closed"):
        scheduler.submit([1], max_tokens=1)
    scheduler.set_back(None)
    assert scheduler.drain()
    assert not handles[-1].cancel()


def test_dropped_scheduler_goes_away(engine):
    before = threading.active_count()
    for _ in range(5):
        Scheduler(CONFIG, engine).submit([1], max_tokens=1).result(HANG_MS)
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_asyncio(scheduler):
    async def one(i):
        return [token async for token in scheduler.submit([i], max_tokens=5)]

    async def main():
        everything = await asyncio.gather(*(one(i) for i in range(20)))
        assert everything == [expected([i], 5) for i in range(20)]
        assert await scheduler.submit([9], max_tokens=4) == expected([9], 4)
        handle = scheduler.submit([9], max_tokens=30)
        handle.cancel()
        with pytest.raises(RequestFailed):
            await handle

    asyncio.run(main())


def test_event_loop_closed_before_the_answer(scheduler, engine):
    engine.gate.clear()
    handle = scheduler.submit([1], max_tokens=3)

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.01)

    asyncio.run(give_up())
    engine.gate.set()
    assert handle.result(HANG_MS) == expected([1], 3)


def test_result_timeout_leaves_the_request_alive(scheduler, engine):
    engine.gate.clear()
    handle = scheduler.submit([1], max_tokens=3)
    with pytest.raises(TimeoutError, match="5 ms"):
        handle.result(timeout_ms=5)
    engine.gate.set()
    assert handle.result(HANG_MS) == expected([1], 3)


def test_result_timeout_beside_an_observer_that_blocks(scheduler):
    observing, let_go = threading.Event(), threading.Event()

    def block(ends):
        observing.set()
        let_go.wait(60)

    scheduler.on_ends(block)
    scheduler.submit([1], max_tokens=1)
    assert observing.wait(60)
    second = scheduler.submit([2], max_tokens=1)
    with pytest.raises(TimeoutError):
        second.result(timeout_ms=20)
    let_go.set()
    assert second.result() == expected([2], 1)


def test_an_answer_beside_a_cancel_whose_observer_blocks(scheduler, engine):
    let_go, blocks = threading.Event(), threading.Event()

    def observe(ends):
        if threading.current_thread().name == "canceller":
            blocks.set()
            let_go.wait(60)

    scheduler.on_ends(observe)
    for i in range(10):
        blocks.clear(), let_go.clear()
        engine.gate.clear()
        first = scheduler.submit([1], max_tokens=1)
        canceller = threading.Thread(target=first.cancel, name="canceller")
        canceller.start()
        assert blocks.wait(60)
        second = scheduler.submit([2, i], max_tokens=1)
        engine.gate.set()
        with pytest.raises(TimeoutError):
            second.result(timeout_ms=5)
        let_go.set()
        canceller.join()
        assert second.result(HANG_MS) == expected([2, i], 1)


def test_what_is_asked_wrongly(scheduler, engine):
    for tokens in ([], [[1]], [1.5], [-1], [2**31], "ab"):
        with pytest.raises(InvalidInput, match="tokens must"):
            scheduler.submit(tokens, max_tokens=1)
    with pytest.raises(InvalidInput, match="max_tokens"):
        scheduler.submit([1], max_tokens=0)
    with pytest.raises(InvalidInput, match="max_model_len"):
        scheduler.submit([1], max_tokens=40)
    with pytest.raises(InvalidInput, match="block_size"):
        Scheduler(SchedulerConfig(4, 8, block_size=8, max_model_len=40), engine)
    with pytest.raises(InvalidInput, match="max_num_seqs"):
        Scheduler(SchedulerConfig(5, 8, block_size=4, max_model_len=40), engine)
    with pytest.raises(InvalidInput, match="max_num_batched_tokens"):
        SchedulerConfig(max_num_seqs=9, max_num_batched_tokens=8)
    with pytest.raises(InvalidInput, match="num_blocks"):
        SchedulerConfig(num_blocks=0)
    for name, value in (("top_p", 0), ("top_p", 1e-50), ("temperature", 1e39), ("repetition_penalty", float("nan"))):
        with pytest.raises(InvalidInput, match=name):
            Sampling(**{name: value})
    with Scheduler(CONFIG, None) as hash_only, pytest.raises(InvalidInput, match="no engine"):
        hash_only.submit([1], max_tokens=1)


def test_sampling_reaches_the_engine(scheduler, engine):
    seen = []
    step = engine.step
    engine.step = lambda batch, out: (seen.append(batch.sampling), step(batch, out))
    scheduler.submit([1], max_tokens=1).result(HANG_MS)
    scheduler.submit([1], max_tokens=1, sampling=Sampling(0.5, 0.9, 1.1, 4, 2**64 - 1)).result(HANG_MS)
    assert seen[0] is None
    assert seen[1]["seed"].tolist() == [2**64 - 1]
    assert seen[1]["top_k"].tolist() == [4]
    assert seen[1]["top_p"][0] == np.float32(0.9)


PROLOGUE = f"""
import os, sys, time, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from engines_for_tests import SumEngine, expected
from wattwork.errors import WattworkError
from wattwork.scheduler import Scheduler, SchedulerConfig
config = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
engine = SumEngine(config, step_s=0.002)
scheduler = Scheduler(config, engine)
handles = [scheduler.submit([i], max_tokens=30) for i in range(50)]
"""


def python(code, **kwargs):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROLOGUE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "del scheduler", "handles[0].result(); sys.exit()"])
def test_interpreter_exit_with_work_in_flight(ending):
    done = python(ending)
    assert (done.returncode, done.stderr) == (0, "")


def test_fork_with_work_in_flight():
    done = python(
        """
handles[0].result()
pid = os.fork()
if pid == 0:
    for use in (lambda: scheduler.submit([1], max_tokens=1), lambda: handles[-1].result(), scheduler.stats):
        try:
            use()
        except WattworkError as error:
            assert "fork" in str(error)
        else:
            os._exit(3)
    scheduler.close()
    with Scheduler(config, SumEngine(config)) as fresh:
        assert fresh.submit([1], max_tokens=3).result(60_000) == expected([1], 3)
    del fresh, scheduler, handles
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert handles[-1].result() == expected([49], 30)
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_waiting():
    code = PROLOGUE + "engine.gate.clear(); print('up', flush=True)\nhandles[-1].result()"
    command = [sys.executable, "-c", code.replace("step_s=0.002", "step_s=0.0")]
    # The gate opens by itself after 30 s, which close() would wait for: let it out of the way on the interrupt.
    command[2] = command[2].replace(
        "\nhandles[-1].result()", "\ntry:\n    handles[-1].result()\nfinally:\n    engine.gate.set()"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "up\n"
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGINT)
        try:
            _, stderr = child.communicate(timeout=120)
        finally:
            child.kill()  # or leaving the block would wait for it
    assert child.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in stderr


def test_a_timeout_is_told_while_the_engine_is_blocked(engine):
    config = replace(CONFIG, max_num_queued_reqs=200_000)
    with Scheduler(config, engine) as scheduler:
        engine.gate.clear()
        running = scheduler.submit([1], max_tokens=3)
        assert engine.stepping.wait(60)
        queued = [scheduler.submit([2], max_tokens=1) for _ in range(100_000)]
        start = time.monotonic()
        hasty = scheduler.submit([777], max_tokens=1, timeout_ms=50, deadline_ms=10)
        with pytest.raises(RequestFailed, match="timed out") as error:
            hasty.result(HANG_MS)
        assert not engine.gate.is_set(), "the engine is still blocked"
        assert 0.05 <= time.monotonic() - start < 20, "50 ms, and some slack for a busy machine"
        assert error.value.reason == hasty.outcome == "timed_out"
        assert hasty.deadline_missed
        assert not running.deadline_missed
        for handle in queued:
            handle.cancel()
        engine.gate.set()
        assert running.result(HANG_MS) == expected([1], 3)
        stats = scheduler.stats()
        assert (stats.timed_out, stats.deadline_misses) == (1, 1)
        assert 777 not in engine.seen


def test_a_request_in_flight_times_out(scheduler, engine):
    engine.gate.clear()
    handle = scheduler.submit([1], max_tokens=3, timeout_ms=20)
    with pytest.raises(RequestFailed, match="timed out"):
        handle.result(HANG_MS)
    assert not engine.gate.is_set()
    engine.gate.set()
    assert scheduler.drain(HANG_MS)
    assert scheduler.stats().kv_blocks_used == scheduler.stats().output_tokens == 0


def test_priority_reaches_the_state_machine(scheduler, engine):
    engine.gate.clear()
    blocker = scheduler.submit([1], max_tokens=1)
    assert engine.stepping.wait(60)
    low = [scheduler.submit([i], max_tokens=6, tenant="slow") for i in range(10)]
    high = scheduler.submit([50], max_tokens=2, priority=1, tenant="fast", deadline_ms=60_000, timeout_ms=60_000)
    engine.gate.set()
    blocker.result(HANG_MS)
    assert high.result(HANG_MS) == expected([50], 2)
    assert [h.result(HANG_MS) for h in low] == [expected([i], 6) for i in range(10)]
    assert high.timing.finished_s < min(h.timing.finished_s for h in low)
    assert not high.deadline_missed


def test_a_deadline_out_of_reach_is_refused(engine):
    engine.step_s = 0.005
    with Scheduler(CONFIG, engine) as scheduler:
        scheduler.submit([1], max_tokens=30).result(HANG_MS)
        with pytest.raises(DeadlineInfeasible, match="deadline"):
            scheduler.submit([1], max_tokens=30, deadline_ms=5)
        assert scheduler.submit([1], max_tokens=1, deadline_ms=HANG_MS).result(HANG_MS) == [1]
        stats = scheduler.stats()
        assert sum(stats.step_cost_s) > 0.004
        assert stats.releases["no_delay"] == 2
        assert sum(stats.releases.values()) == stats.steps


def test_a_batch_waits_for_more(engine):
    config = replace(CONFIG, max_queue_delay_us=2**31 - 1)
    with Scheduler(config, engine) as scheduler:
        handles = [scheduler.submit([i], max_tokens=1) for i in range(3)]
        time.sleep(0.05)
        assert not engine.seen
        handles.append(scheduler.submit([3], max_tokens=1))
        assert [h.result(HANG_MS) for h in handles] == [[0], [1], [2], [3]]
        last = scheduler.submit([4], max_tokens=1)
        assert scheduler.drain(HANG_MS)
        assert last.outcome == "finished"
        releases = scheduler.stats().releases
        assert (releases["full"], releases["draining"]) == (1, 1)
    with Scheduler(replace(config, max_queue_delay_us=1000), engine) as scheduler:
        assert scheduler.submit([5], max_tokens=1).result(HANG_MS) == [5]
        assert scheduler.stats().releases["delay"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", 1.5),
        ("priority", 2**31),
        ("tenant", 3),
        ("deadline_ms", 0),
        ("timeout_ms", -1),
        ("timeout_ms", "1"),
    ],
)
def test_what_is_asked_wrongly_of_the_order(scheduler, name, value):
    with pytest.raises(InvalidInput, match=name):
        scheduler.submit([1], max_tokens=1, **{name: value})
