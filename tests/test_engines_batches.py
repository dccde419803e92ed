"""Bad batches get one clear sentence; engines live, sleep and end as the protocol says."""

import dataclasses

import numpy as np
import pytest
from engine_driver import SMALL, Driver, loaded

from wattwork._native import HAVE_CORE
from wattwork.engines import SAMPLING, ModelConfig
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput

if HAVE_CORE:
    from wattwork.engines.cpu_engine import CpuEngine


@pytest.fixture(params=["numpy", pytest.param("native", marks=pytest.mark.core)])
def engine(request):
    return NumPyEngine() if request.param == "numpy" else CpuEngine(2)


def i32(*values):
    return np.array(values, np.int32)


def sampling(**changed):
    one = {"temperature": 1, "top_p": 1, "repetition_penalty": 1, "top_k": 0, "seed": 0} | changed
    return np.array([(0, 1, 1, 0, 0), tuple(one[name] for name, _ in SAMPLING)], SAMPLING)


TABLE = [[3, -1], [5, 6]]  # what the good batch has: 4 tokens at 0, and 2 at 15 and 16
BAD = [
    ({"tokens": i32(1, 2, 3, 211, 5, 6)}, "token ids"),
    ({"tokens": i32(1, 2, 3, -1, 5, 6)}, "token ids"),
    ({"tokens": i32(1, 2, 3, 4, 5)}, "shape"),
    ({"tokens": np.arange(6)}, "tokens must be .* int32"),
    ({"q_start": i32(0, 4, 5)}, "q_start"),
    ({"q_start": i32(1, 4, 6)}, "q_start"),
    ({"q_start": i32(0, 0, 6)}, "q_start"),
    ({"q_start": i32(0, 7, 6)}, "q_start"),
    ({"q_start": i32(0, 6)}, "shape"),
    ({"ctx_len": i32(0, -1)}, "context"),
    ({"ctx_len": i32(0, 255)}, "context"),
    ({"ctx_len": i32(0, 2**31 - 1)}, "context"),
    ({"ctx_len": i32(0, 31)}, "columns"),
    ({"block_table": np.array([[3, -1], [5, 8]], np.int32)}, "block ids"),
    ({"block_table": np.array([[-1, -1], [5, 6]], np.int32)}, "block ids"),
    ({"block_table": np.array([[3, -1]], np.int32)}, "shape"),
    ({"block_table": np.array([[3], [5]], np.int32)}, "columns"),
    ({"block_table": np.array(TABLE, np.int32).T.copy().T}, "C-contiguous"),
    ({"slot_map": i32(48, 49, 50, 52, 95, 96)}, "slot_map"),
    ({"slot_map": i32(48, 49, 50, 51, 95, 2**31 - 1)}, "slot_map"),
    ({"slot_map": i32(48, 49, 50, 51, 95, -1)}, "slot_map"),
    ({"want_logits": np.ones(3, np.uint8)}, "shape"),
    ({"sampling": sampling(temperature=-1)}, "sampling"),
    ({"sampling": sampling(temperature=np.nan)}, "sampling"),
    ({"sampling": sampling(top_p=0)}, "sampling"),
    ({"sampling": sampling(top_p=1.5)}, "sampling"),
    ({"sampling": sampling(top_k=-1)}, "sampling"),
    ({"sampling": sampling(repetition_penalty=0)}, "sampling"),
    ({"sampling": sampling()[:1]}, "sampling"),
    ({"sampling": np.zeros(2)}, "sampling"),
]


def good(engine):
    batch, out = Driver(loaded(engine, SMALL), SMALL, blocks=8).batch({0: [1, 2, 3, 4], 1: [5, 6]})
    slots = i32(48, 49, 50, 51, 95, 96)
    return dataclasses.replace(batch, ctx_len=i32(0, 15), block_table=np.array(TABLE, np.int32), slot_map=slots), out


@pytest.mark.parametrize(("changed", "sentence"), BAD)
def test_a_bad_batch_is_refused(engine, changed, sentence):
    batch, out = good(engine)
    with pytest.raises(InvalidInput, match=sentence):
        engine.step(dataclasses.replace(batch, **changed), out)
    engine.step(batch, out)  # and the engine lives on
    assert (out.next_token >= 0).all()


def test_a_slot_is_written_once_a_step(engine):
    batch, out = good(engine)
    table = np.array([[3, -1], [3, 6]], np.int32)
    shared = dataclasses.replace(batch, block_table=table, ctx_len=i32(0, 3), slot_map=i32(48, 49, 50, 51, 51, 52))
    with pytest.raises(InvalidInput, match="same slot"):
        engine.step(shared, out)


def test_a_bad_out_is_refused(engine):
    batch, out = good(engine)
    for bad in (
        dataclasses.replace(out, next_token=np.zeros(1, np.int32)),
        dataclasses.replace(out, next_token=np.zeros(2, np.int64)),
        dataclasses.replace(out, logits=np.zeros((2, 7), np.float32)),
        dataclasses.replace(out, logits=np.zeros((2, 211))),
    ):
        with pytest.raises(InvalidInput, match=r"out\."):
            engine.step(batch, bad)


def test_only_wanted_rows_are_written(engine):
    driver = Driver(loaded(engine, SMALL), SMALL)
    batch, out = driver.batch({0: [1, 2], 1: [3]}, want=[0, 1])
    out.logits[:] = 9
    engine.step(batch, out)
    assert out.next_token[0] == -1
    assert (out.logits[0] == 9).all()
    assert out.next_token[1] == np.argmax(out.logits[1])
    no_logits = dataclasses.replace(out, logits=None, next_token=np.zeros(2, np.int32))
    engine.step(batch, no_logits)
    assert no_logits.next_token.tolist() == out.next_token.tolist()


def test_no_weights_and_no_kv_are_said(engine):
    batch, out = good(engine)
    engine.suspend()
    with pytest.raises(InvalidInput, match="no KV cache"):
        engine.step(batch, out)
    engine.resume()
    engine.step(batch, out)
    with pytest.raises(InvalidInput, match="at least"):
        engine.alloc_kv(100)
    engine.close()
    with pytest.raises(InvalidInput, match="load"):
        engine.step(batch, out)
    with pytest.raises(InvalidInput, match="f32"):
        engine.load(SMALL, "dummy:0", "bf16")


def test_suspend_forgets_the_cache_and_keeps_the_weights(engine):
    driver = Driver(loaded(engine, SMALL), SMALL)
    first = driver.generate([1, 2, 3], 3)
    engine.suspend()
    engine.resume()
    again = driver.generate([1, 2, 3], 3, s=1)
    assert first[0] == again[0]
    np.testing.assert_allclose(first[1], again[1], atol=1e-5)


def test_models_that_cannot_be_are_refused(engine):
    with pytest.raises(InvalidInput, match="kv_heads"):
        engine.load(ModelConfig("bad", 1, 32, 3, 2, 16, 32, 64, 64, 1e4), "dummy:0")
    with pytest.raises(InvalidInput, match="seed"):
        engine.load(SMALL, "dummy:one")


@pytest.mark.core
def test_native_address_and_head_dim():
    engine = loaded(CpuEngine(), SMALL)
    assert engine.native != 0
    with pytest.raises(InvalidInput, match="multiple of 16"):
        engine.load(ModelConfig("bad", 1, 32, 2, 2, 8, 32, 64, 64, 1e4), "dummy:0")
