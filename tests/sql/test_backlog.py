"""Backlog: a bound on the pending jobs of a type; beyond it new ones come later, or are refused."""

from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict


async def late(queue: Queue) -> list[float]:
    """Seconds from NOON on to which the rows are due, by id."""
    rows = await queue.db.fetch("select scheduled_at from worker.job_queue order by id")
    return [(at - NOON).total_seconds() for (at,) in rows]


class TestRefuse:
    async def test_beyond_the_bound_it_says_type_bound_and_cure(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 2, "then": "refuse"})
        for _ in range(2):
            await queue.enqueue("few")
        with refused("WK011", "2 jobs of few are pending, and its backlog.max is 2") as caught:
            await queue.enqueue("few")
        assert "backlog" in str(caught.value.hint)
        assert caught.value.detail == "2"

    async def test_a_plain_insert_is_refused_as_well_and_as_a_whole(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 3, "then": "refuse"})
        with refused("WK011"):
            await queue.db.execute("insert into worker.job_queue (job_type) select 'few' from generate_series(1, 4)")
        assert await queue.count() == 0
        await queue.db.execute("insert into worker.job_queue (job_type) select 'few' from generate_series(1, 3)")

    async def test_enqueue_many_is_refused_as_a_whole(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 3, "then": "refuse"})
        assert await queue.enqueue_many("few", {}, {}) == 2
        with refused("WK011"):
            await queue.enqueue_many("few", {}, {})
        assert await queue.enqueue_many("few", {}) == 1

    async def test_running_and_finished_jobs_do_not_count_and_parked_ones_do(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 2, "then": "refuse"}, concurrency_key="{k}")
        first, _ = [await queue.enqueue("few", {"k": "a"}) for _ in range(2)]
        (job,) = await queue.take()
        assert job["id"] == first
        await queue.enqueue("few", {"k": "a"})
        assert (await queue.claim()).parked == 1
        with refused("WK011"):
            await queue.enqueue("few", {"k": "b"})
        await queue.settle(verdict(job))
        (job,) = await queue.take()
        await queue.enqueue("few", {"k": "b"})

    async def test_a_share_bounds_one_tenant_and_leaves_room_for_the_others(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 10, "per_tenant": 2, "then": "refuse"}, concurrency_key="{k}")
        for at in (None, NOON):
            await queue.enqueue("few", {"tenant_id": "t1", "k": "a"}, scheduled_at=at)
        with refused("WK011", 'pending for tenant "t1", and its backlog.per_tenant is 2'):
            await queue.enqueue("few", {"tenant_id": "t1", "k": "b"})
        with refused("WK011", 'tenant "t2"'):
            await queue.enqueue_many("few", *[{"tenant_id": "t2", "k": n} for n in range(3)])
        assert await queue.enqueue_many("few", *[{"tenant_id": "t2", "k": n} for n in range(2)]) == 2
        for n in range(3):  # nobody's
            await queue.enqueue("few", {"k": n})

    async def test_parked_jobs_count_to_the_share_and_running_ones_do_not(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 9, "per_tenant": 2, "then": "refuse"}, concurrency_key="{tenant_id}")
        await queue.enqueue("few", {"tenant_id": "t1"})
        await queue.take()
        for _ in range(2):
            await queue.enqueue("few", {"tenant_id": "t1"})
        assert (await queue.claim()).parked > 0
        with refused("WK011", "per_tenant"):
            await queue.enqueue("few", {"tenant_id": "t1"})

    async def test_a_kept_job_is_no_new_one(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 1, "then": "refuse"}, unique_key="{k}")
        holder = await queue.enqueue("few", {"k": 1})
        assert await queue.enqueue("few", {"k": 1}) == holder
        assert await queue.enqueue("few", {"k": 1}, on_conflict="replace") == holder
        with refused("WK011"):
            await queue.enqueue("few", {"k": 2})

    async def test_what_follows_a_job_comes_later_instead(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("few", backlog={"max": 1, "then": "refuse"})
        await queue.declare("parent", then=["few"], announces="result")
        await queue.enqueue("few")
        await queue.enqueue("parent")
        (job,) = await queue.take(types=["parent"])
        assert await queue.settle(verdict(job)) == {job["id"]: "completed"}
        assert await late(queue) == [0, 0, 60]

    async def test_other_types_are_free(self, queue: Queue) -> None:
        await queue.declare("few", backlog={"max": 1, "then": "refuse"})
        await queue.declare("free")
        await queue.enqueue_many("free", {}, {})
        await queue.enqueue("few")
        await queue.enqueue("free")
        assert await queue.count() == 4


class TestDelay:
    async def test_a_minute_later(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("few", backlog={"max": 2, "then": "delay"})
        for _ in range(4):
            await queue.enqueue("few")
        assert await late(queue) == [0, 0, 60, 60]

    async def test_as_long_as_the_rate_needs_for_the_bound(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("few", backlog={"max": 2, "then": "delay"}, rate={"limit": 4, "per": 60})
        await queue.enqueue_many("few", *[{}] * 4)
        assert await late(queue) == [0, 0, 30, 30]

    async def test_what_was_to_come_later_still_stays(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("few", backlog={"max": 1, "then": "delay"})
        await queue.enqueue("few")
        await queue.enqueue("few", delay=timedelta(hours=1))
        await queue.enqueue("few", delay=timedelta(seconds=10))
        assert await late(queue) == [0, 3600, 60]

    async def test_enqueue_many_puts_off_what_is_beyond(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("few", backlog={"max": 3, "then": "delay"})
        await queue.enqueue("few")
        assert await queue.enqueue_many("few", *[{}] * 5) == 5
        assert await late(queue) == [0, 0, 0, 60, 60, 60]


@pytest.mark.parametrize("many", [20_000])
async def test_no_more_is_read_than_may_wait(queue: Queue, many: int) -> None:
    await queue.declare("few")
    await queue.db.execute("select worker.enqueue_many('few', array_fill('{}'::jsonb, array[$1::integer]))", many)
    await queue.declare("few", backlog={"max": 50, "then": "delay"})
    await queue.db.execute("vacuum analyze worker.job_queue")
    await queue.db.execute("begin")
    before = await queue.db.fetchval("select pg_stat_get_xact_tuples_returned('worker.job_queue_due'::regclass)")
    await queue.enqueue("few")
    after = await queue.db.fetchval("select pg_stat_get_xact_tuples_returned('worker.job_queue_due'::regclass)")
    await queue.db.execute("rollback")
    assert 50 <= after - before <= 51
