"""The main job's own steps; what it prints and reports is tested in test_cli."""

import pytest

from wattwork import comparison, method
from wattwork.device import Device
from wattwork.meters import Meter


def test_the_solo_capacity_is_taken_alone_and_the_offline_rate_from_a_full_batch_on(monkeypatch):
    under_way, finished = [], []
    real = Device.run

    def spy_capacity(device, *_):
        stats = device.scheduler.stats()
        under_way.append(stats.num_requests_running + stats.num_requests_waiting)
        return 1000.0

    def spy_run(device, *args, **kwargs):
        finished.append((device.mode, device.scheduler.stats().finished))
        return real(device, *args, **kwargs)

    monkeypatch.setattr(comparison, "solo_capacity_tok_s", spy_capacity)
    monkeypatch.setattr(Device, "run", spy_run)
    monkeypatch.setattr(method, "MOST_BATCH_S", 600.0)  # a guard, not a measure
    report = comparison.compare(seconds=0.2, meter=Meter(watts=1.0))
    assert under_way == [0]
    assert report.phase("infer", "trace").trace["capacity_tok_s"] == pytest.approx(1000.0)
    warm_up, *_, offline, _ = (n for mode, n in finished if mode == "infer")
    assert offline - warm_up >= 32  # a whole batch came and went before the window
