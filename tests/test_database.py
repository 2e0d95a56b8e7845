"""Connections: what passes, what is left behind, and who is let in."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from tests.heart import heart, until
from worker import database
from worker.connection import connect
from worker.database import borrowed, is_transient, persistently
from worker.errors import DatabaseUnreachable
from worker.waiting import wait_until_up


def postgres(sqlstate: str) -> Exception:
    return asyncpg.PostgresError.new({"C": sqlstate, "M": "x", "S": "ERROR"})


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (postgres("08006"), True),
        (postgres("08003"), True),
        (postgres("40001"), True),
        (postgres("40P01"), True),
        (postgres("53300"), True),
        (postgres("53100"), True),
        (postgres("55P03"), True),
        (postgres("57P01"), True),
        (postgres("57P03"), True),
        (postgres("57014"), True),  # somebody cancelled a call of ours; a step's own timeout is judged before
        (postgres("25006"), True),
        (postgres("28P01"), False),
        (postgres("3D000"), False),
        (postgres("42501"), False),
        (postgres("42883"), False),
        (postgres("23505"), False),
        (postgres("22P02"), False),
        (postgres("WK006"), False),
        (postgres("P0001"), False),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("pool is closing"), True),
        (asyncpg.InterfaceError("connection has been released back to the pool"), True),
        (asyncpg.InterfaceError("the server expects x arguments for this query"), False),
        (ConnectionRefusedError(), True),
        (FileNotFoundError(), True),
        (TimeoutError(), True),
        (ValueError(), False),
        (asyncio.CancelledError(), False),
    ],
    ids=str,
)  # fmt: skip
def test_errors_that_pass(error, passes):
    assert is_transient(error) is passes


@pytest.fixture
async def parts(dsn):
    async with heart(dsn, size=1) as opened:
        yield opened


LEFT = """
select current_user <> session_user or current_setting('role') <> 'none' as role,
       coalesce(nullif(current_setting('app.tenant', true), ''), 'none') <> 'none' as setting,
       current_setting('search_path') as search_path, current_setting('statement_timeout') as timeout,
       (select count(*) from pg_class where relpersistence = 't' and relkind = 'r') as temporary,
       (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
       (select count(*) from pg_listening_channels()) as listens,
       (select count(*) from pg_cursors where is_holdable) as cursors, pg_backend_pid() as pid
"""


async def test_a_connection_is_given_back_as_it_was(parts, connection):
    await connection.execute("create role somebody_of_the_reset_test; grant somebody_of_the_reset_test to postgres")
    try:
        async with borrowed(parts.database.steps) as used:
            before = await used.fetchrow(LEFT)
            await used.execute(
                "select set_config('app.tenant', 'x', false); set search_path = pg_catalog; set statement_timeout = 1;"
            )
            await used.execute("set statement_timeout = 0; create temp table t (a int); select pg_advisory_lock(5)")
            await used.execute("listen somewhere; declare c cursor with hold for select 1")
            await used.execute("set session authorization somebody_of_the_reset_test")
            await used.execute("set role somebody_of_the_reset_test")
        async with borrowed(parts.database.steps) as again:
            after = await again.fetchrow(LEFT)
        assert dict(after) == dict(before)
        assert (after["role"], after["temporary"], after["locks"], after["listens"], after["cursors"]) == (
            False,
            0,
            0,
            0,
            0,
        )
    finally:
        await connection.execute("drop role somebody_of_the_reset_test")


LEFT_BY = {
    "set search_path = pg_catalog": ["search_path"],
    "set role pg_monitor": ["role"],
    "set session authorization pg_monitor": ["role"],
    "create temp table t (a int)": ["temporary"],
    "create temp view v as select 1; set search_path = v": ["search_path", "temporary"],
    "select pg_advisory_lock_shared(1, 2)": ["advisory_lock"],
    "listen somewhere": ["listen"],
    "declare c cursor with hold for select 1": ["cursor"],
    "prepare p as select 1": ["prepared"],
    "create temp table pg_locks (a int); create temp table pg_prepared_statements (name text)": ["temporary"],
    "set client_min_messages = error; listen x": ["listen"],
    "deallocate all": ["deallocated"],
    "begin; select 1": ["transaction"],
    # of these nothing is left, and of settings only search_path is looked at
    "select 1": [],
    "begin; set local role pg_monitor; create temp table t (a int) on commit drop; commit": [],
    "begin; select pg_advisory_xact_lock(1); commit": [],
    "create temp table t (a int); drop table t; listen x; unlisten x; set role pg_monitor; reset role": [],
    "set work_mem = '64kB'": [],
}


@pytest.mark.parametrize("statement", LEFT_BY)
async def test_what_is_left_on_a_connection_is_told_once(parts, statement):
    for _ in range(2):
        told: list[list[str]] = []
        async with borrowed(parts.database.steps, told=told.append) as used:
            await used.execute(statement)
        assert told == ([LEFT_BY[statement]] if LEFT_BY[statement] else [])
        async with borrowed(parts.database.steps, told=told.append):
            pass
        assert len(told) <= 1


async def test_a_reset_sends_one_message(parts, monkeypatch):
    sent = []
    async with borrowed(parts.database.steps) as used:
        await used.execute("select 1")
        used.add_query_logger(sent.append)
        pid = used.get_server_pid()
    async with borrowed(parts.database.steps) as again:
        assert again.get_server_pid() == pid
    assert len(sent) >= 1  # the first of the two resets, and no more than that
    assert len({record.query for record in sent}) == 1


async def test_a_transaction_left_open_is_rolled_back(parts, connection):
    await connection.execute("create table t (a int)")
    async with borrowed(parts.database.steps) as used:
        await used.execute("begin")
        await used.execute("insert into t values (1)")
    async with borrowed(parts.database.steps) as again:
        assert not again.is_in_transaction()
    assert await connection.fetchval("select count(*) from t") == 0


async def test_prepared_statements_survive_the_reset(parts):
    for _ in range(3):
        async with borrowed(parts.database.steps) as used:
            assert await used.fetchval("select $1::int + 1", 1) == 2


async def test_the_limit_is_set_anew_after_a_reset(parts):
    for _ in range(2):
        async with borrowed(parts.database.steps) as used:
            await used.limit(0.25)
            assert await used.fetchval("show statement_timeout") == "250ms"
            await used.limit(0.25)
            await used.limit(5)
            assert await used.fetchval("show statement_timeout") == "5s"


async def test_every_connection_is_registered_with_its_start(parts, connection):
    async with borrowed(parts.database.steps) as used:
        pid, start = used.get_server_pid(), used.backend_start
    found = await connection.fetchrow(
        "select b.duty, b.process_id from worker.backend b join pg_stat_activity a using (pid, backend_start)"
        " where b.pid = $1 and b.backend_start = $2",
        pid, start,
    )  # fmt: skip
    assert (found["duty"], found["process_id"]) == ("step", parts.queue.me)
    await parts.queue.claim(1)
    assert await connection.fetchval("select count(*) from worker.backend where duty = 'control'") == 1


async def test_a_connection_that_was_ended_is_replaced(parts, connection):
    async with borrowed(parts.database.steps) as used:
        pid = used.get_server_pid()
    await connection.execute("select pg_terminate_backend($1)", pid)
    await until(connection, "select not exists (select from pg_stat_activity where pid = $1)", pid)
    async for attempt in persistently():
        with attempt:
            async with borrowed(parts.database.steps) as used:
                assert await used.fetchval("select pg_backend_pid()") != pid


async def test_a_borrower_that_is_cancelled_gives_back(parts, connection):
    async def borrower() -> None:
        async with borrowed(parts.database.steps) as used:
            await used.execute("select pg_sleep(600)")

    task = asyncio.create_task(borrower())
    await until(connection, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with borrowed(parts.database.steps, 20) as used:  # the only one there is
        assert await used.fetchval("select 1") == 1


async def test_waiting_for_it_to_get_free_has_a_deadline(parts):
    async with borrowed(parts.database.steps):
        with pytest.raises(TimeoutError):
            async with borrowed(parts.database.steps, 0.05):
                pass


async def test_settings_of_every_connection(dsn):
    connection = await connect(dsn, "beat", statement_timeout="5s")
    shown = {name: await connection.fetchval(f"show {name}") for name in (
        "application_name", "client_min_messages", "default_transaction_isolation",
        "client_connection_check_interval", "statement_timeout")}  # fmt: skip
    await connection.close()
    assert list(shown.values()) == ["worker beat", "warning", "read committed", "1s", "5s"]


async def test_a_database_that_answers_is_up(dsn):
    await wait_until_up(dsn)


async def test_a_database_that_is_not_there_is_no_reason_to_wait(cluster):
    with pytest.raises(DatabaseUnreachable, match="InvalidCatalogName"):
        await wait_until_up(cluster.dsn("is_not_there"))


async def test_a_server_that_is_not_there_is_waited_for_so_long(tmp_path):
    with pytest.raises(DatabaseUnreachable):
        await wait_until_up(f"postgresql://postgres@/x?host={tmp_path}", seconds=0.2)


@pytest.mark.parametrize(
    ("sqlstate", "replaced"), [("25006", True), ("57P01", True), ("57P03", True), ("40001", False), ("P0001", False)]
)
async def test_a_server_that_became_another_is_left(parts, connection, sqlstate, replaced):
    """A connection to it would work on for ever: nobody ended it."""
    await connection.execute(
        f"create function refuse() returns void language plpgsql as $$ begin raise sqlstate '{sqlstate}'; end $$"
    )
    control, ask = parts.database.control, "select pg_backend_pid()"
    before = await control.fetchval(ask)
    assert await control.fetchval(ask) == before
    with pytest.raises(asyncpg.PostgresError):
        await control.execute("select refuse()")
    assert (await control.fetchval(ask) != before) is replaced
    async with borrowed(parts.database.steps) as used:
        before = used.get_server_pid()
        with pytest.raises(asyncpg.PostgresError):
            await used.execute("select refuse()")
    with pytest.raises(asyncpg.PostgresError):  # noqa: PT012 - it is to leave the block
        async with borrowed(parts.database.steps) as used:
            assert used.get_server_pid() == before  # whoever catches an error himself has dealt with it
            await used.execute("select refuse()")
    async with borrowed(parts.database.steps) as used:
        assert (used.get_server_pid() != before) is replaced


async def test_a_control_call_has_a_deadline_also_while_it_waits(parts, monkeypatch):
    monkeypatch.setattr(database, "CONTROL_SECONDS", 0.05)
    control = parts.database.control
    lent = [await control.acquire() for _ in range(database.CONTROL_CONNECTIONS)]
    for call in (control.execute, control.fetch, control.fetchrow, control.fetchval):
        with pytest.raises(TimeoutError):
            await call("select 1")
    for each in lent:
        await control.release(each)


async def test_a_call_that_hangs_is_left_with_its_connection_and_one_that_is_slow_gets_its_time(parts, monkeypatch):
    monkeypatch.setattr(database, "CALL_SECONDS", 0.05)
    control, ask = parts.database.control, "select pg_backend_pid()"
    left = set()
    while len(left) < 20:
        left.add(await control.fetchval(ask))
        with suppress(TimeoutError):
            await control.execute("select pg_sleep(0.3)")
            break
    assert 1 < len(left) < 20
    assert await control.fetchval(ask) in left  # what answered in time is kept
