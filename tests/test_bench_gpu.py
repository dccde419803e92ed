"""bench/gpu.py on a driver of Python's own: that it calls the driver as cuda.h declares it, and what it makes of it."""

import ctypes
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import gpu as bench  # noqa: E402
import gpu_driver  # noqa: E402
import gpu_table  # noqa: E402
import gpu_yield  # noqa: E402
from gpu_driver import U32, U64, Account, Lane, Scan  # noqa: E402

pytestmark = pytest.mark.core  # a compiler is needed, as for the core

# r: a pointer to what is answered or read; p: CUdeviceptr; z: size_t; h: a handle or void*; b: bytes, text or an array;
# u: a 32-bit value; c: unsigned char; d: CUdevice; i: int or unsigned int.
SIGNATURES = {
    **{"cuInit": "i", "cuDeviceGet": "ri", "cuDevicePrimaryCtxRetain": "rd", "cuCtxSetCurrent": "h"},
    **{"cuDeviceGetName": "bid", "cuDriverGetVersion": "r", "cuDeviceGetAttribute": "rid", "cuCtxSynchronize": ""},
    **{"cuModuleLoadData": "rb", "cuModuleUnload": "h", "cuModuleGetFunction": "rhb"},
    **{"cuStreamCreateWithPriority": "rii", "cuStreamSynchronize": "h", "cuStreamDestroy_v2": "h"},
    **{"cuEventCreate": "ri", "cuEventRecord": "hh", "cuEventQuery": "h", "cuEventSynchronize": "h"},
    **{"cuEventElapsedTime": "rhh", "cuEventDestroy_v2": "h", "cuGetErrorString": "ir"},
    **{"cuMemAlloc_v2": "rz", "cuMemFree_v2": "p", "cuMemHostAlloc": "rzi", "cuMemFreeHost": "h"},
    **{"cuMemHostGetDevicePointer_v2": "rhi", "cuMemcpyHtoD_v2": "prz", "cuMemcpyDtoH_v2": "rpz"},
    **{"cuMemsetD8_v2": "pcz", "cuMemsetD8Async": "pczh", "cuMemsetD2D32Async": "pzuzzh"},
    **{"cuStreamBatchMemOp_v2": "hibi", "cuLaunchKernel": "hiiiiiiihbh"},
}
KINDS = {"p": U64, "z": ctypes.c_size_t, "u": U32, "c": ctypes.c_ubyte, "d": ctypes.c_int, "i": int}


class FakeCuda:
    """One GPU of two SMs. A search does half of what is left when it is launched, and the rest, or an honest leave,
    when somebody waits for it. `wrong` spoils one thing."""

    def __init__(self, host, wrong=None):
        self.host, self.wrong = host, wrong
        self.memory, self.names, self.handles, self.pending = {}, {}, itertools.count(1), []

    def __getattr__(self, name):
        signature, call = SIGNATURES[name], getattr(type(self), "do_" + name, lambda *_: 0)

        def checked(*args):
            assert len(args) == len(signature), name
            for kind, arg in zip(signature, args, strict=True):
                if kind in KINDS:
                    assert type(arg) is KINDS[kind], (name, kind, arg)
                elif kind == "h":
                    assert arg is None or type(arg) is ctypes.c_void_p, (name, arg)
                elif kind == "r":
                    assert hasattr(arg, "_obj"), (name, arg)
            return call(self, *args) or 0

        return checked

    def handle(self, answer, *_):
        answer._obj.value = next(self.handles)

    do_cuModuleLoadData = do_cuStreamCreateWithPriority = do_cuEventCreate = handle

    def do_cuDriverGetVersion(self, answer):
        answer._obj.value = 13000

    def do_cuDeviceGetName(self, text, size, device):
        text.value = b"A GPU of Python's"

    def do_cuDeviceGetAttribute(self, answer, number, device):
        answer._obj.value = {16: 2, 75: 9, 76: 0, 13: 1_980_000}[number]

    def do_cuGetErrorString(self, code, answer):
        answer._obj.value = b"the operation is not supported"

    def do_cuModuleGetFunction(self, answer, module, name):
        self.handle(answer)
        self.names[answer._obj.value] = name.decode()

    def do_cuMemAlloc_v2(self, answer, size):
        buffer = ctypes.create_string_buffer(size.value)
        answer._obj.value = ctypes.addressof(buffer)
        self.memory[answer._obj.value] = buffer

    def do_cuMemHostAlloc(self, answer, size, flags):
        self.do_cuMemAlloc_v2(answer, size)

    def do_cuMemHostGetDevicePointer_v2(self, answer, host, flags):
        answer._obj.value = host.value

    def do_cuMemFree_v2(self, pointer):
        del self.memory[pointer.value]

    do_cuMemFreeHost = do_cuMemFree_v2

    def do_cuMemcpyHtoD_v2(self, to, source, size):
        self.finish()
        ctypes.memmove(to.value, source, size.value)

    def do_cuMemcpyDtoH_v2(self, to, source, size):
        self.finish()
        ctypes.memmove(to, source.value, size.value)

    def do_cuMemsetD8_v2(self, pointer, value, size):
        self.finish()
        ctypes.memset(pointer.value, value.value, size.value)

    def do_cuMemsetD8Async(self, pointer, value, size, stream):
        self.do_cuMemsetD8_v2(pointer, value, size)

    def do_cuMemsetD2D32Async(self, pointer, pitch, value, width, height, stream):
        for row in range(height.value):
            (U32 * width.value).from_address(pointer.value + row * pitch.value)[:] = [value.value] * width.value

    def do_cuStreamBatchMemOp_v2(self, stream, count, writes, flags):
        if self.wrong == "memory operations":
            return 801
        for op in writes[:count]:
            assert op.operation in (1, 2)  # wait, write
            if op.operation == 2:
                U32.from_address(op.address).value = op.value
            elif not U32.from_address(op.address).value & op.value:
                pass  # the front opens the gate before anybody looks

    def do_cuEventElapsedTime(self, answer, begin, end):
        answer._obj.value = 250

    def finish(self, *_):
        while self.pending:
            self.step(*self.pending.pop(), launched=False)

    do_cuEventQuery = do_cuEventSynchronize = do_cuStreamSynchronize = do_cuCtxSynchronize = finish

    def do_cuLaunchKernel(self, function, bx, by, bz, tx, ty, tz, shared, stream, params, extra):
        name, at = self.names[function.value], list(params)
        if name == "set_flags":
            for i in range(16):
                U32.from_address(U64.from_address(at[0]).value + 128 * i).value = U32.from_address(at[1]).value
        elif name.startswith("pipe_"):
            (U64 * bx).from_address(U64.from_address(at[3]).value)[:] = [800_000] * bx
        else:
            launch = (
                Scan.from_buffer_copy(Scan.from_address(at[0])),
                *(U64.from_address(a).value for a in at[1:]),
                name,
                tx,
            )
            self.step(*launch, launched=True)
            self.pending.append(launch)

    def step(self, scan, lanes, account, slots, flags, hits, name, threads, *, launched):
        account, slot = Account.from_address(account), U64.from_address(slots)
        width = threads if name == "search_rolled" else 0
        spans = -(-scan.count // (scan.chunk * (1 if width else 32)))
        chunks = spans * (-(-scan.versions // width) if width else 1)

        def test(chunk):
            group, span = divmod(chunk, spans)
            size = scan.chunk * (1 if width else 32)
            for version in range(group * width, min((group + 1) * width, scan.versions)) if width else [0]:
                self.test(scan, Lane.from_address(lanes + 64 * version), version, span * size, size, account, hits)

        if slot.value and launched:
            slot.value, chunk = 0, (slot.value >> 32) - 1
            test(chunk)
        if not launched and U32.from_address(flags).value and account.next < chunks:
            slot.value = (account.next + 1) << 32 if self.wrong != "slots" else 0
            account.next += 1
            return
        end = chunks - (launched and (chunks - account.next) // 2)
        while account.next < end:
            test(account.next)
            account.next += 1

    def test(self, scan, lane, version, offset, size, account, hits):
        if scan.first == 0 and scan.target_top == 0:
            return  # a search for its time's sake
        size = max(0, min(size, scan.count - offset))
        nonces = (U32 * size)()
        self.host.gpu_candidates.restype = U32
        found = self.host.gpu_candidates(
            ctypes.byref(scan), ctypes.byref(lane), U32(scan.first + offset), U32(size), nonces
        )
        for nonce in nonces[:found]:
            if account.found < scan.capacity:
                wrong = self.wrong == "nonces"
                U64.from_address(hits + 8 * account.found).value = version << 32 | (nonce ^ wrong)
            account.found += 1


class FakeNvml:
    """Its energy counter moves on at every third look."""

    looks = 0

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, answer):
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, answer):
        self.looks += 1
        answer._obj.value = self.looks // 3 * 60_000
        return 0

    def nvmlDeviceGetClockInfo(self, device, kind, answer):
        answer._obj.value = 1980
        return 0


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    library = tmp_path_factory.mktemp("bench") / "arithmetic.so"
    command = ["c++", "-std=c++20", "-O2", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-I", ROOT / "kernels"]
    subprocess.run([*command, ROOT / "tests" / "cpp" / "gpu_arithmetic.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture
def gpu(host, monkeypatch):
    """gpu(wrong) -> a Gpu on such a driver, for a bench of small sizes."""
    bench.table.cache_clear()
    sizes = {"EXACT": 1 << 14, "LEAVING": 1 << 15, "PROBE": 1 << 12, "LONG": 1 << 15, "VERSIONS": 512, "QUANTUM_MS": 1}
    for name, value in (sizes | {"EASY": 2**246}).items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(gpu_driver.Gpu, "image", lambda *_: b"a cubin")
    monkeypatch.setattr(gpu_yield, "spin_us", lambda us: None)
    monkeypatch.setattr(gpu_yield, "RESTART", 1)
    monkeypatch.setattr(bench, "shapes", lambda rolls: [(1, 128), (1, 256)] if rolls else [(1, 128)])
    monkeypatch.setattr(bench.time, "sleep", lambda s: None)

    def make(wrong=None):
        fakes = {"libcuda.so.1": FakeCuda(host, wrong), "libnvidia-ml.so.1": FakeNvml()}
        monkeypatch.setattr(ctypes, "CDLL", fakes.__getitem__)
        return gpu_driver.Gpu()

    return make


@pytest.fixture
def run(gpu, tmp_path, monkeypatch):
    """run(wrong) -> what gpu.json holds after the whole bench on such a driver, and how it ended."""

    def call(wrong=None):
        gpu(wrong)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--trials", "6", "--power-seconds", "0.01"])
        ended = None
        try:
            bench.main()
        except SystemExit as end:
            ended = str(end)
        return json.loads((tmp_path / "gpu.json").read_text()), ended

    return call


def test_the_whole_bench_on_a_driver_that_works(run):
    result, ended = run()
    assert ended is None
    assert result["device"] == "A GPU of Python's"
    assert result["instructions_per_cycle_and_sm"]["lop3"] == 8 * 64 * 400 * 1024 / 800_000
    assert result["hits"] == {"plain": "exact", "rolled": "exact"}
    for kind in ("plain", "rolled"):
        ways = result["yield"][kind]
        assert {name.split(",")[0] for name in ways} == set(gpu_yield.WAYS)
        assert ways["memset, 1 x 256 threads an SM"]["gpu_events"]["p99_us"] == 250_000
        assert ways["host_flag, 1 x 256 threads an SM"]["gpu_events"] is None
        assert all(way["trials"] == 6 for way in ways.values())
        assert set(result["gh_s"][kind]) == set(bench.VARIANTS)
        assert result["gh_s"][kind]["default"]["1 x 128 threads an SM"] == pytest.approx(
            (1 << 12) / 250e-6 / 1e9, rel=1
        )
        (power,) = result["power"][kind].values()
        assert power["watts"] > 0
        assert power["sm_mhz"] == 1980
        fence = result["fence"][kind]
        assert (fence["trials"], fence["yield"]["p50_us"], fence["resume"]["p99_us"]) == (6, 250_000, 250_000)
    assert set(result["calls_ms"]) == {"allocate_and_free", "synchronize", "load_module"}
    assert gpu_table.NONE not in gpu_table.table([result])


@pytest.mark.parametrize(("wrong", "said"), [("nonces", "WRONG HITS"), ("slots", "WRONG HITS AFTER LEAVING")])
@pytest.mark.parametrize("kind", ["plain", "rolled"])
def test_wrong_hits_are_said(gpu, kind, wrong, said):
    assert bench.check(bench.kernels(gpu(wrong), ())[kind]) == said


def test_what_a_driver_cannot_do_is_noted_and_the_rest_is_measured(run):
    result, ended = run("memory operations")
    assert ended.startswith(
        "bench/gpu.py: some steps failed:\nhits, plain: cuStreamBatchMemOp_v2 failed: the operation"
    )
    assert "failed" in result["yield"]["plain"]["write_value, 1 x 256 threads an SM"]
    assert result["yield"]["plain"]["memset, 1 x 256 threads an SM"]["trials"] == 6
    assert "default" in result["gh_s"]["rolled"]


def test_the_readme_has_the_table_of_what_was_measured():
    readme = (ROOT / "README.md").read_text()
    runs = [json.loads(path.read_text()) for path in gpu_table.RESULTS.glob("*/gpu.json")]
    assert gpu_table.MARKS[0] + gpu_table.table(runs) + gpu_table.MARKS[1] in readme
    assert gpu_table.table([]).count(gpu_table.NONE) == len(gpu_table.ASKED)
