"""`wattwork replay`, run as an operator runs it: as a process."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from engines_for_tests import SumEngine

from wattwork.scheduler import Scheduler, SchedulerConfig
from wattwork.serving import SLO
from wattwork.simulation import CostModel, simulate
from wattwork.trace import packaged_trace, size_trace

COMMAND = [sys.executable, "-m", "wattwork", "replay"]
SIMULATED = ("azure-code", "--simulate", "--cost", "1e-3,2e-5,1e-5")
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

NUMBER, COUNT = {"type": "number"}, {"type": "integer", "minimum": 0}
TEXT_OR_NULL, OBJECT_OR_NULL = {"type": ["string", "null"]}, {"type": ["object", "null"]}


def an_object(required, properties):
    return {"type": "object", "required": [*required, *properties], "properties": properties}


THROUGHPUTS = {f"{name}_throughput": NUMBER for name in ("request", "output", "total_token")}
LATENCIES = [
    f"{part}_{name}_ms" for part in ("mean", "median", "std", "p90", "p99") for name in ("ttft", "itl", "e2el")
]
SCHEMA = an_object(
    [],
    {
        "schema": {"const": "wattwork.replay/1"},
        "mode": {"enum": ["live", "simulated", "log"]},
        "source": {"type": "string"},
        "model": TEXT_OR_NULL,
        "trace": OBJECT_OR_NULL,
        "config": OBJECT_OR_NULL,
        "cost": OBJECT_OR_NULL,
        "devices": COUNT,
        "seed": COUNT,
        "slo": {"type": "object"},
        "metrics": an_object(["completed", "steps", "idle_s", *LATENCIES], THROUGHPUTS),
        "back": OBJECT_OR_NULL,
        "decision_hash": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        "virtual_s": NUMBER,
        "wall_s": NUMBER,
        "notes": {"type": "array", "items": {"type": "string"}},
    },
)


def wattwork_replay(*args, timeout=120):
    run = subprocess.run([*COMMAND, *args], capture_output=True, text=True, check=False, timeout=timeout)
    return run.returncode, run.stdout, run.stderr


def as_json(*args):
    code, out, err = wattwork_replay(*args, "--json", "-")
    assert (code, err) == (0, "")
    result = json.loads(out)
    jsonschema.validate(result, SCHEMA)
    return result


def test_simulated_is_what_simulate_answers():
    result = as_json(*SIMULATED, "--seconds", "60", "--devices", "2", "--slo-ttft-ms", "100", "--load", "0.5")
    t = result["trace"]
    assert t["load"] == 0.5
    config, cost = SchedulerConfig(**result["config"]), CostModel(**result["cost"])
    sized = size_trace(
        packaged_trace(), capacity_tok_s=t["capacity_tok_s"], window_s=60, context=config.max_model_len, load=0.5
    )
    run = simulate(sized, config, cost, devices=2, slo=SLO(ttft_ms=100))
    assert result["decision_hash"] == f"{run.decision_hash:016x}"
    assert result["metrics"] == run.metrics
    assert 0 < result["metrics"]["request_goodput"] < result["metrics"]["request_throughput"]
    assert result["back"] is None


def test_simulated_in_words(tmp_path):
    code, out, err = wattwork_replay(*SIMULATED, "--seconds", "60", "--json", str(tmp_path / "result.json"))
    assert (code, err) == (0, "")
    assert out.startswith("wattwork replay, simulated: Azure LLM inference trace 2023 (code)")
    for said in ("time x", "lengths x 0.272", "TTFT ", "TPOT ", "ITL ", "E2EL ", "output_throughput", "no step ran in"):
        assert said in out
    jsonschema.validate(json.loads((tmp_path / "result.json").read_text()), SCHEMA)


def test_the_seed_counts_where_steps_vary():
    varied = (*SIMULATED[:-1], "1e-3,2e-5,1e-5,0.5", "--seconds", "10")
    hashes = {as_json(*varied, "--seed", seed)["decision_hash"] for seed in ("1", "2", "2")}
    assert len(hashes) == 2


def test_a_trace_of_ones_own_and_bounds_of_ones_own(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "".join(f"2023-11-16 18:17:{s:02},{100 + s},{1 + s}\n" for s in range(40)))
    result = as_json(
        str(path), "--simulate", "--cost", "1e-3,1e-5,0", "--seconds", "30", "--max-num-seqs", "4",
        "--max-num-batched-tokens", "64", "--max-model-len", "4096",
    )  # fmt: skip
    assert result["trace"]["scale"] == 1
    assert result["source"] == str(path)
    assert (result["config"]["max_num_seqs"], result["config"]["max_num_batched_tokens"]) == (4, 64)


@pytest.mark.core
def test_live_with_hashing_behind():
    result = as_json("azure-code", "--seconds", "3", "--slo-ttft-ms", "60000", "--slo-tpot-ms", "60000")
    m, back = result["metrics"], result["back"]
    assert result["mode"] == "live"
    assert m["completed"] == result["trace"]["requests"] > 0
    assert m["request_goodput"] == m["request_throughput"]
    assert back["hashes"] > 0
    assert 0 < back["share_of_solo"] < 1.1
    assert 0 < back["idle_s"] < back["seconds"]
    assert back["share_of_idle"] == pytest.approx(back["hashes"] / back["solo_hashes_per_s"] / back["idle_s"])
    assert back["yields"]["count"] > 0


@pytest.mark.core
def test_live_without_a_back_and_in_words():
    code, out, err = wattwork_replay("azure-code", "--seconds", "2", "--load", "0.05", "--back", "off")
    assert (code, err) == (0, "")
    assert "hashing" not in out
    assert "of the engine's" in out
    few = int(re.search(r"^(\d+) requests? finished in", out, re.M).group(1)) < 20  # a faster machine is offered more
    assert ("finished: p99 is the longest of them" in out) == few


@pytest.mark.core
def test_simulated_with_a_cost_that_is_measured():
    result = as_json("azure-code", "--simulate", "--seconds", "30")
    assert result["model"] == "tiny-15m"
    assert result["cost"]["per_token_s"] > 0
    assert result["metrics"]["completed"] == result["trace"]["requests"]


def test_a_log(tmp_path):
    config = SchedulerConfig(4, 8, 100, 1000, 4, 12, 40)
    with Scheduler(config, SumEngine(config), record=tmp_path / "log") as scheduler:
        for i in range(3):
            scheduler.submit([i], max_tokens=4).result(60_000)
        hash = scheduler.stats().decision_hash
    result = as_json(str(tmp_path / "log"))
    assert (result["mode"], result["decision_hash"]) == ("log", f"{hash:016x}")
    assert result["metrics"]["completed"] == 3
    (tmp_path / "log").write_bytes((tmp_path / "log").read_bytes()[:-1])
    code, out, _ = wattwork_replay(str(tmp_path / "log"))
    assert code == 0
    assert "• " in out
    assert "cut off or damaged at byte" in out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("none.csv",), "the trace none.csv cannot be read"),
        ((*SIMULATED[:-1], "1,2"), "--cost must be seconds per step, token and sequence"),
        ((*SIMULATED[:-2], "--cost=-1,0,0"), "the cost model's step_s must be a number from 0"),
        ((*SIMULATED[:-1], "0,0,0"), "--cost says that steps take no time"),
        ((*SIMULATED, "--devices", "0"), "devices must be from 1"),
        ((*SIMULATED, "--max-num-seqs", "0"), "max_num_seqs is 0"),
        ((*SIMULATED, "--model", "huge"), "huge"),
        (("azure-code", "--devices", "2"), "--devices is for --simulate; give that, too."),
        (("azure-code", "--seconds", "0"), "seconds must be above 0"),
        (("azure-code", "--load", "11"), "load must be above 0 and at most 10"),
        (("azure-code", "--slo-ttft-ms", "-1"), "the SLO ttft_ms must be above 0"),
        (("azure-code", "--json", "/no/such/folder/x.json"), "--json /no/such/folder/x.json"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(args, sentence):
    code, out, err = wattwork_replay(*args)
    assert (code, out) == (2, "")
    assert err.startswith("wattwork: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.core
def test_ctrl_c_ends_it():
    with subprocess.Popen(
        [*COMMAND, "azure-code", "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        time.sleep(3)
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "wattwork: interrupted.\n")
