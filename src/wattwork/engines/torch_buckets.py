"""Sizes of decode steps: each step is padded to one of a few, so that a CUDA graph for each is all there need be."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wattwork.engines.base import Batch

BLOCK_SIZE = 16
SHORTEST = 256  # positions of the smallest bucket


def bucket_rows(n: int) -> int:
    """Sequences of the bucket for n: the next power of two."""
    return 1 << (n - 1).bit_length()


def bucket_columns(positions: int) -> int:
    """KV blocks of the bucket for so many positions: steps of a quarter of the power of two below, so that beyond
    1024 positions at most a fifth of what is read is padding, and there are few graphs."""
    step = max(SHORTEST, (1 << (positions.bit_length() - 1)) // 4)
    return -(-positions // step) * step // BLOCK_SIZE


def buckets(most_rows: int, most_positions: int) -> list[tuple[int, int]]:
    """All there are for so many sequences and positions, (rows, columns) each, the smallest first."""
    rows = {bucket_rows(n) for n in range(1, most_rows + 1)}
    columns = {bucket_columns(n) for n in (*range(1, most_positions, BLOCK_SIZE), most_positions)}
    return sorted(itertools.product(rows, columns), key=math.prod)


class Bucket:
    """A decode step's static inputs, one memory for all: tokens, positions and slots [rows], table [rows, columns]."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns = rows, columns
        self.host = torch.zeros(rows * (3 + columns), dtype=torch.int32, pin_memory=device.type == "cuda")
        self.inputs = torch.zeros_like(self.host, device=device)
        self.graph: Any = None
        self.ids = self.logits = torch.empty(0)

    def fill(self, batch: Batch) -> None:
        """Take the batch; a row that it does not have repeats the first, and so writes what that writes."""
        n, host = len(batch.tokens), self.host.numpy()
        rows, table = host[: 3 * self.rows].reshape(3, -1), host[3 * self.rows :].reshape(self.rows, -1)
        width = min(self.columns, batch.block_table.shape[1])
        rows[:, :n] = batch.tokens, batch.ctx_len, batch.slot_map
        table[:n, :width] = np.maximum(batch.block_table[:, :width], 0)
        table[:n, width:] = 0
        rows[:, n:], table[n:] = rows[:, :1], table[:1]
        self.inputs.copy_(self.host, non_blocking=True)

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens, positions, slots and table, i64 on the device."""
        inputs = self.inputs.long()
        tokens, positions, slots = inputs[: 3 * self.rows].view(3, -1)
        return tokens, positions, slots, inputs[3 * self.rows :].view(self.rows, -1)
