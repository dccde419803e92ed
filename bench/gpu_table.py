"""The README's table of GPU figures, from what bench/gpu.py wrote under bench/results/*/gpu.json.

    python bench/gpu_table.py            prints it
    python bench/gpu_table.py --write    puts it into README.md, between its two marks

Each cell is a figure of the newest run in which that was measured, or "not yet measured".
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MARKS = ("<!-- bench/gpu_table.py -->\n", "<!-- /bench/gpu_table.py -->\n")
NONE = "not yet measured"
# What must be reached on an H200, as README states it.
ASKED = {
    "plain scan": "8.8 GH/s",
    "version-rolled": "10.0 GH/s",
    "yield, p99": "10 µs",
    "hash rate lost to polling": "2 %",
    "J/TH while hashing, version-rolled": "",
    "llama-3.1-8b, bf16, context 1024, batch 1": "150 tok/s",
    "llama-3.1-8b, bf16, context 1024, batch 64": "5,000 tok/s",
    "front p99 (E2EL) with hashing behind, 200 requests/s": "+3 %",
    "idle time harvested at 200 requests/s": "85 %",
}
FRONT = "200 requests/s"


def best(rates):
    return max((rate for rate in rates.values() if isinstance(rate, float)), default=None)


def decoded(run, batch):
    """tok/s, with the share of what the memory's bandwidth allows, as a copy in the same run measured it, and tok/J."""
    of = run.get("inference", {}).get("llama-3.1-8b", {}).get(batch, {})
    if not of.get("tok_s"):
        return None
    share, per_j = of["roofline_share"]["measured"], of["tok_per_j"]
    notes = [f"{share:.0%} of the roofline"] * bool(share) + [f"{per_j:.3g} tok/J"] * bool(per_j)
    return f"{of['tok_s']:,.0f} tok/s" + (f" ({', '.join(notes)})" if notes else "")


def slower(run):
    """The p99 with hashing behind over the mean of the two runs alone, and by how much those two differ."""
    of = run.get("front", {}).get(FRONT, {})
    if "alone" not in of:
        return None
    behind, a, b = (of[name]["p99_e2el_ms"] for name in ("hashing behind", "alone", "alone again"))
    return f"{200 * behind / (a + b) - 100:+.1f} % (alone twice: {200 * abs(a - b) / (a + b):.1f} %)"


def harvested(run):
    share = run.get("front", {}).get(FRONT, {}).get("hashing behind", {}).get("idle_harvested")
    return share and f"{100 * share:.1f} %"


def cells(run):
    """The figures of one run, by the names of ASKED; only those it has."""
    rates = run.get("gh_s", {})
    kinds = {kind: best(rates.get(kind, {}).get("default", {})) for kind in ("plain", "rolled")}
    blind = best(rates.get("plain", {}).get("without polling", {}))
    yields = [way["gpu_events"]["p99_us"] for way in run.get("yield", {}).get("rolled", {}).values()
              if way.get("gpu_events")]  # fmt: skip
    powers = [power["j_per_th"] for power in run.get("power", {}).get("rolled", {}).values() if power.get("j_per_th")]
    found = {
        "plain scan": kinds["plain"] and f"{kinds['plain']:.2f} GH/s",
        "version-rolled": kinds["rolled"] and f"{kinds['rolled']:.2f} GH/s",
        "yield, p99": yields and f"{min(yields):.1f} µs",
        "hash rate lost to polling": kinds["plain"] and blind and f"{100 * (1 - kinds['plain'] / blind):.1f} %",
        "J/TH while hashing, version-rolled": powers and f"{powers[0]:.0f}",
        **{f"llama-3.1-8b, bf16, context 1024, {batch}": decoded(run, batch) for batch in ("batch 1", "batch 64")},
        f"front p99 (E2EL) with hashing behind, {FRONT}": slower(run),
        f"idle time harvested at {FRONT}": harvested(run),
    }
    return {name: text for name, text in found.items() if text}


def table(runs):
    """`runs`: the dictionaries of gpu.json, in any order."""
    devices: dict[str, dict[str, str]] = {}
    for run in sorted(runs, key=lambda run: run["date"]):
        devices.setdefault(run["device"], {}).update(cells(run))
    devices = devices or {"NVIDIA H200": {}}
    lines = [f"| | {' | '.join(devices)} | asked of an H200 |", f"|---{'|---' * (len(devices) + 1)}|"]
    for name, asked in ASKED.items():
        lines.append(f"| {name} | {' | '.join(of.get(name, NONE) for of in devices.values())} | {asked} |")
    return "\n".join(lines) + "\n"


def main():
    text = table(json.loads(path.read_text()) for path in RESULTS.glob("*/gpu.json"))
    if sys.argv[1:] != ["--write"]:
        print(text, end="")
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(MARKS[0])
    readme.write_text(before + MARKS[0] + text + MARKS[1] + rest.partition(MARKS[1])[2])


if __name__ == "__main__":
    main()
