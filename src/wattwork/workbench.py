"""A device with both kinds of work bound to it, and the report that is to be written about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from wattwork.data import MAINNET_HEIGHTS, mainnet_header
from wattwork.device import Device
from wattwork.engines import StepEngine, make_engine, preset
from wattwork.job import Job
from wattwork.machine import describe_device, describe_versions
from wattwork.meters import Meter
from wattwork.method import Progress
from wattwork.report import Report
from wattwork.work import Work


@dataclass(frozen=True, slots=True)
class Workbench:
    """What stands on it. The device is idle; `engine` is None where nothing is to be inferred."""

    device: Device
    job: Job
    engine: StepEngine | None
    report: Report


@contextmanager
def workbench(
    name: str, *, model: str | None, threads: int | None, meter: Meter | None, progress: Progress
) -> Iterator[Workbench]:
    """The device of that name, with a job on a real mainnet header and, with a `model`, its engine; cleared at the end.

    `threads`: workers (None: the CPUs this process may use). `meter`: as `Device` takes it.
    """
    config = preset(model) if model is not None else None
    with Device(name, threads=threads, meter=meter) as device, ExitStack() as stack:
        job = Job(Work.from_header(mainnet_header(MAINNET_HEIGHTS[-1])), device=name)
        engine = None
        if config is not None:
            progress(f"loading {model}", None)
            engine = make_engine(config, threads=threads, device=name)
            stack.callback(engine.close)
            stack.callback(device.close)  # before its engine
        about = describe_device(name, isa=job.isa, threads=device.threads) | {"model": model}
        device.bind(job, engine)
        yield Workbench(device, job, engine, Report(about, describe_versions()))
