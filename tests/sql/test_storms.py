"""Fifty sessions want the same key at the same moment: one row lives, and whoever is refused is told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.sql.conftest import Queue, verdict

SESSIONS = 50
LIVE = "select count(*) from worker.job_queue where status = 'pending' and started_at is null"
INSERT = "insert into worker.job_queue (job_type) values ('report')"
ENQUEUE = "select worker.enqueue('report')"
# A table of an application; its trigger enqueues, by the function or by a plain insert.
TRIGGER = """
    create table match (n int);
    create function on_match() returns trigger language plpgsql as $$ begin {statement}; return null; end $$;
    create trigger on_match after insert on match for each row execute function on_match();
"""


@pytest.fixture
async def crowd(dsn: str) -> AsyncIterator[list[asyncpg.Connection]]:
    sessions = [await asyncpg.connect(dsn) for _ in range(SESSIONS)]
    yield sessions
    await asyncio.gather(*(session.close() for session in sessions))


async def storm(crowd: list[asyncpg.Connection], statement: str) -> Counter[str]:
    """All at once; how often each was told what: the tag of the command, or the SQLSTATE of the refusal."""

    async def one(session: asyncpg.Connection) -> str:
        try:
            return await session.execute(statement)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)

    return Counter(await asyncio.gather(*map(one, crowd)))


@pytest.mark.parametrize("while_", ["waiting", "active"])
async def test_by_the_function_all_are_answered_and_one_row_lives(queue: Queue, crowd, while_: str) -> None:
    await queue.declare("report", unique_key="one", unique_while=while_)
    assert await storm(crowd, ENQUEUE) == {"SELECT 1": SESSIONS}
    (job,) = await queue.take()
    assert await storm(crowd, ENQUEUE) == {"SELECT 1": SESSIONS}
    assert await queue.db.fetchval(LIVE) == (1 if while_ == "waiting" else 0)
    await queue.settle(verdict(job))
    assert await storm(crowd, ENQUEUE) == {"SELECT 1": SESSIONS}
    assert await queue.db.fetchval(LIVE) == 1


async def test_by_a_plain_insert_one_row_lives_and_every_refusal_is_an_error_or_a_count(queue: Queue, crowd) -> None:
    await queue.declare("report", unique_key="one")
    for _ in range(5):
        told = await storm(crowd, INSERT)
        assert (told["INSERT 0 1"], set(told) <= {"INSERT 0 1", "INSERT 0 0", "23505"}) == (1, True), told
        assert await queue.db.fetchval(LIVE) == 1
        await queue.take()


async def test_a_trigger_that_enqueues_fails_nobodys_transaction(queue: Queue, crowd) -> None:
    await queue.declare("report", unique_key="one")
    await queue.db.execute(TRIGGER.format(statement="perform worker.enqueue('report')"))
    assert await storm(crowd, "insert into match values (1)") == {"INSERT 0 1": SESSIONS}
    assert (await queue.count("match"), await queue.db.fetchval(LIVE)) == (SESSIONS, 1)


async def test_a_trigger_that_fails_takes_its_transaction_along(queue: Queue, crowd) -> None:
    """No row without its job, no job without its row: what failed is not there, and its session knows."""
    await queue.declare("report", unique_key="one", on_conflict="refuse")
    await queue.db.execute(TRIGGER.format(statement=INSERT))
    told = await storm(crowd, "insert into match values (1)")
    assert (told["INSERT 0 1"], set(told) <= {"INSERT 0 1", "WK003", "23505"}) == (1, True), told
    assert (await queue.count("match"), await queue.db.fetchval(LIVE)) == (1, 1)
