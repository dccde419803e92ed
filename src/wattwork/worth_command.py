"""`wattwork worth`: what a device's work earns per energy at given prices, beside ASICs, as tables or JSON."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wattwork import worth
from wattwork.asics import asics
from wattwork.errors import InvalidInput
from wattwork.outfile import write_json
from wattwork.profile import Profile
from wattwork.profile_file import SCHEMA as PROFILE_SCHEMA
from wattwork.profile_file import from_json, parsed
from wattwork.render import make_console
from wattwork.report import Report
from wattwork.worth import Best, Interval, Prices, Row, Work
from wattwork.worth_options import prices_of, rented
from wattwork.worth_render import print_worth

SCHEMA = "wattwork.worth/1"


def run(args: argparse.Namespace) -> int:
    """Read the files, work out the money, show it; the exit code."""
    prices = prices_of(args)
    works = works_of_files(args.files) + rented(args) + worth.works_of_asics()
    rows = [worth.row_of(work, prices) for work in works]
    best = worth.best(works, prices)
    if args.json is not None:
        write_json(args.json, as_json(prices, rows, best), "the result")
    if str(args.json) != "-":
        print_worth(prices, rows, best, make_console())
    return 0


def works_of_files(paths: Sequence[Path]) -> list[Work]:
    """All of them; where a name would stand for two devices, each gets its file's name, too."""
    devices = [(path, works_of_file(path)) for path in paths]
    names = Counter([*asics(), *(name for _, works in devices for name in {work.device for work in works})])
    return [
        replace(work, device=f"{work.device} ({path})") if names[work.device] > 1 else work
        for path, works in devices
        for work in works
    ]


def works_of_file(path: Path) -> list[Work]:
    """A report's or a profile's work. InvalidInput names the file and what is wrong with it."""
    if path.suffix == ".npz":
        return worth.works_of_profile(Profile.load(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{path} cannot be read: {why}.") from None
    data = parsed(text, str(path))
    if isinstance(data, dict) and data.get("schema") == PROFILE_SCHEMA:
        return worth.works_of_profile(from_json(text, str(path)))
    return worth.works_of_report(Report.from_json(text, str(path)))


def as_json(prices: Prices, rows: Sequence[Row], best: Sequence[Best]) -> dict[str, Any]:
    """All of it. USD/MWh at the site's meter; unknown is null."""
    return {
        "schema": SCHEMA,
        "prices": asdict(prices),
        "rows": [
            {
                **_work_json(row.work),
                "revenue_usd_per_mwh": row.revenue,
                "revenue_ci95_usd_per_mwh": row.revenue_ci95,
                "shutdown_usd_per_mwh": row.shutdown,
                "times_reference_asic": row.times_asic,
                "usd_per_mtok_as_reference_asic": row.usd_per_mtok_as_asic,
                "tok_per_j_as_reference_asic": row.tok_per_j_as_asic,
                "at": [
                    {
                        "usd_per_mwh": usd_per_mwh,
                        "margin_usd_per_mwh": row.margins[i],
                        "margin_ci95_usd_per_mwh": row.margin_ci95(i),
                        "breakeven_hashprice_usd_per_ph_day": row.breakeven_hashprice[i],
                        "breakeven_usd_per_mtok": row.breakeven_usd_per_mtok[i],
                        "breakeven_tok_per_j": row.breakeven_tok_per_j[i],
                    }
                    for i, usd_per_mwh in enumerate(prices.usd_per_mwh)
                ],
            }
            for row in rows
        ],
        "best": [
            {
                "device": b.device,
                "usd_per_mwh": b.usd_per_mwh,
                "mode": b.work.mode if b.work else "off",
                "load": b.work.load if b.work else None,
                "scenario": b.work.scenario if b.work else None,
                "usd_per_h": b.usd_per_h,
            }
            for b in best
        ],
    }


def _work_json(work: Work) -> dict[str, Any]:
    return {
        "device": work.device,
        "mode": work.mode,
        "scenario": work.scenario,
        "load": work.load,
        "source": work.source,
        "watts": work.watts,
        "joules_per_th": work.joules_per_th,
        "joules_per_th_ci95": _times(work.joules_per_th, work.ci95, inverse=True),
        "output_tokens_per_joule": work.tokens_per_joule,
        "output_tokens_per_joule_ci95": _times(work.tokens_per_joule, work.ci95),
    }


def _times(value: float | None, factors: Interval | None, *, inverse: bool = False) -> Interval | None:
    if value is None or factors is None:
        return None
    low, high = factors
    return (value / high, value / low) if inverse else (value * low, value * high)
