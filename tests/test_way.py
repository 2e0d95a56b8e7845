"""What lies between us and the server: found out, and lived with."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.bouncer import Bouncer, bouncer, find
from tests.cli.support import Cli
from tests.heart import configured, daemon, enqueue, new_process, row, until, write_config
from worker.check import examine
from worker.connection import connect
from worker.database import Database, borrowed
from worker.errors import DeclarationError
from worker.job_queue import JobQueue
from worker.migrations import verify
from worker.service import run
from worker.stop import Stop
from worker.way import Pooler, Way, explore

QUICK = 'poll = "500ms"\nbeat = "50ms"\nfence = "1s"\nmissing = "1500ms"\nlease = "6s"\ngrace = "100ms"'
PYTHON = '[job.echo]\npython = "tests.sample_jobs:echo"\n[job.effect]\npython = "tests.sample_jobs:effect"\n'
STEPS = "[job.graph]\nsteps = { one = { sql = 'one_step' } }\n"
DONE = "select status = 'completed' from worker.job_queue where id = $1"

needs_pgbouncer = pytest.mark.skipif(find() is None, reason="no pgbouncer")


@pytest.fixture(params=["transaction", "session"])
def pooler(request: pytest.FixtureRequest, dsn: str) -> Iterator[tuple[Pooler, Bouncer]]:
    with bouncer(dsn, request.param, size=30) as started:
        yield Pooler(request.param), started


@pytest.fixture
def transaction(dsn: str) -> Iterator[Bouncer]:
    with bouncer(dsn, "transaction", size=3) as started:
        yield started


def test_what_a_connection_is_made_with() -> None:
    direct = Way("postgresql://h/d").arguments("control", {"statement_timeout": "30s"})
    assert direct["server_settings"]["statement_timeout"] == "30s"
    assert direct["server_settings"]["application_name"] == "worker control"
    assert "client_connection_check_interval" in direct["server_settings"]
    for pooled in (Pooler.SESSION, Pooler.TRANSACTION):
        given = Way("postgresql://h/d", pooled).arguments("control", {"statement_timeout": "30s"})
        assert given["server_settings"] == {"application_name": "worker control"}
        assert given.get("statement_cache_size") == (0 if pooled is Pooler.TRANSACTION else None)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://one,two/d", "read-write"),
        ("postgresql://u:p,q@one/d", None),
        ("postgresql://one,two/d?target_session_attrs=any", None),
        ("postgresql:///d?host=one,two", "read-write"),
        ("postgresql://one/d", None),
    ],
)
def test_of_several_servers_the_one_that_may_be_written_to(url: str, wanted: str | None) -> None:
    assert Way(url).arguments("x", {}).get("target_session_attrs") == wanted


def test_the_address_is_not_shown() -> None:
    assert "geheim" not in repr(Way("postgresql://u:geheim@h/d"))


async def test_a_direct_way(dsn: str) -> None:
    assert await explore(dsn) == Way(dsn)


@needs_pgbouncer
async def test_a_pooler_is_found_out(pooler: tuple[Pooler, Bouncer]) -> None:
    mode, through = pooler
    assert (await explore(through.dsn)).pooler is mode


@needs_pgbouncer
async def test_a_busy_pooler_is_found_out(transaction: Bouncer) -> None:
    """Others take and give back connections all the time."""

    async def stranger() -> None:
        connection = await asyncpg.connect(transaction.dsn, statement_cache_size=0)
        try:
            while True:
                await connection.fetchval("select 1")
        finally:
            connection.terminate()

    strangers = [asyncio.create_task(stranger()) for _ in range(3)]
    try:
        found = {(await explore(transaction.dsn)).pooler for _ in range(30)}
    finally:
        for task in strangers:
            task.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
    assert found == {Pooler.TRANSACTION}


@needs_pgbouncer
async def test_a_plain_address_may_lead_through_any_pooler(pooler: tuple[Pooler, Bouncer]) -> None:
    connection = await connect(pooler[1].dsn, "cli", statement_timeout="60s")
    await verify(connection)
    await connection.close(timeout=5)


@needs_pgbouncer
async def test_a_session_pooler_keeps_what_is_set_also_over_a_reset(dsn: str, connection: asyncpg.Connection) -> None:
    with bouncer(dsn, "session") as through:
        way = await explore(through.dsn)
        database = Database(way, way, 1, "pg_catalog")
        await database.open(await new_process(connection))
        shown = "select current_setting('client_min_messages'), current_setting('search_path')"
        try:
            for _ in range(2):
                async with borrowed(database.steps) as lent:
                    assert tuple(await lent.fetchrow(shown)) == ("warning", "pg_catalog")
                    await lent.execute("set search_path = public; set client_min_messages = debug")
                assert await database.control.fetchval("select current_setting('statement_timeout')") == "30s"
        finally:
            await database.close()


@needs_pgbouncer
async def test_nothing_of_ours_stays_on_a_shared_connection(dsn: str, connection: asyncpg.Connection) -> None:
    """Neither a setting nor a name in worker.backend, by which a rescue would end a stranger's session."""
    with bouncer(dsn, "transaction", size=1) as through:
        way = await explore(through.dsn)
        database, me = Database(way, way, 1, "public"), await new_process(connection)
        stranger = await asyncpg.connect(through.dsn, statement_cache_size=0)
        shown = (  # the pooler itself hands on application_name
            "select array_agg(name || setting order by name) from pg_settings"
            " where source = 'session' and name <> 'application_name'"
        )
        before = await stranger.fetchval(shown)
        await database.open(me)
        try:
            await JobQueue(database.control, me, ["work"]).claim(1)
            async with borrowed(database.steps) as lent:
                assert await lent.fetchval("select 1") == 1
            assert await stranger.fetchval(shown) == before
            assert await stranger.fetchval("select count(*) from pg_prepared_statements") == 0
            assert await connection.fetchval("select count(*) from worker.backend") == 0
        finally:
            await stranger.close()
            await database.close()


@needs_pgbouncer
async def test_alone_it_runs_python_and_listens_to_nobody(transaction, tmp_path, connection, caplog) -> None:
    config = configured(tmp_path, transaction.dsn, PYTHON, worker=QUICK)
    async with daemon(config) as (_, task, me):
        job = await enqueue(connection, "echo", {"a": 1})
        await until(connection, DONE, job)
        found = await connection.fetchrow("select pooled, lease from worker.process where id = $1", me)
        assert found["pooled"]
        assert await connection.fetchval("select count(*) from worker.backend") == 0
        await asyncio.sleep(1.2)  # longer than the fence of a direct way: nothing is fenced here
        assert not task.done()
        await until(connection, DONE, await enqueue(connection, "echo", {"a": 2}))
    listening = "select count(*) from pg_listening_channels()"
    stranger = await asyncpg.connect(transaction.dsn, statement_cache_size=0)
    assert await stranger.fetchval(listening) == 0
    await stranger.close()
    assert (await row(connection, job))["result"] == '{"a": 1}'


@needs_pgbouncer
async def test_alone_it_refuses_steps_and_names_the_cure(transaction, tmp_path, connection) -> None:
    await connection.execute("create function one_step() returns void language sql as 'select'")
    config = configured(tmp_path, transaction.dsn, PYTHON + STEPS, worker=QUICK)
    with pytest.raises(DeclarationError, match=r"job\.graph\.steps: .*database\.direct_url"):
        await asyncio.wait_for(run(config, Stop()), 30)
    assert await connection.fetchval("select count(*) from worker.process where stopped_at is null") == 0


@needs_pgbouncer
async def test_with_a_direct_way_beside_it_everything_works(transaction, dsn, tmp_path, connection) -> None:
    await connection.execute("create function one_step() returns void language sql as 'select'")
    config = configured(
        tmp_path, transaction.dsn, PYTHON + STEPS, worker=QUICK,
        database=f'direct_url = "{dsn}"\nsearch_path = "public"',
    )  # fmt: skip
    async with daemon(config) as (_, _, me):
        for kind in ("graph", "echo", "graph"):
            await until(connection, DONE, await enqueue(connection, kind))
        duties = "select array_agg(distinct duty order by duty) from worker.backend where process_id = $1"
        assert await connection.fetchval(duties, me) == ["beat", "listen", "step"]
        assert not await connection.fetchval("select pooled from worker.process where id = $1", me)


@needs_pgbouncer
async def test_migrations_go_past_it_or_not_at_all(transaction, dsn, tmp_path, connection) -> None:
    cli = Cli(tmp_path, transaction.dsn)
    refused = await cli("migrate")
    assert (refused.code, "database.direct_url" in refused.err) == (2, True)
    write_config(tmp_path, PYTHON, database=f'direct_url = "{dsn}"')
    assert (await cli("migrate")).code == 0
    answer = await cli("enqueue", "echo", "{}")
    assert answer.code == 0, answer.err


@needs_pgbouncer
async def test_the_doctor_sees_it(transaction, dsn, tmp_path, connection) -> None:
    async def level(jobs: str, database: str = "") -> dict[str, str]:
        config = configured(tmp_path, transaction.dsn, jobs, database=f'{database}search_path = "public"')
        return {each.subject: each.level for each in await examine(config)}

    alone = await level(PYTHON)
    assert (alone["pooler"], alone["notifications"]) == ("warning", "warning")
    assert (await level(PYTHON + STEPS))["pooler"] == "fault"
    beside = await level(PYTHON, f'direct_url = "{dsn}"\n')
    assert (beside["pooler"], beside["notifications"]) == ("info", "ok")
