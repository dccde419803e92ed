"""What each mode of a device earns per energy at given prices, beside ASICs; and which mode wins at a power price.

The formulas are those of `economics`. A 95 % interval of joules (or of a level's watts and rate) carries through to
money; prices are taken as exact. What is unknown is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from wattwork import economics
from wattwork.asics import asic, asics
from wattwork.levels import Z95, Figure, Level

if TYPE_CHECKING:
    from wattwork.profile import Profile
    from wattwork.report import PhaseResult, Report

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a day, None where none was given. Inference is paid by the token or rented out by the hour."""

    hashprice_usd_per_ph_day: float | None = None
    hashprice_from: str = ""  # what it was worked out from, in words
    usd_per_mtok: float | None = None  # per million output tokens
    usd_per_h: float | None = None
    usd_per_mwh: tuple[float, ...] = ()  # power prices to look at, at the site's meter
    pue: float = 1.0  # of the devices' site
    asic_pue: float = 1.0  # of the ASICs': a published J/TH is at the wall, fans included
    pool_fee: float = 0.0  # share of mining revenue
    heat_credit_usd_per_mwh: float = 0.0  # per MWh of heat


def at_one_usd_per_mwh(prices: Prices) -> Prices:
    """The same with power at 1 USD/MWh: break-even figures there are those per USD/MWh."""
    return replace(prices, usd_per_mwh=(1.0,))


@dataclass(frozen=True, slots=True)
class Work:
    """A mode of a device at one load: what a joule does. In "mixed" the same joules paid for both kinds of work."""

    device: str
    mode: str
    source: str  # of the joules: one of profile.SOURCES
    watts: float | None = None
    hashes_per_j: float | None = None
    output_tokens_per_j: float | None = None
    ci95: Interval | None = None  # of work per joule, as factors on it: (0.9, 1.2), say
    scenario: str | None = None
    load: float | None = None  # share of the mode's full rate; None: of a phase
    model: str | None = None  # whose tokens they are
    asic: bool = False

    @property
    def joules_per_th(self) -> float | None:
        """J/TH where hashing is all it does."""
        return 1e12 / self.hashes_per_j if self.hashes_per_j and not self.output_tokens_per_j else None

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tok/J where inference is all it does."""
        return None if self.hashes_per_j else self.output_tokens_per_j

    @property
    def full(self) -> bool:
        """Whether it stands in the table; the levels below full load only compete for the best."""
        return self.load is None or self.load == 1


@dataclass(frozen=True, slots=True)
class Row:
    """A mode's money, USD/MWh at the site's meter. The lists go with the prices' `usd_per_mwh`."""

    work: Work
    revenue: float | None
    revenue_ci95: Interval | None
    shutdown: float | None  # the power price above which stopping is cheaper: revenue and heat credit
    times_asic: float | None  # revenue over that of the reference ASIC
    margins: tuple[float | None, ...]
    breakeven_hashprice: tuple[float | None, ...]  # USD/PH/day that pays for the power
    breakeven_usd_per_mtok: tuple[float | None, ...]  # token price that pays for the power
    breakeven_tok_per_j: tuple[float | None, ...]  # tok/J that pay for the power at the given token price
    usd_per_mtok_as_asic: float | None  # token price, and tok/J, at which inference earns what the reference ASIC does
    tok_per_j_as_asic: float | None

    def margin_ci95(self, i: int) -> Interval | None:
        """The 95 % interval of a margin: the revenue's, moved by what is exact."""
        margin, revenue = self.margins[i], self.revenue
        if margin is None or revenue is None or self.revenue_ci95 is None:
            return None
        return self.revenue_ci95[0] + margin - revenue, self.revenue_ci95[1] + margin - revenue


@dataclass(frozen=True, slots=True)
class Best:
    """What pays most at a power price."""

    device: str
    usd_per_mwh: float
    work: Work | None  # None: off, which earns nothing and costs nothing
    usd_per_h: float | None  # None: not known without watts


def works_of_report(report: Report) -> list[Work]:
    """Its phases; of a mode that has none, the ladder's full level; and the ladder's other levels."""
    device = str(report.device.get("name", "device"))
    model = report.device.get("model")
    phases = [_of_phase(device, phase, None if model is None else str(model)) for phase in report.phases]
    seen = {phase.mode for phase in report.phases}
    levels = [_of_level(device, level) for level in report.ladder]
    return phases + [work for work in levels if not (work.full and work.mode in seen)]


def works_of_profile(profile: Profile) -> list[Work]:
    """Each of its modes at each level, full load first; idle and mixed have one."""
    works = []
    for row, mode in enumerate(profile.modes):
        unit = profile.units[row]
        for load in profile.loads[row].tolist()[::-1] if unit else [float(profile.loads[row, -1])]:
            watts, rate, sigma_w, sigma_rate = profile.at(mode, load)
            ci95 = _factors(sigma_w / watts, sigma_rate / rate) if watts > 0 and rate > 0 else None
            reached = load if unit else None
            works.append(
                _work(profile.device, mode, profile.source, watts=watts, unit=unit, rate=rate, ci95=ci95, load=reached)
            )
    return [work for work in works if work.mode == "idle" or work.load != 0]


def works_of_asics() -> list[Work]:
    """The packaged table's rows."""
    return [
        Work(row.name, "hash", "published", row.watts, hashes_per_j=1e12 / row.joules_per_th, load=1.0, asic=True)
        for row in asics().values()
    ]


def row_of(work: Work, prices: Prices) -> Row:
    """The work's money at these prices. InvalidInput for a price that means nothing."""
    pue = _pue(work, prices)
    earned = _revenue(work, prices, pue)
    ci95 = (earned * work.ci95[0], earned * work.ci95[1]) if earned and work.ci95 else None
    beside = _asic_revenue(prices)
    j_per_th, tok_per_j, at = work.joules_per_th, work.tokens_per_joule, prices.usd_per_mwh
    price = prices.usd_per_mtok if work.mode == "infer" else None
    mining = partial(economics.breakeven_hashprice, pue=pue, pool_fee=prices.pool_fee)
    token_price = partial(economics.breakeven_usd_per_mtok, pue=pue)
    efficiency = partial(economics.breakeven_tok_per_j, pue=pue)
    return Row(
        work=work,
        revenue=earned,
        revenue_ci95=ci95,
        shutdown=None if earned is None else _margin(earned, 0.0, prices, pue),
        times_asic=earned / beside if earned is not None and beside else None,
        margins=tuple(None if earned is None else _margin(earned, p, prices, pue) for p in at),
        breakeven_hashprice=tuple(mining(j_per_th, p) if j_per_th and p > 0 else None for p in at),
        breakeven_usd_per_mtok=tuple(token_price(tok_per_j, p) if tok_per_j and p > 0 else None for p in at),
        breakeven_tok_per_j=tuple(efficiency(price, p) if price and p > 0 else None for p in at),
        usd_per_mtok_as_asic=token_price(tok_per_j, beside) if tok_per_j and beside else None,
        tok_per_j_as_asic=efficiency(price, beside) if price and beside else None,
    )


def best(works: Iterable[Work], prices: Prices) -> list[Best]:
    """For each device and power price what earns most per hour; off earns nothing and costs nothing.

    A device whose watts are unknown has its best by margin. What has no revenue yet takes no part.
    """
    devices: dict[str, list[Work]] = {}
    for work in works:
        devices.setdefault(work.device, []).append(work)
    return [_best(several, prices, i) for several in devices.values() for i in range(len(prices.usd_per_mwh))]


def _best(works: Sequence[Work], prices: Prices, i: int) -> Best:
    found = Best(works[0].device, prices.usd_per_mwh[i], None, 0.0)
    most = 0.0
    for work in works:
        margin = row_of(work, prices).margins[i]
        if margin is None:
            continue
        usd_per_h = None if work.watts is None else margin * work.watts * 1e-6 * _pue(work, prices)
        gain = margin if usd_per_h is None else usd_per_h
        if gain > most:
            most, found = gain, Best(work.device, prices.usd_per_mwh[i], work, usd_per_h)
    return found


def _pue(work: Work, prices: Prices) -> float:
    return prices.asic_pue if work.asic else prices.pue


def _revenue(work: Work, prices: Prices, pue: float) -> float | None:
    """USD/MWh; None if a kind of work it does, or its price, is not known."""
    total, known = 0.0, work.mode == "idle"
    if work.hashes_per_j:
        if prices.hashprice_usd_per_ph_day is None:
            return None
        j_per_th = 1e12 / work.hashes_per_j
        total += economics.mining_usd_per_mwh(
            j_per_th, prices.hashprice_usd_per_ph_day, pue=pue, pool_fee=prices.pool_fee
        )
        known = True
    if work.mode in ("infer", "mixed"):
        if prices.usd_per_h is not None:
            if not work.watts or not work.full:  # the tenant chooses the load, and pays for the hour
                return None
            return total + economics.rental_usd_per_mwh(prices.usd_per_h, work.watts, pue=pue)
        if prices.usd_per_mtok is None or not work.output_tokens_per_j:
            return None
        return total + economics.inference_usd_per_mwh(work.output_tokens_per_j, prices.usd_per_mtok, pue=pue)
    return total if known else None


def _asic_revenue(prices: Prices) -> float | None:
    hashprice = prices.hashprice_usd_per_ph_day
    if hashprice is None:
        return None
    return economics.mining_usd_per_mwh(asic().joules_per_th, hashprice, pue=prices.asic_pue, pool_fee=prices.pool_fee)


def _margin(earned: float, usd_per_mwh: float, prices: Prices, pue: float) -> float:
    credit = prices.heat_credit_usd_per_mwh
    return economics.margin_usd_per_mwh(earned, usd_per_mwh, heat_credit_usd_per_mwh=credit, pue=pue)


def _of_phase(device: str, phase: PhaseResult, model: str | None) -> Work:
    power = phase.power
    ci95 = None
    if power and power.joules and power.ci95_j and power.ci95_j[0] > 0:
        ci95 = power.joules / power.ci95_j[1], power.joules / power.ci95_j[0]
    return Work(
        device,
        phase.mode,
        power.source if power else "estimated",
        power.watts if power else None,
        phase.hashes_per_joule,
        phase.output_tokens_per_joule,
        ci95,
        phase.scenario,
        model=model if phase.output_tokens else None,
    )


def _of_level(device: str, level: Level) -> Work:
    watts = level.watts.median if level.watts else None
    rate = level.units_per_s
    ci95 = _factors(_relative(level.watts), _relative(rate)) if level.watts and rate else None
    load = None if level.mode == "idle" else 1.0 if level.target == 1 else level.load
    rate_s = rate.median if rate else None
    return _work(device, level.mode, level.source, watts=watts, unit=level.unit, rate=rate_s, ci95=ci95, load=load)


def _work(
    device: str,
    mode: str,
    source: str,
    *,
    watts: float | None,
    unit: str | None,
    rate: float | None,
    ci95: Interval | None,
    load: float | None,
) -> Work:
    watts = watts if watts is not None and watts > 0 else None  # a profile's NaN, too
    per_j = rate / watts if watts and rate and rate > 0 else None
    hashes, tokens = (per_j if unit == name else None for name in ("hashes", "output_tokens"))
    return Work(device, mode, source, watts, hashes, tokens, ci95, load=load)


def _relative(figure: Figure | None) -> float:
    """Relative standard deviation; NaN if unknown."""
    if figure is None or figure.ci95 is None or not figure.median:
        return float("nan")
    return (figure.ci95[1] - figure.ci95[0]) / 2 / Z95 / figure.median


def _factors(relative_w: float, relative_units: float) -> Interval | None:
    """The 95 % interval of a quotient, as factors: the relative deviations of two independent figures in quadrature."""
    half = Z95 * float((relative_w**2 + relative_units**2) ** 0.5)
    return (1 / (1 + half), 1 + half) if isfinite(half) else None
