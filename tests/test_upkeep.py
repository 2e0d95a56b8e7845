"""Side duties: at their pace, over errors that pass, and loud about bugs."""

import asyncio

import asyncpg
import pytest

from tests.heart import becomes, configured, daemon, enqueue, new_process, row, until
from worker.upkeep import every

ECHO = '[job.echo]\npython = "tests.sample_jobs:echo"\n'
QUICK = 'poll = "200ms"\nbeat = "50ms"\nfence = "1s"\nmissing = "1100ms"\nlease = "10s"'


async def run(duty, times, hurry=None, seconds=0.001):
    """`every` until the duty was done so often."""
    done = 0

    async def counted():
        nonlocal done
        done += 1
        await duty(done)

    task = asyncio.create_task(every(seconds, counted, hurry))
    try:
        await becomes(lambda: done >= times or task.done())
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), asyncpg.InterfaceError("connection is closed"), asyncpg.AdminShutdownError("x")]
)
async def test_an_error_that_passes_is_no_end(error):
    async def duty(time):
        if time < 3:
            raise error

    await run(duty, 5)


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncpg.UndefinedTableError("x")])
async def test_a_bug_is_the_end(error):
    async def duty(time):
        raise error

    with pytest.raises(type(error)):
        await run(duty, 5)


async def test_hurry_does_not_wait():
    hurry = asyncio.Event()

    async def duty(time):
        hurry.set()
        await asyncio.sleep(0)

    await run(duty, 10, hurry, seconds=3600)


async def stranded(connection, job_type="echo", lease=30.0):
    """A running job of a process that is gone without a word."""
    other = await new_process(connection, lease)
    job_id = await enqueue(connection, job_type)
    await connection.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = nextval('worker.claim_seq'),"
        " claimed_by = $2, batch = 1, attempt = 1, started_at = now() where id = $1",
        job_id, other,
    )  # fmt: skip
    return job_id, other


async def test_what_a_dead_process_ran_is_taken_over_and_run(dsn, tmp_path, connection):
    jobs = [await stranded(connection) for _ in range(3)]
    async with daemon(configured(tmp_path, dsn, ECHO, worker=QUICK)):
        await until(connection, "select count(*) = 3 from worker.job_queue where status = 'completed'")
    for job_id, process in jobs:
        found = await row(connection, job_id)
        assert (found["attempt"], found["rescues"]) == (2, 1)
        assert await connection.fetchval("select dead_at is not null from worker.process where id = $1", process)
    assert await connection.fetchval("select count(*) from worker.job_event where event = 'rescue'") == 3


async def test_a_type_that_nobody_here_declares_goes_back_to_pending(dsn, tmp_path, connection):
    job_id, _ = await stranded(connection, "elsewhere")
    async with daemon(configured(tmp_path, dsn, ECHO, worker=QUICK)):
        await until(connection, "select status = 'pending' from worker.job_queue where id = $1", job_id)


async def test_more_rows_than_one_page_are_all_taken(dsn, tmp_path, connection):
    other = await new_process(connection)
    await connection.execute("select worker.enqueue('echo') from generate_series(1, 250)")
    await connection.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = nextval('worker.claim_seq'),"
        " claimed_by = $1, batch = 1, attempt = 1, started_at = now()",
        other,
    )
    async with daemon(configured(tmp_path, dsn, ECHO, worker=QUICK)):
        await until(connection, "select count(*) = 250 from worker.job_queue where status = 'completed'")


async def test_what_strands_heals(dsn, tmp_path, connection):
    """An expired row is ended, and a parked head whose key nobody holds is queued."""
    parked = await enqueue(connection, "echo", concurrency_key="k")
    await connection.execute("update worker.job_queue set queued = false, parked = true where id = $1", parked)
    await connection.execute(
        "insert into worker.job_queue (job_type, expires_at, scheduled_at)"
        " values ('echo', now() - interval '1 s', now() - interval '1 h')"
    )
    async with daemon(configured(tmp_path, dsn, ECHO, worker=QUICK)):
        await until(connection, "select status = 'completed' from worker.job_queue where id = $1", parked)
        await until(connection, "select count(*) = 1 from worker.job_queue where finish_reason = 'expired'")
