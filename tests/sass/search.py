"""A search as kernels/search.h has it, for the machine: what a launch is given, and what it says was tested."""

import ctypes
import struct

import numpy as np

from sass.memory import Memory
from wattwork._search_numpy import INIT, ROUND

M32 = (1 << 32) - 1
FLAG_WORDS = 16 * 32


class Scan(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint64),
        ("budget", ctypes.c_uint64),
        ("recall", ctypes.c_uint64),
        ("first", ctypes.c_uint32),
        ("chunk", ctypes.c_uint32),
        ("versions", ctypes.c_uint32),
        ("tail", ctypes.c_uint32 * 3),
        ("target_top", ctypes.c_uint32),
        ("capacity", ctypes.c_uint32),
        ("one", ctypes.c_uint32),
        ("sms", ctypes.c_uint32),
    )


def rounds(state, words, count):
    """The first rounds of a compression (FIPS 180-4, 6.2.2)."""

    def rotr(x, n):
        return (x >> n | x << (32 - n)) & M32

    w, (a, b, c, d, e, f, g, h) = list(words), state
    for i in range(count):
        if i >= 16:
            s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3
            s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10
            w.append((w[i - 16] + s0 + w[i - 7] + s1) & M32)
        t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) + int(ROUND[i]) + w[i]
        t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        a, b, c, d, e, f, g, h = (t1 + t2) & M32, a, b, c, (d + t1) & M32, e, f, g
    return [a, b, c, d, e, f, g, h]


def lane_of(header):
    """`Lane` of a header's version: its midstate, and the second block after round 2."""
    init = [int(x) for x in INIT]
    full = rounds(init, struct.unpack(">16I", header[:64]), 64)
    midstate = [(x + y) & M32 for x, y in zip(init, full, strict=True)]
    return midstate + rounds(midstate, struct.unpack(">3I", header[64:76]), 3)


class Search:
    """A rectangle on `blocks` x `threads`, launched as often as wanted.

    rolled: by search_rolled, the first `versions` of the work; otherwise by search_plain, its own version alone.
    """

    def __init__(
        self, machine, work, first, count, *, blocks, threads, chunk, versions=1, capacity=1 << 12, rolled=False
    ):
        self.machine, self.work, self.first, self.count, self.versions = machine, work, first, count, versions
        self.shape, self.chunk, self.rolled, self.capacity = (blocks, threads), chunk, rolled, capacity
        self.lanes = np.array([lane_of(self._header(k, 0)) for k in range(versions)], np.uint32)
        self.account = np.zeros(2, np.uint64)  # next, found
        self.slots = np.zeros(blocks if rolled else blocks * threads // 32, np.uint64)
        self.flags, self.hits = np.zeros(FLAG_WORDS, np.uint32), np.zeros(capacity, np.uint64)
        self.recall, self.memory = np.zeros(1, np.uint32), Memory()
        arrays = (self.lanes, self.account, self.slots, self.flags, self.hits)
        self._pointers = [ctypes.c_uint64(self.memory.place(array)) for array in arrays]
        self._recall_at = self.memory.place(self.recall)

    def _header(self, number, nonce):
        return self.work.header_with(nonce=nonce, version=self.work.version_at(number))

    def launch(self, *, budget=0, sms=M32, **options):
        """One launch of the kernel, on the SMs below `sms`; `options` are Machine.launch's."""
        tail = struct.unpack(">3I", self._header(0, 0)[64:76])
        top = self.work.target >> 224
        where = (self.count, budget, self._recall_at, self.first, self.chunk, self.versions)
        scan = Scan(*where, tail, top, self.capacity, 1, sms)
        return self.machine.launch(*self.shape, [scan, *self._pointers], self.memory, **options)

    @property
    def chunks(self):
        if not self.rolled:
            return -(-self.count // (32 * self.chunk))
        return self._spans * -(-self.versions // self.shape[1])

    @property
    def _spans(self):
        return -(-self.count // self.chunk)

    def _pairs(self, chunk, done):
        """What the first `done` iterations of a chunk test."""
        if not self.rolled:
            begin = chunk * self.chunk * 32
            return [(0, self.first + k) for k in range(begin, min(begin + 32 * done, self.count))]
        group, span = divmod(chunk, self._spans)
        versions = range(group * self.shape[1], min((group + 1) * self.shape[1], self.versions))
        nonces = range(span * self.chunk, min(span * self.chunk + done, self.count))
        return [(v, self.first + k) for k in nonces for v in versions]

    def tested(self):
        """(version number, nonce) of each tested pair, by account and slots as the header's comment reads them."""
        done = dict.fromkeys(range(min(int(self.account[0]), self.chunks)), self.chunk)
        done.update(((slot >> 32) - 1, slot & M32) for slot in self.slots.tolist() if slot)
        return [pair for chunk, iterations in done.items() for pair in self._pairs(chunk, iterations)]

    def found(self):
        """(version number, nonce) of each hit that there was room for, sorted."""
        hits = self.hits[: min(int(self.account[1]), self.capacity)].tolist()
        return sorted((hit >> 32, hit & M32) for hit in hits)

    def finished(self):
        return int(self.account[0]) >= self.chunks and not self.slots.any()
