"""`wattwork ladder`, `switches` and `schema` as processes; what each writes is valid by the schema."""

import csv
import json

import jsonschema
import pytest
from test_cli import wattwork

from wattwork.data import packaged_bytes
from wattwork.report import Report

SCHEMA = json.loads(packaged_bytes("report.schema.json"))
SHORT = ("--levels", "2", "--seconds", "0.3", "--repeats", "2")


def read(path):
    jsonschema.validate(json.loads(path.read_text()), SCHEMA, jsonschema.Draft202012Validator)
    return Report.load(path)


def test_the_schema_is_printed():
    run = wattwork("schema")
    assert (run.returncode, json.loads(run.stdout)) == (0, SCHEMA)
    assert SCHEMA["$id"] == "urn:wattwork:report:1"


def test_ladder_writes_table_report_csv_and_plot(tmp_path):
    report, table, picture = (tmp_path / name for name in ("ladder.json", "ladder.csv", "ladder.svg"))
    files = ("--json", str(report), "--csv", str(table), "--plot", str(picture))
    run = wattwork("ladder", *SHORT, *files, "--watts", "50")
    assert (run.returncode, run.stderr) == (0, "")
    levels = read(report).ladder
    assert [(level.mode, level.target) for level in levels] == [
        ("hash", 1.0), ("hash", 0.5), ("infer", 1.0), ("infer", 0.5), ("idle", 0.0),
    ]  # fmt: skip
    for said in ("hash at 100%", "infer at 50%", "active idle", "hash, overall", "Quick: levels of 0.6 s", "as told"):
        assert said in run.stdout
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == 5
    assert "Work per joule" in picture.read_text()


def test_ladder_by_threads_to_standard_output():
    run = wattwork("ladder", "--mode", "hash", "--by", "threads", "--threads", "2", *SHORT, "--json", "-")
    report = Report.from_json(run.stdout)
    assert report.device["hashing_by"] == "threads"
    assert [level.mode for level in report.ladder] == ["hash", "hash", "idle"]


def test_switches_shows_a_matrix(tmp_path):
    run = wattwork("switches", "--repeats", "1", "--json", str(tmp_path / "switches.json"))
    assert (run.returncode, run.stderr) == (0, "")
    assert len(read(tmp_path / "switches.json").switch_costs) == 12
    for said in ("to idle", "to mixed", "first unit", "medians of 1 switches"):
        assert said in " ".join(run.stdout.split())


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["ladder", "--levels", "0"], "levels must be from 1 to 100"),
        (["ladder", "--by", "sms"], "--by"),
        (["ladder", "--csv", "/no/such/folder/levels.csv"], "--csv"),
        (["ladder", "--plot", "levels.txt"], "--plot levels.txt: give a file that ends in .png"),
        (["ladder", "tpu:0"], "tpu:0"),
        (["switches", "--repeats", "0"], "repeats must be from 1"),
        (["switches", "--json", "/"], "give a file"),
        (["switches", "--model", "gpt-9"], "tiny-15m"),
    ],
)
def test_wrong_input_ends_with_2_and_names_what_to_change(args, names):
    run = wattwork(*args)
    assert (run.returncode, run.stdout) == (2, "")
    assert names in run.stderr
    assert "Traceback" not in run.stderr
