"""What the scheduler adds: one decode step (schedule() and complete(), no engine), alone and with a million requests
queued behind it; and a cancel among those. Priorities, tenants, deadlines and timeouts are on for running and queued.

Run: python bench/bench_scheduler.py
"""

import statistics
import time

import numpy as np

from wattwork._native import core
from wattwork.scheduler import SchedulerConfig

PROMPT, OUTPUT, BLOCK = 128, 1500, 16
MILLION = 1_000_000
FAR_NS = 10**15


def order(i, queued):
    """A place in the order: 4 priorities, below those of the running; 100 tenants; a deadline for every other one."""
    deadline_ns = FAR_NS + i * 7919 % MILLION if i % 2 else 0
    return {
        "priority": -1 - i % 4 if queued else i % 4,
        "tenant": i * 31 % 100,
        "deadline_ns": deadline_ns,
        "timeout_ns": FAR_NS + i * 104_729 % MILLION * 1000,
    }


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
    for i in range(running):
        machine.submit(0, prompt, OUTPUT, **order(i, False))
    for i in range(queued):
        machine.submit(0, prompt[:1], OUTPUT, **order(i, True))
    machine.run_steps(0, -(-running * PROMPT // config.max_num_batched_tokens) + 1, 1, 7)
    return machine


def steps_us(machines, repeats=15, steps=60):
    """Microseconds a step, for each machine the list of repeats; the machines take turns."""
    times = [[] for _ in machines]
    for _ in range(repeats):
        for machine, mine in zip(machines, times, strict=True):
            start = time.perf_counter()
            done = machine.run_steps(0, steps, 1, 7)
            mine.append((time.perf_counter() - start) / done * 1e6)
            assert (done, machine.counters()["num_preemptions"]) == (steps, 0)
    return times


def cancels_ns(machine, running, n=20_000):
    """Nanoseconds a call, from Python, for random ones of the queued."""
    ids = np.random.default_rng(1).choice(np.arange(running + 1, MILLION), n, replace=False).tolist()
    times = []
    for id in ids:
        start = time.perf_counter_ns()
        found = machine.cancel(0, id)
        times.append(time.perf_counter_ns() - start)
        assert found
    return times


if __name__ == "__main__":
    print("running   us/step: median, least")
    for running in (16, 256, 1024, 4096):
        (times,) = steps_us([steady(running)])
        print(f"{running:7}   {statistics.median(times):9.2f} {min(times):9.2f}")
    print("\nwith 10^6 queued, beside an empty queue, by turns")
    print("running   us/step: empty, 10^6 queued (medians), ratio; us/cancel: p50, p90")
    for running in (16, 256, 1024):
        machines = [steady(running), steady(running, MILLION)]
        empty, full = (statistics.median(t) for t in steps_us(machines))
        cancels = np.percentile(cancels_ns(machines[1], running), [50, 90]) / 1e3
        print(f"{running:7}   {empty:9.2f} {full:9.2f} {full / empty:6.2f}        {cancels[0]:9.2f} {cancels[1]:9.2f}")
