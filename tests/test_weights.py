"""Dummy weights and safetensors folders."""

import json

import numpy as np
import pytest
from engine_driver import SMALL, WIDE
from hypothesis import given
from hypothesis import strategies as st

from wattwork._native import HAVE_CORE, core
from wattwork.engines import PRESETS
from wattwork.engines.philox import philox4x32
from wattwork.engines.weights import dummy_elements, dummy_tensor, each_tensor, tensors
from wattwork.errors import InvalidInput

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, answer.
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_philox_gives_the_published_words(counter, key, words):
    seed, low, high = (a | b << 32 for a, b in (key, counter[:2], counter[2:]))
    assert philox4x32(seed, np.array([low], np.uint64), high)[0].tolist() == words
    if HAVE_CORE:
        assert list(core.philox4x32(seed, low, high)) == words


@pytest.mark.core
@given(
    seed=st.integers(0, 2**64 - 1),
    tensor=st.integers(0, 300),
    first=st.integers(0, 2**40),
    n=st.integers(0, 70),
    fan_in=st.integers(1, 10**6),
)
def test_native_dummy_elements_have_the_same_bits(seed, tensor, first, n, fan_in):
    native = core.dummy_elements(seed, tensor, first, n, fan_in)
    assert native.tobytes() == dummy_elements(seed, tensor, first, n, fan_in).tobytes()


def test_pieces_fit_together():
    whole = dummy_elements(7, 3, 0, 200_000, 64)
    assert whole[65_530:131_079].tobytes() == dummy_elements(7, 3, 65_530, 65_549, 64).tobytes()
    bound = np.sqrt(3 / 64)
    assert abs(whole).max() <= bound
    assert abs(whole.mean()) < 5 * bound / np.sqrt(3 * len(whole))
    assert whole.std() == pytest.approx(1 / 8, rel=0.01)


def test_the_list_is_hugging_faces_and_counts_the_parameters():
    names = [t.name for t in tensors(SMALL)]
    assert names[:3] == [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
    ]
    assert names[-2:] == ["model.norm.weight", "lm_head.weight"]
    assert [t.name for t in tensors(WIDE)][-1] == "model.norm.weight"
    for config in (*PRESETS.values(), SMALL, WIDE):
        assert sum(int(np.prod(t.shape)) for t in tensors(config)) == config.parameters


@pytest.mark.parametrize("weights", ["dummy:", "dummy:-1", "dummy:x", f"dummy:{2**64}", "dummy", "/nowhere", ""])
def test_other_specs_are_refused(weights):
    with pytest.raises(InvalidInput, match="give"):
        each_tensor(SMALL, weights, lambda i, values: None)


# ---- safetensors
def write(path, stored):
    """stored: name -> (dtype, shape, bytes)."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in stored.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in stored.values()))


def encode(values, dtype):
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def model_of(config, dtype="F32"):
    return {t.name: (dtype, t.shape, encode(dummy_tensor(config, 5, i), dtype)) for i, t in enumerate(tensors(config))}


def collected(config, folder):
    found = {}
    each_tensor(config, str(folder), found.__setitem__)
    return [found[i] for i in range(len(tensors(config)))]


@pytest.mark.parametrize(("dtype", "error"), [("F32", 0), ("F16", 2**-11), ("BF16", 2**-7)])
def test_a_folder_is_read_in_each_dtype(tmp_path, dtype, error):
    write(tmp_path / "model.safetensors", model_of(SMALL, dtype))
    for i, values in enumerate(collected(SMALL, tmp_path)):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, dummy_tensor(SMALL, 5, i), rtol=error, atol=error * 1e-3)


def test_several_files_are_found_by_their_index(tmp_path):
    model = model_of(SMALL)
    names = list(model)
    where = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(where.values()):
        write(tmp_path / part, {name: model[name] for name in names if where[name] == part})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert collected(SMALL, tmp_path)[3].tobytes() == dummy_tensor(SMALL, 5, 3).tobytes()
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"part-1\.safetensors is missing"):
        collected(SMALL, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InvalidInput, match="weight_map"):
        collected(SMALL, tmp_path)


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    path, model = tmp_path / "model.safetensors", model_of(SMALL)
    with pytest.raises(InvalidInput, match=r"holds model\.safetensors"):
        collected(SMALL, tmp_path)
    write(path, {k: v for k, v in model.items() if k != "model.norm.weight"})
    with pytest.raises(InvalidInput, match=r"no tensor model\.norm\.weight"):
        collected(SMALL, tmp_path)
    write(path, model)
    with pytest.raises(InvalidInput, match="shape"):
        collected(WIDE, tmp_path)
    write(path, model | {"model.norm.weight": ("I64", (SMALL.hidden,), bytes(8 * SMALL.hidden))})
    with pytest.raises(InvalidInput, match="I64"):
        collected(SMALL, tmp_path)
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:20], b"", b"\xff" * 100):
        path.write_bytes(broken)
        with pytest.raises(InvalidInput, match="not a whole safetensors file"):
            collected(SMALL, tmp_path)
