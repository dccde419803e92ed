"""The engines under the live scheduler: any schedule gives the same tokens, preemption included."""

import numpy as np
import pytest

from wattwork.engines.base import ModelConfig
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput, RequestFailed
from wattwork.scheduler import Sampling, Scheduler, SchedulerConfig

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


def run(engine, requests, sampling=None, **bounds):
    """The requests' outputs and the scheduler's counters, in a KV pool of 12 blocks."""
    assert engine.alloc_kv(1 << 20) >= 12
    config = SchedulerConfig(**bounds, block_size=16, num_blocks=12, max_model_len=128)
    with Scheduler(config, engine) as scheduler:
        handles = [scheduler.submit(prompt, max_tokens=n, sampling=sampling) for prompt, n in requests]
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


def test_shared_prefixes_give_the_same_tokens(engine):
    """Few prefixes, in a pool so small that sharers and donors are preempted. The penalty looks back at the prefix."""
    rng = np.random.default_rng(6)
    prefixes = [rng.integers(0, MODEL.vocab, 50) for _ in range(2)]
    requests = [(prefixes[0], 30), (prefixes[0][:48], 30), (prefixes[0], 30)]
    for i in range(16):
        own = rng.integers(0, MODEL.vocab, rng.integers(1, 9))
        requests.append((np.concatenate([prefixes[i % 2][: rng.integers(10, 51)], own]), 40))
    bounds = {"max_num_seqs": 6, "max_num_batched_tokens": 64}
    for sampling in (None, Sampling(repetition_penalty=1.3, temperature=0.7, top_k=9, seed=4)):
        apart, stats = run(engine, requests, sampling=sampling, **bounds)
        assert stats.prefix_shared_tokens == 0
        shared, stats = run(engine, requests, sampling=sampling, **bounds, enable_prefix_sharing=True)
        assert stats.prefix_shared_tokens > 16
        assert stats.num_preemptions > 0
        assert [len(tokens) for tokens in shared] == [n for _, n in requests]
        if engine.caps.batch_invariant:
            assert shared == apart


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
