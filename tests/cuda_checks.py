"""What tests/test_cuda.py runs on the fake driver, each function in a process of its own: cuda_checks.py NAME."""

import ctypes
import itertools
import os
import random
import sys
import threading
import time

import pytest
from backs import moves
from engines_for_tests import SumEngine
from headers import GENESIS, oracle, sha256d
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import FRESH_SEED
from test_search import works_and_rects

from wattwork._native import core
from wattwork._search import search
from wattwork.errors import DeviceError
from wattwork.rectangle import Hit, Rect
from wattwork.stop import Stop
from wattwork.work import MAX_TARGET, Work

NO_LIMIT = 2**64 - 1
SMALL = {"threads": 32, "blocks_per_sm": 2, "chunk": 8, "lanes": 64, "capacity": 4096}
MASK = 0x1FFFE000


def on_gpu(gpu, work, rect, *, stop=None, max_hits=NO_LIMIT):
    """(hits, remaining, hashes)"""
    stop = stop or Stop()
    target = work.target.to_bytes(32, "little")
    hits, rest, hashes = gpu.search(work.header, target, work.version_mask, rect, stop.address, max_hits, False)
    return tuple(map(Hit._make, hits)), [Rect._make(r) for r in rest], hashes


def pairs(rects):
    return sum(r.count * r.versions for r in rects)


def numbers(work, rect):
    return {work.version_at(rect.version_first + i): rect.version_first + i for i in range(rect.versions)}


def assert_disjoint_and_within(rects, whole):
    for r in rects:
        assert r.count > 0
        assert r.versions > 0
        assert whole.first <= r.first
        assert r.first + r.count <= whole.first + whole.count
        assert whole.version_first <= r.version_first
        assert r.version_first + r.versions <= whole.version_first + whole.versions
    for a, b in itertools.combinations(rects, 2):
        across = a.first < b.first + b.count and b.first < a.first + a.count
        along = a.version_first < b.version_first + b.versions and b.version_first < a.version_first + a.versions
        assert not (across and along), (a, b)


def assert_partition(work, rect, hits, remaining, hashes, every):
    """The hits are those of `every`, all there are in the rectangle, that lie outside what remains."""
    assert_disjoint_and_within(remaining, rect)
    assert hashes == rect.count * rect.versions - pairs(remaining)
    number = numbers(work, rect)

    def remains(hit):
        at = number[hit[1]]
        return any(
            r.first <= hit[0] < r.first + r.count and r.version_first <= at < r.version_first + r.versions
            for r in remaining
        )

    assert hits == tuple(hit for hit in every if not remains(hit))


shapes = st.builds(
    lambda threads, groups, **rest: {"threads": threads, "lanes": threads * groups, **rest},
    st.sampled_from([32, 64]),
    st.integers(1, 3),
    blocks_per_sm=st.integers(1, 3),
    chunk=st.integers(1, 9),
    capacity=st.sampled_from([1, 2, 7, 64, 4096]),
)


@settings(deadline=None, max_examples=300, database=None)
@given(works_and_rects(), shapes, st.integers(1, 20) | st.just(NO_LIMIT))
def random_work(work_and_rect, shape, max_hits):
    """Any work, rectangle, shape and limit, against hashlib."""
    work, rect = work_and_rect
    every = oracle(work, *rect)
    hits, remaining, hashes = on_gpu(core.Gpu(0, b"any", shape), work, rect, max_hits=max_hits)
    assert len(hits) == min(max_hits, len(every))
    assert_partition(work, rect, hits, remaining, hashes, every)
    if len(every) < max_hits:
        assert not remaining


def stopped_at_a_random_moment():
    """Of plain and rolled searches; what remains is searched again until nothing does."""
    rng = random.Random(FRESH_SEED)
    gpu, cut = core.Gpu(0, b"any", SMALL), 0
    for versions in (1, 3, 32, 96, 101) * 3:
        work = Work.from_header(rng.randbytes(80), target=2**246, version_mask=MASK)
        rect = Rect(rng.randrange(2**31), 200_000 // versions, rng.randrange(1000), versions)
        every, found, todo = search(work, **rect._asdict()).hits, [], [rect]
        while todo:
            one, stop = todo.pop(), Stop()
            timer = threading.Timer(rng.random() * 0.1, stop.set)
            timer.start()
            hits, remaining, hashes = on_gpu(gpu, work, one, stop=stop)
            timer.cancel()
            timer.join()
            assert_partition(work, one, hits, remaining, hashes, search(work, **one._asdict()).hits)
            cut += bool(remaining)
            found += hits
            todo += remaining
        number = numbers(work, rect)
        assert tuple(sorted(found, key=lambda hit: (number[hit.version], hit.nonce))) == every
    assert cut


def stop_set_beforehand():
    stop = Stop()
    stop.set()
    work, rect = Work.from_header(GENESIS), Rect(5, 1000, 0, 1)
    assert on_gpu(core.Gpu(0, b"any", SMALL), work, rect, stop=stop) == ((), [rect], 0)


def an_overflow_loses_nothing():
    """A header of whose first 64 nonces more than eight are candidates: they are swept together at first."""
    shape = {**SMALL, "capacity": 8}
    for seed in itertools.count():
        work = Work.from_header(random.Random(seed).randbytes(80), target=2**252 - 1)
        if len(oracle(work, 0, 64)) > 8:
            break
    every = oracle(work, 0, 1000)
    hits, remaining, hashes = on_gpu(core.Gpu(0, b"any", shape), work, Rect(0, 1000, 0, 1))
    assert (hits, remaining, hashes) == (every, [], 1000)


def easiest_target():
    """Every pair is a hit, also of rolled versions, up to the last nonce."""
    work = Work.from_header(GENESIS, target=MAX_TARGET, version_mask=MASK)
    rect = Rect(2**32 - 150, 150, 7, 70)
    for capacity in (5, 100, 2000):
        hits, remaining, _ = on_gpu(core.Gpu(0, b"any", {**SMALL, "capacity": capacity}), work, rect)
        assert hits == search(work, **rect._asdict()).hits
        assert not remaining


def searches_side_by_side():
    gpu, work = core.Gpu(0, b"any", SMALL), Work.from_header(GENESIS, target=2**246, version_mask=MASK)
    rects = [Rect(1000 * i, 20_000, i, 1 + 33 * (i % 2)) for i in range(4)]
    results = [None] * 4

    def one(i):
        results[i] = on_gpu(gpu, work, rects[i])

    callers = [threading.Thread(target=one, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for rect, (hits, remaining, _) in zip(rects, results, strict=True):
        assert hits == search(work, **rect._asdict()).hits
        assert not remaining


def public_search():
    """wattwork.search with a device: the same result, and the GPU's architecture for an instruction set."""
    import wattwork

    work = Work.from_header(GENESIS, target=2**244, version_mask=MASK)
    for device in ("cuda:0", "cuda:1"):
        result = wattwork.search(work, 3, 1000, versions=300, version_first=2, device=device)
        cpu = wattwork.search(work, 3, 1000, versions=300, version_first=2)
        assert (result.hits, result.hashes, result.remaining) == (cpu.hits, cpu.hashes, cpu.remaining)
        assert result.isa == "sm_90"
        assert wattwork.search(work, 3, 0, device=device).hashes == 0


def all_gpus():
    """Device "cuda": one result, whoever found what; stopped, limited, of few nonces or none, against one CPU's."""
    import wattwork

    rng = random.Random(FRESH_SEED)
    for versions, count in ((1, 30_000), (3, 7000), (1700, 30), (1, 0), (1, 1), (900, 1)):
        work = Work.from_header(rng.randbytes(80), target=2**246, version_mask=MASK)
        rect = Rect(rng.randrange(2**31), count, rng.randrange(1000), versions)
        every = search(work, **rect._asdict()).hits
        result = search(work, **rect._asdict(), device="cuda")
        assert (result.hits, result.hashes, result.remaining) == (every, count * versions, ())
        for limit in (1, 5):
            result = search(work, **rect._asdict(), device="cuda", max_hits=limit)
            assert len(result.hits) == min(limit, len(every))
            assert_partition(work, rect, result.hits, result.remaining, result.hashes, every)
        stop = Stop()
        timer = threading.Timer(rng.random() * 0.05, stop.set)
        timer.start()
        result = search(work, **rect._asdict(), device="cuda", stop=stop)
        timer.join()
        assert_partition(work, rect, result.hits, result.remaining, result.hashes, every)
        assert result.isa == "sm_90"
    with pytest.raises(wattwork.InvalidInput, match="there is no device 'cuda' for this"):
        wattwork.Job(work, device="cuda")


def a_device_that_hashes():
    """Idle and hash, with a request's worth of switching: the job is the GPU's, and its hits are right."""
    import wattwork

    work = Work.from_header(GENESIS, target=2**244, version_mask=MASK)
    with wattwork.Device("cuda:0", meter=wattwork.Meter(watts=100, device="cuda:0")) as device:
        job = wattwork.Job(work, device="cuda:0")
        assert (device.kind, job.isa) == ("cuda", "sm_90")
        device.bind(job)
        for _ in range(3):
            assert device.switch("hash").first_unit_s > 0
            assert device.run(0.2).hashes > 0
            device.switch("idle")
            before = job.units
            assert device.run(0.1).hashes == 0
            assert job.units == before
        for hit in job.take_hits():
            assert sha256d(work.header_with(nonce=hit.nonce, version=hit.version, time=hit.time)) == hit.hash
            assert int.from_bytes(hit.hash, "little") <= work.target
        with pytest.raises(wattwork.InvalidInput, match="the job is for device 'cpu'"):
            device.bind(wattwork.Job(work))


def a_device_that_fails():
    """The fault of a GPU that hashes in the back is told by the device, not by a thread that dies."""
    import wattwork

    with wattwork.Device("cuda:0", meter=wattwork.Meter(watts=100, device="cuda:0")) as device:
        device.bind(wattwork.Job(Work.from_header(GENESIS), device="cuda:0"))
        try:
            device.switch("hash")
            device.run(0.5)
            device.switch("idle")
        except wattwork.WattworkError as error:
            print(error)


def jobs():
    """A job that is stopped again and again: units, hits and what is left agree, and header time moves on."""
    rng = random.Random(FRESH_SEED)
    for versions in (2, 64):
        work = Work.from_header(rng.randbytes(80), target=2**247, version_mask=MASK)
        share = Rect(rng.randrange(1000), 60_000 // versions, 5, versions)
        job = core.GpuJob(
            core.Gpu(0, b"any", SMALL), work.header, work.target.to_bytes(32, "little"), work.version_mask, share
        )
        found = []
        while job.units < 2.5 * pairs([share]):
            stop = Stop()
            timer = threading.Timer(rng.random() * 0.05, stop.set)
            timer.start()
            job.run(stop.address, 0, False)
            timer.join()
            left = [(moved, Rect._make(r)) for moved, r in job.left()]
            done = pairs([share]) * (left[0][0] - work.time) if left else pairs([share])
            found += job.take_hits()
            if left:
                assert job.units == done + pairs([share]) - pairs([r for _, r in left])
                assert_disjoint_and_within([r for _, r in left], share)
        assert job.hits_lost == 0
        for moved in range(work.time, work.time + 2):  # these are done
            header = work.header_with(nonce=0, time=moved)
            then = Work.from_header(header, target=work.target, version_mask=MASK)
            got = sorted((hit[1], hit[0], hit[3]) for hit in found if hit[2] == moved)
            assert got == sorted((h.version, h.nonce, h.hash) for h in search(then, **share._asdict()).hits)


def yields_of_a_job():
    """A stop word that is set while the GPU works is obeyed, and the job goes on where it was.

    Launches of no budget end by their flag alone.
    """
    work = Work.from_header(GENESIS)
    for launch_us in (0, 1000):
        gpu = core.Gpu(0, b"any", {**SMALL, "launch_us": launch_us})
        job = core.GpuJob(gpu, work.header, b"\1" + bytes(31), 0, (0, 2**32, 0, 1))
        for _ in range(5):
            stop = Stop()
            runner = threading.Thread(target=job.run, args=(stop.address, 0, False), daemon=True)
            runner.start()
            time.sleep(0.05)
            stop.set()
            runner.join(20)
            assert not runner.is_alive()
            assert job.units == 2**32 - pairs([Rect._make(r) for _, r in job.left()])
        assert job.units > 0


class Fake:
    """The fake driver's own calls, and streams of the GPU's primary context, as a front would have them."""

    def __init__(self):
        self.driver = ctypes.CDLL("libcuda.so.1")
        for name in ("fake_begun", "fake_begun_beside_a_front"):
            getattr(self.driver, name).restype = ctypes.c_uint64
        assert self.driver.cuInit(0) == 0
        self._context = ctypes.c_void_p()
        assert self.driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), 0) == 0
        assert self.driver.cuCtxPushCurrent_v2(self._context) == 0

    def stream(self):
        made = ctypes.c_void_p()
        assert self.driver.cuStreamCreateWithPriority(ctypes.byref(made), 1, 0) == 0
        return made.value

    def kernel(self, stream, us):
        assert self.driver.fake_front(ctypes.c_void_p(stream), us) == 0

    def wait(self, stream):
        assert self.driver.cuStreamSynchronize(ctypes.c_void_p(stream)) == 0

    @property
    def begun(self):
        return self.driver.fake_begun()

    @property
    def beside(self):
        return self.driver.fake_begun_beside_a_front()


class Running:
    """A job that runs in a thread of its own, as long as the block does; then its account is held against its units."""

    def __init__(self, job, pairs_in_all):
        self._job, self._pairs, self._stop = job, pairs_in_all, Stop()
        self._thread = threading.Thread(target=job.run, args=(self._stop.address, 0, False), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self._job.units == self._pairs - pairs([Rect._make(r) for _, r in self._job.left()])


def endless_job(**more):
    work, whole = Work.from_header(GENESIS), Rect(0, 2**32, 0, 1)
    gpu = core.Gpu(0, b"any", {**SMALL, "launch_us": more.pop("launch_us", 1000)})
    return core.GpuJob(gpu, work.header, b"\1" + bytes(31), 0, whole, **more), pairs([whole])


def until(condition):
    """Waits for it: a minute at most."""
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never happened")


def fronts_keep_hashing_away():
    """Of two streams, short and long, from threads of their own, while the job runs, stops and runs again."""
    fake, (job, whole) = Fake(), endless_job()
    rng = random.Random(FRESH_SEED)

    def front(stream, seed):
        mine = random.Random(seed)
        for _ in range(60):
            depth = mine.randrange(1, 3)
            for _ in range(depth):
                job.front_begin(stream)
            fake.kernel(stream, mine.choice([0, 50, 500, 20_000 if mine.random() < 0.2 else 5]))
            for _ in range(depth):
                job.front_end(stream)
            time.sleep(mine.random() * 0.003)

    streams = [fake.stream(), fake.stream()]
    threads = [threading.Thread(target=front, args=(s, rng.random())) for s in streams]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with Running(job, whole):
            time.sleep(rng.random() * 0.1)
    for thread, stream in zip(threads, streams, strict=True):
        thread.join()
        fake.wait(stream)
    before = job.units
    with Running(job, whole):
        until(lambda: job.units > before)
    assert fake.begun > 0
    assert fake.beside == 0


def hashing_goes_on_without_the_cpu():
    """A launch that waits at the gate goes on when the front ends: units begin while nobody looks after the job."""
    fake, (job, whole) = Fake(), endless_job()
    stream, gone_on = fake.stream(), 0
    with Running(job, whole):
        for _ in range(20):
            until(lambda before=fake.begun: fake.begun > before)
            job.front_begin(stream)
            fake.kernel(stream, 1000)
            job.front_end(stream)
            fake.wait(stream)
            after = fake.begun
            until(lambda after=after: fake.begun > after)
            gone_on += 1
    assert gone_on == 20
    assert fake.beside == 0


def a_front_that_never_ends_holds_up_nothing_else():
    """Nothing hashes, a stop is obeyed, nothing stays queued behind the gate, and the end, late, lets it all go on."""
    fake, (job, whole) = Fake(), endless_job()
    stream = fake.stream()
    job.front_end(stream)  # of nothing
    job.front_begin(stream)
    job.front_begin(stream)
    fake.wait(stream)
    for _ in range(3):
        with Running(job, whole):
            time.sleep(0.1)
            assert (job.units, fake.begun) == (0, 0)
    job.front_end(stream)
    fake.wait(stream)
    with Running(job, whole):
        time.sleep(0.1)
        assert (job.units, fake.begun) == (0, 0)
        job.front_end(stream)
        until(lambda: job.units > 0)
    job.front_end(stream)  # of nothing
    job.front_begin(stream)  # and it goes like this: its memory is free for others, and no gate stays shut
    job = None
    other, whole = endless_job()
    with Running(other, whole):
        until(lambda: other.units > 0)


def too_many_fronts_are_refused():
    fake, (job, whole) = Fake(), endless_job()
    streams = [fake.stream() for _ in range(5)]
    for stream in streams[:4]:
        job.front_begin(stream)
    with pytest.raises(DeviceError, match="more than 4 streams have a front before this job; end one of them"):
        job.front_begin(streams[4])
    job.front_end(streams[4])  # of nothing
    job.front_end(streams[2])
    fake.wait(streams[2])
    job.front_begin(streams[4])
    for stream in streams:
        job.front_end(stream)
    with Running(job, whole):
        until(lambda: job.units > 0)


def without_memory_operations():
    """A driver that has none: copies raise the flag, and the CPU lets the job go on."""
    fake, (job, whole) = Fake(), endless_job()
    stream = fake.stream()
    with Running(job, whole):
        for _ in range(10):
            until(lambda before=job.units: job.units > before)
            job.front_begin(stream)
            fake.wait(stream)
            time.sleep(0.02)  # until it was seen
            before = fake.begun
            time.sleep(0.01)
            assert fake.begun - before == 0
            job.front_end(stream)


def sms_that_a_job_may_use():
    """Units on the others begin nothing; the account is exact; with none to use, nothing is done."""
    import wattwork

    fake = Fake()
    for sms, per_launch in ((1, 1), (3, 3), (4, 4)):
        job, whole = endless_job(sms=sms, launch_us=0)
        before = fake.begun
        with Running(job, whole):
            until(lambda before=before: fake.begun > before)
        assert (fake.begun - before) % (2 * per_launch) == 0  # units of a block a SM, two blocks a SM
    work = Work.from_header(GENESIS, target=2**247, version_mask=MASK)
    share = Rect(7, 300, 3, 64)
    gpu = core.Gpu(0, b"any", SMALL)
    job = core.GpuJob(gpu, work.header, work.target.to_bytes(32, "little"), MASK, share, sms=1)
    while job.units < 2 * pairs([share]):
        stop = Stop()
        timer = threading.Timer(0.02, stop.set)
        timer.start()
        job.run(stop.address, 0, False)
        timer.join()
    got = sorted((hit[1], hit[0], hit[3]) for hit in job.take_hits() if hit[2] == work.time)
    assert got == sorted((h.version, h.nonce, h.hash) for h in search(work, **share._asdict()).hits)
    public = wattwork.Job(work, device="cuda:0", sms=4)
    stream = fake.stream()
    public.front_begin(stream)
    public.front_end(stream)
    for wrong in (0, 5, -1):
        with pytest.raises(wattwork.InvalidInput, match="sms must be from 1 to 4, all that this GPU has, not"):
            wattwork.Job(work, device="cuda:0", sms=wrong)


def a_throttled_back():
    """A scheduler's share of time for a job on the GPU: all, a quarter, none, all again; the account stays exact."""
    import wattwork

    config = wattwork.SchedulerConfig(
        max_num_seqs=4, max_num_batched_tokens=8, block_size=4, num_blocks=12, max_model_len=40
    )
    job = wattwork.Job(Work.from_header(GENESIS, target=2**244, version_mask=MASK), device="cuda:0")
    with wattwork.Scheduler(config, SumEngine(config), job) as scheduler:
        moves(job)
        scheduler.throttle(back=0.25)
        busy, begin = scheduler.stats().back_busy_ns, time.monotonic_ns()
        moves(job)
        time.sleep(0.5)
        assert 0 < scheduler.stats().back_busy_ns - busy < 0.75 * (time.monotonic_ns() - begin)
        scheduler.throttle(back=0)
        scheduler.set_back_mode("off")  # returns when it has left
        scheduler.set_back_mode("gap")
        before = job.units
        time.sleep(0.05)
        assert job.units == before
        scheduler.throttle()
        moves(job)
    left = sum(pairs([Rect._make(r)]) for _, r in job.native.left())
    assert job.units == 2**32 * 2**16 - left
    for hit in job.take_hits():
        header = job.work.header_with(nonce=hit.nonce, version=hit.version, time=hit.time)
        assert sha256d(header) == hit.hash


def nothing_is_opened_before_it_is_asked_for():
    import wattwork

    def maps():
        with open("/proc/self/maps") as lines:
            return "libcuda" in lines.read()

    assert wattwork.search(Work.from_header(GENESIS), 0, 1000).hashes == 1000
    assert not maps()
    wattwork.search(Work.from_header(GENESIS), 0, 1000, device="cuda:0")
    assert maps()


def the_callers_context_is_left_alone():
    """Whatever context is current before a search, none here, is current after it; also after one that fails."""
    driver = ctypes.CDLL("libcuda.so.1")
    gpu, work = core.Gpu(0, b"any", SMALL), Work.from_header(GENESIS, target=2**250)
    on_gpu(gpu, work, Rect(0, 1000, 0, 1))
    assert driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())) == 201  # CUDA_ERROR_INVALID_CONTEXT


def a_fork_is_refused():
    gpu, work = core.Gpu(0, b"any", SMALL), Work.from_header(GENESIS)
    on_gpu(gpu, work, Rect(0, 100, 0, 1))
    child = os.fork()
    if child == 0:
        try:
            on_gpu(gpu, work, Rect(0, 100, 0, 1))
        except DeviceError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)


def said():
    """What a search on the device of the arguments says."""
    import wattwork

    try:
        wattwork.search(Work.from_header(GENESIS, target=2**240), 0, 5000, device=sys.argv[2])
        print("no error")
    except wattwork.WattworkError as error:
        print(f"{type(error).__name__}: {error}")


def until_interrupted():
    import wattwork

    work = Work.from_header(GENESIS, target=1, version_mask=MASK)
    wattwork.search(work, 0, 1, device=sys.argv[2])
    print("ready", flush=True)
    wattwork.search(work, versions="all", device=sys.argv[2])


if __name__ == "__main__":
    assert sha256d(b"")  # of the same oracle as everywhere
    globals()[sys.argv[1]]()
