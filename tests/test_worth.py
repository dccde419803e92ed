"""What work is worth: rows by hand arithmetic, and `wattwork worth` as a process."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports_by_hand import figure, ladder_report, phases_report, rung

from wattwork import worth
from wattwork.profile import Profile
from wattwork.report import Report
from wattwork.worth import Prices, Work, best, row_of, works_of_asics, works_of_profile, works_of_report


def command(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "wattwork", "worth", *map(str, args)],
        env=os.environ | env, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def told(*args):
    run = command(*args, "--json", "-")
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def rows_of(result, device):
    return {(row["mode"], row["scenario"]): row for row in result["rows"] if row["device"] == device}


@pytest.fixture
def phases(tmp_path):
    phases_report().save(tmp_path / "report.json")
    return tmp_path / "report.json"


def test_the_field_s_figures_by_the_command():
    result = told("--difficulty", "152e12", "--btc-usd", "91000", "--subsidy", "3.125", "--fees", "0.6%")
    assert round(result["prices"]["hashprice_usd_per_ph_day"], 2) == 37.86
    assert "fees 0.600% of that" in result["prices"]["hashprice_from"]
    result = told("--hashprice", "40", "--usd-per-h", "2.50", "--watts", "1275", "--pue", "1.2")
    s21 = rows_of(result, "Antminer S21")["hash", None]
    h100 = rows_of(result, "rented device")["infer", None]
    assert round(s21["revenue_usd_per_mwh"]) == 95
    assert round(h100["revenue_usd_per_mwh"]) == 1634
    assert h100["times_reference_asic"] == pytest.approx(1634 / 95.24, rel=1e-3)
    assert s21["source"] == "published"


def test_a_report_s_money(phases):
    prices = ("--hashprice", 40, "--usd-per-mtok", 0.5, "--usd-per-mwh", "20,5000", "--pue", 1.25, "--pool-fee", "2%")
    result = told(phases, *prices, "--heat-credit", 10)
    rows = rows_of(result, "two cores")
    offline, trace = rows["infer", "offline"], rows["infer", "trace"]
    assert offline["output_tokens_per_joule"] == pytest.approx(10)
    assert offline["revenue_usd_per_mwh"] == pytest.approx(3600 * 10 * 0.5 / 1.25)
    assert offline["shutdown_usd_per_mwh"] == pytest.approx(3600 * 10 * 0.5 / 1.25 + 10 / 1.25)
    assert [at["margin_usd_per_mwh"] for at in offline["at"]] == pytest.approx([14400 + 8 - 20, 14400 + 8 - 5000])
    assert [at["breakeven_usd_per_mtok"] for at in offline["at"]] == pytest.approx(
        [20 * 1.25 / 36000, 5000 * 1.25 / 36000]
    )
    assert [at["breakeven_tok_per_j"] for at in offline["at"]] == pytest.approx([20 * 1.25 / 1800, 5000 * 1.25 / 1800])
    # 500 J with an interval of 450 to 550 J.
    low, high = trace["revenue_ci95_usd_per_mwh"]
    assert (low, high) == pytest.approx((2880 * 500 / 550, 2880 * 500 / 450))
    assert trace["at"][0]["margin_ci95_usd_per_mwh"] == pytest.approx([low + 8 - 20, high + 8 - 20])
    assert offline["revenue_ci95_usd_per_mwh"] is None
    hashing = rows["hash", None]
    assert hashing["joules_per_th"] == pytest.approx(1e6)
    assert hashing["joules_per_th_ci95"] == pytest.approx([0.9e6, 1.1e6])
    assert hashing["revenue_usd_per_mwh"] == pytest.approx(40 * 1000 / 24 / 1e6 * 0.98 / 1.25)
    assert hashing["at"][0]["breakeven_hashprice_usd_per_ph_day"] == pytest.approx(20 * 24 * 1e6 / 1000 / 0.98 * 1.25)
    assert rows["idle", None]["at"][0]["margin_usd_per_mwh"] == pytest.approx(8 - 20)
    assert {row["source"] for row in rows.values()} == {"estimated"}
    asic = rows_of(result, "Antminer S21")["hash", None]["revenue_usd_per_mwh"]
    assert asic == pytest.approx(95.238 * 0.98, rel=1e-4)  # its own PUE is 1
    assert offline["times_reference_asic"] == pytest.approx(14400 / asic)
    assert offline["usd_per_mtok_as_reference_asic"] == pytest.approx(asic * 1.25 / 36000)


def test_mixed_is_worth_both_kinds_together_and_neither_alone(phases):
    rows = rows_of(told(phases, "--hashprice", 40, "--usd-per-mtok", 0.5), "two cores")
    mixed = rows["mixed", "trace"]
    assert mixed["revenue_usd_per_mwh"] == pytest.approx(40 * 1000 / 24 / 2e6 + 3600 * 1 * 0.5)
    assert (mixed["joules_per_th"], mixed["output_tokens_per_joule"]) == (None, None)
    rows = rows_of(told(phases, "--hashprice", 40), "two cores")  # half a price is none
    assert rows["mixed", "trace"]["revenue_usd_per_mwh"] is None
    assert rows["hash", None]["revenue_usd_per_mwh"] > 0


def test_tables_say_what_is_off_what_is_estimated_and_what_is_published(phases):
    run = command(phases, "--hashprice", 40, "--usd-per-mtok", 0.5, "--usd-per-mwh", "20,120")
    assert (run.returncode, run.stderr) == (0, "")
    said = " ".join(run.stdout.split())
    assert "off (-120)" in said
    assert "the cheapest thing is to stop" in said
    assert "All figures of two cores rest on an estimate" in said
    assert "measured" not in said.replace("measured by nobody here", "")
    assert "published: from the maker's datasheet" in said
    assert "mixed: the same joules paid for both kinds of work" in said
    assert said.count("Inference on two cores is that of tiny-15m") == 1
    assert "On two cores inference earns 10,800,000 times what hashing does" in said


def test_without_prices_it_asks_for_them_and_shows_what_needs_none(phases):
    run = command(phases)
    said = " ".join(run.stdout.split())
    assert run.returncode == 0
    assert "Prices change daily and none is assumed" in said
    for shown in ("17.5 J/TH", "10.0 tok/J", "1.00 MJ/TH", "per USD/MWh of power", "0.42", "2.78e-05"):
        assert shown in said
    assert rows_of(told(phases), "two cores")["infer", "offline"]["revenue_usd_per_mwh"] is None


def test_profiles_of_both_kinds_and_devices_of_one_name(tmp_path):
    profile = ladder_report().profile()
    profile.save(tmp_path / "p.json")
    profile.save(tmp_path / "p.npz")
    result = told(tmp_path / "p.json", tmp_path / "p.npz", "--usd-per-mtok", 1)
    a, b = (rows_of(result, f"made by hand ({tmp_path / name})") for name in ("p.json", "p.npz"))
    assert a["infer", None]["revenue_usd_per_mwh"] == b["infer", None]["revenue_usd_per_mwh"] is not None
    Profile.from_table("Antminer S21").save(tmp_path / "s21.npz")
    assert f"Antminer S21 ({tmp_path / 's21.npz'})" in {row["device"] for row in told(tmp_path / "s21.npz")["rows"]}


def test_the_json_file_is_written(tmp_path, phases):
    path = tmp_path / "worth.json"
    assert command(phases, "--hashprice", 40, "--json", path).returncode == 0
    assert json.loads(path.read_text())["schema"] == "wattwork.worth/1"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--hashprice", "0"], "--hashprice must be above 0"),
        (["--hashprice", "forty"], "--hashprice must be a finite number"),
        (["--hashprice", "40", "--difficulty", "1e14"], "leave --difficulty out"),
        (["--difficulty", "1e14"], "needs both --difficulty and --btc-usd"),
        (["--fees", "1%"], "needs both"),
        (["--pue", "0.9"], "--pue must be at least 1"),
        (["--pool-fee", "2"], "--pool-fee must be a share from 0 to below 100%"),
        (["--fees=-1%", "--difficulty", "1", "--btc-usd", "1"], "--fees must be a share"),
        (["--usd-per-mwh", "20,,40"], "--usd-per-mwh must be a finite number"),
        (["--usd-per-mtok", "1", "--usd-per-h", "2"], "give one of them"),
        (["--watts", "700"], "--usd-per-h, too"),
        (["--heat-credit=-1"], "--heat-credit must be at least 0"),
        (["no-such.json"], "no-such.json cannot be read"),
        (["no-such.npz"], "no-such.npz cannot be read"),
        (["--json", "/"], "give a file"),
    ],
)
def test_wrong_input_is_one_sentence(args, said):
    run = command(*args)
    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert run.stdout == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "else/1"}', "[" * 100_000])
def test_files_that_are_neither_report_nor_profile(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    run = command(tmp_path / "x.json")
    assert run.returncode == 2
    assert "x.json" in run.stderr
    assert "Traceback" not in run.stderr


def winners(works, prices):
    return [(b.work.mode, b.work.load) if b.work else "off" for b in best(works, prices)]


def test_the_best_mode_goes_by_usd_per_hour_not_per_mwh():
    works = [
        Work("d", "hash", "counter", 1000.0, hashes_per_j=1e12 / 17.5),  # 95 USD/MWh of much power
        Work("d", "infer", "counter", 100.0, output_tokens_per_j=0.1),  # 360 USD/MWh of little
    ]
    prices = Prices(40.0, usd_per_mtok=1.0, usd_per_mwh=(20.0, 80.0, 300.0, 400.0))
    assert [b.work.mode if b.work else "off" for b in best(works, prices)] == ["hash", "infer", "infer", "off"]
    assert best(works, prices)[0].usd_per_h == pytest.approx((95.238 - 20) * 1e-3, rel=1e-4)


def test_a_level_below_full_load_may_be_the_best():
    report = Report(
        device={"name": "d"},
        ladder=[
            rung("hash", 1.0, figure(200e12), figure(4000.0)),  # 20 J/TH: 83 USD/MWh
            rung("hash", 0.5, figure(100e12), figure(1500.0)),  # 15 J/TH: 111 USD/MWh
        ],
    )
    works = works_of_report(report)
    prices = Prices(40.0, usd_per_mwh=(10.0, 80.0, 120.0))
    assert winners(works, prices) == [("hash", 1.0), ("hash", 0.5), "off"]
    assert [work.full for work in works] == [True, False]  # in the table stands the full level
    assert winners(works_of_profile(report.profile()), prices) == [("hash", 1.0), ("hash", 0.5), "off"]


def test_who_rents_chooses_the_load():
    works = works_of_profile(ladder_report().profile())
    prices = Prices(usd_per_h=2.0, usd_per_mwh=(40.0,))
    assert winners(works, prices) == [("infer", 1.0)]


def test_intervals_of_a_ladder_carry_through():
    row = next(row_of(w, Prices(40.0)) for w in works_of_report(ladder_report()) if w.mode == "hash")
    half = (0.02**2 + 0.005**2) ** 0.5  # watts and rate, in quadrature
    assert row.revenue_ci95 == pytest.approx((row.revenue / (1 + half), row.revenue * (1 + half)))


@given(
    hashprice=st.floats(0.1, 1e4), price=st.floats(0.1, 1e4), pue=st.floats(1, 3), times=st.floats(1.01, 10),
    work=st.sampled_from([*works_of_asics(), *works_of_report(phases_report())]),
)  # fmt: skip
def test_better_prices_never_earn_less(hashprice, price, pue, times, work):
    def shutdown(**change):
        prices = {"hashprice_usd_per_ph_day": hashprice, "usd_per_mtok": price, "pue": pue, **change}
        return row_of(work, Prices(**prices)).shutdown

    before = shutdown()
    assert shutdown(hashprice_usd_per_ph_day=hashprice * times) >= before
    assert shutdown(usd_per_mtok=price * times) >= before
    assert shutdown(heat_credit_usd_per_mwh=5.0) > before
    assert shutdown(pue=pue * times) <= before
    both = shutdown(hashprice_usd_per_ph_day=hashprice * times, usd_per_mtok=price * times)
    assert both == pytest.approx(times * before)


@given(st.lists(st.floats(-100, 1000), min_size=1, max_size=5), st.floats(1, 200))
def test_the_best_falls_as_power_gets_dearer(prices, hashprice):
    prices = sorted(prices)
    gains = [b.usd_per_h for b in best(works_of_asics()[:1], Prices(hashprice, usd_per_mwh=tuple(prices)))]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) >= 0


def test_a_mode_whose_watts_are_unknown_has_no_money():
    report = phases_report()
    for phase in report.phases:
        phase.power = None
    rows = [worth.row_of(work, Prices(40.0, usd_per_mtok=1.0)) for work in works_of_report(report)]
    assert [row.revenue for row in rows if row.work.mode != "idle"] == [None] * 4
