"""How fast a trace runs in virtual time: requests of the packaged Azure trace, over and over, per second.

Run: python bench/bench_simulate.py [requests]

Arrivals keep the trace's order and relative gaps, stretched so that the device is offered 90 % of what it bears; steps
are large (256 sequences, 16,384 tokens). "as recorded" has the trace's own lengths, 1,895 prompt and 30 output tokens
in the mean; the other rows scale them down, rounded up, at least 1.
"""

import statistics
import sys

import numpy as np

from wattwork import CostModel, SchedulerConfig, Trace, packaged_trace, simulate
from wattwork.trace import size_trace

ROUNDS = 5
COST = CostModel(step_s=1e-3, per_token_s=7e-5 / 16, per_sequence_s=2e-6)  # some 200,000 prompt tok/s
CONFIG = SchedulerConfig(
    max_num_seqs=256,
    max_num_batched_tokens=16_384,
    max_num_queued_reqs=1 << 20,
    max_num_queued_tokens=2**31 - 1,
    num_blocks=1 << 17,
    max_model_len=8192,
)


def repeated(requests, divide):
    """The packaged trace for so many requests, its lengths divided."""
    slice_ = packaged_trace()
    shorter = Trace(
        slice_.arrival_s, -(-slice_.prompt_tokens // divide), -(-slice_.output_tokens // divide), slice_.source
    )
    mean_tokens = float(shorter.prompt_tokens.mean() + shorter.output_tokens.mean())
    capacity_tok_s = shorter.prompt_tokens.mean() / mean_tokens / (COST.per_token_s + COST.step_s / 16_384)
    window_s = requests * shorter.prompt_tokens.mean() / (0.9 * capacity_tok_s)
    return size_trace(shorter, capacity_tok_s=capacity_tok_s, window_s=window_s, context=8192, load=0.9)


def main(requests):
    print("lengths           requests  prompt  output   virtual s   steps   wall s    requests/s   times real time")
    for name, divide in (("as recorded", 1), ("one quarter", 4), ("one 64th", 64)):
        trace = repeated(requests, divide)
        runs = [simulate(trace, CONFIG, COST) for _ in range(ROUNDS)]
        assert len({(run.decision_hash, tuple(run.metrics.items())) for run in runs}) == 1
        wall_s, n = statistics.median(run.wall_s for run in runs), len(runs[0].requests)
        assert (runs[0].requests["outcome"] == 0).all()
        prompt, output = np.mean(trace.trace.prompt_tokens), np.mean(trace.trace.output_tokens)
        print(
            f"{name:15} {n:10,} {prompt:7.0f} {output:7.1f} {runs[0].virtual_s:11,.0f} {runs[0].metrics['steps']:7,} "
            f"{wall_s:8.3f} {n / wall_s:13,.0f} {runs[0].virtual_s / wall_s:17,.0f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
