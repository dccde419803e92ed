"""Request traces: read one, and size it for a device (the trace rule)."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattwork.data import packaged_bytes
from wattwork.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# 1 - 0.63: the Azure code trace leaves a device of about 14,000 prompt tok/s idle for 63 % of the time.
DEFAULT_LOAD = 0.37
TICK_S = 1e-7  # the trace's own resolution
MAX_REQUESTS = 1_000_000
_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_SLICE = "azure_llm_2023_code_slice.csv"


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their arrival. All arrays have the same length, at least 1."""

    arrival_s: NDArray[np.float64]  # from the first request's arrival, never falling
    prompt_tokens: NDArray[np.int64]  # at least 1
    output_tokens: NDArray[np.int64]  # at least 1
    source: str
    # What a request may ask for beside its tokens; None: none of them does.
    priority: NDArray[np.integer[Any]] | None = None
    tenant: NDArray[np.integer[Any]] | None = None  # numbers that stand for who asks
    deadline_ms: NDArray[np.floating[Any]] | None = None  # from its arrival; 0: none
    timeout_ms: NDArray[np.floating[Any]] | None = None  # the same

    def __len__(self) -> int:
        return len(self.arrival_s)

    def taken(self, index: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """The optional columns that there are, of these requests."""
        names = ("priority", "tenant", "deadline_ms", "timeout_ms")
        columns = ((name, getattr(self, name)) for name in names)
        return {name: column[index] for name, column in columns if column is not None}


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What was done to a trace before it was played; it goes into the report."""

    source: str
    slice_requests: int  # requests in the slice that was given
    requests: int  # of those played, taken from the slice's first on
    repeats: int  # times the slice was begun: 1 unless it was too short for the window
    stretch: float  # seconds of the played trace per second of the recorded one
    scale: float  # played tokens per recorded token, before rounding up; 1.0 where all lengths fit the context
    load: float  # offered prompt tokens over capacity, over duration_s
    capacity_tok_s: float  # the engine's solo capacity in prompt tokens per second
    duration_s: float

    def to_dict(self) -> dict[str, object]:
        """As the report holds it."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SizedTrace:
    """A trace sized for a device. Offered over `duration_s`, its prompt tokens are exactly load x capacity."""

    trace: Trace
    duration_s: float  # from the first arrival to where the next request would arrive
    info: TraceInfo


def read_trace(path: str | Path) -> Trace:
    """Read an Azure LLM trace: a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens.

    InvalidInput names the file and the line that is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"the trace {path} cannot be read: {why}.") from None
    return parse_trace(text, str(path))


def packaged_trace() -> Trace:
    """The packaged slice of Microsoft's Azure LLM inference trace of 2023, code (data/README.md)."""
    return parse_trace(packaged_bytes(_SLICE).decode(), "Azure LLM inference trace 2023 (code), requests 6865 to 7120")


def parse_trace(text: str, source: str) -> Trace:
    """The same from text."""
    import numpy as np

    rows = csv.reader(io.StringIO(text))
    if [name.strip() for name in next(rows, [])] != _COLUMNS:
        raise InvalidInput(f"{source}: line 1 must name the columns {','.join(_COLUMNS)}.")
    ticks, prompts, outputs = [], [], []
    for row in rows:
        if not row:
            continue
        where = f"{source}, line {rows.line_num}"
        if len(row) != len(_COLUMNS):
            raise InvalidInput(f"{where}: {len(_COLUMNS)} columns are needed, not {len(row)}.")
        ticks.append(_ticks(row[0], where))
        prompts.append(_tokens(row[1], _COLUMNS[1], where))
        outputs.append(_tokens(row[2], _COLUMNS[2], where))
        if len(ticks) > 1 and ticks[-1] < ticks[-2]:
            raise InvalidInput(f"{where}: the time is before that of the request above; sort the trace by TIMESTAMP.")
    if not ticks:
        raise InvalidInput(f"{source} holds no requests.")
    arrival_s = np.array([(tick - ticks[0]) * TICK_S for tick in ticks], np.float64)
    return Trace(arrival_s, np.array(prompts, np.int64), np.array(outputs, np.int64), source)


def _ticks(text: str, where: str) -> int:
    """A time in units of 100 ns, as finely as the trace gives it (datetime would cut the seventh digit)."""
    whole, _, fraction = text.strip().partition(".")
    try:
        since = datetime.fromisoformat(whole) - datetime(1970, 1, 1)
        return (since.days * 86_400 + since.seconds) * 10_000_000 + int(fraction[:7].ljust(7, "0"))
    except (ValueError, TypeError):  # TypeError: a time with a zone
        raise InvalidInput(f"{where}: TIMESTAMP must be like 2023-11-16 18:17:03.9799600, not {text!r}.") from None


def _tokens(text: str, column: str, where: str) -> int:
    try:
        tokens = int(text)
    except ValueError:
        tokens = 0
    if not 1 <= tokens < 2**31:
        raise InvalidInput(f"{where}: {column} must be a whole number from 1 up, not {text!r}.")
    return tokens


def size_trace(
    trace: Trace, *, capacity_tok_s: float, window_s: float, context: int, load: float = DEFAULT_LOAD
) -> SizedTrace:
    """The trace rule: the trace's own order and relative gaps, at a load and lengths that the device can bear.

    `capacity_tok_s` is the engine's solo capacity in prompt tok/s, `context` the model's positions. Where the slice's
    longest request exceeds the context, every prompt and output is scaled by context / longest, rounded up, at least
    1, and the two together fit the context. Then as many requests are taken, from the first on, as offer
    load x capacity x window tokens (so the result lasts at most `window_s`; a single request may last longer than the
    whole window: it is taken all the same, and `duration_s` says so). A slice that is too short is played again from
    its first request, the mean gap between. Time is stretched so that the requests taken offer exactly load x capacity
    over `duration_s`, which ends where the next request would arrive. InvalidInput for figures that are not positive.
    """
    import numpy as np

    for name, value in (("capacity_tok_s", capacity_tok_s), ("window_s", window_s), ("load", load)):
        if not (math.isfinite(value) and value > 0):
            raise InvalidInput(f"{name} must be a finite number above 0, not {value}.")
    fitted, scale = fit_to_context(trace, context)
    prompt, output = fitted.prompt_tokens, fitted.output_tokens
    offered_tok_s = load * capacity_tok_s
    budget = offered_tok_s * window_s
    rounds, rest = divmod(budget * (1 + 1e-12), int(prompt.sum()))
    if rounds * len(trace) > MAX_REQUESTS:
        raise InvalidInput(f"the window would hold more than {MAX_REQUESTS:,} requests: shorten it or lower the load.")
    n = max(1, int(rounds) * len(trace) + int(np.searchsorted(np.cumsum(prompt), rest, side="right")))

    # Arrivals of the requests taken and of the one after them. The mean gap closes the round of a repeated slice.
    size = len(trace)
    index = np.arange(n + 1)
    span_s = float(trace.arrival_s[-1])
    round_s = span_s * size / (size - 1) if size > 1 else 1.0
    recorded_s = trace.arrival_s[index % size] + round_s * (index // size)
    prompt, output = prompt[index[:n] % size], output[index[:n] % size]
    duration_s = int(prompt.sum()) / offered_tok_s
    # All within one tick: there are no gaps to keep, they arrive at the start.
    stretch = duration_s / float(recorded_s[n]) if recorded_s[n] >= TICK_S else 1.0
    played = Trace(recorded_s[:n] * stretch, prompt, output, trace.source, **trace.taken(index[:n] % size))
    repeats = -(-n // size)
    info = TraceInfo(trace.source, size, n, repeats, stretch, scale, load, capacity_tok_s, duration_s)
    return SizedTrace(played, duration_s, info)


def fit_to_context(trace: Trace, context: int) -> tuple[Trace, float]:
    """The trace with lengths that fit the context, and the scale that made them fit (1.0: they did)."""
    import numpy as np

    if context < 2:
        raise InvalidInput(f"context must hold a prompt and an output token, so at least 2, not {context}.")
    longest = int((trace.prompt_tokens + trace.output_tokens).max())
    if longest <= context:
        return trace, 1.0
    # In whole numbers: no rounding but the one asked for.
    prompt = -(-trace.prompt_tokens * context // longest)
    output = -(-trace.output_tokens * context // longest)
    # Both rounded up may be one too many; the prompt gives it, or the output where the prompt is a single token.
    excess = prompt + output - context
    from_prompt = np.clip(excess, 0, prompt - 1)
    prompt, output = prompt - from_prompt, output - np.clip(excess - from_prompt, 0, None)
    return replace(trace, prompt_tokens=prompt, output_tokens=output), context / longest


def prompt_token_ids(seed: int, request: int, length: int, vocab: int) -> NDArray[np.int32]:
    """Synthetic token ids for one prompt: the same for the same arguments, on every machine and NumPy.

    Uniform over the vocabulary: SplitMix64 (Steele et al., OOPSLA 2014) at seed, request and position, mod `vocab`.
    """
    import numpy as np

    if not (0 < vocab < 2**31 and length >= 0 and request >= 0):
        raise InvalidInput("prompt_token_ids needs a vocabulary from 1 to 2^31 - 1, and length and request from 0 up.")
    start = _splitmix64(np.array([(seed + request * 0xD1B54A32D192ED03) % 2**64], np.uint64))
    mixed = _splitmix64(start + np.arange(length, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (mixed % np.uint64(vocab)).astype(np.int32)


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
