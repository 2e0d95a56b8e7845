"""The seven lines of the first system's testing checklist, as tests of the same names, each with a real daemon."""

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.heart import becomes
from tests.jobs.syncs import ASLEEP, HANGS, USER, active, connect, one, prepare, results, start, status, until
from tests.processes import Fleet, fleet
from worker.demo.provider import Provider, make_orders, owed

ORDERS = make_orders(3, 60)  # six pages
ENDED = "select status from worker.job_queue where id = $1 and finished_at is not null"
SLOW = """
create function nap() returns trigger language plpgsql as
  $$ begin if new.page = 3 then perform pg_sleep(600); end if; return null; end $$;
create trigger slow after insert on sync.sync_pages for each row execute function nap();
"""


@pytest.fixture
async def provider():
    async with Provider(ORDERS, size=10) as serving:
        yield serving


@pytest.fixture
async def config(connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider) -> Path:
    return await prepare(connection, dsn, tmp_path, provider, settings="answer_within = 60")


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


async def test_start_sync_and_verify_status_is_running(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    assert await status(connection) == {"user_id": USER, "status": "idle", "active": False}
    provider.trouble(4, HANGS)
    sync = await start(connection)
    assert (await status(connection))["status"] == "running"  # at once, though nobody has taken it up
    daemons.start(config)
    await until(connection, "select progress = 30 and page = 3 from sync.active($1)", USER)
    now = await status(connection)
    assert (now["sync_id"], now["status"], now["state"], now["active"]) == (sync, "running", "running", True)
    assert (await active(connection))["sync_id"] == sync


async def test_try_to_start_duplicate_sync_should_fail(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    provider.trouble(2, HANGS)
    sync = await start(connection)
    for moment in ("waiting", "running"):
        with pytest.raises(asyncpg.PostgresError, match="is in progress already") as refused:
            await start(connection)
        assert (refused.value.sqlstate, refused.value.detail) == ("SY003", str(sync)), moment
        if moment == "waiting":
            daemons.start(config)
            await until(connection, "select page = 1 from sync.active($1)", USER)
    assert await connection.fetchval("select count(*) from worker.job_queue where job_type = 'sync'") == 1


async def test_cancel_sync_and_verify_database_is_updated(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    await connection.execute(SLOW)
    daemons.start(config)
    sync = await start(connection)
    await until(connection, f"select ({ASLEEP}) = 1")
    asked = await connection.fetchval("select sync.cancel($1)", USER)
    assert '"status": "running"' in asked
    row = await one(connection, "select cancel_requested_at, cancel_reason from sync.syncs where sync_id = $1", sync)
    assert row["cancel_requested_at"] is not None
    assert await until(connection, ENDED, sync) == "cancelled"
    assert await connection.fetchval(ASLEEP) == 0  # its statement is ended, not left alone
    now = await status(connection)
    assert (now["status"], now["active"], now["cancel_reason"]) == ("cancelled", False, "cancelled by the user")
    told = await results(connection, sync)
    assert (told["status"], told["pages"], told["orders"]) == ("cancelled", 2, 20)
    await connection.execute("drop trigger slow on sync.sync_pages")
    again = await start(connection)  # nobody is locked out
    assert await until(connection, ENDED, again) == "completed"


async def test_check_sync_history_returns_real_data(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    daemons.start(config)
    syncs = []
    for _ in range(3):
        syncs.append(await start(connection))
        assert await until(connection, ENDED, syncs[-1]) == "completed"
    kept = await connection.fetch("select * from sync.history($1)", USER)
    assert [row["sync_id"] for row in kept] == syncs[::-1]
    for row in kept:
        job = await one(connection, "select * from worker.job_queue where id = $1", row["sync_id"])
        assert (row["status"], row["started_at"], row["finished_at"]) == (
            job["status"], job["started_at"], job["finished_at"],
        )  # fmt: skip
        assert (row["orders"], row["page"], row["progress"]) == (60, 6, 100)


async def test_verify_sync_statistics_are_accurate(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    daemons.start(config)
    assert await until(connection, ENDED, await start(connection)) == "completed"
    await connection.execute("select worker.pause('sync')")
    await start(connection)
    await connection.execute("select sync.cancel($1)", USER)
    await connection.execute("select worker.resume('sync')")
    provider.tokens.clear()
    assert await until(connection, ENDED, await start(connection)) == "failed"
    provider.tokens.add("secret")
    await connect(connection)
    provider.trouble(2, HANGS)
    await start(connection)
    await until(connection, "select page = 1 from sync.active($1)", USER)
    told = await one(connection, "select * from sync.statistics($1)", USER)
    counted = [told[name] for name in ("total", "successful", "cancelled", "failed", "running")]
    assert counted == [4, 1, 1, 1, 1]
    assert float(told["success_rate"]) == 50.0
    rows = await one(connection, "select (select count(*) from sync.sync_orders) as orders, count(*) as claims,"
                                 " sum(amount) as claimed from sync.claims")  # fmt: skip
    assert {name: told[name] for name in rows} == rows
    assert (rows["orders"], rows["claims"]) == (60, owed(ORDERS))


async def test_sync_after_server_restart_progress_persistence(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    provider.trouble(4, HANGS)
    first = daemons.start(config)
    sync = await start(connection)
    await until(connection, "select page = 3 from sync.active($1)", USER)
    await becomes(lambda: provider.asked[4] == 1)
    first.kill()
    kept = await status(connection)
    assert (kept["status"], kept["progress"], kept["page"], kept["orders"]) == ("running", 30, 3, 30)
    daemons.start(config)
    assert await until(connection, ENDED, sync) == "completed"
    assert provider.asked == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1}
    told = await results(connection, sync)
    assert (told["pages"], told["orders"], told["added"]) == (6, 60, 60)


async def test_verify_get_sync_results_returns_real_counts(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    daemons.start(config)
    sync = await start(connection)
    assert await until(connection, ENDED, sync) == "completed"
    told = await results(connection, sync)
    claimed = await connection.fetchval("select sum(amount)::float8 from sync.claims where sync_id = $1", sync)
    assert told == {
        "sync_id": sync, "status": "completed", "detection": "completed", "pages": 6, "orders": 60, "added": 60,
        "changed": 0, "claims": owed(ORDERS), "claimed": claimed,
    }  # fmt: skip
    await connection.execute("delete from sync.claims where order_id = (select min(order_id) from sync.claims)")
    assert (await results(connection, sync))["claims"] == owed(ORDERS) - 1  # counted, not remembered
