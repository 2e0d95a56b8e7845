"""The negative control: each wrong that the checker claims to see is done on purpose, and it says so."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from tests.heart import declare
from tests.stress.checker import SECRETS, violations
from tests.stress.questions import QUESTIONS
from tests.stress.wrongs import WRONGS, Naive

CLAIMED = {what: invariant for invariant, questions in QUESTIONS.items() for what in questions} | {SECRETS: "I12"}
EVIDENCE = Path(__file__).with_name("evidence.sql")


@pytest.fixture
async def evidence(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A database where everything is noted, three types of jobs, and whose calls are awaited."""
    await connection.execute(EVIDENCE.read_text())
    await declare(
        connection,
        {"name": "work", "max_attempts": 3},
        {"name": "hook"},
        {"name": "parent", "then": ["hook"], "announces": "result"},
    )
    await connection.execute("insert into evidence.hook values ('hook')")
    return connection


@pytest.fixture
async def naive(dsn: str, tmp_path: Path) -> AsyncIterator[Naive]:
    async with AsyncExitStack() as ending:
        yield Naive(dsn, tmp_path / "naive.log", ending)


def test_every_wrong_that_is_asked_for_is_done() -> None:
    assert set(WRONGS) == set(CLAIMED)


@pytest.mark.parametrize("what", WRONGS)
async def test_the_checker_sees_it(evidence: asyncpg.Connection, naive: Naive, what: str) -> None:
    await WRONGS[what](naive)
    found = await violations(evidence, logs=[naive.log] if naive.log.exists() else [])
    assert (CLAIMED[what], what) in [(each.invariant, each.what) for each in found]


async def test_it_sees_nothing_where_all_is_well(evidence: asyncpg.Connection, naive: Naive) -> None:
    """A job with a step, followed by a call; another that fails, is retried by a person, and completes."""
    naive.log.write_text("all is well\n")
    db = await naive.connect()
    me = await db.fetchval("select worker.register('h', 1, '0', '{work,hook,parent}', 8, '30 s')")
    first = await db.fetchval("select worker.enqueue('parent')")
    claim = (await claimed(db, me, 1))[first]
    await db.execute("select worker.begin_steps($1, $2, '{a}')", first, claim)
    await db.execute(
        "select worker.run_step($1, $2, 'a', 'f', $3, jsonb_build_object('id', $1::bigint), null, '{}')",
        first, claim, "select null::jsonb from evidence.step(($1 ->> 'id')::bigint, 'a', 0)",
    )  # fmt: skip
    await settle(db, me, first, claim, "completed")
    ((call, claim),) = (await claimed(db, me, 2)).items()
    await db.execute("insert into evidence.receipt values ('msg', $1), ('msg', $1)", call)
    await settle(db, me, call, claim, "completed")
    second = await db.fetchval("select worker.enqueue('work')")
    await settle(db, me, second, (await claimed(db, me, 3))[second], "failed")
    await db.execute("select worker.retry($1)", second)
    await settle(db, me, second, (await claimed(db, me, 4))[second], "completed")
    await db.execute("select worker.leave($1)", me)
    await db.execute("insert into evidence.gauge select 1, 'files', 10, now() from generate_series(1, 20)")
    assert await violations(evidence, logs=[naive.log]) == []


async def claimed(db: asyncpg.Connection, me: int, batch: int) -> dict[int, int]:
    """Claims by job."""
    jobs = await db.fetchval("select jobs from worker.claim($1, $2, '{work,hook,parent}', 10)", me, batch)
    return {job["id"]: job["claim"] for job in jobs}


async def settle(db: asyncpg.Connection, me: int, job: int, claim: int, status: str) -> None:
    verdict = (job, claim, status, None, 0.0, None, True, False, True, None, None, None, None)
    assert await db.fetch("select * from worker.settle($1, $2)", me, [verdict])
