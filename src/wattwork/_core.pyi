import numpy as np
from numpy.typing import NDArray

from wattwork.engines.base import ModelConfig

# ---- runtime
def default_threads() -> int: ...
def now_ns() -> int: ...

class Back:
    @property
    def units(self) -> int: ...

# ---- search

# ---- engines
DECODER_MAX_SEQS: int
DECODER_MAX_TOKENS: int
DECODER_BLOCK_SIZE: int

def decoder_isas() -> list[str]: ...
def philox4x32(seed: int, low: int, high: int) -> tuple[int, int, int, int]: ...
def dummy_elements(seed: int, tensor: int, first: int, n: int, fan_in: int) -> NDArray[np.float32]: ...

class Decoder:
    def __init__(self, config: ModelConfig, isa: str, threads: int) -> None: ...
    def load_dummy(self, seed: int) -> None: ...
    def set_tensor(self, index: int, values: NDArray[np.float32]) -> None: ...
    def alloc_kv(self, budget_bytes: int) -> int: ...
    def drop_kv(self) -> None: ...
    def step(
        self,
        tokens: NDArray[np.int32],
        q_start: NDArray[np.int32],
        ctx_len: NDArray[np.int32],
        block_table: NDArray[np.int32],
        slot_map: NDArray[np.int32],
        want_logits: NDArray[np.uint8],
        sampling: NDArray[np.void] | None,
        next_token: NDArray[np.int32],
        logits: NDArray[np.float32] | None,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def block_bytes(self) -> int: ...
    @property
    def engine(self) -> int: ...

# ---- scheduler
