"""Starting syncs by SQL: who may not, one at a time, many at once, without any daemon."""

import asyncio
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.heart import until
from tests.jobs.syncs import active, configure, connect, end, install, refusal, start, status

RUNNERS = 50
_BULK = "select * from sync.bulk_start($1::jsonb)"


@pytest.fixture
async def db(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> asyncpg.Connection:
    """Installed, one account connected, and nobody who runs anything."""
    await install(connection, dsn, configure(tmp_path))
    await connect(connection)
    return connection


async def test_fifty_concurrent_starts_make_one_run_and_49_refusals_that_carry_its_id(
    db: asyncpg.Connection, dsn: str
) -> None:
    connections = await asyncio.gather(*(asyncpg.connect(dsn) for _ in range(RUNNERS)))
    try:
        came = await asyncio.gather(*(start(each) for each in connections), return_exceptions=True)
    finally:
        await asyncio.gather(*(each.close() for each in connections))
    started = [each for each in came if isinstance(each, int)]
    refused = [each for each in came if isinstance(each, asyncpg.PostgresError)]
    assert (len(started), len(refused)) == (1, RUNNERS - 1)
    assert {(each.sqlstate, each.detail) for each in refused} == {("SY003", str(started[0]))}
    assert await db.fetchval("select count(*) from worker.job_queue where job_type = 'sync'") == 1
    assert await db.fetchval("select count(*) from sync.sync_runs") == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_a_start_that_meets_one_not_yet_committed_waits_for_it(
    db: asyncpg.Connection, second: asyncpg.Connection, dsn: str, commits: bool
) -> None:
    """Where a look would see nobody, the unique index does."""
    watcher = await asyncpg.connect(dsn)  # in a transaction one sees the same sessions for ever
    try:
        transaction = db.transaction()
        await transaction.start()
        first = await start(db)
        other = asyncio.create_task(start(second))
        await until(watcher, "select count(*) = 1 from pg_stat_activity where wait_event_type = 'Lock' and datname ="
                             " current_database() and query like '%sync.start%'")  # fmt: skip
        await (transaction.commit() if commits else transaction.rollback())
        (came,) = await asyncio.gather(other, return_exceptions=True)
    finally:
        await watcher.close()
    if commits:
        assert isinstance(came, asyncpg.PostgresError)
        assert (came.sqlstate, came.detail) == ("SY003", str(first))
    else:
        assert came == (await active(db))["sync_id"]


@pytest.mark.parametrize(
    ("question", "sqlstate", "said"),
    [("select sync.start('bob')", "SY001", 'no token of user "bob" for seller: not found'),
     ("select sync.start('ann', 'other')", "SY001", "for other: not found"),
     ("select sync.start('ann', null)", "SY001", "no provider"),
     ("select sync.start('')", "SY002", "needs a user"),
     ("select sync.start(null)", "SY002", "needs a user"),
     ("select sync.start('ann', tenant_id => 'acme')", "SY001", "not found"),
     ("select sync.status('ann', 99)", "SY004", 'user "ann" has no sync 99'),
     ("select sync.results('ann', 99)", "SY004", "has no sync 99"),
     ("select sync.cancel('ann')", "SY004", "has no active sync"),
     ("select sync.cancel('ann', 99)", "SY004", "has no sync 99"),
     ("select sync.history('ann', status => 'odd')", "SY002", '"odd" is no status'),
     ("select sync.history('ann', 0)", "SY002", "at most 100"),
     ("select sync.history('ann', 101)", "SY002", "at most 100"),
     ("select sync.history('ann', 20, -1)", "SY002", "at most 100"),
     ("select sync.bulk_start('{}')", "SY002", "one to five"),
     ("select sync.bulk_start('[]')", "SY002", "one to five"),
     ("select sync.bulk_start('[{},{},{},{},{},{}]')", "SY002", "one to five"),
     ("select sync.cleanup('5 minutes')", "SY002", "at least an hour")],
)  # fmt: skip
async def test_what_is_refused_and_how(db: asyncpg.Connection, question: str, sqlstate: str, said: str) -> None:
    error = await refusal(db, question)
    assert (error.sqlstate, said in str(error)) == (sqlstate, True), str(error)


@pytest.mark.parametrize(("change", "said"), [("expires_at = worker.now()", "it has expired"),
    ("rejected_at = worker.now()", "the provider has rejected it")])  # fmt: skip
async def test_a_token_must_count_to_begin_with(db: asyncpg.Connection, change: str, said: str) -> None:
    await db.execute(f"update sync.provider_accounts set {change}")
    assert said in str(await refusal(db, "select sync.start('ann')"))
    await connect(db, token="new")
    assert await start(db)


async def test_an_account_is_forgotten(db: asyncpg.Connection) -> None:
    assert await db.fetchval("select sync.disconnect('ann', 'seller')") is True
    assert await db.fetchval("select sync.disconnect('ann', 'seller')") is False
    assert (await refusal(db, "select sync.start('ann')")).sqlstate == "SY001"


@pytest.mark.parametrize("change", ["unique_key = null", "unique_while = 'waiting'", "name = 'other'"])
async def test_a_declaration_that_could_not_keep_it_to_one_is_refused(db: asyncpg.Connection, change: str) -> None:
    await db.execute("delete from worker.type_slot")
    await db.execute(f"update worker.job_type set {change} where name = 'sync'")
    assert (await refusal(db, "select sync.start('ann')")).sqlstate == "SY006"


async def test_priorities_and_sources(db: asyncpg.Connection) -> None:
    for number, (source, priority) in enumerate((("user", 50), ("admin", 100), ("schedule", 200))):
        await connect(db, f"u{number}")
        sync = await start(db, f"u{number}", source=source)
        assert (await status(db, f"u{number}", sync))["priority"] == priority
    await connect(db, "hurried")
    await start(db, "hurried", priority=1)
    assert (await status(db, "hurried"))["priority"] == 1
    order = await db.fetch("select payload ->> 'user_id' from worker.job_queue order by priority")
    assert [row[0] for row in order] == ["hurried", "u0", "u1", "u2"]


async def test_tenants_do_not_stand_in_each_other_s_way(db: asyncpg.Connection) -> None:
    for tenant in ("acme", "zeta"):
        await connect(db, tenant=tenant)
        assert await start(db, tenant_id=tenant)
        error = await refusal(db, "select sync.start('ann', tenant_id => $1)", tenant)
        assert error.sqlstate == "SY003"
    assert await start(db)
    assert await db.fetchval("select count(*) from sync.active('ann')") == 3
    await db.execute("set worker.tenant = 'acme'")
    error = await refusal(db, "select sync.start('ann', tenant_id => 'zeta')")
    assert (error.sqlstate, "acts for tenant" in str(error)) == ("SY002", True)


async def test_bulk_starts_each_that_can_be(db: asyncpg.Connection) -> None:
    await connect(db, "bob")
    asked = [{"user_id": "bob", "priority": 7}, {"user_id": "ann"}, {"user_id": "nobody"}, {"user_id": "bob"}, {}]
    came = sorted(map(dict, await db.fetch(_BULK, orjson.dumps(asked).decode())), key=lambda row: row["place"])
    assert [row["code"] for row in came] == [None, None, "SY001", "SY003", "SY002"]
    assert came[3]["running_id"] == came[0]["sync_id"]
    assert (await status(db, "bob"))["priority"] == 7
    assert (await status(db, "ann"))["source"] == "bulk"
    assert await db.fetchval("select count(*) from worker.job_queue") == 2


async def test_the_hourly_round_starts_who_is_due(db: asyncpg.Connection) -> None:
    for user in ("bob", "cleo", "dan", "eve"):
        await connect(db, user)
    await end(db, await start(db, "bob"), ago="61 minutes")
    await end(db, await start(db, "cleo"), ago="59 minutes")
    await start(db, "dan")
    await db.execute("update sync.provider_accounts set rejected_at = now() where user_id = 'eve'")
    assert await db.fetchval("select sync.start_due()") == 2
    begun = await db.fetch(
        "select payload ->> 'user_id', source, priority, scheduled_at - created_at from worker.job_queue"
        " where source = 'schedule' order by scheduled_at"
    )
    assert [tuple(row)[:3] for row in begun] == [("ann", "schedule", 200), ("bob", "schedule", 200)]
    assert [row[3].total_seconds() for row in begun] == [0, 2]
    assert await db.fetchval("select sync.start_due()") == 0


async def test_a_full_backlog_refuses_a_start(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    await install(connection, dsn, configure(tmp_path, limit='20\nbacklog = { max = 2, then = "refuse" }'))
    for user in ("ann", "bob", "cleo", "dan"):
        await connect(connection, user)
    assert await connection.fetchval("select sync.start_due()") == 2
    error = await refusal(connection, "select sync.start('cleo')")
    assert (error.sqlstate, "too many syncs wait" in str(error)) == ("SY005", True)
    (row,) = await connection.fetch(_BULK, '[{"user_id": "dan"}]')
    assert (row["sync_id"], row["code"]) == (None, "SY005")
    assert await connection.fetchval("select count(*) from sync.sync_runs") == 2


async def test_a_full_backlog_may_put_a_start_off_instead(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    await install(connection, dsn, configure(tmp_path, limit='20\nbacklog = { max = 1, then = "delay" }'))
    for user in ("ann", "bob"):
        await connect(connection, user)
        await start(connection, user)
    waits = await connection.fetch("select user_id, state, error from sync.syncs order by sync_id")
    assert [tuple(row) for row in waits] == [("ann", "waiting", None), ("bob", "waiting", None)]
    later = await connection.fetch("select scheduled_at > created_at from worker.job_queue order by id")
    assert [row[0] for row in later] == [False, True]
