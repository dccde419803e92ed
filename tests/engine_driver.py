"""What the engine tests share: small models, and a driver that keeps sequences in an engine's KV blocks."""

from pathlib import Path

import numpy as np

from wattwork.engines import Batch, ModelConfig, Out

GOLDEN = Path(__file__).parent / "golden" / "golden.npz"
BLOCK = 16
# Untied head, grouped KV, and sizes that are no multiple of a panel (32) but for head_dim.
SMALL = ModelConfig("small", 2, 72, 4, 2, 16, 100, 211, 256, 1e4, tied=False)
# One KV head for all of many query heads, wide heads, tied.
WIDE = ModelConfig("wide", 2, 64, 7, 1, 48, 96, 130, 256, 1e5, norm_eps=1e-6)


class Driver:
    """Sequences by number; each gets blocks from a shuffled free list as it grows."""

    def __init__(self, engine, config, blocks=64, seed=0):
        self.engine, self.config = engine, config
        per_block = 2 * config.layers * config.kv_heads * config.head_dim * BLOCK * 4
        got = engine.alloc_kv(blocks * (per_block + 8 * BLOCK))
        assert got >= blocks
        self.free = np.random.default_rng(seed).permutation(blocks).tolist()
        self.tokens, self.blocks = {}, {}

    def batch(self, feeds, want=None, sampling=None):
        """The batch that appends feeds[s] to each sequence s, and its out."""
        columns, rows, slots = 1, [], []
        for s, new in feeds.items():
            known, mine = self.tokens.setdefault(s, []), self.blocks.setdefault(s, [])
            while len(mine) * BLOCK < len(known) + len(new):
                mine.append(self.free.pop())
            slots += [mine[p // BLOCK] * BLOCK + p % BLOCK for p in range(len(known), len(known) + len(new))]
            columns = max(columns, len(mine))
        rows = [self.blocks[s] + [-1] * (columns - len(self.blocks[s])) for s in feeds]
        n = len(feeds)
        batch = Batch(
            np.array([t for new in feeds.values() for t in new], np.int32),
            np.cumsum([0, *(len(new) for new in feeds.values())], dtype=np.int32),
            np.array([len(self.tokens[s]) for s in feeds], np.int32),
            np.array(rows, np.int32),
            np.array(slots, np.int32),
            np.ones(n, np.uint8) if want is None else np.array(want, np.uint8),
            sampling,
        )
        return batch, Out(np.full(n, -7, np.int32), np.zeros((n, self.config.vocab), np.float32))

    def step(self, feeds, want=None, sampling=None):
        """Append feeds[s] to each sequence s; the next tokens and logits by sequence."""
        batch, out = self.batch(feeds, want, sampling)
        self.engine.step(batch, out)
        self.engine.sync()
        for s, new in feeds.items():
            self.tokens[s] += [int(t) for t in new]
        return {s: (int(out.next_token[i]), out.logits[i]) for i, s in enumerate(feeds)}

    def generate(self, prompt, n, s=0):
        """Greedy: n tokens after the prompt, and the logits each came from, [n, V]."""
        feed, tokens, logits = list(prompt), [], []
        for _ in range(n):
            token, row = self.step({s: feed})[s]
            tokens.append(token)
            logits.append(row)
            feed = [token]
        return tokens, np.array(logits)


def loaded(engine, config, seed=0):
    engine.load(config, f"dummy:{seed}")
    return engine


def prompts(config, lengths, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, config.vocab, n).tolist() for n in lengths]
