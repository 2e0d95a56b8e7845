"""A step is seen as running once it has lasted a moment; its failure tells when it began."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import structlog

from tests.heart import Heart, becomes, enqueue, heart, until
from worker import timeline
from worker.job import Job
from worker.timeline import Shown

STATE = "select status from worker.job_step where job_id = $1 and name = 'a'"
SECONDS = """
    select extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8
    from worker.job_step where job_id = $1 and name = 'a'
"""


@pytest.fixture
async def parts(dsn: str) -> AsyncIterator[Heart]:
    async with heart(dsn) as opened:
        yield opened


@pytest.fixture
async def claimed(parts: Heart, connection: asyncpg.Connection) -> Job:
    await enqueue(connection)
    job = await parts.one()
    await parts.queue.begin_steps(job, ["a"])
    return job


async def test_what_is_over_in_a_moment_is_not_shown(parts, claimed, connection, monkeypatch):
    monkeypatch.setattr(timeline, "MOMENT_SECONDS", 600)
    await Shown(parts.queue, claimed, "a").over()
    assert await connection.fetchval(STATE, claimed.id) == "waiting"


async def test_what_lasts_is_shown_with_its_beginning(parts, claimed, connection):
    shown = Shown(parts.queue, claimed, "a")
    await until(connection, f"select ({STATE}) = 'running'", claimed.id)
    assert await connection.fetchval(SECONDS, claimed.id) >= timeline.MOMENT_SECONDS
    await shown.over()


async def test_a_failure_tells_when_the_step_began(parts, claimed, connection, monkeypatch):
    monkeypatch.setattr(timeline, "MOMENT_SECONDS", 600)
    shown = Shown(parts.queue, claimed, "a")
    await asyncio.sleep(0.02)
    await shown.failed("no luck")
    row = await connection.fetchrow("select status, error from worker.job_step where job_id = $1", claimed.id)
    assert tuple(row) == ("failed", "no luck")
    assert await connection.fetchval(SECONDS, claimed.id) >= 0.02


async def test_no_step_is_shown_as_running_after_its_end(parts, claimed, connection, monkeypatch):
    """What is being written is waited for."""
    monkeypatch.setattr(timeline, "MOMENT_SECONDS", 0)
    for _ in range(20):
        shown = Shown(parts.queue, claimed, "a")
        await asyncio.sleep(0)
        await shown.failed("no luck")
        assert await connection.fetchval(STATE, claimed.id) == "failed"


async def test_trouble_in_showing_is_not_the_steps(parts, claimed, monkeypatch):
    async def torn(*_: object) -> None:
        raise ConnectionResetError("torn")

    monkeypatch.setattr(timeline, "MOMENT_SECONDS", 0)
    monkeypatch.setattr(parts.queue, "step_began", torn)
    monkeypatch.setattr(parts.queue, "step_failed", torn)
    with structlog.testing.capture_logs() as lines:
        shown = Shown(parts.queue, claimed, "a")
        await becomes(lambda: lines)
        await shown.failed("no luck")
    assert [line["event"] for line in lines] == ["step.not_shown"] * 2
