"""`csrc/scheduler/simulate.h` over the twin: the same arguments, the same answer, slowly."""

from __future__ import annotations

from typing import Any

from wattwork.scheduler.config import SchedulerConfig
from wattwork.scheduler.served import Row, arrays, arrived, serve
from wattwork.scheduler.twin import MASK, NEVER_NS, SchedulerTwin


class _Device:
    def __init__(self, config: SchedulerConfig) -> None:
        self.scheduler = SchedulerTwin(config)
        self.scheduler.plan_only()
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
        self.requests.append(arrived(now_ns, n, self.devices.index(d), id))
        if id < 0:
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
        serve(self.requests, self.gaps_ns, d.request_of, tokens, ends)
        outputs = self.columns[2]
        assert outputs is not None
        d.outstanding -= sum(n_prompt + outputs[d.request_of[id]] for id, _, n_prompt, *_ in ends)


def simulate(config: SchedulerConfig, *args: Any) -> tuple[Any, ...]:
    """As `_core.simulate`."""
    *columns, cost, seed, devices, _ = args
    simulation = _Simulation(config, tuple(columns), cost, seed, devices)
    simulation.run()
    return (
        *arrays(simulation.requests, simulation.gaps_ns),
        [(d.scheduler.counters(), d.scheduler.decision_hash, d.busy_ns) for d in simulation.devices],
        simulation.end_ns,
    )
