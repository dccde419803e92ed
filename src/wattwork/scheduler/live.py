"""The scheduler that runs: requests in, tokens out, hashing in between."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattwork import _native
from wattwork.engines.base import StepEngine
from wattwork.errors import DeadlineInfeasible, InvalidInput, QueueFull, WattworkError, whole
from wattwork.machine import check_threads, default_threads
from wattwork.scheduler.config import BACK_MODES, BackMode, Sampling, SchedulerConfig, Stats
from wattwork.scheduler.handle import Handle, Waiter, guarded, wake
from wattwork.scheduler.twin import EndEvent, Reject

_NOT_PLAIN = int(Reject.NOT_PLAIN)
_forks = [0]  # how often this process is a fork of a fork: cheaper to ask than its number
os.register_at_fork(after_in_child=lambda: _forks.__setitem__(0, _forks[0] + 1))
_REJECTIONS: dict[int, tuple[type[WattworkError], str]] = {
    Reject.INVALID: (InvalidInput, "a request needs at least one token and max_tokens of at least 1."),
    Reject.TOO_LARGE: (
        InvalidInput,
        "the request could never run: its prompt and max_tokens exceed max_model_len, the KV blocks or "
        "max_num_queued_tokens; shorten it or raise them.",
    ),
    Reject.DRAINING: (QueueFull, "the scheduler is draining; submit again when drain() has returned."),
    Reject.QUEUE_FULL: (
        QueueFull,
        "the queue is full; submit again later, or raise max_num_queued_reqs or max_num_queued_tokens.",
    ),
    Reject.CLOSED: (WattworkError, "the scheduler is closed; make a new one."),
    Reject.NO_ENGINE: (InvalidInput, "this scheduler has no engine and only hashes; make one with an engine."),
    Reject.DEADLINE_INFEASIBLE: (
        DeadlineInfeasible,
        "even alone on the engine the request would finish after its deadline; give it more time or less to do.",
    ),
}


def _make_loop(
    config: SchedulerConfig,
    engine: StepEngine | None,
    threads: int,
    record: str,
    vocab: int,
    mode: BackMode,
    corun_threads: int,
) -> Any:
    if _native.HAVE_CORE:
        owner = getattr(engine, "native_owner", engine)  # the loop keeps it: the engine may be closed before
        native = getattr(engine, "native", 0)
        return _native.core.Loop(config, owner, native, threads, record, vocab, mode, corun_threads)
    from wattwork.scheduler.fallback import FallbackLoop

    return FallbackLoop(config, engine, record, mode)


def check_log(path: str | Path | None) -> str:
    """The path as the loop takes it. InvalidInput if nothing can be written there."""
    if path is None:
        return ""
    try:
        open(path, "wb").close()
    except OSError as error:
        raise InvalidInput(f"the log {path} cannot be written: {error.strerror}.") from None
    return os.fspath(path)


class _Courier:
    """Takes events from the loop to their handles, a batch at each hold of the GIL, on a thread of its own."""

    def __init__(self, loop: Any) -> None:
        self.observers: list[Callable[[list[EndEvent]], object]] = []  # told of all that ended
        self.idle = threading.Condition()  # told when no handle is left that has not ended
        self.thread = threading.Thread(target=self._carry, args=(loop,), name="wattwork-courier", daemon=True)
        self.thread.start()

    def _carry(self, loop: Any) -> None:
        while (waiters := loop.deliver(3_600_000, self.observers)) is not None:
            self.wake(loop, waiters)

    def wake(self, loop: Any, waiters: list[Waiter]) -> None:
        """Wake those who wait for what was delivered."""
        if waiters:
            wake(waiters)
        if not loop.live:
            with self.idle:
                self.idle.notify_all()


def _shut_down(loop: Any, courier: threading.Thread, born: int) -> None:
    if _forks[0] != born:  # a fork has the objects, not the threads
        return
    loop.close()
    courier.join()


def _let_go(*args: Any) -> None:
    """At exit, or when the scheduler is collected: on any thread, so also on those that `_shut_down` waits for."""
    if threading.current_thread() is threading.main_thread():
        _shut_down(*args)
    else:
        threading.Thread(target=_shut_down, args=args, name="wattwork-close").start()


class Scheduler:
    """Runs requests on `engine` in continuous batches, and `back` (a `wattwork.Job`) whenever there are none.

    `engine` None only hashes. `threads` bounds the workers of engine and back together; 0: all CPUs this process may
    use. Close it, or use it as a context manager; at interpreter exit it closes itself. InvalidInput if the engine
    cannot do what `config` may ask of it. Not for use in a forked child: make one there.

    `back_mode`: "gap" hashes where there are no requests, and while a batch waits out `max_queue_delay_us`; "corun"
    besides hashes on `corun_threads` of the threads all along, which engine and gaps then do without (an engine with
    threads of its own, as a NumPy one has, must be made with fewer); "off" keeps the job and does not hash.
    InvalidInput where "corun" leaves no thread to the engine, or there is no native core.

    `yield_target_us`: how soon, on average, a job in Python (isa "numba" or "numpy") sees that it is to stop, in
    microseconds: NumPy's blocks are sized for that, from their measured rate, as far as the overhead of its calls
    allows (some 8 us). Numba's kernel looks each few microseconds, the native ones each half a microsecond, anyway.

    `record`: a file for the log that `wattwork.replay` runs again. InvalidInput if it cannot be written, WattworkError
    from `close()` if it could not be written to its end.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        engine: StepEngine | None,
        back: Any = None,
        *,
        back_mode: BackMode = "gap",
        corun_threads: int = 1,
        yield_target_us: float = 20.0,
        threads: int = 0,
        record: str | Path | None = None,
    ) -> None:
        check_threads(threads or None)
        self._threads, self._corun_threads = threads, whole("corun_threads", corun_threads)
        self._check_mode(back_mode)
        self._yield_target_us = _share_or_time("yield_target_us", yield_target_us, "microseconds above 0", most=1e9)
        if engine is not None:
            config.check_fits(engine.caps)
        self.config = config
        # Where the engine says so; one prompt it cannot read would fail the whole batch it is in.
        self._vocab: int = getattr(getattr(engine, "config", None), "vocab", 2**31)
        self._back: Any = None
        self._born = _forks[0]
        self._record = check_log(record)
        self._loop = _make_loop(config, engine, threads, self._record, self._vocab, back_mode, self._corun_threads)
        self._courier = _Courier(self._loop)
        self._finalizer = weakref.finalize(self, _let_go, self._loop, self._courier.thread, self._born)
        self.set_back(back)

    def submit(
        self,
        tokens: Sequence[int] | NDArray[np.integer[Any]],
        *,
        max_tokens: int,
        stop_token_id: int = -1,
        sampling: Sampling | None = None,
        priority: int = 0,
        tenant: str = "",
        deadline_ms: float | None = None,
        timeout_ms: float | None = None,
    ) -> Handle:
        """Queue a prompt (`tokens`, 1-D, ids from 0) for up to `max_tokens` output tokens; answers at once.

        The output ends early with `stop_token_id`, which it includes (-1: none). Larger `priority` goes first; within
        one, tenants are served fairly, and a tenant's requests by deadline (`deadline_ms` from now: the time by which
        it should have finished), then as they came. After `timeout_ms` it ends as timed out, wherever it is. QueueFull
        if the queue is at a bound or draining, DeadlineInfeasible if the engine is known to be too slow for the
        deadline, InvalidInput if the request is malformed or could never fit, WattworkError if closed.
        """
        self._check_process()
        if not (sampling is None or isinstance(sampling, Sampling)):
            raise InvalidInput("sampling must be a wattwork.Sampling, or None for greedy.")
        if not isinstance(tenant, str):
            raise InvalidInput(f"tenant must be a string, not {tenant!r}.")
        now_ns = time.monotonic_ns()
        deadline_ns = 0 if deadline_ms is None else _at_ns("deadline_ms", deadline_ms, now_ns)
        timeout_ns = 0 if timeout_ms is None else _at_ns("timeout_ms", timeout_ms, now_ns)
        owner = _tenant_number(tenant) if tenant else _NOBODY
        handle = Handle(self, now_ns)
        id = self._loop.submit(
            handle, tokens, max_tokens, stop_token_id, sampling, priority, owner, deadline_ns, timeout_ns
        )
        if id == _NOT_PLAIN:
            prompt = _as_prompt(tokens, self._vocab)
            max_tokens = _within("max_tokens", max_tokens, 1, "a number from 1 to 2^31 - 1")
            stop_token_id = _within("stop_token_id", stop_token_id, -1, "a token id, or -1 for none")
            priority = _within("priority", priority, -(2**31), "a number from -2^31 to 2^31 - 1")
            id = self._loop.submit(
                handle, prompt, max_tokens, stop_token_id, sampling, priority, owner, deadline_ns, timeout_ns
            )
        if id < 0:
            error, message = _REJECTIONS[id]
            raise error(message)
        handle.id = id
        return handle

    def set_back(self, job: Any) -> None:
        """Hash this job (a `wattwork.Job`; None: nothing), when the back's mode says. Returns when the job before it
        has left its quantum: its `units` then stand still. WattworkError, once, if that one had raised and so stopped.
        """
        self._check_process()
        if job is not None:
            self._check_open()
        if error := self._loop.take_back_error():
            raise WattworkError(f"the back stopped with {error}; mend it and set it again.")
        if hasattr(job, "yield_target_us"):
            job.yield_target_us = self._yield_target_us
        if _native.HAVE_CORE and job is not None:
            native = getattr(job, "native", None)
            if not isinstance(native, _native.core.Back):
                raise InvalidInput("the back must be a wattwork.Job, or None.")
            self._loop.set_back(native)
        else:
            self._loop.set_back(job)
        self._back = job

    def set_back_mode(self, mode: BackMode) -> None:
        """Change when the back hashes: "gap", "corun" or "off", as above. Returns when it has left its kernels; "corun"
        begins when the step in hand has ended. InvalidInput as above, and for another mode.
        """
        self._check_open()
        self._check_mode(mode)
        self._loop.set_back_mode(mode)

    def throttle(self, back: float = 1.0, front: float = 1.0) -> None:
        """Slow the device: shares of time, 1.0 for all of it.

        Of the time in which it might hash the back works the share `back` (0 to 1), in turns of 10 ms or, below 0.02,
        of 0.2 ms each. After each step the engine rests for the step's time x (1 / `front` - 1) (`front` above 0, at
        most 1), and with it the gaps. What is decided is the same at any share, and a log knows nothing of it; a rest
        ends at once with `close()` or with another share. InvalidInput for shares out of range.
        """
        self._check_open()
        back = _share_or_time("back", back, "a share of time from 0 to 1", zero=True)
        self._loop.throttle(back, _share_or_time("front", front, "a share of time above 0, at most 1"))

    def drain(self, timeout_ms: float | None = None) -> bool:
        """Refuse new requests until every one here has ended, then admit again. False: not within `timeout_ms`."""
        self._check_process()
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1e3
        self._loop.set_draining(True)
        try:
            with self._courier.idle:
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                if not self._courier.idle.wait_for(lambda: not self._loop.live, left):
                    return False
            while not self._loop.wait_idle(20):  # a cancelled request's last step; short, so that Ctrl-C is seen
                if deadline is not None and time.monotonic() > deadline:
                    return False
            return True
        finally:
            self._loop.set_draining(False)

    def stats(self) -> Stats:
        """Counters and state, as of now; never waits for a step."""
        self._check_process()
        return Stats(**self._loop.stats())

    @property
    def hashes(self) -> int:
        """Units that the present back has done; 0 without one."""
        return 0 if self._back is None else int(self._back.units)

    def on_ends(self, observe: Callable[[list[EndEvent]], object]) -> None:
        """Call this with the requests that ended, in batches, on the courier's thread or that of who cancels.

        It must not wait; what it raises goes to the log of `logging`.
        """
        self._courier.observers.append(partial(guarded, observe))

    def close(self) -> None:
        """End the step or quantum in hand, cancel what is left, stop the threads. May be called again."""
        if held := self._finalizer.detach():
            _shut_down(*held[2])
            if _forks[0] == self._born and (error := self._loop.record_error()):
                raise WattworkError(f"the log {self._record} breaks off ({error}); record to where there is room.")

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _cancel(self, id: int) -> bool:
        self._check_process()
        waiters = self._loop.cancel(id, self._courier.observers)
        if waiters is None:
            return False
        self._courier.wake(self._loop, waiters)
        return True

    def _look_out(self) -> None:
        """For who only waits: an answer that comes at once is delivered here, without waking the courier."""
        self._check_process()
        waiters = self._loop.deliver(0, self._courier.observers, True)
        if waiters is not None:
            self._courier.wake(self._loop, waiters)

    def _check_mode(self, mode: str) -> None:
        if mode not in BACK_MODES:
            raise InvalidInput(f"there is no back_mode {mode!r}; choose one of {', '.join(BACK_MODES)}.")
        if self._corun_threads < 1:
            raise InvalidInput(f"corun_threads is {self._corun_threads}; give 1 or more.")
        if mode != "corun":
            return
        if not _native.HAVE_CORE:
            raise InvalidInput("back_mode 'corun' needs the native core; install with a C++20 compiler, or choose gap.")
        n = self._threads or default_threads()
        if self._corun_threads >= n:
            raise InvalidInput(
                f"corun_threads is {self._corun_threads} of {n} threads, but the engine needs at least one; raise "
                "threads or lower corun_threads."
            )

    def _check_open(self) -> None:
        self._check_process()
        if not self._finalizer.alive:
            raise WattworkError("the scheduler is closed; make a new one.")

    def _check_process(self) -> None:
        if _forks[0] != self._born:
            raise WattworkError("this scheduler was made before the process forked; make a new one in the child.")


@lru_cache(4096)
def _tenant_number(tenant: str) -> int:
    """The state machine's number for a tenant: a hash, since a table of names would only ever grow."""
    return int.from_bytes(hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


_NOBODY = _tenant_number("")


def _within(name: str, value: int, least: int, rule: str) -> int:
    value = whole(name, value)
    if not least <= value < 2**31:
        raise InvalidInput(f"{name} is {value}; give {rule}.")
    return value


def _share_or_time(name: str, value: float, rule: str, *, most: float = 1.0, zero: bool = False) -> float:
    if not (isinstance(value, (int, float)) and 0 <= value <= most and (value > 0 or zero)):
        raise InvalidInput(f"{name} is {value!r}; give {rule}.")
    return float(value)


def _at_ns(name: str, ms: float, now_ns: int) -> int:
    """`ms` from now on the clock of the loop."""
    if not (isinstance(ms, (int, float)) and 0 < ms < 1e12):
        raise InvalidInput(f"{name} is {ms!r}; give milliseconds above 0 (below 1e12), or None.")
    return now_ns + max(round(ms * 1e6), 1)


def _as_prompt(tokens: Sequence[int] | NDArray[np.integer[Any]], vocab: int) -> NDArray[np.int32]:
    array = np.asarray(tokens)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise InvalidInput("tokens must be a sequence of at least one whole number.")
    if int(array.min()) < 0 or int(array.max()) >= vocab:
        raise InvalidInput(f"tokens must be ids from 0 to {vocab - 1}.")
    return np.ascontiguousarray(array, np.int32)
