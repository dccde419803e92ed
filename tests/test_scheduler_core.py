"""The C++ state machine held against the Python one: equal calls, equal batches, outcomes and decision hashes."""

import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from scheduler_pair import STOP, Pair
from seeds import FRESH_SEED

from wattwork._native import HAVE_CORE, core
from wattwork.scheduler import SchedulerConfig
from wattwork.scheduler.twin import Outcome, Reject, SchedulerTwin

DELAYS_US, OVERTAKES = (0, 0, 1, 5), (1, 2, 3, 8, 10**6)
LATER_NS = st.one_of(st.just(0), st.integers(1, 20_000))
REQUEST = st.fixed_dictionaries(
    {
        "n": st.integers(1, 9),
        "max_tokens": st.integers(1, 16),
        "stop": st.sampled_from([-1, STOP]),
        "hot": st.booleans(),
        "priority": st.integers(-1, 1),
        "tenant": st.integers(0, 3),
        "deadline_in": LATER_NS,
        "timeout_in": LATER_NS,
        "family": st.integers(0, 2),
    }
)


class Machine(RuleBasedStateMachine):
    """Small pools, so that preemption is the rule rather than the exception."""

    @initialize(
        seqs=st.integers(2, 5),
        extra=st.integers(0, 12),
        queued=st.integers(2, 12),
        queued_tokens=st.integers(20, 90),
        block=st.integers(1, 3),
        blocks=st.integers(4, 12),
        length=st.integers(8, 24),
        delay=st.sampled_from(DELAYS_US),
        overtakes=st.sampled_from(OVERTAKES),
        share=st.booleans(),
    )
    def make(self, *, seqs, extra, queued, queued_tokens, block, blocks, length, delay, overtakes, share):
        bounds = (seqs, seqs + extra, queued, queued_tokens, block, blocks, length, delay, overtakes, share)
        self.pair = Pair(SchedulerConfig(*bounds))

    @rule(requests=st.lists(REQUEST, min_size=1, max_size=6))
    def submit(self, requests):
        for request in requests:
            self.pair.submit(**request)

    @precondition(lambda self: self.pair.submitted)
    @rule(share=st.floats(0, 1))
    def cancel(self, share):
        ids = sorted(self.pair.twin.live) or sorted(self.pair.submitted)
        self.pair.cancel(ids[int(share * (len(ids) - 1))])

    @rule(ns=st.integers(0, 10_000))
    def pass_time(self, ns):
        self.pair.now_ns += ns

    @rule()
    def expire(self):
        self.pair.expire()

    @precondition(lambda self: not self.pair.rows)
    @rule()
    def schedule(self):
        self.pair.schedule()

    @precondition(lambda self: self.pair.rows)
    @rule(token=st.integers(1, STOP), missing=st.integers(0, 30), ns=st.integers(0, 2000))
    def complete(self, token, missing, ns):
        """Each wants a token and gets this one, but for the row `missing`."""
        self.pair.now_ns += ns
        self.pair.complete([-1 if row == missing else token for row in range(len(self.pair.rows))])

    @precondition(lambda self: self.pair.rows)
    @rule()
    def fail(self):
        self.pair.fail()

    @precondition(lambda self: self.pair.twin.has_work)
    @rule(n=st.integers(2, 10), token=st.integers(1, 6), ns=st.integers(1, 300))
    def steps(self, n, token, ns):
        for i in range(2 * n):
            if self.pair.rows:
                self.complete(token + i, 99, ns)
            else:
                self.schedule()

    @precondition(lambda self: self.pair.twin.has_work)
    @rule()
    def drain(self):
        self.pair.drain()


SETTINGS = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failing walk is short enough to read as it is, and long to shrink
)


@seed(20)
class FixedMachine(Machine):
    pass


@seed(FRESH_SEED)
class FreshMachine(Machine):
    pass


TestMachines, TestFreshMachines = FixedMachine.TestCase, FreshMachine.TestCase
TestMachines.settings = TestFreshMachines.settings = SETTINGS


def random_config(rng):
    seqs = rng.randint(1, 6)
    return SchedulerConfig(
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + rng.randint(0, 12),
        max_num_queued_reqs=rng.randint(2, 14),
        max_num_queued_tokens=rng.randint(20, 120),
        block_size=rng.randint(1, 4),
        num_blocks=rng.randint(4, 14),
        max_model_len=rng.randint(8, 28),
        max_queue_delay_us=rng.choice(DELAYS_US),
        max_overtakes=rng.choice(OVERTAKES),
        enable_prefix_sharing=rng.random() < 0.7,
    )


def operate(pair, rng):
    """One operation, drawn at random."""
    what = rng.random()
    pair.now_ns += rng.choice((0, 0, 1, 250)) * rng.randint(1, 4)
    if what < 0.35:
        pair.submit(
            rng.randint(1, 12),
            rng.randint(1, 12),
            stop=STOP,
            hot=rng.random() < 0.2,
            priority=rng.randint(0, 2),
            tenant=rng.randint(0, 3),
            deadline_in=rng.choice((0, 0, rng.randint(1, 20_000))),
            timeout_in=rng.choice((0, 0, rng.randint(1, 20_000))),
            family=rng.randint(0, 2),
        )
    elif what < 0.40:
        pair.cancel(rng.randint(1, pair.twin.last_id + 1))
    elif what < 0.43:
        pair.expire()
    elif what < 0.44:
        pair.both("set_draining", rng.random() < 0.3)
    elif not pair.rows:
        pair.schedule()
    elif what > 0.98:
        pair.fail()
    else:
        pair.complete([rng.randint(0, 40) for _ in pair.rows])


@pytest.mark.parametrize("which", ["fixed", "fresh"])
def test_random_walks_are_the_same_in_both(which, tmp_path):
    """With the two machines above, some 10^5 operations, all invariants checked after each; all of it replayed."""
    rng = random.Random(20 if which == "fixed" else FRESH_SEED)
    preemptions = missed = timed_out = shared = calls = 0
    while calls < 50_000:
        pair = Pair(random_config(rng))
        pair.record(tmp_path)
        for _ in range(1000):
            operate(pair, rng)
        pair.drain()
        pair.check_recording()
        calls += pair.calls
        preemptions += pair.twin.preemptions
        missed += pair.missed
        timed_out += pair.twin.outcomes[Outcome.TIMED_OUT]
        shared += pair.twin.prefix_shared_tokens
    assert min(preemptions, missed, timed_out) > 50
    assert shared > 300


def config(**changes):
    return SchedulerConfig(
        **{"max_num_seqs": 4, "max_num_batched_tokens": 8, "num_blocks": 8, "block_size": 4, **changes}
    )


@pytest.mark.core
def test_equal_logs_have_equal_hashes_and_others_not():
    def run(first):
        machine = core.SchedulerCore(config())
        machine.submit(0, [1] * first, 3)
        machine.submit(0, [1, 2], 3)
        assert machine.run_steps(0, 100, 10, 5) == (first + 7) // 8 + 2
        return machine.decision_hash

    assert run(5) == run(5) != run(6)


MACHINES = [SchedulerTwin, *([core.SchedulerCore] if HAVE_CORE else [])]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("n", "max_tokens", "code"),
    [(0, 1, Reject.INVALID), (1, 0, Reject.INVALID), (40, 9, Reject.TOO_LARGE), (30, 4, Reject.TOO_LARGE), (30, 3, 1)],
)
def test_what_could_never_run_is_rejected(machine, n, max_tokens, code):
    m = machine(config(max_model_len=48))
    assert m.submit(0, np.zeros(n, np.int32), max_tokens) == code
    assert m.counters()["rejected"] == (code < 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_bounds_of_the_queue(machine):
    m = machine(config(max_num_queued_reqs=3, max_num_queued_tokens=10))
    assert m.submit(0, [1] * 6, 1) == 1
    assert m.submit(0, [1] * 5, 1) == Reject.QUEUE_FULL, "tokens"
    assert m.submit(0, [1], 1) == 2
    assert m.submit(0, [1], 1) == 3
    assert m.submit(0, [1], 1) == Reject.QUEUE_FULL, "requests"
    m.set_draining(True)
    assert m.submit(0, [1], 1) == Reject.DRAINING
    m.set_draining(False)
    assert len(m.schedule(0).want_logits if HAVE_CORE and machine is core.SchedulerCore else m.schedule(0)) == 3
    assert m.submit(0, [1], 1) == 4, "admission goes on once there is room"
