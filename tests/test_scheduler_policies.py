"""The scheduler's policies one by one, in virtual time, on the C++ state machine and on its twin."""

import numpy as np
import pytest

from wattwork._native import HAVE_CORE, core
from wattwork.scheduler import SchedulerConfig
from wattwork.scheduler.twin import Outcome, Reject, SchedulerTwin, to_batch

MS = 1_000_000
MACHINES = [SchedulerTwin, *([core.SchedulerCore] if HAVE_CORE else [])]


class Driven:
    """A state machine whose engine answers 1 for every token. A request's prompt is its name: a token, repeated."""

    def __init__(self, machine, **changes):
        sizes = {"max_num_seqs": 2, "max_num_batched_tokens": 8, "num_blocks": 64, "block_size": 4, "max_model_len": 64}
        self.config = SchedulerConfig(**{**sizes, **changes})
        self.machine = machine(self.config)
        self.names, self.tokens = {}, []
        self.ends, self.missed = [], set()
        self.now_ns = 0

    def submit(self, name, max_tokens=1, n=1, **order):
        id = self.machine.submit(self.now_ns, np.full(n, name, np.int32), max_tokens, **order)
        if id > 0:
            self.names[id] = name
        return id

    def cancel(self, name):
        return self.machine.cancel(self.now_ns, next(id for id, n in self.names.items() if n == name))

    def begin(self):
        """The prompt tokens of the next batch: names of those just admitted. None: no batch."""
        batch = self.machine.schedule(self.now_ns)
        if isinstance(self.machine, SchedulerTwin):
            batch = to_batch(batch, self.config.block_size) if batch else None
        self.batch = batch
        return None if batch is None else [t for t in batch.tokens.tolist() if t != 1]

    def end(self):
        self.machine.complete(self.now_ns, np.ones(len(self.batch.want_logits), np.int32))
        return self.take()

    def take(self):
        tokens, ends = self.machine.take_events()
        self.tokens += [self.names[id] for id, *_ in tokens]
        for id, outcome, *_, missed in ends:
            self.ends.append((self.names[id], Outcome(outcome)))
            if missed:
                self.missed.add(self.names[id])
        if HAVE_CORE and not isinstance(self.machine, SchedulerTwin):
            self.machine.check()

    def step(self, ns=0):
        admitted = self.begin()
        self.now_ns += ns
        if admitted is not None:
            self.end()
        return admitted

    def run(self):
        """To the end; the names in the order in which they finished."""
        while self.machine.has_work:
            self.step()
        return [name for name, outcome in self.ends if outcome is Outcome.FINISHED]

    @property
    def counters(self):
        return self.machine.counters()


@pytest.fixture(params=MACHINES)
def driven(request):
    return lambda **changes: Driven(request.param, **changes)


def test_higher_priority_goes_first(driven):
    d = driven(max_num_seqs=1)
    for name, priority in ((10, 0), (11, -5), (12, 3), (13, 3)):
        d.submit(name, priority=priority)
    assert d.run() == [12, 13, 10, 11]


def test_higher_priority_displaces_the_latest_of_the_lowest(driven):
    d = driven(max_num_seqs=3)
    for name, priority in ((10, 0), (11, 0), (12, 1)):
        d.submit(name, max_tokens=4, priority=priority)
    assert d.step() == [12, 10, 11]
    d.submit(20, priority=2)
    d.submit(13, priority=0)
    assert d.begin() == [20], "a seat was lacking; nothing in flight was touched before"
    assert d.counters["num_preemptions"] == 1
    assert d.counters["num_requests_waiting"] == 2
    d.end()
    assert d.step() == [11], "it has its place before 13 again, and computes its prompt anew"
    assert d.run() == [20, 12, 10, 11, 13]
    assert d.tokens.count(11) == 4
    assert d.counters["prompt_tokens"] == 5, "each once"


def test_equal_priority_displaces_nobody(driven):
    d = driven(max_num_seqs=1)
    d.submit(10, max_tokens=9, priority=1)
    d.step()
    d.submit(11, priority=1)
    d.submit(12, priority=0)
    assert d.run() == [10, 11, 12]
    assert d.counters["num_preemptions"] == 0


def test_displacement_for_blocks_and_never_in_vain(driven):
    d = driven(max_num_seqs=4, num_blocks=8, block_size=16, max_num_batched_tokens=100, max_model_len=100)
    d.submit(10, n=33, max_tokens=8, priority=5)  # 3 blocks
    d.submit(11, n=17, max_tokens=8, priority=0)  # 2 blocks
    d.submit(12, n=17, max_tokens=8, priority=0)
    d.step()
    d.submit(20, n=81, priority=3)  # 6 blocks: more than are free with those of 11 and 12
    assert d.step() == []
    assert d.counters["num_preemptions"] == 0, "nobody is displaced in vain"
    d.cancel(20)
    d.submit(21, n=17, priority=3)
    assert d.step() == [21] * 17
    assert d.counters["num_preemptions"] == 1, "one suffices"
    assert d.run() == [21, 10, 11, 12]


def test_a_growing_decode_takes_from_the_lowest_priority(driven):
    d = driven(max_num_seqs=3, num_blocks=4, max_num_batched_tokens=16)
    d.submit(10, n=4, max_tokens=6, priority=0)
    d.submit(11, n=4, max_tokens=6, priority=1)
    d.submit(12, n=4, max_tokens=6, priority=1)
    while not d.counters["num_preemptions"]:
        d.step()
    assert d.counters["num_requests_running"] == 2
    assert d.run()[-1] == 10


def test_aging_bounds_how_often_one_is_overtaken(driven):
    d = driven(max_num_seqs=1, max_overtakes=3)
    d.submit(10, priority=0)
    d.submit(11, priority=0)
    for name in range(20, 30):
        d.submit(name, priority=9)
    assert d.run() == [20, 21, 22, 10, 11, *range(23, 30)]


def test_an_aged_request_is_not_displaced(driven):
    d = driven(max_num_seqs=1, max_overtakes=1)
    d.submit(10, max_tokens=3, priority=0)
    d.submit(20, priority=9)
    d.submit(21, priority=9)
    assert [d.step(), d.step()] == [[20], [10]]
    d.submit(22, priority=9)
    assert d.run() == [20, 10, 21, 22]


def test_displacement_counts_as_overtaking(driven):
    d = driven(max_num_seqs=1, max_overtakes=2)
    d.submit(10, max_tokens=9, priority=0)
    d.step()
    finished = []
    for name in (20, 21, 22):
        d.submit(name, max_tokens=1, priority=9)
        finished.append(d.step())
    assert finished == [[20], [21], [10]], "the second time it is aged"
    assert d.counters["num_preemptions"] == 1
    assert d.run() == [20, 21, 10, 22]


def test_a_light_tenant_is_served_beside_a_heavy_one(driven):
    d = driven(max_num_seqs=2, max_num_queued_reqs=1000)
    for i in range(200):
        d.submit(1000 + i, max_tokens=5, n=3, tenant=1)
    for i in range(40):
        d.submit(2000 + i, max_tokens=5, n=3, tenant=2)
    finished = d.run()
    last = max(i for i, name in enumerate(finished) if name >= 2000)
    heavy_meanwhile = sum(name < 2000 for name in finished[:last])
    assert abs(heavy_meanwhile - 40) <= 2, "both waited all along: equal service"
    for tenant in (1000, 2000):
        mine = [name for name in finished if tenant <= name < tenant + 1000]
        assert mine == sorted(mine)


def test_service_is_weighed_in_tokens(driven):
    d = driven(max_num_seqs=1, max_num_queued_reqs=1000)
    for i in range(60):
        d.submit(1000 + i, max_tokens=20, n=5, tenant=1)  # 45 a request
    for i in range(60):
        d.submit(2000 + i, max_tokens=2, n=5, tenant=2)  # 9 a request
    for _ in range(300):
        d.step()
    done = [name for name, _ in d.ends]
    short, long = sum(name >= 2000 for name in done), sum(name < 2000 for name in done)
    assert long > 5
    assert abs(short - 5 * long) <= 6


def test_a_tenant_that_was_away_gets_no_credit(driven):
    d = driven(max_num_seqs=1, max_num_queued_reqs=1000)
    for i in range(30):
        d.submit(1000 + i, max_tokens=5, tenant=1)
    for _ in range(50):
        d.step()
    served = len(d.ends)
    assert served >= 9
    for i in range(10):
        d.submit(2000 + i, max_tokens=5, tenant=2)
    finished = d.run()[served:]
    assert sum(name >= 2000 for name in finished[:10]) <= 6


def test_deadlines_reorder_only_within_their_tenant(driven):
    d = driven(max_num_seqs=1)
    late, soon = 10**15, 10**14
    d.submit(10, tenant=1)
    d.submit(11, tenant=1, deadline_ns=late)
    d.submit(12, tenant=1, deadline_ns=soon)
    d.submit(20, tenant=2)
    d.submit(21, tenant=2, deadline_ns=late)
    assert d.run() == [12, 21, 11, 20, 10]


def test_cancelled_while_queued_is_never_executed(driven):
    d = driven(max_num_seqs=8)
    d.submit(10, max_tokens=2)
    assert d.begin() == [10]
    for i in range(20):
        d.submit(20 + i, max_tokens=2)
    for i in range(0, 20, 2):
        assert d.cancel(20 + i)
        assert not d.cancel(20 + i)
    d.end()
    assert d.run() == [10, *range(21, 40, 2)]
    assert not {20 + i for i in range(0, 20, 2)} & set(d.tokens)


def test_timeouts_are_due_on_time_with_100_000_queued(driven):
    d = driven(max_num_queued_reqs=200_000, max_num_queued_tokens=10**6)
    d.submit(5, max_tokens=3, timeout_ns=50 * MS)
    assert d.begin() == [5]
    for i in range(100_000):
        d.submit(10, tenant=i % 7, priority=i % 3, timeout_ns=50 * MS if i % 10 == 0 else 0)
    while (at_ns := d.machine.next_wakeup_ns()) < 50 * MS:
        assert at_ns > d.now_ns, "a wake-up is never in the past"
        d.now_ns = at_ns
        d.machine.expire(at_ns)
    assert at_ns == 50 * MS, "the engine is blocked all the while"
    d.machine.expire(at_ns - 1)
    assert d.counters["timed_out"] == 0
    d.machine.expire(at_ns)
    assert d.counters["timed_out"] == 10_001
    assert d.counters["kv_blocks_used"] == 1, "in flight until its step ends"
    d.take()
    d.end()
    assert (d.counters["kv_blocks_used"], d.tokens) == (0, [])
    assert d.machine.next_wakeup_ns() == 2**63 - 1


def test_timeouts_of_any_length_are_exact(driven):
    d = driven(max_num_queued_reqs=1000)
    times = sorted({base + off for k in range(0, 62, 2) for base in (1 << k,) for off in (0, 1, 63, 64, 4097)})
    for i, at_ns in enumerate(reversed(times)):
        d.submit(10 + i, timeout_ns=at_ns)
    for n, at_ns in enumerate(times):
        if n and at_ns - 1 > times[n - 1]:
            d.machine.expire(at_ns - 1)
            assert d.counters["timed_out"] == n
        d.machine.expire(at_ns)
        assert d.counters["timed_out"] == n + 1


def test_what_is_due_is_not_executed(driven):
    d = driven()
    d.submit(10, timeout_ns=5)
    d.submit(11)
    d.now_ns = 5
    assert d.step() == [11]
    assert d.ends == [(10, Outcome.TIMED_OUT), (11, Outcome.FINISHED)]


def test_admission_goes_on_after_the_queue_was_full(driven):
    d = driven(max_num_queued_reqs=3, max_num_queued_tokens=6)
    for _ in range(5):
        for i in range(3):
            assert d.submit(10 + i, n=2) > 0
        assert d.submit(13, n=1) == Reject.QUEUE_FULL
        d.run()


def test_a_preempted_request_returns_to_a_full_queue(driven):
    d = driven(max_num_seqs=1, max_num_queued_reqs=1)
    d.submit(10, max_tokens=3, priority=0)
    d.step()
    d.submit(20, max_tokens=3, priority=1)
    assert d.step() == [20]
    assert d.submit(30) == Reject.QUEUE_FULL
    assert d.run() == [20, 10]


def test_a_deadline_that_cannot_be_met_is_refused(driven):
    d = driven(max_num_seqs=4)
    d.submit(9, max_tokens=15)
    for _ in range(15):
        d.step(MS)
    assert d.submit(10, max_tokens=50, deadline_ns=d.now_ns + 1) > 0, "too early to tell"
    d.submit(11, max_tokens=30)
    for _ in range(20):
        d.step(MS)
    assert d.submit(12, max_tokens=20, deadline_ns=d.now_ns + 10 * MS) == Reject.DEADLINE_INFEASIBLE
    assert d.submit(13, max_tokens=20, deadline_ns=d.now_ns + 40 * MS) > 0
    assert sum(d.counters["step_cost_s"]) == pytest.approx(1e-3, rel=0.05)
    d.run()
    assert d.missed == {10}
    assert d.counters["deadline_misses"] == 1
    assert d.counters["rejected"] == 1


def test_the_cost_of_a_step_is_learned(driven):
    d = driven(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=200, num_blocks=400)
    rng = np.random.default_rng(3)
    for i in range(300):
        d.submit(10 + i, n=int(rng.integers(1, 100)), max_tokens=int(rng.integers(1, 9)))
        d.begin()
        n_tokens, n_seqs = len(d.batch.tokens), len(d.batch.want_logits)
        d.now_ns += 500_000 + 20_000 * n_tokens + 100_000 * n_seqs
        d.end()
    assert d.counters["step_cost_s"] == pytest.approx((5e-4, 2e-5, 1e-4), rel=0.01)


def test_the_cost_model_stays_finite_where_every_step_is_the_same(driven):
    d = driven(max_num_seqs=1, max_model_len=4000, num_blocks=1000)
    for i in range(3):
        d.submit(10 + i, max_tokens=3900)
    while d.machine.has_work:
        d.step(MS)
    assert sum(d.counters["step_cost_s"]) == pytest.approx(1e-3, rel=0.05)


def test_misses_are_counted_whatever_the_end(driven):
    d = driven(max_num_seqs=3)
    d.submit(10, deadline_ns=5)
    d.submit(11, deadline_ns=50)
    d.submit(12, max_tokens=3, deadline_ns=5, timeout_ns=20)
    d.submit(13, deadline_ns=5)
    d.begin()
    d.now_ns = 10
    assert d.cancel(13)
    d.end()
    d.now_ns = 20
    d.machine.expire(20)
    d.take()
    assert d.missed == {10, 12}, "a cancelled request misses nothing"
    d.submit(14, deadline_ns=15)
    d.begin()
    d.machine.fail(d.now_ns, "broken")
    d.take()
    assert d.missed == {10, 12, 14}
    assert d.counters["deadline_misses"] == 3


def test_a_batch_waits_for_more_and_says_why_it_went(driven):
    d = driven(max_num_seqs=2, max_queue_delay_us=100)
    d.submit(10)
    assert d.begin() is None
    assert d.machine.next_wakeup_ns() == 100_000
    d.now_ns = 99_999
    assert d.begin() is None
    d.now_ns = 100_000
    assert d.step() == [10]
    assert d.machine.release == "delay"
    d.submit(11, max_tokens=2)
    d.submit(12, max_tokens=2)
    assert d.step() == [11, 12]
    assert d.machine.release == "full"
    d.submit(13)
    d.step()
    assert d.machine.release == "running"
    assert d.begin() is None, "13 waits for company again"
    d.machine.set_draining(True)
    assert d.step() == [13]
    assert d.machine.release == "draining"
    assert d.counters["releases"] == {"running": 1, "no_delay": 0, "draining": 1, "full": 1, "delay": 1}
    impatient = driven()
    impatient.submit(10)
    impatient.step()
    assert impatient.machine.release == "no_delay"


def test_a_timeout_comes_before_the_end_of_a_delay(driven):
    d = driven(max_queue_delay_us=100)
    d.submit(10, timeout_ns=50_000)
    assert d.begin() is None
    d.now_ns = 50_000
    assert d.machine.next_wakeup_ns() <= 50_000
    assert d.begin() is None
    d.take()
    assert d.ends == [(10, Outcome.TIMED_OUT)]
