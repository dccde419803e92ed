"""What a scheduler records, and that its replay decides the same."""

import os
import re
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines_for_tests import SumEngine, expected

import wattwork as ww
from wattwork._native import HAVE_CORE, core
from wattwork.errors import InvalidInput, QueueFull, RequestFailed, WattworkError
from wattwork.recording import replay
from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.scheduler.log import MAGIC
from wattwork.scheduler.log import replay as replay_twin
from wattwork.scheduler.twin import Outcome, SchedulerTwin

CONFIG = SchedulerConfig(
    max_num_seqs=4, max_num_batched_tokens=8, max_num_queued_reqs=20, block_size=4, num_blocks=12, max_model_len=40
)
HANG_MS = 60_000  # a guard, not a measure
SHARING = replace(CONFIG, enable_prefix_sharing=True)
REPLAYS = [replay_twin, *([core.replay] if HAVE_CORE else [])]


def same_answer(a, b):
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y


def both(data):
    """Twin and core, which must give the same answer."""
    answers = [run(data, False) for run in REPLAYS]
    same_answer(answers[0], answers[-1])
    return answers[0]


def live_run(path, config=CONFIG):
    """A run with every ending there is. Its stats before it was closed."""
    engine = SumEngine(config, poison=1000)
    with Scheduler(config, engine, record=path) as scheduler:
        handles = [scheduler.submit(range(i, i + 1 + i % 7), max_tokens=1 + i % 18) for i in range(10)]
        handles.append(scheduler.submit([3, 4], max_tokens=9, stop_token_id=expected([3, 4], 9)[4]))
        handles.append(scheduler.submit([9], max_tokens=20, priority=2, tenant="another", deadline_ms=0.01))
        for handle in handles:
            handle.result(HANG_MS)
        engine.gate.clear()
        late = scheduler.submit([1], max_tokens=30, timeout_ms=5)
        with pytest.raises(RequestFailed, match="timed out"):
            late.result(HANG_MS)
        engine.gate.set()
        engine.stepping.clear()
        engine.gate.clear()
        first = scheduler.submit([5], max_tokens=1)
        assert engine.stepping.wait(60)
        queued = [scheduler.submit([6], max_tokens=4) for _ in range(20)]
        with pytest.raises(QueueFull):
            scheduler.submit([6], max_tokens=4)
        queued[3].cancel()
        poisoned = scheduler.submit([1000], max_tokens=1, priority=9)
        engine.gate.set()
        assert first.result(HANG_MS)
        with pytest.raises(RequestFailed, match="poisoned"):
            poisoned.result(HANG_MS)
        assert scheduler.drain(HANG_MS)
        return scheduler.stats()


@pytest.mark.parametrize("config", [CONFIG, SHARING], ids=["", "sharing"])
def test_a_live_run_is_replayed_decision_for_decision(tmp_path, config):
    path = tmp_path / "run.wwlog"
    stats = live_run(path, config)
    run = replay(path, slo=ww.SLO(ttft_ms=HANG_MS))
    assert (run.decision_hash, run.note) == (stats.decision_hash, "")
    counted = {outcome: int((run.requests["outcome"] == outcome).sum()) for outcome in Outcome}
    assert counted == {outcome: getattr(stats, outcome.name.lower()) for outcome in Outcome}
    assert stats.failed >= 1
    assert (stats.timed_out, stats.rejected) == (1, 1)
    m = run.metrics
    assert (m["steps"], m["num_preemptions"], m["deadline_misses"]) == (
        stats.steps, stats.num_preemptions, stats.deadline_misses,
    )  # fmt: skip
    assert m["total_output_tokens"] == stats.output_tokens
    assert m["completed"] == stats.finished
    assert m["request_goodput"] == m["request_throughput"] > 0
    assert 0 < m["p99_ttft_ms"] < run.virtual_s * 1e3
    assert 0 <= m["idle_s"] <= run.virtual_s
    both(path.read_bytes())


def test_metrics_are_those_of_the_handles(tmp_path):
    path = tmp_path / "run.wwlog"
    with Scheduler(CONFIG, SumEngine(CONFIG, step_s=0.001), record=str(path)) as scheduler:
        handles = [scheduler.submit([i], max_tokens=5) for i in range(6)]
        for handle in handles:
            handle.result(HANG_MS)
        timings = [handle.timing for handle in handles]
    m = replay(path).metrics
    assert m["median_ttft_ms"] == pytest.approx(np.median([t.ttft_s for t in timings]) * 1e3, abs=1e-3)
    assert m["median_tpot_ms"] == pytest.approx(np.median([t.tpot_s for t in timings]) * 1e3, abs=1e-3)
    assert m["mean_itl_ms"] == pytest.approx(np.mean([gap for t in timings for gap in t.itl_s]) * 1e3, abs=1e-3)


def test_queue_delay_and_a_scheduler_that_never_ran(tmp_path):
    config = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40, max_queue_delay_us=2000)
    with Scheduler(config, SumEngine(config), record=tmp_path / "held") as scheduler:
        for _ in range(3):
            scheduler.submit([1, 2], max_tokens=3).result(HANG_MS)
        hash = scheduler.stats().decision_hash
    assert replay(tmp_path / "held").decision_hash == hash
    Scheduler(config, SumEngine(config), record=tmp_path / "idle").close()
    run = replay(tmp_path / "idle")
    assert (run.decision_hash, len(run.requests), run.virtual_s, run.note) == (0, 0, 0, "")


def random_walk(machine, path, operations, seed=5):
    rng = np.random.default_rng(seed)
    machine.record(str(path))
    rows = 0
    for i in range(operations):
        now_ns = 1_000 + i * 40_000_000
        what = rng.random()
        if what < 0.3:
            order = (int(rng.integers(-1, 2)), int(rng.integers(0, 2**64 - 1, dtype=np.uint64)) >> 62)
            times = [now_ns + int(rng.integers(0, 10**9)) if rng.random() < 0.3 else 0 for _ in range(2)]
            lengths = int(rng.integers(0, 60)), int(rng.integers(0, 9))
            machine.submit(
                now_ns, np.zeros(lengths[0], np.int32), lengths[1], int(rng.integers(-1, 4)), None, *order, *times
            )
        elif what < 0.34:
            machine.cancel(now_ns, int(rng.integers(1, 40)))
        elif what < 0.36:
            machine.set_draining(bool(rng.integers(0, 2)))
        elif what < 0.4:
            machine.expire(now_ns)
        elif not rows:
            batch = machine.schedule(now_ns)
            rows = 0 if batch is None else len(batch) if isinstance(batch, list) else len(batch.want_logits)
        elif what > 0.97:
            machine.fail(now_ns, "x")
            rows = 0
        else:
            machine.complete(now_ns, rng.integers(-1, 6, rows).tolist())
            rows = 0
    hash = machine.decision_hash
    assert machine.stop_recording() == ""
    return hash


WALK = SchedulerConfig(3, 6, 8, 100, 2, 20, 30, max_queue_delay_us=50_000, max_overtakes=2)


@pytest.mark.parametrize("sharing", [False, True])
def test_both_machines_write_the_same_bytes_and_replay_each_others(tmp_path, sharing):
    """All prompts begin alike."""
    config = replace(WALK, enable_prefix_sharing=sharing)
    hash = random_walk(SchedulerTwin(config), tmp_path / "twin", 3000)
    data = (tmp_path / "twin").read_bytes()
    answer = both(data)
    assert (answer[3], *answer[5:]) == (hash, -1, -1)
    assert answer[2]["steps"] > 250
    assert (answer[2]["prefix_shared_tokens"] > 300) == sharing
    if HAVE_CORE:
        assert random_walk(core.SchedulerCore(config), tmp_path / "core", 3000) == hash
        assert (tmp_path / "core").read_bytes() == data


def test_a_log_cut_off_at_every_byte_replays_up_to_there(tmp_path):
    random_walk(SchedulerTwin(WALK), tmp_path / "log", 400)
    data = (tmp_path / "log").read_bytes()
    last_block = both(data[:-1])[5]
    steps = []
    for end in range(len(data)):
        for run in REPLAYS if end % 7 == 0 else REPLAYS[-1:]:
            try:
                *_, counters, _, _, cut_at, differs_at = run(data[:end], False)[1:]
            except ValueError:
                assert end < 100, "only where not even the config is whole"
            else:
                assert (differs_at, cut_at <= end) == (-1, True)
                steps.append(counters["steps"])
    assert steps == sorted(steps)
    assert 0 < last_block < len(data)
    (tmp_path / "log").write_bytes(data[:-1])
    run = replay(tmp_path / "log")
    assert re.fullmatch(
        rf".*log is cut off or damaged at byte {last_block}: this is what came before, \d+ steps\.", run.note
    )


def test_damage_anywhere_is_found(tmp_path):
    random_walk(SchedulerTwin(WALK), tmp_path / "log", 300)
    data = (tmp_path / "log").read_bytes()
    for at in range(len(MAGIC), len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        try:
            answer = REPLAYS[-1](bytes(damaged), False)
        except ValueError:
            continue
        assert answer[5] >= 0, "it does not pass for whole"


def blocks(*payloads):
    return MAGIC + b"".join(bytes([len(p)]) + p + zlib.crc32(p).to_bytes(4, "little") for p in payloads)


CONFIG_RECORD = bytes([0, 4, 8, 20, 100, 4, 12, 40, 0, 9, 0])
SUBMIT_RECORD = b"\x01\x02\x02\x04\x00"


@pytest.mark.parametrize(
    "records",
    [
        b"\x0a\x00",  # no such record
        b"\x00" + CONFIG_RECORD[1:],  # a second config
        b"\x05\x02\x00",  # an end of no step
        b"\x06\x02",
        b"\x01\x02\x02",  # half a submit
        b"\x01\x02\x02\x04\x00\x04\x02\x00\x00\x04\x02",  # a step inside a step
        b"\x02" + b"\xff" * 11,  # a number without an end
        b"\x09\x01\x01",  # half a share
        SUBMIT_RECORD + b"\x09\x01\x01\x01" + b"\x04\x02\x00\x00",  # a share where nothing is shared
    ],
)
def test_records_that_make_no_sense_end_the_replay(records):
    answer = both(blocks(CONFIG_RECORD, records))
    assert answer[5] == len(blocks(CONFIG_RECORD)) or answer[6] >= 0


def test_rows_that_are_not_there():
    for row in (2, 200):
        log = blocks(CONFIG_RECORD, SUBMIT_RECORD)
        with_step = SchedulerTwin(SchedulerConfig(4, 8, 20, 100, 4, 12, 40, 0, 9))
        with_step.submit(1, [0], 2)
        with_step.schedule(2)
        schedule = b"\x04\x02" + (with_step.decision_hash & 0xFFFF).to_bytes(2, "little")
        complete = b"\x05\x02\x01" + (bytes([row << 1]) if row < 64 else bytes([row << 1 & 0x7F | 0x80, row >> 6]))
        answer = both(blocks(CONFIG_RECORD, SUBMIT_RECORD, schedule, complete))
        assert answer[5] > len(log)
        assert answer[2]["steps"] == 1


SHARE = (3, 2, 3)  # what is shared below


def share_with(path, written):
    """A log in which the third request shares three blocks of the second, though `written` is said instead."""
    machine = SchedulerTwin(replace(SHARING, max_num_seqs=2, max_num_batched_tokens=20))
    machine.record(str(path))
    write = machine.log.share
    machine.log.share = lambda *share: [write(*w) for w in written] if share == SHARE else pytest.fail(str(share))
    machine.submit(1, [5] * 3, 2)
    machine.submit(1, [6] * 11, 9)
    for now_ns in range(2, 10):
        if now_ns == 3:
            machine.submit(3, [6] * 20, 1)
            machine.submit(3, [7] * 6, 1)
        rows = len(machine.schedule(now_ns))
        machine.complete(now_ns, [6] * rows)
    assert machine.prefix_shared_tokens == 12
    machine.stop_recording()
    return path.read_bytes()


def test_a_share_that_is_told(tmp_path):
    answer = both(share_with(tmp_path / "log", [SHARE]))
    assert (*answer[5:], answer[2]["prefix_shared_tokens"]) == (-1, -1, 12)


@pytest.mark.parametrize(
    "written",
    [
        [(3, 9, 2)],  # no such donor
        [(3, 0, 2)],
        [(3, 1, 2)],  # one that has ended
        [(3, 3, 2)],  # one that waits
        [(3, 4, 1)],
        [(3, 2, 4)],  # of which not so much is computed
        [(3, 2, 5)],  # the whole prompt
        [(3, 2, 0)],
        [(3, 2, 2**31 - 1)],
        [(3, 2, 2**40)],
        [(2, 2, 2)],  # for one that runs
        [(4, 2, 1)],  # out of order
        [SHARE, SHARE],
        [SHARE, (4, 2, 1), (8, 2, 2)],
    ],
)
def test_a_share_that_cannot_be_is_damage(tmp_path, written):
    answer = both(share_with(tmp_path / "log", written))
    assert answer[5] >= 0
    assert answer[6] == -1


@pytest.mark.parametrize("written", [[], [(3, 2, 2)]])
def test_another_share_is_another_decision(tmp_path, written):
    assert both(share_with(tmp_path / "log", written))[6] == 3


def test_a_decision_that_differs_is_named_by_its_step(tmp_path):
    for wrong in (5, None):  # a step's hash, or that at the end
        machine = SchedulerTwin(CONFIG)
        machine.record(str(tmp_path / "log"))
        write, finish = machine.log.schedule, machine.log.finish
        if wrong:
            machine.log.schedule = lambda now_ns, hash: write(now_ns, hash ^ (machine.steps == 5))  # noqa: B023
        else:
            machine.log.finish = lambda hash: finish(hash ^ 1 << 60)  # noqa: B023
        machine.submit(10**9, [0] * 3, 8)
        for i in range(8):
            machine.schedule(10**9 + i * 10**8)
            machine.complete(10**9 + i * 10**8, [0])
        machine.stop_recording()
        said = rf"step {wrong or 8} of .*log, 0.{(wrong or 8) - 1}00 s in, is decided otherwise"
        assert both((tmp_path / "log").read_bytes())[6] == (wrong or 8)
        with pytest.raises(WattworkError, match=said):
            replay(tmp_path / "log")


def test_what_is_no_log_is_said(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        replay(tmp_path / "none")
    for data in (b"", b"TIMESTAMP,ContextTokens", MAGIC, MAGIC[:-1] + b"\x01", MAGIC[:-1] + b"\x07"):
        (tmp_path / "log").write_bytes(data)
        with pytest.raises(InvalidInput, match=r"is not a log that this version of wattwork can replay \((not|no) "):
            replay(tmp_path / "log")
    with pytest.raises(InvalidInput, match=r"the log .* cannot be written: No such file"):
        Scheduler(CONFIG, SumEngine(CONFIG), record=tmp_path / "no" / "log")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_the_recording_and_nothing_else():
    scheduler = Scheduler(CONFIG, SumEngine(CONFIG), record="/dev/full")
    assert scheduler.submit([1], max_tokens=3).result(HANG_MS) == expected([1], 3)
    with pytest.raises(WattworkError, match=r"breaks off \(No space left"):
        scheduler.close()
    scheduler.close()


def test_a_process_that_is_killed_leaves_what_came_before(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from engines_for_tests import SumEngine
from wattwork.scheduler import Scheduler, SchedulerConfig
config = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
scheduler = Scheduler(config, SumEngine(config), record={str(tmp_path / "log")!r})
for pause in (0, 1.1, 0):
    time.sleep(pause)
    scheduler.submit([1, 2], max_tokens=3).result()
print("up", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "up\n"
        os.kill(child.pid, signal.SIGKILL)
    run = replay(tmp_path / "log")
    assert "cut off" in run.note
    assert 1 <= len(run.requests) <= 2
    assert run.metrics["completed"] == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_leaves_the_log_alone(tmp_path):
    with Scheduler(CONFIG, SumEngine(CONFIG), record=tmp_path / "log") as scheduler:
        scheduler.submit([1], max_tokens=3).result(HANG_MS)
        if (pid := os.fork()) == 0:
            scheduler.close()
            os._exit(0)
        os.waitpid(pid, 0)
        scheduler.submit([1], max_tokens=3).result(HANG_MS)
        hash = scheduler.stats().decision_hash
    assert replay(tmp_path / "log").decision_hash == hash
