"""The command line, run as a newcomer runs it: as a process."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from wattwork._native import HAVE_CORE
from wattwork.report import Report


def wattwork(*args: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "wattwork", *args],
        env=os.environ | env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    path = tmp_path_factory.mktemp("compare") / "report.json"
    root = tmp_path_factory.mktemp("powercap")  # an empty one: a machine without a meter
    run = wattwork("compare", "--seconds", "1", "--json", str(path), WATTWORK_POWERCAP_ROOT=str(root))
    return run, path


def test_compare_reports_every_phase(compared):
    run, path = compared
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no progress where there is no terminal
    report = Report.load(path)
    assert [(p.mode, p.scenario) for p in report.phases] == [
        ("idle", None), ("hash", None), ("infer", "offline"), ("infer", "trace"), ("mixed", "trace"),
    ]  # fmt: skip
    assert [(s.from_mode, s.to_mode) for s in report.switches] == [
        ("idle", "hash"), ("hash", "infer"), ("infer", "mixed"), ("mixed", "idle"),
    ]  # fmt: skip
    hashing, mixed = report.phase("hash"), report.phase("mixed")
    assert hashing.hashes > 0
    assert mixed.harvested_share == pytest.approx(mixed.hashes_per_s / hashing.hashes_per_s)
    assert mixed.latency.p50_ttft_ms > 0
    assert mixed.output_tokens == report.phase("infer", "trace").output_tokens
    for row in ("idle", "hash", "infer, offline", "infer, trace", "mixed", "idle → hash", "mixed beside alone"):
        assert row in run.stdout


def test_compare_s_report_is_valid_by_its_schema(compared):
    schema = json.loads(resources.files("wattwork.data").joinpath("report.schema.json").read_text())
    jsonschema.validate(json.loads(compared[1].read_text()), schema)


def test_compare_s_proof_holds_by_hashlib(compared):
    import hashlib

    proof = Report.load(compared[1]).proof
    header = bytes.fromhex(proof.header)
    assert int.from_bytes(header[76:], "little") == proof.nonce
    assert hashlib.sha256(hashlib.sha256(header).digest()).hexdigest() == proof.hash


def test_without_a_meter_nothing_is_called_measured(compared):
    run, path = compared
    assert "measured" not in run.stdout.lower()
    assert "cores-tdp/1" in run.stdout
    said = " ".join(run.stdout.split())  # wherever the lines end
    assert "95 % interval" in said
    assert "next to nothing beside an ASIC" in said
    assert {phase.power.source for phase in Report.load(path).phases} == {"estimated"}


def test_the_slow_path_says_so_in_one_line(compared):
    assert ("slow path" in compared[0].stdout) == (not HAVE_CORE)


def test_the_operator_s_reading_is_taken(tmp_path):
    run = wattwork("compare", "--seconds", "0.2", "--watts", "100", "--quiet", "--json", str(tmp_path / "r.json"))
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    hashing = Report.load(tmp_path / "r.json").phase("hash")
    assert hashing.power.source == "external"
    assert hashing.power.watts == pytest.approx(100)


def test_json_to_standard_output_is_json_and_nothing_else():
    run = wattwork("compare", "--seconds", "0.2", "--json", "-")
    assert Report.from_json(run.stdout).phase("mixed") is not None


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["compare", "gpu:7"], "choose 'cpu', or a GPU"),
        (["compare", "--model", "gpt-9"], "tiny-15m, smol-135m"),
        (["compare", "--seconds", "0"], "seconds must be above 0"),
        (["compare", "--seconds", "nan"], "seconds must be above 0"),
        (["compare", "--threads", "0"], "threads must be from 1 to 1024"),
        (["compare", "--watts", "-3"], "watts"),
        (["compare", "--load", "0"], "load must be above 0"),
        (["compare", "--json", "/no/such/folder/report.json"], "--json"),
        (["compare", "--json", "/"], "give a file"),
        (["compare", "--json", "/proc/report.json"], "writable folder"),
        (["compare", "--seconds", "ten"], "--seconds"),
        (["compare", "--colour"], "--colour"),
        (["mine"], "mine"),
        ([], "COMMAND"),
    ],
)
def test_wrong_input_ends_with_2_and_names_the_option(args, names):
    run = wattwork(*args)
    assert run.returncode == 2
    assert names in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_a_forced_instruction_set_that_is_unknown_is_an_error():
    run = wattwork("compare", WATTWORK_ISA="mmx")
    assert run.returncode == 2
    assert "WATTWORK_ISA=mmx" in run.stderr


def test_devices_names_processor_search_engine_and_meter():
    run = wattwork("devices")
    assert run.returncode == 0
    for name in ("cpu", "threads", "hashing", "inference", "meter", "numpy"):
        assert name in run.stdout


def test_help_and_version():
    assert "compare" in wattwork("--help").stdout
    assert "--watts" in wattwork("compare", "--help").stdout
    assert wattwork("--version").stdout.startswith("wattwork 0.")


@pytest.mark.parametrize("command", ["devices", "compare --seconds 0.1 --json -"])
def test_a_reader_that_leaves_gets_no_traceback(command):
    shell = f"{sys.executable} -m wattwork {command} | true; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1)
    assert run.stderr == ""


def test_a_full_disk_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "wattwork", "devices"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (run.returncode, run.stderr) == (1, "wattwork: the output cannot be written: No space left on device.\n")


@pytest.mark.parametrize("after_s", [0.0, 2.0])
def test_ctrl_c_ends_it_at_once(after_s):
    run = subprocess.Popen(
        [sys.executable, "-m", "wattwork", "compare"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while "numpy" not in Path(f"/proc/{run.pid}/maps").read_text():  # it is past its first imports, and in the next
        time.sleep(0.01)
    time.sleep(after_s)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, b"")
    assert err.endswith(b"wattwork: interrupted.\n")  # before it, Python may tell of an import that swallowed the first


def test_ctrl_c_inside_an_exec_ends_with_130_too(tmp_path):
    program = """
import wattwork.cli as cli
def interrupted(args): exec("raise KeyboardInterrupt")
cli._devices = interrupted
raise SystemExit(cli.main(["devices"]))
"""
    (tmp_path / "interrupted.py").write_text(program)  # only `python -m` does what cli.main guards against
    command = [sys.executable, "-m", "interrupted"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (130, b"wattwork: interrupted.\n")
