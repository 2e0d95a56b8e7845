"""The sync manager's job: connect, fetch, store, detect, count, against a provider on loopback."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from tests.heart import write_config
from tests.jobs.syncs import (
    CLOCKED,
    USER,
    active,
    connect,
    declared,
    desk,
    finish,
    install,
    prepare,
    results,
    start,
    status,
)
from worker.demo.provider import Provider, make_orders, owed
from worker.outcome import Completed, Retried, Snoozed
from worker.testing import bench

TELL = """
create table told (at bigint generated always as identity, percent int);
grant insert on told to public;
create function tell() returns trigger language plpgsql as
  $$ begin insert into public.told (percent) values ((new.progress ->> 'percent')::int); return null; end $$;
create trigger tell after update of progress on worker.job_queue for each row
  when (new.progress is distinct from old.progress) execute function tell();
"""
SILENCE = """
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'disk full'; end $$;
create trigger refuse after update of progress on worker.job_queue for each row
  when (new.progress ->> 'percent' = '60') execute function refuse();
"""
ORDERS = make_orders(7, 45)  # five pages


@pytest.fixture
async def provider():
    async with Provider(ORDERS, size=10) as serving:
        yield serving


@pytest.fixture
async def at(connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider):
    async with desk(connection, dsn, tmp_path, provider) as made:
        yield made


async def test_a_sync_from_start_to_counts(at: Any, connection: asyncpg.Connection, provider: Provider) -> None:
    await connection.execute(TELL)
    sync = await start(connection)
    came = await finish(at, sync)
    assert isinstance(came, Completed), came
    counted = {"pages": 5, "orders": 45, "added": 45, "changed": 0, "claims": owed(ORDERS)}
    assert came.result == {**counted, "claimed": came.result["claimed"], "detection": "completed"}
    told = [percent for (percent,) in await connection.fetch("select percent from told order by at")]
    assert list(dict.fromkeys(told)) == [10, 30, 60, 90, 95, 100]
    assert told == sorted(told)
    assert provider.asked == dict.fromkeys(range(1, 6), 1)
    now = await status(connection)
    assert (now["status"], now["progress"], now["active"], now["orders"]) == ("completed", 100, False, 45)
    stored = await connection.fetch("select order_id, charged::float8 from sync.sync_orders order by order_id")
    assert [tuple(row) for row in stored] == [(order["order_id"], order["charged"]) for order in ORDERS]


async def test_what_is_owed_is_found_once(at: Any, connection: asyncpg.Connection, provider: Provider) -> None:
    await finish(at, await start(connection))
    kinds = await connection.fetch("select kind, count(*) from sync.claims group by kind order by kind")
    assert [tuple(row) for row in kinds] == [("overcharge", 4), ("short_shipment", 3)]
    again = await start(connection)
    await finish(at, again)
    assert (await results(connection, again))["claims"] == 0
    assert await connection.fetchval("select count(*) from sync.claims") == 7


async def test_an_order_that_changed_is_stored_as_it_is_now(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    await finish(at, await start(connection))
    newer, older = dict(ORDERS[3]), dict(ORDERS[4])
    newer |= {"shipped": 0, "updated_at": "2027-01-01T00:00:00+00:00"}
    older |= {"shipped": 0, "updated_at": "2020-01-01T00:00:00+00:00"}
    provider.orders[3:5] = [newer, older]
    again = await start(connection)
    await finish(at, again)
    told = await results(connection, again)
    assert (told["orders"], told["added"], told["changed"]) == (45, 0, 1)
    shipped = await connection.fetch("select shipped from sync.sync_orders where order_id = any ($1) order by order_id",
                                     [newer["order_id"], older["order_id"]])  # fmt: skip
    assert [row[0] for row in shipped] == [0, ORDERS[4]["shipped"]]


async def test_no_token_is_seen_in_the_queue(at: Any, connection: asyncpg.Connection, provider: Provider) -> None:
    await finish(at, await start(connection))
    written = "\n".join(map(str, await connection.fetch("select q::text from worker.job_queue q")))
    written += "\n".join(map(str, await connection.fetch("select s::text from worker.job_step s")))
    assert "ann" in written
    assert "secret" not in written


async def test_a_detection_is_waited_for_a_minute_and_no_longer(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    sync = await start(connection)
    assert isinstance(await at.run(sync), Snoozed)
    for _ in range(5):
        now = await status(connection)
        assert (now["status"], now["state"], now["progress"], now["error"]) == ("running", "snoozed", 90, None)
        await at.move_clock("10s")
        assert await at.run(sync) == Snoozed(10.0, keep_steps=True)
    await at.move_clock("10s")
    came = await at.run(sync)
    assert isinstance(came, Completed)
    assert (came.result["detection"], came.result["claims"]) == ("late", 0)
    detection = await connection.fetchval("select id from worker.job_queue where job_type = 'sync_detect'")
    await at.run(detection)
    told = await results(connection, sync)
    assert (told["detection"], told["claims"]) == ("completed", owed(ORDERS))


async def test_a_detection_that_fails_does_not_fail_the_sync(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    sync = await start(connection)
    assert isinstance(await at.run(sync), Snoozed)
    await connection.execute("select worker.cancel(detect_job) from sync.sync_runs")
    await at.move_clock("10s")
    came = await at.run(sync)
    assert isinstance(came, Completed)
    assert (came.result["detection"], came.result["orders"]) == ("cancelled", 45)


async def test_an_error_of_a_status_write_is_the_sync_s(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    await connection.execute(SILENCE)
    sync = await start(connection)
    came = await at.run(sync)
    assert isinstance(came, Retried)
    assert "disk full" in came.error
    await connection.execute("drop trigger refuse on worker.job_queue")
    await at.move_clock("2m")
    assert isinstance(await finish(at, sync), Completed)
    assert sum(provider.asked.values()) == provider.pages


async def test_without_orders_there_is_one_empty_page(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    provider.orders.clear()
    came = await finish(at, await start(connection))
    assert isinstance(came, Completed)
    assert (came.result["pages"], came.result["orders"]) == (1, 0)


async def test_one_that_was_enqueued_by_hand_is_a_sync_too(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    sync = await at.enqueue("sync", {"user_id": USER})
    assert isinstance(await finish(at, sync), Completed)
    assert (await status(connection))["sync_id"] == sync


async def test_a_paused_type_waits_and_says_so(at: Any, connection: asyncpg.Connection, provider: Provider) -> None:
    await connection.execute("select worker.pause('sync')")
    sync = await start(connection)
    assert (await status(connection))["state"] == "waiting"
    assert (await active(connection))["sync_id"] == sync
    assert await connection.fetchval("select sync.queue_status() -> 'types' -> 'sync' ->> 'paused'") == "true"
    await connection.execute("select worker.resume('sync')")
    assert isinstance(await finish(at, sync), Completed)


async def test_the_installation_may_be_repeated(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider
) -> None:
    config = await prepare(connection, dsn, tmp_path, provider, settings="detect_stay = 0")
    async with bench(dsn, config) as at:
        sync = await start(connection)
        await finish(at, sync)
    await install(connection, dsn, config)
    assert (await status(connection))["sync_id"] == sync
    assert (await results(connection, sync))["orders"] == 45


async def test_a_sync_s_lines_carry_its_correlation_id(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    sync = await start(connection, correlation_id="click-7")
    await connection.execute("select worker.pause('sync_detect')")
    with structlog.testing.capture_logs() as lines:
        for _ in range(7):
            came = await at.run(sync)
            await at.move_clock("10s")
    assert isinstance(came, Completed)
    told = [line for line in lines if line.get("job_id") == sync]
    assert {line["correlation_id"] for line in told} == {"click-7"}
    assert [line["state"] for line in told if line["event"] == "sync.not_detected"] == ["late"]
    assert len([line for line in told if line["event"] == "job.snoozed"]) == 6
    children = await connection.fetch("select distinct correlation_id from worker.job_queue")
    assert [row[0] for row in children] == ["click-7"]


async def test_what_the_clock_starts_runs(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider
) -> None:
    config = write_config(tmp_path, declared(provider) + CLOCKED)
    await install(connection, dsn, config)
    await connect(connection)
    async with bench(dsn, config) as at:
        came = await at.run(await at.enqueue("sync_all"))
        assert came == Completed({"start": 1})
        assert (await active(connection))["source"] == "schedule"
        await connection.execute("select sync.cancel($1)", USER)
        await at.move_clock("31d")
        came = await at.run(await at.enqueue("sync_cleanup"))
        assert came == Completed({"forget": {"syncs": 1, "jobs": 2, "alerts": 0}})
