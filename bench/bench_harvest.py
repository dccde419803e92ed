"""What hashing behind a request trace harvests, and what it costs the requests: the same trace again and again, by
turns with hashing behind it (B) and without (A).

The trace is the packaged Azure slice by the trace rule (load 0.37). Harvest: the hashes of a B over what hashing alone,
measured before and after it, does in the time in which no step ran; and its rate while it worked, over that alone.
Cost: each B's mean TTFT and TPOT over those of the A's on either side of it. The control: of two A's that follow one
another, the first's over the second's. Medians, and the range of the middle half.

    python bench/bench_harvest.py [--rounds N] [--seconds N] [--model NAME]
"""

import argparse
import os
from contextlib import closing
from statistics import median, quantiles

from wattwork import Device, Job, Meter, Work, packaged_trace, size_trace
from wattwork.comparison import solo_capacity_tok_s
from wattwork.data import MAINNET_HEIGHTS, mainnet_header
from wattwork.device import scheduler_config
from wattwork.engines import make_engine, preset
from wattwork.machine import default_threads
from wattwork.replay_live import play_once, solo_hashes_per_s
from wattwork.serving import SLO

LATENCIES = ("mean_ttft_ms", "mean_tpot_ms")


def beside(runs, at):
    """The run's latencies over the mean of those on either side of it."""
    return {name: 2 * runs[at][name] / (runs[at - 1][name] + runs[at + 1][name]) for name in LATENCIES}


def spread(values):
    low, _, high = quantiles(values, n=4)
    return f"{median(values):8.4f}  [{low:.4f}, {high:.4f}]"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--model", default="tiny-15m")
    args = parser.parse_args()
    trace, job = packaged_trace(), Job(Work.from_header(mainnet_header(MAINNET_HEIGHTS[-1])))
    with closing(make_engine(preset(args.model))) as engine, Device("cpu", meter=Meter("estimate")) as device:
        device.bind(job, engine)
        device.switch("infer")
        capacity_tok_s = solo_capacity_tok_s(device, trace, engine.config, lambda: None)
        sized = size_trace(trace, capacity_tok_s=capacity_tok_s, window_s=args.seconds, context=engine.config.context)
        config = scheduler_config(engine)

        def play(back, solo=0.0):
            device.switch("idle")
            run, harvest = play_once(
                sized, config, engine, back, threads=default_threads(), solo=solo, slo=SLO(), tick=lambda: None
            )
            return run.metrics, harvest

        t = sized.info
        print(
            f"{args.model}, {t.requests} requests over {t.duration_s:.1f} s, load {t.load:g} of {capacity_tok_s:,.0f} "
            f"prompt tok/s; {default_threads()} threads, load {os.getloadavg()[0]:.2f} of the last minute"
        )
        play(None)  # warm
        harvests, runs = [], []
        solo = solo_hashes_per_s(device)
        for _ in range(args.rounds):  # A A B, and so on: a control beside each B
            runs += [play(None)[0], play(None)[0]]
            metrics, harvest = play(job, solo)
            after = solo_hashes_per_s(device)
            mean = (solo + after) / 2
            harvests.append((harvest.share_of_idle * solo / mean, harvest.rate_while_working * solo / mean))
            runs.append(metrics)
            solo = after
        runs.append(play(None)[0])
    print(f"harvested, of what hashing alone does in the idle time   {spread([h[0] for h in harvests])}   asked: 0.95")
    print(f"rate while it worked, over that of hashing alone         {spread([h[1] for h in harvests])}   asked: 0.97")
    for name in LATENCIES:
        b = [beside(runs, at)[name] for at in range(2, len(runs) - 1, 3)]
        a = [runs[at][name] / runs[at + 1][name] for at in range(0, len(runs) - 1, 3)]
        print(f"{name}: with hashing over without {'':15}{spread(b)}   asked: 1.02, or within the control")
        print(f"{name}: control, without over without {'':11}{spread(a)}")


if __name__ == "__main__":
    main()
