"""What one decode step costs the scheduler: schedule() and complete(), without an engine.

Run: python bench/bench_scheduler.py
"""

import statistics
import time

import numpy as np

from wattwork._native import core
from wattwork.scheduler import SchedulerConfig

PROMPT, OUTPUT, BLOCK = 128, 1500, 16


def steady(running, queued=0):
    """A machine with `running` sequences, all of them decoding, and `queued` requests behind them."""
    config = SchedulerConfig(
        max_num_seqs=running,
        max_num_batched_tokens=max(running, 8192),
        max_num_queued_reqs=running + queued,
        max_num_queued_tokens=2**31 - 1,
        block_size=BLOCK,
        num_blocks=running * (PROMPT + OUTPUT) // BLOCK,
        max_model_len=2048,
    )
    machine = core.SchedulerCore(config)
    prompt = np.arange(PROMPT, dtype=np.int32)
    for _ in range(running):
        machine.submit(0, prompt, OUTPUT)
    for _ in range(queued):
        machine.submit(0, prompt[:1], OUTPUT)
    machine.run_steps(0, -(-running * PROMPT // config.max_num_batched_tokens) + 1, 1, 7)
    return machine


def step_us(running, queued=0, repeats=15, steps=60):
    """Median microseconds a step, and the least."""
    machine = steady(running, queued)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = machine.run_steps(0, steps, 1, 7)
        times.append((time.perf_counter() - start) / done * 1e6)
    counters = machine.counters()
    assert (done, counters["num_requests_running"], counters["num_preemptions"]) == (steps, running, 0)
    return statistics.median(times), min(times)


if __name__ == "__main__":
    print("running   queued   us/step (median, least)")
    for running, queued in ((16, 0), (256, 0), (1024, 0), (1024, 1_000_000), (4096, 0)):
        median, least = step_us(running, queued)
        print(f"{running:7} {queued:8}   {median:9.2f} {least:9.2f}")
