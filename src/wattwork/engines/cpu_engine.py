"""CpuEngine: the native decoder (`csrc/decoder/`) behind the StepEngine protocol."""

from __future__ import annotations

import os

from wattwork._native import core
from wattwork.engines.base import Batch, Caps, ModelConfig, Out
from wattwork.engines.checks import check_cpu_load, check_types
from wattwork.engines.weights import dummy_seed, each_tensor
from wattwork.errors import InvalidInput, UnsupportedISA
from wattwork.machine import check_threads

HASHING_ONLY = ("shani", "armv8", "neon", "numba", "numpy")  # what WATTWORK_ISA may force, but no decoder has


def isas() -> list[str]:
    """The decoder's instruction sets usable on this machine, best first."""
    return core.decoder_isas()


def _chosen_isa(isa: str | None) -> str:
    """`isa`, else WATTWORK_ISA unless that names one of HASHING_ONLY, else the best."""
    usable = isas()
    forced = os.environ.get("WATTWORK_ISA")
    if isa is None and (not forced or forced in HASHING_ONLY):
        return usable[0]
    wanted, said = (forced, f"WATTWORK_ISA={forced}") if isa is None else (isa, f"isa={isa!r}")
    if wanted not in usable:
        raise UnsupportedISA(
            f"{said}: the decoder has no such instruction set here; choose one of {', '.join(usable)}."
        )
    return wanted


class CpuEngine:
    """A StepEngine on the process's thread pool, in f32, bitwise the same under any batching and chunking.

    threads: how many may work on a step (None: all this process may use); isa: force an instruction set.
    Steps are synchronous and do not hold the GIL; bad batches raise InvalidInput. Weights load as in
    `wattwork.engines.weights`; head_dim must be a multiple of 16.
    """

    config: ModelConfig  # from load() on

    def __init__(self, threads: int | None = None, *, isa: str | None = None) -> None:
        self._threads = check_threads(threads) or core.default_threads()
        self.isa = _chosen_isa(isa)
        self._decoder: core.Decoder | None = None
        self._budget_bytes = 0
        self.caps = self._caps(0)

    def _caps(self, max_len: int) -> Caps:
        return Caps(
            core.DECODER_MAX_SEQS, core.DECODER_MAX_TOKENS, max_len, core.DECODER_BLOCK_SIZE, True, "f32", "cpu"
        )

    @property
    def _loaded(self) -> core.Decoder:
        if self._decoder is None:
            raise InvalidInput("the engine has no weights: call load() first.")
        return self._decoder

    @property
    def native(self) -> int:
        """The address of its `ww_engine` (wattwork.h), valid as long as `native_owner` lives."""
        return self._loaded.engine

    @property
    def native_owner(self) -> object:
        """What to keep while `native` is in use: load() and close() let it go."""
        return self._loaded

    def load(self, config: ModelConfig, weights: str, dtype: str = "f32") -> None:
        """Take the weights ("dummy:<seed>" or a folder); InvalidInput for any dtype but f32, or scaled positions."""
        check_cpu_load(config, dtype)
        seed = dummy_seed(weights)
        try:
            decoder = core.Decoder(config, self.isa, self._threads)
        except ValueError as error:
            raise InvalidInput(f"model {config.name!r}: {error}") from error
        if seed is not None:
            decoder.load_dummy(seed)
        else:
            each_tensor(config, weights, decoder.set_tensor)
        self.config, self._decoder, self._budget_bytes = config, decoder, 0
        self.caps = self._caps(config.context)

    def alloc_kv(self, budget_bytes: int) -> int:
        """Make a KV cache within the budget: its blocks of 16 positions. InvalidInput if it holds none.

        Memory is reserved, and taken only as blocks are written.
        """
        blocks = self._loaded.alloc_kv(budget_bytes)
        if blocks < 1:
            least = self._loaded.block_bytes
            raise InvalidInput(f"a KV cache of {budget_bytes} bytes holds no block; give at least {least}.")
        self._budget_bytes = budget_bytes
        return blocks

    def step(self, batch: Batch, out: Out) -> None:
        """Do the step; `out` is valid on return."""
        check_types(batch, out)
        try:
            self._loaded.step(
                batch.tokens,
                batch.q_start,
                batch.ctx_len,
                batch.block_table,
                batch.slot_map,
                batch.want_logits,
                batch.sampling,
                out.next_token,
                out.logits,
            )
        except InvalidInput:
            raise
        except ValueError as error:
            raise InvalidInput(str(error)) from error

    def sync(self) -> None:
        """Nothing to wait for."""

    def suspend(self) -> None:
        """Drop the KV cache, keep the weights."""
        self._loaded.drop_kv()

    def resume(self) -> None:
        """Make the KV cache again, empty."""
        if self._budget_bytes:
            self._loaded.alloc_kv(self._budget_bytes)

    def close(self) -> None:
        """Give everything back; the weights when no scheduler uses them any more."""
        if self._decoder is not None:
            self._decoder.drop_kv()  # the requests of a scheduler that still runs on it fail
        self._decoder = None
