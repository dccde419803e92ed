"""The C++ state machine held against the Python one: equal calls, equal batches, outcomes and decision hashes."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wattwork._native import HAVE_CORE, core
from wattwork.engines.base import Batch
from wattwork.scheduler import Sampling, SchedulerConfig
from wattwork.scheduler.twin import Outcome, Reject, SchedulerTwin, to_batch

ARRAYS = ("tokens", "q_start", "ctx_len", "block_table", "slot_map", "want_logits", "sampling")
STOP = 7


def assert_same_batch(ours: Batch, theirs: Batch):
    for name in ARRAYS:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert (a == b).all(), name


REQUEST = st.tuples(st.integers(1, 9), st.integers(1, 16), st.sampled_from([-1, STOP]), st.booleans())


class Machine(RuleBasedStateMachine):
    """Both machines get every call. Small pools, so that preemption is the rule rather than the exception."""

    @initialize(
        seqs=st.integers(2, 5),
        extra=st.integers(0, 12),
        queued=st.integers(2, 12),
        queued_tokens=st.integers(20, 90),
        block=st.integers(1, 3),
        blocks=st.integers(4, 12),
        length=st.integers(8, 24),
    )
    def make(self, *, seqs, extra, queued, queued_tokens, block, blocks, length):
        self.config = SchedulerConfig(seqs, seqs + extra, queued, queued_tokens, block, blocks, length)
        self.twin = SchedulerTwin(self.config)
        self.core = core.SchedulerCore(self.config) if HAVE_CORE else None
        self.machines = [m for m in (self.twin, self.core) if m is not None]
        self.now_ns = 0
        self.rows = []
        self.submitted, self.ended, self.queued_only = set(), {}, {}
        self.outputs = {}

    def both(self, method, *args):
        """Call both; they must answer the same."""
        answers = [getattr(machine, method)(*args) for machine in self.machines]
        assert all(answer == answers[0] for answer in answers), (method, answers)
        return answers[0]

    @rule(requests=st.lists(REQUEST, min_size=1, max_size=6))
    def submit(self, requests):
        for n, max_tokens, stop, hot in requests:
            self.now_ns += 1
            sampling = Sampling(temperature=0.5, top_k=3, seed=n) if hot else None
            tokens = np.arange(n, dtype=np.int32) + 100 * n
            id = self.both("submit", self.now_ns, tokens, max_tokens, stop, sampling)
            if id > 0:
                assert id == len(self.submitted) + 1
                self.submitted.add(id)
                self.outputs[id] = []

    @precondition(lambda self: self.submitted)
    @rule(share=st.floats(0, 1))
    def cancel(self, share):
        self.now_ns += 1
        ids = sorted(self.twin.live) or sorted(self.submitted)
        id = ids[int(share * (len(ids) - 1))]
        waiting = id in {r.id for r in self.twin.waiting}
        never_run = waiting and not self.outputs[id]
        assert self.both("cancel", self.now_ns, id) == (id not in self.ended)
        if never_run:
            self.queued_only[id] = self.twin.steps

    @precondition(lambda self: not self.twin.rows)
    @rule()
    def schedule(self):
        """Begin a step, and hold the batch against the rules."""
        self.now_ns += 1
        self.rows = list(self.twin.schedule(self.now_ns))
        ours = to_batch(self.rows, self.config.block_size) if self.rows else None
        if self.core:
            theirs = self.core.schedule(self.now_ns)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert_same_batch(ours, theirs)
        ids = [r.id for r, _ in self.rows]
        assert len(set(ids)) == len(ids) <= self.config.max_num_seqs
        assert sum(n for _, n in self.rows) <= self.config.max_num_batched_tokens
        assert not any(id in self.ended for id in ids), "what has ended is not executed"
        assert bool(self.rows) == self.twin.has_work, "no idle engine beside a request"
        waiting = [r.id for r in self.twin.waiting]
        assert waiting == sorted(waiting), "first in, first out, also across preemption"
        if waiting and self.twin.running:
            assert max(r.id for r in self.twin.running) < waiting[0], "none is overtaken"
        if waiting and len(self.twin.running) < self.config.max_num_seqs:
            used = sum(n for _, n in self.rows)
            fits = -(-len(self.twin.waiting[0].tokens) // self.config.block_size) <= len(self.twin.free)
            assert not fits or used == self.config.max_num_batched_tokens, "the head is admitted if it fits"

    @precondition(lambda self: self.twin.rows)
    @rule(token=st.integers(1, STOP), missing=st.integers(0, 30))
    def complete(self, token, missing):
        """End it: each wants a token and gets this one, but for the row `missing`."""
        self.now_ns += 1
        next_token = [token] * len(self.rows)
        if missing < len(self.rows):
            next_token[missing] = -1
        self.both("complete", self.now_ns, next_token)
        self.rows = []

    @precondition(lambda self: self.twin.rows)
    @rule()
    def fail(self):
        self.now_ns += 1
        batch = {r.id for r, _ in self.rows if not r.ended}
        before = set(self.twin.live)
        self.both("fail", self.now_ns, "broken")
        assert before - set(self.twin.live) == batch, "a failure ends its batch, and that alone"
        self.rows = []

    @precondition(lambda self: self.twin.has_work)
    @rule(n=st.integers(2, 10), token=st.integers(1, 6))
    def steps(self, n, token):
        for i in range(2 * n):
            if self.twin.rows:
                self.complete(token + i, 99)
            else:
                self.schedule()
            self.step_done()

    @precondition(lambda self: self.twin.has_work)
    @rule()
    def drain(self):
        """Refuse what comes and run until nothing is left."""
        self.both("set_draining", True)
        assert self.both("submit", self.now_ns, [1], 1) == Reject.DRAINING
        while self.twin.has_work:
            self.steps(1, 1)
        assert len(self.twin.free) == self.config.num_blocks
        self.both("set_draining", False)

    def step_done(self):
        for machine in self.machines[1:]:
            machine.check()
            assert machine.counters() == self.twin.counters()
            assert machine.decision_hash == self.twin.decision_hash
        free, owned = list(self.twin.free), [b for r in self.twin.running for b in r.blocks]
        assert sorted(free + owned) == list(range(self.config.num_blocks))
        tokens, ends = self.both("take_events")
        for id, token, _ in tokens:
            assert id not in self.ended or self.ended[id] == Outcome.CANCELLED
            self.outputs[id].append(token)
        for id, outcome, _, n_output, *_ in ends:
            assert id in self.submitted - set(self.ended), "each ends exactly once"
            self.ended[id] = outcome
            assert n_output == len(self.outputs[id])
            if id in self.queued_only:
                assert n_output == 0
        assert self.submitted - set(self.ended) == set(self.twin.live)

    @invariant()
    def holds(self):
        if hasattr(self, "twin"):
            self.step_done()


TestMachines = Machine.TestCase
TestMachines.settings = settings(
    max_examples=250,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failing walk is short enough to read as it is, and long to shrink
)


def config(**changes):
    return SchedulerConfig(
        **{"max_num_seqs": 4, "max_num_batched_tokens": 8, "num_blocks": 8, "block_size": 4, **changes}
    )


@pytest.mark.core
def test_long_random_walk_is_the_same_in_both():
    """Some 40,000 operations on one pair of machines, checked now and then."""
    rng = np.random.default_rng(20)
    c = SchedulerConfig(8, 24, 12, 200, 4, 20, 48)
    twin, native = SchedulerTwin(c), core.SchedulerCore(c)
    rows = 0
    for now_ns in range(40_000):
        what = rng.random()
        if what < 0.3:
            args = (now_ns, rng.integers(0, 99, rng.integers(1, 24)), int(rng.integers(1, 24)), 7)
            assert twin.submit(*args) == native.submit(*args)
        elif what < 0.35:
            id = int(rng.integers(1, twin.last_id + 2))
            assert twin.cancel(now_ns, id) == native.cancel(now_ns, id)
        elif not rows:
            ours, theirs = twin.schedule(now_ns), native.schedule(now_ns)
            rows = len(ours)
            if rows:
                assert_same_batch(to_batch(ours, c.block_size), theirs)
        elif what > 0.99:
            twin.fail(now_ns, "x"), native.fail(now_ns, "x")
            rows = 0
        else:
            next_token = rng.integers(0, 40, rows).tolist()
            twin.complete(now_ns, next_token), native.complete(now_ns, next_token)
            rows = 0
        assert twin.decision_hash == native.decision_hash
        if now_ns % 64 == 0:
            native.check()
            assert twin.counters() == native.counters()
            assert twin.take_events() == native.take_events()
    assert twin.preemptions > 1000


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
