"""What a scheduler is told, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from wattwork.engines.base import Caps
from wattwork.errors import InvalidInput

# When the back works: where there are no requests; besides, on some threads all along; never, though it stays set.
BackMode = Literal["gap", "corun", "off"]
BACK_MODES: tuple[BackMode, ...] = ("gap", "corun", "off")


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Bounds of the batching scheduler. InvalidInput names the field that cannot be."""

    max_num_seqs: int = 64  # sequences running at once
    max_num_batched_tokens: int = 512  # tokens in one step; at least max_num_seqs
    max_num_queued_reqs: int = 4096  # requests waiting
    max_num_queued_tokens: int = 1 << 24  # tokens of the requests waiting
    block_size: int = 16  # tokens a KV block holds
    num_blocks: int = 1024  # KV blocks, as the engine's alloc_kv() answers
    max_model_len: int = 2048  # tokens of one request, prompt and output together
    max_queue_delay_us: int = 0  # how long, with nothing running, requests may wait for more to share their batch
    max_overtakes: int = 1024  # later arrivals that a waiting request lets pass, at most
    enable_prefix_sharing: bool = False  # requests that begin alike hold the same KV blocks, while those are held

    def __post_init__(self) -> None:
        if not isinstance(self.enable_prefix_sharing, bool):
            raise InvalidInput(f"enable_prefix_sharing is {self.enable_prefix_sharing!r}; give True or False.")
        for field in fields(self)[:-1]:
            value, least = getattr(self, field.name), 0 if field.name == "max_queue_delay_us" else 1
            if not isinstance(value, int) or not least <= value < 2**31:
                raise InvalidInput(f"{field.name} is {value!r}; give a whole number from {least} to 2^31 - 1.")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InvalidInput(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; "
                f"make it at least max_num_seqs ({self.max_num_seqs}), one token for each running sequence."
            )
        if self.num_blocks * self.block_size >= 2**31:
            raise InvalidInput("num_blocks * block_size is 2^31 or more; make num_blocks smaller.")

    def check_fits(self, caps: Caps) -> None:
        """InvalidInput if an engine of these `caps` cannot do what this config may ask of it."""
        bounds = {
            "max_num_seqs": caps.max_seqs,
            "max_num_batched_tokens": caps.max_tokens,
            "max_model_len": caps.max_len,
        }
        for name, bound in bounds.items():
            if getattr(self, name) > bound:
                raise InvalidInput(f"{name} is {getattr(self, name)}, but the engine takes {bound}; lower it.")
        if self.block_size != caps.block_size:
            raise InvalidInput(f"block_size is {self.block_size}, but the engine's is {caps.block_size}; use that.")


# An engine takes these as f32: what became zero or infinite there would fail the whole batch.
F32_LEAST, F32_MOST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an output token is chosen. The defaults are greedy; InvalidInput names a field out of its range."""

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]; 1: off
    repetition_penalty: float = 1.0  # above 0; 1: off
    top_k: int = 0  # 0: off
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "temperature": (0 <= self.temperature <= F32_MOST, "0 or more, and finite"),
            "top_p": (F32_LEAST <= self.top_p <= 1, "above 0 and at most 1"),
            "repetition_penalty": (F32_LEAST <= self.repetition_penalty <= F32_MOST, "above 0, and finite"),
            "top_k": (0 <= self.top_k < 2**31, "0 or more"),
            "seed": (0 <= self.seed < 2**64, "from 0 to 2^64 - 1"),
        }
        for name, (good, rule) in checks.items():
            if not good:
                raise InvalidInput(f"{name} is {getattr(self, name)!r}; it must be {rule}.")


@dataclass(frozen=True, slots=True)
class Stats:
    """A scheduler's counters since it was made, and its state now."""

    finished: int
    cancelled: int
    timed_out: int
    rejected: int
    failed: int
    num_requests_running: int
    num_requests_waiting: int
    num_queued_tokens: int  # of the requests waiting
    steps: int
    prompt_tokens: int  # each once, however often it was recomputed
    prefix_shared_tokens: int  # of prompts, and to be recomputed: taken from others' blocks instead
    output_tokens: int
    num_preemptions: int
    kv_blocks_used: int
    deadline_misses: int  # requests that finished, timed out or failed after their deadline
    releases: dict[str, int]  # steps, by why each went when it did
    step_cost_s: tuple[float, float, float]  # what a step takes: of itself, for each token, for each sequence
    decision_hash: int  # 64 bits over every decision: equal for equal logs
    back_mode: BackMode
    back_share: float  # of its time that the back may use, as `throttle` set it
    front_share: float  # of its time that the engine may use, as `throttle` set it
    back_busy_ns: int  # time in which the back has worked, on however many threads
    back_error: str  # what the back raised, and so was dropped; empty: nothing
    yields: int  # times the back gave way to a request or a command
    yield_times_ns: tuple[int, ...]  # flag stored to back returned, the latest 1024, oldest first
