"""What work is worth as a person reads it: tables, and plain sentences beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wattwork.asics import REFERENCE
from wattwork.render import NONE, SOURCES, make_table, si, three
from wattwork.worth import Best, Interval, Prices, Row, Work, at_one_usd_per_mwh, row_of

_WORDS = {**SOURCES, "published": "published"}
_REFERENCE = REFERENCE.removeprefix("Antminer ")
_ASK = (
    "Prices change daily and none is assumed: for USD/MWh give --hashprice (or --difficulty and --btc-usd) for "
    "hashing, --usd-per-mtok or --usd-per-h for inference, and --usd-per-mwh for power."
)


def print_worth(prices: Prices, rows: Sequence[Row], best: Sequence[Best], console: Console) -> None:
    """All of it."""
    shown = [row for row in rows if row.work.full]
    priced = {row.work.device for row in rows if row.revenue is not None and row.work.mode != "idle"}
    console.print(Text(_headline(prices), style="bold"))
    if prices.hashprice_from:
        console.print(Text(f"hashprice from {prices.hashprice_from}"))
    console.print(_worth_table(shown))
    if priced:
        console.print(_margin_table(prices, [row for row in shown if row.work.device in priced]))
    if priced and prices.usd_per_mwh:
        console.print(_best_table(prices, [found for found in best if found.device in priced]))
    console.print(_breakeven_table(prices, shown))
    for note in notes(shown):
        console.print(Text(f"• {note}"))


def notes(rows: Sequence[Row]) -> list[str]:
    """What must be said beside the figures."""
    said = []
    if any(row.revenue is not None for row in rows if row.work.mode != "idle"):
        said.append("USD/MWh are per energy at the site's meter: what the device earns per MWh, over PUE.")
    else:
        said.append(_ASK)
    if any(margin is not None and margin < 0 for row in rows for margin in row.margins):
        said.append("off: at this price the cheapest thing is to stop.")
    for device in _devices([row for row in rows if row.work.source == "estimated"]):
        said.append(f"All figures of {device} rest on an estimate of its power, not on a measurement.")
    for device, model in dict.fromkeys((row.work.device, row.work.model) for row in rows if row.work.model):
        said.append(f"Inference on {device} is that of {model}; a price of its tokens must be one of that model.")
    if any(row.work.mode == "mixed" for row in rows):
        said.append(
            "mixed: the same joules paid for both kinds of work; its revenue is that of both together, and of one kind "
            "alone there is no figure."
        )
    said.append("published: from the maker's datasheet, measured by nobody here.")
    return said + _ratios(rows)


def _headline(prices: Prices) -> str:
    said = [
        (prices.hashprice_usd_per_ph_day, "hashprice {:,.2f} USD/PH/day"),
        (prices.pool_fee or None, "pool fee {:.3g}"),
        (prices.usd_per_mtok, "{:g} USD/Mtok of output"),
        (prices.usd_per_h, "rented at {:g} USD/h"),
        (prices.heat_credit_usd_per_mwh or None, "heat credit {:g} USD/MWh"),
    ]
    parts = [form.format(value) for value, form in said if value is not None]
    return "wattwork worth: " + ", ".join([*parts, f"PUE {prices.pue:g} (of the ASICs {prices.asic_pue:g})"])


def _worth_table(rows: Sequence[Row]) -> Table:
    table = make_table("device", "", "energy", "efficiency", "USD/MWh", "95 % interval", f"x {_REFERENCE}")
    for device, row in _by_device(rows):
        work = row.work
        table.add_row(
            device,
            _label(work),
            _WORDS[work.source],
            _efficiency(work),
            _usd(row.revenue),
            _interval(row.revenue_ci95),
            _usd(row.times_asic),
        )
    return table


def _margin_table(prices: Prices, rows: Sequence[Row]) -> Table:
    table = make_table("margin, USD/MWh", "", "stop above", *(f"power at {price:g}" for price in prices.usd_per_mwh))
    for device, row in _by_device(rows):
        table.add_row(device, _label(row.work), _usd(row.shutdown), *map(_margin, row.margins))
    return table


def _best_table(prices: Prices, best: Sequence[Best]) -> Table:
    table = make_table("pays most, USD/h", *(f"power at {price:g}" for price in prices.usd_per_mwh))
    for device in dict.fromkeys(found.device for found in best):
        table.add_row(device, *(_winner(found) for found in best if found.device == device))
    return table


def _breakeven_table(prices: Prices, rows: Sequence[Row]) -> Table:
    """What pays for power at each price; where none is given, for each USD/MWh of it."""
    at = [f"at {price:g}" for price in prices.usd_per_mwh]
    if not at:
        rows, at = [row_of(row.work, at_one_usd_per_mwh(prices)) for row in rows], ["per USD/MWh of power"]
    table = make_table("pays for power from", "", "", *at, f"as the {_REFERENCE}")
    needed = None
    for device, row in _by_device([row for row in rows if row.work.joules_per_th or row.work.tokens_per_joule]):
        hashing = row.work.joules_per_th is not None
        unit, figures = ("USD/PH/day", row.breakeven_hashprice) if hashing else ("USD/Mtok", row.breakeven_usd_per_mtok)
        table.add_row(device, _label(row.work), unit, *map(_plain, figures), _plain(row.usd_per_mtok_as_asic))
        needed = needed or (row if row.tok_per_j_as_asic or any(row.breakeven_tok_per_j) else None)
    if needed:  # the same for all devices behind one meter
        cells = map(_plain, (*needed.breakeven_tok_per_j, needed.tok_per_j_as_asic))
        table.add_row(f"at {prices.usd_per_mtok:g} USD/Mtok", "infer", "tok/J", *cells)
    return table


def _ratios(rows: Sequence[Row]) -> list[str]:
    """Inference over hashing, on the same device; of several phases the first."""
    said = []
    for device in _devices(rows):
        revenue = {row.work.mode: row.revenue for row in reversed(rows) if row.work.device == device}
        infer, hashing = revenue.get("infer"), revenue.get("hash")
        if infer and hashing:
            times = float(f"{infer / hashing:.3g}")
            said.append(f"On {device} inference earns {_plain(times)} times what hashing does, per MWh.")
    return said


def _devices(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.work.device for row in rows))


def _by_device(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Each row, with its device's name where that is new."""
    before = None
    for row in rows:
        yield "" if row.work.device == before else row.work.device, row
        before = row.work.device


def _label(work: Work) -> str:
    return f"{work.mode},\N{NO-BREAK SPACE}{work.scenario}" if work.mode == "infer" and work.scenario else work.mode


def _efficiency(work: Work) -> str:
    if work.joules_per_th:
        return si(work.joules_per_th, "J/TH")
    return NONE if work.tokens_per_joule is None else f"{three(work.tokens_per_joule)} tok/J"


def _winner(best: Best) -> str:
    if best.work is None:
        return "off"
    load = "" if best.work.full else f" at load {best.work.load:.2g}"
    return _label(best.work) + load + ("" if best.usd_per_h is None else f" {_margin(best.usd_per_h)}")


def _interval(ci95: Interval | None) -> str:
    return NONE if ci95 is None else f"{_usd(ci95[0])} to {_usd(ci95[1])}"


def _margin(value: float | None) -> str:
    if value is None:
        return NONE
    return f"off ({_usd(value)})" if value < 0 else f"+{_usd(value)}"


def _usd(value: float | None) -> str:
    """Three significant digits or more, down to a cent."""
    return "<0.01" if value is not None and 0 < value < 0.01 else _plain(value)


def _plain(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
