"""`wattwork replay`: a request trace, live or in virtual time, or a recorded log; the figures of `vllm bench serve`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from typing import Any

from wattwork import defaults
from wattwork.data import MAINNET_HEIGHTS, mainnet_header
from wattwork.engines import preset
from wattwork.errors import InvalidInput
from wattwork.load import check_window
from wattwork.outfile import write_json
from wattwork.progress import bar
from wattwork.recording import is_log, replay
from wattwork.render import FEW_REQUESTS, NONE, si, three
from wattwork.replay_live import Harvest, measure_cost, play
from wattwork.scheduler import SchedulerConfig
from wattwork.serving import SLO
from wattwork.simulation import CostModel, Replay, check_devices, simulate
from wattwork.trace import SizedTrace, Trace, packaged_trace, read_trace, size_trace

SCHEMA = "wattwork.replay/1"
PACKAGED = "azure-code"
BLOCK_SIZE = 16
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2EL"}
SPREAD = ("mean", "median", "std", "p90", "p99")


@dataclass(slots=True)
class _Result:
    """A run, and what it was of."""

    mode: str  # live, simulated or log
    source: str
    run: Replay
    slo: SLO
    sized: SizedTrace | None = None
    config: SchedulerConfig | None = None
    model: str | None = None
    cost: CostModel | None = None
    harvest: Harvest | None = None
    devices: int = 1
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """`metrics` has latencies only where a request had one; what does not apply to the mode is null."""
        return {
            "schema": SCHEMA,
            "mode": self.mode,
            "source": self.source,
            "model": self.model,
            "trace": self.sized.info.to_dict() if self.sized else None,
            "config": asdict(self.config) if self.config else None,
            "cost": asdict(self.cost) if self.cost else None,
            "devices": self.devices,
            "seed": self.seed,
            "slo": asdict(self.slo),
            "metrics": self.run.metrics,
            "back": self.harvest.to_dict() if self.harvest else None,
            "decision_hash": f"{self.run.decision_hash:016x}",
            "virtual_s": self.run.virtual_s,
            "wall_s": self.run.wall_s,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """As a person reads it."""
        m = self.run.metrics
        heading = f"wattwork replay, {self.mode}: {', '.join(filter(None, (self.source, self.model)))}"
        return [heading, *self._sizing(), "", *_throughput(m), "", *_latencies(m), "", *self._ending()]

    def _sizing(self) -> list[str]:
        if self.sized is None:
            return []
        t = self.sized.info
        capacity = "the engine's" if self.mode == "live" else "the cost model's"
        lines = [
            f"{t.requests:,} requests; time x {t.stretch:.3g}, lengths x {t.scale:.3g}: over {t.duration_s:.1f} s they "
            f"offer {t.load:g} of {capacity} {t.capacity_tok_s:,.0f} prompt tok/s"
        ]
        if self.cost and self.config:
            c = self.cost
            lines.append(
                f"a step takes {si(c.step_s, 's')} + {si(c.per_token_s, 's')} a token + {si(c.per_sequence_s, 's')} a "
                f"sequence; {self.devices} device(s) of {self.config.max_num_seqs} sequences, "
                f"{self.config.max_num_batched_tokens} tokens a step"
            )
        return lines

    def _ending(self) -> list[str]:
        h, m, run = self.harvest, self.run.metrics, self.run
        lines = []
        if h is not None:
            lines.append(
                f"hashing behind: {si(h.hashes, 'H')} in {h.seconds:.1f} s, {si(h.hashes_per_s, 'H/s')}: "
                f"{h.share_of_solo:.1%} of hashing alone ({si(h.solo_hashes_per_s, 'H/s')}), {_share(h.share_of_idle)} "
                f"of the {h.idle_s:.1f} s in which no step ran"
            )
            if h.yields:
                lines.append(
                    f"gave way {h.yields.count:,} times, in {three(h.yields.p50_us)} µs (median; p90 "
                    f"{three(h.yields.p90_us)} µs), and worked at {_share(h.rate_while_working)} of its rate alone"
                )
        else:
            lines.append(f"no step ran in {m['idle_s']:,.1f} s of {run.virtual_s * self.devices:,.1f} s")
        how = "in" if self.mode == "simulated" else "replayed in"
        lines.append(
            f"decisions: {run.decision_hash:016x} after {m['steps']:,} steps, {how} {run.wall_s:.3f} s, "
            f"{run.virtual_s / run.wall_s:,.0f} times as fast as life"
        )
        return lines + [f"• {note}" for note in self.notes]


def run(args: argparse.Namespace) -> int:
    """Do as the options say; the exit code."""
    slo = SLO(args.slo_ttft_ms, args.slo_tpot_ms, args.slo_e2el_ms)
    result = _log(args, slo) if is_log(args.trace) else _trace(args, slo)
    finished = result.run.metrics["completed"]
    if result.mode != "log" and finished < FEW_REQUESTS:
        result.notes.append(f"Only {finished} requests finished: p99 is the longest of them; give --seconds more.")
    if result.run.note:
        result.notes.append(result.run.note)
    if args.json is not None:
        write_json(args.json, result.as_json(), "the result")
    if str(args.json) != "-":
        print("\n".join(result.lines()))
    return 0


def _log(args: argparse.Namespace, slo: SLO) -> _Result:
    return _Result("log", args.trace, replay(args.trace, slo=slo), slo)


def _trace(args: argparse.Namespace, slo: SLO) -> _Result:
    seconds = _given(args.seconds, defaults.SIMULATED_SECONDS if args.simulate else defaults.REPLAY_SECONDS)
    check_window(seconds, args.load)
    trace = packaged_trace() if args.trace == PACKAGED else read_trace(args.trace)
    _check_mode(args)
    with bar() as progress:
        if args.simulate:
            return _simulated(args, trace, seconds, slo, progress.show)
        header = mainnet_header(MAINNET_HEIGHTS[-1])
        played = play(
            trace, model=args.model, seconds=seconds, load=args.load, threads=args.threads, back=args.back != "off",
            header=header, slo=slo, progress=progress.show,
        )  # fmt: skip
    return _Result("live", trace.source, played.run, slo, played.sized, played.config, args.model, None, played.harvest)


def _check_mode(args: argparse.Namespace) -> None:
    names = ("cost", "devices", "seed", "max_num_seqs", "max_num_batched_tokens", "max_model_len")
    given = [name for name in names if getattr(args, name) is not None]
    if given and not args.simulate:
        raise InvalidInput(f"--{given[0].replace('_', '-')} is for --simulate; give that, too.")


def _simulated(args: argparse.Namespace, trace: Trace, seconds: float, slo: SLO, show: Any) -> _Result:
    config = _config(args)
    model = None if args.cost else args.model
    if args.cost:
        cost = cost_of(args.cost)
    else:
        cost = measure_cost(trace, model=args.model, threads=args.threads, progress=show)
    devices, seed = check_devices(_given(args.devices, 1)), _given(args.seed, 0)
    capacity_tok_s = devices * _capacity_tok_s(trace, config, cost)
    sized = size_trace(
        trace, capacity_tok_s=capacity_tok_s, window_s=seconds, context=config.max_model_len, load=args.load
    )
    show("simulating", 0.0)
    run = simulate(sized, config, cost, devices=devices, seed=seed, slo=slo)
    return _Result("simulated", trace.source, run, slo, sized, config, model, cost, None, devices, seed)


def _config(args: argparse.Namespace) -> SchedulerConfig:
    """Bounds as given, else as `Device` has them; and KV blocks for as many sequences of full length."""
    from wattwork.bounds import suited

    cpu = suited("cpu")
    seqs = _given(args.max_num_seqs, cpu.max_num_seqs)
    length = _given(args.max_model_len, preset(args.model).context)
    return SchedulerConfig(
        max_num_seqs=seqs,
        max_num_batched_tokens=_given(args.max_num_batched_tokens, max(seqs, cpu.max_num_batched_tokens)),
        max_num_queued_reqs=2**31 - 1,
        max_num_queued_tokens=2**31 - 1,
        block_size=BLOCK_SIZE,
        num_blocks=max(seqs, 1) * -(-length // BLOCK_SIZE),
        max_model_len=length,
    )


def _capacity_tok_s(trace: Trace, config: SchedulerConfig, cost: CostModel) -> float:
    """Prompt tok/s of one device that does the trace's prompts one after another."""
    from wattwork.trace import fit_to_context

    prompts = fit_to_context(trace, config.max_model_len)[0].prompt_tokens
    steps = float((-(-prompts // config.max_num_batched_tokens)).sum())
    tokens = float(prompts.sum())
    seconds = steps * (cost.step_s + cost.per_sequence_s) + tokens * cost.per_token_s
    if seconds <= 0:
        raise InvalidInput("--cost says that steps take no time; give step_s or per_token_s above 0.")
    return tokens / seconds


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def cost_of(text: str) -> CostModel:
    """`--cost A,B,C[,JITTER]`. InvalidInput if it is not that."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 3 <= len(numbers) <= 4:
        raise InvalidInput(f"--cost must be seconds per step, token and sequence, like 1e-3,2e-5,1e-5, not {text!r}.")
    return CostModel(*numbers)


def _throughput(m: dict[str, float]) -> list[str]:
    endings = ("cancelled", "timed_out", "rejected", "failed")
    others = ", ".join(f"{m[name]:,} {name.replace('_', ' ')}" for name in endings if m[name])
    goodput = f", request_goodput {m['request_goodput']:.4g} req/s" if "request_goodput" in m else ""
    return [
        f"{m['completed']:,} requests finished in {m['duration']:,.1f} s{f' ({others})' if others else ''}: "
        f"request_throughput {m['request_throughput']:.4g} req/s{goodput}",
        f"{m['total_input_tokens']:,} prompt and {m['total_output_tokens']:,} output tokens: output_throughput "
        f"{m['output_throughput']:,.1f} tok/s, total_token_throughput {m['total_token_throughput']:,.1f} tok/s",
    ]


def _latencies(m: dict[str, float]) -> list[str]:
    rows = [f"{'ms':6}{''.join(f'{name:>12}' for name in SPREAD)}"]
    for name, title in LATENCIES.items():
        figures = (m.get(f"{part}_{name}_ms") for part in SPREAD)
        rows.append(f"{title:6}{''.join(f'{NONE if v is None else three(v):>12}' for v in figures)}")
    return rows


def _share(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"
