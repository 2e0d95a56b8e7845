"""Claims up to the free slots, holds, interrupts, drains."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.heart import becomes, enqueue, heart, row, until
from tests.proxy import proxied
from tests.test_executor import Rig, configured_for
from worker.bell import Bell
from worker.poller import Poller

COUNT = "select count(*) from worker.job_queue where status = $1"


class Claimer(Rig):
    def __init__(self, parts, config, *, concurrency=3, prefetch=0):
        super().__init__(parts, config, concurrency)
        self.gate = asyncio.Event()
        self.begun = 0
        self.handlers["work"] = self.work
        self.poller = Poller(
            parts.queue, self.executor, Bell(parts.queue, 0.05, lambda: False), self.metrics,
            concurrency=concurrency, prefetch=prefetch,
        )  # fmt: skip

    async def work(self, context):
        self.begun += 1
        await self.gate.wait()


@asynccontextmanager
async def claiming(dsn, tmp_path, *, control=None, **sizes):
    async with heart(dsn, control=control) as parts:
        made = Claimer(parts, configured_for(tmp_path, dsn), **sizes)
        tasks = [asyncio.create_task(made.settler.run()), asyncio.create_task(made.poller.run())]
        made.polling = tasks[1]
        try:
            yield made
        finally:
            made.gate.set()
            for task in tasks[1:]:
                task.cancel()
            async with asyncio.timeout(20):
                await made.poller.settled()
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def claimer(dsn, tmp_path):
    async with claiming(dsn, tmp_path) as made:
        yield made


async def test_no_more_than_fit_are_claimed(claimer, connection):
    for _ in range(8):
        await enqueue(connection)
    await becomes(lambda: claimer.begun == 3)
    assert claimer.poller.in_hand == 3
    assert await connection.fetchval(COUNT, "running") == 3
    claimer.gate.set()
    await until(connection, f"select ({COUNT}) = 8", "completed")
    assert claimer.begun == 8


async def test_beyond_the_slots_it_claims_no_more_than_it_finishes(dsn, tmp_path, connection):
    async with claiming(dsn, tmp_path, concurrency=2, prefetch=100) as claimer:
        for _ in range(10):
            await enqueue(connection)
        await becomes(lambda: claimer.begun == 2)
        assert claimer.poller.in_hand == 2  # nothing finished yet: whatever is claimed beyond would wait for long jobs
        claimer.gate.set()
        await until(connection, f"select ({COUNT}) = 10", "completed")


async def test_shut_hands_back_and_claims_nothing_until_opened(claimer, connection):
    job_id = await enqueue(connection)
    await becomes(lambda: claimer.begun == 1)
    claimer.poller.shut()
    await until(connection, "select status = 'pending' and attempt = 0 from worker.job_queue where id = $1", job_id)
    await becomes(lambda: claimer.poller.in_hand == 0)
    claimer.gate.set()
    claimer.poller.open()
    await until(connection, f"select ({COUNT}) = 1", "completed")


async def test_an_answer_that_comes_after_the_fence_is_handed_back(claimer, connection, second):
    await connection.execute("alter function worker.claim(bigint, bigint, text[], integer) set lock_timeout = '30s'")
    async with claimer.parts.database.control.acquire(), claimer.parts.database.control.acquire():
        pass
    await second.execute("begin")
    await second.execute("select from worker.process where id = $1 for update", claimer.parts.queue.me)
    job_id = await enqueue(connection)
    await until(
        connection,
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%worker.claim%'",
    )
    claimer.poller.shut()
    await second.execute("rollback")
    await until(
        connection, "select claim is not null and status = 'pending' from worker.job_queue where id = $1", job_id
    )
    assert claimer.begun == 0


async def test_draining_waits_for_what_runs(claimer, connection):
    job_id = await enqueue(connection)
    await becomes(lambda: claimer.begun == 1)
    claimer.polling.cancel()
    draining = asyncio.create_task(claimer.poller.drain(60, asyncio.Event()))
    claimer.gate.set()
    await asyncio.wait_for(draining, 20)
    assert (await row(connection, job_id))["status"] == "completed"


async def test_hurry_or_the_end_of_grace_hands_back(dsn, tmp_path, connection):
    for grace, hurried in ((60, True), (0.05, False)):
        async with claiming(dsn, tmp_path) as claimer:
            job_id = await enqueue(connection)
            await becomes(lambda made=claimer: made.begun == 1)
            claimer.polling.cancel()
            hurry = asyncio.Event()
            draining = asyncio.create_task(claimer.poller.drain(grace, hurry))
            if hurried:
                hurry.set()
            await asyncio.wait_for(draining, 20)
            found = await row(connection, job_id)
            assert (found["status"], found["attempt"]) == ("pending", 0)
            await connection.execute("delete from worker.job_queue")


async def test_errors_of_the_database_are_waited_out(dsn, tmp_path, connection):
    async with proxied(dsn) as proxy, claiming(dsn, tmp_path, control=proxy.dsn) as claimer:
        claimer.gate.set()
        proxy.refusing = True
        proxy.drop()
        await becomes(lambda: claimer.metrics.claims.labels("failed")._value.get() >= 2)
        job_id = await enqueue(connection)
        proxy.refusing = False
        await until(connection, "select status = 'completed' from worker.job_queue where id = $1", job_id)
        assert not claimer.polling.done()


async def test_a_bug_is_no_error_of_the_database(claimer, monkeypatch):
    async def broken(n):
        raise ZeroDivisionError

    monkeypatch.setattr(claimer.parts.queue, "claim", broken)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(claimer.polling, 20)


async def test_jobs_behind_a_key_follow_one_another_without_a_poll(dsn, tmp_path, connection):
    async with claiming(dsn, tmp_path) as claimer:
        claimer.gate.set()
        for _ in range(5):
            await enqueue(connection, "work", concurrency_key="one")
        await until(connection, f"select ({COUNT}) = 5", "completed")
        assert await connection.fetchval("select count(*) from worker.key_slot") == 0
