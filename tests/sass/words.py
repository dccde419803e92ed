"""Numbers for the machine's tests."""

import numpy as np

EDGES = np.array([0, 1, 2, 7, 31, 32, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1], np.uint32)


def numbers(rng, count, bits=32):
    """Random ones of random length, with edges among them."""
    words = rng.integers(0, 1 << 64, count, dtype=np.uint64) >> rng.integers(64 - bits, 64, count, dtype=np.uint64)
    return np.where(rng.random(count) < 0.3, rng.choice(EDGES, count), words).astype(f"u{bits // 8}")


def signed(v, bits=32):
    return v - (1 << bits) if v >> (bits - 1) else v
