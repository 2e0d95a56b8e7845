"""What is told of syncs by SQL, ended by it and forgotten, without any daemon."""

import re
from datetime import timedelta
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.jobs.syncs import USER, configure, connect, end, install, one, refusal, results, start


@pytest.fixture
async def db(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> asyncpg.Connection:
    """Installed, one account connected, and nobody who runs anything."""
    await install(connection, dsn, configure(tmp_path))
    await connect(connection)
    return connection


@pytest.mark.parametrize(
    ("spelling", "word"),
    [("in_progress", "running"), ("running", "running"), ("pending", "running"), ("detecting", "running"),
     ("complete", "completed"), ("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled"),
     ("canceled", "cancelled"), ("skipped", "cancelled"), ("idle", "idle"), (None, "idle"), ("odd", None)],
)  # fmt: skip
async def test_words(db: asyncpg.Connection, spelling: str | None, word: str | None) -> None:
    assert await db.fetchval("select sync.status_word($1)", spelling) == word


async def test_every_status_of_the_queue_has_its_word(db: asyncpg.Connection) -> None:
    check = await db.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'worker.job_queue'::regclass"
        " and pg_get_constraintdef(oid) like '%status = ANY%skipped%'"
    )
    statuses = [word.strip("'") for word in re.findall(r"'(\w+)'::text", check)]
    words = [await db.fetchval("select sync.status_word($1)", each) for each in statuses]
    assert len(words) == 6
    assert set(words) <= {"running", "completed", "failed", "cancelled"}


async def test_history_in_pages_and_by_status(db: asyncpg.Connection) -> None:
    syncs = []
    for number in range(25):
        syncs.append(await start(db))
        await end(db, syncs[-1], ("completed", "failed", "cancelled")[number % 3])
    newest = syncs[::-1]
    for arguments, wanted in (
        ("", newest[:20]), (", 20, 20", newest[20:]), (", 3, 1", newest[1:4]),
        (", status => 'complete'", [s for n, s in enumerate(syncs) if n % 3 == 0][::-1]),
        (", status => 'failed'", [s for n, s in enumerate(syncs) if n % 3 == 1][::-1]),
        (", status => 'in_progress'", []),
    ):  # fmt: skip
        rows = await db.fetch(f"select sync_id from sync.history('ann'{arguments})")
        assert [row[0] for row in rows] == wanted, arguments
    assert await db.fetch("select * from sync.history('bob')") == []


async def test_statistics_agree_with_the_rows(db: asyncpg.Connection) -> None:
    await connect(db, "bob")
    for number in range(12):
        await end(db, await start(db), ("completed", "completed", "failed", "cancelled")[number % 4])
    await start(db)
    await end(db, await start(db, "bob"))
    told = await one(db, "select * from sync.statistics('ann')")
    for name, word in (("successful", "completed"), ("failed", "failed"), ("cancelled", "cancelled"),
                       ("running", "running")):  # fmt: skip
        rows = await db.fetchval("select count(*) from sync.syncs where user_id = 'ann' and status = $1", word)
        assert told[name] == rows > 0
    assert told["total"] == told["successful"] + told["failed"] + told["cancelled"] + told["running"] == 13
    assert float(told["success_rate"]) == 66.7
    assert (await one(db, "select * from sync.statistics()"))["total"] == 14
    assert (await one(db, "select * from sync.statistics('nobody')"))["total"] == 0


async def test_cancel_ends_what_waits_at_once_and_leaves_what_ended(db: asyncpg.Connection) -> None:
    sync = await start(db)
    told = orjson.loads(await db.fetchval("select sync.cancel('ann', reason => 'not now')"))
    assert (told["sync_id"], told["status"], told["cancel_reason"]) == (sync, "cancelled", "not now")
    again = await start(db)
    await end(db, again)
    told = orjson.loads(await db.fetchval("select sync.cancel('ann', $1)", again))
    assert (told["status"], told["cancel_reason"]) == ("completed", None)
    assert (await refusal(db, "select sync.cancel('bob', $1)", again)).sqlstate == "SY004"


async def test_force_clear_ends_all_that_is_open(db: asyncpg.Connection) -> None:
    by_hand = await db.fetchval("select worker.enqueue('sync', '{\"user_id\": \"ann\"}')")
    cleared = await db.fetch("select * from sync.force_clear('ann')")
    assert [tuple(row) for row in cleared] == [(by_hand, "pending", "cancelled")]
    sync = await start(db)
    detection = await db.fetchval("select sync.begin_detection($1)", sync)
    await db.execute("select worker.register('test', 0, '0', '{}', 1, '1 hour')")
    await db.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = 1, started_at = now() where id = $1",
        detection,
    )
    cleared = await db.fetch("select * from sync.force_clear('ann')")
    assert [tuple(row) for row in cleared] == [(sync, "pending", "cancelled"), (detection, "running", "running")]
    assert await db.fetchval("select cancel_requested_at is not null from worker.job_queue where id = $1", detection)
    assert await start(db)
    assert await db.fetch("select * from sync.force_clear('bob')") == []


async def test_a_cancelled_sync_takes_its_detection_along(db: asyncpg.Connection) -> None:
    sync = await start(db)
    detection = await db.fetchval("select sync.begin_detection($1)", sync)
    await db.execute("select sync.cancel('ann')")
    assert await db.fetchval("select status from worker.job_queue where id = $1", detection) == "cancelled"
    seen = await db.fetch("select seller_id, sync_id, status from sync.detection_queue")
    assert [tuple(row) for row in seen] == [(USER, sync, "failed")]


async def test_queue_status_counts_the_queue(db: asyncpg.Connection) -> None:
    await start(db)
    await connect(db, "bob")
    await start(db, "bob", delay=timedelta(hours=1))
    told = orjson.loads(await db.fetchval("select sync.queue_status()"))
    sync = told["types"]["sync"]
    assert {name: sync[name] for name in ("waiting", "scheduled", "running", "daemons", "paused", "enabled")} == {
        "waiting": 1, "scheduled": 1, "running": 0, "daemons": 0, "paused": False, "enabled": True,
    }  # fmt: skip
    assert set(told["types"]) == {"sync", "sync_detect"}


@pytest.mark.parametrize(("completed", "failed", "said"), [(0, 0, "idle"), (9, 1, "healthy"), (7, 3, "degraded"),
    (69, 31, "unhealthy")])  # fmt: skip
async def test_health(db: asyncpg.Connection, completed: int, failed: int, said: str) -> None:
    for number in range(completed + failed):
        await end(db, await start(db), "completed" if number < completed else "failed")
    old = await start(db)
    await end(db, old, "failed", ago="25 hours")
    await db.execute("update sync.sync_runs set requested_at = now() - interval '25 hours' where sync_id = $1", old)
    told = await one(db, "select * from sync.health()")
    assert (told["status"], told["ended"]) == (said, completed + failed)


async def test_cleanup_forgets_what_ended_a_month_ago(db: asyncpg.Connection) -> None:
    old, young = await start(db), None
    await db.fetchval("select sync.store_page($1, 1, null, null, $2)", old, orjson.dumps([{
        "order_id": "A", "ordered_at": "2026-01-01", "updated_at": "2026-01-01", "quantity": 2, "shipped": 1,
        "price": 3, "charged": 6}]).decode())  # fmt: skip
    await db.execute("select sync.detect($1)", old)
    await end(db, old, "failed", ago="31 days")
    await db.execute("select sync.record_alert(jsonb_build_object('id', $1::bigint), 'x')", old)
    await db.execute("update sync.sync_runs set requested_at = now() - interval '31 days'")
    await db.execute("update sync.alerts set raised_at = now() - interval '31 days'")
    young = await start(db)
    await end(db, young, ago="29 days")
    waiting = await start(db)
    await db.execute("update sync.sync_runs set requested_at = now() - interval '40 days' where sync_id = $1", waiting)
    assert await one(db, "select * from sync.cleanup()") == {"syncs": 1, "jobs": 1, "alerts": 1}
    assert [row[0] for row in await db.fetch("select sync_id from sync.history('ann')")] == [waiting, young]
    assert await db.fetchval("select count(*) from sync.sync_pages") == 0
    assert await db.fetchval("select (select count(*) from sync.sync_orders) + (select count(*) from sync.claims)") == 2
    assert await one(db, "select * from sync.cleanup()") == {"syncs": 0, "jobs": 0, "alerts": 0}


async def test_the_old_words(db: asyncpg.Connection) -> None:
    sync = await start(db)
    await db.execute('update worker.job_queue set progress = \'{"percent": 60, "stage": "stored", "orders": 9}\'')
    told = await one(db, "select * from sync.sync_progress")
    wanted = {
        "id": sync, "sync_id": f"s{sync}", "step": 3, "total_steps": 5, "current_step": "stored", "status": "running",
        "progress": 60,
    }  # fmt: skip
    assert {name: told[name] for name in wanted} == wanted
    assert (await results(db, sync))["orders"] == 0  # of what is stored, whatever the row says
    await end(db, sync, "failed")
    told = await one(db, "select * from sync.sync_progress")
    assert (told["status"], told["error_code"], told["current_step"]) == ("failed", "API_DOWN", "failed")
    assert (await refusal(db, "delete from sync.sync_progress")).sqlstate == "55000"


async def test_pages_are_stored_once(db: asyncpg.Connection) -> None:
    sync = await start(db)
    await db.fetchval("select sync.store_page($1, 1, null, 'p2', '[]')", sync)
    for page, cursor in ((1, "p2"), (2, None)):
        error = await refusal(db, "select sync.store_page($1, $2, $3, 'p3', '[]')", sync, page, cursor)
        assert error.sqlstate == "23505"


async def test_everything_is_commented(db: asyncpg.Connection) -> None:
    functions = await db.fetch(
        "select proname from pg_proc where pronamespace = 'sync'::regnamespace"
        " and obj_description(oid, 'pg_proc') is null"
    )
    relations = await db.fetch(
        "select relname from pg_class where relnamespace = 'sync'::regnamespace and relkind in ('r', 'v')"
        " and obj_description(oid, 'pg_class') is null"
    )
    assert [row[0] for row in [*functions, *relations]] == []


async def test_definers_pin_their_search_path(db: asyncpg.Connection) -> None:
    loose = await db.fetch(
        "select proname from pg_proc where pronamespace = 'sync'::regnamespace and prosecdef"
        " and not coalesce(array_to_string(proconfig, ',') like '%search_path=pg_catalog, pg_temp%', false)"
    )
    assert [row[0] for row in loose] == []
