"""What a batch must be, in Python: the twin of `csrc/decoder/validate.cpp` for the NumPy engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattwork.engines.base import SAMPLING, Batch, Caps, ModelConfig, Out
from wattwork.errors import InvalidInput


def _need(holds: bool | np.bool, sentence: str) -> None:
    if not holds:
        raise InvalidInput(sentence)


def check_cpu_load(config: ModelConfig, dtype: str) -> None:
    """Whether the CPU engines can run it; InvalidInput says what to change."""
    _need(dtype == "f32", f"the CPU engines compute in f32, not {dtype!r}; load with dtype='f32'.")
    _need(
        config.rope_scaling is None,
        f"the CPU engines have no scaled rotary positions, as {config.name!r} needs; give device='cuda:0'.",
    )


def check_types(batch: Batch, out: Out) -> None:
    """Dtypes and memory order of every array of the step; InvalidInput names the one that is wrong."""
    arrays: list[tuple[str, NDArray[np.generic], str]] = [
        ("tokens", batch.tokens, "int32"),
        ("q_start", batch.q_start, "int32"),
        ("ctx_len", batch.ctx_len, "int32"),
        ("block_table", batch.block_table, "int32"),
        ("slot_map", batch.slot_map, "int32"),
        ("want_logits", batch.want_logits, "uint8"),
        ("out.next_token", out.next_token, "int32"),
    ]
    if out.logits is not None:
        arrays.append(("out.logits", out.logits, "float32"))
    for name, array, dtype in arrays:
        _need(
            isinstance(array, np.ndarray) and array.dtype == np.dtype(dtype) and array.flags.c_contiguous,
            f"{name} must be a C-contiguous NumPy array of {dtype}.",
        )
    s = batch.sampling
    _need(
        s is None or (isinstance(s, np.ndarray) and s.dtype == np.dtype(SAMPLING)),
        "sampling must be of shape [B] and of the dtype SAMPLING.",
    )


def check_batch(config: ModelConfig, caps: Caps, n_blocks: int, batch: Batch, out: Out) -> None:
    """Shapes and values of the step; InvalidInput says what to change."""
    b, t, block = len(batch.ctx_len), len(batch.tokens), caps.block_size
    _need(n_blocks > 0, "there is no KV cache: call alloc_kv() or resume() first.")
    _need(batch.tokens.shape == batch.slot_map.shape == (t,), "tokens and slot_map must be of shape [T].")
    _need(batch.q_start.shape == (b + 1,), "q_start must be of shape [B + 1].")
    _need(batch.ctx_len.shape == batch.want_logits.shape == (b,), "ctx_len and want_logits must be of shape [B].")
    table = batch.block_table
    _need(table.ndim == 2 and len(table) == b, "block_table must be of shape [B, n].")
    _need(out.next_token.shape == (b,), "out.next_token must be of shape [B] and writeable.")
    _need(
        batch.sampling is None or batch.sampling.shape == (b,),
        "sampling must be of shape [B] and of the dtype SAMPLING.",
    )
    _need(
        out.logits is None or out.logits.shape == (b, config.vocab), "out.logits must be of shape [B, V] and writeable."
    )
    _need(1 <= b <= caps.max_seqs, f"a step takes 1 to {caps.max_seqs} sequences, not {b}.")
    _need(1 <= t <= caps.max_tokens, f"a step takes 1 to {caps.max_tokens} tokens, not {t}.")
    q = batch.q_start
    _need(q[0] == 0 and q[-1] == t, "q_start must begin with 0 and end with the number of tokens.")
    _need((np.diff(q) > 0).all(), "q_start must grow by at least one token a sequence.")
    _need(
        ((batch.tokens >= 0) & (batch.tokens < config.vocab)).all(),
        f"token ids must be below the vocabulary's {config.vocab}.",
    )
    for i in range(b):
        _check_sequence(config, block, n_blocks, batch, i)
    _need(len(np.unique(batch.slot_map)) == t, "two tokens of the step go to the same slot.")


def _check_sequence(config: ModelConfig, block: int, n_blocks: int, batch: Batch, i: int) -> None:
    first, stop, context = int(batch.q_start[i]), int(batch.q_start[i + 1]), int(batch.ctx_len[i])
    total, row, at = context + stop - first, batch.block_table[i], f"sequence {i}: "
    _need(
        context >= 0 and total <= config.context,
        f"{at}ctx_len plus its tokens must be within the model's context of {config.context}.",
    )
    if batch.sampling is not None:
        s = batch.sampling[i]
        _need(
            0 <= s["temperature"] < np.inf
            and 0 < s["top_p"] <= 1
            and s["top_k"] >= 0
            and 0 < s["repetition_penalty"] < np.inf,
            f"{at}sampling needs temperature >= 0, 0 < top_p <= 1, top_k >= 0 and repetition_penalty > 0.",
        )
    used = -(-total // block)
    _need(used <= len(row), f"{at}block_table has too few columns for its positions.")
    _need(((row[:used] >= 0) & (row[:used] < n_blocks)).all(), f"{at}block_table must hold block ids below {n_blocks}.")
    positions = np.arange(context, total)
    _need(
        (batch.slot_map[first:stop] == row[positions // block] * block + positions % block).all(),
        f"{at}slot_map must be block * {block} + offset of the token's position in block_table.",
    )
