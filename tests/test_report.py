"""The report: round trip, schema, derived figures, and what a broken file says."""

import hashlib
import io
import json
import os
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from wattwork import machine
from wattwork.conditions import Conditions
from wattwork.data import mainnet_header, packaged_bytes
from wattwork.errors import InvalidInput
from wattwork.latency import Latency, Yields
from wattwork.levels import Figure, Level, Method, SwitchCost
from wattwork.meters import Energy, Meter
from wattwork.render import grouped, print_report
from wattwork.report import MODES, SCENARIOS, PhaseResult, Power, Proof, Report, Switch
from wattwork.trace import packaged_trace, size_trace

VALIDATOR = jsonschema.Draft202012Validator(json.loads(packaged_bytes("report.schema.json")))


def example():
    header = mainnet_header(0)
    digest = hashlib.sha256(hashlib.sha256(header).digest()).digest()
    sized = size_trace(packaged_trace(), capacity_tok_s=1000, window_s=10, context=2048)
    energy = Meter("estimate")
    with energy.window() as window:
        pass
    return Report(
        device=machine.describe_device(isa="portable", threads=2),
        versions=machine.describe_versions(),
        phases=[
            PhaseResult("idle", 10.0, power=Power.from_energy(window.energy)),
            PhaseResult("hash", 10.0, hashes=4 * 10**8, power=Power(80.0, 8.0, (79.0, 81.0), "counter", 1.0, "rapl")),
            PhaseResult("infer", 10.0, output_tokens=300, prompt_tokens=900, scenario="offline"),
            PhaseResult(
                "mixed",
                10.0,
                hashes=10**8,
                output_tokens=100,
                prompt_tokens=4000,
                scenario="trace",
                harvested_share=0.25,
                power=Power(100.0, 10.0, None, "external"),
                latency=Latency(1.5, 2.5, None, None),
                yields=Yields(7, 20.5, 40.0),
                trace=sized.info.to_dict(),
                samples=[{"t_s": 1.0, "hashes": 10**7, "output_tokens": 9}],
                method=Method(3, True, None, 0.0, {"watts": Figure(10.0, (9.0, 11.0), 3)}),
                conditions=Conditions((2000.0, 3000.0), (40.0, 60.5), 100.0, 0, 0.25, 0.0),
                warnings=("Other processes took 25% of the machine's CPU time; end them.",),
            ),
        ],
        switches=[Switch("idle", "hash", 0.001, 0.002, 0.5), Switch("hash", "idle", 0.001, None, None)],
        proof=Proof(header.hex(), int.from_bytes(header[76:], "little"), digest.hex()),
        ladder=[Level("idle", 0.0, None, None, None, Figure(2.0, None, 1), "counter", 10.0)],
        switch_costs=[SwitchCost("idle", "hash", Figure(1e-6, None, 1), None, None, "counter")],
    )


def test_round_trip_and_schema(tmp_path):
    report = example()
    report.save(tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    loaded = Report.load(tmp_path / "report.json")
    assert loaded == report
    VALIDATOR.validate(json.loads(report.to_json()))
    VALIDATOR.validate(json.loads(Report().to_json()))


amounts = st.none() | st.floats(0, 1e12)
intervals = st.none() | st.tuples(st.floats(0, 1), st.floats(1, 2))
counts = st.none() | st.integers(0, 2**70)
shares = st.none() | st.floats(0, 1)
sentences = st.lists(st.text(), max_size=2).map(tuple)
sources = st.sampled_from(["counter", "sampled", "external", "estimated"])
figures = st.builds(Figure, st.floats(-1e9, 1e9), intervals, st.integers(1, 2**40))
powers = st.builds(Power, amounts, amounts, intervals, sources, shares, st.text(), counts, sentences)
methods = st.builds(
    Method,
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.booleans(),
    st.floats(0, 1e6),
    st.dictionaries(st.text(), figures, max_size=2),
)
conditions = st.builds(Conditions, intervals, intervals, st.none() | st.floats(-50, 150), counts, shares, shares)
phases = st.builds(
    PhaseResult,
    st.sampled_from(MODES),
    st.floats(0, 1e6),
    st.integers(0, 2**70),
    st.integers(0),
    st.integers(0),
    st.none() | st.sampled_from(SCENARIOS),
    amounts,
    st.none() | powers,
    st.none() | st.builds(Latency, *[amounts] * 8),
    st.none() | st.builds(Yields, st.integers(0, 2**40), st.floats(0, 1e9), st.floats(0, 1e9)),
    st.none() | st.dictionaries(st.text(), st.integers()),
    st.lists(st.dictionaries(st.text(), st.integers()), max_size=3),
    st.none() | methods,
    st.none() | conditions,
    sentences,
)
switches = st.builds(Switch, st.sampled_from(MODES), st.sampled_from(MODES), st.floats(0, 1e3), amounts, amounts)
levels = st.builds(
    Level,
    st.sampled_from(MODES),
    st.floats(0, 1),
    amounts,
    st.none() | st.sampled_from(["hashes", "output_tokens"]),
    st.none() | figures,
    st.none() | figures,
    sources,
    st.floats(0, 1e6),
    sentences,
)
switch_costs = st.builds(
    SwitchCost,
    st.sampled_from(MODES),
    st.sampled_from(MODES),
    figures,
    st.none() | figures,
    st.none() | figures,
    sources,
)
reports = st.builds(
    Report,
    phases=st.lists(phases, max_size=2),
    switches=st.lists(switches, max_size=3),
    ladder=st.lists(levels, max_size=3),
    switch_costs=st.lists(switch_costs, max_size=3),
)


@given(reports)
def test_every_report_comes_back_and_validates(report):
    assert Report.from_json(report.to_json()) == report
    VALIDATOR.validate(json.loads(report.to_json()))


GOLDEN = Path(__file__).parent / "data/report_1.json"


def test_a_report_of_version_0_1_0_still_loads():
    """Written by `wattwork compare --model tiny-15m --seconds 1` before there was a method or a ladder."""
    golden = json.loads(GOLDEN.read_text())
    VALIDATOR.validate(golden)
    report = Report.load(GOLDEN)
    now = json.loads(report.to_json())
    VALIDATOR.validate(now)
    assert {name: now[name] for name in ("device", "versions", "switches", "proof")} == {
        name: golden[name] for name in ("device", "versions", "switches", "proof")
    }
    for before, after in zip(golden["phases"], now["phases"], strict=True):
        power = {name: after["power"][name] for name in before["power"]}
        assert {name: after[name] for name in before} | {"power": power} == before
    assert (report.ladder, report.switch_costs) == ([], [])
    assert {phase.method for phase in report.phases} == {None}
    print_report(report, Console(file=io.StringIO()))


def test_the_json_has_the_fixed_shape():
    data = example().to_dict()
    assert list(data) == [
        "schema", "device", "versions", "phases", "switches", "proof", "ladder", "switch_costs",
    ]  # fmt: skip
    assert data["schema"] == "wattwork.report/1"
    mixed = data["phases"][3]
    assert mixed["work"] == {"hashes": 10**8, "output_tokens": 100, "prompt_tokens": 4000}
    assert set(mixed["power"]) == {
        "joules", "watts", "ci95_j", "source", "coverage", "detail", "updates", "warnings",
    }  # fmt: skip
    assert {"p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "p99_tpot_ms"} <= set(mixed["latency"])
    assert {"stretch", "scale", "source"} <= set(mixed["trace"])
    assert data["switches"][0] == {
        "from": "idle",
        "to": "hash",
        "command_s": 0.001,
        "first_unit_s": 0.002,
        "joules": 0.5,
    }


def test_derived_figures():
    report = example()
    hashing, mixed, infer = report.phase("hash"), report.phase("mixed"), report.phase("infer", "offline")
    assert hashing.hashes_per_s == 4e7
    assert hashing.hashes_per_joule == 5e6
    assert hashing.joules_per_hash == pytest.approx(2e-7)
    assert hashing.output_throughput is None
    assert mixed.output_throughput == 10.0
    assert mixed.prompt_throughput == 400.0
    assert mixed.output_tokens_per_joule == 1.0
    assert mixed.joules_per_output_token == 1.0
    assert infer.joules_per_output_token is None
    assert report.phase("infer", "trace") is None


def test_a_lost_counter_is_null_with_its_reason():
    lost = Energy(None, None, None, 1.0, "counter", 0.0, None, "rapl: the energy counter is not there any more.")
    data = json.loads(Report(phases=[PhaseResult("hash", 1.0, 5, power=Power.from_energy(lost))]).to_json())
    assert data["phases"][0]["power"]["joules"] is None
    assert "not there" in data["phases"][0]["power"]["detail"]
    assert data["phases"][0]["work"]["hashes"] == 5
    VALIDATOR.validate(data)


def broken(change):
    data = example().to_dict()
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "has no 'schema'"),
        ('{"schema": "wattwork.report/2"}', "schema 'wattwork.report/2'; this version of wattwork reads"),
        (broken(lambda d: d["phases"][1].update(mode="sleep")), r"phases\[1\]: mode must be one of idle, hash"),
        (broken(lambda d: d["phases"][0].update(seconds="long")), r"phases\[0\]: seconds must be a number, not 'long'"),
        (broken(lambda d: d["phases"][0]["work"].update(hashes=-1)), "hashes must be a whole number"),
        (broken(lambda d: d["phases"][1]["power"].update(ci95_j=[2, 1])), r"power: ci95_j must be \[low, high\]"),
        (broken(lambda d: d["phases"][1]["power"].update(source="guess")), "source must be one of counter"),
        (broken(lambda d: d["phases"][1]["power"].update(detail=5)), "detail must be a string"),
        (broken(lambda d: d["switches"][0].pop("from")), r"switches\[0\] has no 'from'"),
        (broken(lambda d: d.update(phases=3)), "phases must be a list"),
        (broken(lambda d: d["phases"][3].update(warnings="So.")), "warnings must be a list of strings"),
        (broken(lambda d: d["phases"][3]["method"].update(quick=1)), "method: quick must be true or false"),
        (broken(lambda d: d["ladder"][0]["watts"].pop("n")), r"ladder\[0\]: watts has no 'n'"),
        (broken(lambda d: d["switch_costs"][0].pop("command_s")), r"switch_costs\[0\] has no 'command_s'"),
        (broken(lambda d: d.update(device=[1] * 99)), "device must be an object, not .*\\.\\.\\."),
    ],
)
def test_a_broken_report_says_what_and_where(tmp_path, text, sentence):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=sentence) as error:
        Report.load(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        Report.load(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read"):
        Report.load(tmp_path / "binary.json")
    with pytest.raises(InvalidInput, match="cannot be written"):
        Report().save(tmp_path / "none" / "report.json")
    with pytest.raises(InvalidInput, match="not a number"):
        Report(phases=[PhaseResult("idle", float("nan"))]).to_json()


def test_saving_follows_links_and_replaces_nothing_but_files(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    Report().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Report.load(tmp_path / "file") == Report()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    Report().save(tmp_path / "pipe")
    assert os.read(reader, 10_000).decode() == Report().to_json()
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pipe"]


def test_less_than_a_token_per_joule_is_no_mtok():
    console = Console(file=io.StringIO(), width=200)
    print_report(
        Report(phases=[PhaseResult("infer", 2.0, output_tokens=12, power=Power(16.0, 8.0, None, "external"))]), console
    )
    assert "0.75 tok/J" in console.file.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_tables_lose_nothing_in_a_narrow_terminal(width):
    console = Console(file=io.StringIO(), width=width)
    print_report(example(), console)
    assert "…" not in console.file.getvalue()
    assert "".join(console.file.getvalue().split()).count("estimate") >= 2  # the watts, and the switches' joules


def test_doubts_and_shortness_are_said_below_the_tables():
    console = Console(file=io.StringIO(), width=200)
    print_report(example(), console)
    assert "• mixed: Other processes took 25% of the machine's CPU time; end them." in console.file.getvalue()
    assert "10.0 W ±10% as told" in console.file.getvalue()
    assert "• The device ran at 2,000 to 3,000 MHz, 40 to 60 °C." in console.file.getvalue()
    assert "• Quick: windows of 10.0 s; for figures to rely on, give --seconds 60." in console.file.getvalue()


def test_equal_doubts_are_said_once():
    said = [("hash", ["It was 5% off.", "So."]), ("infer", ["It was 7.5% off.", "So."]), ("mixed", ["So."])]
    assert grouped(said, "all") == ["hash and likewise 1 more: It was 5% off.", "all: So."]
    assert grouped([("a", ["1."]), ("b", ["2."])], "all") == ["all, as in a: 1."]
    assert grouped([("a", ["1."])], "all") == ["a: 1."]


def test_unknown_keys_are_left_out():
    data = {"schema": "wattwork.report/1", "phases": [{"mode": "idle", "seconds": 1, "later": 5}], "more": 1}
    assert Report.from_json(json.dumps(data)).phases == [PhaseResult("idle", 1)]


def test_the_machine_is_named(tmp_path):
    assert machine.describe_device()["name"]
    assert machine.describe_device("cuda:0")["kind"] == "cuda"
    assert machine.describe_versions()["python"].startswith("3.")
    assert machine.cpu_name(tmp_path)  # no /proc there: the architecture
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\n")
    assert machine.cpu_name(tmp_path) == "Some CPU"
    threads = machine.usable_threads()
    assert machine.usable_cores(tmp_path) == len(threads)
    for cpu in threads:  # all of them threads of one core
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text("3\n")
    assert machine.usable_cores(tmp_path) == 1
