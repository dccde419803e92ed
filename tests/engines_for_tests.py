"""A tiny engine in Python: the next token is the sum of all tokens before it, modulo 97, kept per KV slot, so that a
wrong block table, context or chunk gives a wrong token."""

import threading
import time

import numpy as np

from wattwork.engines.base import Caps


def expected(prompt, n):
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(sum(tokens) % 97)
    return tokens[len(prompt) :]


class SumEngine:
    """`poison`: a step that sees this token raises. `gate`: cleared, steps wait for it."""

    def __init__(self, config, *, poison=-1, step_s=0.0):
        self.caps = Caps(
            config.max_num_seqs,
            config.max_num_batched_tokens,
            config.max_model_len,
            config.block_size,
            True,
            "i64",
            "cpu",
        )
        self.kv = np.full(config.num_blocks * config.block_size, -1, np.int64)
        self.poison, self.step_s = poison, step_s
        self.gate, self.stepping = threading.Event(), threading.Event()
        self.gate.set()
        self.seen = set()  # every token ever executed

    def step(self, batch, out):
        self.stepping.set()
        self.gate.wait(30)
        if self.step_s:
            time.sleep(self.step_s)
        if (batch.tokens == self.poison).any():
            raise ValueError("poisoned")
        self.seen.update(batch.tokens.tolist())
        self.kv[batch.slot_map] = batch.tokens
        size = self.caps.block_size
        for b, (start, stop) in enumerate(zip(batch.q_start, batch.q_start[1:], strict=False)):
            length = batch.ctx_len[b] + stop - start
            positions = np.arange(length)
            slots = batch.block_table[b][positions // size] * size + positions % size
            if batch.want_logits[b]:
                out.next_token[b] = self.kv[slots].sum() % 97

    def sync(self):
        pass
