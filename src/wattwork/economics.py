"""What work is worth per energy: shares, hashprice, and USD/MWh of hashing and of inference.

Every USD/MWh is per energy at the site's meter. `pue` is that meter's energy over the device's (power usage
effectiveness, ISO/IEC 30134-2: cooling and conversion make it more than 1), so revenue per MWh at the meter is revenue
per MWh at the device / PUE, for both kinds of work. Prices change daily: none is assumed here. A figure that is
no finite number above 0 (or, where said, from 0 up) is InvalidInput.
"""

from __future__ import annotations

from wattwork.asics import Asic, asic
from wattwork.errors import InvalidInput

# A share of difficulty 1 has a hash of at most 0xFFFF x 2^208, so one hash in 2^256 / (0xFFFF x 2^208) is one.
# (The tiny "+ 1" of targets that are met is left out, as everywhere in the field.)
# https://en.bitcoin.it/wiki/Difficulty
HASHES_PER_DIFFICULTY_1_SHARE = 2**48 / 0xFFFF

SUBSIDY_BTC = 3.125  # of a block from height 840,000 to 1,049,999: 50 BTC, halved every 210,000 blocks
J_PER_MWH = 3.6e9
TH_PER_PH_DAY = 1e3 * 86_400  # what 1 PH/s does in a day

# An ASIC is so far ahead that hashing elsewhere is worth next to nothing from here on, in times its J/TH. Old ASICs
# (an S9: 98 J/TH) stay below.
NEXT_TO_NOTHING = 100.0


def hashes_per_share(difficulty: float = 1.0) -> float:
    """Expected hashes for one share: difficulty x 2^48 / 0xFFFF."""
    return _positive("difficulty", difficulty) * HASHES_PER_DIFFICULTY_1_SHARE


def joules_per_th(hashes: float, joules: float) -> float:
    """Joules per terahash (10^12 hashes)."""
    return _positive("joules", joules) / _positive("hashes", hashes) * 1e12


def hashprice_usd_per_ph_day(
    difficulty: float, btc_usd: float, *, subsidy_btc: float = SUBSIDY_BTC, fees: float = 0.0
) -> float:
    """What 1 PH/s is expected to earn in a day: blocks found x (subsidy + fees) x price of a bitcoin, USD/PH/day.

    1 PH/s tests 8.64e19 hashes a day, and hashes_per_share(difficulty) of them find a block. `fees` are a share of the
    subsidy, 0.006 for 0.6 %. It is Luxor's definition (https://docs.luxor.tech/hashrateindex/hashprice), whose index
    averages the fees of 144 blocks and the price of several exchanges. Checked against a day of it: difficulty
    152e12, 91,000 USD and 0.6 % make 37.86; the index was 38.2.
    """
    blocks_per_day = TH_PER_PH_DAY * 1e12 / hashes_per_share(difficulty)
    reward_btc = _positive("subsidy_btc", subsidy_btc) * (1 + _from_0("fees", fees))
    return blocks_per_day * reward_btc * _positive("btc_usd", btc_usd)


def mining_usd_per_mwh(
    j_per_th: float, hashprice_usd_per_ph_day: float, *, pue: float = 1.0, pool_fee: float = 0.0
) -> float:
    """Mining revenue: hashprice[USD/PH/day] x 1000 / (24 x J/TH) x (1 - pool fee) / PUE, in USD/MWh.

    One MWh is 3.6e9 J, thus 3.6e9 / (J/TH) terahashes; a hashprice pays for 1 PH/s held for a day, 86,400,000 TH.
    Their quotient leaves 1000 / 24. Checked against the field's example: 17.5 J/TH at 40 USD earns 95 USD/MWh.
    """
    hashprice = _positive("hashprice_usd_per_ph_day", hashprice_usd_per_ph_day)
    kept = (1 - _share("pool_fee", pool_fee)) / _pue(pue)
    return hashprice * J_PER_MWH / TH_PER_PH_DAY / _positive("j_per_th", j_per_th) * kept


def breakeven_hashprice(j_per_th: float, usd_per_mwh: float, *, pue: float = 1.0, pool_fee: float = 0.0) -> float:
    """The hashprice, USD/PH/day, at which hashing earns exactly `usd_per_mwh`: `mining_usd_per_mwh` the other way.

    The field calls it the hashcost, J/TH x USD/MWh x 24 / 1000.
    """
    return _positive("usd_per_mwh", usd_per_mwh) / mining_usd_per_mwh(j_per_th, 1.0, pue=pue, pool_fee=pool_fee)


def inference_usd_per_mwh(tok_per_j: float, usd_per_mtok: float, *, pue: float = 1.0) -> float:
    """Inference revenue: 3600 x (tok/J) x (USD/Mtok) / PUE, in USD/MWh: 3.6e9 J in a MWh over 10^6 tokens."""
    price = _positive("usd_per_mtok", usd_per_mtok)
    return J_PER_MWH / 1e6 * _positive("tok_per_j", tok_per_j) * price / _pue(pue)


def breakeven_usd_per_mtok(tok_per_j: float, usd_per_mwh: float, *, pue: float = 1.0) -> float:
    """The token price, USD/Mtok, at which inference earns exactly `usd_per_mwh` (of power, or what hashing earns)."""
    return _positive("usd_per_mwh", usd_per_mwh) / inference_usd_per_mwh(tok_per_j, 1.0, pue=pue)


def breakeven_tok_per_j(usd_per_mtok: float, usd_per_mwh: float, *, pue: float = 1.0) -> float:
    """The tok/J from which inference at that token price earns `usd_per_mwh` (of power, or what hashing earns)."""
    return _positive("usd_per_mwh", usd_per_mwh) / inference_usd_per_mwh(1.0, usd_per_mtok, pue=pue)


def rental_usd_per_mwh(usd_per_h: float, watts: float, *, pue: float = 1.0) -> float:
    """Revenue of a device rented out: USD/h / (MW x PUE), in USD/MWh.

    An H100 at 2.50 USD/h with its share of a server (an eighth of a DGX H100's 10.2 kW, NVIDIA's datasheet) and PUE
    1.2 earns 1,634: 17 times what an S21 does at 40 USD/PH/day.
    """
    return _positive("usd_per_h", usd_per_h) / (_positive("watts", watts) * 1e-6 * _pue(pue))


def margin_usd_per_mwh(
    revenue_usd_per_mwh: float, usd_per_mwh: float, *, heat_credit_usd_per_mwh: float = 0.0, pue: float = 1.0
) -> float:
    """Revenue + heat credit / PUE - power price, in USD/MWh. Below 0, the cheapest thing is to stop.

    The credit is paid per MWh of heat; all energy of the device becomes heat, and what cooling takes is not sold. At a
    power price of 0 this is the shutdown price: power that costs more is better left. Prices may be negative.
    """
    heat = _from_0("heat_credit_usd_per_mwh", heat_credit_usd_per_mwh) / _pue(pue)
    return _from_0("revenue_usd_per_mwh", revenue_usd_per_mwh) + heat - _finite("usd_per_mwh", usd_per_mwh)


def beside_asic(j_per_th: float, *, estimated: bool = False, other: Asic | None = None) -> str | None:
    """One plain sentence where hashing on this device is worth next to nothing beside an ASIC; else None.

    `estimated`: the joules come from a model, and the sentence says so. `other`: the ASIC (default: asics.REFERENCE).
    """
    other = other or asic()
    times = _positive("j_per_th", j_per_th) / other.joules_per_th
    if times < NEXT_TO_NOTHING:
        return None
    basis = " (estimated)" if estimated else ""
    return (
        f"Hashing on this device is worth next to nothing beside an ASIC: {_round(j_per_th)} J/TH{basis}, "
        f"{_round(times)} times the {other.joules_per_th:g} J/TH of an {other.name} (published, {other.published})."
    )


def _round(value: float) -> str:
    """Two significant digits, with thousands separated."""
    return f"{float(f'{value:.2g}'):,.0f}"


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise InvalidInput(f"{name} must be a finite number above 0, not {value}.")
    return value


def _from_0(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise InvalidInput(f"{name} must be a finite number from 0 up, not {value}.")
    return value


def _finite(name: str, value: float) -> float:
    if not -float("inf") < value < float("inf"):
        raise InvalidInput(f"{name} must be a finite number, not {value}.")
    return value


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise InvalidInput(f"{name} must be a share from 0 to below 1, not {value}.")
    return value


def _pue(value: float) -> float:
    if not 1 <= value < float("inf"):
        raise InvalidInput(f"pue must be a finite number from 1 up, not {value}.")
    return value
