"""The scheduler's state machine in plain Python: the fallback, and the model that tests hold the C++ against.

The rules, which `csrc/scheduler/scheduler.h` states too: in each step the running decodes, then running prefills in
chunks, then waiting requests in order while seats, token budget and KV blocks last. A sequence takes the blocks of all
its tokens when admitted, and one more whenever it outgrows them; when none is left, the running request last in the
order gives up its blocks, waits in its old place, and is computed anew. Equal calls, equal decisions, equal hash.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from wattwork.engines.base import SAMPLING, Batch
from wattwork.scheduler.config import Sampling, SchedulerConfig


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


TokenEvent = tuple[int, int, int]  # id, token, time_ns
EndEvent = tuple[int, int, int, int, int, int, int, str]
# id, outcome, n_prompt, n_output, submitted_ns, first_token_ns (-1: none), finished_ns, message
Events = tuple[list[TokenEvent], list[EndEvent]]

ADMITTED, REJECTED, PREEMPTED, ENDED = (tag << 56 for tag in (1, 2, 3, 4))  # what a word of the hash is about
MASK = 2**64 - 1


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
    first_token_ns: int = -1
    computed: int = 0  # tokens whose KV is in the cache
    prompt_counted: int = 0
    blocks: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def key(self) -> tuple[int, ...]:
        """The order, among waiting and running alike."""
        return (self.id,)

    @property
    def todo(self) -> int:
        return len(self.tokens) - self.computed


class SchedulerTwin:
    """One batch is in flight at a time: `schedule`, then `complete` or `fail`; the rest at any moment."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.rows: list[tuple[Request, int]] = []  # the batch in flight: who, how many tokens
        self.live: dict[int, Request] = {}
        self.free = list(range(config.num_blocks))[::-1]
        self.draining = False
        self.last_id = 0
        self.decision_hash = 0
        self.outcomes = [0] * len(Outcome)
        self.steps = self.prompt_tokens = self.output_tokens = self.preemptions = 0
        self.events: Events = ([], [])

    def submit(
        self,
        now_ns: int,
        tokens: Sequence[int],
        max_tokens: int,
        stop_token_id: int = -1,
        sampling: Sampling | None = None,
    ) -> int:
        code = self._admission(len(tokens), max_tokens)
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
        )
        self.live[request.id] = request
        insort(self.waiting, request, key=lambda r: r.key)
        self._decide(ADMITTED | request.id)
        return request.id

    def _admission(self, n: int, max_tokens: int) -> Reject | None:
        c = self.config
        if n < 1 or max_tokens < 1:
            return Reject.INVALID
        # The last token of an output is never fed back: it needs no KV.
        blocks = self._blocks_for(n + max_tokens - 1)
        if n + max_tokens > c.max_model_len or blocks > c.num_blocks or n > c.max_num_queued_tokens:
            return Reject.TOO_LARGE
        if self.draining:
            return Reject.DRAINING
        if len(self.waiting) >= c.max_num_queued_reqs or self.queued_tokens + n > c.max_num_queued_tokens:
            return Reject.QUEUE_FULL
        return None

    def cancel(self, now_ns: int, id: int) -> bool:
        request = self.live.get(id)
        if request is None:
            return False
        self._end(request, Outcome.CANCELLED, now_ns)
        if request in self.waiting:
            self.waiting.remove(request)
        elif all(row is not request for row, _ in self.rows):
            self.running.remove(request)
            self._give_back(request)
        return True

    def schedule(self, now_ns: int) -> list[tuple[Request, int]]:
        """The next batch, as rows (request, tokens to compute); empty: nothing to do."""
        assert not self.rows, "complete() or fail() the batch in flight first"
        budget = self.config.max_num_batched_tokens
        for request in list(self.running):
            if request.todo == 1 and request in self.running and self._grow(request):
                self._add_row(request, 1)
                budget -= 1
        for request in self.running:
            if budget and request.todo > 1:
                budget -= self._add_row(request, min(request.todo, budget))
        while budget and self.waiting and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]  # none overtakes the head
            blocks = self._blocks_for(len(request.tokens))
            if blocks > len(self.free):
                break
            del self.waiting[0]
            request.blocks = [self.free.pop() for _ in range(blocks)]
            insort(self.running, request, key=lambda r: r.key)
            budget -= self._add_row(request, min(request.todo, budget))
        self.steps += bool(self.rows)
        return self.rows

    def complete(self, now_ns: int, next_token: Sequence[int]) -> None:
        for (request, n), token in zip(self.rows, next_token, strict=True):
            if request.ended:
                continue
            request.computed += n
            counted = max(request.prompt_counted, min(request.computed, request.n_prompt))
            self.prompt_tokens += counted - request.prompt_counted
            request.prompt_counted = counted
            if request.todo == 0:
                self._accept(request, int(token), now_ns)
        self._close_batch()

    def fail(self, now_ns: int, message: str) -> None:
        assert self.rows, "schedule() a batch first"
        for request, _ in self.rows:
            if not request.ended:
                self._end(request, Outcome.FAILED, now_ns, message)
        self._close_batch()

    def set_draining(self, draining: bool) -> None:
        self.draining = draining

    def take_events(self) -> Events:
        events, self.events = self.events, ([], [])
        return events

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def queued_tokens(self) -> int:
        return sum(len(request.tokens) for request in self.waiting)

    def counters(self) -> dict[str, int]:
        return {
            **{outcome.name.lower(): self.outcomes[outcome] for outcome in Outcome},
            "num_requests_running": len(self.running),
            "num_requests_waiting": len(self.waiting),
            "num_queued_tokens": self.queued_tokens,
            "steps": self.steps,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "num_preemptions": self.preemptions,
            "kv_blocks_used": self.config.num_blocks - len(self.free),
        }

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)

    def _grow(self, request: Request) -> bool:
        if len(request.blocks) * self.config.block_size >= len(request.tokens):
            return True
        if not self.free:
            victim = self.running.pop()
            self._give_back(victim)
            victim.computed = 0
            insort(self.waiting, victim, key=lambda r: r.key)
            self.preemptions += 1
            self._decide(PREEMPTED | victim.id)
            if victim is request:
                return False
        request.blocks.append(self.free.pop())
        return True

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
        self.events[0].append((request.id, token, now_ns))
        if len(request.tokens) - request.n_prompt == request.max_tokens or token == request.stop_token_id:
            self._end(request, Outcome.FINISHED, now_ns)

    def _end(self, request: Request, outcome: Outcome, now_ns: int, message: str = "") -> None:
        del self.live[request.id]
        request.ended = True
        n_output = len(request.tokens) - request.n_prompt
        times = (request.submitted_ns, request.first_token_ns, now_ns)
        self.events[1].append((request.id, int(outcome), request.n_prompt, n_output, *times, message))
        self.outcomes[outcome] += 1
        self._decide(ENDED | request.id << 3 | outcome)

    def _close_batch(self) -> None:
        for request, _ in self.rows:
            if request.ended:
                self.running.remove(request)
                self._give_back(request)
        self.rows = []

    def _give_back(self, request: Request) -> None:
        self.free.extend(reversed(request.blocks))
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
