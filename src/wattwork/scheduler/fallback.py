"""The loop where the native core is missing: the faces of `_core.Loop`, over the Python state machine.

One thread steps the engine while there is work, else runs the back until a submit stops it, else sleeps. No lock is
held while the engine or the back works. There is no corun: Python's threads would wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from wattwork.engines.base import Out, StepEngine
from wattwork.scheduler.config import Sampling, SchedulerConfig
from wattwork.scheduler.handle import Handle, Waiter, deliver
from wattwork.scheduler.twin import NEVER_NS, EndEvent, Reject, SchedulerTwin, to_batch
from wattwork.stop import Stop

PERIOD_NS, LEAST_SLOT_NS, MOST_REST_NS = 10_000_000, 200_000, 3_600_000_000_000  # as in csrc/runtime/loop.cpp
HOLD_WORTH_NS = 20_000_000  # NumPy's job needs milliseconds to get going, and to leave

Observers = list[Callable[[list[EndEvent]], object]]


class FallbackLoop:
    """`back` is an object with `run(stop)`, which returns soon after `stop.set()`."""

    def __init__(self, config: SchedulerConfig, engine: StepEngine | None, record: str = "", mode: str = "gap") -> None:
        self._core = SchedulerTwin(config)
        if record:
            self._core.record(record)
        self._record_error = ""
        self._engine = engine
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the loop's thread
        self._told = threading.Condition(self._lock)  # for deliver
        self._quiet = threading.Condition(self._lock)  # for set_back and wait_idle
        self._thread: threading.Thread | None = None
        self._closing = self._stopped = False
        self._draining = 0
        self._back: Any = None
        self._mode = mode
        self._back_share = self._front_share = 1.0
        self._rest_ns = 0  # what the back owes of its rest
        self._due_ns = NEVER_NS  # when deliver stops the back
        self._hashing: Any = None  # the back that runs now
        self._runs = 0
        self._hashing_since_ns = self._back_busy_ns = self._yields = 0
        self._yield_times_ns: deque[int] = deque(maxlen=1024)
        self._stop = Stop()
        self._raised_ns = 0  # when the stop was first set since it was cleared; 0: it was not
        self._back_error = ""
        self._live: dict[int, Handle] = {}
        self._giving = threading.Lock()
        self._giver = 0  # the thread that gives events to their handles

    def submit(
        self,
        handle: Handle,
        tokens: Any,
        max_tokens: int,
        stop_token_id: int,
        sampling: Sampling | None,
        priority: int,
        tenant: int,
        deadline_ns: int,
        timeout_ns: int,
    ) -> int:
        if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int32:
            return Reject.NOT_PLAIN
        if self._engine is None:
            return Reject.NO_ENGINE
        self._raise_stop()  # before it queues
        with self._lock:
            self._raise_stop()  # the loop may have gone back to hashing meanwhile
            if self._closing:
                return Reject.CLOSED
            next_ns, now_ns = self._core.next_timeout_ns(), time.monotonic_ns()
            order = (priority, tenant, deadline_ns, timeout_ns)
            id = self._core.submit(now_ns, tokens.tolist(), max_tokens, stop_token_id, sampling, *order)
            if id > 0:
                self._live[id] = handle
                self._start()
            if self._core.next_timeout_ns() < next_ns:
                self._told.notify_all()  # deliver keeps the time
            return id

    def cancel(self, id: int, observers: Observers) -> list[Waiter] | None:
        """Who cancels also delivers; None: it was not live."""
        with self._lock:
            was_live = self._core.cancel(time.monotonic_ns(), id)
            self._tell()
        if not was_live:
            return None
        return [] if self._giver == threading.get_ident() else self._give(observers)  # an observer that cancels

    def set_back(self, back: Any) -> None:
        with self._lock:
            if self._closing:
                return
            old, self._back = self._back, back
            if old is back:
                return
            if back is not None:
                self._start()
            self._recall()

    def set_back_mode(self, mode: str) -> None:
        with self._lock:
            self._mode = mode
            self._recall()

    def throttle(self, back: float, front: float) -> None:
        with self._lock:
            self._back_share, self._front_share, self._rest_ns = back, front, 0
            self._raise_stop()  # a run that was without end gets one
            self._work.notify()

    def _recall(self) -> None:
        """Stop the back as it is, and wait until it has left."""
        self._raise_stop()
        self._work.notify()
        run = self._runs
        self._quiet.wait_for(lambda: self._hashing is None or self._runs != run or self._stopped)

    def take_back_error(self) -> str:
        with self._lock:
            error, self._back_error = self._back_error, ""
            return error

    @property
    def live(self) -> int:
        return len(self._live)

    def deliver(self, timeout_ms: int, observers: Observers, eager: bool = False) -> list[Waiter] | None:
        """Also ends what times out, on time, whatever the engine does; and the back's turn."""
        if eager:
            return []  # who spins in Python keeps the GIL from who answers
        until_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        with self._lock:
            while True:
                now_ns = time.monotonic_ns()
                self._core.expire(now_ns)
                self._tell()
                if now_ns >= self._due_ns:
                    self._due_ns = NEVER_NS
                    self._stop.set()
                if self._stopped or any(self._core.events) or now_ns >= until_ns:
                    break
                self._told.wait((min(until_ns, self._core.next_timeout_ns(), self._due_ns) - now_ns) / 1e9)
            if self._stopped and not any(self._core.events):
                return None
        return self._give(observers)

    def _give(self, observers: Observers) -> list[Waiter]:
        with self._giving:  # a batch at a time, in their order
            self._giver = threading.get_ident()
            with self._lock:
                events = self._core.take_events()
            if events[1]:
                for observe in observers:  # first: who sees an end finds it counted
                    observe(events[1])
            with self._lock:
                waiters = deliver(self._live, events)
            self._giver = 0
            return waiters

    def set_draining(self, draining: bool) -> None:
        with self._lock:
            self._draining += 1 if draining else -1
            self._core.set_draining(self._draining > 0)
            self._raise_stop()
            self._work.notify()  # what waits need not wait for more

    def wait_idle(self, timeout_ms: int) -> bool:
        with self._lock:
            return self._quiet.wait_for(lambda: not self._core.has_work, timeout_ms / 1e3)

    def stats(self) -> dict[str, Any]:
        with self._lock:
            running_ns = time.monotonic_ns() - self._hashing_since_ns if self._hashing is not None else 0
            return {
                **self._core.counters(),
                "decision_hash": self._core.decision_hash,
                "back_mode": self._mode,
                "back_share": self._back_share,
                "front_share": self._front_share,
                "back_busy_ns": self._back_busy_ns + running_ns,
                "back_error": self._back_error,
                "yields": self._yields,
                "yield_times_ns": tuple(self._yield_times_ns),
            }

    def record_error(self) -> str:
        with self._lock:
            return self._record_error

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._raise_stop()
            self._work.notify()
            if self._thread is None:
                self._record_error = self._core.stop_recording()
                self._stopped = True
                self._told.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="wattwork-loop", daemon=True)
            self._thread.start()
        self._work.notify()

    def _raise_stop(self) -> None:
        self._raised_ns = self._raised_ns or time.monotonic_ns()
        self._stop.set()

    def _tell(self) -> None:
        if any(self._core.events):
            self._told.notify_all()
        if not self._core.has_work:
            self._quiet.notify_all()

    def _main(self) -> None:
        with self._lock:
            while not self._closing:
                if self._core.has_work:
                    self._step()
                elif not self._may_hash():
                    self._work.wait()
                elif not self._rest():
                    self._hash()
            for id in list(self._core.live):
                self._core.cancel(time.monotonic_ns(), id)
            self._record_error = self._core.stop_recording()
            self._stopped = True
            self._told.notify_all()
            self._quiet.notify_all()

    def _may_hash(self) -> bool:
        return self._back is not None and self._mode != "off" and self._back_share > 0

    def _rest(self, most_ns: int = MOST_REST_NS) -> bool:
        """Sit out what the back owes of its rest, until somebody calls. False: it owes none."""
        if self._rest_ns <= 0:
            return False
        begun_ns = time.monotonic_ns()
        self._work.wait(min(self._rest_ns, most_ns) / 1e9)
        self._rest_ns = max(self._rest_ns - (time.monotonic_ns() - begun_ns), -PERIOD_NS)
        return True

    def _hold(self) -> None:
        """A batch that waits for more requests."""
        end_ns = self._core.next_wakeup_ns()
        left_ns = end_ns - time.monotonic_ns()
        if left_ns >= HOLD_WORTH_NS and self._may_hash():
            if not self._rest(left_ns):
                self._hash(end_ns - HOLD_WORTH_NS // 2)
        elif left_ns > 0:
            self._work.wait(left_ns / 1e9)

    def _slow_down(self, step_ns: int) -> None:
        begun_ns = time.monotonic_ns()
        while not self._closing and self._front_share < 1:
            rest_ns = min(step_ns * (1 / self._front_share - 1), MOST_REST_NS)
            if (left_ns := begun_ns + rest_ns - time.monotonic_ns()) <= 0:
                return
            self._work.wait(left_ns / 1e9)

    def _step(self) -> None:
        assert self._engine is not None
        begun_ns = time.monotonic_ns()
        rows = self._core.schedule(begun_ns)
        self._tell()
        if not rows:
            if self._core.has_work:
                self._hold()
            return
        self._lock.release()
        error, next_token = "", np.full(len(rows), -1, np.int32)
        try:
            out = Out(next_token)
            self._engine.step(to_batch(rows, self._core.config.block_size), out)
            self._engine.sync()
            next_token = out.next_token
        except BaseException as e:  # whatever it is, it fails this batch alone
            error = f"{type(e).__name__}: {e}"
        finally:
            self._lock.acquire()
        if not error and len(next_token) != len(rows):
            error = "the engine changed the length of out.next_token"
        if error:
            self._core.fail(time.monotonic_ns(), error)
        else:
            self._core.complete(time.monotonic_ns(), next_token.tolist())
        self._tell()
        if self._front_share < 1:
            self._slow_down(time.monotonic_ns() - begun_ns)

    def _hash(self, until_ns: int = NEVER_NS) -> None:
        back = self._hashing = self._back
        self._runs += 1
        self._raised_ns = 0
        self._stop.clear()
        self._hashing_since_ns = time.monotonic_ns()
        if self._back_share < 1:
            slot_ns = max(LEAST_SLOT_NS, int(self._back_share * PERIOD_NS))
            until_ns = min(until_ns, self._hashing_since_ns + slot_ns)
        self._due_ns = until_ns
        if until_ns < NEVER_NS:
            self._told.notify_all()
        self._lock.release()
        error = ""
        try:
            back.run(self._stop)
        except BaseException as e:
            error = f"{type(e).__name__}: {e}"
        finally:
            returned_ns = time.monotonic_ns()
            self._lock.acquire()
        if self._raised_ns:
            self._yields += 1
            self._yield_times_ns.append(returned_ns - self._raised_ns)
        worked_ns = returned_ns - self._hashing_since_ns
        self._back_busy_ns += worked_ns
        if 0 < self._back_share < 1:
            self._rest_ns += int(min(worked_ns * (1 / self._back_share - 1), MOST_REST_NS))
        self._hashing, self._due_ns = None, NEVER_NS
        if error:
            self._back_error = error
            if self._back is back:
                self._back = None
        self._quiet.notify_all()
