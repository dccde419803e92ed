"""The report: what a device did and cost, as data. JSON, schema `wattwork.report/1`; what is unknown is null.

The JSON Schema is `data/report.schema.json`. `work` in the JSON stands for the three counts of a PhaseResult.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from wattwork.conditions import Conditions
from wattwork.errors import InvalidInput
from wattwork.latency import Latency, Yields
from wattwork.levels import Level, Method, SwitchCost
from wattwork.meters.base import Energy, Kind
from wattwork.outfile import write_whole
from wattwork.report_json import Reader

if TYPE_CHECKING:
    from wattwork.profile import Profile

SCHEMA = "wattwork.report/1"
Mode = Literal["idle", "hash", "infer", "mixed"]
Scenario = Literal["offline", "trace"]
MODES: tuple[str, ...] = get_args(Mode)
SCENARIOS: tuple[str, ...] = get_args(Scenario)


@dataclass(frozen=True, slots=True)
class Power:
    """Energy of a window. `source` is counter, sampled, external or estimated; only the first two are measured."""

    joules: float | None
    watts: float | None
    ci95_j: tuple[float, float] | None
    source: Kind
    coverage: float | None = None
    detail: str = ""
    updates: int | None = None  # of the sensor, within the window
    warnings: tuple[str, ...] = ()  # of the meter's

    @classmethod
    def from_energy(cls, energy: Energy) -> Power:
        """From a meter's window."""
        return cls(
            energy.joules, energy.watts, energy.ci95_j, energy.source, energy.coverage, energy.detail, energy.updates,
            energy.warnings,
        )  # fmt: skip


@dataclass(slots=True)
class PhaseResult:
    """One phase of one mode, a window or several of them together: what was done, and what it cost.

    Joules are those of the whole device in the whole time. In a mixed phase they paid for both kinds of work, so
    neither "per joule" figure there is the price of one kind alone. A rate or ratio of work that was not done is None.
    """

    mode: Mode
    seconds: float
    hashes: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    scenario: Scenario | None = None
    harvested_share: float | None = None  # mixed: hash rate over that of hashing alone
    power: Power | None = None
    latency: Latency | None = None
    yields: Yields | None = None  # hash and mixed: how the back gave way
    trace: dict[str, Any] | None = None  # how the trace was sized: TraceInfo.to_dict()
    samples: list[dict[str, Any]] = field(default_factory=list)  # raw, {"t_s": ..., "hashes": ..., ...} each
    method: Method | None = None  # None: one window as it came
    conditions: Conditions | None = None
    warnings: tuple[str, ...] = ()  # why it should not be trusted, a sentence each

    @property
    def hashes_per_s(self) -> float | None:
        """Hash rate, H/s."""
        return _over(self.hashes, self.seconds)

    @property
    def output_throughput(self) -> float | None:
        """Output tokens per second, under the name `vllm bench serve` gives it."""
        return _over(self.output_tokens, self.seconds)

    @property
    def prompt_throughput(self) -> float | None:
        """Prompt tokens per second."""
        return _over(self.prompt_tokens, self.seconds)

    @property
    def joules(self) -> float | None:
        """Energy of the window, if known."""
        return self.power.joules if self.power else None

    @property
    def hashes_per_joule(self) -> float | None:
        """H/J."""
        return _over(self.hashes, self.joules)

    @property
    def joules_per_hash(self) -> float | None:
        """J/H; J/TH is 10^12 times that."""
        return _over(self.joules, self.hashes)

    @property
    def output_tokens_per_joule(self) -> float | None:
        """tok/J."""
        return _over(self.output_tokens, self.joules)

    @property
    def joules_per_output_token(self) -> float | None:
        """J/tok."""
        return _over(self.joules, self.output_tokens)

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        return {
            "mode": self.mode,
            "scenario": self.scenario,
            "seconds": self.seconds,
            "harvested_share": self.harvested_share,
            "work": {
                "hashes": self.hashes,
                "output_tokens": self.output_tokens,
                "prompt_tokens": self.prompt_tokens,
            },
            "power": asdict(self.power) if self.power else None,
            "latency": asdict(self.latency) if self.latency else None,
            "yields": asdict(self.yields) if self.yields else None,
            "trace": self.trace,
            "samples": self.samples,
            "method": asdict(self.method) if self.method else None,
            "conditions": asdict(self.conditions) if self.conditions else None,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, slots=True)
class Switch:
    """What going from one mode to another took."""

    from_mode: Mode
    to_mode: Mode
    command_s: float  # until the old work had fully stopped
    first_unit_s: float | None  # until the first new quantum or token was done; None into idle
    joules: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        return {
            "from": self.from_mode,
            "to": self.to_mode,
            "command_s": self.command_s,
            "first_unit_s": self.first_unit_s,
            "joules": self.joules,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """A nonce that was found again, and can be checked by hand: SHA-256d of the header with it is `hash`."""

    header: str  # 80 bytes as hex
    nonce: int
    hash: str  # 32 bytes as hex, in the order hashlib gives them


@dataclass(slots=True)
class Report:
    """All that one run found out about a device."""

    device: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    phases: list[PhaseResult] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    proof: Proof | None = None
    ladder: list[Level] = field(default_factory=list)  # hashing's levels first, then inference's, then active idle
    switch_costs: list[SwitchCost] = field(default_factory=list)

    def phase(self, mode: Mode, scenario: Scenario | None = None) -> PhaseResult | None:
        """The first phase of that mode (and scenario, if one is given)."""
        fits = (p for p in self.phases if p.mode == mode and scenario in (None, p.scenario))
        return next(fits, None)

    def profile(self, date: str | None = None) -> Profile:
        """Its levels and switch costs as arrays: see `profile_report.profile_of`. `date`: YYYY-MM-DD."""
        from wattwork.profile_report import profile_of

        return profile_of(self, date)

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON."""
        return {
            "schema": SCHEMA,
            "device": self.device,
            "versions": self.versions,
            "phases": [phase.to_dict() for phase in self.phases],
            "switches": [switch.to_dict() for switch in self.switches],
            "proof": asdict(self.proof) if self.proof else None,
            "ladder": [asdict(level) for level in self.ladder],
            "switch_costs": [cost.to_dict() for cost in self.switch_costs],
        }

    def to_json(self) -> str:
        """The JSON text. InvalidInput if a figure is not finite: unknown is None."""
        try:
            return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        except ValueError:
            raise InvalidInput("a figure of the report is infinite or not a number; use None for unknown.") from None

    @classmethod
    def from_json(cls, text: str, where: str = "the report") -> Report:
        """From JSON text. InvalidInput names what is wrong, and in `where`. Keys not known here are left out."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"{where} is not valid JSON ({error}).") from None
        from wattwork.report_read import read_report

        return read_report(Reader(data, where))

    def save(self, path: str | Path) -> None:
        """Write the JSON. A file is there whole or not at all. InvalidInput if it cannot be written."""
        write_whole(path, self.to_json(), "the report")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote. InvalidInput names the file and what is wrong with it."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InvalidInput(f"the report {path} cannot be read: {why}.") from None
        return cls.from_json(text, str(path))


def _over(amount: float | None, by: float | None) -> float | None:
    return amount / by if amount and by else None
