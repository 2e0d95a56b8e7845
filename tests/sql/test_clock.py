"""One clock: every due time comes from worker.now(), which tests may stop."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict

Session = Callable[..., Awaitable[Queue]]


async def test_runs_with_the_statement_and_not_with_the_transaction(queue: Queue) -> None:
    async with queue.db.transaction():
        assert await queue.db.fetchval("select worker.now() = statement_timestamp()")
        assert await queue.db.fetchval("select worker.now() > now()")


async def test_can_be_stopped_moved_and_set_going_again(queue: Queue) -> None:
    await queue.clock(NOON)
    assert await queue.db.fetchval("select worker.now()") == NOON
    await queue.db.execute("select worker.set_clock(shift => '1 day')")
    assert await queue.db.fetchval("select worker.now() - statement_timestamp()") == timedelta(days=1)
    await queue.clock()
    assert await queue.db.fetchval("select worker.now() = statement_timestamp()")
    assert await queue.count("worker.clock") == 0


async def test_nothing_is_due_until_the_clock_says_so(queue: Queue) -> None:
    await queue.clock(NOON)
    await queue.declare("report", deadline=600)
    job = await queue.enqueue("report", delay=timedelta(minutes=1))
    await queue.clock(NOON + timedelta(seconds=59))
    claim = await queue.claim()
    assert (claim.ids, claim.next_due) == ([], 1.0)
    await queue.clock(NOON + timedelta(seconds=60))
    (claimed,) = await queue.take()
    assert (claimed["id"], claimed["waited"], claimed["remaining"]) == (job, 0.0, 600.0)
    await queue.settle(verdict(claimed, "pending", delay=30))
    assert (await queue.row(job))["scheduled_at"] == NOON + timedelta(seconds=90)


@pytest.mark.parametrize("who", ["app", "tenant", "operator", "reader", "runner", "nobody"])
async def test_only_the_owner_sets_it_and_whoever_uses_the_queue_reads_it(session: Session, who: str) -> None:
    one = await session(who)
    with refused("42501"):
        await one.clock(NOON)
    if who != "nobody":
        assert await one.db.fetchval("select worker.now() = statement_timestamp()")


async def test_a_session_in_another_time_zone_sees_the_same_instants(queue: Queue, session: Session) -> None:
    await queue.declare(expires=3600)
    await queue.clock(NOON)
    far = await session(TimeZone="Pacific/Chatham", DateStyle="German", IntervalStyle="postgres_verbose")
    row = await queue.row(await far.enqueue())
    assert (row["scheduled_at"], row["expires_at"] - row["created_at"]) == (NOON, timedelta(hours=1))
