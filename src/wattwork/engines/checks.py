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
    _check_sequences(config, block, n_blocks, batch)
    _need(len(np.unique(batch.slot_map)) == t, "two tokens of the step go to the same slot.")


def _check_sequences(config: ModelConfig, block: int, n_blocks: int, batch: Batch) -> None:
    """All sequences at once; of the first that is wrong, what is wrong first is said."""
    table, context = batch.block_table, batch.ctx_len.astype(np.int64)
    lengths, columns = np.diff(batch.q_start), np.arange(table.shape[1])
    total = context + lengths
    used = -(-total // block)
    checks = [
        (
            (context >= 0) & (total <= config.context),
            f"ctx_len plus its tokens must be within the model's context of {config.context}.",
        ),
        (
            _samplings_good(batch),
            "sampling needs temperature >= 0, 0 < top_p <= 1, top_k >= 0 and repetition_penalty > 0.",
        ),
        (used <= len(columns), "block_table has too few columns for its positions."),
        (
            (((table >= 0) & (table < n_blocks)) | (columns >= used[:, None])).all(axis=1),
            f"block_table must hold block ids below {n_blocks}.",
        ),
        (
            _slots_right(batch, block),
            f"slot_map must be block * {block} + offset of the token's position in block_table.",
        ),
    ]
    wrong = ~np.stack([np.broadcast_to(right, len(context)) for right, _ in checks])
    if wrong.any():
        i = int(wrong.any(axis=0).argmax())
        raise InvalidInput(f"sequence {i}: {checks[int(wrong[:, i].argmax())][1]}")


def _samplings_good(batch: Batch) -> NDArray[np.bool] | np.bool:
    """[B], or one for all."""
    s = batch.sampling
    if s is None:
        return np.True_
    temperature, penalty = s["temperature"], s["repetition_penalty"]
    top_p_good = (s["top_p"] > 0) & (s["top_p"] <= 1)
    good: NDArray[np.bool] = (temperature >= 0) & (temperature < np.inf) & (penalty > 0) & (penalty < np.inf)
    return good & top_p_good & (s["top_k"] >= 0)


def _slots_right(batch: Batch, block: int) -> NDArray[np.bool] | np.bool:
    """[B], or one for all: whether the sequence's tokens go where its table says. Columns it has not count as its last:
    that they are missing is said before."""
    table, lengths = batch.block_table, np.diff(batch.q_start)
    if table.shape[1] == 0:
        return np.False_
    rows = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(len(rows)) + (batch.ctx_len - batch.q_start[:-1])[rows]
    column, offset = np.divmod(positions, block)
    slots = table[rows, column.clip(0, table.shape[1] - 1)].astype(np.int64) * block + offset
    right: NDArray[np.bool] = np.logical_and.reduceat(batch.slot_map == slots, batch.q_start[:-1])
    return right
