"""Runs a kernel: warps of 32 lanes, each lane with an address of its own; of a warp, those at the smallest go first."""

import copy
import random
from collections import Counter

import numpy as np

from sass import access, arithmetic, control, logic, transfer  # noqa: F401  (they enter their opcodes)
from sass.cubin import STEP
from sass.fault import Fault
from sass.memory import Memory
from sass.opcodes import decode
from sass.operands import ALL, LANES, U32, Predicates, Registers, predicate

# Constant bank 0 below the parameters, as ptxas uses it for sm_90.
BLOCK_AND_GRID, STACK, DESCRIPTOR = 0x0, 0x28, 0x208
SHARED_BASE = 0x400  # the first KiB of shared memory is the system's


class Machine:
    """One kernel, each of its instructions decoded once."""

    def __init__(self, kernel):
        self.kernel = kernel
        self._code = [_ready(i) for i in kernel.code]

    def edited(self, index, instruction):
        """Another machine, whose instruction number `index` is that one."""
        other = copy.copy(self)
        other.kernel = self.kernel._replace(code=_with(self.kernel.code, index, instruction))
        other._code = _with(self._code, index, _ready(instruction))
        return other

    def launch(self, grid, block, params, memory, *, shared=0, seed=0, at=None, limit=10**7, on=lambda block: block):
        """Runs to the end; how often each instruction was issued, by its index in `kernel.code`.

        grid, block: blocks and threads, one number or up to three.
        params: for each parameter an object whose buffer holds its bytes (ctypes, NumPy, bytes).
        memory: what the addresses among them mean. shared: bytes of dynamic shared memory.
        seed: of the order in which warps take their turns.
        at: {clock: function}, called as soon as so many instructions were issued; `clock` counts them.
        limit: a Fault beyond so many.
        on: the SM of each block, by its number in the grid.
        """
        shape = [(n,) if isinstance(n, int) else tuple(n) for n in (grid, block)]
        grid, block = (dims + (1,) * (3 - len(dims)) for dims in shape)
        self.memory, self.clock, self.counts, self.limit = memory, 0, [0] * len(self._code), limit
        self._banks, self._words = self._constants(grid, block, params), {}
        self._at = sorted((at or {}).items(), key=lambda item: item[0], reverse=True)
        size = max(self.kernel.shared, SHARED_BASE) + shared
        numbers = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
        blocks = [Block(self, number, block, size, on(k)) for k, number in enumerate(numbers)]
        warps = [warp for one in blocks for warp in one.warps]
        order = random.Random(seed)
        while warps := [warp for warp in warps if warp.alive]:
            ready = [warp for warp in warps if warp.at]
            if not ready:
                raise Fault(f"{self.kernel.name} waits for ever: {[warp.waiting for warp in warps]}")
            warp = order.choice(ready)
            for _ in range(1 << order.randrange(13)):  # some turns are long, so that warps get far from one another
                if not warp.at:
                    break
                self._step(warp)
        return Counter({k: n for k, n in enumerate(self.counts) if n})

    def _step(self, warp):
        while self._at and self._at[-1][0] <= self.clock:
            self._at.pop()[1]()
        if self.clock >= self.limit:
            raise Fault(f"{self.kernel.name} still runs after {self.limit} instructions")
        pc = warp.pc = min(warp.at)
        lanes, index = warp.at.pop(pc), pc // STEP
        if index >= len(self._code) or pc % STEP:
            raise Fault(f"{self.kernel.name} goes on at {pc:#x}, where no instruction is")
        self.clock += 1
        self.counts[index] += 1
        guard, (run, acts) = self._code[index]
        warp.unsure, goes, fault = 0, None, None
        try:
            active = lanes & guard(warp, lanes)
            if warp.unsure:
                raise Fault("whether it runs is undefined")
            if active:
                goes = run(warp, active)
        except (Fault, ValueError) as error:
            fault = error
        if acts and warp.unsure:
            fault = Fault("it acts on a register that was never written")
        if fault:
            raise Fault(f"{self.kernel.name} at {pc:#x}, `{self.kernel.code[index]}`: {fault}") from fault
        if goes is None:
            warp.go(pc + STEP, lanes)
            return
        if lanes != active:
            warp.go(pc + STEP, lanes & ~active)
        for address, some in goes.items():
            warp.go(address, some)

    def _constants(self, grid, block, params):
        kernel, banks = self.kernel, {}
        for number, data in kernel.constants.items():
            banks[number] = Memory()
            banks[number].place(np.frombuffer(data, np.uint8), 0)
        bank = banks[0] = Memory()
        bank.place(np.array([*block, *grid], U32), BLOCK_AND_GRID)
        bank.place(np.array([0xFFFDC0], U32), STACK)
        bank.place(np.zeros(1, np.uint64), DESCRIPTOR)
        given = [memoryview(p).tobytes() for p in params]
        if [len(p) for p in given] != [size for _, size in kernel.params]:
            raise Fault(f"{kernel.name} takes parameters of {[s for _, s in kernel.params]} bytes")
        for (offset, _), data in zip(kernel.params, given, strict=True):
            bank.place(np.frombuffer(data, np.uint8), kernel.param_base + offset)
        return banks

    def constant(self, bank, offset):
        """The word there, as one lane."""
        if (bank, offset) not in self._words:
            if bank not in self._banks:
                raise Fault(f"there is no constant bank {bank}")
            self._words[bank, offset] = np.array([self._banks[bank].load(offset, 4)], U32)
        return self._words[bank, offset]


def _ready(instruction):
    return predicate(instruction.guard or "PT"), decode(instruction)


def _with(items, index, item):
    return type(items)([*items[:index], item, *items[index + 1 :]])


class Block:
    def __init__(self, machine, number, shape, shared, sm=0):
        self.sm = sm
        self.machine, self.number = machine, [np.array([n], U32) for n in number]
        self.shared = Memory()
        if shared > SHARED_BASE:
            self.shared.place(np.zeros(shared - SHARED_BASE, np.uint8), SHARED_BASE, written=False)
        threads = shape[0] * shape[1] * shape[2]
        self.warps = [Warp(self, first, min(LANES, threads - first), shape) for first in range(0, threads, LANES)]
        self.result, self._votes = 0, {}

    def vote(self, number, how, ayes, lanes):
        """Counted until the barrier falls."""
        _, before, all_before = self._votes.get(number, (how, 0, 0))
        self._votes[number] = how, before + ayes.bit_count(), all_before + lanes.bit_count()

    def settle(self):
        """Lets the lanes at a barrier on when every thread that is left has come."""
        for key in {key for warp in self.warps for key, _, _ in warp.waiting if key[0] == "BAR"}:
            if all(warp.alive & ~warp.waiting_at(key) == 0 for warp in self.warps):
                how, ayes, voters = self._votes.pop(key[1])
                self.result = {"OR": ayes > 0, "AND": ayes == voters, "POPC": ayes, None: 0}[how]
                for warp in self.warps:
                    warp.release(key, ALL)


class Warp:
    def __init__(self, block, first, threads, shape):
        self.block, self.machine = block, block.machine
        self.vector, self.predicates = Registers(256, LANES), Predicates()
        self.uniform, self.uniform_predicates = Registers(64, 1), Predicates()
        number = np.arange(first, first + LANES, dtype=U32)
        x, y, z = (U32(n) for n in shape)
        self.thread = number % x, number // x % y, number // (x * y) % z
        self.alive = (1 << threads) - 1
        self.at = {0: self.alive}  # address -> the lanes that go on there
        self.pc, self.unsure = 0, 0  # of the instruction that runs: address, lanes in which a source is undefined
        self.partners = [[0] * LANES for _ in range(16)]  # of each convergence barrier, each lane's
        self.waiting = []  # (for what, lanes, where they go on)

    def constant(self, bank, offset):
        return self.machine.constant(bank, offset)

    def go(self, address, lanes):
        self.at[address] = self.at.get(address, 0) | lanes

    def wait(self, key, lanes):
        self.waiting.append((key, lanes, self.pc + STEP))
        self.settle()

    def waiting_at(self, key):
        return sum(lanes for k, lanes, _ in self.waiting if k == key)

    def release(self, key, lanes):
        left = []
        for k, some, address in self.waiting:
            if k == key and some & lanes:
                self.go(address, some & lanes)
                some &= ~lanes
            if some:
                left.append((k, some, address))
        self.waiting = left

    def settle(self):
        """Lets on whose partners have all come or are gone."""
        for key in {key for key, _, _ in self.waiting}:
            kind, what = key
            here = self.waiting_at(key)
            if kind == "WARPSYNC" and what & self.alive & ~here == 0:
                self.release(key, here)
            elif kind == "BSYNC":
                partners = self.partners[what]
                met = [lane for lane in range(LANES) if here >> lane & 1 and partners[lane] & self.alive & ~here == 0]
                self.release(key, sum(1 << lane for lane in met))
        self.block.settle()
