"""The CPU decoder beside ONNX Runtime: same model, same f32 weights, same threads, one run, repeats interleaved.

    make bench-decoder            or: python bench/bench_decoder.py [--model NAME] [--batch N] [--prompt N] ...

First it holds the logits of the two against each other, so that it compares the same work. Then, `--repeats` times,
each prefills `batch` prompts in one step and decodes `--decode` tokens of each: the medians are printed as tok/s.
"""

import argparse
import json
import statistics
import time

import numpy as np
from onnx_model import OnnxRuntime

from wattwork.engines import Batch, Out, preset
from wattwork.engines.cpu_engine import CpuEngine

BLOCK = 16


class Ours:
    """The native engine, with the KV blocks of sequence b one after another."""

    def __init__(self, config, weights, threads, batch, length) -> None:
        self.engine = CpuEngine(threads)
        self.engine.load(config, weights)
        self.columns = -(-length // BLOCK)
        self.table = np.arange(batch * self.columns, dtype=np.int32).reshape(batch, self.columns)
        self.engine.alloc_kv((batch * self.columns + 1) * 2 * config.layers * config.kv_heads * config.head_dim * 68)
        self.out = Out(np.zeros(batch, np.int32), np.zeros((batch, config.vocab), np.float32))

    def step(self, tokens, context):
        b, s = tokens.shape
        positions = context + np.arange(s)
        slots = self.table[:, positions // BLOCK] * BLOCK + positions % BLOCK
        batch = Batch(
            np.ascontiguousarray(tokens.reshape(-1), np.int32),
            np.arange(0, b * s + 1, s, dtype=np.int32),
            np.full(b, context, np.int32),
            self.table,
            np.ascontiguousarray(slots.reshape(-1), np.int32),
            np.ones(b, np.uint8),
        )
        self.engine.step(batch, self.out)
        return self.out.logits


def timed(engine, prompts, decode):
    """Seconds of the prefill, and of `decode` greedy steps."""
    start = time.perf_counter()
    logits = engine.step(prompts, 0)
    prefilled = time.perf_counter()
    for i in range(decode):
        logits = engine.step(np.argmax(logits, axis=1)[:, None], prompts.shape[1] + i)
    return prefilled - start, time.perf_counter() - prefilled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smol-135m")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the raw times to this file")
    args = parser.parse_args()

    config, length = preset(args.model), args.prompt + args.decode + 1
    make = (config, "dummy:0", args.threads, args.batch, length)
    engines = {"wattwork": Ours(*make), "onnxruntime": OnnxRuntime(*make)}
    prompts = np.random.default_rng(0).integers(0, config.vocab, (args.batch, args.prompt))

    first = {name: engine.step(prompts, 0).copy() for name, engine in engines.items()}
    token = np.argmax(first["wattwork"], axis=1)[:, None]
    second = {name: engine.step(token, args.prompt).copy() for name, engine in engines.items()}
    difference = max(np.abs(pair["wattwork"] - pair["onnxruntime"]).max() for pair in (first, second))
    print(f"logits agree to {difference:.1e}")
    if not difference < 1e-3:
        raise SystemExit("the two engines do not compute the same model; no rate is given")

    times = {name: [] for name in engines}
    for _ in range(args.repeats):
        for name, engine in engines.items():
            times[name].append(timed(engine, prompts, args.decode))
    rates = {}
    for name, pairs in times.items():
        prefill_s, decode_s = (statistics.median(column) for column in zip(*pairs, strict=True))
        rates[name] = {
            "prefill_tok_per_s": args.batch * args.prompt / prefill_s,
            "decode_tok_per_s": args.batch * args.decode / decode_s,
        }
    print(f"{args.model}, f32, batch {args.batch}, prompt {args.prompt}, {args.threads} threads, "
          f"isa {engines['wattwork'].engine.isa}, median of {args.repeats}")  # fmt: skip
    for what in ("prefill_tok_per_s", "decode_tok_per_s"):
        ours, theirs = rates["wattwork"][what], rates["onnxruntime"][what]
        print(f"  {what:18s} wattwork {ours:8.1f}   onnxruntime {theirs:8.1f}   ratio {ours / theirs:.2f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"arguments": vars(args), "max_logit_difference": float(difference), "rates": rates,
                       "times_s": times}, file, indent=1)  # fmt: skip


if __name__ == "__main__":
    main()
