"""bench/gpu.py on a driver of Python's own: that it calls the driver as cuda.h declares it, and what it makes of it."""

import ctypes
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import gpu as bench  # noqa: E402
import gpu_driver  # noqa: E402
import gpu_front  # noqa: E402
import gpu_infer  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_table  # noqa: E402
import gpu_yield  # noqa: E402
from gpu_driver import U32, U64, Account, Lane, Scan  # noqa: E402

import wattwork as ww  # noqa: E402
from wattwork.data import mainnet_header  # noqa: E402
from wattwork.engines import PRESETS, ModelConfig  # noqa: E402
from wattwork.engines.numpy_engine import NumPyEngine  # noqa: E402

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
    "cuMemcpyDtoDAsync_v2": "ppzh",
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

    def do_cuMemcpyDtoDAsync_v2(self, to, source, size, stream):
        ctypes.memmove(to.value, source.value, size.value)

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
    monkeypatch.setattr(bench.time, "sleep", lambda s, sleep=time.sleep: sleep(min(s, 0.01)))

    def make(wrong=None):
        fakes = {"libcuda.so.1": FakeCuda(host, wrong), "libnvidia-ml.so.1": FakeNvml()}
        real = ctypes.CDLL  # for NumPy's libraries, which threadpoolctl opens
        monkeypatch.setattr(
            ctypes, "CDLL", lambda name, *how, **more: fakes[name] if name in fakes else real(name, *how, **more)
        )
        return gpu_driver.Gpu()

    return make


SMALL = ModelConfig("small", 2, 64, 4, 2, 16, 96, 128, 64, 1e4, tied=False)


def numpy_engine(config=SMALL):
    engine = NumPyEngine(1)
    engine.load(config, "dummy:0")
    return engine


def front_on_the_cpu():
    """Where the core is, as it must be for a GPU, the same device on a CPU."""
    return gpu_front.Front(numpy_engine(), ww.Job(ww.Work.from_header(mainnet_header(0))), "cpu")


@pytest.fixture
def parts(monkeypatch):
    """The parts that need PyTorch and a GPU, small, with an engine that is here."""
    monkeypatch.setattr(bench, "missing", lambda core: None)
    for name, value in {"COPIED": 1000, "RANDOM": 100, "BATCHES": (1, 64), "CONTEXT": 50, "STEPS": 2}.items():
        monkeypatch.setattr(gpu_infer, name, value)
    monkeypatch.setattr(gpu_infer, "loaded", lambda model: gpu_infer.Sequences(numpy_engine(), 64, 50))
    monkeypatch.setattr(gpu_front, "front", front_on_the_cpu)
    monkeypatch.setattr(gpu_front, "WINDOW_S", 0.5)
    monkeypatch.setattr(gpu_front, "RATES", (50, 200))


@pytest.fixture
def run(gpu, parts, tmp_path, monkeypatch):
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


def test_the_whole_bench_on_a_driver_that_works(run, capsys):
    result, ended = run()
    assert gpu_table.table([result]) in capsys.readouterr().out
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
    assert result["copy_tb_s"] == pytest.approx(2 * 1000 / 0.25 / 1e12)
    assert set(result["inference"]) == set(gpu_infer.MODELS)
    for model in result["inference"].values():
        assert model["prompts_tok_s"] > 0
        assert len(model["batch 64"]["repeats_tok_s"]) == gpu_infer.REPEATS
        assert model["batch 64"]["roofline_share"]["published"] is None  # of a GPU that nobody sells
    assert set(result["front"]) == {"hashing", "50 requests/s", "200 requests/s"}
    for runs in (result["front"]["50 requests/s"], result["front"]["200 requests/s"]):
        assert all(of["served"] > 0 and of["refused"] == 0 and of["p99_e2el_ms"] > 0 for of in runs.values())
        assert runs["hashing behind"]["gh_s"] > 0
        assert "gh_s" not in runs["alone"]
    assert gpu_table.NONE not in gpu_table.table([result])


def test_what_is_not_here_is_left_out_with_the_reason(run, monkeypatch):
    monkeypatch.setattr(bench, "missing", lambda core: "no core" if core else None)
    result, ended = run()
    assert ended is None
    assert result["front"] == {"skipped": "no core"}
    assert result["inference"]
    assert gpu_table.table([result]).count(gpu_table.NONE) == 2


def test_missing_names_the_first_thing_that_is_not_here(monkeypatch):
    here = {"numpy", "torch"}
    monkeypatch.setattr(gpu_parts, "find_spec", lambda name: name if name in here else None)
    assert gpu_parts.missing(core=True) is None
    monkeypatch.setattr("wattwork._native.HAVE_CORE", False)
    assert gpu_parts.missing(core=False) is None
    assert gpu_parts.BUILD in gpu_parts.missing(core=True)
    here.remove("torch")
    assert gpu_parts.missing(core=False) == "torch is not installed"


def test_a_part_begins_nothing_once_its_time_is_over(run, monkeypatch):
    monkeypatch.setitem(gpu_parts.ENDS_S, "search", 0)
    monkeypatch.setitem(gpu_parts.ENDS_S, "inference", 0)
    result, ended = run()
    skipped = {"skipped": "the time of its part was over"}
    assert ended is None
    assert result["hits"]["plain"] == result["copy_tb_s"] == skipped
    assert result["inference"]["llama-3.1-8b"] == {"prompts_tok_s": skipped}
    assert result["front"]["hashing"]["gh_s"] > 0
    assert gpu_table.table([result]).count(gpu_table.NONE) == len(gpu_table.ASKED) - 2
    assert max(gpu_parts.ENDS_S.values()) < gpu_parts.LIMIT_S < 9 * 60


def test_what_fails_in_a_part_is_noted_and_the_next_begins(run, monkeypatch):
    def no_memory(model):
        raise RuntimeError(f"no memory for {model}")

    monkeypatch.setattr(gpu_infer, "loaded", no_memory)
    result, ended = run()
    assert result["inference"]["llama-3.2-1b"]["prompts_tok_s"] == {"failed": "no memory for llama-3.2-1b"}
    assert "no memory for llama-3.1-8b" in ended
    assert result["front"]["200 requests/s"]


def test_without_nvcc_inference_is_measured_all_the_same(run, monkeypatch):
    def no_nvcc(*_):
        raise SystemExit("bench/gpu.py: no nvcc here")

    monkeypatch.setattr(gpu_driver.Gpu, "image", no_nvcc)
    result, ended = run()
    assert "no nvcc here" in ended
    assert "gh_s" not in result
    assert result["inference"]["llama-3.1-8b"]["batch 64"]["tok_s"] > 0
    assert result["front"]["200 requests/s"]


def test_the_bytes_of_a_step_and_its_share_of_the_roofline():
    eight = PRESETS["llama-3.1-8b"]
    weights = eight.parameters - eight.vocab * eight.hidden
    assert gpu_infer.step_bytes(eight, 2, 64, 1024) == 2 * weights + 64 * 1024 * 131072  # 128 KiB a position
    assert 4.3e12 / gpu_infer.step_bytes(eight, 2, 1, 1024) == pytest.approx(283, rel=0.01)
    assert 64 * 4.3e12 / gpu_infer.step_bytes(eight, 2, 64, 1024) == pytest.approx(11_700, rel=0.02)
    one = PRESETS["llama-3.2-1b"]  # tied: its embedding is read whole, as the head
    assert gpu_infer.step_bytes(one, 2, 0, 0) == 2 * one.parameters
    sequences = gpu_infer.Sequences(numpy_engine(), 3, 50)
    found = gpu_infer.decode(sequences, 2, {"measured": 2e-6, "published": None}, NoSensors(), 0.01)
    expected = gpu_infer.step_bytes(SMALL, 4, 2, 50) / 2e6 / (found["step_ms"] / 1e3)
    assert found["roofline_share"] == {"measured": pytest.approx(expected), "published": None}
    assert found["tok_per_j"] is None
    assert found["tok_s"] == pytest.approx(2e3 / found["step_ms"])


class NoSensors:
    def joules(self):
        return None


def test_a_decode_step_is_the_one_after_the_prompts():
    """What the timed step answers is what the engine says to the same tokens, one after another."""
    sequences, out = gpu_infer.Sequences(numpy_engine(), 3, 50), gpu_infer.Out(np.zeros(2, np.int32))
    sequences.prompts_tok_s()
    sequences.engine.step(sequences.decode(2), out)
    alone, expected = gpu_infer.Sequences(numpy_engine(), 3, 50), []
    for row in range(2):
        one = gpu_infer.Out(np.zeros(1, np.int32))
        for at in range(50):
            alone.engine.step(alone.batch(range(row, row + 1), at, at + 1), one)
        expected.append(int(one.next_token[0]))
    assert out.next_token.tolist() == expected


def test_watts_are_taken_from_edge_to_edge(monkeypatch):
    now_s, edges_s = [0.0], 0.1
    monkeypatch.setattr(gpu_infer.time, "perf_counter", lambda: now_s[0])

    class Counter:  # 500 W, told each 0.1 s
        def joules(self):
            return 500 * edges_s * int(now_s[0] / edges_s)

    def step():
        now_s[0] += 0.007

    assert gpu_infer.busy_watts(step, Counter(), 2.0) == pytest.approx(500, rel=0.01)
    assert gpu_infer.busy_watts(step, NoSensors(), 2.0) is None


def test_a_front_on_a_cpu_says_how_much_of_its_idle_time_is_harvested():
    front = front_on_the_cpu()
    hashing = front.hashing_alone(0.5)
    assert hashing["gh_s"] > 0
    assert hashing["harvested_without_requests"] > 0
    runs = front.at(100, 0.5)
    front.close()
    assert {runs[name]["served"] for name in runs} == {50}
    behind = runs["hashing behind"]
    assert 0 < behind["idle_share"] < 1
    assert behind["idle_harvested"] > 0
    assert all(runs[name]["p50_ttft_ms"] <= runs[name]["p50_e2el_ms"] for name in runs)


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
