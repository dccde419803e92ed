"""The CUDA driver through ctypes, and what kernels/search.h tells the search kernels: for bench/gpu.py and the tests.

Nothing but the driver (libcuda.so.1) is needed, and importing this needs not even that.
"""

import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
U32, U64 = ctypes.c_uint32, ctypes.c_uint64
FLAGS, FLAG_STRIDE = 16, 32  # kFlags, kFlagStride
FLAG_WORDS = FLAGS * FLAG_STRIDE
ALL_SMS = 2**32 - 1

# FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
PRIMES = [p for p in range(2, 312) if all(p % q for q in range(2, int(p**0.5) + 1))]
K = [int(p ** (1 / 3) % 1 * 2**32) for p in PRIMES]
INIT = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)


def tail_of(header: bytes) -> tuple[int, ...]:
    return struct.unpack(">3I", header[64:76])


class Scan(ctypes.Structure):
    """`struct Scan`: one search of `count` nonces from `first`, for each of `versions` lanes."""

    _fields_ = (
        ("count", U64),
        ("budget", U64),
        ("recall", U64),
        ("first", U32),
        ("chunk", U32),
        ("versions", U32),
        ("tail", U32 * 3),
        ("target_top", U32),
        ("capacity", U32),
        ("one", U32),
        ("sms", U32),
    )

    @classmethod
    def of(
        cls,
        header: bytes,
        target: int,
        span: range,
        *,
        versions: int = 1,
        chunk: int = 256,
        capacity: int,
        budget: int = 0,
    ) -> "Scan":
        where = (len(span), budget, 0, span.start, chunk, versions)  # a Search brings the recall word
        return cls(*where, tail_of(header), target >> 224, capacity, 1, ALL_SMS)


class Lane(ctypes.Structure):
    """`struct Lane`: what the nonces of one version share."""

    _fields_ = (("midstate", U32 * 8), ("start", U32 * 8))

    @classmethod
    def of(cls, header: bytes) -> "Lane":
        midstate = compress(INIT, struct.unpack(">16I", header[:64]))
        return cls(midstate, rounds(midstate, (*tail_of(header), *[0] * 13), 3))


class Account(ctypes.Structure):
    """`struct Account`: the next chunk to claim, and the candidates found."""

    _fields_ = (("next", U64), ("found", U64))


def lanes(headers: Sequence[bytes]) -> ctypes.Array[Lane]:
    return (Lane * len(headers))(*map(Lane.of, headers))


def rolled(header: bytes, mask: int, numbers: Iterable[int]) -> list[bytes]:
    """The header with these of its versions: number i deposits i ^ own number in the mask's bits."""
    own, places = int.from_bytes(header[:4], "little"), [bit for bit in range(32) if mask >> bit & 1]

    def version(number: int) -> int:
        return own ^ sum(1 << place for i, place in enumerate(places) if number >> i & 1)

    return [version(number).to_bytes(4, "little") + header[4:] for number in numbers]


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


class CudaError(Exception): ...  # a call of the driver failed


class Gpu:
    """The first GPU through the CUDA driver API, in its primary context. `gpu(name, ...)` is a checked call."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise SystemExit("bench/gpu.py: no NVIDIA driver here (libcuda.so.1 does not load).") from None
        self._device, context = (device := ctypes.c_int()), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)
        name, driver = ctypes.create_string_buffer(256), ctypes.c_int()
        self("cuDeviceGetName", name, 256, device)
        self("cuDriverGetVersion", ctypes.byref(driver))
        self.name, self.driver = name.value.decode(), driver.value
        self.sms, self.khz = self._attribute(16), self._attribute(13)  # and the SM clock's greatest
        self.arch = f"sm_{self._attribute(75)}{self._attribute(76)}"

    def __call__(self, name: str, *args: object) -> None:
        code = getattr(self._cuda, name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            raise CudaError(f"{name} failed: {(text.value or b'?').decode()}")

    def _attribute(self, number: int) -> int:  # CUdevice_attribute
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def image(self, source: str, *options: str) -> bytes:
        """kernels/`source`, built for this GPU."""
        nvcc = shutil.which("nvcc", path=os.environ.get("WATTWORK_CUDA_BIN"))
        if nvcc is None:
            raise SystemExit("bench/gpu.py: no nvcc here; put it on the PATH, or name its folder in WATTWORK_CUDA_BIN.")
        with tempfile.TemporaryDirectory() as out:
            cubin = Path(out, "k.cubin")
            build = [nvcc, "-std=c++17", f"-arch={self.arch}", "-cubin", *options, "-I", KERNELS, "-o", cubin]
            subprocess.run([*build, KERNELS / source], check=True)
            return cubin.read_bytes()

    def load(self, image: bytes) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        self("cuModuleLoadData", ctypes.byref(module), image)
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def stream(self, priority: int = 0) -> ctypes.c_void_p:
        """One that waits for no other; a smaller priority is more urgent."""
        stream = ctypes.c_void_p()
        self("cuStreamCreateWithPriority", ctypes.byref(stream), 1, priority)
        return stream

    def event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self("cuEventCreate", ctypes.byref(event), 0)
        return event

    def drop(self, *streams: ctypes.c_void_p, events: Sequence[ctypes.c_void_p] = ()) -> None:
        for stream in streams:
            self("cuStreamDestroy_v2", stream)
        for event in events:
            self("cuEventDestroy_v2", event)

    def done(self, event: ctypes.c_void_p) -> bool:
        code = self._cuda.cuEventQuery(event)
        if code not in (0, 600):  # CUDA_ERROR_NOT_READY
            self("cuEventSynchronize", event)  # says what is wrong
        return code == 0

    def elapsed_us(self, begin: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        ms = ctypes.c_float()
        self("cuEventElapsedTime", ctypes.byref(ms), begin, end)
        return ms.value * 1e3

    def allocated(self, size: int) -> ctypes.c_uint64:
        pointer = U64()
        self("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def buffer(self, size: int) -> ctypes.c_uint64:
        """Bytes of the GPU's memory, zero."""
        pointer = self.allocated(size)
        self("cuMemsetD8_v2", pointer, ctypes.c_ubyte(0), ctypes.c_size_t(size))
        return pointer

    def mapped(self, size: int) -> tuple[ctypes.c_void_p, ctypes.c_uint64]:
        """Bytes of the host's memory, and where the GPU sees them."""
        host, pointer = ctypes.c_void_p(), U64()
        self("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(size), 2)  # CU_MEMHOSTALLOC_DEVICEMAP
        self("cuMemHostGetDevicePointer_v2", ctypes.byref(pointer), host, 0)
        ctypes.memset(host, 0, size)
        return host, pointer

    def free(self, *pointers: ctypes.c_uint64) -> None:
        for pointer in pointers:
            self("cuMemFree_v2", pointer)

    def write(self, pointer: ctypes.c_uint64, data: ctypes.Array | ctypes.Structure) -> None:
        self("cuMemcpyHtoD_v2", pointer, ctypes.byref(data), ctypes.c_size_t(ctypes.sizeof(data)))

    def read(self, pointer: ctypes.c_uint64, into: Any) -> Any:
        self("cuMemcpyDtoH_v2", ctypes.byref(into), pointer, ctypes.c_size_t(ctypes.sizeof(into)))
        return into

    def launch(
        self, function: ctypes.c_void_p, blocks: int, threads: int, *args: object, stream: ctypes.c_void_p | None = None
    ) -> None:
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(arg) for arg in args))
        self("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None)

    def wait(self, stream: ctypes.c_void_p | None = None) -> None:
        self("cuStreamSynchronize", stream)

    def launch_s(self, function: ctypes.c_void_p, blocks: int, threads: int, *args: object) -> float:
        """Launch, wait, and the seconds between by the GPU's events."""
        events = self.event(), self.event()
        self("cuEventRecord", events[0], None)
        self.launch(function, blocks, threads, *args)
        self("cuEventRecord", events[1], None)
        self("cuEventSynchronize", events[1])
        seconds = self.elapsed_us(*events) / 1e6
        self.drop(events=events)
        return seconds


class Search:
    """One search on a GPU. shape: blocks of a launch, threads of a block. flags: its own if None."""

    def __init__(
        self, gpu: Gpu, function: ctypes.c_void_p, scan: Scan, table: ctypes.Array, shape: tuple[int, int],
        flags: ctypes.c_uint64 | None = None,
    ) -> None:  # fmt: skip
        self.gpu, self.function, self.scan, (self.blocks, self.threads) = gpu, function, scan, shape
        self._slots_size = 8 * self.blocks * (self.threads // 32)  # enough for either kind of unit
        self._lanes, self._account = gpu.buffer(ctypes.sizeof(table)), gpu.buffer(ctypes.sizeof(Account))
        self._slots, self._hits = gpu.buffer(self._slots_size), gpu.buffer(8 * max(1, scan.capacity))
        gpu.write(self._lanes, table)
        self._own = [self._lanes, self._account, self._slots, self._hits]
        if flags is None:
            flags = gpu.buffer(4 * FLAG_WORDS)
            self._own.append(flags)
        self.flags = flags
        self._recall_here, recall = gpu.mapped(4)
        scan.recall = recall.value
        self._args = (scan, self._lanes, self._account, self._slots, self.flags, self._hits)

    def begin(self, stream: ctypes.c_void_p | None = None) -> None:
        """From the start, in that stream's order."""
        for pointer, size in ((self._account, ctypes.sizeof(Account)), (self._slots, self._slots_size)):
            self.gpu("cuMemsetD8Async", pointer, ctypes.c_ubyte(0), ctypes.c_size_t(size), stream)

    def launch(self, stream: ctypes.c_void_p | None = None) -> None:
        self.gpu.launch(self.function, self.blocks, self.threads, *self._args, stream=stream)

    def run_s(self) -> float:
        self.begin()
        return self.gpu.launch_s(self.function, self.blocks, self.threads, *self._args)

    def account(self) -> Account:
        return self.gpu.read(self._account, Account())

    def unfinished(self) -> bool:
        return any(self.gpu.read(self._slots, (U64 * (self._slots_size // 8))()))

    def candidates(self) -> list[tuple[int, int]]:
        """(version number, nonce), ascending."""
        found = self.account().found
        if found > self.scan.capacity:
            raise CudaError(f"{found} candidates are more than the buffer's {self.scan.capacity}")
        words = self.gpu.read(self._hits, (U64 * max(1, self.scan.capacity))())
        return sorted((word >> 32, word & 0xFFFFFFFF) for word in words[:found])

    def close(self) -> None:
        self.gpu.free(*self._own)
        self.gpu("cuMemFreeHost", self._recall_here)
