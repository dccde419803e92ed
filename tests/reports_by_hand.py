"""Reports made by hand, as a ladder or a comparison would make them."""

from wattwork.levels import Figure, Level, SwitchCost
from wattwork.report import PhaseResult, Power, Report, Switch


def figure(median, half=None, n=5):
    return Figure(median, None if half is None else (median - half, median + half), n)


def rung(mode, target, units_per_s, watts, *, load=None, source="counter"):
    unit = {"hash": "hashes", "infer": "output_tokens", "idle": None}[mode]
    return Level(
        mode, target, target if load is None else load, unit, units_per_s, watts, source, seconds=60.0
    )  # fmt: skip


def ladder_report():
    """Hash at four levels, infer at two, active idle."""
    return Report(
        device={"name": "made by hand"},
        ladder=[
            rung("hash", 1.0, figure(2e8, 1e6), figure(200.0, 4.0)),
            rung("hash", 0.75, figure(1.5e8, 1e6), figure(140.0, 3.0)),
            rung("hash", 0.5, figure(1e8, 1e6), figure(100.0)),
            rung("hash", 0.25, figure(5e7, 1e6), None),
            rung("infer", 1.0, figure(4000.0, 40.0), figure(180.0, 2.0)),
            rung("infer", 0.5, figure(1960.0, 40.0), figure(90.0, 2.0), load=0.49),
            Level("idle", 0.0, None, None, None, figure(20.0, 1.0), "counter", 60.0),
        ],
        switch_costs=[
            SwitchCost("idle", "hash", figure(0.001), figure(0.005), figure(0.5), "counter"),
            SwitchCost("hash", "idle", figure(0.002), None, None, "counter"),
        ],
        switches=[Switch("idle", "hash", 9.0, 9.0, 9.0), Switch("hash", "infer", 0.1, 0.3, 7.0)],
    )


def power(watts, seconds, half_j=None, source="estimated"):
    joules = watts * seconds
    return Power(joules, watts, None if half_j is None else (joules - half_j, joules + half_j), source, 1.0)


def phases_report(source="estimated"):
    """What `wattwork compare` makes: no ladder. Hashing takes 1e6 J/TH, and inference 10 tok/J."""
    return Report(
        device={"name": "two cores", "model": "tiny-15m"},
        phases=[
            PhaseResult("idle", 10.0, power=power(4.0, 10.0, 20.0, source)),
            PhaseResult("hash", 10.0, hashes=10**9, power=power(100.0, 10.0, 100.0, source)),
            PhaseResult("infer", 10.0, output_tokens=10_000, scenario="offline", power=power(100.0, 10, None, source)),
            PhaseResult("infer", 10.0, output_tokens=1_000, scenario="trace", power=power(50.0, 10.0, 50.0, source)),
            PhaseResult(
                "mixed", 10.0, hashes=5 * 10**8, output_tokens=1_000, scenario="trace", harvested_share=0.5,
                power=power(100.0, 10.0, 100.0, source),
            ),
        ],
        switches=[Switch("idle", "hash", 0.1, 0.2, 3.0)],
    )  # fmt: skip
