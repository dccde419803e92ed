"""The waiting requests and their order, by brute force. The rules are stated in `csrc/scheduler/queue.h`."""

from __future__ import annotations

import math
from collections import Counter
from typing import Protocol

PROMPT_TOKEN_CHARGE, OUTPUT_TOKEN_CHARGE = 1, 2
Class = tuple[int, int]  # priority, tenant


class Queued(Protocol):
    """What the order needs of a request."""

    id: int
    priority: int
    tenant: int
    deadline_ns: int  # 0: none
    overtakes: int  # later arrivals admitted for the first time while it waited
    admitted: bool  # at least once


class WaitingQueue:
    """Who is next, and what each tenant was served."""

    def __init__(self, max_overtakes: int) -> None:
        self.max_overtakes = max_overtakes
        self.waiting: dict[int, Queued] = {}
        self.counters: dict[Class, int] = {}  # virtual token counters
        self.n_waiting: Counter[Class] = Counter()
        self.n_members: Counter[Class] = Counter()  # waiting or running
        self.last_left: dict[int, int] = {}  # by priority: the last tenant whose requests no longer waited
        self.admitted_by_age = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def aged(self, q: Queued) -> bool:
        return q.overtakes >= self.max_overtakes

    @property
    def any_aged(self) -> bool:
        return any(self.aged(q) for q in self.waiting.values())

    def head(self) -> Queued:
        if self.any_aged:
            return self.oldest()
        return min(self.waiting.values(), key=self._order)

    def oldest(self) -> Queued:
        return self.waiting[min(self.waiting)]

    def _order(self, q: Queued) -> tuple[float, ...]:
        counter = self.counters[q.priority, q.tenant]
        return (-q.priority, counter, q.tenant, q.deadline_ns or math.inf, q.id)

    def join(self, q: Queued) -> None:
        """A new request, which will wait, run and end."""
        key = q.priority, q.tenant
        if key not in self.counters:
            self._forget(q.priority)
            self.counters[key] = 0
        self.n_members[key] += 1

    def leave(self, q: Queued) -> None:
        """It has ended, and does not wait. A priority without requests forgets its tenants."""
        self.n_members[q.priority, q.tenant] -= 1
        if not any(n for (priority, _), n in self.n_members.items() if priority == q.priority):
            for key in self._of(q.priority):
                del self.counters[key], self.n_members[key]
                self.n_waiting.pop(key, None)
            self.last_left.pop(q.priority, None)

    def push(self, q: Queued) -> None:
        """It waits: it is new, or was preempted."""
        key = q.priority, q.tenant
        if not self.n_waiting[key]:
            self.counters[key] = max(self.counters[key], self.floor(q.priority))
        self.n_waiting[key] += 1
        self.waiting[q.id] = q

    def admit(self, q: Queued) -> None:
        """It waits no more: it runs."""
        self.admitted_by_age += self.any_aged
        self.drop(q)
        if not q.admitted:
            q.admitted = True
            for other in self.waiting.values():
                other.overtakes += other.id < q.id

    def drop(self, q: Queued) -> None:
        """It waits no more."""
        del self.waiting[q.id]
        self.n_waiting[q.priority, q.tenant] -= 1
        if not self.n_waiting[q.priority, q.tenant]:
            self.last_left[q.priority] = q.tenant

    def floor(self, priority: int) -> int:
        """What a tenant that comes to wait is lifted to."""
        waiting = [self.counters[key] for key in self._of(priority) if self.n_waiting[key]]
        if waiting:
            return min(waiting)
        return self.counters[priority, self.last_left[priority]] if priority in self.last_left else 0

    def _of(self, priority: int) -> list[Class]:
        return [key for key in self.counters if key[0] == priority]

    def _forget(self, priority: int) -> None:
        """Tenants without requests that would be lifted to the floor anyway."""
        floor = self.floor(priority)
        for key in self._of(priority):
            if not self.n_members[key] and self.counters[key] <= floor and self.last_left.get(priority) != key[1]:
                del self.counters[key], self.n_members[key]
                self.n_waiting.pop(key, None)
