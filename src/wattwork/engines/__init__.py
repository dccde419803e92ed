"""Inference engines: what one is (`base`), in NumPy (`numpy_engine`), in the native core (`cpu_engine`), and in
PyTorch for GPUs (`torch_engine`)."""

from wattwork.engines.base import (
    PRESETS,
    SAMPLING,
    Batch,
    Caps,
    Front,
    GpuEngine,
    ModelConfig,
    Out,
    RopeScaling,
    StepEngine,
    preset,
)
from wattwork.errors import InvalidInput

__all__ = [
    "PRESETS",
    "SAMPLING",
    "Batch",
    "Caps",
    "Front",
    "GpuEngine",
    "ModelConfig",
    "Out",
    "RopeScaling",
    "StepEngine",
    "make_engine",
    "preset",
]


def make_engine(
    model: str | ModelConfig,
    weights: str = "dummy:0",
    threads: int | None = None,
    *,
    device: str = "cpu",
    dtype: str | None = None,
) -> StepEngine:
    """The engine of the device for the model, loaded. It has no KV cache yet.

    model: a preset's name or a ModelConfig; weights: "dummy:<seed>" or a folder of safetensors; threads: as many
    may work on a step (None: all this process may use), on the CPU; device: "cpu", natively where the core is
    installed, else in NumPy; or "cuda:0", in PyTorch; dtype: None is f32 on the CPU and bf16 on a GPU. InvalidInput
    where one of them is not what it must be.
    """
    config = preset(model) if isinstance(model, str) else model
    engine: StepEngine
    if device == "cpu":
        engine = _cpu_engine(threads)
    else:
        if threads is not None:
            raise InvalidInput(f"threads= are the CPU's; leave it out for {device!r}.")
        engine = _torch_engine(device)
    engine.load(config, weights, dtype or ("f32" if device == "cpu" else "bf16"))
    return engine


def _cpu_engine(threads: int | None) -> StepEngine:
    from wattwork._native import HAVE_CORE

    if HAVE_CORE:
        from wattwork.engines.cpu_engine import CpuEngine

        return CpuEngine(threads)
    from wattwork.engines.numpy_engine import NumPyEngine

    return NumPyEngine(threads)


def _torch_engine(device: str) -> StepEngine:
    try:
        from wattwork.engines.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InvalidInput(f"inference on {device!r} needs PyTorch: pip install 'wattwork[torch]'.") from None
    return TorchEngine(device)
