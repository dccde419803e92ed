"""What every system is put through, and the model that all of them serve: it gives back what it was given.

Each measurement drives a client: `submit(id)` queues a request, `future(request)` is an asyncio future of its end,
`cancel(request)` is the system's own way to cancel it, `call(id)` awaits an answer, `call_within(id, s)` does with a
timeout. `Client` is that of a system that batches calls of one coroutine function on an asyncio loop.
"""

import asyncio
import random
import threading
import time
from statistics import median, quantiles

BATCH = 64
CALLERS = 256  # of the closed loop
GOES = 3  # of the closed loop
SAMPLES = 1000  # requests cancelled, or timed out
TIMEOUT_S = 0.05
TOLD_S = 0.005  # so long each cancel is waited for before the next; whoever is told later is told later
HOLD_S = 0.5  # so much longer the model stays blocked after the last cancel or timeout
BLOCKER = 2_000_000_000  # the id of the request that the blocked model sits on


class Model:
    """Blocked, it sits in its step until let go, as a busy device would: without the GIL and off the event loop."""

    def __init__(self):
        self.gate, self.stepping = threading.Event(), threading.Event()
        self.gate.set()
        self.seen = []  # ids executed since block()

    def block(self):
        self.seen.clear()
        self.stepping.clear()
        self.gate.clear()

    def let_go(self):
        self.gate.set()

    def is_stepping(self):
        return self.stepping.is_set()

    def executed(self, ids):
        return len(set(self.seen) & set(ids))

    def step(self, batch):
        if not self.gate.is_set():
            self.stepping.set()
            self.gate.wait()
        self.seen.extend(batch)
        return batch

    async def step_async(self, batch):
        return self.step(batch) if self.gate.is_set() else await asyncio.to_thread(self.step, batch)


class Client:
    settle_s = 0.0  # how long queued requests take to reach the queue

    def __init__(self, model, call):
        self.model, self.call = model, call

    def submit(self, id):
        return asyncio.ensure_future(self.call(id))

    def future(self, request):
        return request

    def cancel(self, request):
        request.cancel()

    async def call_within(self, id, seconds):
        await asyncio.wait_for(self.call(id), seconds)

    async def finish(self, requests):
        await asyncio.wait([self.future(request) for request in requests])


async def burst(client, n):
    """Requests per second, all of them enqueued at once."""
    start = time.perf_counter()
    requests = [client.submit(i) for i in range(n)]
    await client.finish(requests)
    seconds = time.perf_counter() - start
    assert all(client.future(request).result() is not None for request in (requests[0], requests[-1]))
    return {"n": n, "per_s": n / seconds}


async def closed(client, n):
    """Requests per second of concurrent callers, each of which awaits its answer and sends the next: the median of
    some goes, after one that is not counted."""
    rates = []
    for _ in range(1 + GOES):
        left = n

        async def caller():
            nonlocal left
            while left > 0:
                left -= 1
                await client.call(left)

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        rates.append(n / (time.perf_counter() - start))
    return {"n": n, "per_s": median(rates[1:])}


async def _block(client, n):
    """A blocked model and `n` requests in the queue behind the one that it sits on."""
    client.model.block()
    requests = [client.submit(BLOCKER)]
    while not client.model.is_stepping():
        await asyncio.sleep(0.001)
    requests += [client.submit(i) for i in range(n)]
    await asyncio.sleep(client.settle_s)
    return requests


async def cancel(client, n):
    """One of `n` queued, again and again: until the call returns, until the caller is told; who ran all the same."""
    requests = await _block(client, n)
    chosen = random.Random(1).sample(range(1, n + 1), SAMPLES)
    told, returned, asked = {}, [], {}
    futures = {i: client.future(requests[i]) for i in chosen}
    for i, future in futures.items():
        future.add_done_callback(lambda future, i=i: (told.setdefault(i, time.perf_counter()), _look(future)))
    await asyncio.sleep(0)
    for i in chosen:
        asked[i] = time.perf_counter()
        client.cancel(requests[i])
        returned.append(time.perf_counter() - asked[i])
        await asyncio.wait([futures[i]], timeout=TOLD_S)
    await asyncio.sleep(HOLD_S)
    let_go = time.perf_counter()
    client.model.let_go()
    await client.finish(requests)
    await asyncio.wait(futures.values())
    await client.call(BLOCKER)  # what is left of the queue has passed through the model before it
    return {
        "queued": n,
        "samples": SAMPLES,
        "returned_us": median(returned) * 1e6,
        "told_us": median(told[i] - asked[i] for i in chosen) * 1e6,
        "told_while_blocked": sum(at < let_go for at in told.values()),
        "executed": client.model.executed([i - 1 for i in chosen]),
    }


async def timeout(client, n):
    """Of requests with a timeout behind `n` queued: when their callers are told; who ran all the same."""
    requests = await _block(client, n)
    times, in_time = [], 0

    async def probe(id):
        nonlocal in_time
        start = time.perf_counter()
        try:
            await client.call_within(id, TIMEOUT_S)
        except Exception:  # each system raises its own
            in_time += not client.model.gate.is_set()
        times.append(time.perf_counter() - start)

    ids, probes = range(n, n + SAMPLES), []
    for id in ids:
        probes.append(asyncio.ensure_future(probe(id)))
        await asyncio.sleep(0.001)
    await asyncio.wait(probes, timeout=HOLD_S)
    client.model.let_go()
    await asyncio.wait(probes)
    await client.finish(requests)
    await client.call(BLOCKER)
    return {
        "queued": n,
        "samples": SAMPLES,
        "p50_ms": median(times) * 1e3,
        "p90_ms": quantiles(times, n=10)[-1] * 1e3,
        "told_while_blocked": in_time,
        "executed": client.model.executed(ids),
    }


def _look(future):
    """So that asyncio does not complain of an exception that nobody looked at."""
    if not future.cancelled():
        future.exception()


async def everything(client, *, burst_n, closed_n, queued):
    await burst(client, burst_n)  # a first one, not counted
    return {
        "burst": await burst(client, burst_n),
        "asyncio": await closed(client, closed_n),
        "cancel": await cancel(client, queued),
        "timeout": await timeout(client, queued),
    }
