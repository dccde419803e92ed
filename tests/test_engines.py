"""Engines against transformers' golden logits, and against one another."""

import numpy as np
import pytest
from engine_driver import GOLDEN, SMALL, WIDE, Driver, loaded, prompts

from wattwork._native import HAVE_CORE, core
from wattwork.engines import PRESETS, make_engine
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput, UnsupportedISA

if HAVE_CORE:
    from wattwork.engines.cpu_engine import CpuEngine

ISAS = core.decoder_isas() if HAVE_CORE else []
CONFIGS = {**PRESETS, SMALL.name: SMALL, WIDE.name: WIDE}
NEAR = 5e-5
ENGINES = [
    pytest.param(lambda: NumPyEngine(), id="numpy"),
    *(pytest.param(lambda isa=isa: CpuEngine(isa=isa), id=isa, marks=pytest.mark.core) for isa in ISAS),
]


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("name", ["small", "tiny-15m", "smol-135m"])
def test_golden_logits_and_tokens(make, name):
    config = CONFIGS[name]
    with np.load(GOLDEN) as file:
        golden = {key: file[f"{name}/{key}"] for key in ("seed", "prompt", "tokens", "ids", "logits", "first")}
    driver = Driver(loaded(make(), config, golden["seed"]), config, blocks=8)
    tokens, logits = driver.generate(golden["prompt"], len(golden["tokens"]))
    assert tokens == golden["tokens"].tolist()
    assert abs(logits[0] - golden["first"]).max() < NEAR
    assert abs(logits[:, golden["ids"]] - golden["logits"]).max() < NEAR
    driver.engine.close()


@pytest.mark.core
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("config", [SMALL, WIDE, PRESETS["tiny-15m"]], ids=lambda c: c.name)
def test_each_instruction_set_is_near_the_reference(isa, config):
    drivers = [Driver(loaded(engine, config), config) for engine in (NumPyEngine(), CpuEngine(isa=isa))]
    feeds = dict(enumerate(prompts(config, [1, 2, 15, 16, 17, 31, 64, 100])))
    for _ in range(3):
        (reference, native) = (driver.step(feeds) for driver in drivers)
        for s, (_, logits) in reference.items():
            assert abs(logits - native[s][1]).max() < NEAR
            assert native[s][0] == np.argmax(native[s][1])
        feeds = {s: [token] for s, (token, _) in reference.items()}


@pytest.mark.core
def test_a_folder_gives_what_the_same_dummy_weights_give(tmp_path):
    from test_weights import model_of, write

    write(tmp_path / "model.safetensors", model_of(SMALL))
    logits = []
    for weights in ("dummy:5", str(tmp_path)):
        engine = CpuEngine()
        engine.load(SMALL, weights)
        logits.append(Driver(engine, SMALL).generate(range(20), 4)[1])
    assert logits[0].tobytes() == logits[1].tobytes()


def test_make_engine_takes_the_best_there_is():
    engine = make_engine("tiny-15m")
    assert type(engine).__name__ == ("CpuEngine" if HAVE_CORE else "NumPyEngine")
    assert engine.caps.max_len == 2048
    assert engine.caps.batch_invariant == HAVE_CORE
    engine.close()
    with pytest.raises(InvalidInput, match="tiny-15m"):
        make_engine("tiny-16m")


@pytest.mark.core
def test_isa_is_forced_or_refused(monkeypatch):
    assert CpuEngine().isa == ISAS[0]
    monkeypatch.setenv("WATTWORK_ISA", "portable")
    assert CpuEngine().isa == "portable"
    monkeypatch.setenv("WATTWORK_ISA", "shani")  # an instruction set of hashing alone
    assert CpuEngine().isa == ISAS[0]
    monkeypatch.setenv("WATTWORK_ISA", "nonesuch")
    with pytest.raises(UnsupportedISA, match="WATTWORK_ISA=nonesuch"):
        CpuEngine()
    with pytest.raises(UnsupportedISA, match="portable"):
        CpuEngine(isa="shani")
    with pytest.raises(InvalidInput, match="threads"):
        CpuEngine(threads=0)
