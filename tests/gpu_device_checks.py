"""What tests/test_gpu_device.py runs, each function in a process of its own: gpu_device_checks.py NAME.

The engine is NumPy's, and only says that it is on the GPU; the GPU is the fake driver's.
"""

import ctypes
import dataclasses
import sys
import threading
import time

import pytest
from backs import moves, wait_until

import wattwork as ww
from wattwork import bounds, comparison, workbench
from wattwork.data import mainnet_header
from wattwork.device import MODES
from wattwork.engines import ModelConfig
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput, RequestFailed
from wattwork.meters import Meter
from wattwork.render import gpu_state, make_console, print_devices, print_report

MODEL = ModelConfig("test", 2, 64, 4, 2, 16, 96, 128, 256, 1e4)
FREE = 256 << 20


def new_stream():
    """One of the driver's, in the GPU's context."""
    driver, context, stream = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.cuInit(0) == 0
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxPushCurrent_v2(context) == 0
    assert driver.cuStreamCreateWithPriority(ctypes.byref(stream), 1, -1) == 0
    assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
    return stream.value


STREAM = new_stream()


class FencedJob(ww.Job):
    """Notes what it is told."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.told = []

    def front_begin(self, stream):
        self.told.append(("begin", stream))
        super().front_begin(stream)

    def front_end(self, stream):
        self.told.append(("end", stream))
        super().front_end(stream)


class GpuNumPyEngine(NumPyEngine):
    """`gate`: cleared, steps wait for it after they have told the front."""

    front = None

    def __init__(self):
        super().__init__(1)
        self.warmed, self.gate, self.inside, self.broken = [], threading.Event(), threading.Event(), False
        self.gate.set()

    def load(self, config, weights, dtype="f32"):
        super().load(config, weights, "f32")
        self.caps = dataclasses.replace(self.caps, device="cuda:0", max_seqs=256, max_tokens=8192)

    def free_bytes(self):
        assert self.suspended
        return FREE

    suspended = False

    def suspend(self):
        super().suspend()
        self.suspended = True

    def warm_up(self, max_num_seqs, max_num_batched_tokens, max_model_len):
        assert self.front is None
        self.warmed.append((max_num_seqs, max_num_batched_tokens, max_model_len))

    def step(self, batch, out):
        front = self.front
        if front:
            front.front_begin(STREAM)
        try:
            self.inside.set()
            self.gate.wait(60)
            if self.broken:
                raise RuntimeError("the engine broke")
            super().step(batch, out)
        finally:
            if front:
                front.front_end(STREAM)


def made():
    engine = GpuNumPyEngine()
    engine.load(MODEL, "dummy:0")
    job = FencedJob(ww.Work.from_header(mainnet_header(0)), device="cuda:0")
    return ww.Device("cuda:0", meter=Meter(watts=100, device="cuda:0")), engine, job


def modes():
    """Each mode does its work and no other, and the engine's stream sends the job away in mixed alone."""
    device, engine, job = made()
    with device:
        device.bind(job, engine)
        assert device.threads == 2
        assert device.scheduler.stats().back_mode == "corun"
        for before in MODES:
            for after in MODES:
                device.switch(before)
                switch = device.switch(after)
                starts = {"hash": "b", "infer": "f", "mixed": "fb", "idle": ""}
                assert (switch.first_unit_s is not None) == bool(set(starts[after]) - set(starts[before]))
                assert engine.front is (job if after == "mixed" else None)
        for mode in MODES:
            device.switch(mode)
            before = len(job.told)
            phase = device.run(0.3)
            assert (phase.hashes > 0) == (mode in ("hash", "mixed"))
            assert (phase.output_tokens > 0) == (mode in ("infer", "mixed"))
            assert (len(job.told) > before) == (mode == "mixed")
        device.switch("idle")
        assert job.told[::2] == [("begin", STREAM)] * (len(job.told) // 2)
        assert job.told[1::2] == [("end", STREAM)] * (len(job.told) // 2)
        before = job.units
        time.sleep(0.1)
        assert job.units == before
        device.switch("mixed")
    assert engine.front is None


def stands(job):
    """Of what was on its way, the end is seen a moment later."""

    def still():
        before = job.units
        time.sleep(0.2)
        return job.units == before

    wait_until(still)


def beside_a_step():
    """Hashing keeps away while a step is under way, and moves by itself while none is."""
    device, engine, job = made()
    with device:
        device.bind(job, engine)
        device.switch("mixed")
        moves(job)
        engine.inside.clear()
        engine.gate.clear()
        handle = device.submit([1, 2, 3], max_tokens=3)
        assert engine.inside.wait(60)
        stands(job)
        engine.gate.set()
        assert len(handle.result()) == 3
        moves(job)
        assert device.scheduler.stats().yields == 0  # the GPU gives way by itself


def tokens():
    """What requests answer is the same beside hashing; a request that fails in a step ends the front, too."""
    device, engine, job = made()
    with device:
        device.bind(job, engine)
        device.switch("infer")
        alone = [device.submit([i, 7], max_tokens=20).result() for i in range(5)]
        device.switch("mixed")
        together = [device.submit([i, 7], max_tokens=20) for i in range(5)]
        assert [handle.result() for handle in together] == alone
        engine.broken = True
        with pytest.raises(RequestFailed, match="the engine broke"):
            device.submit([1], max_tokens=1).result()
        engine.broken = False
        assert [device.submit([i, 7], max_tokens=20).result() for i in range(5)] == alone
        wait_until(lambda: len(job.told) % 2 == 0)
        moves(job)


def bounds_of_a_gpu():
    """Of the free memory, a share for keys and values; and no longer sequences than can be gathered in the rest."""
    device, engine, job = made()
    with device:
        device.bind(job, engine)
        config = device.scheduler.config
        position_bytes = 2 * MODEL.layers * MODEL.kv_heads * MODEL.head_dim * 4
        kv_bytes = config.num_blocks * config.block_size * position_bytes
        assert 0.99 * bounds.GPU_KV_SHARE * FREE < kv_bytes <= bounds.GPU_KV_SHARE * FREE
        assert (config.max_num_seqs, config.max_num_batched_tokens, config.max_model_len) == (256, 2048, MODEL.context)
        assert engine.warmed == [(256, 2048, MODEL.context)]
        device.bind(job, engine)
        assert len(engine.warmed) == 1
    engine.config = dataclasses.replace(MODEL, context=1 << 20)
    engine.caps = dataclasses.replace(engine.caps, max_len=1 << 20)
    config = bounds.scheduler_config(engine)
    layer_bytes = config.max_num_seqs * config.max_model_len * position_bytes / MODEL.layers
    assert bounds.GATHERS * layer_bytes <= (1 - bounds.GPU_KV_SHARE) * FREE * 1.01
    assert config.max_model_len > MODEL.context


def refusals():
    device, engine, job = made()
    with device:
        plain = NumPyEngine(1)
        plain.load(MODEL, "dummy:0")
        with pytest.raises(InvalidInput, match="the engine is for device 'cpu'"):
            device.bind(job, plain)
        plain.caps = dataclasses.replace(plain.caps, device="cuda:0")
        with pytest.raises(InvalidInput, match="has no 'front'; make it a"):
            device.bind(job, plain)
        with pytest.raises(InvalidInput, match="nothing is bound"):
            _ = device.scheduler
        device.bind(job, engine)
        device.switch("mixed")
        moves(job)
    with pytest.raises(InvalidInput, match="threads is of device 'cpu'"):
        ww.Device("cuda:0", threads=2)


def compare():
    """The main job from idle to mixed on a GPU."""
    workbench.make_engine = lambda config, **options: loaded(config, options)
    workbench.Job = FencedJob
    report = comparison.compare("cuda:0", seconds=0.4, meter=Meter(device="cuda:0", watts=100.0))
    assert [phase.mode for phase in report.phases] == ["idle", "hash", "infer", "infer", "mixed"]
    mixed = report.phase("mixed")
    assert mixed.hashes > 0
    assert mixed.latency.p50_ttft_ms > 0
    assert mixed.harvested_share > 0
    assert report.proof.nonce == int.from_bytes(bytes.fromhex(report.proof.header)[76:80], "little")
    device = report.device
    assert (device["id"], device["kind"], device["isa"], device["threads_used"]) == ("cuda:0", "cuda", "sm_90", 2)
    assert (device["name"], device["sms"], device["memory_bytes"]) == ("Fake GPU 0", 2, 8 << 30)
    assert device["processor"] != device["name"]
    print(device["power_limit_w"], device["celsius"], device["sm_mhz"], device["memory_mhz"])
    state = gpu_state(device)
    assert state == (
        "" if device["celsius"] is None else f"{device['sm_mhz']} MHz, {device['celsius']} °C, limit 700 W"
    )
    console = make_console()
    with console.capture() as printed:
        print_report(report, console)
        print_devices(console)
    text = " ".join(printed.get().split())
    assert f"wattwork compare: Fake GPU 0, sm_90, {state + ', ' if state else ''}tiny-15m" in text
    assert "8.0 GiB; " + state in text if state else "GiB;" not in text
    assert ww.Report.from_json(report.to_json()).device == device


def loaded(config, options):
    assert options == {"threads": None, "device": "cuda:0"}
    engine = GpuNumPyEngine()
    engine.load(config, "dummy:0")
    engine.caps = dataclasses.replace(engine.caps, max_seqs=16)
    return engine


if __name__ == "__main__":
    globals()[sys.argv[1]]()
