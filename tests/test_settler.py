"""Verdicts: in groups, kept, and never stranded by one another."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.heart import becomes, configured, enqueue, heart, row, until
from tests.proxy import proxied
from worker.metrics import Metrics
from worker.outcome import Completed, Failed, Released, Retried, Skipped, Snoozed
from worker.parts import Parts
from worker.settler import Settler
from worker.verdict import Verdict


@asynccontextmanager
async def settling(parts, settler=None):
    settler = settler or Settler(parts.queue)
    task = asyncio.create_task(settler.run())
    try:
        yield settler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


@pytest.fixture
async def settler(parts):
    async with settling(parts) as running:
        yield running


@pytest.fixture
def sizes(parts, monkeypatch):
    """Of the groups written, in their order."""
    told, settle = [], parts.queue.settle

    async def counted(verdicts):
        told.append(len(verdicts))
        return await settle(verdicts)

    monkeypatch.setattr(parts.queue, "settle", counted)
    return told


async def settled(settler, job, outcome):
    (status,) = await settler.settle([Verdict.of(job, outcome)])
    return status


async def claimed(parts, connection, count):
    for _ in range(count):
        await enqueue(connection)
    return (await parts.queue.claim(count)).jobs


async def test_every_verdict_is_written_and_answered(parts, settler, connection):
    jobs = await claimed(parts, connection, 5)
    outcomes = [Completed({"a": 1}), Skipped("gone"), Retried("x", 60), Failed("y", "permanent"), Released()]
    statuses = await asyncio.gather(*(settled(settler, *each) for each in zip(jobs, outcomes, strict=True)))
    assert statuses == ["completed", "skipped", "pending", "failed", "pending"]
    assert [(await row(connection, job.id))["status"] for job in jobs] == statuses
    assert [(await row(connection, job.id))["attempt"] for job in jobs] == [1, 1, 1, 1, 0]
    assert parts.queue.open_batch == 1  # the only call there was; nothing of it is held any more


async def test_whoever_waits_while_a_flush_is_in_flight_goes_with_the_next(parts, settler, connection, second, sizes):
    jobs = await claimed(parts, connection, 6)
    await second.execute("begin")
    await second.execute("select from worker.job_queue where id = $1 for update", jobs[0].id)
    first = asyncio.create_task(settled(settler, jobs[0], Completed()))
    await until(connection, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
    rest = [asyncio.create_task(settled(settler, job, Completed())) for job in jobs[1:]]
    await becomes(lambda: len(settler._waiting) == 5)
    await second.execute("rollback")
    assert await asyncio.wait_for(asyncio.gather(first, *rest), 20) == ["completed"] * 6
    assert sizes[-1] == 5
    assert set(sizes[:-1]) == {1}


async def test_where_many_wait_a_second_group_goes_beside_the_first(parts, settler, connection, monkeypatch):
    held, sizes = asyncio.Event(), []
    settle = parts.queue.settle

    async def slow(verdicts):
        sizes.append(len(verdicts))
        await held.wait()
        return await settle(verdicts)

    monkeypatch.setattr(parts.queue, "settle", slow)
    monkeypatch.setattr("worker.settler.MANY", 3)
    monkeypatch.setattr("worker.settler.GROUP", 4)
    jobs = await claimed(parts, connection, 13)
    tasks = [asyncio.create_task(settled(settler, jobs[0], Completed()))]
    await becomes(lambda: sizes == [1])
    tasks += [asyncio.create_task(settled(settler, job, Completed())) for job in jobs[1:3]]
    await becomes(lambda: len(settler._waiting) == 2)
    tasks += [asyncio.create_task(settled(settler, job, Completed())) for job in jobs[3:]]
    await becomes(lambda: sizes == [1, 4])  # the other lane took a whole group, and two are the most
    held.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == ["completed"] * 13
    assert max(sizes) == 4


async def test_a_lane_that_finds_nothing_left_writes_nothing(parts, settler, connection, sizes, monkeypatch):
    monkeypatch.setattr("worker.settler.MANY", 2)
    jobs = await claimed(parts, connection, 3)
    tasks = [asyncio.create_task(settled(settler, job, Completed())) for job in jobs]  # both are woken, one takes all
    assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == ["completed"] * 3
    assert sizes == [3]


async def test_a_lost_claim_is_answered_with_none(parts, settler, connection):
    kept, lost = await claimed(parts, connection, 2)
    await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq') where id = $1", lost.id)
    assert await asyncio.gather(settled(settler, kept, Completed()), settled(settler, lost, Completed())) == [
        "completed",
        None,
    ]
    assert (await row(connection, lost.id))["status"] == "running"


async def test_a_verdict_that_postgres_refuses_strands_nobody(parts, connection):
    jobs = await claimed(parts, connection, 4)
    outcomes = [Completed(1), Snoozed(1e300), Completed(2), Snoozed(1e300)]
    refused = []
    async with settling(parts, Settler(parts.queue, refused.append)) as settler:
        statuses = await asyncio.wait_for(
            asyncio.gather(*(settled(settler, *each) for each in zip(jobs, outcomes, strict=True))), 20
        )
    assert [error.sqlstate for error in refused] == ["22008", "22008"]
    assert statuses == ["completed", "failed", "completed", "failed"]
    found = await row(connection, jobs[1].id)
    assert found["finish_reason"] == "invalid"
    assert "could not be written" in found["errors"]


async def test_a_row_in_a_strangers_transaction_holds_up_its_own_verdict_only(parts, settler, connection, second):
    jobs = await claimed(parts, connection, 3)
    async with second.transaction():
        await second.execute("select from worker.job_queue where id = $1 for update", jobs[1].id)
        writing = [asyncio.create_task(settled(settler, job, Completed())) for job in jobs]
        await becomes(lambda: writing[0].done() and writing[2].done())
        later = (await claimed(parts, connection, 1))[0]
        assert await asyncio.wait_for(settled(settler, later, Completed()), 20) == "completed"
        assert not writing[1].done()
    assert await asyncio.wait_for(asyncio.gather(*writing), 20) == ["completed"] * 3
    assert [(await row(connection, job.id))["status"] for job in (*jobs, later)] == ["completed"] * 4


async def test_a_verdict_whose_acknowledgement_is_lost_is_read_back(dsn, connection):
    async with proxied(dsn) as proxy, heart(dsn, control=proxy.dsn) as parts, settling(parts) as settler:
        jobs = await claimed(parts, connection, 3)
        proxy.cut_after = b"a mark on the wire"
        outcomes = [Completed("a mark on the wire"), Retried("x", 60), Completed()]
        statuses = await asyncio.wait_for(
            asyncio.gather(*(settled(settler, *each) for each in zip(jobs, outcomes, strict=True))), 20
        )
        assert proxy.cuts == 1
        assert statuses == ["completed", "pending", "completed"]
        assert [(await row(connection, job.id))["attempt"] for job in jobs] == [1, 1, 1]


async def test_verdicts_are_kept_while_the_database_is_away_and_its_errors_counted(dsn, connection, tmp_path):
    config = configured(tmp_path, dsn, "[job.work]\npython = 'tests.sample_jobs:echo'")
    metrics = Metrics()

    def errors():
        (found,) = metrics.database_errors.collect()
        return sum(sample.value for sample in found.samples)

    async with proxied(dsn) as proxy, heart(dsn, control=proxy.dsn) as parts:
        wired = Parts(
            config, config.job, parts.database, metrics, me=parts.queue.me, dead=asyncio.Event()
        )  # fmt: skip
        jobs = await claimed(parts, connection, 3)
        proxy.refusing = True
        proxy.drop()
        async with settling(parts, wired.settler) as settler:
            writing = [asyncio.create_task(settled(settler, job, Completed())) for job in jobs]
            await becomes(errors)
            assert not any(task.done() for task in writing)
            proxy.refusing = False
            assert await asyncio.wait_for(asyncio.gather(*writing), 20) == ["completed"] * 3


async def test_a_cancelled_call_of_ours_is_no_verdict_on_the_job(parts, settler, connection, second):
    """pg_cancel_backend on a control connection: the settle is repeated, the job is not failed."""
    (job,) = await claimed(parts, connection, 1)
    await second.execute("begin")
    await second.execute("select from worker.job_queue where id = $1 for update", job.id)
    task = asyncio.create_task(settled(settler, job, Completed(1)))
    blocked = "select pid from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'worker control'"
    pid = await until(connection, blocked)
    await connection.execute("select pg_cancel_backend($1)", pid)
    await second.execute("rollback")
    assert await asyncio.wait_for(task, 20) == "completed"


async def test_a_caller_that_is_gone_does_not_hold_up_the_others(parts, settler, connection, second):
    one, other = await claimed(parts, connection, 2)
    await second.execute("begin")
    await second.execute("select from worker.job_queue where id = $1 for update", one.id)
    gone = asyncio.create_task(settled(settler, one, Completed()))
    await until(connection, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await second.execute("rollback")
    assert await asyncio.wait_for(settled(settler, other, Completed()), 20) == "completed"
    assert (await row(connection, one.id))["status"] == "completed"
