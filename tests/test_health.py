"""Gauges sampled from the database, the schema's fit, and the profile: a scrape itself asks nothing."""

import asyncio
import math

import asyncpg
import pytest
import structlog

from tests.heart import becomes, enqueue, heart
from worker import health, migrating
from worker.health import Gauges, tell_profile
from worker.listener import Listener
from worker.metrics import Metrics


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_gauges_by_declared_type_and_other(parts, connection):
    metrics = Metrics({"work": [], "idle": []})
    for _ in range(3):
        await enqueue(connection, "work")
    for name in ("stranger_one", "stranger_two"):
        await connection.execute("insert into worker.job_queue (job_type) values ($1)", name)
    await parts.one()
    await Gauges(parts.queue, parts.database.control, metrics).sample()
    found = {
        (name, status): value(metrics, "worker_jobs", job_type=name, status=status)
        for name in ("work", "idle", "other")
        for status in ("pending", "running")
    }
    assert found == {
        ("work", "pending"): 2, ("work", "running"): 1, ("idle", "pending"): 0, ("idle", "running"): 0,
        ("other", "pending"): 2, ("other", "running"): 0,
    }  # fmt: skip
    assert value(metrics, "worker_oldest_due_seconds", job_type="work") > 0
    assert value(metrics, "worker_oldest_due_seconds", job_type="idle") == 0
    assert "stranger" not in str(list(metrics.registry.collect()))


async def test_what_is_gone_goes_back_to_zero(parts, connection):
    metrics = Metrics({"work": []})
    gauges = Gauges(parts.queue, parts.database.control, metrics)
    await enqueue(connection, "work")
    await gauges.sample()
    await connection.execute("delete from worker.job_queue")
    gauges._next_at = 0.0
    await gauges.sample()
    assert value(metrics, "worker_jobs", job_type="work", status="pending") == 0


async def test_without_an_answer_nothing_is_known(parts, connection):
    metrics = Metrics({"work": []})
    gauges = Gauges(parts.queue, parts.database.control, metrics)
    await gauges.sample()
    await parts.database.close()
    gauges._next_at = 0.0
    with pytest.raises(asyncpg.InterfaceError):
        await gauges.sample()
    assert math.isnan(value(metrics, "worker_jobs", job_type="work", status="pending") or 0)
    assert math.isnan(value(metrics, "worker_oldest_transaction_seconds") or 0)


async def test_who_keeps_a_transaction_open_is_named_once(parts, connection, dsn, monkeypatch):
    monkeypatch.setattr(health, "OLD_SECONDS", 0.05)
    gauges = Gauges(parts.queue, parts.database.control, Metrics())
    stranger = await asyncpg.connect(dsn, server_settings={"application_name": "the stranger"})
    try:
        await stranger.execute("begin; select 1")
        await asyncio.sleep(0.1)
        with structlog.testing.capture_logs() as said:
            for _ in range(2):
                gauges._next_at = 0.0
                await gauges.sample()
        (told,) = [line for line in said if line["event"] == "transaction.old"]
        assert told["by"].startswith(f"pid {stranger.get_server_pid()}, the stranger, user ")
        named = await connection.fetchval("select oldest_transaction_by from worker.queue_health")
        assert named == told["by"]
    finally:
        await stranger.close()


async def test_a_dear_sample_is_followed_by_a_long_pause(parts, monkeypatch):
    gauges = Gauges(parts.queue, parts.database.control, Metrics())
    monkeypatch.setattr(health, "SHARE", 1e9)
    await gauges.sample()
    await parts.database.close()
    await gauges.sample()  # asks nobody: it is not its time


async def test_the_schema_is_looked_at_again(parts, connection):
    gauges = Gauges(parts.queue, parts.database.control, Metrics())
    await gauges.check_schema()
    assert gauges.schema_fits
    await connection.execute("update worker.migration set digest = 'x' where name = 'functions/97_health.sql'")
    with structlog.testing.capture_logs() as lines:
        await gauges.check_schema()
        await gauges.check_schema()
    assert not gauges.schema_fits
    assert [line["event"] for line in lines] == ["schema.differs"]


async def test_while_somebody_migrates_the_schema_is_not_judged(dsn, parts, connection):
    gauges = Gauges(parts.queue, parts.database.control, Metrics())
    await connection.execute("select pg_advisory_lock($1)", migrating.LOCK)
    await connection.execute("insert into worker.migration (name, digest) values ('migrations/9000_more.sql', 'x')")
    await gauges.check_schema()
    assert gauges.schema_fits
    await connection.execute("select pg_advisory_unlock($1)", migrating.LOCK)
    with structlog.testing.capture_logs():
        await gauges.check_schema()
    assert not gauges.schema_fits


async def test_the_profile_says_what_the_connections_can_do(dsn, parts):
    times: list[float | None] = []
    listener = Listener(dsn, parts.queue.me, lambda _: None, parts.queue.test_ring, times.append)
    listening = asyncio.create_task(listener.run())
    try:
        await becomes(listener.tested.is_set)
        with structlog.testing.capture_logs() as lines:
            await tell_profile(parts.database, listener)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    (line,) = lines
    assert (line["event"], line["pooler"], line["step_pooler"], line["listener"]) == (
        "service.profile", "none", "none", "heard",
    )  # fmt: skip
    assert len(times) == 1
    assert times[0] is not None


async def test_a_listener_that_is_not_tested_does_not_hold_the_profile_back(dsn, parts, monkeypatch):
    monkeypatch.setattr(health, "TESTED_SECONDS", 0.01)
    listener = Listener(dsn, parts.queue.me, lambda _: None, parts.queue.test_ring)
    with structlog.testing.capture_logs() as lines:
        await tell_profile(parts.database, listener)
        await parts.database.close()
        await tell_profile(parts.database, listener)
    assert [line["event"] for line in lines] == ["service.profile", "duty.failed"]
    assert lines[0]["listener"] == "untested"
