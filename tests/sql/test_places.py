"""Places: where a full batch ended the next look begins, and nothing is passed over for longer than it says."""

import json
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.conftest import NOON, Claim, Queue, verdict

SECOND = timedelta(seconds=1)
DEAD = 3_000  # claimed while somebody's snapshot is kept


async def lined(queue: Queue, *types: str) -> None:
    """At noon, with types whose rows are due."""
    await queue.clock(NOON)
    for name in types or ("plain",):
        await queue.declare(name)


async def of(queue: Queue, job_type: str, count: int, **named: object) -> list[int]:
    return [await queue.enqueue(job_type, **named) for _ in range(count)]


async def full(queue: Queue, n: int, after: str | None = None) -> Claim:
    """A look that came to all it asked for."""
    looked = await queue.claim(n, after=after)
    assert len(looked.ids) == n
    return looked


async def test_a_full_batch_tells_where_it_ended_and_the_next_one_goes_on_there(queue: Queue) -> None:
    await lined(queue)
    ids = await of(queue, "plain", 5)
    first = await full(queue, 2)
    told = json.loads(first.places or "")
    assert list(told) == ["plain 100"]
    assert told["plain 100"][1] == ids[1]
    earlier = await queue.enqueue(delay=-SECOND)
    second = await full(queue, 2, first.places)
    assert second.ids == ids[2:4]
    assert (await full(queue, 1)).ids == [earlier]  # from the beginning


async def test_a_batch_that_would_be_short_begins_from_the_beginning(queue: Queue) -> None:
    await lined(queue)
    ids = await of(queue, "plain", 3)
    first = await full(queue, 2)
    earlier = await queue.enqueue(delay=-SECOND)
    rest = await queue.claim(5, after=first.places)
    assert (rest.ids, rest.places, rest.next_due) == ([earlier, ids[2]], None, None)
    assert (await queue.claim(5, after=first.places)).ids == []


@pytest.mark.parametrize("earlier", [1, 2])
async def test_who_passed_over_what_the_first_round_locked_in_vain_is_rung(
    queue: Queue, second: asyncpg.Connection, earlier: int
) -> None:
    await lined(queue)
    ids = await of(queue, "plain", 2)
    first = await full(queue, 1)
    sleeper = await queue.register(types=["plain"])
    await queue.db.execute("select worker.sleep($1, 60)", sleeper)
    early = await of(queue, "plain", earlier, delay=-SECOND)
    heard: list[str] = []
    await second.add_listener("worker", lambda *given: heard.append(given[-1]))
    looked = await full(queue, 2, first.places)
    assert looked.ids == [*early, *ids[1:]][:2]
    await second.execute("select")  # whatever was sent before this is here
    assert heard == [str(sleeper)] * (earlier - 1)


async def test_a_more_urgent_line_comes_first_all_the_same_and_a_less_urgent_one_follows(queue: Queue) -> None:
    await lined(queue, "plain", "other")
    await of(queue, "plain", 4)
    later = await of(queue, "other", 2, priority=200)
    first = await full(queue, 1)
    urgent = [await queue.enqueue("other", priority=7), await queue.enqueue(priority=8)]
    second = await full(queue, 3, first.places)
    assert second.ids[:2] == urgent
    third = await full(queue, 3, second.places)
    assert third.ids[2:] == later[:1]
    assert set(json.loads(third.places or "")) == {"plain 100", "other 200"}  # of each look the last line's


async def test_other_types_of_the_same_priority_have_their_chance(queue: Queue) -> None:
    await lined(queue, "many", "few")
    await of(queue, "many", 40)
    places = (await full(queue, 1, None)).places
    few = await queue.enqueue("few")
    for _ in range(30):
        looked = await full(queue, 1, places)
        if looked.ids == [few]:
            return
        places = looked.places
    raise AssertionError("not claimed among thirty")  # by chance once in a thousand million


async def test_of_a_key_the_oldest_goes_first_though_it_lies_before_the_place(queue: Queue) -> None:
    await lined(queue)
    await queue.enqueue(concurrency_key="k", priority=1)
    (holder,) = (await full(queue, 1)).jobs
    old = await queue.enqueue(concurrency_key="k", delay=-9 * SECOND)
    assert (await queue.claim(2)).parked == 1
    await of(queue, "plain", 2, delay=-5 * SECOND)
    first = await full(queue, 1)
    await queue.settle(verdict(holder))  # now the old one's key is free
    new = await queue.enqueue(concurrency_key="k")
    looked = await queue.claim(2, after=first.places)
    assert old in looked.ids
    assert new not in looked.ids


async def test_a_batch_with_keys_or_of_limited_types_tells_no_place(queue: Queue) -> None:
    await lined(queue)
    await queue.declare("few", limit=5)
    await queue.enqueue(concurrency_key="k")
    assert (await queue.claim(1, types=["plain"])).places is None
    await of(queue, "few", 2)
    assert (await queue.claim(1, types=["few"])).places is None
    assert (await queue.claim(0, types=["plain"])).places is None


async def test_a_place_of_a_line_that_is_gone_or_not_asked_for_hides_nothing(queue: Queue) -> None:
    await lined(queue, "plain", "other")
    other = await queue.enqueue("other")
    gone = json.dumps({"plain 100": ["2100-01-01T00:00:00Z", 5], "gone 3": ["2000-01-01T00:00:00Z", 1]})
    assert (await queue.claim(1, after=gone)).ids == [other]


async def test_a_release_that_knows_no_places_looks_from_the_beginning(queue: Queue) -> None:
    await lined(queue)
    (job,) = await of(queue, "plain", 1)
    me = await queue.register()
    row = await queue.db.fetchrow("select * from worker.claim($1, 1, '{plain}', 5)", me)
    assert list(row.keys()) == ["jobs", "parked", "xmin", "xmax", "next_due"]
    assert [each["id"] for each in row["jobs"]] == [job]


async def test_what_is_dead_before_a_place_is_not_read_again(queue: Queue, second: asyncpg.Connection) -> None:
    await lined(queue)
    await queue.register()
    await queue.enqueue_many("plain", *[{}] * (DEAD + 200))
    await second.execute("begin isolation level repeatable read")
    await second.fetchval("select count(*) from worker.job_queue")
    places = None
    for _ in range(DEAD // 500):
        places = (await full(queue, 500, places)).places
    on, anew = [await blocks(queue, each) for each in (places, None)]
    assert on < anew / 2


async def blocks(queue: Queue, after: str | None) -> int:
    """Blocks that a look for ten touches."""
    call = f"select * from worker.claim({queue.me}, {queue.batch + 1000}, '{{plain}}', 10, $1)"
    plan = await queue.db.fetchval(f"explain (analyze, buffers, format json) {call}", after)
    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]
