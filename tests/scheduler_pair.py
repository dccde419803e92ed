"""The C++ state machine and its twin side by side: each gets every call, and after each the invariants are checked."""

from collections import Counter

import numpy as np

from wattwork._native import HAVE_CORE, core
from wattwork.scheduler import Sampling
from wattwork.scheduler.log import replay as replay_twin
from wattwork.scheduler.twin import Outcome, Reject, SchedulerTwin, to_batch

ARRAYS = ("tokens", "q_start", "ctx_len", "block_table", "slot_map", "want_logits", "sampling")
STOP = 7


def assert_same_batch(ours, theirs):
    for name in ARRAYS:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert (a == b).all(), name


def class_of(request):
    return request.priority, request.tenant, request.deadline_ns


class Pair:
    """Without the core, the twin alone. Numbers in `calls` what was done; `now_ns` is virtual time."""

    def __init__(self, config):
        self.config = config
        self.twin = SchedulerTwin(config)
        self.core = core.SchedulerCore(config) if HAVE_CORE else None
        self.machines = [m for m in (self.twin, self.core) if m is not None]
        self.now_ns = self.calls = self.missed = 0
        self.rows = []
        self.submitted, self.ended, self.outputs = {}, {}, {}
        self.kv = {}  # by slot: the hash of all tokens up to the one whose KV is there
        self.charge_bound = 2 * config.max_num_seqs * config.max_model_len  # the header's U

    def record(self, folder):
        self.logs = [folder / type(machine).__name__ for machine in self.machines]
        for machine, log in zip(self.machines, self.logs, strict=True):
            machine.record(str(log))

    def check_recording(self):
        """End it: both wrote the same bytes, and both decide the same again, without a token."""
        assert not any(machine.stop_recording() for machine in self.machines)
        data = self.logs[0].read_bytes()
        assert all(log.read_bytes() == data for log in self.logs)
        for replay in (replay_twin, *([core.replay] if HAVE_CORE else [])):
            _, _, counters, hash, _, cut_at, differs_at = replay(data, False)
            assert (hash, cut_at, differs_at) == (self.twin.decision_hash, -1, -1)
            assert counters == self.twin.counters()

    def both(self, method, *args):
        """Call both; they must answer the same, and all that holds must hold after."""
        self.calls += 1
        answers = [getattr(machine, method)(*args) for machine in self.machines]
        assert all(answer == answers[0] for answer in answers), (method, answers)
        self.check()
        return answers[0]

    def submit(
        self, n, max_tokens, *, stop=-1, hot=False, priority=0, tenant=0, deadline_in=0, timeout_in=0, family=None
    ):
        """`n`: how many tokens, or those themselves. Prompts of one `family` begin alike."""
        if isinstance(n, int):
            tokens = np.arange(n, dtype=np.int32) + 100 * (n if family is None else family)
        else:
            tokens, n = np.array(n, np.int32), len(n)
        sampling = Sampling(temperature=0.5, top_k=3, seed=n) if hot else None
        deadline_ns, timeout_ns = (self.now_ns + t if t else 0 for t in (deadline_in, timeout_in))
        self.submitted[len(self.submitted) + 1] = (deadline_ns, timeout_ns)
        self.outputs[len(self.outputs) + 1] = []
        id = self.twin.last_id + 1
        order = (priority, tenant, deadline_ns, timeout_ns)
        answer = self.both("submit", self.now_ns, tokens, max_tokens, stop, sampling, *order)
        if answer < 0:
            assert answer != Reject.DEADLINE_INFEASIBLE or (deadline_ns and self.twin.steps >= 16)
            del self.submitted[id], self.outputs[id]
        else:
            assert answer == id
        return answer

    def cancel(self, id):
        assert self.both("cancel", self.now_ns, id) == (id in self.submitted and id not in self.ended_before)

    def expire(self):
        self.both("expire", self.now_ns)
        assert not [r for r in self.twin.live.values() if 0 < r.timeout_ns <= self.now_ns], "what is due has ended"

    def schedule(self):
        """Begin a step, and hold the batch against the rules. False: nothing to do, or not yet."""
        self.calls += 1
        c, twin = self.config, self.twin
        before = set(twin.running)
        self.rows = list(twin.schedule(self.now_ns))
        ours = to_batch(self.rows, c.block_size) if self.rows else None
        if self.core:
            theirs = self.core.schedule(self.now_ns)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert_same_batch(ours, theirs)
                assert self.core.release == twin.release
        self.check()
        ids = [r.id for r, _ in self.rows]
        assert len(set(ids)) == len(ids) <= c.max_num_seqs
        assert sum(n for _, n in self.rows) <= c.max_num_batched_tokens
        assert not any(id in self.ended for id in ids), "what has ended is not executed"
        self._check_contents()
        self._check_work_goes_on()
        self._check_order(before)
        return bool(self.rows)

    def _check_contents(self):
        """Each row finds the KV of its own tokens before those it computes, whoever computed it, and writes to blocks
        that are its own."""
        size, written = self.config.block_size, {}
        for request, n in self.rows:
            prefix = 0
            for position, token in enumerate(request.tokens[: request.computed + n]):
                slot, prefix = request.blocks[position // size] * size + position % size, hash((prefix, token))
                if position < request.computed:
                    assert self.kv[slot] == prefix
                else:
                    assert self.twin.prefixes.holders[slot // size] == 1
                    assert slot not in written
                    written[slot] = prefix
        self.kv |= written

    def _check_work_goes_on(self):
        twin, queue = self.twin, self.twin.queue
        if not self.rows and twin.has_work:
            assert not twin.running, "no idle engine beside a request"
            assert len(queue) < self.config.max_num_seqs
            waited_ns = self.now_ns - queue.oldest().submitted_ns
            assert waited_ns < self.config.max_queue_delay_us * 1000, "but for the delay"
            assert not twin.draining
        elif queue:
            head, budget = queue.head(), self.config.max_num_batched_tokens
            shared = len(twin.prefixes.chain(head.tokens))
            fits = -(-len(head.tokens) // self.config.block_size) - shared <= len(twin.free)
            seat = len(twin.running) < self.config.max_num_seqs
            used = sum(n for _, n in self.rows)
            assert not (fits and seat) or used == budget, "the head is admitted if it fits"

    def _check_order(self, before):
        twin, queue = self.twin, self.twin.queue
        fresh = [r for r in twin.running if r not in before]
        preempted = {r for r in before if r.id in queue.waiting}
        for request in fresh:
            for other in queue.waiting.values():
                if class_of(other) != class_of(request) or other in preempted:
                    continue
                # One that has aged keeps its seat where an older one, seated in the same step, is displaced again.
                aged = request.overtakes == self.config.max_overtakes
                assert request.id < other.id or aged, "first in, first out within a class"

    def complete(self, next_token):
        self.both("complete", self.now_ns, next_token)
        self.rows = []

    def fail(self):
        batch = {r.id for r, _ in self.rows if not r.ended}
        before = set(self.twin.live)
        self.both("fail", self.now_ns, "broken")
        assert before - set(self.twin.live) == batch, "a failure ends its batch, and that alone"
        self.rows = []

    def drain(self, step_ns=1):
        """Refuse what comes and run until nothing is left."""
        self.both("set_draining", True)
        assert self.both("submit", self.now_ns, [1], 1) in {Reject.DRAINING, Reject.TOO_LARGE}
        while self.twin.has_work:
            self.now_ns += step_ns
            if not self.rows:
                self.schedule()
            if self.rows:
                self.complete([3] * len(self.rows))
        assert len(self.twin.free) == self.config.num_blocks
        self.both("set_draining", False)

    def check(self):
        self.ended_before = dict(self.ended)
        twin, queue = self.twin, self.twin.queue
        if self.core:
            self.core.check()
            assert self.core.counters() == twin.counters()
            assert self.core.decision_hash == twin.decision_hash
            assert self.core.next_wakeup_ns() <= max(twin.next_wakeup_ns(), self.now_ns), "wake-ups are armed"
        self._check_blocks()
        assert sum(twin.releases) == twin.steps
        for r in twin.live.values():
            assert r.overtakes <= self.config.max_overtakes, "nobody is overtaken more often"
            assert not r.timeout_ns or twin.next_wakeup_ns() <= r.timeout_ns, "each timeout has a wake-up"
        if not queue.admitted_by_age:
            for (priority, _), counter in queue.counters.items():
                assert counter - queue.floor(priority) <= self.charge_bound, "tenants stay together"
        self._check_events()

    def _check_blocks(self):
        running, prefixes, size = self.twin.running, self.twin.prefixes, self.config.block_size
        holders = Counter(block for r in running for block in r.blocks)
        assert sorted([*self.twin.free, *holders]) == list(range(self.config.num_blocks)), "free and held are all"
        assert [holders[block] for block in range(self.config.num_blocks)] == prefixes.holders
        assert set(prefixes.content_of) <= set(holders)
        assert prefixes.block_of == {content: block for block, content in prefixes.content_of.items()}
        assert self.config.enable_prefix_sharing or not prefixes.block_of
        for r in running:
            assert holders[r.blocks[-1]] == 1, "the last block is a sequence's own"
            before = -1
            for i, block in enumerate(r.blocks):
                if content := prefixes.content_of.get(block):
                    assert content == (before, tuple(r.tokens[i * size : (i + 1) * size]))
                    assert (i + 1) * size <= r.computed, "what is entered is computed"
                    assert before < 0 or before in prefixes.content_of, "and so is what comes before"
                else:
                    assert holders[block] == 1, "only what is entered is shared"
                before = block

    def _check_events(self):
        events = [machine.take_events() for machine in self.machines]
        assert all(e == events[0] for e in events)
        tokens, ends = events[0]
        for id, token, _ in tokens:
            assert id not in self.ended
            self.outputs[id].append(token)
        for id, outcome, _, n_output, _, _, finished_ns, _, missed in ends:
            assert id in self.submitted, "only what came ends"
            assert id not in self.ended, "each ends exactly once"
            self.ended[id] = outcome
            assert n_output == len(self.outputs[id])
            deadline_ns, timeout_ns = self.submitted[id]
            assert missed == (0 < deadline_ns < finished_ns and outcome != Outcome.CANCELLED)
            assert outcome != Outcome.TIMED_OUT or 0 < timeout_ns <= finished_ns
            self.missed += missed
        assert self.missed == self.twin.deadline_misses
        assert len(self.submitted) - len(self.ended) - len(self.twin.live) in {0, 1}  # 1: rejected just now
