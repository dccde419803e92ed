"""What an inference engine is: the shapes that cross between a scheduler and an engine.

Notation: B sequences in a step, T tokens in all, V vocabulary size. The native form of the same thing is
`ww_engine` in `wattwork.h`, over the same arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wattwork.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How Llama 3.1 and later stretch rotary positions beyond the context they were first trained on.

    The rule is that of transformers' `rope_type: llama3` (`_compute_llama3_parameters`): wavelengths longer than
    original_context / low_freq_factor are stretched by `factor`, those shorter than original_context /
    high_freq_factor are left alone, and between them the frequency goes over from the one to the other.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def scaled(self, frequency: float) -> float:
        """The frequency in radians per position, stretched."""
        turns = self.original_context * frequency / (2 * math.pi)  # original_context / wavelength
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = min(1.0, max(0.0, kept))
        return (1 - kept) * frequency / self.factor + kept * frequency


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int  # positions, prompt and output together
    rope_theta: float
    tied: bool = True  # the output head is the embedding
    norm_eps: float = 1e-5
    rope_scaling: RopeScaling | None = None

    @property
    def parameters(self) -> int:
        """Number of weights, the embedding counted once if tied."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def rope_frequencies(self) -> list[float]:
        """Radians per position of each of a head's head_dim / 2 rotating pairs."""
        plain = [self.rope_theta ** (-i / self.head_dim) for i in range(0, self.head_dim, 2)]
        return plain if self.rope_scaling is None else [self.rope_scaling.scaled(f) for f in plain]


# The Llamas' shapes are those of config.json in meta-llama/Llama-3.2-1B and meta-llama/Llama-3.1-8B on Hugging Face.
PRESETS = {
    config.name: config
    for config in (
        ModelConfig("tiny-15m", 6, 288, 6, 6, 48, 768, 32000, 2048, 1e4),
        ModelConfig("smol-135m", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5),
        ModelConfig(
            "llama-3.2-1b",
            16,
            2048,
            32,
            8,
            64,
            8192,
            128256,
            131072,
            5e5,
            rope_scaling=RopeScaling(32, 1, 4, 8192),
        ),
        ModelConfig(
            "llama-3.1-8b",
            32,
            4096,
            32,
            8,
            128,
            14336,
            128256,
            131072,
            5e5,
            False,
            rope_scaling=RopeScaling(8, 1, 4, 8192),
        ),
    )
}
# What the CPU engines can run.
CPU_MODELS = tuple(name for name, config in PRESETS.items() if config.rope_scaling is None)


def preset(name: str) -> ModelConfig:
    """The preset of that name; InvalidInput names those there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidInput(f"there is no model {name!r}; choose one of {', '.join(PRESETS)}.") from None


@dataclass(frozen=True, slots=True)
class Caps:
    """What an engine can take in one step."""

    max_seqs: int
    max_tokens: int
    max_len: int
    block_size: int
    batch_invariant: bool  # the same tokens, bit by bit, under any batching and chunking
    dtype: str
    device: str


@dataclass(slots=True)
class Batch:
    """One step. Sequence b's tokens are `tokens[q_start[b]:q_start[b + 1]]`; they follow `ctx_len[b]` cached ones."""

    tokens: NDArray[np.int32]  # [T]
    q_start: NDArray[np.int32]  # [B + 1]
    ctx_len: NDArray[np.int32]  # [B] tokens in the KV cache before the step
    block_table: NDArray[np.int32]  # [B, n] block ids in the order of positions; unused columns are -1
    slot_map: NDArray[np.int32]  # [T] block * block_size + offset, where the token's key and value go
    want_logits: NDArray[np.uint8]  # [B] 1: a next token is wanted of this sequence
    sampling: NDArray[np.void] | None = None  # [B] of SAMPLING, or None: greedy


# The dtype of Batch.sampling: `ww_sampling`, field by field. temperature 0 is greedy, top_k 0, top_p 1 and
# repetition_penalty 1 are off.
SAMPLING = [
    ("temperature", "f4"),
    ("top_p", "f4"),
    ("repetition_penalty", "f4"),
    ("top_k", "i4"),
    ("seed", "u8"),
]


@dataclass(slots=True)
class Out:
    """What a step answers: arrays the caller made, valid after `sync()`."""

    next_token: NDArray[np.int32]  # [B]; -1 where none was wanted
    logits: NDArray[np.float32] | None = None  # [B, V], only rows that were wanted are written


class StepEngine(Protocol):
    """An engine that does what one batch says and decides nothing. A scheduler of ours decides."""

    caps: Caps
    config: ModelConfig  # of the weights; from load() on

    def load(self, config: ModelConfig, weights: str, dtype: str = "f32") -> None:
        """Take the weights: "dummy:<seed>", or a folder with safetensors files."""

    def alloc_kv(self, budget_bytes: int) -> int:
        """Make a KV cache within the budget; the number of blocks it holds."""

    def step(self, batch: Batch, out: Out) -> None:
        """Do one step; may return before it is done."""

    def sync(self) -> None:
        """Wait for the last step."""

    def suspend(self) -> None:
        """Drop the KV cache, keep the weights."""

    def resume(self) -> None:
        """Make the KV cache again, empty."""

    def close(self) -> None:
        """Give everything back."""


class Front(Protocol):
    """What keeps hashing away from a GPU's inference: a `wattwork.Job` on that GPU. Any thread may call it."""

    def front_begin(self, stream: int) -> None:
        """Enqueue in that CUDA stream (a CUstream as a number): hashing, leave."""

    def front_end(self, stream: int) -> None:
        """Enqueue there: hashing may come back."""


class GpuEngine(StepEngine, Protocol):
    """A StepEngine on a GPU that also hashes."""

    front: Front | None  # told before a step's first kernel is enqueued, and after its last; None: nobody is to know

    def free_bytes(self) -> int:
        """Memory of the GPU that nobody holds, in bytes."""

    def warm_up(self, max_num_seqs: int, max_num_batched_tokens: int, max_model_len: int) -> None:
        """Meet every kind of step within these bounds of a scheduler, so that none is slow when it first matters. The
        KV cache, which is there, may hold anything afterwards."""
