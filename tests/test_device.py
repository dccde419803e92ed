"""The device: modes, switches, windows; on whatever engine and search this installation has."""

import threading
import time

import numpy as np
import pytest

import wattwork as ww
from wattwork.data import mainnet_header
from wattwork.device import MODES, Device
from wattwork.engines import ModelConfig
from wattwork.meters import Meter
from wattwork.trace import Trace

MODEL = ModelConfig("test", 2, 64, 4, 2, 16, 96, 128, 256, 1e4)


@pytest.fixture(scope="module")
def engine():
    made = ww.make_engine(MODEL, threads=2)
    yield made
    made.close()


@pytest.fixture
def job():
    return ww.Job(ww.Work.from_header(mainnet_header(0)))


@pytest.fixture
def device():
    with Device("cpu", meter=Meter("external", watts=10.0)) as made:
        yield made


def trace_of(*requests: tuple[float, int, int]) -> Trace:
    arrival, prompt, output = zip(*requests, strict=True)
    return Trace(np.array(arrival, float), np.array(prompt), np.array(output), "test")


def test_every_mode_does_its_work_and_no_other(device, engine, job):
    device.bind(job, engine)
    for mode in MODES:
        device.switch(mode)
        phase = device.run(0.3)
        assert phase.mode == mode == device.mode
        assert phase.seconds >= 0.3
        # In mixed the front is flat out here, and leaves hashing nothing; in the trace test it leaves gaps.
        assert (phase.hashes > 0) == (mode == "hash") or mode == "mixed"
        assert (phase.output_tokens > 0) == (mode in ("infer", "mixed"))
        assert phase.power.joules == pytest.approx(10.0 * phase.seconds, rel=0.05)
        assert phase.power.source == "external"
        assert phase.samples[-1]["hashes"] == phase.hashes


def test_every_switch_states_both_times(device, engine, job):
    device.bind(job, engine)
    for before in MODES:
        for after in MODES:
            device.switch(before)
            switch = device.switch(after)
            starts = {"hash": "b", "infer": "f", "mixed": "fb", "idle": ""}
            new = set(starts[after]) - set(starts[before])
            assert (switch.from_mode, switch.to_mode) == (before, after)
            assert switch.command_s >= 0
            assert (switch.first_unit_s is not None) == bool(new)
            assert switch.first_unit_s is None or switch.first_unit_s >= switch.command_s


@pytest.mark.parametrize("isa", ww.isas())
def test_the_back_stands_still_once_switched_off(device, job, isa):
    job = ww.Job(job.work, isa)
    device.bind(job)
    device.switch("hash")
    device.switch("idle")
    units = job.units
    time.sleep(0.1)
    assert job.units == units > 0


def test_a_trace_is_played_to_its_end_with_hashing_in_its_gaps(device, engine, job):
    device.bind(job, engine, trace_of((0.0, 8, 4), (0.1, 8, 1), (0.2, 16, 4)))
    device.switch("mixed")
    phase = device.run(0.3)
    assert (phase.scenario, phase.output_tokens, phase.prompt_tokens) == ("trace", 9, 32)
    assert phase.hashes > 0
    assert phase.latency.p50_ttft_ms > 0
    assert phase.latency.p50_tpot_ms > 0


def test_a_trace_whose_requests_fail_is_no_result(device, engine, monkeypatch):
    device.bind(engine=engine, trace=trace_of((0.0, 8, 4)))
    device.switch("infer")
    submit = device.scheduler.submit
    monkeypatch.setattr(device.scheduler, "submit", lambda *a, **options: submit(*a, timeout_ms=1e-6, **options))
    with pytest.raises(ww.RequestFailed, match="timed out"):
        device.run(0.1)


def test_requests_in_flight_are_finished_before_the_front_stops(device, engine, job):
    device.bind(job, engine)
    device.switch("infer")
    handle = device.submit([1, 2, 3], max_tokens=100)
    device.switch("hash")
    assert len(handle.result()) == 100


def test_tokens_are_the_same_alone_and_beside_others(device, engine, job):
    device.bind(job, engine)
    device.switch("infer")
    alone = [device.submit([i, 7], max_tokens=20).result() for i in range(5)]
    device.switch("mixed")
    together = [device.submit([i, 7], max_tokens=20) for i in range(5)]
    assert [handle.result() for handle in together] == alone


def test_a_window_can_be_interrupted_and_the_device_goes_on(device, job):
    device.bind(job)
    device.switch("hash")

    def tick():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run(10, tick=tick)
    device.switch("idle")
    assert device.run(0.1).hashes == 0


def test_closing_in_any_mode_leaves_no_thread(engine, job):
    before = threading.active_count()
    for mode in MODES:
        with Device("cpu", meter=Meter("external", watts=10.0)) as device:
            device.bind(job, engine)
            device.switch(mode)
    assert threading.active_count() == before


def test_wrong_input_is_one_sentence_that_names_what_to_change(device, engine, job):
    with pytest.raises(ww.InvalidInput, match="choose 'cpu', or a GPU"):
        Device("gpu")
    with pytest.raises(ww.InvalidInput, match="threads must be from 1 to 1024"):
        Device("cpu", threads=0)
    with pytest.raises(ww.InvalidInput, match=r"bind\(job=Job"):
        device.switch("hash")
    with pytest.raises(ww.InvalidInput, match=r"bind\(engine="):
        device.switch("infer")
    with pytest.raises(ww.InvalidInput, match="choose one of idle, hash, infer, mixed"):
        device.switch("sleep")
    with pytest.raises(ww.InvalidInput, match="needs an engine"):
        device.bind(job, trace=trace_of((0.0, 8, 4)))
    with pytest.raises(ww.InvalidInput, match="longest request has 300 tokens"):
        device.bind(job, engine, trace_of((0.0, 299, 1)))
    device.bind(job, engine)
    with pytest.raises(ww.InvalidInput, match="seconds must be above 0"):
        device.run(0)
    with pytest.raises(ww.InvalidInput, match="switch\\('infer'\\)"):
        device.submit([1], max_tokens=1)
    device.switch("hash")
    with pytest.raises(ww.InvalidInput, match="another job"):
        device.bind(ww.Job(job.work), engine)
    with pytest.raises(ww.InvalidInput, match="another engine"):
        device.bind(job)
