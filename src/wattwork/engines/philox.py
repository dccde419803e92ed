"""Philox4x32-10 in NumPy, the readable twin of `csrc/decoder/philox.h`.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MUL0, _MUL1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = 0x9E3779B9, 0xBB67AE85
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(seed: int, low: NDArray[np.uint64], high: int) -> NDArray[np.uint32]:
    """The four words of each counter, [len(low), 4] u32.

    Key words: seed mod 2^32, seed / 2^32. Counter words: low mod 2^32, low / 2^32, high mod 2^32, high / 2^32.
    """
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    c0, c1 = low & _LOW, low >> _32
    c2, c3 = np.full_like(low, high & 0xFFFFFFFF), np.full_like(low, high >> 32)
    for _ in range(10):
        p0, p1 = _MUL0 * c0, _MUL1 * c2  # 32 x 32 bits: never more than 64
        c0, c1 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _WEYL0) & 0xFFFFFFFF, (k1 + _WEYL1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)
