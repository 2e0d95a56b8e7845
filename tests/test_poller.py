"""Claims up to the free slots, holds, interrupts, drains."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import asyncpg
import pytest

from tests.heart import becomes, configured, enqueue, heart, row, until
from tests.proxy import proxied
from tests.test_executor import Rig, configured_for
from worker import bell, executor, poller
from worker.bell import Bell
from worker.poller import Poller

COUNT = "select count(*) from worker.job_queue where status = $1"


GRAPH = """
[job.work]
python = "tests.sample_jobs:echo"
[job.graph.steps]
one = { sql = "one" }
"""


class Claimer(Rig):
    def __init__(self, parts, config, *, concurrency=3, prefetch=0, connections=None):
        super().__init__(parts, config, concurrency, connections)
        self.gate = asyncio.Event()
        self.begun = 0
        self.ran = Counter()
        self.handlers.update(work=self.work, graph=self.work)
        self.poller = Poller(
            parts.queue, self.executor, Bell(parts.queue, 0.05, lambda: False), self.metrics,
            concurrency=concurrency, prefetch=prefetch, graphs=["graph"], connections=connections,
        )  # fmt: skip

    async def work(self, context):
        self.begun += 1
        self.ran[context.job.job_type] += 1
        await self.gate.wait()


@asynccontextmanager
async def claiming(dsn, tmp_path, *, control=None, types=("work",), **sizes):
    async with heart(dsn, types, control=control) as parts:
        config = configured_for(tmp_path, dsn) if types == ("work",) else configured(tmp_path, dsn, GRAPH)
        made = Claimer(parts, config, **sizes)
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


async def test_in_a_flood_a_second_claim_is_on_its_way(dsn, tmp_path, connection, monkeypatch):
    monkeypatch.setattr(poller, "BATCH", 5)
    async with claiming(dsn, tmp_path, concurrency=20) as claimer:
        claim, under_way, most = claimer.poller._queue.claim, [], []

        async def counted(*arguments):
            under_way.append(1)
            most.append(len(under_way))
            try:
                return await claim(*arguments)
            finally:
                under_way.pop()

        claimer.poller._queue.claim = counted
        claimer.gate.set()
        await connection.execute("select worker.enqueue('work') from generate_series(1, 400)")
        await until(connection, f"select ({COUNT}) = 400", "completed")
    assert max(most) == 2
    assert claimer.begun == 400
    assert await connection.fetchval("select bool_and(attempt = 1) from worker.job_queue")


async def test_beside_a_claim_none_is_made_for_more_than_there_is_room(dsn, tmp_path, connection, monkeypatch):
    monkeypatch.setattr(poller, "BATCH", 5)
    async with claiming(dsn, tmp_path, concurrency=12) as claimer:
        await connection.execute("select worker.enqueue('work') from generate_series(1, 40)")
        await becomes(lambda: claimer.begun == 12)
        await asyncio.sleep(0.1)
        assert claimer.poller.in_hand == 12
        assert await connection.fetchval(COUNT, "running") == 12


async def test_without_room_for_a_whole_batch_the_second_claim_wakes_nobody(claimer):
    rings = []
    claimer.poller._bell.ring = lambda: rings.append("a look for nothing")
    claimer.poller._flood.set()
    await becomes(lambda: not claimer.poller._flood.is_set())
    assert rings == []


async def test_an_error_of_the_second_claim_is_counted_and_what_it_held_is_looked_for(
    dsn, tmp_path, connection, monkeypatch
):
    monkeypatch.setattr(poller, "BATCH", 2)
    async with claiming(dsn, tmp_path, concurrency=20) as claimer:
        claim, failed = claimer.poller._queue.claim, []

        async def breaks(n, types):
            if asyncio.current_task() is not claimer.polling and not failed:
                failed.append(1)
                raise asyncpg.ConnectionDoesNotExistError("cut")
            return await claim(n, types)

        claimer.poller._queue.claim = breaks
        claimer.gate.set()
        await connection.execute("select worker.enqueue('work') from generate_series(1, 200)")
        await until(connection, f"select ({COUNT}) = 200", "completed")
    assert failed
    counted = claimer.metrics.registry.get_sample_value("worker_database_errors_total", {"sqlstate_class": "08"})
    assert counted == 1


async def test_what_goes_wrong_in_the_second_claim_ends_the_loop_loudly(dsn, tmp_path, connection, monkeypatch):
    monkeypatch.setattr(poller, "BATCH", 2)
    async with claiming(dsn, tmp_path, concurrency=20) as claimer:
        claimer.poller._others = lambda: 1 / 0
        claimer.poller._room = lambda: 20
        await connection.execute("select worker.enqueue('work') from generate_series(1, 9)")
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(20):
                await asyncio.shield(claimer.polling)


async def test_what_waits_behind_long_ones_goes_to_a_neighbour_and_is_not_claimed_again(
    dsn, tmp_path, connection, monkeypatch
):
    monkeypatch.setattr(executor, "TURN_SECONDS", 0.05)
    async with claiming(dsn, tmp_path, concurrency=1, prefetch=100) as full:
        await enqueue(connection)
        await becomes(lambda: full.begun == 1)
        for _ in range(4):
            await enqueue(connection)
        assert len((await full.poller.look(4)).jobs) == 4  # as if it had been quick until now
        await becomes(lambda: full.poller.in_hand == 1)
        assert full.poller._room() == 0  # what was handed back is no sign of pace
        assert await connection.fetchval("select bool_and(attempt = 0) from worker.job_queue where status = 'pending'")
        async with claiming(dsn, tmp_path, concurrency=1) as free:
            free.gate.set()
            await until(connection, f"select ({COUNT}) = 4", "completed")
            assert (full.begun, free.begun) == (1, 4)


@pytest.mark.parametrize("prefetch", [0, 100])
async def test_of_graphs_no_more_are_claimed_than_there_are_connections(dsn, tmp_path, connection, prefetch):
    sizes = {"concurrency": 3, "prefetch": prefetch, "connections": 1}
    async with claiming(dsn, tmp_path, types=("work", "graph"), **sizes) as claimer:
        for _ in range(5):
            await enqueue(connection, "graph", priority=1)
        for _ in range(5):
            await enqueue(connection, "work")
        await becomes(lambda: claimer.begun == 3)
        assert claimer.ran == {"graph": 1, "work": 2}
        never = "select count(*) from worker.job_queue where job_type = 'graph' and started_at is null"
        assert await connection.fetchval(never) == 4
        claimer.gate.set()
        await until(connection, f"select ({COUNT}) = 10", "completed")
        assert await connection.fetchval("select max(attempt) from worker.job_queue") == 1


async def test_graphs_behind_a_full_lane_are_looked_for_when_one_has_ended(dsn, tmp_path, connection, monkeypatch):
    """By a ring of its own: this one would sleep for ever."""
    monkeypatch.setattr(bell, "DEAF_POLL", 3600)
    sizes = {"concurrency": 3, "connections": 1}
    async with claiming(dsn, tmp_path, types=("work", "graph"), **sizes) as claimer:
        claimer.poller._bell._poll = 3600
        for _ in range(4):
            await enqueue(connection, "graph")
        claimer.poller._bell.ring()
        await becomes(lambda: claimer.begun == 1)
        claimer.gate.set()
        await until(connection, f"select ({COUNT}) = 4", "completed")


async def test_where_there_is_nothing_but_graphs_their_connections_are_the_room(dsn, tmp_path, connection):
    async with claiming(dsn, tmp_path, types=("graph",), concurrency=3, connections=2) as claimer:
        assert claimer.poller.slots == 2
        for _ in range(5):
            await enqueue(connection, "graph")
        await becomes(lambda: claimer.begun == 2)
        assert (claimer.poller.in_hand, claimer.poller._room()) == (2, 0)
        claimer.gate.set()
        await until(connection, f"select ({COUNT}) = 5", "completed")


async def test_a_job_that_ends_while_the_bell_is_turned_off_makes_room(dsn, tmp_path, connection):
    async with claiming(dsn, tmp_path, concurrency=1) as claimer:
        calls = []

        async def off():
            calls.append(claimer.poller.in_hand)
            if len(calls) > 1:  # the first is that of the claim that took the last slot
                claimer.gate.set()
                await becomes(lambda: claimer.poller.in_hand == 0)

        claimer.poller._bell.off = off
        for _ in range(3):
            await enqueue(connection)
        await until(connection, f"select ({COUNT}) = 3", "completed")


async def test_shut_hands_back_and_claims_nothing_until_opened(claimer, connection):
    job_id = await enqueue(connection)
    await becomes(lambda: claimer.begun == 1)
    claimer.poller.shut()
    await until(connection, "select status = 'pending' and attempt = 0 from worker.job_queue where id = $1", job_id)
    await becomes(lambda: claimer.poller.in_hand == 0)
    claimer.gate.set()
    claimer.poller.open()
    await until(connection, f"select ({COUNT}) = 1", "completed")


async def test_who_is_confirmed_again_does_not_wait_for_the_end_of_a_backoff(claimer, connection, second, monkeypatch):
    monkeypatch.setattr(poller, "random", SimpleNamespace(uniform=lambda *_: 6000.0))
    async with second.transaction():
        await second.execute("lock table worker.job_queue in access exclusive mode")
        await becomes(lambda: claimer.poller.refused_at > 0)
    await enqueue(connection)
    claimer.poller.shut()
    claimer.poller.open()
    await becomes(lambda: claimer.begun == 1)


async def test_an_answer_that_comes_after_the_fence_is_handed_back(claimer, connection, second):
    call = "worker.claim(bigint, bigint, text[], integer, jsonb)"
    await connection.execute(f"alter function {call} set lock_timeout = '30s'")
    async with claimer.parts.database.control.acquire(), claimer.parts.database.control.acquire():
        pass
    await second.execute("begin")
    await second.execute("select from worker.process where id = $1 for update", claimer.parts.queue.me)
    job_id = await enqueue(
        connection, scheduled_at=datetime(2020, 1, 1, tzinfo=UTC)
    )  # due for a claim that waits already
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
    async def broken(n, types):
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
