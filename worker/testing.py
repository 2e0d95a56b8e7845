"""For authors of handlers: one job at a time, inline, against a real database, with the clock in hand.

async with bench(dsn, Path("worker.toml")) as at:
    job = await at.enqueue("reminder", {"user": 7})
    assert isinstance(await at.run(job), Snoozed)
    await at.move_clock("25h")
    assert isinstance(await at.run(job), Completed)
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from worker import exact
from worker.config import Config, duration, load
from worker.connection import connect, register
from worker.database import Database
from worker.errors import WorkerError
from worker.job import Job
from worker.metrics import Metrics
from worker.migrations import verify
from worker.outcome import Outcome
from worker.parts import Parts
from worker.report import Reporter

__all__ = ["Bench", "NotDue", "bench"]

_LEASE = timedelta(days=36_500)  # the clock is moved, and nobody beats
_BATCH = 1
_ENQUEUE = """
    select worker.enqueue(j.job_type, coalesce(j.payload, '{}'), scheduled_at => j.scheduled_at, delay => j.delay,
      priority => j.priority, unique_key => j.unique_key, on_conflict => j.on_conflict,
      concurrency_key => j.concurrency_key, tenant_id => j.tenant_id, max_attempts => j.max_attempts,
      expires_at => j.expires_at, correlation_id => j.correlation_id, source => j.source)
    from jsonb_to_record($1::jsonb) as j (job_type text, payload jsonb, scheduled_at timestamptz, delay interval,
      priority integer, unique_key text, on_conflict text, concurrency_key text, tenant_id text, max_attempts integer,
      expires_at timestamptz, correlation_id text, source text)
"""
_COLUMNS = {
    "scheduled_at", "delay", "priority", "unique_key", "on_conflict", "concurrency_key", "tenant_id", "max_attempts",
    "expires_at", "correlation_id", "source",
}  # fmt: skip


class NotDue(WorkerError):
    """A worker would not claim this job now; the message is what `worker.explain_job` says."""


class Bench:
    """One process that claims only what it is told to.

    Attributes:
        connection: to the database, for whatever a test wants to look at.
        config: as it was loaded.
    """

    def __init__(self, config: Config, connection: asyncpg.Connection, parts: Parts, outcomes: "_Outcomes") -> None:
        self.config = config
        self.connection = connection
        self._parts = parts
        self._outcomes = outcomes
        self._shift = timedelta()

    async def enqueue(self, job_type: str, payload: Any = None, **columns: Any) -> int:
        """Enqueue by `worker.enqueue`; answers with the id.

        Args:
            columns: what `worker.enqueue` takes beside: delay ("5 minutes"), tenant_id, unique_key, …

        Raises:
            TypeError: one of them is no argument of `worker.enqueue`.
        """
        if unknown := sorted(columns.keys() - _COLUMNS):
            raise TypeError(f"worker.enqueue has no {', '.join(unknown)}")
        given = {"job_type": job_type, "payload": {} if payload is None else payload, **columns}
        job: int = await self.connection.fetchval(_ENQUEUE, exact.dumps(given, default=str).decode())
        return job

    async def run(self, job: int) -> Outcome:
        """Claim this job as a daemon would, run its handler in this very loop, settle; answers with the outcome.

        Raises:
            NotDue: no worker would claim it now.
        """
        row = await self.connection.fetchrow(
            "select * from worker.claim_job($1, $2, $3)", self._parts.queue.me, _BATCH, job
        )
        if row is None:
            said = await self.connection.fetchrow("select code, sentence from worker.explain_job($1)", job)
            assert said is not None
            raise NotDue(f"job {job}: {said['code']}: {said['sentence']}")
        await self._parts.executor.execute([Job(*row)])
        return self._outcomes.of.pop(job)

    async def job(self, job: int) -> dict[str, Any]:
        """The job as `worker.show_job` has it: the row of `worker.jobs` with its steps and events."""
        found: dict[str, Any] = exact.loads(await self.connection.fetchval("select worker.show_job($1)", job))
        return found

    async def move_clock(self, by: str | timedelta) -> datetime:
        """Move `worker.now()` on, by "25h" or a timedelta; answers with the time it is then."""
        self._shift += by if isinstance(by, timedelta) else timedelta(seconds=duration.parse(by))
        now: datetime = await self.connection.fetchval("select worker.set_clock(shift => $1)", self._shift)
        return now

    async def stop_clock(self, at: datetime) -> datetime:
        """Stop `worker.now()` at an instant; `move_clock` sets it going again."""
        now: datetime = await self.connection.fetchval("select worker.set_clock($1)", at)
        return now


@asynccontextmanager
async def bench(dsn: str, config: Config | Path) -> AsyncIterator[Bench]:
    """A bench over the migrated database at `dsn`, for tests alone: its clock is moved, its types are declared.

    Args:
        dsn: a login that owns the schema, as the one that migrated does.
        config: a worker.toml, or what was loaded from one; must not be of `environment = "production"`.

    Raises:
        SchemaError, DeclarationError: as the daemon does at its start.
    """
    environ = {**os.environ, "DATABASE_URL": dsn, "DATABASE_URL_FILE": ""}
    loaded = config if isinstance(config, Config) else load(config, environ)
    if loaded.environment == "production":
        raise ValueError('a bench moves the clock of its database: not with environment = "production"')
    connection = await connect(dsn, "bench")
    try:
        await verify(connection)
        async with _parts(dsn, loaded, connection) as (parts, outcomes):
            try:
                yield Bench(loaded, connection, parts, outcomes)
            finally:
                await connection.execute("select worker.set_clock()")
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def _parts(dsn: str, config: Config, connection: Any) -> "AsyncIterator[tuple[Parts, _Outcomes]]":
    types = dict(config.job)
    about = (socket.gethostname(), os.getpid(), "bench", list(types), 1, _LEASE)
    me = await connection.fetchval("select worker.register($1, $2, $3, $4, $5, $6)", *about)
    await register(connection, me, "beat")
    database, metrics = (
        Database(dsn, dsn, config.database.steps, config.database.search_path),
        Metrics.of(config, "bench"),
    )
    await database.open(me)
    try:
        parts = Parts(config, types, database, metrics, me=me, dead=asyncio.Event())
        parts.reporter = outcomes = _Outcomes(metrics, types, config.worker.log_slow)
        await parts.build()
        await parts.queue.declare(config.declarations())
        settling = asyncio.create_task(parts.settler.run())
        try:
            yield parts, outcomes
        finally:
            settling.cancel()
            await parts.children.close()
            await parts.outbound.close()
            await parts.queue.leave()
    finally:
        await database.close()


class _Outcomes(Reporter):
    """Keeps the outcome of each job beside reporting it."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.of: dict[int, Outcome] = {}

    def attempt(self, job: Job, outcome: Outcome, seconds: float, status: str | None) -> None:
        super().attempt(job, outcome, seconds, status)
        self.of[job.id] = outcome
