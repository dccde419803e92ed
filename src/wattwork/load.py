"""The requests a measurement sends: flat out (offline), or a trace at its own times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wattwork.errors import InvalidInput
from wattwork.trace import prompt_token_ids

if TYPE_CHECKING:
    from wattwork.engines import ModelConfig
    from wattwork.scheduler import Handle, Scheduler
    from wattwork.trace import Trace

Tick = Callable[[], None]

# Offline: every request is there at once, as in MLPerf's offline scenario. One short, stated length of prompt and
# output, so that the figure compares between machines.
OFFLINE_PROMPT_TOKENS = 128
OFFLINE_OUTPUT_TOKENS = 128

# Of short requests, so that a window also of a slow device holds many: prompt and output tokens of each.
SHORT_TOKENS = (32, 32)

TICK_S = 0.1  # how often a waiting measurement looks about: progress, samples, Ctrl-C


def check_window(seconds: float, load: float) -> None:
    """InvalidInput unless a window may be so long and a trace offer so much."""
    if not 0 < seconds <= 86_400:
        raise InvalidInput(f"seconds must be above 0 and at most 86400, not {seconds}.")
    if not 0 < load <= 10:
        raise InvalidInput(f"load must be above 0 and at most 10, not {load}.")


def wait_until(deadline_s: float, tick: Tick) -> None:
    """Sleep until `time.perf_counter()` reaches the deadline, calling `tick` every TICK_S."""
    while (left_s := deadline_s - time.perf_counter()) > 0:
        time.sleep(min(left_s, TICK_S))
        tick()


class OfflineLoad:
    """Keeps more requests waiting than a batch holds, so that the engine never starves.

    `prompt_tokens`, `output_tokens`: lengths of every request, cut to the longest the scheduler takes.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: ModelConfig,
        prompt_tokens: int = OFFLINE_PROMPT_TOKENS,
        output_tokens: int = OFFLINE_OUTPUT_TOKENS,
    ) -> None:
        self._scheduler = scheduler
        self._vocab = model.vocab
        longest = scheduler.config.max_model_len
        self._prompt_tokens = min(prompt_tokens, longest // 2)
        self._output_tokens = min(output_tokens, longest - self._prompt_tokens)
        self._sent = 0
        self._running: list[Handle] = []

    def top_up(self) -> None:
        """Send requests until two batches of them are under way."""
        batch = self._scheduler.config.max_num_seqs
        self._forget()
        while len(self._running) < 2 * batch:
            # The first batch's outputs have every length from short to full: otherwise all sequences end, and all
            # prompts come, in the same step, and a window sees waves instead of a rate.
            share = min(1.0, (self._sent + 1) / batch)
            self._send(max(1, round(self._output_tokens * share)))

    def run(self, seconds: float, tick: Tick) -> None:
        """Flat out for so long. Requests unfinished then go on running: `cancel` ends them."""

        def top_up_and_tick() -> None:
            self.top_up()
            tick()

        self.top_up()
        wait_until(time.perf_counter() + seconds, top_up_and_tick)

    def cancel(self) -> None:
        for handle in self._running:
            handle.cancel()
        self._running.clear()

    def _send(self, max_tokens: int) -> None:
        tokens = prompt_token_ids(0, self._sent, self._prompt_tokens, self._vocab)
        self._running.append(self._scheduler.submit(tokens, max_tokens=max_tokens))
        self._sent += 1

    def _forget(self) -> None:
        self._running = [handle for handle in self._running if handle.outcome is None]


class PacedLoad(OfflineLoad):
    """Sends short requests at even distances, `requests_per_s` of them a second, over all windows without a break.

    Even, not Poisson: n random arrivals differ from their mean by 1/sqrt(n), more than 2 % of up to 2,500, so that a
    short window would miss its load by chance. An engine that does not keep up with it is sent no more than two
    batches at once, so that a queue does not grow without end.
    """

    def __init__(self, scheduler: Scheduler, model: ModelConfig, requests_per_s: float) -> None:
        super().__init__(scheduler, model, *SHORT_TOKENS)
        self.requests_per_s = requests_per_s
        self._next_s = 0.0  # when the next request is due

    def run(self, seconds: float, tick: Tick) -> None:
        """At that rate for so long. Requests unfinished then go on running."""
        now_s = time.perf_counter()
        end_s = now_s + seconds
        if self._next_s < now_s - TICK_S:  # not a window right after another
            self._next_s = now_s
        while self._next_s < end_s:
            wait_until(self._next_s, tick)
            self._forget()
            if len(self._running) < 2 * self._scheduler.config.max_num_seqs:
                self._send(self._output_tokens)
            self._next_s += 1 / self.requests_per_s
        wait_until(end_s, tick)


def _order(trace: Trace, i: int) -> dict[str, Any]:
    """What request i asks for beside its tokens, as `Scheduler.submit` takes it."""
    order: dict[str, Any] = {}
    if trace.priority is not None:
        order["priority"] = int(trace.priority[i])
    if trace.tenant is not None:
        order["tenant"] = str(trace.tenant[i])
    for name in ("deadline_ms", "timeout_ms"):
        column = getattr(trace, name)
        if column is not None and column[i]:
            order[name] = float(column[i])
    return order


def run_trace(scheduler: Scheduler, trace: Trace, vocab: int, seconds: float, tick: Tick) -> list[Handle]:
    """Send the trace's requests at their times, wait until the window is over and every one has ended."""
    # Made beforehand: between two arrivals they would take a core from the work that is measured.
    prompts = [prompt_token_ids(0, i, int(n), vocab) for i, n in enumerate(trace.prompt_tokens)]
    start_s = time.perf_counter()
    handles = []
    for i, tokens in enumerate(prompts):
        wait_until(start_s + float(trace.arrival_s[i]), tick)
        handles.append(scheduler.submit(tokens, max_tokens=int(trace.output_tokens[i]), **_order(trace, i)))
    wait_until(start_s + seconds, tick)
    while not all(handle.outcome for handle in handles):
        time.sleep(TICK_S / 10)
        tick()
    return handles
