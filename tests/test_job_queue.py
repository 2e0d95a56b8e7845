"""The queue as the daemon sees it: numbered claim calls, and what becomes of those whose answer is lost."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from tests.heart import enqueue, heart, row, until
from tests.proxy import proxied
from worker import places
from worker.errors import LostClaim, ProcessDead

ODD = "odd_type"  # its name is on the wire in claims only, so that a proxy can tell them
BLOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%worker.claim%'"


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


async def test_calls_are_numbered_and_the_number_is_on_the_row(parts, connection):
    ids = [await enqueue(connection) for _ in range(3)]
    jobs = [await parts.one() for _ in ids]
    assert [job.id for job in jobs] == ids
    assert [(await row(connection, job_id))["batch"] for job_id in ids] == [1, 2, 3]
    assert len({job.claim for job in jobs}) == 3


async def test_jobs_come_in_the_order_in_which_they_are_to_begin_and_a_look_in_vain_tells_as_much(parts, connection):
    ids = [await enqueue(connection, priority=priority) for priority in (7, 5)]
    await enqueue(connection, priority=7, delay=timedelta(hours=1))
    looked = await parts.queue.claim(10)
    assert [job.id for job in looked.jobs] == [ids[1], ids[0]]
    assert [(job.priority, job.attempt, job.remaining) for job in looked.jobs] == [(5, 1, None), (7, 1, None)]
    in_vain = await parts.queue.claim(10)
    assert (in_vain.jobs, in_vain.parked, in_vain.xmax >= looked.xmax) == ([], 0, True)
    for each in (looked, in_vain):
        assert each.next_due is not None
        assert 3500 < each.next_due <= 3600


async def test_a_look_goes_on_where_the_last_full_one_ended_and_once_a_second_from_the_beginning(
    parts, connection, monkeypatch
):
    monkeypatch.setattr(places, "SECONDS", 3600)
    ids = [await enqueue(connection) for _ in range(3)]
    assert (await parts.one()).id == ids[0]
    earlier = await enqueue(connection, delay=timedelta(hours=-1))
    assert (await parts.one()).id == ids[1]
    monkeypatch.setattr(places, "SECONDS", 0)
    assert (await parts.one()).id == earlier


async def test_open_batch_is_the_lowest_call_still_held(parts, connection):
    for _ in range(3):
        await enqueue(connection)
    first, second, third = [await parts.one() for _ in range(3)]
    assert parts.queue.open_batch == 1
    parts.queue.drop([second.claim])
    assert parts.queue.open_batch == 1
    parts.queue.drop([first.claim])
    assert parts.queue.open_batch == 3
    parts.queue.drop([third.claim, 999])
    assert parts.queue.open_batch == 3
    await parts.queue.claim(1)
    assert parts.queue.open_batch == 4


async def test_what_a_lost_answer_took_is_given_back_before_the_next_claim(dsn, connection):
    async with proxied(dsn) as proxy, heart(dsn, (ODD,), control=proxy.dsn) as parts:
        job_id = await enqueue(connection, ODD)
        proxy.cut_after = ODD.encode()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await parts.queue.claim(1)
        taken = await row(connection, job_id)
        assert (taken["status"], taken["batch"]) == ("running", 1)
        job = await parts.one()
        assert (job.id, job.attempt) == (job_id, 1)
        assert job.claim > taken["claim"]
        assert (await row(connection, job_id))["batch"] == 2
        assert await connection.fetchval("select closed from worker.process") == [1]


async def test_a_claim_that_never_arrived_is_closed_all_the_same(dsn, connection):
    async with proxied(dsn) as proxy, heart(dsn, (ODD,), control=proxy.dsn) as parts:
        job_id = await enqueue(connection, ODD)
        proxy.cut_before = ODD.encode()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await parts.queue.claim(1)
        assert (await row(connection, job_id))["status"] == "pending"
        assert (await parts.one()).id == job_id
        with pytest.raises(asyncpg.PostgresError) as refused:  # if it came after all
            await connection.fetchrow("select * from worker.claim($1, 1, $2, 1)", parts.queue.me, [ODD])
        assert refused.value.sqlstate == "WK007"


@pytest.fixture
async def waiting_claim(parts, connection, second):
    """A claim in flight: it waits for its process row, which `second` holds until it rolls back."""
    for name in ("claim(bigint, bigint, text[], integer, jsonb)", "unclaim(bigint, bigint)"):
        await connection.execute(f"alter function worker.{name} set lock_timeout = '30s'")
    async with parts.database.control.acquire(), parts.database.control.acquire():
        pass  # two that are connected: to register a new one, too, waits for the process row
    job_id = await enqueue(connection)
    await second.execute("begin")
    await second.execute("select from worker.process where id = $1 for update", parts.queue.me)
    task = asyncio.create_task(parts.queue.claim(1))
    await until(connection, BLOCKED)
    return job_id, task


async def test_a_rescue_beside_a_claim_in_flight_takes_nothing_from_it(parts, connection, second, waiting_claim):
    job_id, task = waiting_claim
    assert await asyncio.wait_for(parts.queue.rescue(10), 10) == []
    await second.execute("rollback")
    (job,) = (await asyncio.wait_for(task, 10)).jobs
    found = await row(connection, job_id)
    assert (found["status"], found["claim"]) == ("running", job.claim)
    await parts.queue.claim(1)
    assert (await row(connection, job_id))["status"] == "running"


async def test_a_claim_cut_short_by_the_stop_is_given_back(parts, connection, second, waiting_claim):
    job_id, task = waiting_claim
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await second.execute("rollback")
    await parts.queue.give_back()
    await parts.queue.leave()
    found = await row(connection, job_id)
    assert (found["status"], found["attempt"], found["claimed_by"]) == ("pending", 0, None)


async def test_a_lost_call_that_hangs_on_the_server_keeps_nobody_from_claiming(parts, connection, second):
    job_id = await enqueue(connection)
    parts.queue._batch, parts.queue._unanswered = 1, {1}
    async with second.transaction():
        await second.execute("select from worker.process where id = $1 for key share", parts.queue.me)  # as it holds it
        assert (await parts.one()).id == job_id
        assert parts.queue.open_batch == 1
    await parts.queue.claim(1)
    assert await connection.fetchval("select closed from worker.process") == [1]


async def test_a_process_declared_dead_claims_nothing(parts, connection):
    await enqueue(connection)
    await connection.execute("update worker.process set dead_at = now() where id = $1", parts.queue.me)
    with pytest.raises(ProcessDead):
        await parts.queue.claim(1)
    await connection.execute("insert into worker.process (host, pid, version, lease, started_at, beat_at, lease_until,"
                             " dead_at) values ('x', 1, '0', '1 s', now(), now(), now(), now())")  # fmt: skip
    with pytest.raises(ProcessDead):
        await parts.queue.rescue(1)


async def test_progress_is_written_under_the_claim_only(parts, connection):
    job_id = await enqueue(connection)
    job = await parts.one()
    await parts.queue.progress(job, "fetching", {"pages": 3})
    found = await row(connection, job_id)
    assert (found["phase"], found["progress"]) == ("fetching", '{"pages": 3}')
    await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq')")
    with pytest.raises(LostClaim):
        await parts.queue.progress(job, "analyzing", None)
    assert (await row(connection, job_id))["phase"] == "fetching"


async def test_one_undecodable_payload_strands_nobody(parts, connection):
    deep = "[" * 3000 + "]" * 3000
    await connection.execute("insert into worker.job_queue (job_type, payload) values ('work', $1::jsonb)", deep)
    await enqueue(connection, payload={"a": 1})
    jobs = (await parts.queue.claim(10)).jobs
    assert len(jobs) == 2
    assert jobs[1].payload == {"a": 1}
