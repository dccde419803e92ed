"""`csrc/scheduler/simulate.h` over the twin: the same arguments, the same answer, slowly."""

from __future__ import annotations

from typing import Any

import numpy as np

from wattwork.scheduler.config import SchedulerConfig
from wattwork.scheduler.twin import MASK, NEVER_NS, Outcome, SchedulerTwin
from wattwork.serving import REQUEST

Row = dict[str, int]


class _Device:
    def __init__(self, config: SchedulerConfig) -> None:
        self.scheduler = SchedulerTwin(config)
        self.request_of = [-1]  # by id
        self.step_end_ns = self.wake_ns = NEVER_NS
        self.outstanding = self.busy_ns = 0


class _Simulation:
    def __init__(
        self, config: SchedulerConfig, columns: tuple[Any, ...], cost: tuple[float, ...], seed: int, n: int
    ) -> None:
        self.columns = [None if column is None else column.tolist() for column in columns]
        self.cost, self.random = cost, seed
        self.devices = [_Device(config) for _ in range(n)]
        self.requests: list[Row] = []
        self.gaps_ns: list[list[int]] = []
        self.end_ns = 0

    def run(self) -> None:
        times = self.columns[0]
        assert times is not None
        while True:
            next_ns = times[len(self.requests)] if len(self.requests) < len(times) else NEVER_NS
            now_ns = min(next_ns, *(min(d.step_end_ns, d.wake_ns) for d in self.devices))
            if now_ns == NEVER_NS:
                return
            for device in self.devices:
                self.advance(device, now_ns)
            while len(self.requests) < len(times) and times[len(self.requests)] <= now_ns:
                self.arrive(now_ns)
            for device in self.devices:
                self.begin(device, now_ns)

    def advance(self, d: _Device, now_ns: int) -> None:
        if d.step_end_ns <= now_ns:
            d.scheduler.complete(now_ns, [0] * len(d.scheduler.rows))
            d.step_end_ns, self.end_ns = NEVER_NS, now_ns
        if d.wake_ns <= now_ns:
            d.scheduler.expire(now_ns)
        self.take_events(d)

    def arrive(self, now_ns: int) -> None:
        i = len(self.requests)
        _, n, output, priority, tenant, deadline_ns, timeout_ns = (c[i] if c else 0 for c in self.columns)
        d = min(self.devices, key=lambda device: device.outstanding)
        deadline_ns, timeout_ns = (now_ns + span if span else 0 for span in (deadline_ns, timeout_ns))
        id = d.scheduler.submit(now_ns, [0] * n, output, -1, None, priority, tenant, deadline_ns, timeout_ns)
        row = dict.fromkeys(REQUEST.names or (), -1) | {"submitted_ns": now_ns, "prompt_tokens": n, "output_tokens": 0}
        row["device"] = self.devices.index(d)
        self.requests.append(row)
        if id < 0:
            row |= {"ended_ns": now_ns, "outcome": Outcome.REJECTED}
            return
        d.request_of.append(i)
        d.outstanding += n + output

    def begin(self, d: _Device, now_ns: int) -> None:
        if d.step_end_ns == NEVER_NS and d.scheduler.has_work:
            if rows := d.scheduler.schedule(now_ns):
                step_ns = self.step_ns(sum(n for _, n in rows), len(rows))
                d.step_end_ns = now_ns + step_ns
                d.busy_ns += step_ns
            self.take_events(d)
        d.wake_ns = max(d.scheduler.next_wakeup_ns(), now_ns + 1)

    def step_ns(self, tokens: int, seqs: int) -> int:
        step_s, per_token_s, per_sequence_s, jitter = self.cost
        s = step_s + per_token_s * tokens + per_sequence_s * seqs
        if jitter:
            s = s * (1 + jitter * (2 * ((self.splitmix64() >> 11) * 2.0**-53) - 1))
        return max(1, int(s * 1e9 + 0.5))

    def splitmix64(self) -> int:
        z = self.random = (self.random + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return z ^ z >> 31

    def take_events(self, d: _Device) -> None:
        tokens, ends = d.scheduler.take_events()
        for id, _, time_ns in tokens:
            row = self.requests[d.request_of[id]]
            if row["output_tokens"] == 0:
                row["first_token_ns"] = time_ns
            else:
                self.count_gap(time_ns - row["last_token_ns"])
            row["output_tokens"] += 1
            row["last_token_ns"] = time_ns
        for id, outcome, n_prompt, _, _, _, ended_ns, *_ in ends:
            i = d.request_of[id]
            self.requests[i] |= {"ended_ns": ended_ns, "outcome": outcome}
            outputs = self.columns[2]
            assert outputs is not None
            d.outstanding -= n_prompt + outputs[i]

    def count_gap(self, ns: int) -> None:
        if not self.gaps_ns or self.gaps_ns[-1][0] != ns:
            self.gaps_ns.append([ns, 0])
        self.gaps_ns[-1][1] += 1


def simulate(config: SchedulerConfig, *args: Any) -> tuple[Any, ...]:
    """As `_core.simulate`."""
    *columns, cost, seed, devices, _ = args
    simulation = _Simulation(config, tuple(columns), cost, seed, devices)
    simulation.run()
    return (
        np.array([tuple(row.values()) for row in simulation.requests], REQUEST),
        np.array(simulation.gaps_ns, np.int64).reshape(-1, 2),
        [(d.scheduler.counters(), d.scheduler.decision_hash, d.busy_ns) for d in simulation.devices],
        simulation.end_ns,
    )
