"""The main job's own steps; what it prints and reports is tested in test_cli."""

import pytest

from wattwork import measure


def test_the_solo_capacity_is_taken_with_nothing_else_under_way(monkeypatch):
    under_way = []

    def spy(device, *_):
        stats = device.scheduler.stats()
        under_way.append(stats.num_requests_running + stats.num_requests_waiting)
        return 1000.0

    monkeypatch.setattr(measure, "solo_capacity_tok_s", spy)
    report = measure.compare(seconds=0.2, watts=1.0)
    assert under_way == [0]
    assert report.phase("infer", "trace").trace["capacity_tok_s"] == pytest.approx(1000.0)
