"""The queue as these tests speak to it: one method for each SQL function, and sessions of every role."""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from worker.job_queue import Verdict

PATIENCE = 20.0  # seconds after which a staged race counts as broken; nothing waits that long when all is well
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MEMBERS = {
    "app": "worker_enqueue",
    "other_app": "worker_enqueue",
    "tenant": "worker_tenant",
    "operator": "worker_operate",
    "reader": "worker_read",
    "runner": "worker_run",
    "nobody": None,
}


@dataclass(frozen=True)
class Claim:
    """What one call of worker.claim answered."""

    jobs: Sequence[asyncpg.Record]
    parked: int
    next_due: float | None
    xmin: int
    xmax: int
    places: str | None

    @property
    def ids(self) -> list[int]:
        return [job["id"] for job in self.jobs]


class Queue:
    """The SQL functions over one connection. `me` is a process that is registered when it is first needed."""

    def __init__(self, db: asyncpg.Connection) -> None:
        self.db = db
        self.me = 0
        self._batches = itertools.count(1)
        self.batch = 0

    async def declare(self, name: str = "plain", **keys: Any) -> str:
        """Declare one type and answer with its name."""
        await self.declare_all({"name": name, **keys})
        return name

    async def declare_all(self, *types: dict[str, Any]) -> list[tuple[str, str]]:
        """Declare types, each with a digest of its own so that every call is a change."""
        given = [{"digest": uuid.uuid4().hex, **each} for each in types]
        return [tuple(row) for row in await self.db.fetch("select * from worker.declare($1::jsonb)", json.dumps(given))]

    async def enqueue(self, job_type: str = "plain", payload: Any = None, **named: Any) -> int:
        """worker.enqueue with named arguments."""
        given = {"job_type": job_type, "payload": json.dumps({} if payload is None else payload), **named}
        listed = ", ".join(f"{name} => ${number}" for number, name in enumerate(given, start=1))
        return await self.db.fetchval(f"select worker.enqueue({listed})", *given.values())

    async def enqueue_many(self, job_type: str, *payloads: Any) -> int:
        """worker.enqueue_many; answers with how many rows were added."""
        return await self.db.fetchval(
            "select worker.enqueue_many($1, $2::jsonb[])", job_type, [json.dumps(each) for each in payloads]
        )

    async def register(self, types: Sequence[str] = (), lease: float = 30, pooled: bool = False) -> int:
        """A new process; the first one becomes `me`."""
        process = await self.db.fetchval(
            "select worker.register('host', 1, '0', $1, 10, $2, $3)", list(types), timedelta(seconds=lease), pooled
        )
        self.me = self.me or process
        return process

    async def claim(
        self,
        n: int = 100,
        types: Sequence[str] | None = None,
        me: int | None = None,
        batch: int | None = None,
        after: str | None = None,
    ) -> Claim:
        """worker.claim for all declared types, under the next number, from the beginning, unless told otherwise."""
        if types is None:
            types = [name for (name,) in await self.db.fetch("select name from worker.job_type")]
        self.batch = batch or next(self._batches)
        me = me or self.me or await self.register()
        call = "select * from worker.claim($1, $2, $3, $4, $5)"
        row = await self.db.fetchrow(call, me, self.batch, list(types), n, after)
        return Claim(row["jobs"], row["parked"], row["next_due"], row["xmin"], row["xmax"], row["places"])

    async def take(self, n: int = 100, **named: Any) -> list[asyncpg.Record]:
        """The claimed jobs only."""
        return list((await self.claim(n, **named)).jobs)

    async def settle(self, *verdicts: Verdict, me: int | None = None) -> dict[int, str]:
        """worker.settle, or worker.complete as the daemon would; answers with the status by id, without the lost."""
        if verdicts and all(verdict.plain for verdict in verdicts):
            lost = await self.complete(*verdicts, me=me)
            return {verdict.id: "completed" for verdict in verdicts if verdict.id not in lost}
        rows = await self.db.fetch("select * from worker.settle($1, $2)", me or self.me, verdicts)
        return {row["id"]: row["status"] for row in rows}

    async def complete(self, *verdicts: Verdict, me: int | None = None) -> list[int]:
        """worker.complete; answers with the ids whose claim was lost."""
        ids, claims = [verdict.id for verdict in verdicts], [verdict.claim for verdict in verdicts]
        return await self.db.fetchval("select worker.complete($1, $2, $3)", me or self.me, ids, claims)

    async def rescue(self, me: int, n: int = 100) -> list[asyncpg.Record]:
        """worker.rescue under the next number."""
        return await self.db.fetch("select * from worker.rescue($1, $2, $3)", me, next(self._batches), n)

    async def bury(self, process: int, by: int) -> list[asyncpg.Record]:
        """Mark a process dead, whatever its sessions say, and rescue what it held."""
        assert await self.db.fetchval("select worker.mark_dead($1, $2)", by, process)
        return await self.rescue(by)

    async def sweep(self) -> int:
        return await self.db.fetchval("select worker.sweep()")

    async def clock(self, at: datetime | None = None) -> None:
        """Stop worker.now() at an instant, or let it run."""
        await self.db.execute("select worker.set_clock($1)", at)

    async def row(self, id: int) -> asyncpg.Record:
        """The row as the table has it, with xmin."""
        found = await self.db.fetchrow("select xmin::text, j.* from worker.job_queue j where id = $1", id)
        assert found is not None
        return found

    async def statuses(self) -> dict[int, str]:
        return dict(await self.db.fetch("select id, status from worker.job_queue order by id"))

    async def count(self, table: str = "worker.job_queue") -> int:
        return await self.db.fetchval(f"select count(*) from {table}")

    @property
    def pid(self) -> int:
        return self.db.get_server_pid()


def verdict(job: asyncpg.Record, status: str = "completed", **fields: Any) -> Verdict:
    """What became of a claimed job; counted, at once and without an error unless said."""
    given = {
        "reason": None,
        "delay": 0.0,
        "until": None,
        "counted": True,
        "snoozed": False,
        "keep_steps": True,
        "error": None,
        "result": None,
    }
    return Verdict(id=job["id"], claim=job["claim"], status=status, **(given | fields))


@contextlib.contextmanager
def refused(sqlstate: str, text: str = "") -> Iterator[pytest.ExceptionInfo[asyncpg.PostgresError]]:
    """The statement inside is refused with this SQLSTATE, and says this."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        yield caught
    assert (caught.value.sqlstate, text in str(caught.value)) == (sqlstate, True), str(caught.value)


async def until_blocked(observer: Queue, *waiting: Queue) -> None:
    """Return once Postgres itself says that each of these sessions waits for a lock."""
    pids = [each.pid for each in waiting]
    async with asyncio.timeout(PATIENCE):
        while len(pids) != await observer.db.fetchval(
            "select count(*) from pg_stat_activity where pid = any ($1) and wait_event_type = 'Lock'", pids
        ):
            pass


@contextlib.asynccontextmanager
async def blocked(observer: Queue, waiting: Queue, call: Awaitable[Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a call of `waiting` that must wait for a lock; inside, it waits; awaiting the task gives its answer."""
    task = asyncio.ensure_future(call)
    try:
        await until_blocked(observer, waiting)
        yield task
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([task])
    finally:
        if not task.done():
            task.cancel()


@pytest.fixture(scope="session")
async def roles(maintenance: asyncpg.Connection, template: str) -> AsyncIterator[dict[str, str]]:
    """Roles that nobody else has: each a member of one of the worker roles, `nobody` of none."""
    names = {short: f"{short}_{uuid.uuid4().hex[:8]}" for short in MEMBERS}
    for short, group in MEMBERS.items():
        await maintenance.execute(f"create role {names[short]} {f'in role {group}' if group else ''}")
    yield names
    for name in names.values():
        await maintenance.execute(f"drop role {name}")


@pytest.fixture
async def queue(connection: asyncpg.Connection) -> Queue:
    """The queue over the test's own connection, as its owner."""
    return Queue(connection)


@pytest.fixture
async def session(dsn: str, roles: dict[str, str]) -> AsyncIterator[Callable[..., Awaitable[Queue]]]:
    """Opens another session, as one of `roles` or as the owner."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_session(role: str | None = None, **settings: str) -> Queue:
            db = await asyncpg.connect(dsn, server_settings=settings)
            stack.push_async_callback(_end, db)
            if role is not None:
                await db.execute(f"set session authorization {roles[role]}")
            return Queue(db)

        yield open_session


async def _end(db: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.PostgresError, OSError):
        await db.close(timeout=PATIENCE)
