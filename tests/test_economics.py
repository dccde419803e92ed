"""Money and shares, against figures known in the field."""

import pytest

from wattwork import economics
from wattwork.errors import InvalidInput


def test_known_figures():
    assert pytest.approx(4295032833.0, rel=1e-12) == economics.HASHES_PER_DIFFICULTY_1_SHARE
    assert economics.hashes_per_share(2.0) == 2 * economics.HASHES_PER_DIFFICULTY_1_SHARE
    assert economics.joules_per_th(200e12, 3500.0) == pytest.approx(17.5)
    assert round(economics.mining_usd_per_mwh(17.5, 40.0)) == 95


def test_revenue_agrees_with_first_principles():
    # 1 MWh through a machine of 1 PH/s at 17.5 J/TH (17.5 kW) is 57.14 h.
    hours = 1e6 / 17_500
    assert economics.mining_usd_per_mwh(17.5, 40.0) == pytest.approx(hours / 24 * 40.0)


def test_one_plain_sentence_where_it_is_so():
    sentence = economics.beside_asic(250_000.0, estimated=True)
    assert sentence == (
        "Hashing on this device is worth next to nothing beside an ASIC: 250,000 J/TH (estimated), "
        "14,000 times the 17.5 J/TH of an Antminer S21 (published, 2023-09)."
    )
    assert "estimated" not in economics.beside_asic(70_000.0)
    assert economics.beside_asic(98.0) is None  # an old ASIC is no such case


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_that_mean_nothing(value):
    for call in (
        economics.hashes_per_share,
        lambda x: economics.joules_per_th(x, 1.0),
        lambda x: economics.joules_per_th(1.0, x),
        lambda x: economics.mining_usd_per_mwh(x, 1.0),
        lambda x: economics.mining_usd_per_mwh(1.0, x),
        economics.beside_asic,
    ):
        with pytest.raises(InvalidInput, match="above 0"):
            call(value)
