"""Memory at made-up addresses: buffers, and gaps between them. To miss all, or to read before a write, is a fault."""

import numpy as np

from sass.fault import Fault

GAP = 1 << 12


class Memory:
    """Buffers by address. The arrays stay the caller's: he reads results there, and writes while a kernel runs."""

    def __init__(self, first=0x7F00_0000_0000):
        self._free = first
        self._buffers = []  # (address, its bytes, which of them were never written)

    def place(self, array, at=None, *, written=True):
        """Its address, from then on; `written=False`: its content is undefined, as shared memory's is at first."""
        if not array.flags.c_contiguous:
            raise ValueError("place a contiguous array: a copy would not show the results")
        data = array.reshape(-1).view(np.uint8)
        address = self._free if at is None else at
        self._buffers.append((address, data, None if written else np.ones(data.size, bool)))
        self._free = max(self._free, -(-(address + data.size) // GAP) * GAP + GAP)
        return address

    def _find(self, address, size, verb):
        if address % size:
            raise Fault(f"{verb} of {size} bytes at {address:#x}, which is no multiple of {size}")
        for start, data, unwritten in self._buffers:
            if start <= address and address + size <= start + data.size:
                return data, unwritten, slice(address - start, address - start + size)
        raise Fault(f"{verb} of {size} bytes at {address:#x}, outside all buffers")

    def load(self, address, size):
        """`size` bytes as one little-endian number."""
        data, unwritten, where = self._find(address, size, "read")
        if unwritten is not None and unwritten[where].any():
            raise Fault(f"read of {size} bytes at {address:#x}, where nothing was written")
        return int.from_bytes(data[where].tobytes(), "little")

    def store(self, address, size, value):
        data, unwritten, where = self._find(address, size, "write")
        data[where] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
        if unwritten is not None:
            unwritten[where] = False
