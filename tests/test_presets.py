"""Models by name: their shapes, their rotary positions, and which engine makes them."""

import math
import sys

import pytest

from wattwork.engines import PRESETS, ModelConfig, RopeScaling, make_engine, preset
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.errors import InvalidInput


def test_parameters_are_the_published_numbers():
    assert PRESETS["llama-3.2-1b"].parameters == 1_235_814_400
    assert PRESETS["llama-3.1-8b"].parameters == 8_030_261_248


def test_frequencies_without_scaling_fall_from_one():
    config = PRESETS["smol-135m"]
    frequencies = config.rope_frequencies
    assert len(frequencies) == 32
    assert frequencies[0] == 1
    assert frequencies[-1] == pytest.approx(config.rope_theta ** (-62 / 64))


def test_long_wavelengths_are_stretched_short_ones_kept_and_those_between_go_over():
    scaling = RopeScaling(8, 1, 4, 8192)
    assert scaling.scaled(1.0) == 1.0
    assert scaling.scaled(2 * math.pi * 4 / 8192) == pytest.approx(2 * math.pi * 4 / 8192)
    assert scaling.scaled(2 * math.pi / 8192) == pytest.approx(2 * math.pi / 8192 / 8)
    assert scaling.scaled(1e-6) == 1e-6 / 8
    middle = 2 * math.pi * 2.5 / 8192  # half of the way from 1 to 4 turns
    assert scaling.scaled(middle) == pytest.approx(middle * (1 + 1 / 8) / 2)


def test_cpu_engines_refuse_what_they_would_compute_wrongly():
    says = pytest.raises(InvalidInput, match=r"scaled rotary positions.*llama-3\.2-1b.*give device='cuda:0'")
    with says:
        make_engine("llama-3.2-1b")
    with says:
        NumPyEngine().load(preset("llama-3.2-1b"), "dummy:0")


def test_a_gpu_without_pytorch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "wattwork.engines.torch_engine", raising=False)
    monkeypatch.delitem(sys.modules, "wattwork.engines.torch_model", raising=False)
    with pytest.raises(InvalidInput, match=r"pip install 'wattwork\[torch\]'"):
        make_engine("tiny-15m", device="cuda:0")


def test_threads_are_the_cpus():
    with pytest.raises(InvalidInput, match="threads= are the CPU's"):
        make_engine(ModelConfig("any", 1, 32, 2, 2, 16, 32, 64, 64, 1e4), threads=2, device="cuda:0")
