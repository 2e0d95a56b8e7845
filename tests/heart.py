"""The parts of the daemon over a real database, for tests that drive them by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from worker.config import Config, load
from worker.connection import connect
from worker.database import Database
from worker.job import Job
from worker.job_queue import JobQueue
from worker.lease import Events, Terms
from worker.service import Web, run
from worker.stop import Stop

DEADLINE = 20.0  # of every wait; never a timing that is asserted
QUICK = 'beat = "100ms"\nfence = "1500ms"\nmissing = "2s"\nlease = "4s"\npoll = "1s"\ngrace = "10s"'


async def until(connection: asyncpg.Connection, question: str, *arguments: Any, seconds: float = DEADLINE) -> Any:
    """Ask again and again until the answer is true, and give it; the deadline says what the answer was."""
    end = time.monotonic() + seconds
    while not (answer := await connection.fetchval(question, *arguments)):
        if time.monotonic() > end:
            raise AssertionError(f"still {answer!r} after {seconds:g} s: {question} {arguments}")
        await asyncio.sleep(0.02)
    return answer


async def becomes(true: Callable[[], Any], seconds: float = DEADLINE) -> None:
    """Wait for something in this process that nobody announces."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is asked is a counter or a list, not an event
            await asyncio.sleep(0.005)


def job(**fields: Any) -> Job:
    """A claimed row as the claim would give it."""
    given: dict[str, Any] = {
        "id": 1, "job_type": "work", "text": "{}", "priority": 100, "attempt": 1, "max_attempts": 5, "claim": 1,
        "tenant_id": None, "correlation_id": "c", "traceparent": None, "source": None, "parent_id": None,
        "concurrency_key": None, "rescues": 0, "snoozes": 0, "waited": 0.0, "remaining": None,
    }  # fmt: skip
    return Job(**given | fields)


def write_config(folder: Path, jobs: str, *, worker: str = QUICK, database: str = 'search_path = "public"') -> Path:
    """A worker.toml; the database's address comes from the environment."""
    path = folder / "worker.toml"
    path.write_text(f'environment = "test"\n[database]\n{database}\n[worker]\n{worker}\n{jobs}\n', encoding="utf-8")
    return path


def configured(folder: Path, dsn: str, jobs: str, **sections: str) -> Config:
    """A checked configuration for a database."""
    return load(write_config(folder, jobs, **sections), {"DATABASE_URL": dsn})


async def new_process(connection: asyncpg.Connection, lease: float = 30.0) -> int:
    """A row in worker.process, without anybody behind it."""
    me: int = await connection.fetchval("select worker.register('test', 0, '0', '{}', 1, $1)", timedelta(seconds=lease))
    return me


async def enqueue(connection: asyncpg.Connection, job_type: str = "work", payload: Any = None, **columns: Any) -> int:
    """Enqueue a job by SQL, as a producer does."""
    named = "".join(f", {name} => ${number}" for number, name in enumerate(columns, 3))
    job_id: int = await connection.fetchval(
        f"select worker.enqueue($1, $2::jsonb{named})",
        job_type,
        orjson.dumps(payload or {}).decode(),
        *columns.values(),
    )
    return job_id


async def declare(connection: asyncpg.Connection, *types: Mapping[str, Any]) -> None:
    """Declare job types as the daemon would."""
    declared = [{"digest": str(time.monotonic_ns()), **job_type} for job_type in types]
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(declared).decode())


async def row(connection: asyncpg.Connection, job_id: int) -> asyncpg.Record:
    found = await connection.fetchrow("select * from worker.job_queue where id = $1", job_id)
    assert found is not None
    return found


class Heart:
    """Both pools and the queue of one process."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        self.database = database
        self.queue = queue

    async def one(self) -> Job:
        """Claim exactly one."""
        (claimed,) = (await self.queue.claim(1)).jobs
        return claimed


@asynccontextmanager
async def heart(
    dsn: str, types: tuple[str, ...] = ("work",), *, control: str | None = None, size: int = 4
) -> AsyncIterator[Heart]:
    """The parts over the database at `dsn`; `control` is another way to it for the control pool."""
    connection = await connect(dsn, "beat")
    try:
        me = await new_process(connection)
        await connection.fetchrow("select * from worker.register_backend($1, 'beat')", me)
        await declare(connection, *({"name": name} for name in types))
        database = Database(control or dsn, dsn, size, "public")
        await database.open(me)
        try:
            yield Heart(database, JobQueue(database.control, me, list(types)))
        finally:
            await database.close()
    finally:
        await connection.close()


def terms(beat: float = 0.05, fence: float = 0.6, missing: float = 1.0, lease: float = 4.0) -> Terms:
    return Terms(beat, fence, missing, lease)


class Heard:
    """Events of a lease, written down."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.changed = asyncio.Event()

    def events(self) -> Events:
        def note(name: str) -> Callable[..., None]:
            def said(*about: Any) -> None:
                self.said.append((name, *about))
                self.changed.set()

            return said

        names = ("stops", "fenced", "confirmed", "suspect", "chores", "dead")
        return Events(*map(note, names))

    async def wait(self, name: str) -> tuple[Any, ...]:
        """The first event of this name, now or later."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for said in self.said:
                    if said[0] == name:
                        return said
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def daemon(config: Config, web: Web | None = None) -> AsyncIterator[tuple[Stop, "asyncio.Task[None]", int]]:
    """The whole service in this very loop; stopped at the end, and its error is ours."""
    stop = Stop()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def begins(me: int) -> None:
        if not ready.done():
            ready.set_result(me)

    task = asyncio.create_task(run(config, stop, begins, web=web))
    try:
        await asyncio.wait({task, ready}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield stop, task, await asyncio.wait_for(ready, DEADLINE)
    finally:
        stop.ask()
        stop.ask()
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.shield(task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# Steps that leave evidence, and one that waits at a gate: the advisory lock 77, which a test holds and opens.
EVIDENCE = """
create table fx (job_id bigint not null, step text not null, pid integer not null default pg_backend_pid(),
                 at timestamptz not null default clock_timestamp());
create function first_step(job_id bigint) returns void language sql as
  $$ insert into fx (job_id, step) values (job_id, 'first') $$;
create function second_step(job_id bigint) returns void language sql as
  $$ insert into fx (job_id, step) values (job_id, 'second') $$;
create function gated_step(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'gated'); perform pg_advisory_lock_shared(77); end $$;
create function brief_step(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'brief'); perform pg_sleep(0.02); end $$;
create function long_step(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'long'); perform pg_sleep(600); end $$;
"""
GATE = 77

# first and gated side by side, second after both.
GRAPH = """
[job.graph]
arguments = { job_id = "id" }
retry = { first = "1ms", max_attempts = 3 }
[job.graph.steps]
first = { sql = "first_step" }
gated = { sql = "gated_step" }
second = { sql = "second_step", needs = ["first", "gated"] }
"""


async def effects(connection: asyncpg.Connection) -> dict[tuple[int, str], int]:
    """How often each (job, step) took effect."""
    rows = await connection.fetch("select job_id, step, count(*) from fx group by 1, 2")
    return {(found["job_id"], found["step"]): found["count"] for found in rows}
