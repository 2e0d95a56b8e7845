"""Every pair of what may happen to a job, in both orders, the second begun while the first is not yet committed.

The first holds its locks in an open transaction; the second starts, and either waits for it, as Postgres itself says,
or answers at once. Then the first commits. What the second is told, and what the row is afterwards, stands in a table.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import PATIENCE, Queue, verdict
from tests.sql.model import CLEAN, PROMISES

# Of the row: its status, who holds it, whether its claim is the one it had before, a new one, and attempts counted.
TABLE = """
first     | second    | before  || second    | it is told    | row
claim     | claim     | pending || at once   | nothing       | running one new 1
claim     | beat      | pending || at once   | alive         | running one new 1
claim     | complete  | pending || at once   | lost          | running one new 1
claim     | fail      | pending || at once   | lost          | running one new 1
claim     | hand back | pending || at once   | lost          | running one new 1
claim     | rescue    | pending || waits     | rescued       | running two new 1
claim     | cancel    | pending || waits     | running       | running one new 1 asked
claim     | retry     | pending || waits     | WK020         | running one new 1
beat      | claim     | pending || at once   | taken         | running one new 1
beat      | beat      | running || waits     | alive         | running one old 1
beat      | complete  | running || at once   | completed     | completed one old 1
beat      | fail      | running || at once   | failed        | failed one old 1
beat      | hand back | running || at once   | pending       | pending - old 0
beat      | rescue    | running || waits     | rescued       | running two new 1
beat      | cancel    | running || at once   | running       | running one old 1 asked
beat      | retry     | failed  || at once   | pending       | pending - old 0
complete  | claim     | running || at once   | nothing       | completed one old 1
complete  | beat      | running || at once   | alive         | completed one old 1
complete  | complete  | running || waits     | lost          | completed one old 1
complete  | fail      | running || waits     | lost          | completed one old 1
complete  | hand back | running || waits     | lost          | completed one old 1
complete  | rescue    | running || at once   | nothing       | completed one old 1
complete  | cancel    | running || waits     | completed     | completed one old 1
complete  | retry     | running || waits     | WK020         | completed one old 1
fail      | claim     | running || at once   | nothing       | failed one old 1
fail      | beat      | running || at once   | alive         | failed one old 1
fail      | complete  | running || waits     | lost          | failed one old 1
fail      | fail      | running || waits     | lost          | failed one old 1
fail      | hand back | running || waits     | lost          | failed one old 1
fail      | rescue    | running || at once   | nothing       | failed one old 1
fail      | cancel    | running || waits     | failed        | failed one old 1
fail      | retry     | running || waits     | pending       | pending - old 0
hand back | claim     | running || at once   | nothing       | pending - old 0
hand back | beat      | running || at once   | alive         | pending - old 0
hand back | complete  | running || waits     | lost          | pending - old 0
hand back | fail      | running || waits     | lost          | pending - old 0
hand back | hand back | running || waits     | lost          | pending - old 0
hand back | rescue    | running || at once   | nothing       | pending - old 0
hand back | cancel    | running || waits     | cancelled     | cancelled - old 0 asked
hand back | retry     | running || waits     | WK020         | pending - old 0
rescue    | claim     | running || at once   | nothing       | running two new 1
rescue    | beat      | running || waits     | dead          | running two new 1
rescue    | complete  | running || waits     | lost          | running two new 1
rescue    | fail      | running || waits     | lost          | running two new 1
rescue    | hand back | running || waits     | lost          | running two new 1
rescue    | rescue    | running || waits     | dead already  | running two new 1
rescue    | cancel    | running || waits     | running       | running two new 1 asked
rescue    | retry     | running || waits     | WK020         | running two new 1
cancel    | claim     | pending || at once   | nothing       | cancelled - old 0 asked
cancel    | beat      | running || at once   | alive         | running one old 1 asked
cancel    | complete  | running || waits     | completed     | completed one old 1 asked
cancel    | fail      | running || waits     | failed        | failed one old 1 asked
cancel    | hand back | running || waits     | cancelled     | cancelled one old 0 asked
cancel    | rescue    | running || at once   | nothing       | running one old 1 asked
cancel    | cancel    | running || waits     | running       | running one old 1 asked
cancel    | retry     | pending || waits     | pending       | pending - old 0
retry     | claim     | failed  || at once   | nothing       | pending - old 0
retry     | beat      | failed  || at once   | alive         | pending - old 0
retry     | complete  | failed  || at once   | lost          | pending - old 0
retry     | fail      | failed  || at once   | lost          | pending - old 0
retry     | hand back | failed  || at once   | lost          | pending - old 0
retry     | rescue    | failed  || at once   | nothing       | pending - old 0
retry     | cancel    | failed  || at once   | failed        | pending - old 0
retry     | retry     | failed  || waits     | WK020         | pending - old 0
"""
CELLS = [tuple(word.strip() for word in line.replace("||", "|").split("|")) for line in TABLE.strip().splitlines()[1:]]
OPERATIONS = ("claim", "beat", "complete", "fail", "hand back", "rescue", "cancel", "retry")
STATUSES = {"complete": "completed", "fail": "failed", "hand back": "pending"}
DONE = {"claim": "taken", "beat": "alive", "rescue": "rescued", "retry": "pending", **STATUSES}
UNRESCUED = "a running job belongs to a process that lives"
# The bounds of these waits are tested where each function is; here whoever waits shall wait to the end.
PATIENT = """
    select format('alter function %s set lock_timeout = ''60s''', p.oid::regprocedure) from pg_proc p
    where p.pronamespace = 'worker'::regnamespace and p.proconfig::text like '%lock_timeout%'
"""


class Stage:
    """One job and three processes: `one` has it, or will; `two` and `three` are about to rescue it."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.job = self.claim = self.one = self.two = self.three = 0

    async def set(self, before: str) -> None:
        """Nothing but a job that was claimed once, by `one`."""
        await self.queue.db.execute(CLEAN)
        await self.queue.declare("line", concurrency_key="{c}")
        self.one, self.two, self.three = [await self.queue.register() for _ in range(3)]
        self.job = await self.queue.enqueue("line", {"c": "x"})
        (taken,) = await self.queue.take(me=self.one, batch=1)
        self.claim = taken["claim"]
        if before != "running":
            await self.queue.settle(verdict(taken, before, counted=before == "failed"), me=self.one)

    async def do(self, operation: str, by: Queue, again: bool) -> str:
        """One of the operations over the session `by`; answers with what that was told. `again`: as the first did."""
        try:
            if operation == "claim":
                taken = await by.take(me=self.two if again else self.one, batch=2)
                return "taken" if taken else "nothing"
            if operation == "beat":
                alive: bool = await by.db.fetchval("select alive from worker.beat($1, 0)", self.one)
                return "alive" if alive else "dead"
            if operation == "rescue":
                return await self.rescue(by, self.three if again else self.two)
            if operation in STATUSES:
                said = verdict(self.held, STATUSES[operation], counted=operation != "hand back")
                return (await by.settle(said, me=self.one)).get(self.job, "lost")
            return str(await by.db.fetchval(f"select worker.{operation}($1)", self.job))
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)

    @property
    def held(self) -> Any:
        """The claim that `one` had in the beginning."""
        return {"id": self.job, "claim": self.claim}

    async def rescue(self, by: Queue, rescuer: int) -> str:
        if not await by.db.fetchval("select worker.mark_dead($1, $2)", rescuer, self.one):
            return "dead already"
        return "rescued" if await by.rescue(rescuer) else "nothing"

    async def row(self) -> str:
        row = await self.queue.row(self.job)
        who = {self.one: "one", self.two: "two", self.three: "three", None: "-"}[row["claimed_by"]]
        age = "old" if row["claim"] == self.claim else "new"
        asked = " asked" if row["cancel_requested_at"] else ""
        return f"{row['status']} {who} {age} {row['attempt']}{asked}"

    async def comes_to_its_end(self) -> None:
        """Whatever it went through, the job is no harder to finish than any other."""
        await self.queue.db.fetchval("select worker.mark_dead($1, $2)", self.three, self.one)
        for taken in [*await self.queue.rescue(self.three), *await self.queue.take(me=self.three, batch=99)]:
            await self.queue.settle(verdict(taken), me=self.three)
        row = await self.queue.row(self.job)
        if row["status"] == "running":  # held by one that lives
            await self.queue.settle(verdict(row), me=row["claimed_by"])
        assert (await self.queue.row(self.job))["finished_at"]
        assert await self.queue.count("worker.key_slot") == 0


@pytest.fixture
async def stage(queue: Queue) -> Stage:
    """In a database where nobody's wait for a lock is cut short."""
    for (patient,) in await queue.db.fetch(PATIENT):
        await queue.db.execute(patient)
    return Stage(queue)


@pytest.fixture
async def sessions(dsn: str) -> AsyncIterator[tuple[Queue, Queue]]:
    first, second = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    yield Queue(first), Queue(second)
    await first.close()
    await second.close()


def test_the_table_has_every_pair_in_both_orders() -> None:
    assert [cell[:2] for cell in CELLS] == [(first, second) for first in OPERATIONS for second in OPERATIONS]


@pytest.mark.parametrize("first", OPERATIONS)
async def test_every_pair_ends_as_the_table_says(stage: Stage, sessions: tuple[Queue, Queue], first: str) -> None:
    found = []
    for cell in (each for each in CELLS if each[0] == first):
        found.append((*cell[:3], *await played(stage, sessions, cell)))
        broken = [promise for promise, exceptions in PROMISES.items() if await stage.queue.db.fetch(exceptions)]
        assert broken == ([UNRESCUED] if cell[:2] == ("cancel", "rescue") else [])  # the next rescue finds it
        await stage.comes_to_its_end()
    assert found == [cell for cell in CELLS if cell[0] == first]


async def played(stage: Stage, sessions: tuple[Queue, Queue], cell: tuple[str, ...]) -> tuple[str, str, str]:
    """The two operations; whether the second waited, what it was told, and what the row is."""
    (a, b), (first, second, before) = sessions, cell[:3]
    await stage.set(before)
    transaction = a.db.transaction()
    await transaction.start()
    told = await stage.do(first, a, again=False)
    assert told == DONE.get(first, {"running": "running", "pending": "cancelled"}[before] if first == "cancel" else "")
    rival = asyncio.ensure_future(stage.do(second, b, again=first == second))
    waits = await is_blocked(stage.queue, rival, b.pid, a.pid)
    await transaction.commit()
    async with asyncio.timeout(PATIENCE):
        answer = await rival
    return "waits" if waits else "at once", answer, await stage.row()


async def is_blocked(observer: Queue, rival: "asyncio.Future[str]", waiting: int, holder: int) -> bool:
    """True as soon as Postgres says that the rival waits for the holder, false as soon as it has answered."""
    async with asyncio.timeout(PATIENCE):
        while not rival.done():
            if await observer.db.fetchval("select $2 = any (pg_blocking_pids($1))", waiting, holder):
                return True
    return False
