"""The PyTorch engine on the CPU, held to transformers' golden logits and to the NumPy engine; `make test-torch`."""

import contextlib
import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an extra, and tested by `make test-torch`")

from engine_driver import BLOCK, GOLDEN, SMALL, WIDE, Driver, loaded, prompts  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_engines_batches import BAD, good  # noqa: E402
from test_engines_invariance import schedule  # noqa: E402
from test_scheduler_engines import MODEL, run  # noqa: E402
from test_weights import model_of, write  # noqa: E402

from wattwork._native import core  # noqa: E402
from wattwork.engines import PRESETS, SAMPLING, ModelConfig, RopeScaling, torch_model  # noqa: E402
from wattwork.engines.numpy_engine import NumPyEngine  # noqa: E402
from wattwork.engines.philox import philox4x32  # noqa: E402
from wattwork.engines.sampling import sample  # noqa: E402
from wattwork.engines.torch_buckets import BLOCK_SIZE, bucket_columns, bucket_rows, buckets  # noqa: E402
from wattwork.engines.torch_engine import TorchEngine  # noqa: E402
from wattwork.engines.weights import tensors  # noqa: E402
from wattwork.errors import InvalidInput  # noqa: E402
from wattwork.scheduler import Sampling  # noqa: E402

torch.set_num_threads(1)  # OpenMP's threads spin while they wait: on a busy machine minutes become tens of minutes
NEAR = 5e-5
CONFIGS = {**PRESETS, SMALL.name: SMALL, WIDE.name: WIDE}


@pytest.fixture
def engine():
    return TorchEngine("cpu")


def reference(config, seed=0):
    return loaded(NumPyEngine(), config, seed)


# ---- weights


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**64 - 1), high=st.integers(0, 2**31), first=st.integers(0, 2**32 - 40))
def test_philox_is_the_one_of_the_other_engines(seed, high, first):
    low = np.arange(first, first + 33)
    made = torch_model.philox4x32(seed, torch.from_numpy(low), high).numpy()
    assert (made == philox4x32(seed, low.astype(np.uint64), high)).all()


def test_dummy_weights_have_the_core_engines_bits(monkeypatch):
    monkeypatch.setattr(torch_model, "_PIECE", 10_007)
    config, seed = PRESETS["tiny-15m"], 2**63 + 5
    model = torch_model.TorchModel(config, f"dummy:{seed}", torch.float32, torch.device("cpu"))
    for index, (made, listed) in enumerate(zip(model.tensors(), tensors(config), strict=True)):
        assert tuple(made.shape) == listed.shape
        if made.ndim == 1:
            assert (made == 1).all()
        else:
            native = core.dummy_elements(seed, index, 0, made.numel(), listed.shape[1])
            assert made.numpy().tobytes() == native.tobytes(), listed.name


def test_bf16_weights_are_the_rounded_ones(engine):
    engine.load(SMALL, "dummy:1", "bf16")
    whole = torch_model.TorchModel(SMALL, "dummy:1", torch.float32, torch.device("cpu"))
    for rounded, exact in zip(engine._model.tensors(), whole.tensors(), strict=True):
        assert rounded.dtype == torch.bfloat16
        assert torch.equal(rounded, exact.bfloat16())


def test_a_folder_gives_what_the_same_dummy_weights_give(engine, tmp_path):
    write(tmp_path / "model.safetensors", model_of(SMALL))
    logits = []
    for weights in ("dummy:5", str(tmp_path)):
        engine.load(SMALL, weights)
        logits.append(Driver(engine, SMALL).generate(range(20), 4)[1])
    assert logits[0].tobytes() == logits[1].tobytes()


# ---- logits


@pytest.mark.parametrize("name", ["small", "tiny-15m", "smol-135m"])
def test_golden_logits_and_tokens(engine, name):
    config = CONFIGS[name]
    with np.load(GOLDEN) as file:
        golden = {key: file[f"{name}/{key}"] for key in ("seed", "prompt", "tokens", "ids", "logits", "first")}
    driver = Driver(loaded(engine, config, golden["seed"]), config, blocks=8)
    tokens, logits = driver.generate(golden["prompt"], len(golden["tokens"]))
    assert tokens == golden["tokens"].tolist()
    assert abs(logits[0] - golden["first"]).max() < NEAR
    assert abs(logits[:, golden["ids"]] - golden["logits"]).max() < NEAR


def test_scaled_rotary_positions_are_transformers(engine):
    """A context far beyond the one of the first training, so that all three kinds of wavelengths matter."""
    from golden.make_golden import llama  # needs transformers

    c = dataclasses.replace(SMALL, context=512, rope_scaling=RopeScaling(8, 1, 4, 32), head_dim=32)
    model = llama(c, "dummy:0")
    frequencies = model.model.rotary_emb.inv_freq.numpy()
    plain = np.array(dataclasses.replace(c, rope_scaling=None).rope_frequencies)
    assert frequencies == pytest.approx(c.rope_frequencies, rel=1e-6)
    assert {0.125, 1.0} < {round(float(r), 6) for r in frequencies / plain}
    prompt = prompts(c, [400])[0]
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0, -1].numpy()
    _, logits = Driver(loaded(engine, c), c).step({0: prompt})[0]
    assert abs(logits - expected).max() < NEAR


@pytest.mark.parametrize("config", [SMALL, WIDE, PRESETS["tiny-15m"]], ids=lambda c: c.name)
def test_ragged_batches_are_near_the_reference(engine, config):
    drivers = [Driver(reference(config), config), Driver(loaded(engine, config), config, seed=3)]
    feeds = dict(enumerate(prompts(config, [1, 2, 15, 16, 17, 31, 64, 100, 1, 1])))
    late = dict(enumerate(prompts(config, [40, 3], seed=8), start=20))
    for i in range(5):
        expected, answers = (driver.step(feeds) for driver in drivers)
        for s, (token, logits) in expected.items():
            assert abs(logits - answers[s][1]).max() < NEAR
            assert answers[s][0] == token
        feeds = {s: [token] for s, (token, _) in expected.items()} | (late if i == 1 else {})


@pytest.fixture(scope="module")
def alone():
    sequences = prompts(SMALL, [40, 7, 65, 18, 33])
    driver = Driver(reference(SMALL), SMALL)
    return sequences, [driver.generate(prompt, 1, s) for s, prompt in enumerate(sequences)]


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 99))
def test_any_schedule_of_chunks_is_near_the_reference(alone, data, seed):
    sequences, expected = alone
    driver = Driver(loaded(TorchEngine("cpu"), SMALL), SMALL, seed=seed)
    for feeds in schedule(data.draw, sequences):
        for s, (token, logits) in driver.step(feeds).items():
            if len(driver.tokens[s]) == len(sequences[s]):
                assert abs(logits - expected[s][1][0]).max() < NEAR
                assert token == expected[s][0][0]


@pytest.mark.parametrize("pieces", [False, True])
def test_contexts_beyond_a_bucket_and_chunks_cut_up(engine, monkeypatch, pieces):
    if pieces:
        monkeypatch.setattr(torch_model, "_MASK", 1 << 16)
    config = PRESETS["tiny-15m"]
    drivers = [
        Driver(reference(config), config, blocks=200),
        Driver(loaded(engine, config), config, blocks=200, seed=2),
    ]
    first, second = prompts(config, [1300, 255])
    for feeds in ({0: first[:700], 1: second}, {0: first[700:], 1: [5]}, {0: [1], 1: [2]}, {0: [3], 1: [4]}):
        expected, answers = (driver.step(feeds) for driver in drivers)
        for s in feeds:
            assert abs(expected[s][1] - answers[s][1]).max() < NEAR


def test_what_others_left_in_the_cache_is_not_seen(engine):
    """Slots of blocks that other sequences held are not zero; what a row reads beyond its own is, also times NaN."""
    driver = Driver(loaded(engine, SMALL), SMALL)
    expected = driver.generate([1, 2, 3], 3)[1]
    with torch.inference_mode():
        for cache in engine._kv:
            cache.fill_(float("nan"))
    assert np.array_equal(driver.generate([1, 2, 3], 3, s=1)[1], expected)


def test_a_padded_row_writes_nothing_of_its_own(engine):
    """The bucket's fourth row once was a sequence whose block another has by now."""
    drivers = [Driver(reference(SMALL), SMALL), Driver(loaded(engine, SMALL), SMALL)]
    for feeds in ({s: [s, 7] for s in range(4)}, {s: [9] for s in range(4)}):
        for driver in drivers:
            driver.step(feeds)
    for driver in drivers:
        driver.blocks[9] = driver.blocks.pop(3)
    for feeds in ({9: [1, 2, 3, 4, 5]}, {s: [8] for s in range(3)}, {9: [6]}):
        expected, answers = (driver.step(feeds) for driver in drivers)
        for s in feeds:
            assert abs(expected[s][1] - answers[s][1]).max() < NEAR


def test_bf16_is_near_on_the_same_tokens(engine):
    """Teacher-forced: both engines are given the reference's tokens."""
    for name in ("tiny-15m", "smol-135m"):
        config = PRESETS[name]
        engine.load(config, "dummy:0", "bf16")
        assert engine.caps.dtype == "bf16"
        drivers = [Driver(reference(config), config, blocks=32), Driver(engine, config, blocks=32)]
        feeds, differences, agreed = dict(enumerate(prompts(config, [20, 1, 33, 50]))), [], []
        for _ in range(15):
            expected, answers = (driver.step(feeds) for driver in drivers)
            for s, (token, logits) in expected.items():
                differences.append(abs(logits - answers[s][1]))
                agreed.append(answers[s][0] == token)
            feeds = {s: [token] for s, (token, _) in expected.items()}
        assert np.max(differences) < 0.25
        assert np.mean(differences) < 0.03
        assert np.max(differences) > 1e-4  # it is bf16
        assert np.mean(agreed) >= 0.9


# ---- under the scheduler


@pytest.mark.parametrize("sampling", [None, Sampling(repetition_penalty=1.3, temperature=0.7, top_k=9, seed=4)])
def test_any_schedule_gives_the_references_tokens(loop, engine, sampling):
    rng = np.random.default_rng(5)
    requests = [(rng.integers(0, MODEL.vocab, rng.integers(1, 60)), int(rng.integers(1, 60))) for _ in range(12)]
    expected, _ = run(reference(MODEL, 3), requests, sampling=sampling, max_num_seqs=1, max_num_batched_tokens=128)
    crowd, stats = run(loaded(engine, MODEL, 3), requests, sampling, max_num_seqs=6, max_num_batched_tokens=24)
    assert stats.num_preemptions > 0
    assert crowd == expected


# ---- sampling


@settings(deadline=None, max_examples=30)
@given(
    batch=st.lists(
        st.tuples(
            st.sampled_from([0, 0.5, 1, 2]),
            st.floats(2**-6, 1, width=32),
            st.floats(0.5, 2, width=32),
            st.integers(0, 300),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=6,
    ),
    want_logits=st.booleans(),
    chunk=st.booleans(),
)
def test_sampled_tokens_are_what_the_rules_say(small_engine, batch, want_logits, chunk):
    driver = Driver(small_engine, SMALL)
    drawn, out = driver.batch({s: [7, 7, s + 20] if chunk else [7] for s in range(len(batch))})
    drawn = dataclasses.replace(drawn, sampling=np.array(batch, SAMPLING))
    logits = out.logits
    if not want_logits:
        small_engine.step(drawn, out)
        small_engine.sync()
        out = dataclasses.replace(out, logits=None)
    small_engine.step(drawn, out)
    small_engine.sync()
    for s, sampling in enumerate(drawn.sampling):
        history = drawn.tokens[drawn.q_start[s] : drawn.q_start[s + 1]]
        assert out.next_token[s] == sample(logits[s], sampling, history)


@pytest.fixture(scope="module")
def small_engine():
    return loaded(TorchEngine("cpu"), SMALL)


# ---- the protocol


@pytest.mark.parametrize(("changed", "sentence"), BAD)
def test_a_bad_batch_is_refused(engine, changed, sentence):
    batch, out = good(engine)
    with pytest.raises(InvalidInput, match=sentence):
        engine.step(dataclasses.replace(batch, **changed), out)
    engine.step(batch, out)  # and the engine lives on
    engine.sync()
    assert (out.next_token >= 0).all()


@pytest.mark.parametrize("chunk", [[1, 2], [1]])
def test_only_wanted_rows_are_written_and_only_at_sync(engine, chunk):
    driver = Driver(loaded(engine, SMALL), SMALL)
    batch, out = driver.batch({0: chunk, 1: [3]}, want=[0, 1])
    out.logits[:] = 9
    engine.step(batch, out)
    assert (out.next_token == -7).all()
    assert (out.logits == 9).all()
    again = dataclasses.replace(out, next_token=np.full(2, -7, np.int32), logits=None)
    engine.step(batch, again)  # ends the step before
    assert (out.logits[0] == 9).all()
    assert out.next_token.tolist() == [-1, np.argmax(out.logits[1])]
    assert (again.next_token == -7).all()
    engine.sync()
    assert again.next_token.tolist() == out.next_token.tolist()
    engine.sync()


def test_a_step_of_which_no_token_is_wanted(engine):
    driver = Driver(loaded(engine, SMALL), SMALL)
    for feeds in ({0: [1, 2], 1: [3]}, {0: [4], 1: [5]}):
        assert [token for token, _ in driver.step(feeds, want=[0, 0]).values()] == [-1, -1]


def test_no_weights_and_no_kv_are_said(engine):
    batch, out = good(engine)
    engine.suspend()
    with pytest.raises(InvalidInput, match="no KV cache"):
        engine.step(batch, out)
    engine.resume()
    engine.step(batch, out)
    for budget in (0, 100):
        with pytest.raises(InvalidInput, match="at least"):
            engine.alloc_kv(budget)
    least = 2 * SMALL.layers * SMALL.kv_heads * SMALL.head_dim * 4 * BLOCK_SIZE
    assert engine.alloc_kv(least) == 1
    engine.close()
    for act in (lambda: engine.step(batch, out), lambda: engine.alloc_kv(1 << 20)):
        with pytest.raises(InvalidInput, match="load"):
            act()
    with pytest.raises(InvalidInput, match="f32 or bf16"):
        engine.load(SMALL, "dummy:0", "f16")
    with pytest.raises(InvalidInput, match="kv_heads"):
        engine.load(ModelConfig("bad", 1, 32, 3, 2, 16, 32, 64, 64, 1e4), "dummy:0")
    with pytest.raises(InvalidInput, match="seed"):
        engine.load(SMALL, "dummy:one")


def test_suspend_forgets_the_cache_and_keeps_the_weights(engine):
    driver = Driver(loaded(engine, SMALL), SMALL)
    first = driver.generate([1, 2, 3], 3)
    engine.suspend()
    assert not engine._kv
    engine.resume()
    assert not any(cache.any() for cache in engine._kv)
    again = driver.generate([1, 2, 3], 3, s=1)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])


def test_devices_that_are_not_here():
    for name in ("cuda", "tpu:0", "cuda:x", "cpu:0"):
        with pytest.raises(InvalidInput, match="runs on 'cpu' or 'cuda:0'"):
            TorchEngine(name)
    with pytest.raises(InvalidInput, match="there is no cuda:99"):
        TorchEngine("cuda:99")


# ---- hashing on the same GPU


class Told:
    """A front that notes what it is told, and how many steps were enqueued by then."""

    def __init__(self):
        self.calls = []

    def front_begin(self, stream):
        self.calls.append(("begin", stream))

    def front_end(self, stream):
        self.calls.append(("end", stream))


def test_the_front_is_told_of_each_step_and_only_while_it_is_set(engine, monkeypatch):
    driver, told = Driver(loaded(engine, SMALL), SMALL), Told()
    for name in ("_forward", "_ragged"):
        real = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda *a, real=real, name=name: (told.calls.append(name), real(*a))[1])
    driver.step({0: [1, 2], 1: [3]})
    assert told.calls == ["_ragged"]
    for feeds, kind in (({0: [4], 1: [5]}, "_forward"), ({0: [6, 7]}, "_ragged")):
        told.calls.clear()
        engine.front = told
        driver.step(feeds)
        assert told.calls == [("begin", 0), kind, ("end", 0)]
        told.calls.clear()
        engine.front = None
        driver.step({1: [8]})
        assert told.calls == ["_forward"]


def test_the_front_ends_with_a_step_that_fails_and_with_the_one_it_began_with(engine, monkeypatch):
    driver, told = Driver(loaded(engine, SMALL), SMALL), Told()
    engine.front = told

    def fails(*_):
        engine.front = None  # as the device may in the middle of a step
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "_ragged", fails)
    batch, out = driver.batch({0: [1, 2]})
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step(batch, out)
    assert told.calls == [("begin", 0), ("end", 0)]
    engine.front = told
    engine.sync()  # nothing is pending
    with pytest.raises(InvalidInput):
        engine.step(dataclasses.replace(batch, tokens=batch.tokens + 1000), out)
    assert len(told.calls) == 2  # a batch that is refused enqueues nothing


class Stream:
    cuda_stream = 7

    def synchronize(self):
        pass


class Graph:
    """What its capture computed stays as it is."""

    def replay(self):
        pass


@pytest.fixture
def captured(engine, monkeypatch):
    """The buckets that were captured, and what the front was told, on an engine that takes the CPU for a GPU."""
    notes, make = [], torch.empty

    def capture(model, bucket):
        notes.append((bucket.rows, bucket.columns))
        engine._forward(model, bucket)
        bucket.graph = Graph()

    monkeypatch.setattr(engine, "stream", Stream())
    monkeypatch.setattr(engine, "_working", contextlib.nullcontext)
    monkeypatch.setattr(engine, "_capture", capture)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **how: make(*shape, **how))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return notes


def test_a_capture_is_never_within_the_front(engine, captured):
    """It waits for the whole GPU, hence for hashing that waits for the front's end."""
    driver, engine.front = Driver(loaded(engine, SMALL), SMALL), Told()
    engine.front.calls = captured
    driver.step({0: [1]})
    assert captured == [(1, 16), ("begin", 7), ("end", 7)]
    driver.step({0: [2]})
    assert captured[3:] == [("begin", 7), ("end", 7)]


def test_warming_up_captures_every_bucket_the_largest_first(engine, captured):
    driver = Driver(loaded(engine, SMALL), SMALL)
    engine.warm_up(9, 64, 256)
    assert captured == [(1, 16), (16, 16), (8, 16), (4, 16), (2, 16)]  # a chunk of one token is a step of the first
    captured.clear()
    driver.step({s: [s] for s in range(9)})
    assert captured == []


@pytest.mark.parametrize("blocks", [3, 40])
def test_warmed_up_it_answers_as_ever(engine, blocks):
    reference_tokens = Driver(reference(SMALL), SMALL).generate([1, 2, 3], 4)[0]
    driver = Driver(loaded(engine, SMALL), SMALL, blocks=blocks)
    engine.warm_up(8, 64, 256)
    assert driver.generate([1, 2, 3], 4)[0] == reference_tokens


def test_free_memory_is_a_number_of_bytes(engine):
    assert 1 << 20 < engine.free_bytes() < 1 << 50


# ---- buckets, and what a CUDA graph asks of a step


@given(n=st.integers(1, 256), positions=st.integers(1, 131072))
def test_buckets_hold_what_they_are_for(n, positions):
    assert n <= bucket_rows(n) < 2 * n
    length = bucket_columns(positions) * BLOCK
    assert positions <= length < positions + max(256, positions / 4)
    assert bucket_columns(length) * BLOCK == length


@given(n=st.integers(1, 256), positions=st.integers(1, 20000), within=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_all_buckets_are_listed(n, positions, within):
    of = max(1, round(n * within[0])), max(1, round(positions * within[1]))
    listed = buckets(n, positions)
    assert (bucket_rows(of[0]), bucket_columns(of[1])) in listed
    assert listed[-1] == (bucket_rows(n), bucket_columns(positions))


def test_there_are_few_buckets():
    assert len(buckets(256, 16384)) < 200
    assert len({bucket_columns(p) for p in range(1, 131073)}) < 36


def test_a_recorded_step_is_right_for_other_batches(engine):
    """A graph repeats its kernels on its static inputs: whatever Python took from the first batch would be wrong for
    the second. Recording the operations shows the same without a GPU."""
    from torch.fx.experimental.proxy_tensor import make_fx

    driver = Driver(loaded(engine, SMALL), SMALL, blocks=128, seed=4)
    sequences = prompts(SMALL, [5, 90, 17, 33])
    tokens = {s: driver.step({s: prompt})[s][0] for s, prompt in enumerate(sequences)}
    recorded = {}

    class Recorded:
        def __init__(self, bucket):
            def forward(inputs):
                engine._forward(engine._model, bucket)
                return bucket.logits, bucket.ids

            self.bucket, self.run = bucket, make_fx(forward)(bucket.inputs)

        def replay(self):
            self.bucket.logits, self.bucket.ids = self.run(self.bucket.inputs)

    for step in range(4):
        feeds = {s: [tokens[s]] for s in (0, 1, 2, 3) if (s, step) != (3, 2)}
        batch, out = driver.batch(feeds)
        for bucket in engine._buckets.values():
            bucket.graph = None
        engine.step(batch, out)
        engine.sync()
        replayed = dataclasses.replace(out, next_token=out.next_token * 0, logits=out.logits * 0)
        if step == 0:
            with torch.inference_mode():
                recorded = {key: Recorded(bucket) for key, bucket in engine._buckets.items() if key == (4, 16)}
            assert recorded
        for key, graph in recorded.items():
            engine._buckets[key].graph = graph
        with torch.inference_mode():
            for cache in engine._kv:  # the step writes these slots anew
                cache[torch.from_numpy(batch.slot_map).long()] = 0
        engine.step(batch, replayed)
        engine.sync()
        assert np.array_equal(out.logits, replayed.logits)
        assert np.array_equal(out.next_token, replayed.next_token)
        for i, s in enumerate(feeds):
            driver.tokens[s] += feeds[s]
            tokens[s] = int(out.next_token[i])
