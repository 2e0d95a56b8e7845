"""Rates: no more starts than a bucket has tokens, whoever claims; the others come back at an instant that is booked."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.conftest import NOON, Queue, blocked, verdict

Session = Callable[..., Awaitable[Queue]]
SECOND = timedelta(seconds=1)
CLAIMERS = 8


def rate(limit: int, per: float, key: str | None = None) -> dict[str, Any]:
    return {"limit": limit, "per": per, "key": key}


async def booked(queue: Queue) -> list[float]:
    """Seconds from NOON on to which pending rows were put off, in order of their ids."""
    rows = await queue.db.fetch("select scheduled_at from worker.job_queue where phase = 'rate' order by id")
    return [round((at - NOON).total_seconds(), 3) for (at,) in rows]


class TestClaim:
    async def test_as_many_start_as_there_are_tokens_and_the_rest_is_booked_once(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(3, 30))
        ids = [await queue.enqueue("call") for _ in range(6)]
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == (ids[:3], 3)
        assert await booked(queue) == [10, 20, 30]
        before = [(await queue.row(id))["xmin"] for id in ids[3:]]
        again = await queue.claim()
        assert (again.ids, again.parked, again.next_due) == ([], 0, 10)
        assert [(await queue.row(id))["xmin"] for id in ids[3:]] == before

    async def test_who_was_booked_starts_then_and_a_newcomer_goes_behind(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(1, 10))
        first, second, third = [await queue.enqueue("call") for _ in range(3)]
        assert (await queue.claim()).ids == [first]
        await queue.clock(NOON + 10 * SECOND)
        newcomer = await queue.enqueue("call")
        assert (await queue.claim()).ids == [second]
        assert await booked(queue) == [20, 30]
        await queue.clock(NOON + 20 * SECOND)
        assert (await queue.claim()).ids == [third]
        await queue.clock(NOON + 30 * SECOND)
        assert (await queue.claim()).ids == [newcomer]

    async def test_an_urgent_newcomer_takes_the_next_token_and_nobodys_place(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(1, 10))
        first, second, third = [await queue.enqueue("call") for _ in range(3)]
        await queue.claim()
        urgent = await queue.enqueue("call", priority=1)
        assert (await queue.claim()).parked == 1
        order = [first]
        for step in range(1, 5):
            await queue.clock(NOON + 10 * step * SECOND)
            order += (await queue.claim()).ids
        assert order == [first, urgent, second, third]

    async def test_a_whole_backlog_that_slept_through_a_standstill_does_not_burst(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(2, 10))
        await queue.enqueue_many("call", *[{}] * 12)
        assert len((await queue.claim()).ids) == 2
        await queue.clock(NOON + 3600 * SECOND)
        assert len((await queue.claim()).ids) == 2
        starts = [len((await queue.claim()).ids)]
        for step in range(1, 9):
            await queue.clock(NOON + (3600 + 5 * step) * SECOND)
            starts.append(len((await queue.claim()).ids))
        assert starts == [0, 1, 1, 1, 1, 1, 1, 1, 1]

    async def test_bookings_of_those_who_do_not_come_are_forgotten(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(2, 20))
        ids = [await queue.enqueue("call") for _ in range(50)]
        await queue.claim()
        for id in ids[2:]:
            await queue.db.execute("select worker.cancel($1)", id)
        await queue.clock(NOON + 60 * SECOND)
        new = [await queue.enqueue("call") for _ in range(3)]
        assert (await queue.claim()).ids == new[:2]
        assert await booked(queue) == [10 * n for n in range(1, 49)] + [70]

    async def test_each_value_of_the_key_has_a_bucket(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(1, 10, "{user}"))
        ids = [await queue.enqueue("call", {"user": user}) for user in ("a", "b", "a", "b", "c")]
        assert (await queue.claim()).ids == [ids[0], ids[1], ids[4]]
        assert await booked(queue) == [10, 10]

    async def test_a_key_that_cannot_be_filled_is_invalid(self, queue: Queue) -> None:
        await queue.declare("call", rate=rate(1, 10, "{user}"))
        id = await queue.enqueue("call")
        row = await queue.row(id)
        assert (row["status"], row["finish_reason"]) == ("failed", "invalid")
        assert "lacks a name that rate.key" in row["errors"]
        assert await queue.enqueue_many("call", {}, {"user": "a"}) == 2
        assert sorted((await queue.statuses()).values()) == ["failed", "failed", "pending"]

    async def test_a_row_from_before_the_key_draws_from_the_bucket_of_its_type(self, queue: Queue) -> None:
        await queue.declare("call")
        await queue.enqueue("call")
        await queue.declare("call", rate=rate(1, 10, "{user}"))
        assert len((await queue.claim()).ids) == 1
        assert await queue.db.fetchval("select key from worker.rate") == "job call"

    async def test_a_very_long_key_is_kept_short(self, queue: Queue) -> None:
        await queue.declare("call", rate=rate(1, 10, "{user}"))
        for user in ("ü" * 5000, "ü" * 5000, "ü" * 4999):
            await queue.enqueue("call", {"user": user})
        assert len((await queue.claim()).ids) == 2

    async def test_free_jobs_of_lower_priority_all_run_in_the_same_look(self, queue: Queue) -> None:
        await queue.declare("call", rate=rate(2, 3600), priority=1)
        await queue.declare("free")
        await queue.enqueue_many("call", *[{}] * 250)
        free = [await queue.enqueue("free", priority=900) for _ in range(5)]
        claim = await queue.claim(7)
        assert (len(claim.ids), set(claim.ids) >= set(free)) == (7, True)
        started: list[int] = []
        for _ in range(3):
            started += (await queue.claim(7)).ids
        assert (started, len(await booked(queue))) == ([], 248)

    async def test_better_priorities_go_first_and_no_token_is_lost(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(100, 100))
        await queue.declare("free")
        for rank in (10, 20, 30):
            for name in ("call", "free"):
                await queue.enqueue(name, priority=rank)
        ranks = []
        while claim := await queue.claim(1):
            if not claim.jobs:
                break
            ranks.append(claim.jobs[0]["priority"])
        assert ranks == [10, 10, 20, 20, 30, 30]
        assert await queue.db.fetchval("select tokens from worker.rate") == 97

    async def test_a_small_claim_starts_no_more_than_was_asked_for(self, queue: Queue) -> None:
        await queue.declare("call", rate=rate(100, 1))
        await queue.enqueue_many("call", *[{}] * 20)
        assert [len((await queue.claim(n)).ids) for n in (1, 3, 7)] == [1, 3, 7]
        assert await booked(queue) == []

    async def test_a_row_behind_its_key_takes_no_token_and_one_without_a_token_no_key(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(2, 20), concurrency_key="{k}")
        ids = [await queue.enqueue("call", {"k": k}) for k in "aabc"]
        claim = await queue.claim()
        assert (claim.ids, claim.parked) == ([ids[0], ids[2]], 2)
        assert await queue.db.fetch("select key from worker.key_slot order by key") == [("a",), ("b",)]
        await queue.settle(*map(verdict, claim.jobs))
        await queue.clock(NOON + 10 * SECOND)
        assert (await queue.claim()).ids == [ids[3]]

    async def test_with_a_limit_a_row_without_a_token_takes_no_slot(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(2, 20), limit=3)
        await queue.enqueue_many("call", *[{}] * 6)
        assert len((await queue.claim()).ids) == 2
        assert await queue.db.fetchval("select count(*) from worker.type_slot where job_id is null") == 1

    async def test_an_attempt_more_needs_a_token_more(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(1, 10))
        only = await queue.enqueue("call")
        (job,) = await queue.take()
        await queue.settle(verdict(job, "pending"))
        assert (await queue.claim()).ids == []
        assert (await queue.row(only))["scheduled_at"] == NOON + 10 * SECOND

    async def test_coalesced_rows_make_one_start(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(1, 10), coalesce_key="{k}")
        ids = [await queue.enqueue("call", {"k": "a"}) for _ in range(5)]
        assert sorted((await queue.claim()).ids) == ids
        assert await queue.db.fetchval("select tokens from worker.rate") == 0

    async def test_waits_beyond_the_calendar_end_with_it(self, queue: Queue) -> None:
        await queue.declare("call", rate=rate(1, 86400 * 365 * 2000))
        for _ in range(6):
            await queue.enqueue("call")
        assert len((await queue.claim()).ids) == 1
        assert (await queue.claim()).parked == 0

    async def test_a_clock_that_jumps_back_gives_no_tokens_and_takes_none(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(5, 50))
        for _ in range(5):
            await queue.enqueue("call", delay=-timedelta(days=1))
        assert len((await queue.claim(2)).ids) == 2
        await queue.clock(NOON - 600 * SECOND)
        for _ in range(3):
            await queue.enqueue("call", delay=-timedelta(days=1))
        assert len((await queue.claim()).ids) == 3


class TestBuckets:
    async def test_full_ones_are_forgotten_an_hour_later(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("call", rate=rate(2, 7200))
        await queue.enqueue("call")
        await queue.claim()
        for hours, left in ((1, 1), (1.9, 1), (2.1, 0)):
            await queue.clock(NOON + hours * 3600 * SECOND)
            await queue.db.execute("select * from worker.prune('{\"completed\": 1}')")
            assert await queue.count("worker.rate") == left

    async def test_the_clock_is_read_after_the_lock(self, queue: Queue, session: Session) -> None:
        other = await session()
        await queue.declare("call", rate=rate(1, 60))
        await queue.enqueue("call")
        await other.register()
        assert len(await queue.take()) == 1
        await queue.enqueue("call")
        change = other.db.transaction()
        await change.start()
        await other.db.execute("select from worker.rate for update")
        async with blocked(other, queue, queue.claim()) as claim:
            drawn = await other.db.fetchval(
                "update worker.rate set at = clock_timestamp(), tokens = 0, tail = clock_timestamp() returning at"
            )
            await change.commit()
        assert (await claim).ids == []
        # Its statement is older than the bucket: set back to then, the bucket would flow in once more what it had.
        assert await queue.db.fetchval("select at from worker.rate") >= drawn

    async def test_who_waits_for_the_first_bucket_holds_none_of_the_others(
        self, queue: Queue, session: Session
    ) -> None:
        """All lock them in one order, so no two claimers wait for each other."""
        await queue.declare("call", rate=rate(1000, 1, "{k}"))
        for k in range(8):
            await queue.enqueue("call", {"k": str(k)})
        await queue.settle(*map(verdict, await queue.take()))  # now there are the buckets
        ids = [await queue.enqueue("call", {"k": str(k)}) for k in reversed(range(8))]
        holder, observer = await session(), await session()
        change = holder.db.transaction()
        await change.start()
        await holder.db.execute("select from worker.rate where key = 'job call 0' for update")
        async with blocked(observer, queue, queue.claim()) as claim:
            free = await observer.db.fetch("select from worker.rate where key <> 'job call 0' for update nowait")
            await change.commit()
        assert (len(free), sorted((await claim).ids)) == (7, ids)


async def test_eight_claimers_stay_below_the_rate(queue: Queue, session: Session) -> None:
    limit, per = 20, 1.0
    await queue.declare("call", rate=rate(limit, per, "{k}"), audit=True)
    for n in range(300):
        await queue.enqueue("call", {"k": str(n % 3)})
    claimers = [await session() for _ in range(CLAIMERS)]
    stop = asyncio.get_running_loop().time() + 1.5

    async def run(own: Queue) -> None:
        await own.register()
        while asyncio.get_running_loop().time() < stop:
            jobs = await own.take(5)
            await own.settle(*map(verdict, jobs))

    await asyncio.gather(*map(run, claimers))
    worst = await queue.db.fetchval(
        """with start as (
             select j.payload ->> 'k' as k, e.at from worker.job_event e join worker.job_queue j on j.id = e.job_id
             where e.event = 'claimed')
           select max((select count(*) from start b where b.k = a.k and b.at between a.at and c.at)
                      - (select $1 * extract(epoch from c.at - a.at) / $2 + $1))
           from start a join start c on c.k = a.k and c.at >= a.at""",
        limit,
        per,
    )
    # In any span no more than a full bucket and what flowed in; and one, for an event is written a moment later.
    assert worst <= 1
    assert await queue.db.fetchval("select count(*) from worker.job_queue where status = 'completed'") >= 3 * limit


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(1, 5),
    per=st.integers(1, 60),
    events=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.integers(1, 8)), min_size=1, max_size=12),
)
async def test_any_history_keeps_to_the_bucket(
    queue: Queue, limit: int, per: int, events: list[tuple[int, int, int]]
) -> None:
    await queue.db.execute("delete from worker.job_queue; delete from worker.rate")
    await queue.declare("call", rate=rate(limit, per))
    now = NOON
    starts: list[datetime] = []
    wanted = 0
    for seconds, new, n in events:
        now += seconds * SECOND
        await queue.clock(now)
        for _ in range(new):
            await queue.enqueue("call")
        wanted += new
        starts += [now] * len((await queue.claim(n)).ids)
    for first, at in enumerate(starts):
        for last in range(first, len(starts)):
            span = (starts[last] - at).total_seconds()
            assert last - first + 1 <= limit + span * limit / per + 0.02
    for _ in range(4 * wanted + 4):
        if len(starts) == wanted:
            break
        looked = await queue.claim(100)
        starts += [now] * len(looked.ids)
        if not looked.ids and not looked.parked and looked.next_due is not None:
            now += looked.next_due * SECOND
            await queue.clock(now)
    assert len(starts) == wanted, "everybody's turn comes"


class TestPermit:
    async def ask(self, queue: Queue, back: bool = False, patience: float = 30) -> float:
        return await queue.db.fetchval("select worker.permit('site', 2, 20, $1, $2)", back, patience)

    async def test_draws_then_waits_for_a_place(self, queue: Queue) -> None:
        await queue.clock(NOON)
        assert [await self.ask(queue) for _ in range(4)] == [0, 0, 10, 20]
        await queue.clock(NOON + 10 * SECOND)
        assert await self.ask(queue) == 20, "a newcomer goes behind who has a place"
        assert await self.ask(queue, back=True) == 0
        await queue.clock(NOON + 20 * SECOND)
        assert await self.ask(queue, back=True) == 0

    async def test_who_does_not_come_back_has_no_place(self, queue: Queue) -> None:
        await queue.clock(NOON)
        assert [await self.ask(queue, patience=5) for _ in range(5)] == [0, 0, 10, 10, 10]
        await queue.clock(NOON + 10 * SECOND)
        assert await self.ask(queue) == 0

    async def test_a_booking_is_no_token(self, queue: Queue) -> None:
        await queue.clock(NOON)
        assert [await self.ask(queue) for _ in range(5)] == [0, 0, 10, 20, 30]
        await queue.clock(NOON + 300 * SECOND)
        assert [await self.ask(queue, back=True) for _ in range(3)] == [0, 0, 10]

    @pytest.mark.parametrize("callers", [6])
    async def test_many_at_once_get_no_more_than_there_are(self, queue: Queue, session: Session, callers: int) -> None:
        await queue.clock(NOON)
        others = [await session() for _ in range(callers)]
        answers = await asyncio.gather(*(self.ask(other) for other in others))
        assert sorted(answers) == [0, 0, 10, 20, 30, 40]
