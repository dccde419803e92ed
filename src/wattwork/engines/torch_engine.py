"""TorchEngine: the decoder in PyTorch, on a GPU or the CPU (extra `[torch]`).

A step in which every sequence has one new token (decode) is padded to a bucket of sequences and positions. Its inputs
then lie in static memory, and on a GPU each bucket is a CUDA graph, captured when it is first met: hundreds of kernels
are one launch. All other steps run as they are: matrices for all tokens at once, attention for the sequences of one
token together and for each chunk of prompt by itself. The CPU runs the same code without graphs.

A step returns when it is enqueued; `sync()` waits for it and writes `out`. Greedy tokens are chosen on the device;
for sampled ones the logits are fetched and drawn from as the other engines do (`wattwork.engines.sampling`).

Where hashing works on the same GPU, `front` is told before a step's kernels and after them, in their stream. A capture
is never between the two: it waits for the whole GPU, and so for hashing that waits for the step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wattwork.engines.base import Batch, Caps, Front, ModelConfig, Out
from wattwork.engines.checks import check_batch, check_types
from wattwork.engines.sampling import sample
from wattwork.engines.torch_buckets import BLOCK_SIZE, Bucket, bucket_columns, bucket_rows, buckets
from wattwork.engines.torch_model import DTYPES, TorchModel, attend_chunk, attend_rows, bias_of, slots_of
from wattwork.errors import InvalidInput

MAX_SEQS, MAX_TOKENS = 256, 8192


@dataclass(slots=True)
class _Pending:
    """A step under way: row r of `ids` [R] and `logits` [R, V] belongs to sequence rows[r]."""

    batch: Batch
    out: Out
    rows: NDArray[np.int64]
    ids: Tensor
    logits: Tensor


class TorchEngine:
    """A StepEngine in PyTorch. `device`: "cpu" or "cuda:<n>"; dtype "f32" or "bf16".

    Bad batches raise InvalidInput. Weights load as in `wattwork.engines.weights`, dummy ones are made on the device.
    `stream` is where a GPU's work goes: a CUDA stream of the highest priority, None on the CPU. `front`: who is told of
    each step, as `GpuEngine` says.
    """

    config: ModelConfig  # from load() on

    def __init__(self, device: str = "cuda:0") -> None:
        self.device = _device(device)
        on_gpu = self.device.type == "cuda"
        self.stream: Any = torch.cuda.Stream(self.device, priority=-1) if on_gpu else None
        self.front: Front | None = None
        self._done: Any = torch.cuda.Event() if on_gpu else None
        self.caps = self._caps(0, "f32")
        self._model: TorchModel | None = None
        self._kv: list[Tensor] = []  # a layer's cache each
        self._blocks = 0
        self._token = np.zeros(0, np.int32)  # of each slot: what sampling looks back at
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self._pool: Any = None  # of the graphs: one runs at a time, so all may use the same memory
        self._pending: _Pending | None = None

    def _caps(self, max_len: int, dtype: str) -> Caps:
        return Caps(MAX_SEQS, MAX_TOKENS, max_len, BLOCK_SIZE, False, dtype, str(self.device))

    def _working(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    # ---- weights and memory

    def load(self, config: ModelConfig, weights: str, dtype: str = "f32") -> None:
        """Take the weights ("dummy:<seed>" or a folder) as `dtype`, "f32" or "bf16"."""
        if dtype not in DTYPES:
            raise InvalidInput(f"the PyTorch engine computes in {' or '.join(DTYPES)}, not {dtype!r}.")
        if config.heads % config.kv_heads or config.head_dim % 2:
            raise InvalidInput("heads must be a multiple of kv_heads and head_dim even; change the ModelConfig.")
        self.suspend()
        self._model, self._blocks = None, 0  # the old weights go before the new ones come
        with torch.inference_mode(), self._working():
            self._model = TorchModel(config, weights, DTYPES[dtype], self.device)
        self.config, self.caps = config, self._caps(config.context, dtype)

    def alloc_kv(self, budget_bytes: int) -> int:
        """Make a KV cache within the budget: its blocks of 16 positions. InvalidInput if it holds none."""
        c, size = self.config, self._loaded.embedding.element_size()
        block_bytes = 2 * c.layers * c.kv_heads * c.head_dim * BLOCK_SIZE * size
        if budget_bytes < block_bytes:
            raise InvalidInput(f"a KV cache of {budget_bytes} bytes holds no block; give at least {block_bytes}.")
        self._blocks = budget_bytes // block_bytes
        self.resume()
        return self._blocks

    def suspend(self) -> None:
        """Drop the KV cache (and the graphs, which hold its addresses), keep the weights."""
        self.sync()
        self._kv, self._buckets = [], {}

    def resume(self) -> None:
        """Make the KV cache again, empty."""
        self.suspend()
        c, dtype = self.config, self._loaded.embedding.dtype
        shape = (self._blocks * BLOCK_SIZE, 2, c.kv_heads, c.head_dim)
        with torch.inference_mode(), self._working():
            self._kv = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(c.layers)]
        self._token = np.zeros(self._blocks * BLOCK_SIZE, np.int32)
        self._pool = None if self.stream is None else torch.cuda.graph_pool_handle()

    def free_bytes(self) -> int:
        """Memory that nobody holds, in bytes: the GPU's, or the machine's."""
        if self.stream is None:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.device)[0])

    def warm_up(self, max_num_seqs: int, max_num_batched_tokens: int, max_model_len: int) -> None:
        """Capture the graph of every bucket within these bounds, and run chunks of prompt of every power of two. The KV
        cache may hold anything afterwards. InvalidInput where there is none."""
        most = min(max_num_batched_tokens, max_model_len, self._blocks * BLOCK_SIZE)
        for n in (1 << i for i in range(most.bit_length())):
            self._run_chunk(n)
        if self.stream is None:
            return  # no graphs
        with torch.inference_mode(), self._working():
            # The largest first: the others find room in what its graph has taken.
            for shape in reversed(buckets(max_num_seqs, max_model_len)):
                bucket = self._bucket_of(*shape)
                if bucket.graph is None:
                    self._capture(self._loaded, bucket)
            self.stream.synchronize()

    def _run_chunk(self, n: int) -> None:
        at = np.arange(n, dtype=np.int32)
        table = np.arange(-(-n // BLOCK_SIZE), dtype=np.int32)[None]
        first = np.array([0, n], np.int32), np.zeros(1, np.int32)
        batch = Batch(at % self.config.vocab, *first, table, at, np.ones(1, np.uint8))
        self.step(batch, Out(np.zeros(1, np.int32)))
        self.sync()

    def close(self) -> None:
        """Give everything back."""
        self.suspend()
        self._model = None

    @property
    def _loaded(self) -> TorchModel:
        if self._model is None:
            raise InvalidInput("the engine has no weights: call load() first.")
        return self._model

    # ---- a step

    def step(self, batch: Batch, out: Out) -> None:
        """Enqueue the step; `out` is valid after `sync()`."""
        model = self._loaded
        check_types(batch, out)
        check_batch(self.config, self.caps, self._blocks if self._kv else 0, batch, out)
        self.sync()
        self._token[batch.slot_map] = batch.tokens
        decode = len(batch.tokens) == len(batch.ctx_len)
        with torch.inference_mode(), self._working():
            bucket = self._bucket(model, batch) if decode else None
            with self._fenced():
                rows, logits, ids = self._ragged(model, batch) if bucket is None else self._decode(model, bucket, batch)
                fetched = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=self.stream is not None)
                fetched.copy_(ids, non_blocking=True)
                if self._done is not None:
                    self._done.record()
        self._pending = _Pending(batch, out, rows, fetched, logits)

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        """Hashing on the same GPU keeps away from what is enqueued meanwhile."""
        front, stream = self.front, 0 if self.stream is None else self.stream.cuda_stream
        if front is None:
            yield
            return
        front.front_begin(stream)
        try:
            yield
        finally:
            front.front_end(stream)

    def sync(self) -> None:
        """Wait for the last step, and write its `out`."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if self._done is not None:
            self._done.synchronize()
        batch, out = pending.batch, pending.out
        rows = np.flatnonzero(batch.want_logits[pending.rows])  # of the step's ids and logits
        wanted = pending.rows[rows]
        out.next_token[:] = -1
        out.next_token[wanted] = pending.ids.numpy()[rows]
        sampled = np.zeros(len(rows), bool) if batch.sampling is None else batch.sampling["temperature"][wanted] != 0
        if not len(rows) or (out.logits is None and not sampled.any()):
            return
        with self._working():
            logits = pending.logits.cpu().numpy()[rows]
        if out.logits is not None:
            out.logits[wanted] = logits
        for i in np.flatnonzero(sampled):
            assert batch.sampling is not None
            b = int(wanted[i])
            out.next_token[b] = sample(logits[i], batch.sampling[b], self._history(batch, b))

    def _history(self, batch: Batch, b: int) -> NDArray[np.int32]:
        """The sequence's tokens so far, those of this step included."""
        total = int(batch.ctx_len[b] + batch.q_start[b + 1] - batch.q_start[b])
        table = batch.block_table[b, : -(-total // BLOCK_SIZE)].astype(np.int64)
        slots = (table[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)[:total]
        return self._token.take(slots)

    # ---- decode: one token a sequence, in buckets

    def _bucket(self, model: TorchModel, batch: Batch) -> Bucket:
        """The bucket for the batch, filled with it."""
        bucket = self._bucket_of(bucket_rows(len(batch.tokens)), bucket_columns(int(batch.ctx_len.max()) + 1))
        bucket.fill(batch)
        if bucket.graph is None and self.stream is not None:
            self._capture(model, bucket)
        return bucket

    def _bucket_of(self, rows: int, columns: int) -> Bucket:
        bucket = self._buckets.get((rows, columns))
        if bucket is None:
            bucket = self._buckets[rows, columns] = Bucket(rows, columns, self.device)
        return bucket

    def _capture(self, model: TorchModel, bucket: Bucket) -> None:
        """The graph of the bucket. A step on what it is filled with warms up all that a capture may not do; to do it
        again changes nothing."""
        self._forward(model, bucket)
        bucket.graph = torch.cuda.CUDAGraph()
        how = {"pool": self._pool, "stream": self.stream, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(bucket.graph, **how):
            self._forward(model, bucket)

    def _decode(self, model: TorchModel, bucket: Bucket, batch: Batch) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Rows, logits and greedy ids of the step; rows beyond the batch's are padding."""
        n = len(batch.tokens)
        if bucket.graph is not None:
            bucket.graph.replay()
        else:
            self._forward(model, bucket)
        return np.arange(n), bucket.logits[:n], bucket.ids[:n]

    def _forward(self, model: TorchModel, bucket: Bucket) -> None:
        tokens, positions, slots, table = bucket.read()
        total = positions + 1
        seen = slots_of(table, BLOCK_SIZE, total)
        bias = bias_of(seen.shape[1], total, self._kv[0].dtype)

        def attend(q: Tensor, cache: Tensor) -> Tensor:
            return attend_rows(q, cache, seen, bias)

        bucket.logits = model.logits(model.hidden(self._kv, tokens, positions, slots, attend))
        bucket.ids = bucket.logits.argmax(dim=-1)

    # ---- any other step

    def _ragged(self, model: TorchModel, batch: Batch) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Rows, logits and greedy ids of the sequences of which a token is wanted."""
        lengths, q_start = np.diff(batch.q_start), batch.q_start
        positions = np.arange(q_start[-1]) + np.repeat(batch.ctx_len - q_start[:-1], lengths)
        columns = -(-int((batch.ctx_len + lengths).max()) // BLOCK_SIZE)
        table = self._put(np.maximum(batch.block_table[:, :columns], 0))
        total = self._put(batch.ctx_len + lengths)
        seen = slots_of(table, BLOCK_SIZE, total)
        single, chunks = np.flatnonzero(lengths == 1), np.flatnonzero(lengths > 1)
        at, rows = self._put(q_start[single]), self._put(single)
        width = BLOCK_SIZE * -(-int((batch.ctx_len[single] + 1).max(initial=1)) // BLOCK_SIZE)
        near = seen[rows, :width]
        bias = bias_of(width, total[rows], self._kv[0].dtype)

        def attend(q: Tensor, cache: Tensor) -> Tensor:
            done = q.new_empty(len(q), self.config.heads * self.config.head_dim)
            if len(single):
                done[at] = attend_rows(q[at], cache, near, bias)
            for b in chunks:
                first, stop, context = int(q_start[b]), int(q_start[b + 1]), int(batch.ctx_len[b])
                done[first:stop] = attend_chunk(q[first:stop], cache, seen[b, : context + stop - first], context)
            return done

        hidden = model.hidden(
            self._kv, self._put(batch.tokens), self._put(positions), self._put(batch.slot_map), attend
        )
        wanted = np.flatnonzero(batch.want_logits)
        logits = model.logits(hidden[self._put(q_start[wanted + 1] - 1)])
        return wanted, logits, logits.argmax(dim=-1)

    def _put(self, array: NDArray[Any]) -> Tensor:
        host = torch.from_numpy(array.astype(np.int64))
        if self.stream is None:
            return host
        return host.pin_memory().to(self.device, non_blocking=True)  # from other memory it would wait for the stream


def _device(name: str) -> torch.device:
    """torch's device; InvalidInput where it is none of ours, or not here."""
    kind, _, ordinal = name.partition(":")
    if name != "cpu" and not (kind == "cuda" and ordinal.isdecimal()):
        raise InvalidInput(f"the PyTorch engine runs on 'cpu' or 'cuda:0' (or another number), not {name!r}.")
    if kind == "cuda" and int(ordinal) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InvalidInput(
            f"there is no {name} for PyTorch {torch.__version__}: it finds {found} GPU(s); see nvidia-smi."
        )
    return torch.device(name)
