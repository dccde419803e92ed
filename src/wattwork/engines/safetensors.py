"""A safetensors file as f32 arrays, read with the safetensors library (extra `[safetensors]`).

The library's NumPy face knows no bf16, which most models are stored in; so the bytes are taken from its
`deserialize` and widened here.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattwork.errors import InvalidInput

_STORED: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def arrays(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and values of each tensor in the file, C-contiguous. InvalidInput where the file is not whole, a tensor is
    stored as anything but F32, F16 or BF16, or the library is not installed."""
    try:
        library: Any = import_module("safetensors")
    except ModuleNotFoundError:
        raise InvalidInput(
            "reading weights from files needs the safetensors library: pip install 'wattwork[safetensors]'."
        ) from None
    try:
        tensors = library.deserialize(path.read_bytes())
    except (library.SafetensorError, OSError) as error:
        raise InvalidInput(f"{path} is not a whole safetensors file ({error}); download it again.") from error
    while tensors:  # each is let go once it has been handed on
        name, stored = tensors.pop()
        yield name, _as_f32(path, name, stored)


def _as_f32(path: Path, name: str, stored: dict[str, Any]) -> NDArray[np.float32]:
    if stored["dtype"] not in _STORED:
        raise InvalidInput(f"{path}: {name} is stored as {stored['dtype']}; convert it to F32, F16 or BF16.")
    values: NDArray[Any] = np.frombuffer(stored["data"], _STORED[stored["dtype"]]).reshape(stored["shape"])
    if stored["dtype"] == "BF16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)  # bf16 is the upper half of f32
    return np.ascontiguousarray(values, dtype=np.float32)
