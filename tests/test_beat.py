"""What one beat says and is told; that its answers reach those who act is shown through whole daemons."""

import pytest

from tests.heart import configured, daemon, enqueue, new_process, until
from worker.beat import Chores, beat
from worker.connection import connect, register

TYPES = ["work"]
ECHO = '[job.echo]\npython = "tests.sample_jobs:echo"\n'
SLOW = 'poll = "1h"\nbeat = "50ms"'
UNTELLING = """
    create or replace function worker.chores(
      types text[], out strays boolean, out orphans boolean, out due double precision) language plpgsql
    as $$ begin raise exception 'nothing to be told'; end $$
"""
BELL_IS_ON = "select exists (select from worker.asleep where until > clock_timestamp())"
ENDED = "select status in ('completed', 'skipped') from worker.job_queue where id = $1"


@pytest.fixture
async def session(dsn):
    connection = await connect(dsn, "beat")
    yield connection
    await connection.close()


async def test_it_is_told_whether_it_lives_and_what_there_is_to_do(session, connection):
    me = await new_process(connection)
    assert await beat(session, me, 1, TYPES) == (True, [], {}, Chores(False, False, None))
    await connection.execute("update worker.process set dead_at = now() where id = $1", me)
    assert (await beat(session, me, 1, TYPES)).alive is False


async def test_it_is_told_of_its_schedules(session, connection):
    me = await new_process(connection)
    await connection.execute("select worker.set_clock('2026-11-22')")
    await connection.execute(
        "insert into worker.schedule (name, cron, zone, job_type, source, missed, max_catch_up, digest, next_at)"
        " values ('hourly', '@hourly', 'UTC', 'work', 'hourly', 'last', 1, '', worker.now() + interval '90 s')"
    )
    assert await beat(session, me, 1, TYPES, ["hourly"]) == (True, [], {}, Chores(False, False, None, 90.0))
    assert await beat(session, me, 1, TYPES, ["other"]) == (True, [], {}, Chores(False, False, None))


async def test_it_is_told_of_others_that_are_missing_or_lapsed(dsn, session, connection):
    me, missing, lapsed = [await new_process(connection) for _ in range(3)]
    others = await connect(dsn, "beat")
    await register(others, lapsed, "beat")
    await connection.execute("update worker.process set lease_until = now() - interval '1 s' where id = $1", lapsed)
    assert (await beat(session, me, 1, TYPES)).suspects == {
        missing: {"missing": True, "lapsed": False},
        lapsed: {"missing": False, "lapsed": True},
    }
    await others.close()


async def test_trouble_with_the_others_does_not_end_it(session, connection):
    me = await new_process(connection)
    await connection.execute(UNTELLING)
    assert await beat(session, me, 1, TYPES) == (True, [], {}, None)


async def test_a_row_that_rang_nobody_is_found(dsn, tmp_path, connection):
    """Neither its insert nor the poll, which is an hour away, could have called."""
    async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
        await until(connection, BELL_IS_ON)
        await connection.execute("select worker.set_ring(false)")
        await until(connection, ENDED, await enqueue(connection, "echo"))


async def test_what_expires_is_swept(dsn, tmp_path, connection):
    async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
        await until(connection, BELL_IS_ON)
        await connection.execute("select worker.pause('echo')")
        job_id = await enqueue(connection, "echo")
        await connection.execute("update worker.job_queue set expires_at = now() where id = $1", job_id)
        await until(connection, ENDED, job_id)
