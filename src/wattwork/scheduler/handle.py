"""A submitted request, as its caller holds it; and the ledger in which events find their handles."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING

from wattwork.errors import RequestFailed
from wattwork.latency import Timing
from wattwork.scheduler.twin import EndEvent, Events, Outcome

if TYPE_CHECKING:
    from wattwork.scheduler.live import Scheduler

_REASONS = {
    Outcome.CANCELLED: "the request was cancelled; submit it again if its output is wanted after all.",
    Outcome.TIMED_OUT: "the request timed out; give it more time or the scheduler less work.",
}


class Ledger:
    """The handles of live requests. One lock, held for bookkeeping only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.empty = threading.Condition(self.lock)
        self.live: dict[int, Handle] = {}
        self.observers: list[Callable[[list[EndEvent]], object]] = []  # told of all that ended

    def deliver(self, events: Events) -> None:
        """Give the events to their handles, then wake who waits for them."""
        tokens, ends = events
        if ends:
            for observe in self.observers:  # first: who sees an end finds it counted
                observe(ends)
        wakers: list[Callable[[], None]] = []
        with self.lock:
            for id, token, time_ns in tokens:
                if handle := self.live.get(id):
                    handle._tokens.append(token)
                    handle._times_ns.append(time_ns)
                    if handle._on_token:
                        wakers += handle._on_token
                        handle._on_token.clear()
            for end in ends:
                if handle := self.live.pop(end[0], None):
                    handle._end = end
                    wakers += handle._on_token + handle._on_end
                    handle._on_token.clear()
                    handle._on_end.clear()
            if not self.live:
                self.empty.notify_all()
        for wake in wakers:
            wake()


class Handle:
    """One request. Iterate it (`for` or `async for`) for its tokens as they come; `result()` or `await` for all."""

    def __init__(self, scheduler: Scheduler, ledger: Ledger, id: int, submitted_ns: int) -> None:
        self.id = id
        self._scheduler = scheduler
        self._ledger = ledger
        self._submitted_ns = submitted_ns
        self._tokens: list[int] = []
        self._times_ns: list[int] = []
        self._end: EndEvent | None = None
        self._on_token: list[Callable[[], None]] = []  # called once, at the next token or the end
        self._on_end: list[Callable[[], None]] = []  # called once, at the end

    def __repr__(self) -> str:
        return f"<Handle {self.id}: {self.outcome or 'live'}, {len(self._tokens)} tokens>"

    @property
    def outcome(self) -> str | None:
        """How it ended: "finished", "cancelled", "timed_out" or "failed"; None while it has not."""
        return None if self._end is None else Outcome(self._end[1]).name.lower()

    @property
    def deadline_missed(self) -> bool:
        """Whether it finished, timed out or failed after its deadline; False while it has not ended."""
        return self._end is not None and self._end[8]

    @property
    def timing(self) -> Timing:
        """Its times so far, in seconds of `time.monotonic()`."""
        end, times_ns = self._end, self._times_ns.copy()
        times = tuple(t / 1e9 for t in times_ns)
        submitted_ns = end[4] if end else self._submitted_ns
        return Timing(submitted_ns / 1e9, times, end[6] / 1e9 if end else None)

    def cancel(self) -> bool:
        """End it as cancelled, wherever it is; False if it had ended already. Nothing more of it is executed."""
        return self._scheduler._cancel(self.id)

    def result(self, timeout_ms: float | None = None) -> list[int]:
        """Its output tokens, the stop token included. RequestFailed if it ended otherwise; TimeoutError after
        `timeout_ms`, and then it goes on."""
        self._wait(self._on_end, lambda: False, timeout_ms)
        return self._outcome_tokens()

    def __iter__(self) -> Iterator[int]:
        n = 0
        while True:
            self._wait(self._on_token, lambda: len(self._tokens) > n, None)  # noqa: B023
            while n < len(self._tokens):
                yield self._tokens[n]
                n += 1
            if self._end is not None and n == len(self._tokens):
                self._outcome_tokens()
                return

    def __await__(self) -> Generator[object, None, list[int]]:
        return self._result_async().__await__()

    async def _result_async(self) -> list[int]:
        await self._wait_async(self._on_end, lambda: False)
        return self._outcome_tokens()

    async def __aiter__(self) -> AsyncIterator[int]:
        n = 0
        while True:
            await self._wait_async(self._on_token, lambda: len(self._tokens) > n)  # noqa: B023
            while n < len(self._tokens):
                yield self._tokens[n]
                n += 1
            if self._end is not None and n == len(self._tokens):
                self._outcome_tokens()
                return

    def _outcome_tokens(self) -> list[int]:
        assert self._end is not None
        outcome, message = Outcome(self._end[1]), self._end[7]
        if outcome is Outcome.FINISHED:
            return list(self._tokens)
        raise RequestFailed(
            outcome.name.lower(), _REASONS.get(outcome) or f"the engine's step failed: {message.rstrip('.')}."
        )

    def _enlist(self, wakers: list[Callable[[], None]], ready: Callable[[], bool], wake: Callable[[], None]) -> bool:
        """False if there is nothing to wait for."""
        self._scheduler._check_process()
        with self._ledger.lock:
            if self._end is not None or ready():
                return False
            wakers.append(wake)
            return True

    def _wait(self, wakers: list[Callable[[], None]], ready: Callable[[], bool], timeout_ms: float | None) -> None:
        event = threading.Event()
        if self._enlist(wakers, ready, event.set):
            seconds = None if timeout_ms is None else timeout_ms / 1e3
            if not event.wait(seconds):
                with self._ledger.lock:
                    if event.set not in wakers:  # it came at the last moment
                        return
                    wakers.remove(event.set)
                raise TimeoutError(f"request {self.id} has not ended within {timeout_ms} ms; wait longer or cancel it.")

    async def _wait_async(self, wakers: list[Callable[[], None]], ready: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        if self._enlist(wakers, ready, wake):
            await future
