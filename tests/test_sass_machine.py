"""The compiled GPU kernels, run by the machine of tests/sass, against hashlib; and the machine against arithmetic.

WATTWORK_CUDA_BIN names the folder with nvcc and nvdisasm.
"""

import ctypes
import importlib.util
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from headers import sha256d
from sass import Fault, Instruction, Machine, Memory
from sass.machine import Block
from sass.opcodes import decode
from sass.operands import ALL
from seeds import FRESH_SEED

from wattwork.data import MAINNET_HEIGHTS, mainnet_header

ROOT = Path(__file__).resolve().parents[1]
TOOLS = os.environ.get("WATTWORK_CUDA_BIN")
spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench" / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)
tools = pytest.mark.skipif(not TOOLS, reason="WATTWORK_CUDA_BIN names no folder with nvcc and nvdisasm")
M32, M64 = (1 << 32) - 1, (1 << 64) - 1
EDGES = np.array([0, 1, 2, 7, 31, 32, (1 << 31) - 1, 1 << 31, M32 - 1, M32], np.uint32)


def built(folder, source, *options):
    cubin = folder / "k.cubin"
    command = [Path(TOOLS, "nvcc"), "-arch=sm_90", "-cubin", *options, "-I", ROOT / "kernels", "-o", cubin, source]
    subprocess.run(command, check=True)
    return lambda name: Machine(cubin, name, Path(TOOLS, "nvdisasm"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return built(tmp_path_factory.mktemp("sample"), ROOT / "tests" / "sass" / "sample.cu")


@pytest.fixture(scope="module", params=gpu.VARIANTS.values(), ids=gpu.VARIANTS)
def scan(request, tmp_path_factory):
    return built(tmp_path_factory.mktemp("scan"), ROOT / "kernels" / "sha256d.cu", *request.param)("scan_plain")


def numbers(rng, count, bits=32):
    """Random ones of random length, with edges among them."""
    words = (
        rng.integers(0, 1 << 64, count, dtype=np.uint64) >> rng.integers(64 - bits, 65, count).astype(np.uint64) % 64
    )
    edges = rng.choice(EDGES, count).astype(np.uint64)
    return np.where(rng.random(count) < 0.3, edges, words & np.uint64((1 << bits) - 1)).astype(f"u{bits // 8}")


def pointers(memory, *arrays):
    return [ctypes.c_uint64(memory.place(array)) for array in arrays]


# The search kernels


def candidates(machine, header, target, first, count, **launch):
    """What scan_plain finds in one block of 64 threads."""
    memory, found = Memory(), np.zeros(1 + count, np.uint32)
    words = [ctypes.c_uint32(n) for n in (first, count, 1, count)]
    machine.launch(1, 64, [gpu.Row.of(header, target), *words, *pointers(memory, found)], memory, **launch)
    return sorted(found[1 : 1 + found[0]].tolist())


def expected(header, target, first, count):
    def top(nonce):
        return int.from_bytes(sha256d(header[:76] + nonce.to_bytes(4, "little"))[28:], "little")

    return [nonce for nonce in range(first, first + count) if top(nonce) <= target >> 224]


@tools
@pytest.mark.parametrize("height", MAINNET_HEIGHTS)
def test_the_scan_finds_what_hashlib_finds_around_a_true_nonce(scan, height):
    header = mainnet_header(height)
    nonce = int.from_bytes(header[76:], "little")
    for target in (0xFFFF << 208, 1 << 254):
        assert candidates(scan, header, target, nonce - 40, 96) == expected(header, target, nonce - 40, 96)
    assert candidates(scan, header, 0xFFFF << 208, nonce - 40, 96) == [nonce]


@tools
def test_one_changed_bit_in_an_immediate_is_seen(scan):
    rng = random.Random(FRESH_SEED)
    header, target = rng.randbytes(80), 1 << 255
    right = expected(header, target, 1000, 64)
    assert candidates(scan, header, target, 1000, 64) == right
    places = [k for k, i in enumerate(scan.kernel.code) if i.opcode in ("SHF", "LOP3", "IADD3") and immediates(i)]
    for index in rng.sample(places, 12):
        instruction = scan.kernel.code[index]
        wrong = flipped(instruction, rng)
        try:
            found = candidates(scan.edited(index, wrong), header, target, 1000, 64, limit=20_000)
        except Fault:
            continue
        assert found != right, f"{index}: {instruction} and {wrong}"


def immediates(instruction):
    return [k for k, text in enumerate(instruction.operands) if text.startswith("0x")]


def flipped(instruction, rng):
    """With one bit of an immediate changed: of a shift's distance, a truth table, a number."""
    place = rng.choice(immediates(instruction))
    bits = {"SHF": 5, "LOP3": 8}.get(instruction.opcode, 32)
    number = int(instruction.operands[place], 0) ^ 1 << rng.randrange(bits)
    operands = [*instruction.operands[:place], hex(number), *instruction.operands[place + 1 :]]
    return instruction._replace(operands=tuple(operands))


# What the sample's kernels compute, said again


def signed(v, bits=32):
    return v - (1 << bits) if v >> (bits - 1) else v


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


@tools
@pytest.mark.parametrize("seed", [1, 2, FRESH_SEED])
def test_operations_on_integers(sample, seed):
    rng, count = np.random.default_rng(seed), 96
    words, wide = [numbers(rng, count) for _ in "abc"], numbers(rng, (2, count), 64)
    wide[1, ::5] = wide[0, ::5]
    right = np.array([[v & M64 for v in operations(*map(int, row))] for row in zip(*words, *wide, strict=True)]).T
    out, memory = np.zeros(right.shape, np.uint64), Memory()
    sample("operations").launch(3, 32, pointers(memory, *words, wide, out), memory, seed=seed)
    assert np.flatnonzero((out != right).any(axis=1)).tolist() == []


@tools
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


@tools
def test_lanes_that_part_meet_again(sample):
    rng = np.random.default_rng(FRESH_SEED)
    x = rng.integers(0, 200, 96, dtype=np.uint32)
    memory, out = Memory(), np.zeros(96, np.uint32)
    sample("diverge").launch(3, 32, [*pointers(memory, x, out), ctypes.c_uint32(60)], memory)
    ended = [collatz(int(v), 60) if v else (0, False) for v in x]
    ones = np.array([one for _, one in ended]).reshape(3, 32).sum(axis=1)
    right = [steps + (int(ones[k // 32]) << 16) if x[k] else 0 for k, (steps, _) in enumerate(ended)]
    assert out.tolist() == right


@tools
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


# Single instructions, where what they do can be said without them


def execute(text, active=ALL, **registers):
    """A warp after one instruction. Registers by name: arrays of 32, or a mask for a predicate."""
    warp = Block(None, (0, 0, 0), (32, 1, 1), 0).warps[0]
    for name, value in registers.items():
        if name[0] == "P":
            warp.predicates.write(int(name[1:]), ALL, value)
        else:
            warp.vector.write(int(name[1:]), ALL, np.asarray(value, np.uint32))
    decode(Instruction.of(text))(warp, active)
    return warp
