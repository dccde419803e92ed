"""A model's tensors: their list, and where their values come from.

The list has the names and the order of Hugging Face's Llama state dict; a tensor's index is its position there.

Dummy weights, "dummy:<seed>" (seed an integer in [0, 2^64)): norms are ones; element e (row-major) of the matrix
with index t and shape [rows, fan_in] is word e mod 4 of Philox4x32-10 with

    key     = (seed mod 2^32, seed / 2^32)
    counter = (e/4 mod 2^32, e/4 / 2^32, t, 0)        (/ rounds down)

made a float by its top 24 bits: ((word >> 8) - 2^23) * 2^-23 * bound in f32, where bound = f32(sqrt(3 / fan_in)).
All but the product with `bound` is exact, so every device has the same bits. The values are uniform in
[-bound, bound): each matrix keeps the variance of what it multiplies. A smaller range makes a model that repeats
two tokens, hence tests nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattwork.engines import safetensors
from wattwork.engines.base import ModelConfig
from wattwork.engines.philox import philox4x32
from wattwork.errors import InvalidInput

Array = NDArray[np.float32]
_PIECE = 1 << 16  # elements made at a time: what stays in the cache


class Tensor(NamedTuple):
    """One entry of the list: a matrix [rows, fan_in], or a norm's [hidden]."""

    name: str
    shape: tuple[int, ...]


def tensors(config: ModelConfig) -> list[Tensor]:
    """The tensors of the model, in order; a tied head is not listed."""
    hidden, q, kv = config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim
    listed = [Tensor("model.embed_tokens.weight", (config.vocab, hidden))]
    for i in range(config.layers):
        for name, shape in (
            ("self_attn.q_proj", (q, hidden)),
            ("self_attn.k_proj", (kv, hidden)),
            ("self_attn.v_proj", (kv, hidden)),
            ("self_attn.o_proj", (hidden, q)),
            ("mlp.gate_proj", (config.ffn, hidden)),
            ("mlp.up_proj", (config.ffn, hidden)),
            ("mlp.down_proj", (hidden, config.ffn)),
            ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
        ):
            listed.append(Tensor(f"model.layers.{i}.{name}.weight", shape))
    listed.append(Tensor("model.norm.weight", (hidden,)))
    if not config.tied:
        listed.append(Tensor("lm_head.weight", (config.vocab, hidden)))
    return listed


def dummy_seed(weights: str) -> int | None:
    """The seed of "dummy:<seed>"; None where `weights` is something else."""
    kind, _, seed = os.fspath(weights).partition(":")
    if kind != "dummy":
        return None
    if not (seed.isdecimal() and seed.isascii() and int(seed) < 2**64):
        raise InvalidInput(f"weights {weights!r}: give a seed from 0 to 2^64 - 1, as in 'dummy:0'")
    return int(seed)


def dummy_elements(seed: int, tensor: int, first: int, n: int, fan_in: int) -> Array:
    """Elements [first, first + n) of the dummy matrix with that index, [n] f32."""
    bound = np.float32(math.sqrt(3 / fan_in))
    out = np.empty(n, np.float32)
    for start in range(0, n, _PIECE):
        a, b = first + start, first + min(start + _PIECE, n)
        words = philox4x32(seed, np.arange(a // 4, (b + 3) // 4, dtype=np.uint64), tensor).reshape(-1)
        words = words[a % 4 : a % 4 + b - a]
        centred = (words >> np.uint32(8)).astype(np.int32) - np.int32(1 << 23)
        out[start : start + b - a] = centred.astype(np.float32) * np.float32(2.0**-23) * bound
    return out


def dummy_tensor(config: ModelConfig, seed: int, index: int) -> Array:
    """The dummy tensor with that index, f32."""
    shape = tensors(config)[index].shape
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return dummy_elements(seed, index, 0, math.prod(shape), shape[1]).reshape(shape)


def each_tensor(config: ModelConfig, weights: str, take: Callable[[int, Array], None]) -> None:
    """Call take(index, values) for each tensor of the list, values C-contiguous f32.

    `weights` is "dummy:<seed>", or a folder that holds model.safetensors, or several safetensors files with their
    model.safetensors.index.json. InvalidInput says what is missing or of the wrong shape.
    """
    seed = dummy_seed(weights)
    if seed is not None:
        for index in range(len(tensors(config))):
            take(index, dummy_tensor(config, seed, index))
        return
    _each_stored(config, Path(weights), take)


def _each_stored(config: ModelConfig, folder: Path, take: Callable[[int, Array], None]) -> None:
    needed = {tensor.name: (index, tensor.shape) for index, tensor in enumerate(tensors(config))}
    for path in _files(folder):
        for name, values in safetensors.arrays(path):
            if name not in needed:  # a tied head stored all the same, say
                continue
            index, shape = needed.pop(name)
            if values.shape != shape:
                raise InvalidInput(
                    f"{path}: {name} has shape {list(values.shape)} but model {config.name!r} needs {list(shape)}; "
                    "load the weights of that model."
                )
            take(index, values)
    if needed:
        raise InvalidInput(f"{folder} has no tensor {min(needed)}; model {config.name!r} needs it.")


def _files(folder: Path) -> list[Path]:
    """The folder's safetensors files."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InvalidInput(f"weights {str(folder)!r}: give 'dummy:<seed>' or a folder that holds model.safetensors")
    try:
        paths = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{index} has no readable weight_map; download the file again") from error
    for path in paths:
        if not path.is_file():
            raise InvalidInput(f"{path} is missing although {index.name} names it; download the model again")
    return paths
