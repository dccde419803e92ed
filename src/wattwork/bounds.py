"""What suits a kind of device: how hashing and inference share it, and how much of both it takes at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from wattwork.errors import InvalidInput
from wattwork.scheduler.config import BackMode, SchedulerConfig

if TYPE_CHECKING:
    from wattwork.engines import StepEngine
    from wattwork.engines.base import GpuEngine

# Memory of a CPU for keys and values: room for most batches, and no more than a quarter of the machine's.
KV_BUDGET_BYTES = 1 << 30
# Share of a GPU's free memory, the weights in it, for keys and values; the rest is for what a step works in.
GPU_KV_SHARE = 0.6
# A decode step gathers one layer's keys and values of all its rows, as long as the longest: once in the graphs' pool
# and once outside it, each time with a copy that the attention's product may make.
GATHERS = 4


@dataclass(frozen=True, slots=True)
class Suited:
    """How a kind of device is driven."""

    max_num_seqs: int
    max_num_batched_tokens: int
    back_mode: BackMode  # how the back hashes, in the modes in which it does
    threads: int | None  # of the scheduler; None: those that the device was given


_SUITED = {
    # Past 32 sequences a core gains little, and a chunk of 512 prompt tokens keeps the other sequences' next token some
    # tenths of a second away at most. Both kinds of work need the cores: one or the other.
    "cpu": Suited(32, 512, "gap", None),
    # Both kinds of work are enqueued, and the inference stream itself sends the hashing away: one thread steps the
    # engine, one watches over the launches of the search.
    "cuda": Suited(256, 2048, "corun", 2),
}


def suited(device: str) -> Suited:
    """What suits the device of that name, "cpu" or "cuda:0"."""
    return _SUITED[device.partition(":")[0]]


def gpu_engine(engine: StepEngine) -> GpuEngine:
    """The same engine. InvalidInput where hashing on its GPU could not give way to it."""
    missing = [name for name in ("front", "free_bytes", "warm_up") if not hasattr(engine, name)]
    if missing:
        raise InvalidInput(
            f"the engine on {engine.caps.device!r} has no {missing[0]!r}; make it a wattwork.engines.GpuEngine."
        )
    return cast("GpuEngine", engine)


def scheduler_config(engine: StepEngine) -> SchedulerConfig:
    """Bounds that suit the engine's device, with as many KV blocks as its memory allows, which are allocated here."""
    caps, what = engine.caps, suited(engine.caps.device)
    seqs = min(what.max_num_seqs, caps.max_seqs)
    if caps.device.startswith("cuda"):
        blocks, longest = _gpu_memory(gpu_engine(engine), seqs)
    else:
        blocks, longest = engine.alloc_kv(min(KV_BUDGET_BYTES, _memory_bytes() // 4)), caps.max_len
    return SchedulerConfig(
        max_num_seqs=seqs,
        max_num_batched_tokens=min(what.max_num_batched_tokens, caps.max_tokens),
        block_size=caps.block_size,
        num_blocks=blocks,
        max_model_len=min(longest, caps.max_len),
    )


def _gpu_memory(engine: GpuEngine, seqs: int) -> tuple[int, int]:
    """KV blocks, allocated, and the longest sequence whose like `seqs` of may be gathered in what is left."""
    engine.suspend()  # a KV cache that it has counts as free: a new one takes its place
    free_bytes = engine.free_bytes()
    budget_bytes = int(GPU_KV_SHARE * free_bytes)
    blocks, block_size = engine.alloc_kv(budget_bytes), engine.caps.block_size
    layer_bytes = budget_bytes / (blocks * block_size * engine.config.layers)  # of one position
    return blocks, max(block_size, int((free_bytes - budget_bytes) / (GATHERS * seqs * layer_bytes)))


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
