"""The process lease: beaten from a thread, fenced in time, and judging only by what it saw itself."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.heart import Heard, becomes, enqueue, new_process, terms, until
from tests.proxy import proxied
from worker.connection import connect, register
from worker.lease import Lease

TERMS = terms()


@asynccontextmanager
async def leased(dsn, given=TERMS):
    heard = Heard()
    made = Lease(dsn, given, heard.events(), version="0", types=["work"], slots=1)
    await asyncio.wait_for(made.start(), 20)
    try:
        yield made, heard
    finally:
        await made.stop()


async def beat_at(connection, me):
    return await connection.fetchval("select beat_at from worker.process where id = $1", me)


async def test_it_registers_and_beats(dsn, connection):
    async with leased(dsn) as (lease, _):
        assert lease.held
        first = await beat_at(connection, lease.me)
        await until(connection, "select beat_at > $2 from worker.process where id = $1", lease.me, first)
        found = await connection.fetchrow("select * from worker.process where id = $1", lease.me)
        assert (found["types"], found["slots"], found["dead_at"]) == (["work"], 1, None)
        assert found["lease_until"] > found["beat_at"]


async def test_the_thread_beats_though_the_loop_is_blocked(dsn, connection):
    async with leased(dsn) as (lease, heard):
        before = await beat_at(connection, lease.me)
        time.sleep(3 * TERMS.fence)  # noqa: ASYNC251 - a handler that does this must not cost the lease
        assert lease.held
        assert await beat_at(connection, lease.me) > before
        assert ("fenced",) not in heard.said


async def test_without_a_confirmed_beat_it_fences_itself_and_comes_back(dsn, connection):
    async with proxied(dsn) as proxy, leased(proxy.dsn) as (lease, heard):
        me = lease.me
        proxy.refusing = True
        proxy.drop()
        await heard.wait("fenced")
        assert not lease.held
        proxy.refusing = False
        await heard.wait("confirmed")
        assert lease.held
        assert lease.me == me
        assert await connection.fetchval("select count(*) from worker.backend where process_id = $1", me) == 1


async def test_it_tells_of_chores_only_when_there_are_some(dsn, connection):
    """Each word wakes a loop that may have nothing to do."""
    async with leased(dsn) as (lease, heard):
        first = await beat_at(connection, lease.me)
        await until(connection, "select beat_at > $2 from worker.process where id = $1", lease.me, first)
        assert heard.said == []
        await connection.execute("""select worker.declare('[{"name": "work"}]')""")
        await enqueue(connection)
        assert (await heard.wait("chores"))[1].due is not None


async def test_a_lost_session_alone_fences_nobody(dsn, connection):
    async with leased(dsn, terms(fence=10.0, missing=11.0, lease=20.0)) as (lease, heard):
        for _ in range(3):
            pid = await connection.fetchval("select pid from worker.backend where process_id = $1", lease.me)
            await connection.execute("select pg_terminate_backend($1)", pid)
            await until(connection, "select pid <> $2 from worker.backend where process_id = $1", lease.me, pid)
        assert heard.said == []


async def test_declared_dead_is_told_and_for_ever(dsn, connection):
    async with leased(dsn) as (lease, heard):
        await connection.execute("update worker.process set dead_at = now() where id = $1", lease.me)
        await heard.wait("dead")
        assert not lease.held
        await becomes(lambda: not lease._thread.is_alive())


async def test_jobs_that_were_asked_to_stop_are_told_again_and_again(dsn, connection):
    """Once is not enough: the claim may not have been answered yet when the first word comes."""
    async with leased(dsn) as (lease, heard):
        job_id = await enqueue(connection)
        await connection.execute(
            "update worker.job_queue set status = 'running', queued = false, claim = 7, claimed_by = $2,"
            " started_at = now() where id = $1",
            job_id, lease.me,
        )  # fmt: skip
        await connection.execute("select worker.cancel($1)", job_id)
        await becomes(lambda: heard.said.count(("stops", [7])) >= 3)


async def test_the_beat_says_which_calls_are_still_held(dsn, connection):
    async with leased(dsn) as (lease, _):
        lease.open_batch = lambda: 41
        await until(connection, "select open_batch = 41 from worker.process where id = $1", lease.me)


async def test_another_whose_session_is_missing_is_suspected(dsn, connection):
    other = await new_process(connection)
    session = await connect(dsn, "beat")
    await register(session, other, "beat")
    async with leased(dsn) as (_, heard):
        await asyncio.sleep(0)
        assert ("suspect", other) not in heard.said
        await session.close()
        await heard.wait("suspect")
        assert {said for said in heard.said if said[0] == "suspect"} == {("suspect", other)}


async def test_one_that_stopped_in_good_order_is_never_suspected(dsn, connection):
    stopped, missing = await new_process(connection), await new_process(connection)
    await connection.execute("select worker.leave($1)", stopped)
    async with leased(dsn) as (_, heard):
        assert await heard.wait("suspect") == ("suspect", missing)
        assert ("suspect", stopped) not in heard.said


async def test_what_was_seen_before_a_break_is_forgotten(dsn, connection):
    await new_process(connection)
    async with leased(dsn, terms(missing=60)) as (lease, _):
        await becomes(lambda: lease._judge._missing)
        since = dict(lease._judge._missing)
        pid = await connection.fetchval("select pid from worker.backend where process_id = $1", lease.me)
        await connection.execute("select pg_terminate_backend($1)", pid)
        await becomes(lambda: lease._judge._missing and lease._judge._missing != since)
        assert all(lease._judge._missing[other] > at for other, at in since.items())


async def test_it_stops_and_leaves_no_thread_and_no_session(dsn, connection):
    async with leased(dsn) as (lease, _):
        me = lease.me
        pid = await connection.fetchval("select pid from worker.backend where process_id = $1", me)
    assert [thread.name for thread in threading.enumerate() if thread.name == "lease"] == []
    await until(connection, "select not exists (select from pg_stat_activity where pid = $1)", pid)


async def test_a_refusal_at_the_start_is_raised(dsn, connection):
    await connection.execute("drop function worker.beat(bigint, bigint) cascade")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        async with leased(dsn):
            pass
