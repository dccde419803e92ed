"""Load levels: the controller in virtual time, the files they make, and a short ladder for real."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import Knob, StandIn

import wattwork as ww
from wattwork import ladder_plot
from wattwork.conditions import Watch
from wattwork.data import mainnet_header
from wattwork.errors import InvalidInput
from wattwork.knobs import Duty, Rate, Threads
from wattwork.ladder import Ladder, corrected, ladder, missed
from wattwork.ladder_csv import COLUMNS, csv_of
from wattwork.levels import Figure, Level, overall
from wattwork.load import SHORT_TOKENS
from wattwork.report import Report


@pytest.fixture(autouse=True)
def still_machine(monkeypatch, tmp_path):
    """No other load to warn of."""
    monkeypatch.setattr("wattwork.ladder.Watch", lambda device: Watch(device, root=tmp_path))


def steps(levels=10, seconds=20.0, repeats=3):
    return Ladder(levels, seconds, repeats, lambda step, share: None)


def test_a_proportional_device_is_stepped_down_from_its_full_rate():
    device = StandIn()
    knob = Knob(device)
    levels = steps().climb(knob)
    assert [level.target for level in levels] == pytest.approx([i / 10 for i in range(10, 0, -1)])
    assert [level.load for level in levels] == pytest.approx([level.target for level in levels], rel=1e-5)
    assert levels[0].units_per_s == Figure(1e6, (1e6, 1e6), 3)
    assert [level.watts.median for level in levels] == pytest.approx([10 + 40 * level.target for level in levels])
    assert {(level.mode, level.unit, level.source, level.seconds, level.quick) for level in levels} == {
        ("hash", "hashes", "external", 60.0, False)
    }
    assert all(level.warnings == () for level in levels)
    assert knob.shares[0] == 1.0


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 2.0), st.floats(0.0, 0.004), st.integers(0, 2**32), st.integers(2, 12))
def test_the_controller_finds_every_level_of_a_device_that_is_not(power, noise, seed, n):
    """Rates that follow the share to some power, as with clocks that rise and caches that are shared."""
    device = StandIn(rate=lambda share, t_s: 1e8 * share**power, noise=noise, seed=seed)
    for level in steps(n).climb(Knob(device)):
        assert abs(level.load / level.target - 1) <= 0.02, level
        assert missed(level) == ()


def test_a_load_that_drifts_is_followed():
    device = StandIn(rate=lambda share, t_s: 1e6 * share * (1 + max(0.0, t_s - 80.0) * 1e-4))
    assert all(missed(level) == () for level in steps().climb(Knob(device)))


def test_a_level_that_cannot_be_reached_says_so_and_the_others_are_kept():
    device = StandIn(rate=lambda share, t_s: 1e6 * max(share, 0.35))
    levels = steps(5).climb(Knob(device))
    assert [bool(missed(level)) for level in levels] == [False, False, False, False, True]
    assert levels[-1].warnings == ("The load was 35.0%, not 20% within 2%; give more seconds.",)


def test_a_device_that_does_nothing_is_no_full_rate():
    with pytest.raises(InvalidInput, match="the device did nothing; give more seconds"):
        steps().climb(Knob(StandIn(rate=lambda share, t_s: 0.0)))


def test_active_idle_comes_without_work():
    device = StandIn()
    device.switch("idle")
    level = steps().active_idle(device)
    assert (level.mode, level.target, level.load, level.unit, level.units_per_s) == ("idle", 0.0, None, None, None)
    assert level.watts.median == 10.0


@given(st.floats(1e-4, 1), st.floats(0.01, 1), st.floats(0, 2), st.floats(0.1, 1))
def test_a_correction_goes_the_right_way_and_no_further_than_twice(share, target, load, gain):
    new = corrected(share, target, load, gain)
    assert 1e-4 <= new <= 1
    assert share / 2.0001 <= new <= 2.0001 * share
    assert new >= share if load < target else new <= share


def level(mode, target, rate, watts):
    unit = {"hash": "hashes", "infer": "output_tokens", "idle": None}[mode]
    rates = None if rate is None else Figure(rate, None, 1)
    power = None if watts is None else Figure(watts, (watts - 1, watts + 2), 3)
    return Level(mode, target, None if rate is None else target, unit, rates, power, "counter", 60.0, ("Said.", "So."))


LEVELS = [
    level("hash", 1.0, 100.0, 50.0),
    level("hash", 0.5, 50.0, 30.0),
    level("infer", 1.0, 8.0, 60.0),
    level("idle", 0.0, None, 20.0),
]


def test_the_overall_figure_counts_active_idle():
    assert overall(LEVELS, "hash") == 150.0 / 100.0
    assert overall(LEVELS, "infer") == 8.0 / 80.0
    assert overall(LEVELS, "idle") is None
    assert overall([], "hash") is None
    assert overall([level("hash", 1.0, 100.0, None), *LEVELS], "hash") is None


def test_csv_has_a_line_a_level():
    rows = list(csv.DictReader(io.StringIO(csv_of(LEVELS))))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["mode"], row["target"]) for row in rows] == [
        ("hash", "1.0"), ("hash", "0.5"), ("infer", "1.0"), ("idle", "0.0"),
    ]  # fmt: skip
    assert float(rows[1]["units_per_joule"]) == 50.0 / 30.0
    assert (rows[0]["units_per_s_low"], rows[0]["watts_low"], rows[0]["watts_high"]) == ("", "49.0", "52.0")
    assert (rows[3]["unit"], rows[3]["units_per_joule"], rows[3]["warnings"]) == ("", "", "Said. So.")


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_plot_is_of_the_kind_its_name_says(tmp_path, suffix, begins):
    path = tmp_path / f"ladder{suffix}"
    ladder_plot.check_plot(path)
    ladder_plot.plot(Report(ladder=LEVELS), path)
    assert path.read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_plot_of_levels_without_watts(tmp_path):
    ladder_plot.plot(Report(ladder=[level("hash", 1.0, 1.0, None), level("idle", 0.0, None, None)]), tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()


def test_a_plot_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match=r"ends in \.png, \.svg, \.pdf"):
        ladder_plot.check_plot(tmp_path / "ladder.gif")
    with pytest.raises(InvalidInput, match="cannot be written"):
        ladder_plot.plot(Report(ladder=LEVELS), tmp_path / "none" / "ladder.png")
    monkeypatch.setattr(ladder_plot, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"needs matplotlib: pip install 'wattwork\[plot\]'"):
        ladder_plot.check_plot(tmp_path / "ladder.png")
    ladder_plot.check_plot(None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"levels": 0}, "levels must be from 1 to 100"),
        ({"repeats": 0}, "repeats must be from 1"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"mode": "mixed"}, "mode must be one of hash, infer, both"),
        ({"by": "sms"}, "by must be one of duty, threads"),
        ({"name": "cuda:0", "by": "threads"}, "levels by threads are the CPU's"),
        ({"threads": 0}, "threads must be from 1"),
        ({"model": "gpt-9"}, "tiny-15m"),
    ],
)
def test_arguments_that_do_not_fit(options, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        ladder(**options)


@pytest.fixture
def device():
    with ww.Device("cpu", threads=2, meter=ww.Meter("external", watts=10.0)) as made:
        made.bind(ww.Job(ww.Work.from_header(mainnet_header(0))))
        yield made


def test_hashing_by_duty_is_slowed_and_stopped(device):
    knob = Duty(device)
    knob.set(0.5, 1e6)
    assert device.mode == "hash"
    assert device.scheduler.stats().back_share == 0.5


def test_hashing_by_threads_takes_the_fewest(device):
    knob = Threads(device, device._job)
    for share, threads, duty in ((1.0, 2, 1.0), (0.75, 2, 0.75), (0.5, 1, 1.0), (0.2, 1, 0.4)):
        knob.set(share, 1e6)
        assert knob.device.threads == threads
        assert knob.device.scheduler.stats().back_share == pytest.approx(duty)
    knob.close()
    assert device.mode == "idle"


def test_inference_is_offered_evenly(device):
    engine = ww.make_engine("tiny-15m", threads=2)
    device.bind(None, engine)
    knob = Rate(device)
    with pytest.raises(InvalidInput, match="switch\\('infer'\\)"):
        ww.Device("cpu").offer(1.0)
    knob.set(0.5, 40.0 * SHORT_TOKENS[1])  # 20 requests a second

    def sent():
        stats = device.scheduler.stats()
        return stats.finished + stats.num_requests_running + stats.num_requests_waiting

    device.run(0.5)
    knob.set(0.25, 40.0 * SHORT_TOKENS[1])
    device.run(0.5)
    assert 13 <= sent() <= 17
    device.switch("idle")
    assert device.scheduler.stats().num_requests_running == 0
    device.close()
    engine.close()


def test_a_short_ladder_for_real():
    report = ladder(levels=2, seconds=0.2, repeats=2, meter=ww.Meter(watts=30.0), threads=2)
    assert [(level.mode, level.target) for level in report.ladder] == [
        ("hash", 1.0), ("hash", 0.5), ("infer", 1.0), ("infer", 0.5), ("idle", 0.0),
    ]  # fmt: skip
    for made in report.ladder:
        assert made.watts.median == pytest.approx(30.0)
        assert made.quick
        assert made.mode == "idle" or made.units_per_s.median > 0
    assert Report.from_json(report.to_json()) == report
