"""A step of a Python handler: one SQL function, run once for the job, whose answer is kept with its mark."""

from collections.abc import Mapping
from typing import Any

import asyncpg

from worker import exact
from worker.connection import CONTROL_SECONDS
from worker.database import Pool, borrowed, persistently
from worker.errors import Permanent
from worker.job import Job
from worker.job_queue import JobQueue
from worker.step import Call, StepError, StepRunner, translated

_POOLED = "behind a transaction pooler no step can be stopped or kept from running twice: set database.direct_url"


async def run_once(
    runner: StepRunner,
    queue: JobQueue,
    pool: "asyncpg.Pool[asyncpg.Record]",
    job: Job,
    call: Call,
) -> Any:
    """Run a step unless an earlier attempt has; answers with what its function answered, now or then.

    Args:
        call: without its text, which is made here.
    """
    if isinstance(pool, Pool) and not pool.way.keeps:
        raise Permanent(_POOLED)
    kept = await _opened(queue, job, call.step)
    if not kept["done"]:
        text = await _text(pool, call.step, call.function, call.arguments)
        await runner.run(job, Call(call.step, call.function, text, call.arguments, timeout=call.timeout))
        kept = await _opened(queue, job, call.step)  # what the run itself answers is cut short
    return None if kept["result"] is None else exact.loads(kept["result"])


async def _opened(queue: JobQueue, job: Job, step: str) -> asyncpg.Record:
    try:
        async for attempt in persistently():
            with attempt:
                return await queue.open_step(job, step)
    except asyncpg.PostgresError as error:
        raise translated(error, job, step) from None
    raise AssertionError("unreachable")


async def _text(pool: "asyncpg.Pool[asyncpg.Record]", step: str, function: str, arguments: Mapping[str, Any]) -> str:
    async with borrowed(pool, CONTROL_SECONDS) as connection:
        row = await connection.fetchrow(
            "select call, fault from worker.step_call($1, $2)", function, list(arguments), timeout=30
        )
    assert row is not None
    if row["fault"]:
        raise StepError(f"step {step}: {row['fault']}")
    return str(row["call"])
