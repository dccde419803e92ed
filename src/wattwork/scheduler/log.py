"""The log of a scheduler, and its replay, for the twin. `csrc/scheduler/log.h` states the format: the same bytes."""

from __future__ import annotations

import os
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from wattwork.scheduler.config import SchedulerConfig
from wattwork.scheduler.served import arrays, arrived, serve

if TYPE_CHECKING:
    from wattwork.scheduler.twin import SchedulerTwin

MAGIC = b"wwlog\r\n\x02"
BLOCK_BYTES, BLOCK_NS = 32 << 10, 1_000_000_000
MOST_NS = 1 << 62
CONFIG_FIELDS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_num_queued_reqs",
    "max_num_queued_tokens",
    "block_size",
    "num_blocks",
    "max_model_len",
    "max_queue_delay_us",
    "max_overtakes",
    "enable_prefix_sharing",
)
PLAIN_TOKEN, STOP_TOKEN, NO_TOKEN = 0, 1, -1


class Op(IntEnum):
    """What a record is about."""

    CONFIG, SUBMIT, CANCEL, EXPIRE, SCHEDULE, COMPLETE, FAIL, DRAIN, END, SHARE = range(10)


class LogWriter:
    """As `ww::LogWriter`. What cannot be written stops the recording, not the scheduler: `error` says why."""

    def __init__(self, path: str, config: SchedulerConfig) -> None:
        self.error = ""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._payload = bytearray()
        self._last_ns = self._flushed_ns = 0
        self._put(MAGIC)
        self._open(Op.CONFIG)
        for name in CONFIG_FIELDS:
            self._varint(getattr(config, name))
        self._flush()

    def submit(
        self, now_ns: int, n: int, max_tokens: int, stop: int, priority: int, tenant: int, deadline: int, timeout: int
    ) -> None:
        self._open_at(Op.SUBMIT, now_ns)
        self._zigzag(n)
        self._zigzag(max_tokens)
        there = (stop >= 0, priority, tenant, deadline, timeout)
        self._payload.append(sum(bool(value) << bit for bit, value in enumerate(there)))
        if priority:
            self._zigzag(priority)
        if tenant:
            self._varint(tenant)
        for when in (deadline, timeout):
            if when:
                self._zigzag(when - now_ns)

    def cancel(self, now_ns: int, id: int) -> None:
        self._open_at(Op.CANCEL, now_ns)
        self._varint(id)

    def expire(self, now_ns: int) -> None:
        self._open_at(Op.EXPIRE, now_ns)

    def schedule(self, now_ns: int, hash: int) -> None:
        self._open_at(Op.SCHEDULE, now_ns)
        self._payload += (hash & 0xFFFF).to_bytes(2, "little")

    def share(self, id: int, donor: int, n_blocks: int) -> None:
        self._open(Op.SHARE)
        for value in (id, donor, n_blocks):
            self._varint(value)

    def complete(self, now_ns: int, exceptions: list[int]) -> None:
        self._open_at(Op.COMPLETE, now_ns)
        self._varint(len(exceptions))
        for exception in exceptions:
            self._varint(exception)

    def fail(self, now_ns: int) -> None:
        self._open_at(Op.FAIL, now_ns)

    def drain(self, draining: bool) -> None:
        self._open(Op.DRAIN)
        self._payload.append(draining)

    def finish(self, hash: int) -> None:
        self._open(Op.END)
        self._payload += hash.to_bytes(8, "little")
        self._flush()
        self._close()

    def _open(self, op: Op) -> None:
        if len(self._payload) >= BLOCK_BYTES:
            self._flush()
        self._payload.append(op)

    def _open_at(self, op: Op, now_ns: int) -> None:
        if now_ns - self._flushed_ns >= BLOCK_NS:
            self._flush()
            self._flushed_ns = now_ns
        self._open(op)
        self._zigzag(now_ns - self._last_ns)
        self._last_ns = now_ns

    def _varint(self, value: int) -> None:
        self._payload += _varint(value)

    def _zigzag(self, value: int) -> None:
        self._varint(value << 1 if value >= 0 else ~(value << 1))

    def _flush(self) -> None:
        if self._payload:
            payload = bytes(self._payload)
            self._payload.clear()
            self._put(_varint(len(payload)) + payload + zlib.crc32(payload).to_bytes(4, "little"))

    def _put(self, data: bytes) -> None:
        while self._fd >= 0 and data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                self.error = error.strerror or "it cannot be written"
                self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Damaged(Exception):
    """The records make no sense."""


class _Reader:
    """Never reads past its end."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def fixed(self, n: int) -> int:
        if self.end - self.at < n:
            raise Damaged
        self.at += n
        return int.from_bytes(self.data[self.at - n : self.at], "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self.fixed(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        raise Damaged

    def zigzag(self) -> int:
        value = self.varint()
        return ~(value >> 1) if value & 1 else value >> 1

    def time_from(self, base_ns: int) -> int:
        when_ns = base_ns + self.zigzag()
        if not 0 <= when_ns <= MOST_NS:
            raise Damaged
        return when_ns

    def int32(self) -> int:
        value = self.zigzag()
        if not -(2**31) <= value < 2**31:
            raise Damaged
        return value

    def count(self) -> int:
        value = self.varint()
        if value >= 2**31:
            raise Damaged
        return value

    def next_block(self) -> _Reader | None:
        """The payload of the next block; None: there is no whole one."""
        begin = self.at
        try:
            n = self.varint()
            payload = _Reader(self.data, self.at, self.at + n)
            if 0 < n <= self.end - self.at:
                self.at += n
                if self.fixed(4) == zlib.crc32(self.data[payload.at : payload.end]):
                    return payload
        except Damaged:
            pass
        self.at = begin
        return None


class _Replayer:
    def __init__(self) -> None:
        self.machine: SchedulerTwin | None = None
        self.now_ns = self.begin_ns = self.end_ns = self.busy_ns = self.scheduled_ns = 0
        self.differs_at = -1
        self.requests: list[dict[str, int]] = []
        self.request_of = [-1]  # by id
        self.gaps_ns: list[list[int]] = []

    def record(self, r: _Reader) -> bool:
        """False: it was the end, or the first decision that differs."""
        op = r.fixed(1)
        if op > Op.SHARE or (op == Op.CONFIG) == (self.machine is not None):
            raise Damaged
        if op == Op.CONFIG:
            self.make(r)
            return True
        machine = self.machine
        assert machine is not None
        if op == Op.END:
            self.agree(r.fixed(8) == machine.decision_hash)
            return False
        if op == Op.DRAIN:
            machine.set_draining(r.fixed(1) != 0)
            return True
        if op == Op.SHARE:
            machine.offers.append((r.varint(), r.varint(), r.count()))
            return True
        self.now_ns = r.time_from(self.now_ns)
        self.begin_ns = self.begin_ns or self.now_ns
        self.end_ns = self.now_ns
        same = self.timed(op, r, machine)
        self.take_events(machine)
        return self.agree(same)

    def timed(self, op: int, r: _Reader, machine: SchedulerTwin) -> bool:
        if op == Op.SUBMIT:
            self.submit(r, machine)
        elif op == Op.CANCEL:
            return machine.cancel(self.now_ns, r.varint())
        elif op == Op.EXPIRE:
            machine.expire(self.now_ns)
        elif op == Op.SCHEDULE:
            hash = r.fixed(2)
            if machine.rows:
                raise Damaged
            self.scheduled_ns = self.now_ns
            rows = machine.schedule(self.now_ns)
            if machine.take_back_offers():
                raise Damaged
            return bool(rows) and hash == machine.decision_hash & 0xFFFF
        else:
            self.end_step(op, r, machine)
        return True

    def make(self, r: _Reader) -> None:
        from wattwork.scheduler.twin import SchedulerTwin

        fields: dict[str, Any] = {name: r.count() for name in CONFIG_FIELDS}
        if fields["enable_prefix_sharing"] > 1:
            raise Damaged
        fields["enable_prefix_sharing"] = fields["enable_prefix_sharing"] == 1
        try:
            self.machine = SchedulerTwin(SchedulerConfig(**fields))
        except ValueError:
            raise Damaged from None
        self.machine.plan_only()

    def submit(self, r: _Reader, machine: SchedulerTwin) -> None:
        n, max_tokens, bits = r.int32(), r.int32(), r.fixed(1)
        priority = r.int32() if bits & 2 else 0
        tenant = r.varint() if bits & 4 else 0
        deadline_ns, timeout_ns = (r.time_from(self.now_ns) if bits & bit else 0 for bit in (8, 16))
        # A prompt beyond the model's length is rejected for its length alone.
        prompt: Any = [PLAIN_TOKEN] * n if n <= machine.config.max_model_len else range(n)
        stop = STOP_TOKEN if bits & 1 else -1
        order = (priority, tenant, deadline_ns, timeout_ns)
        id = machine.submit(self.now_ns, prompt, max_tokens, stop, None, *order)
        if id > 0:
            self.request_of.append(len(self.requests))
        self.requests.append(arrived(self.now_ns, n, 0, id))

    def end_step(self, op: int, r: _Reader, machine: SchedulerTwin) -> None:
        if not machine.rows:
            raise Damaged
        self.busy_ns += self.now_ns - self.scheduled_ns
        if op == Op.FAIL:
            machine.fail(self.now_ns, "")
            return
        next_token = [PLAIN_TOKEN] * len(machine.rows)
        for _ in range(r.varint()):
            exception = r.varint()
            if exception >> 1 >= len(next_token):
                raise Damaged
            next_token[exception >> 1] = STOP_TOKEN if exception & 1 else NO_TOKEN
        machine.complete(self.now_ns, next_token)

    def take_events(self, machine: SchedulerTwin) -> None:
        tokens, ends = machine.take_events()
        serve(self.requests, self.gaps_ns, self.request_of, tokens, ends)

    def agree(self, same: bool) -> bool:
        assert self.machine is not None
        if not same:
            self.differs_at = max(1, self.machine.steps)
        return same


def replay(data: bytes, watch_signals: bool) -> tuple[Any, ...]:
    """As `_core.replay`."""
    if not data.startswith(MAGIC):
        raise ValueError("not a log of this version")
    file, replayer = _Reader(data, len(MAGIC), len(data)), _Replayer()
    whole, more = file.at, True
    try:
        while more and (block := file.next_block()):
            while more and block.at < block.end:
                more = replayer.record(block)
            whole = file.at
    except Damaged:
        pass
    machine = replayer.machine
    if machine is None:
        raise ValueError("no config in the log")
    times_ns = (replayer.begin_ns, replayer.end_ns, replayer.busy_ns)
    counters, cut_at = machine.counters(), whole if more else -1
    rows, gaps_ns = arrays(replayer.requests, replayer.gaps_ns)
    return rows, gaps_ns, counters, machine.decision_hash, times_ns, cut_at, replayer.differs_at
