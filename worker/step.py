"""One SQL step: run under a claim, repeated where that is safe, and really stopped when it must stop.

`worker.run_step` makes a step's effect and its mark one transaction, so a lost answer is never guessed: the same call
is sent again under the same claim, waits for its orphan and finds the mark.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import orjson
import structlog

from worker import exact
from worker.connection import Connection
from worker.database import DATABASE_ERRORS, borrowed, is_transient, persistently
from worker.errors import CancelRequested, JobError, LostClaim, StepTimeout
from worker.job import Job
from worker.job_queue import JobQueue
from worker.log import job_fields
from worker.ongoing import OpenStep
from worker.outcome import clean
from worker.timeline import Shown

RACES = 3  # repeats after a deadlock, a serialization failure or a stranger's cancel
_RACE = ("40001", "40P01", "57014")
_FINAL = (*_RACE, "55P03")  # passing for the queue's own calls, but said by the function itself here
CANCEL_SECONDS = 0.5  # what a cancelled statement is given before its connection is ended
END_SECONDS = 5.0
DEFAULT_SECONDS = 300.0
LOOKS = 10  # runs of a step, of a process's first, after which advisory locks are looked for
LOOK_EVERY = 100  # later

# The frame of worker.run_step in an error's context; the words around name and EXECUTE are in the server's language.
_RUN_STEP = re.compile(r"^.*\brun_step\(bigint.*$", re.MULTILINE)

_runs: Counter[tuple[str, str]] = Counter()  # by job type and function: so many and no more, unlike names of steps

_log = structlog.get_logger()


class StepBusy(JobError):
    """Another run of the same step and key held its lock for the step's whole timeout."""


class StepError(JobError):
    """The step's function raised; the message carries its SQLSTATE."""


@dataclass(frozen=True, slots=True)
class Call:
    """A step ready to be sent.

    Attributes:
        step: its name in the job's timeline.
        function: the function's name, which its lock is taken on.
        text: the SELECT that `worker.step_call` made.
        arguments: by argument name.
        tags: written with the mark.
        timeout: seconds on the server.
    """

    step: str
    function: str
    text: str
    arguments: dict[str, Any]
    tags: tuple[str, ...] = ()
    timeout: float = DEFAULT_SECONDS


class Watch:
    """Who is told of steps; this one keeps it to itself."""

    def step(self, job: Job, step: str, seconds: float, error: BaseException | None) -> None:
        """One run of a step is over."""

    def database_error(self, error: BaseException) -> None:
        """A statement of a step ended with an error, which may yet be repeated."""


class StepRunner:
    """Runs steps on the step pool, and ends them through the control pool."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", queue: JobQueue, watch: Watch | None = None) -> None:
        self._pool = pool
        self._queue = queue
        self._watch = watch or Watch()

    async def run(self, job: Job, call: Call) -> Any:
        """Run one step to its mark; answers with the function's result, or None when it was done before.

        Raises:
            LostClaim, CancelRequested: nothing was written.
            StepBusy: its lock was held throughout.
            StepTimeout, StepError: its transaction rolled back; recorded on the timeline.
        """
        shown = Shown(self._queue, job, call.step)
        try:
            result = await self._persist(job, call)
        except BaseException as error:
            self._watch.step(job, call.step, shown.seconds, error)
            if isinstance(error, StepTimeout | StepError):
                await shown.failed(clean(str(error)))
            raise
        finally:
            await shown.over()
        self._watch.step(job, call.step, shown.seconds, None)
        return result

    async def begin(self, job: Job, names: Sequence[str]) -> list[OpenStep]:
        """Open the timeline of an attempt; raises LostClaim or CancelRequested."""
        try:
            async for attempt in persistently():
                with attempt:
                    return await self._queue.begin_steps(job, names)
        except asyncpg.PostgresError as error:
            raise translated(error, job, "begin") from None
        raise AssertionError("unreachable")

    async def _persist(self, job: Job, call: Call) -> Any:
        races, lost, until = 0, 0, time.monotonic() + call.timeout
        while True:
            try:
                return await self._once(job, call)
            except DATABASE_ERRORS as error:
                self._watch.database_error(error)
                sqlstate = getattr(error, "sqlstate", None)
                if sqlstate == "WK010" and _marked(error) and time.monotonic() < until:
                    continue
                if sqlstate in _RACE and races < RACES:
                    races += 1
                    await asyncio.sleep(random.uniform(0, 0.05 * 2**races))  # or the same two would meet again
                elif sqlstate not in _FINAL and is_transient(error) and time.monotonic() < until:
                    lost += 1
                    await asyncio.sleep(min(0.05 * 2**lost, 1.0))
                else:
                    raise translated(error, job, call.step) from None

    async def _once(self, job: Job, call: Call) -> Any:
        told = partial(tell_left, job, step=call.step, function=call.function)
        async with borrowed(self._pool, told=told, locks=_due(job, call), later=True) as connection:
            await connection.limit(call.timeout)
            began, sent = time.monotonic(), asyncio.ensure_future(self._send(connection, job, call))
            try:
                row = await asyncio.shield(sent)
            except asyncio.CancelledError:
                await asyncio.shield(self._stop(connection, sent))
                raise
            except TimeoutError:  # it caught the server's timeout, and asyncpg's cancel as well
                await asyncio.shield(self._stop(connection, sent, hard=True))
                raise StepTimeout(f"step {call.step} did not end at its timeout of {call.timeout:g} s") from None
            except asyncpg.PostgresError as error:
                if error.sqlstate == "57014" and time.monotonic() - began >= call.timeout - 0.001:
                    self._watch.database_error(error)
                    raise StepTimeout(f"step {call.step} ran past its timeout of {call.timeout:g} s") from None
                if error.sqlstate in _FINAL or not _from_below(error):
                    raise
                self._watch.database_error(error)
                raise translated(error, job, call.step) from None
            return _decoded(row["result"])

    async def _send(self, connection: Connection, job: Job, call: Call) -> asyncpg.Record:
        row = await connection.fetchrow(
            "select * from worker.run_step($1, $2, $3, $4, $5, $6::jsonb, $7, $8)",
            job.id, job.claim, call.step, call.function, call.text,
            orjson.dumps(call.arguments).decode(), job.concurrency_key, list(call.tags),
            timeout=call.timeout + CANCEL_SECONDS + END_SECONDS,
        )  # fmt: skip
        assert row is not None
        return row

    async def _stop(self, connection: Connection, sent: "asyncio.Future[asyncpg.Record]", hard: bool = False) -> None:
        # A cancelled task says nothing about the server: a function may catch the cancel and commit at its leisure.
        # The connection is never used again, so that no late cancel hits somebody else's statement.
        try:
            pid, start = connection.get_server_pid(), connection.backend_start
            if not hard:
                await self._queue.stop_backend(pid, start, hard=False)
                await asyncio.wait({sent}, timeout=CANCEL_SECONDS)
            if hard or not sent.done():
                await self._queue.stop_backend(pid, start, hard=True)
                await asyncio.wait({sent}, timeout=END_SECONDS)
        except DATABASE_ERRORS as error:
            _log.warning("step.stop_failed", error=type(error).__name__)
        finally:
            with suppress(asyncpg.InterfaceError):  # the server ended it, and the pool has let it go already
                connection.terminate()
            await asyncio.gather(sent, return_exceptions=True)


def _decoded(text: str | None) -> Any:
    # The step is done whatever its result looks like: cut short by the server, or nested deeper than Python reads.
    try:
        return exact.loads(text) if text else None
    except ValueError as error:
        return {"not_kept": clean(str(error))}


def tell_left(job: Job, left: Sequence[str], **where: str) -> None:
    """Say what was left behind on a step connection; it is undone by then."""
    _log.warning("step.leaked", left=list(left), **where, **job_fields(job))


def _due(job: Job, call: Call) -> bool:
    """True when this run of a step is one after which advisory locks are looked for: asking is dear."""
    _runs[job.job_type, call.function] += 1
    return _runs[job.job_type, call.function] <= LOOKS or _runs[job.job_type, call.function] % LOOK_EVERY == 0


def _marked(error: BaseException) -> bool:
    # A function may raise any SQLSTATE, ours too. Ours name the schema `worker`, which nobody does by accident; against
    # a function that wants to be believed this is no guard, nor need it be: it runs with the daemon's own rights.
    return getattr(error, "schema_name", None) == "worker"


def _from_below(error: asyncpg.PostgresError) -> bool:
    # An ERROR, unlike FATAL, leaves the connection intact. Whatever code it bears (read-only, disk full, dblink's lost
    # connection), it is the step's when it came out of run_step's EXECUTE, or out of a trigger at the commit.
    if error.severity_en != "ERROR" or not error.context:
        return False
    frames = _RUN_STEP.findall(error.context)
    return not frames or "EXECUTE" in frames[-1]


def translated(error: BaseException, job: Job, step: str) -> JobError:
    """An error of the database as what it means for the job."""
    sqlstate = getattr(error, "sqlstate", None)
    named = f"step {step}: {sqlstate or type(error).__name__} {error}"
    if str(sqlstate).startswith("WK") and not _marked(error):
        return StepError(named)
    match sqlstate:
        case "WK001":
            return LostClaim(f"claim {job.claim} of job {job.id} is not current")
        case "WK009":
            return CancelRequested("cancelled")
        case "WK010":
            return StepBusy(named)
    return StepError(named)
