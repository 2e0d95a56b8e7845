"""Concurrency keys: at most one running job a key, the others in line behind it, nobody forgotten."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, blocked, verdict

Session = Callable[..., Awaitable[Queue]]
SECOND = timedelta(seconds=1)


async def keyed(queue: Queue, name: str = "report") -> None:
    await queue.declare(name, concurrency_key="{k}")


async def slots(queue: Queue) -> dict[str, int]:
    return dict(await queue.db.fetch("select key, job_id from worker.key_slot"))


async def parked(queue: Queue) -> list[int]:
    return [id for (id,) in await queue.db.fetch("select id from worker.job_queue where parked order by id")]


class TestLines:
    async def test_one_runs_and_the_others_are_parked_once(self, queue: Queue) -> None:
        await keyed(queue)
        ids = [await queue.enqueue("report", {"k": "a"}) for _ in range(4)]
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == (ids[:1], 3)
        assert await slots(queue) == {"a": ids[0]}
        assert await parked(queue) == ids[1:]
        again = await queue.claim()
        assert (again.ids, again.parked) == ([], 0)

    async def test_settle_queues_the_next_in_line(self, queue: Queue) -> None:
        await keyed(queue)
        await queue.clock(NOON)
        late = await queue.enqueue("report", {"k": "a"}, delay=-SECOND)
        later = await queue.enqueue("report", {"k": "a"})
        first = await queue.enqueue("report", {"k": "a"}, priority=1)
        second = await queue.enqueue("report", {"k": "a"}, priority=2)
        order = []
        for _ in range(4):
            (job,) = await queue.take()
            order.append(job["id"])
            await queue.settle(verdict(job))
        assert order == [first, second, late, later]
        assert await slots(queue) == {}

    @pytest.mark.parametrize("status", ["completed", "skipped", "failed", "cancelled", "pending"])
    async def test_every_verdict_frees_the_key(self, queue: Queue, status: str) -> None:
        await keyed(queue)
        first, second = [await queue.enqueue("report", {"k": "a"}) for _ in range(2)]
        (job,) = await queue.take()
        await queue.settle(verdict(job, status, delay=60))
        assert await slots(queue) == {}
        assert (await queue.claim()).ids == [second]
        assert (await queue.row(first))["status"] == status

    async def test_a_stale_verdict_frees_nothing(self, queue: Queue) -> None:
        await keyed(queue)
        first, second = [await queue.enqueue("report", {"k": "a"}) for _ in range(2)]
        (job,) = await queue.take()
        stale = verdict(job)._replace(claim=job["claim"] + 1000)
        assert await queue.settle(stale) == {}
        assert (await slots(queue), await parked(queue)) == ({"a": first}, [second])

    async def test_a_retry_in_the_future_does_not_block_the_line_and_joins_it_when_due(self, queue: Queue) -> None:
        await keyed(queue)
        await queue.clock(NOON)
        first, second = [await queue.enqueue("report", {"k": "a"}) for _ in range(2)]
        (job,) = await queue.take()
        await queue.settle(verdict(job, "pending", delay=30))
        assert (await queue.claim()).ids == [second]
        await queue.clock(NOON + 30 * SECOND)
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == ([], 1)
        assert await parked(queue) == [first]

    async def test_a_key_is_one_over_all_types(self, queue: Queue) -> None:
        await keyed(queue, "report")
        await keyed(queue, "letter")
        await queue.enqueue("report", {"k": "a"}, priority=1)
        letter = await queue.enqueue("letter", {"k": "a"})
        (job,) = await queue.take()
        assert await parked(queue) == [letter]
        await queue.settle(verdict(job))
        assert (await queue.claim()).ids == [letter]

    async def test_free_jobs_of_lower_priority_are_not_held_up_by_a_long_line(self, queue: Queue) -> None:
        await keyed(queue)
        await queue.declare("free")
        await queue.enqueue_many("report", *[{"k": "a"}] * 120)
        await queue.db.execute("update worker.job_queue set priority = 0")
        free = [await queue.enqueue("free", priority=900) for _ in range(3)]
        calls = 0
        running: list[int] = []
        while not set(free) <= set(running):
            claim = await queue.claim(50)
            calls += 1
            assert claim.parked + len(claim.ids) > 0, "a claim that brought nothing parked nothing either"
            running += claim.ids
        assert calls == 3  # 120 in line are parked 50 at a time, each once
        assert len(await parked(queue)) == 119

    async def test_a_parked_row_is_out_of_the_due_index(self, queue: Queue) -> None:
        await keyed(queue)
        for _ in range(3):
            await queue.enqueue("report", {"k": "a"})
        await queue.claim()
        assert await queue.db.fetchval("select count(*) from worker.lines('{report}')") == 0


class TestTwoClaimers:
    async def test_the_second_waits_for_the_first_then_parks(self, queue: Queue, session: Session) -> None:
        await keyed(queue)
        first, second = [await queue.enqueue("report", {"k": "a"}) for _ in range(2)]
        one, two, observer = await session(), await session(), await session()
        await one.register()
        await two.register()
        change = one.db.transaction()
        await change.start()
        assert (await one.claim(1)).ids == [first]
        async with blocked(observer, two, two.claim(1)) as answer:
            await change.commit()
            claim = await answer
        assert (claim.ids, claim.parked) == ([], 1)
        assert (await slots(queue), await parked(queue)) == ({"a": first}, [second])

    async def test_the_second_gets_the_key_when_the_first_rolls_back(self, queue: Queue, session: Session) -> None:
        await keyed(queue)
        _, second = [await queue.enqueue("report", {"k": "a"}) for _ in range(2)]
        one, two, observer = await session(), await session(), await session()
        await one.register()
        await two.register()
        change = one.db.transaction()
        await change.start()
        await one.claim(1)
        async with blocked(observer, two, two.claim(1)) as answer:
            await change.rollback()
            assert (await answer).ids == [second]

    async def test_a_settle_waits_for_a_claim_that_parks_behind_it_and_queues_that_row(
        self, queue: Queue, session: Session
    ) -> None:
        await keyed(queue)
        await queue.enqueue("report", {"k": "a"})
        (job,) = await queue.take()
        second = await queue.enqueue("report", {"k": "a"})
        claimer, observer = await session(), await session()
        await claimer.register()
        change = claimer.db.transaction()
        await change.start()
        assert (await claimer.claim()).parked == 1
        async with blocked(observer, queue, queue.settle(verdict(job))) as answer:
            await change.commit()
            assert await answer == {job["id"]: "completed"}
        assert await parked(queue) == []
        assert (await queue.claim()).ids == [second]

    async def test_a_claim_waits_for_the_settle_that_frees_its_key(self, queue: Queue, session: Session) -> None:
        await keyed(queue)
        await queue.enqueue("report", {"k": "a"})
        (job,) = await queue.take()
        second = await queue.enqueue("report", {"k": "a"})
        claimer, observer = await session(), await session()
        await claimer.register()
        change = queue.db.transaction()
        await change.start()
        await queue.settle(verdict(job))
        async with blocked(observer, claimer, claimer.claim()) as answer:
            await change.commit()
            assert (await answer).ids == [second]

    async def test_the_same_keys_at_once_never_run_twice_and_nobody_is_stranded(
        self, queue: Queue, session: Session
    ) -> None:
        await keyed(queue)
        await queue.enqueue_many("report", *[{"k": n % 5} for n in range(150)])
        workers = [await session() for _ in range(4)]
        held: set[str] = set()
        done: list[int] = []

        async def work(worker: Queue) -> None:
            await worker.register()
            idle = 0
            while len(done) < 150 and idle < 2000:
                claim = await worker.claim(random.randint(1, 9))
                idle = 0 if claim.jobs or claim.parked else idle + 1
                for job in claim.jobs:
                    assert job["concurrency_key"] not in held
                    held.add(job["concurrency_key"])
                await asyncio.sleep(0)
                held.difference_update(job["concurrency_key"] for job in claim.jobs)
                if claim.jobs:
                    done.extend(await worker.settle(*[verdict(job) for job in claim.jobs]))

        await asyncio.gather(*map(work, workers))
        assert sorted(done) == sorted(await queue.statuses())
        assert (await slots(queue), await parked(queue)) == ({}, [])
