"""A Llama-style decoder in PyTorch: its weights, and one pass over the tokens of a step.

T tokens in a step, L positions of a sequence. The KV cache of a layer is [slots, 2, kv_heads, head_dim], keys at 0 and
values at 1; slot = block * 16 + offset.

Matrices that multiply the same vector are one (q, k and v; gate and up): at batch 1 the time of a step is the bytes of
the weights and the number of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wattwork.engines.base import ModelConfig
from wattwork.engines.weights import dummy_seed, each_tensor, tensors

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
_PIECE = 1 << 20  # Philox counters at a time, four elements each
_LOW = 0xFFFFFFFF
# Of a mask, in elements: what a chunk of prompt attends to is cut into pieces of it.
_MASK = 1 << 26

# Attention of all tokens of a step in one layer: their rotated queries [T, heads, head_dim] and the layer's cache to
# [T, heads * head_dim].
Attend = Callable[[Tensor, Tensor], Tensor]


def philox4x32(seed: int, low: Tensor, high: int) -> Tensor:
    """The four words of each counter, [len(low), 4] i64 from 0 to 2^32 - 1: `wattwork.engines.philox` in torch.

    `low` is i64 and below 2^32. Products wrap at 2^64, as two's complement does, and the shift's sign is masked away.
    """
    k0, k1 = seed & _LOW, seed >> 32
    c0, c1 = low, torch.zeros_like(low)
    c2, c3 = torch.full_like(low, high), torch.zeros_like(low)
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW
        c2, c3 = ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return torch.stack([c0, c1, c2, c3], dim=-1)


def fill_dummy(into: Tensor, seed: int, index: int) -> None:
    """Fill the contiguous matrix with the dummy values of the tensor with that index, made where it lies."""
    bound = float(np.float32(math.sqrt(3 / into.shape[1])))
    flat = into.view(-1)
    for first in range(0, len(flat), 4 * _PIECE):
        part = flat[first : first + 4 * _PIECE]
        counters = torch.arange(first // 4, first // 4 + -(-len(part) // 4), device=into.device)
        words = philox4x32(seed, counters, index).view(-1)[: len(part)]
        part.copy_(((words >> 8) - (1 << 23)).to(torch.float32) * 2.0**-23 * bound)


class TorchModel:
    """The weights on a device, and the pass."""

    def __init__(self, config: ModelConfig, weights: str, dtype: torch.dtype, device: torch.device) -> None:
        """InvalidInput where the weights are not what they must be (`wattwork.engines.weights`)."""
        self.config = c = config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.embedding, self.norm = empty(c.vocab, c.hidden), empty(c.hidden)
        self.head = self.embedding if c.tied else empty(c.vocab, c.hidden)
        self.layers = [
            {
                "qkv": empty(q + 2 * kv, c.hidden),
                "o": empty(c.hidden, q),
                "gate_up": empty(2 * c.ffn, c.hidden),
                "down": empty(c.hidden, c.ffn),
                "input_norm": empty(c.hidden),
                "ffn_norm": empty(c.hidden),
            }
            for _ in range(c.layers)
        ]
        self.frequencies = torch.tensor(c.rope_frequencies, dtype=torch.float32, device=device)
        self._load(weights)

    def tensors(self) -> list[Tensor]:
        """Where each tensor of `weights.tensors(config)` lies, in its order."""
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        places = [self.embedding]
        for layer in self.layers:
            places += layer["qkv"].split([q, kv, kv])
            places.append(layer["o"])
            places += layer["gate_up"].split(c.ffn)
            places += [layer["down"], layer["input_norm"], layer["ffn_norm"]]
        return [*places, self.norm] + ([] if c.tied else [self.head])

    def _load(self, weights: str) -> None:
        places, seed = self.tensors(), dummy_seed(weights)
        if seed is None:
            each_tensor(self.config, weights, lambda i, values: places[i].copy_(torch.from_numpy(values.copy())))
            return
        for index, (place, listed) in enumerate(zip(places, tensors(self.config), strict=True)):
            assert tuple(place.shape) == listed.shape
            if place.ndim == 1:
                place.fill_(1)
            else:
                fill_dummy(place, seed, index)

    def hidden(self, kv: list[Tensor], tokens: Tensor, positions: Tensor, slots: Tensor, attend: Attend) -> Tensor:
        """The residual stream after the last layer, [T, hidden]; writes keys and values to `slots`.

        tokens, positions and slots: [T] i64.
        """
        c = self.config
        cos, sin = self._angles(positions)
        x = functional.embedding(tokens, self.embedding)
        for layer, cache in zip(self.layers, kv, strict=True):
            h = functional.rms_norm(x, (c.hidden,), layer["input_norm"], c.norm_eps)
            qkv = functional.linear(h, layer["qkv"]).view(len(x), -1, c.head_dim)
            rotated = _rope(qkv[:, : c.heads + c.kv_heads], cos, sin)
            new = torch.cat([rotated[:, c.heads :], qkv[:, c.heads + c.kv_heads :]], dim=1)
            cache.index_copy_(0, slots, new.view(len(x), 2, c.kv_heads, c.head_dim))
            x.addmm_(attend(rotated[:, : c.heads], cache), layer["o"].t())
            h = functional.rms_norm(x, (c.hidden,), layer["ffn_norm"], c.norm_eps)
            gate, up = functional.linear(h, layer["gate_up"]).chunk(2, dim=-1)
            x.addmm_(functional.silu(gate) * up, layer["down"].t())
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, hidden] to [R, V] f32."""
        normed = functional.rms_norm(hidden, (self.config.hidden,), self.norm, self.config.norm_eps)
        return functional.linear(normed, self.head).float()

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines, and sines with the sign of the half they go to, [T, 1, head_dim] f32."""
        angles = positions.float()[:, None, None] * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def _rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2), in f32; to roll by half a head is to swap the halves."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cos, swapped, sin).to(x.dtype)


def slots_of(table: Tensor, block: int, total: Tensor) -> Tensor:
    """Slots of positions 0 to columns * block - 1, [B, L] i64; table: [B, columns] i64.

    From `total` [B] on it is that of position 0: what others left in the cache may be no number, which times a weight
    of zero would be none either.
    """
    at = torch.arange(table.shape[1] * block, device=table.device)
    slots = (table[:, :, None] * block + at[:block]).view(len(table), -1)
    return torch.where(at < total[:, None], slots, slots[:, :1])


def bias_of(length: int, total: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of one token of each row: 0 below `total` [B], -inf from there on; [B, 1, 1, L]."""
    at = torch.arange(length, device=total.device)
    # Not torch.where: its scalar is copied to the device, which no graph may capture.
    bias = torch.zeros(len(total), length, dtype=dtype, device=total.device)
    return bias.masked_fill_(at >= total[:, None], -math.inf)[:, None, None]


def attend_rows(q: Tensor, cache: Tensor, slots: Tensor, bias: Tensor) -> Tensor:
    """One token of each of B sequences over its positions: q [B, heads, d], slots [B, L] to [B, heads * d].

    The query heads that share a KV head are rows of one product, so that nothing is repeated for them.
    """
    rows, length = slots.shape
    _, _, kv_heads, d = cache.shape
    read = cache.index_select(0, slots.view(-1)).view(rows, length, 2, kv_heads, d)
    k, v = (read[:, :, i].transpose(1, 2) for i in (0, 1))
    grouped = q.reshape(rows, kv_heads, -1, d)
    mask = bias.expand(rows, kv_heads, grouped.shape[2], length)
    return functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(rows, -1)


def attend_chunk(q: Tensor, cache: Tensor, slots: Tensor, first: int) -> Tensor:
    """n new tokens of one sequence, at positions `first` on: q [n, heads, d], slots [L] to [n, heads * d]."""
    _, _, kv_heads, d = cache.shape
    read = cache.index_select(0, slots)
    k, v = (read[:, i].transpose(0, 1)[None] for i in (0, 1))
    group, length = q.shape[1] // kv_heads, len(slots)
    at = torch.arange(length, device=q.device)
    done = []
    for start, part in _pieces(q, max(1, _MASK // (group * length))):
        n = len(part)
        grouped = part.reshape(n, kv_heads, group, d).permute(1, 2, 0, 3).reshape(1, kv_heads, group * n, d)
        seen = at <= first + start + torch.arange(n, device=q.device)[:, None]
        out = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=seen.repeat(group, 1))
        done.append(out.view(kv_heads, group, n, d).permute(2, 0, 1, 3).reshape(n, -1))
    return torch.cat(done)


def _pieces(q: Tensor, n: int) -> list[tuple[int, Tensor]]:
    return [(start, q[start : start + n]) for start in range(0, len(q), n)]
