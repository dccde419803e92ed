"""The next token from a row of logits, the readable twin of `csrc/decoder/sample.cpp`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattwork.engines.philox import philox4x32


def sample(logits: NDArray[np.float32], sampling: np.void | None, history: NDArray[np.int32]) -> int:
    """The id of the next token.

    logits: [V] f32; sampling: one entry of the dtype SAMPLING, or None for greedy; history: the ids of the sequence
    so far, i32. Greedy (temperature 0) takes the largest logit, of equals the lowest id. Otherwise, in double and in
    this order: repetition_penalty over the distinct ids of the history (positive logits are divided by it, others
    multiplied: Keskar et al., 2019, https://arxiv.org/abs/1909.05858); temperature; top_k; top_p (the shortest prefix
    in falling order that holds top_p of the whole: Holtzman et al., 2019, https://arxiv.org/abs/1904.09751). The kept
    tokens are walked in the order of ids until their cumulative probability exceeds the draw: 53 bits of Philox with
    key = seed and counter = (length of the history, 0). So a sequence's tokens depend on nothing but itself.
    """
    if sampling is None or sampling["temperature"] == 0 or not np.isfinite(logits).all():
        return int(np.argmax(logits))
    x = logits.astype(np.float64)
    if sampling["repetition_penalty"] != 1:
        penalty, ids = float(sampling["repetition_penalty"]), np.unique(history)
        x[ids] = np.where(x[ids] > 0, x[ids] / penalty, x[ids] * penalty)
    x /= float(sampling["temperature"])
    kept = _kept(x, int(sampling["top_k"]), float(sampling["top_p"]))
    cumulative = np.cumsum(np.exp(x[kept] - x[kept].max()))
    word = philox4x32(int(sampling["seed"]), np.array([len(history)], np.uint64), 0)[0]
    draw = (float(word[0] >> 5) * 2.0**26 + float(word[1] >> 6)) * 2.0**-53
    at = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
    return int(kept[min(at, len(kept) - 1)])


def _kept(x: NDArray[np.float64], top_k: int, top_p: float) -> NDArray[np.int64]:
    """The ids that top_k and top_p keep, ascending. Of equal logits the lower id goes first."""
    order = np.argsort(-x, kind="stable")
    if 0 < top_k < len(order):
        order = order[:top_k]
    if top_p < 1:
        cumulative = np.cumsum(np.exp(x[order] - x[order[0]]))
        order = order[: int(np.searchsorted(cumulative, top_p * cumulative[-1], side="left")) + 1]
    return np.sort(order)
