"""What hashing is worth: shares, mining revenue per energy, and how a device stands beside an ASIC."""

from __future__ import annotations

from dataclasses import dataclass

from wattwork.errors import InvalidInput

# A share of difficulty 1 has a hash of at most 0xFFFF x 2^208, so one hash in 2^256 / (0xFFFF x 2^208) is one.
# (The tiny "+ 1" of targets that are met is left out, as everywhere in the field.)
# https://en.bitcoin.it/wiki/Difficulty
HASHES_PER_DIFFICULTY_1_SHARE = 2**48 / 0xFFFF

# An ASIC is so far ahead that hashing elsewhere is worth next to nothing from here on, in times its J/TH. Old ASICs
# (an S9: 98 J/TH) stay below.
NEXT_TO_NOTHING = 100.0


@dataclass(frozen=True, slots=True)
class Asic:
    """A miner's efficiency as its maker publishes it, which is no measurement of ours."""

    name: str
    joules_per_th: float
    published: str


# Bitmain's specification: 200 TH/s at 3,500 W.
REFERENCE_ASIC = Asic("Antminer S21", 17.5, "2023-09")


def hashes_per_share(difficulty: float = 1.0) -> float:
    """Expected hashes for one share: difficulty x 2^48 / 0xFFFF. InvalidInput unless difficulty is above 0."""
    return _positive("difficulty", difficulty) * HASHES_PER_DIFFICULTY_1_SHARE


def joules_per_th(hashes: float, joules: float) -> float:
    """Joules per terahash (10^12 hashes). InvalidInput unless both are above 0."""
    return _positive("joules", joules) / _positive("hashes", hashes) * 1e12


def mining_usd_per_mwh(j_per_th: float, hashprice_usd_per_ph_day: float) -> float:
    """Mining revenue per energy at the meter: hashprice[USD/PH/s/day] x 1000 / (24 x J/TH), in USD/MWh.

    One MWh is 3.6e9 J, thus 3.6e9 / (J/TH) terahashes; a hashprice pays for 1 PH/s held for a day, 86,400,000 TH.
    Their quotient leaves 1000 / 24. Checked against the field's example: 17.5 J/TH at 40 USD earns 95 USD/MWh.
    InvalidInput unless both are above 0.
    """
    hashprice = _positive("hashprice_usd_per_ph_day", hashprice_usd_per_ph_day)
    return hashprice * 1000 / (24 * _positive("j_per_th", j_per_th))


def beside_asic(j_per_th: float, *, estimated: bool = False, asic: Asic = REFERENCE_ASIC) -> str | None:
    """One plain sentence where hashing on this device is worth next to nothing beside an ASIC; else None.

    `estimated`: the joules come from a model, and the sentence says so.
    """
    times = _positive("j_per_th", j_per_th) / asic.joules_per_th
    if times < NEXT_TO_NOTHING:
        return None
    basis = " (estimated)" if estimated else ""
    return (
        f"Hashing on this device is worth next to nothing beside an ASIC: {_round(j_per_th)} J/TH{basis}, "
        f"{_round(times)} times the {asic.joules_per_th:g} J/TH of an {asic.name} (published, {asic.published})."
    )


def _round(value: float) -> str:
    """Two significant digits, with thousands separated."""
    return f"{float(f'{value:.2g}'):,.0f}"


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise InvalidInput(f"{name} must be a finite number above 0, not {value}.")
    return value
