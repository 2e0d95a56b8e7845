"""The parts of what a job costs, measured on few."""

import pytest

from bench.spike import costs


@pytest.mark.parametrize("jobs", [700])
async def test_each_part_is_measured_to_its_end(monkeypatch, jobs):
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nobody")  # its configuration wants one
    monkeypatch.setattr(costs, "JOBS", jobs)
    monkeypatch.setattr(costs, "RUNS", 1)
    told = await costs.measure()
    assert len(told) == 4
    assert min(told.values()) >= 0  # of so few the server's ticks count none
    assert all(name in costs.report(told) for name in told)
