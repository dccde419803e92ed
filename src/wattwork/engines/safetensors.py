"""Reads safetensors files: a u64 length, a JSON header of that length, then the tensors, little-endian.

Format: https://huggingface.co/docs/safetensors. So little that no library is needed, and bf16 (which NumPy does not
have) comes without one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wattwork.errors import InvalidInput

_STORED: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class Entry(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # byte of the file
    stop: int


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of the file by name. InvalidInput where the header is not one."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise ValueError
            header = json.loads(file.read(length))
        found = {}
        for name, item in header.items():
            if name != "__metadata__":
                start, stop = (8 + length + int(at) for at in item["data_offsets"])
                if not 8 + length <= start <= stop <= size:
                    raise ValueError
                found[name] = Entry(item["dtype"], tuple(int(n) for n in item["shape"]), start, stop)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is not a whole safetensors file; download it again") from error
    return found


def read(path: Path, name: str, entry: Entry) -> NDArray[np.float32]:
    """One tensor as f32, C-contiguous. InvalidInput unless it is stored as F32, F16 or BF16."""
    if entry.dtype not in _STORED:
        raise InvalidInput(f"{path}: {name} is stored as {entry.dtype}; convert it to F32, F16 or BF16")
    stored = _STORED[entry.dtype]
    count = math.prod(entry.shape)
    if entry.stop - entry.start != count * stored.itemsize:
        raise InvalidInput(f"{path} is not a whole safetensors file; download it again")
    values: NDArray[Any] = np.fromfile(path, stored, count, offset=entry.start).reshape(entry.shape)
    if entry.dtype == "BF16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)  # bf16 is the upper half of f32
    return np.ascontiguousarray(values, dtype=np.float32)
