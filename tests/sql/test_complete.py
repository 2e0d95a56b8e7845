"""worker.complete writes what worker.settle would, and refuses what it would refuse."""

import asyncpg
import pytest

from tests.sql.conftest import Queue, verdict
from worker.verdict import Verdict

TYPES = (
    {"name": "plain"},
    {"name": "keyed", "concurrency_key": "k"},
    {"name": "held", "unique_key": "u", "unique_while": "active"},
    {"name": "audited", "audit": True},
    {"name": "few", "limit": 2},
    {"name": "leads", "then": ["plain"], "announces": "result"},
)
ROW = """
    select to_jsonb(j) - '{id,claim,batch,correlation_id,created_at,scheduled_at}'::text[]
      - '{started_at,finished_at,deadline_at}'::text[]
    from worker.job_queue j where id = $1
"""
AROUND = """
    select (select count(*) from worker.key_slot) as keys,
      (select count(*) from worker.type_slot where job_id is not null) as slots,
      (select count(*) from worker.job_queue where parent_id is not null) as followers,
      (select array_agg(event || coalesce(detail ->> 'to', '') order by id) from worker.job_event where job_id = $1)
        as events
"""


async def ended(queue: Queue, name: str, given: Verdict | None = None) -> tuple[object, ...]:
    """What is left of one job of a type that was completed plainly, or as `given` says."""
    await queue.enqueue(name)
    (job,) = await queue.take(types=[name])
    if given is None:
        assert await queue.complete(verdict(job)) == []
    else:
        wanted = given._replace(id=job["id"], claim=job["claim"])
        rows = await queue.db.fetch("select * from worker.settle($1, $2)", queue.me, [wanted])
        assert [tuple(row) for row in rows] == [(job["id"], "completed")]
    row = await queue.db.fetchrow(AROUND, job["id"])
    return (await queue.db.fetchval(ROW, job["id"]), *row.values())


@pytest.mark.parametrize("name", [each["name"] for each in TYPES])
async def test_it_leaves_what_a_settle_leaves(queue: Queue, name: str) -> None:
    await queue.declare_all(*TYPES)
    one = await ended(queue, name)
    await queue.db.execute("delete from worker.job_queue; delete from worker.job_event")
    other = await ended(queue, name, Verdict(0, 0, "completed", None, 0.0, None, True, False, True, None, None))
    assert one == other


@pytest.mark.parametrize("off", [{"claim": 0}, {"id": 0}])
async def test_what_is_lost_is_told_and_the_others_are_written(queue: Queue, off: dict[str, int]) -> None:
    await queue.declare_all(*TYPES)
    for _ in range(3):
        await queue.enqueue("plain")
    one, two, three = [verdict(job) for job in await queue.take()]
    wrong = two._replace(**off)
    assert await queue.complete(one, wrong, three) == [wrong.id]
    assert sorted((await queue.statuses()).values()) == ["completed", "completed", "running"]


async def test_all_may_be_lost_and_there_may_be_none(queue: Queue) -> None:
    await queue.declare_all(*TYPES)
    await queue.enqueue("plain")
    (job,) = await queue.take()
    gone = verdict(job)._replace(claim=0)
    assert await queue.complete(gone) == [gone.id]
    assert await queue.db.fetchval("select worker.complete($1, '{}', '{}')", queue.me) == []


async def test_a_strangers_lock_is_not_waited_for_long(queue: Queue, second: asyncpg.Connection) -> None:
    await queue.declare_all(*TYPES)
    job_id = await queue.enqueue("plain")
    (job,) = await queue.take()
    async with second.transaction():
        await second.execute("select from worker.job_queue where id = $1 for update", job_id)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await queue.complete(verdict(job))
    assert await queue.complete(verdict(job)) == []
