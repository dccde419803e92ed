"""The options of `wattwork worth`, read: each error is one sentence that names the option."""

from __future__ import annotations

import argparse
from dataclasses import replace

from wattwork.economics import SUBSIDY_BTC, hashprice_usd_per_ph_day
from wattwork.errors import InvalidInput
from wattwork.worth import Prices, Work

_DERIVED = ("difficulty", "btc_usd", "subsidy", "fees")


def prices_of(args: argparse.Namespace) -> Prices:
    """InvalidInput for options that are no prices, or do not go together."""
    if args.usd_per_mtok is not None and args.usd_per_h is not None:
        raise InvalidInput("--usd-per-mtok and --usd-per-h are two prices of the same inference; give one of them.")
    hashprice, hashprice_from = _hashprice(args)
    prices = Prices(
        hashprice_usd_per_ph_day=hashprice,
        hashprice_from=hashprice_from,
        usd_per_mtok=_number(args, "usd_per_mtok", above=True),
        usd_per_h=_number(args, "usd_per_h", above=True),
        usd_per_mwh=_power_prices(args),
        pool_fee=_share(args, "pool_fee", below=1.0),
    )
    return replace(
        prices,
        pue=_number(args, "pue", least=1.0) or prices.pue,
        asic_pue=_number(args, "asic_pue", least=1.0) or prices.asic_pue,
        heat_credit_usd_per_mwh=_number(args, "heat_credit") or prices.heat_credit_usd_per_mwh,
    )


def rented(args: argparse.Namespace) -> list[Work]:
    """The device that `--watts` stands for: one to rent out, of which nothing else is known."""
    watts = _number(args, "watts", above=True)
    if watts is None:
        return []
    if args.usd_per_h is None:
        raise InvalidInput("--watts is of a device that is rented out; give its price with --usd-per-h, too.")
    return [Work("rented device", "infer", "external", watts)]


def _hashprice(args: argparse.Namespace) -> tuple[float | None, str]:
    """And what it was worked out from."""
    given = _number(args, "hashprice", above=True)
    derived = [_option(name) for name in _DERIVED if getattr(args, name) is not None]
    if given is not None:
        if derived:
            raise InvalidInput(f"--hashprice says it already; leave {derived[0]} out.")
        return given, ""
    if not derived:
        return None, ""
    difficulty, btc_usd = (_number(args, name, above=True) for name in ("difficulty", "btc_usd"))
    if difficulty is None or btc_usd is None:
        raise InvalidInput("a hashprice needs both --difficulty and --btc-usd; or give it with --hashprice.")
    subsidy_btc = _number(args, "subsidy", above=True) or SUBSIDY_BTC
    fees = _share(args, "fees")
    said = (
        f"difficulty {difficulty:g}, {btc_usd:,.10g} USD/BTC, {subsidy_btc:g} BTC a block, and fees {fees:.3%} of that"
    )
    return hashprice_usd_per_ph_day(difficulty, btc_usd, subsidy_btc=subsidy_btc, fees=fees), said


def _power_prices(args: argparse.Namespace) -> tuple[float, ...]:
    if args.usd_per_mwh is None:
        return ()
    prices = tuple(_finite("usd_per_mwh", price) for price in args.usd_per_mwh.split(","))
    return tuple(dict.fromkeys(prices))


def _number(args: argparse.Namespace, name: str, *, least: float = 0.0, above: bool = False) -> float | None:
    text = getattr(args, name)
    if text is None:
        return None
    value = _finite(name, text)
    if value < least or (above and value == least):
        raise InvalidInput(f"{_option(name)} must be {'above' if above else 'at least'} {least:g}, not {text}.")
    return value


def _share(args: argparse.Namespace, name: str, below: float = float("inf")) -> float:
    """0.006 or 0.6%; 0 where it is not given."""
    text = getattr(args, name)
    if text is None:
        return 0.0
    value = _finite(name, text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value < below:
        top = "" if below == float("inf") else " to below 100%"
        raise InvalidInput(f"{_option(name)} must be a share from 0{top}, 0.02 or 2% for example, not {text}.")
    return value


def _finite(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -float("inf") < value < float("inf"):
        raise InvalidInput(f"{_option(name)} must be a finite number, not {text!r}.")
    return value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
