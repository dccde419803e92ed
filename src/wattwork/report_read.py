"""A report from its JSON: every field is looked at, and what is optional may be missing, as in older reports."""

from __future__ import annotations

from typing import get_args

from wattwork.conditions import Conditions
from wattwork.errors import InvalidInput
from wattwork.latency import Latency, Yields
from wattwork.levels import Figure, Level, Method, SwitchCost, Unit
from wattwork.meters.base import KINDS
from wattwork.report import MODES, SCENARIOS, SCHEMA, PhaseResult, Power, Proof, Report, Switch
from wattwork.report_json import Reader

UNITS: tuple[str, ...] = get_args(Unit)


def read_report(top: Reader) -> Report:
    """InvalidInput names what is wrong, and where. Keys not known here are left out."""
    schema = top.value("schema")
    if schema != SCHEMA:
        raise InvalidInput(f"{top.where} has the schema {schema!r}; this version of wattwork reads {SCHEMA!r}.")
    return Report(
        device=top.mapping("device"),
        versions=top.mapping("versions"),
        phases=[_phase(phase) for phase in top.children("phases")],
        switches=[_switch(switch) for switch in top.children("switches")],
        proof=_proof(top.child("proof")),
        ladder=[_level(level) for level in top.children("ladder")],
        switch_costs=[_switch_cost(cost) for cost in top.children("switch_costs")],
    )


def _phase(data: Reader) -> PhaseResult:
    work = data.child("work") or Reader({}, f"{data.where}.work")
    power, latency = data.child("power"), data.child("latency")
    return PhaseResult(
        mode=data.choice("mode", MODES),
        seconds=data.number("seconds"),
        hashes=work.whole("hashes", 0),
        output_tokens=work.whole("output_tokens", 0),
        prompt_tokens=work.whole("prompt_tokens", 0),
        scenario=data.choice("scenario", SCENARIOS, optional=True),
        harvested_share=data.optional_number("harvested_share"),
        power=_power(power) if power else None,
        latency=Latency(**{name: latency.optional_number(name) for name in Latency.__slots__}) if latency else None,
        yields=_yields(data.child("yields")),
        trace=data.mapping("trace") if data.value("trace", None) is not None else None,
        samples=[sample.data for sample in data.children("samples")],
        method=_method(data.child("method")),
        conditions=_conditions(data.child("conditions")),
        warnings=data.texts("warnings"),
    )


def _power(data: Reader) -> Power:
    return Power(
        joules=data.optional_number("joules"),
        watts=data.optional_number("watts"),
        ci95_j=data.interval("ci95_j"),
        source=data.choice("source", KINDS),
        coverage=data.optional_number("coverage"),
        detail=data.text("detail", ""),
        updates=data.optional_whole("updates"),
        warnings=data.texts("warnings"),
    )


def _yields(data: Reader | None) -> Yields | None:
    return Yields(data.whole("count"), data.number("p50_us"), data.number("p90_us")) if data else None


def _switch(data: Reader) -> Switch:
    return Switch(
        from_mode=data.choice("from", MODES),
        to_mode=data.choice("to", MODES),
        command_s=data.number("command_s"),
        first_unit_s=data.optional_number("first_unit_s"),
        joules=data.optional_number("joules"),
    )


def _proof(data: Reader | None) -> Proof | None:
    return Proof(header=data.text("header"), nonce=data.whole("nonce"), hash=data.text("hash")) if data else None


def _figure(data: Reader) -> Figure:
    return Figure(median=data.number("median"), ci95=data.interval("ci95"), n=data.whole("n"))


def _optional_figure(data: Reader, name: str) -> Figure | None:
    found = data.child(name)
    return _figure(found) if found else None


def _method(data: Reader | None) -> Method | None:
    if data is None:
        return None
    figures = data.child("figures")
    return Method(
        repeats=data.whole("repeats"),
        quick=bool(data.flag("quick")),
        steady=data.flag("steady", optional=True),
        warm_up_s=data.number("warm_up_s"),
        figures={name: _figure(part) for name in figures.data if (part := figures.child(name))} if figures else {},
    )


def _conditions(data: Reader | None) -> Conditions | None:
    if data is None:
        return None
    return Conditions(
        clock_mhz=data.interval("clock_mhz"),
        celsius=data.interval("celsius"),
        celsius_limit=data.optional_number("celsius_limit"),
        throttled=data.optional_whole("throttled"),
        other_load=data.optional_number("other_load"),
        steal=data.optional_number("steal"),
    )


def _level(data: Reader) -> Level:
    return Level(
        mode=data.choice("mode", MODES),
        target=data.number("target"),
        load=data.optional_number("load"),
        unit=data.choice("unit", UNITS, optional=True),
        units_per_s=_optional_figure(data, "units_per_s"),
        watts=_optional_figure(data, "watts"),
        source=data.choice("source", KINDS),
        seconds=data.number("seconds"),
        warnings=data.texts("warnings"),
    )


def _switch_cost(data: Reader) -> SwitchCost:
    return SwitchCost(
        from_mode=data.choice("from", MODES),
        to_mode=data.choice("to", MODES),
        command_s=_figure(Reader(data.value("command_s"), f"{data.where}: command_s")),
        first_unit_s=_optional_figure(data, "first_unit_s"),
        joules=_optional_figure(data, "joules"),
        source=data.choice("source", KINDS),
    )
