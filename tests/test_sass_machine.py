"""The machine that runs compiled kernels, against arithmetic: kernels of its own, compiled; and what it refuses."""

import ctypes
import random
from pathlib import Path

import numpy as np
import pytest
from sass import Fault, Instruction, Kernel, Machine, Memory
from sass.toolchain import built, needs_tools
from sass.words import numbers, signed
from seeds import FRESH_SEED

M32, M64 = (1 << 32) - 1, (1 << 64) - 1


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return built(tmp_path_factory.mktemp("sample"), Path(__file__).parent / "sass" / "sample.cu")


def pointers(memory, *arrays):
    return [ctypes.c_uint64(memory.place(array)) for array in arrays]


def permuted(x, y, selector):
    both = y << 32 | x
    picked = [(both >> 8 * (n & 7) & 255, n >> 3) for n in (selector >> 4 * k & 15 for k in range(4))]
    return sum((255 * (byte >> 7) if sign else byte) << 8 * k for k, (byte, sign) in enumerate(picked))


def operations(x, y, z, p, q):
    """tests/sass/sample.cu, `operations`, in its order; modulo 2^32 or 2^64 as there."""
    sx, sy, sp, sq, both = signed(x), signed(y), signed(p, 64), signed(q, 64), y << 32 | x
    yield from ((x + y + z) & M32, p + q, p - q, x * y + p, sx * sy, ((x * y >> 32) + z) & M32, p * q >> 64, p * q)
    yield from ((x & y) ^ (~x & z), (x & y) | (z & (x | y)))
    for shift in (z & 31, min(z & 63, 32)):
        yield from ((both << shift >> 32) & M32, both >> shift & M32)
    yield from (
        p << (z & 63),
        p >> (z & 63),
        sp >> (z & 63),
        (x << (z & 31) | y >> (x & 31)) & M32,
        sy >> (z & 31) & M32,
    )
    yield from (permuted(x, y, z & 0x7777), permuted(x, y, z))
    yield x.bit_count() + 100 * (32 - y.bit_length()) + 10000 * (z & -z).bit_length()
    yield from (p.bit_count() + 100 * (64 - q.bit_length()), int(f"{x:032b}"[::-1], 2))
    yield from (x if p < q else y, x if sp < sq else y)
    yield (p <= q) + 2 * (p == q) + 4 * (x != y) + 8 * (sx < sy) + 16 * (x >= y)
    yield from (min(x, y), max(sx, sy) & M32, abs(sx), x // (y | 1), x % (z >> 20 | 1), p // (q >> 40 | 1))
    yield from ((x * 8 + y) & M32, (p << 3) + q, (p >> 29) - q, ((x < y) != (y < z)) & ((z < x) | (x == 7)))


@needs_tools
@pytest.mark.parametrize("seed", [1, 2, FRESH_SEED])
def test_operations_on_integers(sample, seed):
    rng, count = np.random.default_rng(seed), 96
    words, wide = [numbers(rng, count) for _ in "abc"], numbers(rng, (2, count), 64)
    wide[1, ::5] = wide[0, ::5]
    right = np.array([[v & M64 for v in operations(*map(int, row))] for row in zip(*words, *wide, strict=True)]).T
    out, memory = np.zeros(right.shape, np.uint64), Memory()
    sample("operations").launch(3, 32, pointers(memory, *words, wide, out), memory, seed=seed)
    assert np.flatnonzero((out != right).any(axis=1)).tolist() == []


@needs_tools
@pytest.mark.parametrize("threads", [32, 64, 128])
def test_exchange_within_warps_and_blocks(sample, threads):
    rng, count = np.random.default_rng(FRESH_SEED), 2 * threads
    x = numbers(rng, count)
    out, sums, ballots = np.zeros(count, np.uint32), np.zeros(count, np.uint32), np.zeros(count // 32, np.uint32)
    counters, memory = np.zeros(3 + count, np.uint64), Memory()
    arrays = pointers(memory, x, out, ballots, sums, counters)
    sample("exchange").launch(2, threads, arrays, memory, seed=FRESH_SEED)
    warps, lane = x.reshape(-1, 32), np.arange(32)
    down = warps[:, np.where(lane % 8 < 3, lane + 5, lane)]
    scan = np.cumsum(warps, axis=1, dtype=np.uint32) * np.uint32(3)
    assert (out.reshape(-1, 32) == warps[:, ::-1] ^ scan ^ warps[:, lane ^ 16] ^ down).all()
    odd = ((warps & 1) << lane).sum(axis=1)
    assert (ballots == odd + (warps > 5).all(axis=1) + (warps < 9).any(axis=1)).all()
    mixed = x ^ x >> 8 ^ x >> 16 ^ x >> 24
    used = mixed.reshape(2, threads)[:, :64].sum(axis=1, dtype=np.uint32)
    assert (sums.reshape(2, -1) == (used + (x.reshape(2, -1) == 12345).any(axis=1))[:, None]).all()
    fives = x[x % 5 == 0]
    assert counters[0] == sum(int(v) << 20 for v in x[x % 3 == 0]) % 2**64
    assert sorted(counters[2 : 2 + fives.size].tolist()) == sorted(fives.tolist())
    assert counters[1] == fives.size
    assert counters[2 + count] == max(int(v) << 9 for v in warps[:, lane % 7 == 3].flat)


@needs_tools
def test_atomics_on_shared_memory(sample):
    count, memory = 96, Memory()
    taken, won, left = (np.zeros(n, np.uint32) for n in (count, count, 4))
    sample("atomics").launch(1, count, pointers(memory, taken, won, left), memory, seed=FRESH_SEED)
    toggled = sum((len(range(bit, count, 31)) & 1) << bit for bit in range(31))
    assert (left[0], left[3]) == (sum(t * t for t in range(count)), toggled)
    assert sorted([*taken.tolist(), int(left[1])]) == list(range(count + 1))
    winner = np.flatnonzero(won == 0)
    assert winner.size == 1
    assert left[2] == winner[0] + 1


def collatz(x, bound):
    steps = 0
    while x != 1:
        x = 3 * x + 1 if x % 2 else x // 2
        steps += 1
        if steps == bound:
            break
        if x == 7:
            steps += 1000
    return steps, x == 1


@needs_tools
def test_lanes_that_part_meet_again(sample):
    rng = np.random.default_rng(FRESH_SEED)
    x = rng.integers(0, 200, 96, dtype=np.uint32)
    memory, out = Memory(), np.zeros(96, np.uint32)
    sample("diverge").launch(3, 32, [*pointers(memory, x, out), ctypes.c_uint32(60)], memory)
    ended = [collatz(int(v), 60) if v else (0, False) for v in x]
    ones = np.array([one for _, one in ended]).reshape(3, 32).sum(axis=1)
    right = [steps + (int(ones[k // 32]) << 16) if x[k] else 0 for k, (steps, _) in enumerate(ended)]
    assert out.tolist() == right


@needs_tools
@pytest.mark.parametrize("seed", range(6))
def test_persistent_units_stop_at_a_flag_or_a_budget_and_go_on(sample, seed):
    machine, rng = sample("persist"), random.Random(FRESH_SEED + seed)
    chunks, chunk, units = 11, 5, 6
    x = np.random.default_rng(seed).integers(0, 1 << 32, chunks * chunk * 32, dtype=np.uint32)
    account, slots, flags, out = np.zeros(2, np.uint64), np.zeros(units, np.uint64), np.zeros(128, np.uint32), x * 0
    memory, launches = Memory(), 0
    arrays = pointers(memory, x, account, slots, flags, out)
    while launches == 0 or slots.any() or account[0] < chunks:
        budget = rng.choice([0, 400, 3000])
        flags[:] = 0
        params = [arrays[0], ctypes.c_uint64(chunks), ctypes.c_uint32(chunk), ctypes.c_uint64(budget), *arrays[1:]]
        at = {rng.randrange(4000): lambda: flags.fill(1)} if rng.random() < 0.7 else {}
        machine.launch(2, 96, params, memory, seed=rng.random(), at=at)
        launches += 1
        done = out.reshape(chunks, chunk, 32)
        tested = [min(int(account[0]), chunks) > k for k in range(chunks)]
        iterations = [chunk if t else 0 for t in tested]
        for slot in slots[slots != 0].tolist():
            iterations[(slot >> 32) - 1] = slot & M32
        right = np.zeros_like(done)
        for k, n in enumerate(iterations):
            right[k, :n] = x.reshape(done.shape)[k, :n] * 5 + 1
        assert (done == right).all()
    assert launches > 0
    assert account[1] == chunks


# What is refused


def machine(*lines, params=(), shared=0):
    code = tuple(Instruction.of(line) for line in (*lines, "EXIT"))
    return Machine(Kernel("made_up", code, 0x210, tuple(params), shared, {}))


REFUSED = {
    "unknown opcode DADD": ["DADD R0, R0, R0"],
    "unknown modifier .SAT": ["IADD3.SAT R0, RZ, RZ, RZ"],
    "cannot decode": ["IADD3 R0, RZ, RZ"],
    "outside all buffers": ["LDG.E R0, desc[UR4][RZ.64]"],
    "no multiple of 4": ["MOV R2, 0x402", "STS [R2], RZ"],
    "nothing was written": ["MOV R2, 0x400", "LDS R3, [R2]"],
    "acts on a register that was never written": ["IADD3 R2, R7, 0x1, RZ", "STS [R2], RZ"],
    "whether it runs is undefined": ["ISETP.EQ.AND P0, PT, R9, RZ, PT", "@P0 MOV R1, RZ"],
    "constant|outside all buffers": ["LDC R1, c[0x0][0x210]"],
    "no constant bank 3": ["LDC R1, c[0x3][0x0]"],
    "lane 31 asks lane 0": [
        "S2R R0, SR_LANEID",
        "ISETP.EQ.AND P0, PT, R0, 0x1f, PT",
        "@P0 SHFL.IDX PT, R1, R0, RZ, 0x1f",
    ],
    "lanes differ": ["S2R R0, SR_LANEID", "R2UR UR4, R0"],
    "still runs after 1000": ["BRA 0x0"],
    "waits for ever": [
        "S2R R0, SR_LANEID",
        "ISETP.EQ.AND P0, PT, R0, RZ, PT",
        "@P0 BRA 0x50",
        "WARPSYNC.ALL",
        "NOP",
        "BAR.SYNC 0x0",
    ],
    "where no instruction is": ["BRA 0x1000"],
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_a_gpu_would_trap_on_or_leave_undefined_is_refused(sentence):
    with pytest.raises(Fault, match=sentence):
        machine(*REFUSED[sentence], shared=0x800).launch(1, 64, [], Memory(), limit=1000)


def test_parameters_of_another_size_are_refused():
    with pytest.raises(Fault, match=r"takes parameters of \[8\] bytes"):
        machine(params=[(0, 8)]).launch(1, 32, [ctypes.c_uint32(1)], Memory())


def test_an_undefined_register_that_makes_no_difference_is_none():
    lines = ["ISETP.EQ.AND P0, PT, R9, RZ, !PT", "@P0 BRA 0x1000"]
    assert machine(*lines).launch(1, 32, [], Memory()) == {0: 1, 1: 1, 2: 1}


def test_lanes_apart_meet_for_a_collective():
    """BRA.DIV sends lanes that come apart to where they wait for each other."""
    lines = [
        "S2R R0, SR_LANEID",
        "UMOV UR4, 0xffffffff",
        "MOV R13, 0xffffffff",
        "LDC.64 R4, c[0x0][0x210]",
        "ISETP.LT.AND P0, PT, R0, 0x9, PT",
        "@P0 BRA 0xd0",
        "BRA.DIV UR4, 0x90",  # 0x60
        "SHFL.IDX PT, R1, R0, 0x3, 0x1f",
        "BRA 0xe0",
        "WARPSYNC.COLLECTIVE R13, 0xc0",  # 0x90
        "SHFL.IDX PT, R1, R0, 0x1f, 0x1f",
        "ENDCOLLECTIVE",
        "BRA 0xe0",
        "BRA 0x60",  # 0xd0
        "IMAD.WIDE.U32 R4, R0, 0x4, R4",
        "STG.E desc[UR6][R4.64], R1",
    ]
    memory, out = Memory(), np.zeros(32, np.uint32)
    issued = machine(*lines, params=[(0, 8)]).launch(1, 32, pointers(memory, out), memory)
    assert out.tolist() == [31] * 32
    assert (issued[9], issued[10], issued[7]) == (2, 1, 0)
