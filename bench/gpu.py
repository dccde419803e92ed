"""A GPU's first minutes: pipe rates, the SHA-256d search and its exact hits, how fast it gives way; inference, and
inference with hashing behind it.

    python bench/gpu.py --out DIR      needs an NVIDIA GPU, its driver, and nvcc; nothing else, and no network

Inference needs PyTorch besides (gpu_infer.py), and with hashing behind it (gpu_front.py) wattwork, built: what is not
here is left out, and said. Writes DIR/gpu.json after every step, so that what was measured is kept when it is cut off,
and prints the README's table of it. It ends within nine minutes (gpu_parts.py); --trials and --seconds make it shorter.
The kernels are built from kernels/*.cu for the GPU that is there.
"""

import argparse
import ctypes
import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from subprocess import CalledProcessError

import gpu_table
import gpu_yield
import sass_bound
from gpu_driver import U32, U64, Gpu, Scan, Search, lanes, rolled
from gpu_parts import Record, missing
from gpu_sensors import Sensors

VARIANTS = sass_bound.VARIANTS | {"without polling": ("-DWW_NO_POLL",)}
PIPES = ("lop3", "shf", "iadd3", "imad", "imad_hi", "imad_wide", "lop3_imad")
OPS_PER_LOOP = 8 * 64  # CHAINS * ROUNDS in kernels/pipes.cu
CAPACITY = 1 << 16  # places for candidates
VERSIONS, MASK = 4096, 0x1FFFE000  # of BIP 320
EXACT, LEAVING, PROBE, LONG = 1 << 20, 1 << 30, 1 << 28, 1 << 32  # pairs: of the checks, of what is timed
QUANTUM_MS = 20  # of the launches beside which other calls are timed

# Mainnet block 0, a target that one nonce in 2^16 meets, and one that none will.
GENESIS = bytes.fromhex(
    "01000000"
    + "00" * 32
    + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    + "29ab5f49ffff001d1dac2b7c"
)
EASY, HARD = 2**240, 2**200


@cache
def table(header: bytes, versions: int) -> ctypes.Array:
    return lanes(rolled(header, MASK, range(versions)))


@dataclass(frozen=True)
class Kernel:
    """One search kernel of one build."""

    gpu: Gpu
    function: ctypes.c_void_p
    rolls: bool

    def search(
        self, header: bytes, target: int, span: range, shape: tuple[int, int], *, versions: int = 1, budget: int = 0,
        flags: ctypes.c_uint64 | None = None,
    ) -> Search:  # fmt: skip
        """shape: blocks of an SM, threads of a block."""
        versions = versions if self.rolls else 1
        scan = Scan.of(header, target, span, versions=versions, capacity=CAPACITY, budget=budget)
        whole = self.gpu.sms * shape[0], shape[1]
        return Search(self.gpu, self.function, scan, table(header, versions), whole, flags)

    def long(self, shape: tuple[int, int], pairs: int | None = None, **more: object) -> Search:
        """A search of that many pairs (LONG) or a little fewer, without candidates."""
        versions = VERSIONS if self.rolls else 1
        return self.search(GENESIS, HARD, range((pairs or LONG) // versions), shape, versions=versions, **more)


def shapes(rolls: bool) -> list[tuple[int, int]]:
    """(blocks of an SM, threads of a block) of one to eight warps a scheduler."""
    sizes = (128, 256, 512) if rolls else (128,)
    return [(128 * warps // size, size) for warps in range(1, 9) for size in sizes if 128 * warps % size == 0]


def named(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]} threads an SM"


def kernels(gpu: Gpu, options: tuple[str, ...]) -> dict[str, Kernel]:
    module = gpu.load(gpu.image("sha256d.cu", *options))
    return {kind: Kernel(gpu, gpu.function(module, f"search_{kind}"), kind == "rolled") for kind in ("plain", "rolled")}


def pipe_rates(gpu: Gpu) -> dict[str, float]:
    """Instructions per cycle and SM of each kind, at eight warps a scheduler."""
    module, rates, threads, loops = gpu.load(gpu.image("pipes.cu")), {}, 1024, 400
    cycles, sink = gpu.buffer(8 * gpu.sms), gpu.buffer(4)
    for name in PIPES:
        function = gpu.function(module, f"pipe_{name}")
        for _ in range(3):
            gpu.launch_s(function, gpu.sms, threads, U32(0x9E3779B1), U32(0x85EBCA6B), U32(loops), cycles, sink)
        counts = gpu.read(cycles, (U64 * gpu.sms)())
        rates[name] = OPS_PER_LOOP * loops * threads / statistics.median(counts)
    return rates


def hits(header: bytes, target: int, nonces: list[int] | range) -> list[int]:
    """Those of the nonces whose double hash meets the target, by hashlib."""
    midstate = hashlib.sha256(header[:64])

    def meets(nonce: int) -> bool:
        inner = midstate.copy()
        inner.update(header[64:76] + nonce.to_bytes(4, "little"))
        return int.from_bytes(hashlib.sha256(inner.digest()).digest(), "little") <= target

    return [nonce for nonce in nonces if meets(nonce)]


def true_hits(header: bytes, target: int, span: range, versions: int) -> list[tuple[int, int]]:
    headers = enumerate(rolled(header, MASK, range(versions)))
    return [(number, nonce) for number, one in headers for nonce in hits(one, target, span)]


def of_target(header: bytes, target: int, candidates: list[tuple[int, int]], versions: int) -> list[tuple[int, int]]:
    """The candidates (their top 32 bits alone were compared) that meet the target."""
    headers = rolled(header, MASK, range(versions))
    return [(number, nonce) for number, nonce in candidates if hits(headers[number], target, [nonce])]


def candidates(search: Search) -> list[tuple[int, int]]:
    search.run_s()
    found = search.candidates()
    search.close()
    return found


def check(kernel: Kernel) -> str:
    """Exact hits over some 2^20 pairs against hashlib; the genesis block's own nonce; and the same after leaving."""
    versions, shape = (1000 if kernel.rolls else 1), (1, 256)
    span = range(5, 5 + EXACT // versions)
    found = candidates(kernel.search(GENESIS, EASY, span, shape, versions=versions))
    if of_target(GENESIS, EASY, found, versions) != true_hits(GENESIS, EASY, span, versions):
        return "WRONG HITS"
    nonce, target = int.from_bytes(GENESIS[76:], "little"), 0xFFFF << 208
    found = candidates(kernel.search(GENESIS, target, range(nonce - EXACT, nonce + EXACT), shape))
    if of_target(GENESIS, target, found, 1) != [(0, nonce)]:
        return "THE GENESIS NONCE IS MISSED"
    span = range(LEAVING // (VERSIONS if kernel.rolls else 1))
    make = partial(kernel.search, GENESIS, EASY, span, shape, versions=VERSIONS)
    if gpu_yield.interrupted(kernel.gpu, make, stops=200) != candidates(make()):
        return "WRONG HITS AFTER LEAVING"
    return "exact"


def gh_s(kernel: Kernel, shape: tuple[int, int], seconds: float) -> float:
    """The median of three searches of about that many seconds."""
    probe = kernel.long(shape, PROBE)
    probe.run_s()
    probe_s = probe.run_s()
    probe.close()
    search = kernel.long(shape, min(LONG, int(PROBE * seconds / probe_s)))
    pairs = search.scan.count * search.scan.versions
    rate = pairs / statistics.median(search.run_s() for _ in range(3)) / 1e9
    search.close()
    return rate


def power(kernel: Kernel, shape: tuple[int, int], sensors: Sensors, seconds: float) -> dict[str, float | None]:
    """Watts from one edge of the energy counter to another while hashing, the SM clock, and the rate meanwhile."""
    gpu, search = kernel.gpu, kernel.long(shape)
    stream, ends = gpu.stream(), (gpu.event(), gpu.event())
    runs = int((seconds + 2.5) / search.run_s()) + 1
    gpu("cuEventRecord", ends[0], stream)
    for _ in range(runs):
        search.begin(stream)
        search.launch(stream)
    gpu("cuEventRecord", ends[1], stream)
    time.sleep(0.3)  # until the clock has settled
    begin = sensors.edge()
    time.sleep(seconds)
    clock, last = sensors.sm_mhz(), sensors.edge()
    gpu.wait(stream)
    rate = runs * search.scan.count * search.scan.versions / gpu.elapsed_us(*ends) / 1e3
    search.close()
    gpu.drop(stream, events=ends)
    watts = (last[0] - begin[0]) / (last[1] - begin[1]) if begin and last else None
    return {"gh_s": rate, "sm_mhz": clock, "watts": watts, "j_per_th": watts / rate * 1e3 if watts else None}


def calls_ms(kernel: Kernel) -> dict[str, dict[str, float]]:
    """What calls that wait for the whole device take: alone, and beside launches of QUANTUM_MS. Medians of 10."""
    gpu, image, stream = kernel.gpu, kernel.gpu.image("signal.cu"), kernel.gpu.stream()
    budget = QUANTUM_MS * gpu.khz
    search = kernel.long((1, 256), budget=budget)

    def allocate() -> None:
        gpu.free(gpu.allocated(64 << 20))

    def load() -> None:
        gpu("cuModuleUnload", gpu.load(image))

    calls: dict[str, Callable[[], None]] = {
        "allocate_and_free": allocate,
        "synchronize": lambda: gpu("cuCtxSynchronize"),
        "load_module": load,
    }

    def median_ms(call: Callable[[], None], *, hashing: bool) -> float:
        times = []
        for _ in range(10):
            gpu("cuCtxSynchronize")
            search.begin()
            gpu("cuCtxSynchronize")
            if hashing:
                search.launch(stream)
                gpu_yield.spin_us(500)
            before = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - before) / 1e6)
        return statistics.median(times)

    both = {
        name: {"alone": median_ms(c, hashing=False), "hashing": median_ms(c, hashing=True)} for name, c in calls.items()
    }
    gpu.wait(stream)
    search.close()
    gpu.drop(stream)
    return both


def search_parts(record: Record, gpu: Gpu, sensors: Sensors, args: argparse.Namespace) -> None:
    """What needs the driver alone."""
    record.part("search")
    record.step("instructions_per_cycle_and_sm", measure=lambda: pipe_rates(gpu))
    default = kernels(gpu, ())
    for kind, kernel in default.items():
        record.step("hits", kind, measure=partial(check, kernel))
        ways = [(way, (1, 256)) for way in gpu_yield.WAYS] + [("write_value", (1, 128)), ("write_value", (2, 256))]
        for way, shape in ways:
            make = partial(kernel.long, shape)
            measure = partial(gpu_yield.trials, gpu, way, make, args.trials)
            record.step("yield", kind, f"{way}, {named(shape)}", measure=measure)
        measure = partial(gpu_yield.fence_trials, gpu, partial(kernel.long, (1, 256)), args.trials)
        record.step("fence", kind, measure=measure)
    record.step("calls_ms", measure=partial(calls_ms, default["plain"]))
    for variant, options in VARIANTS.items():
        if not record.in_time():
            break
        for kind, kernel in kernels(gpu, options).items():
            rates = {}
            for shape in shapes(kernel.rolls):
                measure = partial(gh_s, kernel, shape, args.seconds)
                rates[shape] = record.step("gh_s", kind, variant, named(shape), measure=measure) or 0
            if variant == "default":
                best = max(rates, key=rates.__getitem__)
                measure = partial(power, kernel, best, sensors, args.power_seconds)
                record.step("power", kind, named(best), measure=measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where gpu.json goes")
    parser.add_argument("--trials", type=int, default=2000, help="yields of each kind")
    parser.add_argument("--seconds", type=float, default=0.2, help="of one search whose rate is taken")
    parser.add_argument("--power-seconds", type=float, default=2, help="of work while watts are taken")
    args = parser.parse_args()
    gpu, sensors = Gpu(), Sensors()
    result: dict[str, object] = {"device": gpu.name, "arch": gpu.arch, "sms": gpu.sms, "khz": gpu.khz}
    result |= {"driver": gpu.driver, "date": time.strftime("%F")}
    print(result)
    record = Record(args.out, result)
    try:
        search_parts(record, gpu, sensors, args)
    except (SystemExit, CalledProcessError) as error:  # no nvcc, or one that fails: inference needs none
        record.failed.append(f"{error}")
    for part, module, core in (("inference", "gpu_infer", False), ("front", "gpu_front", True)):
        record.part(part)
        if why := missing(core=core):
            record.leave_out(part, why)
        else:
            import_module(module).run(record, gpu, sensors, args.power_seconds)
    print(gpu_table.table([result]))
    record.close()


if __name__ == "__main__":
    main()
