"""The scheduler's state machine in plain Python: the fallback, and the model that tests hold the C++ against.

`csrc/scheduler/scheduler.h` states the rules, `queue.h` beside it the order of the waiting. Here they are written the
short way: equal calls, equal decisions, equal hash, in time that grows with the queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, cast

import numpy as np

from wattwork.engines.base import SAMPLING, Batch
from wattwork.scheduler.config import Sampling, SchedulerConfig
from wattwork.scheduler.cost import StepCost
from wattwork.scheduler.log import LogWriter
from wattwork.scheduler.prefixes import Prefixes
from wattwork.scheduler.waiting import OUTPUT_TOKEN_CHARGE, PROMPT_TOKEN_CHARGE, WaitingQueue


class Outcome(IntEnum):
    """How a request ends, by the numbers of `ww::Outcome`."""

    FINISHED, CANCELLED, TIMED_OUT, REJECTED, FAILED = range(5)


class Reject(IntEnum):
    """What submit() answers instead of an id."""

    INVALID = -1
    TOO_LARGE = -2
    DRAINING = -3
    QUEUE_FULL = -4
    CLOSED = -5
    NO_ENGINE = -6
    DEADLINE_INFEASIBLE = -7
    NOT_PLAIN = -100  # the loop's: arguments that Python has to look at first


class Release(IntEnum):
    """Why a batch went when it did, by the numbers of `ww::Release`."""

    RUNNING, NO_DELAY, DRAINING, FULL, DELAY = range(5)


TokenEvent = tuple[int, int, int]  # id, token, time_ns
EndEvent = tuple[int, int, int, int, int, int, int, str, bool]
# id, outcome, n_prompt, n_output, submitted_ns, first_token_ns (-1: none), finished_ns, message, deadline missed
Events = tuple[list[TokenEvent], list[EndEvent]]

ADMITTED, REJECTED, PREEMPTED, ENDED, RELEASED = (tag << 56 for tag in range(1, 6))  # what a word of the hash is about
MASK = 2**64 - 1
NEVER_NS = 2**63 - 1


@dataclass(slots=True, eq=False)
class Request:
    """One request, from submit to its end."""

    id: int
    tokens: list[int]  # prompt, then output
    max_tokens: int
    stop_token_id: int
    sampling: Sampling
    n_prompt: int
    submitted_ns: int
    priority: int
    tenant: int
    deadline_ns: int  # 0: none
    timeout_ns: int  # 0: none
    first_token_ns: int = -1
    computed: int = 0  # tokens whose KV is in the cache
    prompt_counted: int = 0
    blocks: list[int] = field(default_factory=list)
    ended: bool = False
    overtakes: int = 0
    admitted: bool = False

    @property
    def todo(self) -> int:
        return len(self.tokens) - self.computed


class SchedulerTwin:
    """One batch is in flight at a time: `schedule`, then `complete` or `fail`; the rest at any moment."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.queue = WaitingQueue(config.max_overtakes)
        self.running: list[Request] = []
        self.rows: list[tuple[Request, int]] = []  # the batch in flight: who, how many tokens
        self.live: dict[int, Request] = {}
        self.timeouts: list[tuple[int, int]] = []  # a heap of (when, id); some may have ended
        self.cost = StepCost(config.max_num_batched_tokens, config.max_num_seqs)
        self.free = list(range(config.num_blocks))[::-1]
        self.prefixes = Prefixes(config.num_blocks, config.block_size)
        self.knows_contents = True
        self.offers: list[tuple[int, int, int]] = []  # id, donor, how many blocks: in order of admission
        self.draining = False
        self.last_id = self.queued_tokens = self.scheduled_ns = 0
        self.decision_hash = 0
        self.outcomes, self.releases = [0] * len(Outcome), [0] * len(Release)
        self.last_release = Release.RUNNING
        self.steps = self.prompt_tokens = self.output_tokens = self.preemptions = self.deadline_misses = 0
        self.prefix_shared_tokens = 0
        self.events: Events = ([], [])
        self.log: LogWriter | None = None

    def plan_only(self) -> None:
        """Before the first request: the tokens mean nothing. `offers` tells who shares in the next schedule()."""
        self.knows_contents = False

    def take_back_offers(self) -> bool:
        """False: there were none left. One that cannot be is never taken."""
        offers, self.offers = self.offers, []
        return bool(offers)

    def record(self, path: str) -> None:
        """Record every call that changes the state, from the first on."""
        self.log = LogWriter(path, self.config)

    def stop_recording(self) -> str:
        """End the recording. What kept it from being written whole; empty: nothing did, or there was none."""
        log, self.log = self.log, None
        if log is None:
            return ""
        log.finish(self.decision_hash)
        return log.error

    def submit(
        self,
        now_ns: int,
        tokens: Sequence[int],
        max_tokens: int,
        stop_token_id: int = -1,
        sampling: Sampling | None = None,
        priority: int = 0,
        tenant: int = 0,
        deadline_ns: int = 0,
        timeout_ns: int = 0,
    ) -> int:
        if self.log:
            order = (priority, tenant, deadline_ns, timeout_ns)
            self.log.submit(now_ns, len(tokens), max_tokens, stop_token_id, *order)
        code = self._admission(now_ns, len(tokens), max_tokens, deadline_ns)
        if code is not None:
            self.outcomes[Outcome.REJECTED] += 1
            self._decide(REJECTED | -code)
            return code
        self.last_id += 1
        request = Request(
            self.last_id,
            [int(token) for token in tokens],
            max_tokens,
            stop_token_id,
            sampling or Sampling(),
            len(tokens),
            now_ns,
            priority,
            tenant,
            deadline_ns,
            timeout_ns,
        )
        self.live[request.id] = request
        self.queue.join(request)
        self._enqueue(request)
        if timeout_ns:
            heapq.heappush(self.timeouts, (timeout_ns, request.id))
        self._decide(ADMITTED | request.id)
        return request.id

    def _admission(self, now_ns: int, n: int, max_tokens: int, deadline_ns: int) -> Reject | None:
        c = self.config
        if n < 1 or max_tokens < 1:
            return Reject.INVALID
        # The last token of an output is never fed back: it needs no KV.
        blocks = self._blocks_for(n + max_tokens - 1)
        if n + max_tokens > c.max_model_len or blocks > c.num_blocks or n > c.max_num_queued_tokens:
            return Reject.TOO_LARGE
        if self.draining:
            return Reject.DRAINING
        if len(self.queue) >= c.max_num_queued_reqs or self.queued_tokens + n > c.max_num_queued_tokens:
            return Reject.QUEUE_FULL
        if deadline_ns and self.cost.known:
            prefills = -(-n // c.max_num_batched_tokens)
            if self.cost.alone_s(prefills, n, max_tokens) * 1e9 > float(deadline_ns - now_ns):
                return Reject.DEADLINE_INFEASIBLE
        return None

    def cancel(self, now_ns: int, id: int) -> bool:
        request = self.live.get(id)
        if request is not None:
            if self.log:
                self.log.cancel(now_ns, id)
            self._end_early(request, Outcome.CANCELLED, now_ns)
        return request is not None

    def expire(self, now_ns: int) -> None:
        due = []
        while self.next_timeout_ns() <= now_ns:
            due.append(heapq.heappop(self.timeouts)[1])
        if self.log and due:
            self.log.expire(now_ns)
        for id in sorted(due):
            self._end_early(self.live[id], Outcome.TIMED_OUT, now_ns)

    def next_timeout_ns(self) -> int:
        while self.timeouts and self.timeouts[0][1] not in self.live:
            heapq.heappop(self.timeouts)
        return self.timeouts[0][0] if self.timeouts else NEVER_NS

    def next_wakeup_ns(self) -> int:
        """When to call expire(), and schedule() where nothing is in flight, at the latest."""
        return min(self.next_timeout_ns(), self._delay_end_ns() if self._may_hold() and not self.rows else NEVER_NS)

    def schedule(self, now_ns: int) -> list[tuple[Request, int]]:
        """The next batch, as rows (request, tokens to compute); empty: nothing to do, or not yet."""
        assert not self.rows, "complete() or fail() the batch in flight first"
        self.expire(now_ns)
        if not self.has_work or (self._may_hold() and now_ns < self._delay_end_ns()):
            return self.rows
        self.last_release = self._reason()
        for request in list(self.running):
            if request.todo == 1 and request in self.running:
                self._grow(request)
        while self.queue and self._admit(cast(Request, self.queue.head())):
            pass
        for request in self.running:
            if request.todo == 1:
                self._add_row(request, 1)
        budget = self.config.max_num_batched_tokens - len(self.rows)
        for request in self.running:
            if request.todo > 1 and budget:
                budget -= self._add_row(request, min(request.todo, budget))
        self.steps += 1
        self.releases[self.last_release] += 1
        self._decide(RELEASED | self.last_release)
        self.scheduled_ns = now_ns
        if self.log:
            self.log.schedule(now_ns, self.decision_hash)
        return self.rows

    def _may_hold(self) -> bool:
        """What waits may wait for more to share its batch, until `_delay_end_ns`."""
        c = self.config
        return (
            c.max_queue_delay_us > 0 and not self.running and not self.draining and 0 < len(self.queue) < c.max_num_seqs
        )

    def _delay_end_ns(self) -> int:
        return cast(Request, self.queue.oldest()).submitted_ns + self.config.max_queue_delay_us * 1000

    def _reason(self) -> Release:
        if self.running:
            return Release.RUNNING
        if not self.config.max_queue_delay_us:
            return Release.NO_DELAY
        if self.draining:
            return Release.DRAINING
        return Release.FULL if len(self.queue) >= self.config.max_num_seqs else Release.DELAY

    def _admit(self, head: Request) -> bool:
        shared = self._known_prefix(head) if self.config.enable_prefix_sharing else []
        self.prefixes.hold(shared)  # before any victim goes, which may be the only one that holds them
        victims = self._victims_for(head, shared)
        if victims is None:
            self.prefixes.release(shared)
            return False
        if self.log and shared:
            donor = next(r for r in self.running if r.blocks[len(shared) - 1 : len(shared)] == shared[-1:])
            self.log.share(head.id, donor.id, len(shared))
        for _ in range(victims):
            self._preempt_last()
        self.queue.admit(head)
        self.queued_tokens -= len(head.tokens)
        own = [self.free.pop() for _ in range(self._blocks_for(len(head.tokens)) - len(shared))]
        self.prefixes.hold(own)
        head.blocks = shared + own
        self._skip(head, len(shared) * self.config.block_size)
        self.running.append(head)
        self.running.sort(key=self._run_order)
        return True

    def _known_prefix(self, head: Request) -> list[int]:
        """The blocks of the longest one that leaves at least one token to compute."""
        if self.knows_contents:
            return self.prefixes.chain(head.tokens)
        if self.offers and self.offers[0][0] == head.id:
            _, donor_id, n = self.offers[0]
            donor = self.live.get(donor_id)
            tokens = n * self.config.block_size
            if donor in self.running and 0 < tokens < len(head.tokens) and tokens <= donor.computed:
                return donor.blocks[:n]
        return []

    def _skip(self, request: Request, shared: int) -> None:
        """Its first tokens are computed already: not by it, so it is not charged for them."""
        if shared and not self.knows_contents:
            del self.offers[0]
        request.computed = shared
        request.prompt_counted = max(request.prompt_counted, min(shared, request.n_prompt))
        self.prefix_shared_tokens += shared

    def _run_order(self, request: Request) -> tuple[int, ...]:
        return (not self.queue.aged(request), -request.priority, request.id)

    def _victims_for(self, head: Request, shared: list[int]) -> int | None:
        """How many of the running, from the last on, must go for it to be admitted; None: it cannot be."""
        lower = []  # who may be displaced
        for request in reversed(self.running):
            if request.priority >= head.priority or self.queue.aged(request):
                break
            lower.append(request)
        # Prefills of lower priority leave it their budget; decodes only when displaced.
        stays = [r for r in self.running if r not in lower or r.todo == 1]
        needed = self._blocks_for(len(head.tokens)) - len(shared)
        for n in range(len(lower) + 1):
            gone = lower[:n]
            claimed = sum(r.todo for r in stays if r not in gone)
            blocks = len(self.free) + self.prefixes.freed_without(r.blocks for r in gone)
            seats = self.config.max_num_seqs - len(self.running) + n
            if seats and blocks >= needed and claimed < self.config.max_num_batched_tokens:
                return n
        return None

    def complete(self, now_ns: int, next_token: Sequence[int]) -> None:
        if self.log:
            wanted = (
                (i, r, token)
                for i, ((r, n), token) in enumerate(zip(self.rows, next_token, strict=True))
                if not r.ended and n == r.todo
            )
            self.log.complete(now_ns, [i << 1 | (t >= 0) for i, r, t in wanted if t < 0 or t == r.stop_token_id])
        for (request, n), token in zip(self.rows, next_token, strict=True):
            if request.ended:
                continue
            full, request.computed = request.computed // self.config.block_size, request.computed + n
            fresh = max(min(request.computed, request.n_prompt) - request.prompt_counted, 0)
            self.prompt_tokens += fresh
            request.prompt_counted += fresh
            self._charge(request, fresh * PROMPT_TOKEN_CHARGE)
            if request.todo == 0:
                self._accept(request, int(token), now_ns)
            if full < request.computed // self.config.block_size and not request.ended:
                self._enter(request)
        self.cost.observe(sum(n for _, n in self.rows), len(self.rows), now_ns - self.scheduled_ns)
        self._close_batch()

    def _enter(self, request: Request) -> None:
        if self.config.enable_prefix_sharing and self.knows_contents:
            n = request.computed // self.config.block_size
            self.prefixes.enter(request.tokens, request.blocks, n)

    def fail(self, now_ns: int, message: str) -> None:
        assert self.rows, "schedule() a batch first"
        if self.log:
            self.log.fail(now_ns)
        for request, _ in self.rows:
            if not request.ended:
                self._end(request, Outcome.FAILED, now_ns, message)
        self._close_batch()

    def set_draining(self, draining: bool) -> None:
        if self.log and draining != self.draining:
            self.log.drain(draining)
        self.draining = draining

    def take_events(self) -> Events:
        events, self.events = self.events, ([], [])
        return events

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.queue)

    @property
    def release(self) -> str:
        """Why the last batch went."""
        return self.last_release.name.lower()

    def counters(self) -> dict[str, Any]:
        return {
            **{outcome.name.lower(): self.outcomes[outcome] for outcome in Outcome},
            "num_requests_running": len(self.running),
            "num_requests_waiting": len(self.queue),
            "num_queued_tokens": self.queued_tokens,
            "steps": self.steps,
            "prompt_tokens": self.prompt_tokens,
            "prefix_shared_tokens": self.prefix_shared_tokens,
            "output_tokens": self.output_tokens,
            "num_preemptions": self.preemptions,
            "kv_blocks_used": self.config.num_blocks - len(self.free),
            "deadline_misses": self.deadline_misses,
            "releases": {release.name.lower(): self.releases[release] for release in Release},
            "step_cost_s": self.cost.coefficients,
        }

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)

    def _enqueue(self, request: Request) -> None:
        self.queue.push(request)
        self.queued_tokens += len(request.tokens)

    def _charge(self, request: Request, tokens: int) -> None:
        self.queue.counters[request.priority, request.tenant] += tokens

    def _grow(self, request: Request) -> None:
        if len(request.blocks) * self.config.block_size >= len(request.tokens):
            return
        if not self.free:
            self._preempt_last()
        if request in self.running:  # it may have been the last itself
            request.blocks.append(self.free.pop())
            self.prefixes.hold(request.blocks[-1:])

    def _preempt_last(self) -> None:
        victim = self.running.pop()
        self._give_back(victim)
        victim.computed = 0
        self._enqueue(victim)
        self.preemptions += 1
        self._decide(PREEMPTED | victim.id)

    def _add_row(self, request: Request, n: int) -> int:
        self.rows.append((request, n))
        self._decide((request.id * 0xC2B2AE3D27D4EB4F & MASK) ^ (n << 32 | request.computed))
        return n

    def _accept(self, request: Request, token: int, now_ns: int) -> None:
        if token < 0:
            self._end(request, Outcome.FAILED, now_ns, "the engine gave no token where one was wanted")
            return
        request.tokens.append(token)
        if request.first_token_ns < 0:
            request.first_token_ns = now_ns
        self.output_tokens += 1
        self._charge(request, OUTPUT_TOKEN_CHARGE)
        self.events[0].append((request.id, token, now_ns))
        if len(request.tokens) - request.n_prompt == request.max_tokens or token == request.stop_token_id:
            self._end(request, Outcome.FINISHED, now_ns)

    def _end_early(self, request: Request, outcome: Outcome, now_ns: int) -> None:
        """Wherever it is. In flight it keeps its blocks until its step is complete."""
        self._end(request, outcome, now_ns)
        if request.id in self.queue.waiting:
            self.queue.drop(request)
            self.queued_tokens -= len(request.tokens)
            self.queue.leave(request)
        elif all(row is not request for row, _ in self.rows):
            self._retire(request)

    def _end(self, request: Request, outcome: Outcome, now_ns: int, message: str = "") -> None:
        del self.live[request.id]
        request.ended = True
        missed = 0 < request.deadline_ns < now_ns and outcome is not Outcome.CANCELLED
        n_output = len(request.tokens) - request.n_prompt
        times = (request.submitted_ns, request.first_token_ns, now_ns)
        self.events[1].append((request.id, int(outcome), request.n_prompt, n_output, *times, message, missed))
        self.outcomes[outcome] += 1
        self.deadline_misses += missed
        self._decide(ENDED | request.id << 3 | outcome)

    def _close_batch(self) -> None:
        for request, _ in self.rows:
            if request.ended:
                self._retire(request)
        self.rows = []

    def _retire(self, request: Request) -> None:
        self.running.remove(request)
        self._give_back(request)
        self.queue.leave(request)

    def _give_back(self, request: Request) -> None:
        self.free += self.prefixes.release(reversed(request.blocks))
        request.blocks = []

    def _decide(self, word: int) -> None:
        mixed = ((self.decision_hash ^ word) * 0x9E3779B97F4A7C15) & MASK
        self.decision_hash = mixed ^ mixed >> 32


def to_batch(rows: list[tuple[Request, int]], block_size: int) -> Batch:
    """The rows of a step as the arrays an engine takes."""
    tokens: list[int] = []
    slots: list[int] = []
    for request, n in rows:
        positions = range(request.computed, request.computed + n)
        tokens += request.tokens[positions.start : positions.stop]
        slots += [request.blocks[p // block_size] * block_size + p % block_size for p in positions]
    used = max(-(-(request.computed + n) // block_size) for request, n in rows)
    table = np.full((len(rows), used), -1, np.int32)
    for row, (request, _) in zip(table, rows, strict=True):
        row[: len(request.blocks)] = request.blocks[:used]
    sampling = None
    if any(r.sampling.temperature != 0 or r.sampling.repetition_penalty != 1 for r, _ in rows):
        sampling = np.array([tuple(getattr(r.sampling, name) for name, _ in SAMPLING) for r, _ in rows], SAMPLING)
    return Batch(
        np.array(tokens, np.int32),
        np.cumsum([0, *(n for _, n in rows)], dtype=np.int32),
        np.array([request.computed for request, _ in rows], np.int32),
        table,
        np.array(slots, np.int32),
        np.array([n == request.todo for request, n in rows], np.uint8),
        sampling,
    )
