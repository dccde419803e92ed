"""How fast a GPU search gives way: for bench/gpu.py.

A trial launches a search, waits a random while, sets the flag and waits for the launch to end. Two clocks time it: the
GPU's events (from just before the write in the signalling stream to the end of the search's launch; the resolution is
about half a microsecond, and the end includes the launch's own completion), and the host's (from before the call that
writes to when the host sees the end). A flag that the host writes itself has the host's clock only.
"""

import ctypes
import random
import time
from collections.abc import Callable

from gpu_driver import FLAG_STRIDE, FLAG_WORDS, FLAGS, U32, U64, CudaError, Gpu, Search

WAYS = ("write_value", "write_value_no_barrier", "memset", "kernel", "host_flag")
UNSEEN_US = 100_000  # a flag that takes longer is not seen at all: no more trials
RESTART = 500  # trials, after which the search begins anew, so that it is never over


class WriteValue(ctypes.Structure):
    """`CUstreamBatchMemOpParams.writeValue` of cuda.h, 48 bytes."""

    _fields_ = (
        ("operation", U32),
        ("address", U64),
        ("value", U64),
        ("flags", U32),
        ("alias", U64),
        ("pad", U64),
    )


def write_values(flags: int, value: int, *, barrier: bool) -> ctypes.Array:
    """What cuStreamBatchMemOp takes to set every copy of a flag at that address."""
    write, no_barrier = 2, 1  # CU_STREAM_MEM_OP_WRITE_VALUE_32, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER
    places = [flags + 4 * FLAG_STRIDE * i for i in range(FLAGS)]
    return (WriteValue * FLAGS)(*(WriteValue(write, place, value, 0 if barrier else no_barrier) for place in places))


class Flag:
    """A search's flag, in all its copies, raised in a stream in one of the WAYS, without waiting."""

    def __init__(self, gpu: Gpu, way: str, stream: ctypes.c_void_p) -> None:
        if way not in WAYS:
            raise ValueError(f"no such way: {way}")
        self._gpu, self.way, self._stream, self._size = gpu, way, stream, 4 * FLAG_WORDS
        self.on_host = way == "host_flag"
        if self.on_host:
            self._host, self.device = gpu.mapped(self._size)
            self._words = (U32 * (self._size // 4)).from_address(self._host.value)
        else:
            self.device = gpu.buffer(self._size)
        if way == "kernel":
            self._module, self._one = gpu.load(gpu.image("signal.cu")), U32(1)
            self.function = gpu.function(self._module, "set_flags")
        self._writes = write_values(self.device.value, 1, barrier=way == "write_value")

    def up(self) -> None:
        if self.way.startswith("write_value"):
            self._gpu("cuStreamBatchMemOp_v2", self._stream, FLAGS, self._writes, 0)
        elif self.way == "memset":  # one word of each line
            pitch, width, height = (ctypes.c_size_t(n) for n in (4 * FLAG_STRIDE, 1, FLAGS))
            self._gpu("cuMemsetD2D32Async", self.device, pitch, U32(1), width, height, self._stream)
        elif self.way == "kernel":
            self._gpu.launch(self.function, 1, 32, self.device, self._one, stream=self._stream)
        else:
            for i in range(FLAGS):
                self._words[i * FLAG_STRIDE] = 1

    def down(self) -> None:
        """Lowered when this returns."""
        if self.on_host:
            ctypes.memset(self._host, 0, self._size)
        else:
            self._gpu("cuMemsetD8_v2", self.device, ctypes.c_ubyte(0), ctypes.c_size_t(self._size))
            self._gpu("cuCtxSynchronize")

    def close(self) -> None:
        if self.way == "kernel":
            self._gpu("cuModuleUnload", self._module)
        if self.on_host:
            self._gpu("cuMemFreeHost", self._host)
        else:
            self._gpu.free(self.device)


def spin_us(us: float) -> None:
    end = time.perf_counter_ns() + us * 1e3
    while time.perf_counter_ns() < end:
        pass


def quantiles_us(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_us": ordered[len(ordered) // 2],
        "p99_us": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "max_us": ordered[-1],
    }


def trials(gpu: Gpu, way: str, make: Callable[..., Search], count: int) -> dict[str, object]:
    """`count` yields of one search by one way. make(flags=...) makes it; it goes on from trial to trial."""
    hashing, signalling = gpu.stream(0), gpu.stream(-5)  # more urgent; the driver takes the most urgent there is
    begin, end = gpu.event(), gpu.event()
    flag = Flag(gpu, way, signalling)
    search = make(flags=flag.device)
    by_host: list[float] = []
    by_gpu: list[float] = []
    for trial in range(count):
        if trial % RESTART == 0:
            search.begin(hashing)
        flag.down()
        search.launch(hashing)
        gpu("cuEventRecord", end, hashing)
        spin_us(random.uniform(50, 150))
        before = time.perf_counter_ns()
        gpu("cuEventRecord", begin, signalling)
        flag.up()
        while not gpu.done(end):
            pass
        by_host.append((time.perf_counter_ns() - before) / 1e3)
        gpu.wait(signalling)
        by_gpu.append(gpu.elapsed_us(begin, end))
        if by_host[-1] > UNSEEN_US:
            break
    left_early = search.unfinished()
    search.close()
    flag.close()
    gpu.drop(hashing, signalling, events=(begin, end))
    if not left_early:
        raise CudaError("the search was over before its flag was seen")
    return {
        "trials": len(by_host),
        "host_clock": quantiles_us(by_host),
        "gpu_events": None if flag.on_host else quantiles_us(by_gpu),
    }


def fence_trials(gpu: Gpu, make: Callable[..., Search], count: int) -> dict[str, object]:
    """`count` fronts of one stream before a search, in the order of csrc/cuda/fence.h, without the CPU.

    `yield`: from before the front's writes to the end of its first kernel, a very short one. `resume`: from before the
    gate opens to where the next launch of the search is let on; its units begin a launch's latency later.
    """
    hashing, front = gpu.stream(0), gpu.stream(-5)
    begin, started, opening, admitted = events = [gpu.event() for _ in range(4)]
    flag, scratch = Flag(gpu, "kernel", front), gpu.buffer(4 * FLAG_WORDS)
    host, gate = gpu.mapped(4)
    word = U32.from_address(host.value)
    word.value = 1
    search = make(flags=flag.device)
    wait, write, bits, in_order = 1, 2, 2, 0
    look = WriteValue(wait, gate.value, 1, bits)
    lowered = write_values(flag.device.value, 0, barrier=False)
    raised = write_values(flag.device.value, 1, barrier=False)
    raised[0].flags = in_order
    admit = (WriteValue * (FLAGS + 3))(look, *lowered, WriteValue(write, flag.device.value, 0, in_order), look)
    shut = (WriteValue * (FLAGS + 1))(WriteValue(write, gate.value, 0, in_order), *raised)
    opened = (WriteValue * 1)(WriteValue(write, gate.value, 1, in_order))

    def launch() -> None:
        gpu("cuStreamBatchMemOp_v2", hashing, len(admit), admit, 0)
        gpu("cuEventRecord", admitted, hashing)
        search.launch(hashing)

    yields: list[float] = []
    resumed: list[float] = []
    for trial in range(count):
        if trial % RESTART == 0:
            search.begin(hashing)
            launch()
        spin_us(random.uniform(50, 150))
        gpu("cuEventRecord", begin, front)
        gpu("cuStreamBatchMemOp_v2", front, len(shut), shut, 0)
        gpu.launch(flag.function, 1, 32, scratch, U32(0), stream=front)
        gpu("cuEventRecord", started, front)
        launch()  # waits at the gate
        gpu.wait(front)
        gpu("cuEventRecord", opening, front)
        gpu("cuStreamBatchMemOp_v2", front, 1, opened, 0)
        gpu.wait(front)
        while not gpu.done(admitted):
            pass
        yields.append(gpu.elapsed_us(begin, started))
        resumed.append(gpu.elapsed_us(opening, admitted))
    gpu("cuStreamBatchMemOp_v2", front, len(raised), raised, 0)
    gpu.wait(hashing)
    search.close()
    flag.close()
    gpu.free(scratch)
    gpu("cuMemFreeHost", host)
    gpu.drop(hashing, front, events=events)
    return {"trials": count, "yield": quantiles_us(yields), "resume": quantiles_us(resumed)}


def interrupted(gpu: Gpu, make: Callable[..., Search], stops: int) -> list[tuple[int, int]]:
    """The candidates of a search that had to leave `stops` times and was then left to end."""
    stream = gpu.stream(-5)
    flag = Flag(gpu, "write_value", stream)
    search = make(flags=flag.device)
    search.begin()
    for _ in range(stops):
        search.launch(stream=None)
        spin_us(random.uniform(0, 200))
        flag.up()
        flag.down()
    search.launch()
    gpu("cuCtxSynchronize")
    candidates = search.candidates()
    search.close()
    flag.close()
    gpu.drop(stream)
    return candidates
