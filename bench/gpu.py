"""A GPU's first three minutes: pipe rates, the SHA-256d scan at 1 to 8 warps per scheduler, and exact hits.

    python bench/gpu.py --out DIR      needs an NVIDIA GPU, its driver, and nvcc; nothing else, and no network

Writes DIR/gpu.json after every step, so that what was measured is kept when it is cut off, and prints a short table.
The kernels are built from kernels/*.cu for the GPU that is there.
"""

import argparse
import ctypes
import hashlib
import json
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
VARIANTS = {"plain": (), "plain, adds on the FMA pipe": ("-DWW_FMA_ADDS",)}
PIPES = ("lop3", "shf", "iadd3", "imad", "imad_hi", "imad_wide", "lop3_imad")
OPS_PER_LOOP = 8 * 64  # CHAINS * ROUNDS in kernels/pipes.cu
CAPACITY = 1 << 16  # places for candidates

# FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
PRIMES = [p for p in range(2, 312) if all(p % q for q in range(2, int(p**0.5) + 1))]
K = [int(p ** (1 / 3) % 1 * 2**32) for p in PRIMES]
INIT = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)

# Mainnet block 0, and a target that one nonce in 2^16 meets.
GENESIS = bytes.fromhex(
    "01000000"
    + "00" * 32
    + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    + "29ab5f49ffff001d1dac2b7c"
)
EASY = 2**240


class Row(ctypes.Structure):
    """`struct Row` of kernels/sha256d.cu: what all nonces of a header share."""

    _fields_ = (
        ("midstate", ctypes.c_uint32 * 8),
        ("start", ctypes.c_uint32 * 8),
        ("tail", ctypes.c_uint32 * 3),
        ("target_top", ctypes.c_uint32),
    )

    @classmethod
    def of(cls, header: bytes, target: int) -> "Row":
        midstate = compress(INIT, struct.unpack(">16I", header[:64]))
        tail = struct.unpack(">3I", header[64:76])
        start = rounds(midstate, (*tail, *[0] * 13), 3)
        return cls((ctypes.c_uint32 * 8)(*midstate), (ctypes.c_uint32 * 8)(*start), tail, target >> 224)


def rotr(x: int, n: int) -> int:
    return (x >> n | x << (32 - n)) & 0xFFFFFFFF


def rounds(state: tuple[int, ...], words: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` rounds (FIPS 180-4, 6.2.2)."""
    w = list(words)
    for i in range(16, count):
        s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for i in range(count):
        big1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)
        t1 = h + big1 + ((e & f) ^ (~e & g)) + K[i] + w[i]
        t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        a, b, c, d, e, f, g, h = (t1 + t2) & 0xFFFFFFFF, a, b, c, (d + t1) & 0xFFFFFFFF, e, f, g
    return a, b, c, d, e, f, g, h


def compress(state: tuple[int, ...], words: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((s + r) & 0xFFFFFFFF for s, r in zip(state, rounds(state, words, 64), strict=True))


class Gpu:
    """The first GPU through the CUDA driver API, in its primary context."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise SystemExit("bench/gpu.py: no NVIDIA driver here (libcuda.so.1 does not load).") from None
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)
        name, driver = ctypes.create_string_buffer(256), ctypes.c_int()
        self("cuDeviceGetName", name, 256, device)
        self("cuDriverGetVersion", ctypes.byref(driver))
        self._device = device
        self.name, self.driver = name.value.decode(), driver.value
        self.sms, self.arch = self._attribute(16), f"sm_{self._attribute(75)}{self._attribute(76)}"

    def __call__(self, name: str, *args: object) -> None:
        code = getattr(self._cuda, name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            raise SystemExit(f"bench/gpu.py: {name} failed: {(text.value or b'?').decode()}.")

    def _attribute(self, number: int) -> int:  # CUdevice_attribute
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def module(self, source: str, *options: str) -> ctypes.c_void_p:
        """kernels/`source`, built for this GPU."""
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise SystemExit("bench/gpu.py: no nvcc on this PATH; add the CUDA toolkit's bin folder.")
        module = ctypes.c_void_p()
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder, "k.cubin")
            subprocess.run([nvcc, f"-arch={self.arch}", "-cubin", *options, "-o", cubin, KERNELS / source], check=True)
            self("cuModuleLoadData", ctypes.byref(module), cubin.read_bytes())
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def buffer(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def clear(self, pointer: ctypes.c_uint64, words: int) -> None:
        self("cuMemsetD32_v2", pointer, 0, ctypes.c_size_t(words))

    def read(self, pointer: ctypes.c_uint64, into: ctypes.Array) -> ctypes.Array:
        self("cuMemcpyDtoH_v2", into, pointer, ctypes.c_size_t(ctypes.sizeof(into)))
        return into

    def launch_s(self, function: ctypes.c_void_p, blocks: int, threads: int, *args: ctypes._SimpleCData) -> float:
        """Launch, wait, and the seconds between by the GPU's events."""
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(arg) for arg in args))
        begin, end, ms = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
        for event in (begin, end):
            self("cuEventCreate", ctypes.byref(event), 0)
        self("cuEventRecord", begin, None)
        self("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, None, pointers, None)
        self("cuEventRecord", end, None)
        self("cuEventSynchronize", end)
        self("cuEventElapsedTime", ctypes.byref(ms), begin, end)
        for event in (begin, end):
            self("cuEventDestroy_v2", event)
        return ms.value / 1e3


def pipe_rates(gpu: Gpu) -> dict[str, float]:
    """Instructions per cycle and SM of each kind, at eight warps a scheduler."""
    module, rates, threads, loops = gpu.module("pipes.cu"), {}, 1024, 400
    cycles, sink = gpu.buffer(8 * gpu.sms), gpu.buffer(4)
    for name in PIPES:
        function = gpu.function(module, f"pipe_{name}")
        args = (ctypes.c_uint32(0x9E3779B1), ctypes.c_uint32(0x85EBCA6B), ctypes.c_uint32(loops), cycles, sink)
        for _ in range(3):
            gpu.launch_s(function, gpu.sms, threads, *args)
        counts = gpu.read(cycles, (ctypes.c_uint64 * gpu.sms)())
        rates[name] = OPS_PER_LOOP * loops * threads / statistics.median(counts)
    return rates


def scan(gpu: Gpu, function: ctypes.c_void_p, row: Row, span: range, *, warps: int) -> tuple[list[int], float]:
    """Candidates (ascending) and seconds of one scan, with that many warps a scheduler."""
    found = gpu.buffer(4 * (1 + CAPACITY))
    gpu.clear(found, 1 + CAPACITY)
    numbers = (ctypes.c_uint32(n) for n in (span.start, len(span), 1, CAPACITY))
    seconds = gpu.launch_s(function, gpu.sms, 128 * warps, row, *numbers, found)
    words = gpu.read(found, (ctypes.c_uint32 * (1 + CAPACITY))())
    gpu("cuMemFree_v2", found)
    if words[0] > CAPACITY:
        raise SystemExit(f"bench/gpu.py: {words[0]} candidates are more than the buffer's {CAPACITY}.")
    return sorted(words[1 : 1 + words[0]]), seconds


def hits(header: bytes, target: int, nonces: list[int] | range) -> list[int]:
    """Those of the nonces whose double hash meets the target, by hashlib."""
    midstate = hashlib.sha256(header[:64])

    def meets(nonce: int) -> bool:
        inner = midstate.copy()
        inner.update(header[64:76] + nonce.to_bytes(4, "little"))
        return int.from_bytes(hashlib.sha256(inner.digest()).digest(), "little") <= target

    return [nonce for nonce in nonces if meets(nonce)]


def check(gpu: Gpu, function: ctypes.c_void_p) -> str:
    """Exact hits over 2^20 nonces against hashlib, and the genesis block's own nonce."""
    span = range(1 << 20)
    candidates, _ = scan(gpu, function, Row.of(GENESIS, EASY), span, warps=2)
    if hits(GENESIS, EASY, candidates) != hits(GENESIS, EASY, span):
        return "WRONG HITS"
    nonce, target = int.from_bytes(GENESIS[76:], "little"), 0xFFFF << 208
    span = range(nonce - (1 << 24), nonce + (1 << 24))
    candidates, _ = scan(gpu, function, Row.of(GENESIS, target), span, warps=2)
    return "exact" if hits(GENESIS, target, candidates) == [nonce] else "THE GENESIS NONCE IS MISSED"


def sensors() -> dict[str, float | None]:
    """Watts and SM clock by nvidia-smi, at this moment; None where it does not say."""
    query = ["nvidia-smi", "--id=0", "--query-gpu=power.draw,clocks.sm", "--format=csv,noheader,nounits"]
    try:
        watts, mhz = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split(",")
        return {"watts": float(watts), "sm_mhz": float(mhz)}
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {"watts": None, "sm_mhz": None}


def rate(gpu: Gpu, function: ctypes.c_void_p, warps: int) -> dict[str, float | None]:
    """GH/s at that many warps a scheduler: the median of five scans of some 0.3 s; sensors read right after."""
    row = Row.of(GENESIS, 1 << 200)
    _, probe_s = scan(gpu, function, row, range(1 << 28), warps=warps)
    count = min(2**32 - 1, int((1 << 28) * 0.3 / probe_s))
    seconds = [scan(gpu, function, row, range(count), warps=warps)[1] for _ in range(5)]
    return {"gh_s": count / statistics.median(seconds) / 1e9, **sensors()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where gpu.json goes")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    gpu = Gpu()
    result = {"device": gpu.name, "arch": gpu.arch, "sms": gpu.sms, "driver": gpu.driver, "date": time.strftime("%F")}

    def keep() -> None:
        (out / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")

    print(f"{gpu.name}, {gpu.arch}, {gpu.sms} SMs, CUDA driver {gpu.driver}")
    result["instructions_per_cycle_and_sm"] = rates = pipe_rates(gpu)
    keep()
    print(*(f"{name:>12} {value:7.1f} /cycle/SM" for name, value in rates.items()), sep="\n")
    result["scan"] = {}
    for variant, options in VARIANTS.items():
        function = gpu.function(gpu.module("sha256d.cu", *options), "scan_plain")
        figures = result["scan"][variant] = {"hits": check(gpu, function), "warps_per_scheduler": {}}
        print(f"{variant}: hits {figures['hits']}")
        for warps in range(1, 9):
            figures["warps_per_scheduler"][warps] = row = rate(gpu, function, warps)
            keep()
            watts = row["watts"]
            per_th = f"{watts / row['gh_s'] * 1e3:.0f} J/TH" if watts else "watts unknown"
            print(f"  {warps} warps: {row['gh_s']:.3f} GH/s, {row['sm_mhz']} MHz, {watts} W, {per_th}")


if __name__ == "__main__":
    main()
