"""A submitted request, as its caller holds it; how events reach it, and who is woken then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from _thread import LockType, allocate_lock
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, Union

from wattwork.errors import RequestFailed
from wattwork.latency import Timing
from wattwork.scheduler.twin import EndEvent, Events, Outcome

if TYPE_CHECKING:
    from wattwork.scheduler.live import Scheduler

T = TypeVar("T")

_REASONS: dict[int, str] = {
    Outcome.CANCELLED: "the request was cancelled; submit it again if its output is wanted after all.",
    Outcome.TIMED_OUT: "the request timed out; give it more time or the scheduler less work.",
}


# Who waits for a handle: a lock that is held until then; a future of an asyncio loop, with the handle whose outcome it
# gets (None: it gets None); or a callback.
Waiter = Union[LockType, "tuple[asyncio.Future[Any], Handle | None]", "partial[None]"]
_FINISHED = int(Outcome.FINISHED)
_first_iterator = threading.Lock()


def deliver(live: dict[int, Handle], events: Events) -> list[Waiter]:
    """Give the events to their handles; those who now want to be woken. As `_core.Loop.deliver` does."""
    tokens, ends = events
    waiters: list[Waiter] = []
    for id, token, time_ns in tokens:
        if handle := live.get(id):
            handle._tokens.append(token)
            handle._times_ns.append(time_ns)
            _move(handle._token_waiters(), waiters)
    for end in ends:
        if handle := live.pop(end[0], None):
            handle._end = end
            _move(handle._token_waiters(), waiters)
            _move(handle._on_end, waiters)
    return waiters


def _move(waiters: list[Waiter], into: list[Waiter]) -> None:
    while waiters:  # one may come meanwhile, on another thread
        into.append(waiters.pop())


def wake(waiters: list[Waiter]) -> None:
    """Wake them all: each event loop once."""
    of_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Handle | None]]] = {}
    for waiter in waiters:
        if isinstance(waiter, tuple):
            of_loop.setdefault(waiter[0].get_loop(), []).append(waiter)
        elif isinstance(waiter, partial):
            _callers().submit(waiter)
        else:
            waiter.release()
    for loop, futures in of_loop.items():
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, futures)


@cache
def _callers() -> ThreadPoolExecutor:
    """Callbacks have threads of their own, so that a slow one is in nobody's way."""
    return ThreadPoolExecutor(thread_name_prefix="wattwork-callback")


os.register_at_fork(after_in_child=_callers.cache_clear)


def guarded(callback: Callable[[T], object], argument: T) -> None:
    """Call it. What it raises goes to the log of `logging`."""
    try:
        callback(argument)
    except Exception:
        logging.getLogger("wattwork").exception("the callback %r raised", callback)


def _settle(futures: list[tuple[asyncio.Future[Any], Handle | None]]) -> None:
    for future, handle in futures:
        if future.done():  # who waited gave up
            continue
        if handle is None:
            future.set_result(None)
        elif failure := handle._failure():
            future.set_exception(failure)
        else:
            future.set_result(handle._tokens.copy())


class Handle:
    """One request. Iterate it (`for` or `async for`) for its tokens as they come; `result()` or `await` for all."""

    __slots__ = (
        "__weakref__", "_end", "_on_end", "_on_token", "_scheduler", "_submitted_ns", "_times_ns", "_tokens", "id",
    )  # fmt: skip

    def __init__(self, scheduler: Scheduler, submitted_ns: int) -> None:
        self.id = 0
        self._scheduler = scheduler
        self._submitted_ns = submitted_ns
        self._tokens: list[int] = []
        self._times_ns: list[int] = []
        self._end: EndEvent | None = None
        # Woken once, at the next token or the end; and at the end. Who enlists looks afterwards, once more, whether
        # what it waits for is there; who delivers writes first, and takes the waiters then: so nobody is forgotten.
        self._on_token: list[Waiter] | tuple[()] = ()  # a list once somebody iterates
        self._on_end: list[Waiter] = []

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

    def add_done_callback(self, callback: Callable[[Handle], object]) -> None:
        """Call `callback(handle)` on another thread once it has ended, or now if it has.

        One that is slow or raises (the log of `logging` tells of it) is in nobody's way.
        """
        call = partial(guarded, callback, self)
        self._on_end.append(call)
        if self._end is not None:
            with contextlib.suppress(ValueError):  # else who delivers has it
                self._on_end.remove(call)
                _callers().submit(call)

    def cancel(self) -> bool:
        """End it as cancelled, wherever it is; False if it had ended already. Nothing more of it is executed."""
        return self._scheduler._cancel(self.id)

    def result(self, timeout_ms: float | None = None) -> list[int]:
        """Its output tokens, the stop token included. RequestFailed if it ended otherwise; TimeoutError after
        `timeout_ms`, and then it goes on."""
        if self._end is None:
            self._scheduler._look_out()
        if self._end is None:
            self._wait(self._on_end, lambda: False, timeout_ms)
        return self._outcome_tokens()

    def __iter__(self) -> Iterator[int]:
        n = 0
        while True:
            if self._end is None and n == len(self._tokens):
                self._wait(self._token_waiters(), lambda: len(self._tokens) > n, None)  # noqa: B023
            while n < len(self._tokens):
                yield self._tokens[n]
                n += 1
            if self._end is not None and n == len(self._tokens):
                self._outcome_tokens()
                return

    def __await__(self) -> Generator[object, None, list[int]]:
        self._scheduler._check_process()
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        if self._end is None:
            self._on_end.append((future, self))
        if self._end is not None:
            _settle([(future, self)])
        return future.__await__()

    async def __aiter__(self) -> AsyncIterator[int]:
        n = 0
        while True:
            if self._end is None and n == len(self._tokens):
                self._scheduler._check_process()
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._token_waiters().append((future, None))
                if self._end is None and n == len(self._tokens):
                    await future
            while n < len(self._tokens):
                yield self._tokens[n]
                n += 1
            if self._end is not None and n == len(self._tokens):
                self._outcome_tokens()
                return

    def _outcome_tokens(self) -> list[int]:
        if failure := self._failure():
            raise failure
        return self._tokens.copy()

    def _failure(self) -> RequestFailed | None:
        """None if it finished. Once it has ended."""
        assert self._end is not None
        outcome, message = self._end[1], self._end[7]
        if outcome == _FINISHED:
            return None
        reason = _REASONS.get(outcome) or f"the engine's step failed: {message.rstrip('.')}."
        return RequestFailed(Outcome(outcome).name.lower(), reason)

    def _token_waiters(self) -> list[Waiter]:
        if isinstance(self._on_token, tuple):
            with _first_iterator:
                if isinstance(self._on_token, tuple):
                    self._on_token = []
        return self._on_token

    def _wait(self, waiters: list[Waiter], ready: Callable[[], bool], timeout_ms: float | None) -> None:
        self._scheduler._check_process()
        lock = allocate_lock()
        lock.acquire()
        waiters.append(lock)
        if self._end is not None or ready():
            return
        seconds = -1 if timeout_ms is None else min(max(timeout_ms, 0) / 1e3, threading.TIMEOUT_MAX)
        if not lock.acquire(timeout=seconds) and self._end is None and not ready():
            with contextlib.suppress(ValueError):  # it came at the last moment
                waiters.remove(lock)
            raise TimeoutError(f"request {self.id} has not ended within {timeout_ms} ms; wait longer or cancel it.")
