"""Inference engines: what one is (`base`), in NumPy (`numpy_engine`), and in the native core (`cpu_engine`)."""

from wattwork.engines.base import PRESETS, SAMPLING, Batch, Caps, ModelConfig, Out, StepEngine, preset

__all__ = ["PRESETS", "SAMPLING", "Batch", "Caps", "ModelConfig", "Out", "StepEngine", "preset"]
