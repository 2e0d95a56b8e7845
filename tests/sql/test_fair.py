"""Fair share: inside one priority the tenants of a type take turns, and a long line of one hides nobody else."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.sql.conftest import NOON, Queue, verdict

Session = Callable[..., Awaitable[Queue]]


async def waiting(queue: Queue, **jobs: int) -> None:
    """So many jobs of each tenant, those of the first tenant first."""
    for tenant, count in jobs.items():
        await queue.enqueue_many("turn", *[{"tenant_id": tenant}] * count)


def tenants(jobs: list) -> list[str]:
    return [job["tenant_id"] for job in jobs]


class TestTurns:
    async def test_one_job_among_a_hundred_thousand_is_in_the_first_batch_and_second_in_it(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await queue.db.execute(
            "select worker.enqueue_many('turn', array_fill('{\"tenant_id\": \"a\"}'::jsonb, array[100000]))"
        )
        b = await queue.enqueue("turn", {"tenant_id": "b"})
        claim = await queue.claim(100)
        assert claim.ids.index(b) <= 1
        assert (len(claim.ids), claim.parked) == (51, 1), "half was a's share: it is to be claimed for again"
        assert len((await queue.claim(100)).ids) == 100, "alone it gets all"

    async def test_turns_go_round_also_one_by_one(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, a=50, b=3, c=2)
        order = "".join([tenants(await queue.take(1))[0] for _ in range(10)])
        assert order[:6] in ("abcabc", "bcabca", "cabcab")
        assert Counter(order) == {"a": 5, "b": 3, "c": 2}

    async def test_more_tenants_than_places_are_all_served_in_turn(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, **{f"t{n:02}": 2 for n in range(20)})
        first, second, third, fourth = [tenants(await queue.take(10)) for _ in range(4)]
        assert sorted(first + second) == sorted(third + fourth) == [f"t{n:02}" for n in range(20)]

    async def test_the_batch_begins_in_turns(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, a=4, b=2, c=1)
        assert tenants(await queue.take()) == list("abcabaa")

    async def test_jobs_without_a_tenant_are_one_of_them(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await queue.enqueue_many("turn", *[{}] * 20)
        await waiting(queue, a=20)
        assert Counter(tenants(await queue.take(10))) == {None: 5, "a": 5}

    async def test_priority_is_strict(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await queue.declare("plain", priority=50)
        await waiting(queue, a=5, b=5)
        urgent = await queue.enqueue("turn", {"tenant_id": "a"}, priority=1)
        between = await queue.enqueue("plain")
        assert (await queue.claim(2)).ids == [urgent, between]

    async def test_jobs_of_other_types_keep_their_places(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("turn", fair=True)
        await queue.declare("plain")
        for name, tenant in (("turn", "a"), ("turn", "a"), ("plain", "a"), ("turn", "b"), ("plain", "b")):
            await queue.enqueue(name, {"tenant_id": tenant})
        assert [(job["job_type"], job["tenant_id"]) for job in await queue.take()] == [
            ("turn", "a"), ("turn", "b"), ("plain", "a"), ("turn", "a"), ("plain", "b")]  # fmt: skip

    async def test_tenants_with_nothing_due_take_no_share(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        for n in range(30):
            await queue.enqueue("turn", {"tenant_id": f"later{n}"}, scheduled_at=NOON.replace(year=2090))
        await waiting(queue, a=10, b=1)
        assert len(await queue.take(12)) == 7
        assert len(await queue.take(12)) == 4
        assert await queue.take(12) == []

    async def test_expired_rows_are_passed_over(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await queue.clock(NOON)
        await queue.enqueue("turn", {"tenant_id": "a"}, expires_at=NOON)
        (b,) = [await queue.enqueue("turn", {"tenant_id": "b"})]
        assert (await queue.claim()).ids == [b]

    async def test_with_a_limit_the_slots_are_shared_in_turns(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True, limit=4)
        await waiting(queue, a=50, b=50)
        jobs = await queue.take()
        assert Counter(tenants(jobs)) == {"a": 2, "b": 2}
        await queue.settle(*map(verdict, jobs))
        assert Counter(tenants(await queue.take())) == {"a": 2, "b": 2}

    async def test_with_a_rate_the_tokens_are_shared_in_turns(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("turn", fair=True, rate={"limit": 4, "per": 40})
        await waiting(queue, a=50, b=50)
        assert Counter(tenants(await queue.take())) == {"a": 2, "b": 2}

    async def test_with_keys_a_parked_row_comes_when_its_turn_does(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True, concurrency_key="{tenant_id}")
        await queue.enqueue_many("turn", *[{"tenant_id": t} for t in "aaabb"])
        rounds = []
        for _ in range(3):
            jobs = await queue.take()
            rounds.append(tenants(jobs))
            await queue.settle(*map(verdict, jobs))
        assert rounds == [["a", "b"], ["a", "b"], ["a"]]


class TestDeclared:
    async def test_rows_that_wait_are_told(self, queue: Queue) -> None:
        await queue.declare("turn")
        await waiting(queue, a=3, b=3)
        await queue.declare("turn", fair=True)
        assert await queue.db.fetchval("select count(*) from worker.job_queue where fair") == 6
        assert tenants(await queue.take(2)) in (["a", "b"], ["b", "a"])
        await queue.declare("turn")
        assert await queue.db.fetchval("select count(*) from worker.job_queue where fair and queued") == 0
        assert len(await queue.take()) == 4

    async def test_a_row_that_was_not_told_is_claimed_all_the_same(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, a=3)
        await queue.db.execute(
            "update worker.job_queue set fair = false where id <> (select min(id) from worker.job_queue)"
        )
        assert len(await queue.take()) == 3

    async def test_every_way_in_knows(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await queue.enqueue("turn")
        await queue.enqueue_many("turn", {})
        await queue.db.execute("insert into worker.job_queue (job_type) values ('turn')")
        assert await queue.db.fetchval("select bool_and(fair) from worker.job_queue")


class TestOthers:
    async def test_nobody_waits_for_the_cursor(self, queue: Queue, session: Session) -> None:
        other = await session()
        await queue.declare("turn", fair=True)
        await waiting(queue, a=10, b=10)
        await queue.take(1)
        async with other.db.transaction():
            await other.db.execute("select from worker.turn for update")
            assert len(await queue.take(1)) == 1

    @pytest.mark.parametrize("many", [8])
    async def test_many_claimers_take_each_job_once_and_all_of_them(
        self, queue: Queue, session: Session, many: int
    ) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, **{f"t{n}": n * 5 + 1 for n in range(12)})
        total = await queue.count()
        claimers = [await session() for _ in range(many)]

        async def claim_all(own: Queue) -> list[int]:
            ids: list[int] = []
            await own.register()
            while (claim := await own.claim(7)).jobs or claim.parked:
                ids += claim.ids
            return ids

        ids = [id for found in await asyncio.gather(*map(claim_all, claimers)) for id in found]
        assert (len(ids), len(set(ids))) == (total, total)

    async def test_a_crash_that_loses_the_cursor_loses_nothing_else(self, queue: Queue) -> None:
        await queue.declare("turn", fair=True)
        await waiting(queue, a=3, b=3)
        await queue.take(1)
        await queue.db.execute("truncate worker.turn")
        assert len(await queue.take()) == 5
