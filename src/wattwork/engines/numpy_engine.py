"""The reference: a Llama-style decoder in NumPy, f32, one readable line a formula.

It is also the engine where the native core is not installed. Matrices are multiplied for all T tokens of a step at
once; attention goes sequence by sequence over its paged KV cache. NumPy's products round differently for different
T, so tokens may differ between batchings where two logits are nearly equal: `caps.batch_invariant` is False.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from wattwork.engines.base import Batch, Caps, ModelConfig, Out
from wattwork.engines.checks import check_batch, check_cpu_load, check_types
from wattwork.engines.sampling import sample
from wattwork.engines.weights import Array, each_tensor, tensors
from wattwork.errors import InvalidInput

BLOCK_SIZE = 16


def rmsnorm(x: Array, weight: Array, eps: float) -> Array:
    """x / rms(x) * weight over the last axis (Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467)."""
    scale: Array = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))
    return x / scale * weight


def rope_angles(config: ModelConfig, positions: NDArray[np.int64]) -> tuple[Array, Array]:
    """Cosines and sines, each [T, 1, head_dim / 2]; frequencies and angles are rounded to f32, as transformers does."""
    exponent = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = (1.0 / config.rope_theta**exponent).astype(np.float32)
    angles = positions.astype(np.float32)[:, None, None] * frequencies
    return np.cos(angles.astype(np.float64)).astype(np.float32), np.sin(angles.astype(np.float64)).astype(np.float32)


def rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pairs (i, i + head_dim / 2) of each head; x is [T, heads, head_dim].

    Su et al., 2021, https://arxiv.org/abs/2104.09864, with the halves paired as Hugging Face's Llama does.
    """
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def silu(x: Array) -> Array:
    """x * sigmoid(x); tanh does not overflow where exp(-x) would."""
    half = np.float32(0.5)
    sigmoid: Array = half + half * np.tanh(half * x)
    return x * sigmoid


def attention(q: Array, k: Array, v: Array, first: int) -> Array:
    """Causal attention of n new queries, at positions `first` on, over all positions so far.

    q: [n, heads, d]; k and v: [positions, kv_heads, d]; returns [n, heads * d]. Query head h reads KV head
    h // (heads / kv_heads) (grouped-query attention: Ainslie et al., 2023, https://arxiv.org/abs/2305.13245).
    """
    n, heads, d = q.shape
    positions, kv_heads, _ = k.shape
    grouped = q.reshape(n, kv_heads, heads // kv_heads, d).transpose(1, 2, 0, 3)  # [kv, group, n, d]
    scores = grouped @ k.transpose(1, 2, 0)[:, None] / np.float32(np.sqrt(d))  # [kv, group, n, positions]
    scores[..., np.arange(positions) > first + np.arange(n)[:, None]] = -np.inf
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weighed = p @ v.transpose(1, 0, 2)[:, None] / p.sum(axis=-1, keepdims=True)
    return np.ascontiguousarray(weighed.transpose(2, 0, 1, 3)).reshape(n, heads * d)


class NumPyEngine:
    """A StepEngine in NumPy. Steps are synchronous; bad batches raise InvalidInput.

    `threads` bounds those of NumPy's BLAS while a step runs (None: as NumPy has it).
    """

    config: ModelConfig  # from load() on

    def __init__(self, threads: int | None = None) -> None:
        self._blas = ThreadpoolController()
        self._threads = threads
        self.caps = Caps(256, 8192, 0, BLOCK_SIZE, False, "f32", "cpu")
        self._weights: dict[str, Array] = {}
        self._blocks = 0
        self._kv: Array | None = None  # [layers, 2, slots, kv_heads, head_dim]

    def load(self, config: ModelConfig, weights: str, dtype: str = "f32") -> None:
        """Take the weights ("dummy:<seed>" or a folder); InvalidInput for any dtype but f32, or scaled positions."""
        check_cpu_load(config, dtype)
        if config.heads % config.kv_heads or config.head_dim % 2:
            raise InvalidInput("heads must be a multiple of kv_heads and head_dim even; change the ModelConfig.")
        names = [tensor.name for tensor in tensors(config)]
        self._weights = {}
        each_tensor(config, weights, lambda index, values: self._weights.__setitem__(names[index], values))
        self.config = config
        self.caps = Caps(256, 8192, config.context, BLOCK_SIZE, False, "f32", "cpu")
        self.suspend()

    def alloc_kv(self, budget_bytes: int) -> int:
        """Make a KV cache within the budget: its blocks of 16 positions. InvalidInput if it holds none."""
        c = self.config
        block_bytes = 2 * c.layers * c.kv_heads * c.head_dim * BLOCK_SIZE * 4 + BLOCK_SIZE * 4
        if budget_bytes < block_bytes:
            raise InvalidInput(f"a KV cache of {budget_bytes} bytes holds no block; give at least {block_bytes}.")
        self._blocks = budget_bytes // block_bytes
        self.resume()
        return self._blocks

    def step(self, batch: Batch, out: Out) -> None:
        """Do the step; `out` is valid on return."""
        if not self._weights:
            raise InvalidInput("the engine has no weights: call load() first.")
        check_types(batch, out)
        check_batch(self.config, self.caps, 0 if self._kv is None else self._blocks, batch, out)
        with self._blas.limit(limits=self._threads, user_api="blas"):
            self._compute(batch, out)

    def _compute(self, batch: Batch, out: Out) -> None:
        self._token[batch.slot_map] = batch.tokens
        hidden = self._layers(batch)
        out.next_token[:] = -1
        wanted = np.flatnonzero(batch.want_logits)
        if len(wanted) == 0:
            return
        w = self._weights
        last = rmsnorm(hidden[batch.q_start[wanted + 1] - 1], w["model.norm.weight"], self.config.norm_eps)
        logits = last @ w["model.embed_tokens.weight" if self.config.tied else "lm_head.weight"].T
        for row, b in zip(logits, wanted, strict=True):
            sampling = None if batch.sampling is None else batch.sampling[b]
            out.next_token[b] = sample(row, sampling, self._token[self._slots(batch, b)])
        if out.logits is not None:
            out.logits[wanted] = logits

    def _slots(self, batch: Batch, b: int | np.signedinteger[Any]) -> NDArray[np.int64]:
        """Where the sequence's positions lie in the cache, those of this step included."""
        total = int(batch.ctx_len[b] + batch.q_start[b + 1] - batch.q_start[b])
        table = batch.block_table[b, : -(-total // BLOCK_SIZE)].astype(np.int64)
        return (table[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)[:total]

    def _layers(self, batch: Batch) -> Array:
        """The residual stream of all tokens after the last layer, [T, hidden]."""
        c, w = self.config, self._weights
        lengths = np.diff(batch.q_start)
        positions = np.arange(len(batch.tokens)) + np.repeat(batch.ctx_len - batch.q_start[:-1], lengths)
        cos, sin = rope_angles(c, positions)
        slots = [self._slots(batch, b) for b in range(len(lengths))]
        x: Array = w["model.embed_tokens.weight"][batch.tokens]
        for i in range(c.layers):
            p = f"model.layers.{i}."
            h = rmsnorm(x, w[p + "input_layernorm.weight"], c.norm_eps)
            q, k, v = (
                (h @ w[f"{p}self_attn.{m}_proj.weight"].T).reshape(len(x), -1, c.head_dim) for m in ("q", "k", "v")
            )
            keys, values = self._store(i, rope(k, cos, sin), v, batch.slot_map)
            attended: Array = np.concatenate(
                [
                    attention(rotated, keys[at], values[at], int(context))
                    for rotated, at, context in zip(
                        np.split(rope(q, cos, sin), batch.q_start[1:-1]), slots, batch.ctx_len, strict=True
                    )
                ]
            )
            x += attended @ w[p + "self_attn.o_proj.weight"].T
            h = rmsnorm(x, w[p + "post_attention_layernorm.weight"], c.norm_eps)
            gate, up = h @ w[p + "mlp.gate_proj.weight"].T, h @ w[p + "mlp.up_proj.weight"].T
            x += (silu(gate) * up) @ w[p + "mlp.down_proj.weight"].T
        return x

    def _store(self, layer: int, k: Array, v: Array, slots: NDArray[np.int32]) -> Array:
        """Write new keys and values to their slots; the layer's whole cache [2, slots, kv_heads, head_dim]."""
        assert self._kv is not None
        cache: Array = self._kv[layer]
        cache[0, slots], cache[1, slots] = k, v
        return cache

    def sync(self) -> None:
        """Nothing to wait for."""

    def suspend(self) -> None:
        """Drop the KV cache, keep the weights."""
        self._kv = None

    def resume(self) -> None:
        """Make the KV cache again, empty."""
        c = self.config
        slots = self._blocks * BLOCK_SIZE
        self._kv = np.zeros((c.layers, 2, slots, c.kv_heads, c.head_dim), np.float32)
        self._token = np.zeros(slots, np.int32)

    def close(self) -> None:
        """Give everything back."""
        self._weights, self._kv = {}, None
