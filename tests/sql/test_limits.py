"""Running limits: never more jobs of a type at once than it says, over all claimers; nobody else is held up."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.sql.conftest import Queue, blocked, verdict

Session = Callable[..., Awaitable[Queue]]
CLAIMERS = 8


async def slots(queue: Queue) -> dict[int, int | None]:
    return dict(await queue.db.fetch("select slot, job_id from worker.type_slot order by slot"))


async def running(queue: Queue) -> int:
    return await queue.db.fetchval("select count(*) from worker.job_queue where status = 'running'")


class TestClaim:
    async def test_no_more_start_than_the_limit(self, queue: Queue) -> None:
        await queue.declare("few", limit=3)
        ids = [await queue.enqueue("few") for _ in range(5)]
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == (ids[:3], 0)
        assert sorted((await slots(queue)).values()) == ids[:3]
        assert (await queue.claim()).ids == []

    @pytest.mark.parametrize("status", ["completed", "skipped", "failed", "cancelled", "pending"])
    async def test_every_verdict_frees_the_slot(self, queue: Queue, status: str) -> None:
        await queue.declare("few", limit=1)
        first, second = [await queue.enqueue("few") for _ in range(2)]
        (job,) = await queue.take()
        assert (await queue.claim()).ids == []
        await queue.settle(verdict(job, status, delay=60))
        assert (await queue.claim()).ids == [second]
        assert (await queue.row(first))["status"] == status

    async def test_completing_without_a_word_frees_it_too(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        for _ in range(2):
            await queue.enqueue("few")
        (job,) = await queue.take()
        await queue.db.execute("select worker.complete($1, $2, $3)", queue.me, [job["id"]], [job["claim"]])
        assert len((await queue.claim()).ids) == 1

    async def test_a_stale_verdict_frees_nothing(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        first, _ = [await queue.enqueue("few") for _ in range(2)]
        (job,) = await queue.take()
        assert await queue.settle(verdict(job)._replace(claim=job["claim"] + 1000)) == {}
        assert await slots(queue) == {1: first}

    async def test_free_jobs_of_lower_priority_are_not_held_up(self, queue: Queue) -> None:
        await queue.declare("few", limit=2, priority=1)
        await queue.declare("free")
        await queue.enqueue_many("few", *[{}] * 50)
        free = [await queue.enqueue("free", priority=900) for _ in range(5)]
        claim = await queue.claim(10)
        assert (len(claim.ids), claim.ids[2:]) == (7, free)
        more = [await queue.enqueue("free") for _ in range(3)]
        assert (await queue.claim(10)).ids == more

    async def test_better_priorities_go_first_also_across_limited_and_free_types(self, queue: Queue) -> None:
        await queue.declare("few", limit=2)
        await queue.declare("free")
        last = await queue.enqueue("free", priority=30)
        second = await queue.enqueue("few", priority=20)
        first = await queue.enqueue("free", priority=10)
        assert [(await queue.claim(1)).ids for _ in range(3)] == [[first], [second], [last]]

    async def test_the_lines_of_a_type_share_its_slots(self, queue: Queue) -> None:
        await queue.declare("few", limit=3)
        ids = [await queue.enqueue("few", priority=rank) for rank in (50, 10, 20, 10, 30)]
        assert (await queue.claim()).ids == [ids[1], ids[3], ids[2]]

    async def test_each_type_has_its_own(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        await queue.declare("other", limit=2)
        await queue.enqueue_many("few", {}, {})
        await queue.enqueue_many("other", {}, {}, {})
        assert len((await queue.claim()).ids) == 3

    async def test_a_parked_row_takes_no_slot(self, queue: Queue) -> None:
        await queue.declare("few", limit=2, concurrency_key="{k}")
        first, _, other = [await queue.enqueue("few", {"k": k}) for k in "aab"]
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == ([first], 1)
        assert (await queue.claim()).ids == [other]

    async def test_a_call_of_many_rows_takes_one_slot(self, queue: Queue) -> None:
        await queue.declare("call", limit=1, coalesce_key="{k}")
        ids = [await queue.enqueue("call", {"k": "a"}) for _ in range(4)]
        other = await queue.enqueue("call", {"k": "b"})
        jobs = await queue.take()
        assert {job["id"] for job in jobs} == set(ids)
        await queue.settle(*map(verdict, jobs))
        assert (await queue.claim()).ids == [other]

    async def test_unclaim_frees(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        only = await queue.enqueue("few")
        await queue.claim()
        assert await queue.db.fetchval("select worker.unclaim($1, $2)", queue.me, queue.batch) == 1
        assert (await queue.claim()).ids == [only]

    async def test_a_rescue_keeps_it_until_it_is_settled(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        dead, rescuer = [await queue.register() for _ in range(2)]
        first, second = [await queue.enqueue("few") for _ in range(2)]
        await queue.claim(me=dead)
        (taken,) = await queue.bury(dead, by=rescuer)
        assert (await queue.claim(me=rescuer)).ids == []
        assert await slots(queue) == {1: first}
        await queue.settle(verdict(taken, "failed", error="died", reason="poison"), me=rescuer)
        assert (await queue.claim(me=rescuer)).ids == [second]

    async def test_a_cancel_of_a_running_job_leaves_it_until_the_job_has_ended(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        first, second = [await queue.enqueue("few") for _ in range(2)]
        (job,) = await queue.take()
        await queue.db.execute("select worker.cancel($1)", first)
        assert (await queue.claim()).ids == []
        await queue.settle(verdict(job, "cancelled"))
        assert (await queue.claim()).ids == [second]

    async def test_retry_of_a_failed_job_takes_a_slot_like_any_other(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        first = await queue.enqueue("few")
        (job,) = await queue.take()
        await queue.settle(verdict(job, "failed"))
        other = await queue.enqueue("few")
        await queue.db.execute("select worker.retry($1)", first)
        assert len((await queue.claim()).ids) == 1
        assert (await queue.claim()).ids == []
        assert await slots(queue) in ({1: first}, {1: other})


class TestStranded:
    @pytest.mark.parametrize(
        "end",
        [
            "delete from worker.job_queue where id = $1",
            "update worker.job_queue set status = 'failed', trouble = true, finished_at = now() where id = $1",
            "update worker.job_queue set status = 'pending', queued = true, scheduled_at = '2100-01-01' where id = $1",
        ],
    )
    async def test_a_slot_whose_job_does_not_run_is_freed_by_the_sweep(self, queue: Queue, end: str) -> None:
        await queue.declare("few", limit=1)
        first, second = [await queue.enqueue("few") for _ in range(2)]
        await queue.claim()
        await queue.db.execute(end, first)
        assert await queue.db.fetchval("select strays from worker.chores('{few}')")
        assert await queue.sweep() == 1
        assert (await queue.claim()).ids == [second]
        assert await queue.sweep() == 0

    async def test_a_running_job_keeps_its_slot_in_a_sweep(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        await queue.enqueue("few")
        await queue.claim()
        assert (await queue.sweep(), await queue.db.fetchval("select strays from worker.chores('{few}')")) == (0, False)

    async def test_what_was_changed_by_hand_and_runs_again_ends_well(self, queue: Queue) -> None:
        await queue.declare("few", limit=2)
        only = await queue.enqueue("few")
        await queue.claim()
        await queue.db.execute("update worker.job_queue set status = 'pending', queued = true where id = $1", only)
        (job,) = await queue.take()
        await queue.settle(verdict(job))
        assert set((await slots(queue)).values()) == {None}


class TestDeclare:
    async def test_slots_are_as_many_as_the_limit(self, queue: Queue) -> None:
        for limit in (3, 5, 2, 2, 4):
            await queue.declare("few", limit=limit)
            assert len(await slots(queue)) == limit
        await queue.declare("few")
        assert await slots(queue) == {}

    async def test_a_lowered_limit_holds_once_enough_have_ended(self, queue: Queue) -> None:
        await queue.declare("few", limit=5)
        await queue.enqueue_many("few", *[{}] * 20)
        jobs = await queue.take()
        await queue.declare("few", limit=2)
        random.Random(7).shuffle(jobs)
        seen = []
        for job in jobs:
            await queue.settle(verdict(job))
            await queue.claim()
            seen.append(await running(queue))
        assert seen == [4, 3, 2, 2, 2]
        assert sorted(await slots(queue)) == [1, 2]

    async def test_lowered_and_raised_again_while_they_run(self, queue: Queue) -> None:
        await queue.declare("few", limit=5)
        await queue.enqueue_many("few", *[{}] * 20)
        await queue.claim()
        for limit, most in ((2, 5), (1, 5), (4, 5), (6, 6), (3, 6), (7, 7)):
            await queue.declare("few", limit=limit)
            await queue.claim()
            assert await running(queue) == most

    async def test_a_limit_that_is_new_counts_those_that_run(self, queue: Queue) -> None:
        await queue.declare("few")
        await queue.enqueue_many("few", *[{}] * 6)
        jobs = await queue.take(4)
        await queue.declare("few", limit=2)
        for job in jobs[:3]:
            assert (await queue.claim()).ids == []
            await queue.settle(verdict(job))
        assert len((await queue.claim()).ids) == 1

    async def test_a_limit_that_is_gone_lets_all_start(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        await queue.enqueue_many("few", *[{}] * 4)
        (job,) = await queue.take()
        await queue.declare("few")
        assert len((await queue.claim()).ids) == 3
        assert await queue.settle(verdict(job)) == {job["id"]: "completed"}


class TestOthers:
    async def test_slots_in_the_hands_of_another_claim_are_not_waited_for(self, queue: Queue, session: Session) -> None:
        other = await session()
        await queue.declare("few", limit=2)
        for _ in range(4):
            await queue.enqueue("few")
        await other.register()
        async with other.db.transaction():
            await other.db.execute("select from worker.type_slot for update")
            claim = await queue.claim()
            assert (claim.ids, claim.parked) == ([], 0)
            assert claim.next_due <= 0.02, "it looks again soon, and does not spin"
        assert len((await queue.claim()).ids) == 2

    async def test_a_full_type_is_no_chore(self, queue: Queue) -> None:
        await queue.declare("few", limit=1)
        for _ in range(2):
            await queue.enqueue("few")
        assert await queue.db.fetchval("select due from worker.chores('{few}')") is not None
        (job,) = await queue.take()
        assert await queue.db.fetchval("select due from worker.chores('{few}')") is None
        await queue.settle(verdict(job))
        assert await queue.db.fetchval("select due from worker.chores('{few}')") is not None

    async def test_a_freed_slot_rings_somebody_asleep_when_jobs_wait(self, queue: Queue, session: Session) -> None:
        await queue.declare("few", limit=1)
        me, sleeper = [await queue.register(["few"]) for _ in range(2)]
        await queue.enqueue("few")
        ear = await session()
        rung: list[str] = []
        await ear.db.add_listener("worker", lambda *said: rung.append(said[3]))
        (job,) = await queue.take(me=me)
        await queue.db.execute("select worker.sleep($1, 5)", sleeper)
        await queue.settle(verdict(job), me=me)
        await ear.db.fetchval("select 1")
        assert rung == [], "nobody waits"
        await queue.db.execute("select worker.wake($1)", sleeper)
        for _ in range(2):
            await queue.enqueue("few")
        (job,) = await queue.take(me=me)
        await queue.db.execute("select worker.sleep($1, 5)", sleeper)
        rung.clear()
        await queue.settle(verdict(job), me=me)
        await ear.db.fetchval("select 1")
        assert rung == [str(sleeper)]

    async def test_fitting_waits_for_a_claim_in_flight(self, queue: Queue, session: Session) -> None:
        other = await session()
        await queue.declare("few", limit=3)
        for _ in range(3):
            await queue.enqueue("few")
        await other.register()
        change = other.db.transaction()
        await change.start()
        assert len((await other.claim()).ids) == 3
        async with blocked(other, queue, queue.declare("few", limit=1)) as declared:
            await change.commit()
        await declared
        assert (await queue.claim()).ids == []
        assert sum(slot > 0 for slot in await slots(queue)) == 1


class Claimer:
    """Claims and settles over a connection of its own; now and then it wants to be killed in the middle."""

    def __init__(self, dsn: str, name: str, seed: int, doomed: list[int]) -> None:
        self.dsn = dsn
        self.doomed = doomed
        self.random = random.Random(seed)
        self.types = [name, "free"]
        self.deaths = 0

    async def run(self, done: Callable[[], bool]) -> None:
        while not done():
            db = await asyncpg.connect(self.dsn)
            try:
                await self._live(Queue(db), done)
            except asyncpg.DeadlockDetectedError:
                raise
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                self.deaths += 1
            finally:
                db.terminate()

    async def _live(self, queue: Queue, done: Callable[[], bool]) -> None:
        await queue.register(self.types)
        while not done():
            jobs = await queue.take(self.random.randint(1, 5), types=self.types)
            if self.random.random() < 0.1:
                self.doomed.append(queue.pid)
            for job in jobs:
                await queue.settle(verdict(job))


@pytest.mark.parametrize("seed", range(2))
async def test_eight_claimers_never_run_more_than_the_limit(dsn: str, queue: Queue, seed: int) -> None:
    limit, jobs = 3, 120
    await queue.declare("few", limit=limit)
    await queue.declare("free", priority=200)
    await queue.enqueue_many("few", *[{}] * jobs)
    await queue.enqueue_many("free", *[{}] * jobs)
    finished = asyncio.Event()
    doomed: list[int] = []
    claimers = [Claimer(dsn, "few", seed * 100 + n, doomed) for n in range(CLAIMERS)]
    most = 0

    async def watch() -> None:
        nonlocal most
        guard = await queue.register()
        async with asyncio.timeout(60):
            while await queue.db.fetchval("select exists (select from worker.job_queue where finished_at is null)"):
                now, taken = await queue.db.fetchrow(
                    "select (select count(*) from worker.job_queue where status = 'running' and job_type = 'few'),"
                    " (select count(*) from worker.type_slot where job_id is not null)"
                )
                assert now == taken
                most = max(most, now)
                await queue.db.execute("select pg_terminate_backend(pid) from unnest($1::integer[]) pid", doomed)
                doomed.clear()
                # What a killed claimer left behind goes back, as a rescue would do it.
                await queue.db.execute(
                    "select worker.mark_dead($1, p.id) from worker.process p where p.id <> $1 and p.dead_at is null"
                    " and p.id not in (select max(q.id) from worker.process q) and random() < 0.02",
                    guard,
                )
                for job in await queue.rescue(guard):
                    await queue.settle(verdict(job, "pending"), me=guard)
        finished.set()

    tasks = [asyncio.create_task(claimer.run(finished.is_set)) for claimer in claimers]
    try:
        await watch()
    finally:
        finished.set()
        await asyncio.gather(*tasks)
    assert most <= limit
    assert sum(claimer.deaths for claimer in claimers) > 0
    assert list((await slots(queue)).values()) == [None] * limit
    assert await queue.db.fetchval("select count(*) from worker.job_queue where status = 'completed'") == 2 * jobs
