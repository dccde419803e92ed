"""Inference engines: what one is (`base`), in NumPy (`numpy_engine`), and in the native core (`cpu_engine`)."""

from wattwork.engines.base import PRESETS, SAMPLING, Batch, Caps, ModelConfig, Out, StepEngine, preset

__all__ = ["PRESETS", "SAMPLING", "Batch", "Caps", "ModelConfig", "Out", "StepEngine", "make_engine", "preset"]


def make_engine(model: str | ModelConfig, weights: str = "dummy:0", threads: int | None = None) -> StepEngine:
    """The CPU engine for the model, loaded: native where the core is installed, else NumPy. It has no KV cache yet.

    model: a preset's name or a ModelConfig; weights: "dummy:<seed>" or a folder of safetensors; threads: as many
    may work on a step (None: all this process may use). InvalidInput where one of them is not what it must be.
    """
    from wattwork._native import HAVE_CORE

    config = preset(model) if isinstance(model, str) else model
    engine: StepEngine
    if HAVE_CORE:
        from wattwork.engines.cpu_engine import CpuEngine

        engine = CpuEngine(threads)
    else:
        from wattwork.engines.numpy_engine import NumPyEngine

        engine = NumPyEngine(threads)
    engine.load(config, weights)
    return engine
