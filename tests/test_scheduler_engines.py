"""The engines under the live scheduler: any schedule gives the same tokens, preemption included."""

import numpy as np
import pytest

from wattwork.engines.base import ModelConfig
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput, RequestFailed
from wattwork.scheduler import Scheduler, SchedulerConfig

MODEL = ModelConfig("test", 2, 64, 4, 2, 16, 96, 211, 128, 1e4)
HANG_MS = 120_000


def native_engine():
    from wattwork.engines.cpu_engine import CpuEngine

    return CpuEngine(threads=2)


@pytest.fixture(params=[pytest.param(native_engine, marks=pytest.mark.core), NumPyEngine], ids=["native", "numpy"])
def engine(request):
    engine = request.param()
    engine.load(MODEL, "dummy:3")
    yield engine
    engine.close()


def run(engine, requests, **bounds):
    """The requests' outputs and the scheduler's counters, in a KV pool of 12 blocks."""
    assert engine.alloc_kv(1 << 20) >= 12
    config = SchedulerConfig(**bounds, block_size=16, num_blocks=12, max_model_len=128)
    with Scheduler(config, engine) as scheduler:
        handles = [scheduler.submit(prompt, max_tokens=n) for prompt, n in requests]
        return [handle.result(HANG_MS) for handle in handles], scheduler.stats()


def test_any_schedule_gives_the_same_tokens(engine):
    rng = np.random.default_rng(5)
    requests = [(rng.integers(0, MODEL.vocab, rng.integers(1, 60)), int(rng.integers(1, 60))) for _ in range(12)]
    alone, _ = run(engine, requests, max_num_seqs=1, max_num_batched_tokens=128)
    crowd, stats = run(engine, requests, max_num_seqs=6, max_num_batched_tokens=24)
    assert stats.num_preemptions > 0
    assert [len(tokens) for tokens in crowd] == [n for _, n in requests]
    if engine.caps.batch_invariant:
        assert crowd == alone


def test_prompt_beyond_the_vocabulary_is_refused(engine):
    with pytest.raises(InvalidInput, match="from 0 to 210"):
        run(engine, [([211], 1)], max_num_seqs=1, max_num_batched_tokens=16)


@pytest.mark.core
def test_an_engine_closed_under_its_scheduler_fails_the_requests():
    engine = native_engine()
    engine.load(MODEL, "dummy:3")
    engine.alloc_kv(1 << 20)
    with Scheduler(SchedulerConfig(num_blocks=12, max_model_len=128), engine) as scheduler:
        running = scheduler.submit([1], max_tokens=127)
        next(iter(running))
        engine.close()
        late = scheduler.submit([1], max_tokens=127)
        with pytest.raises(RequestFailed):
            late.result(HANG_MS)
