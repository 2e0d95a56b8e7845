"""How late the event loop wakes while work that computes is done beside it."""

from typing import Any

import asyncpg
import orjson

from bench.computing import BURN_SECONDS
from bench.figure import Figure
from bench.flow import daemons, until
from bench.ground import Ground
from bench.progress import repeated

AT_ONCE = 2  # children, and threads
PULSE_SECONDS = 10.0
SETTINGS = f'concurrency = {AT_ONCE + 1}\nprefetch = 0\nprocesses = {AT_ONCE}\ngrace = "1s"'
JOBS = "".join(f'[job.{name}]\npython = "bench.computing:{name}"\n' for name in ("pulse", "by_children", "by_threads"))
STARTED = "select count(*) >= $1 from worker.job_queue where job_type <> 'pulse' and status = 'running'"


async def children(ground: Ground, runs: int) -> Figure:
    """Lag of the loop while two children compute without a pause; beside it threads, and nothing."""
    told = await repeated("children", runs, lambda: _children(ground))
    return Figure.of("children", "ms late, 99th percentile", "< 50 ms, longest_ms < 50 ms", told)


async def _children(ground: Ground) -> dict[str, float]:
    seconds = max(PULSE_SECONDS * min(ground.scale, 1.0), 0.5)
    idle, computing, threads = [await _beside(ground, seconds, what) for what in (None, "by_children", "by_threads")]
    return {
        "value": computing["p99_ms"], "p50_ms": computing["p50_ms"], "longest_ms": computing["longest_ms"],
        "idle_p99_ms": idle["p99_ms"], "idle_longest_ms": idle["longest_ms"],
        "threads_p99_ms": threads["p99_ms"], "threads_longest_ms": threads["longest_ms"],
    }  # fmt: skip


async def _beside(ground: Ground, seconds: float, what: str | None) -> dict[str, Any]:
    """The pulse while AT_ONCE jobs of a type are always under way."""
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, SETTINGS, JOBS),
    ):
        if what is not None:
            enough = int(AT_ONCE * seconds / BURN_SECONDS) * 2 + AT_ONCE
            await connection.execute(
                "select worker.enqueue_many($1, array_fill('{}'::jsonb, array[$2::integer]))", what, enough
            )
            await until(connection, STARTED, AT_ONCE)
        return await _pulse(connection, seconds)


async def _pulse(connection: asyncpg.Connection, seconds: float) -> dict[str, Any]:
    given = orjson.dumps({"seconds": seconds}).decode()
    job = await connection.fetchval("select worker.enqueue('pulse', $1::jsonb, priority => 0)", given)
    await until(connection, "select status = 'completed' from worker.job_queue where id = $1", job)
    told: dict[str, Any] = orjson.loads(
        await connection.fetchval("select result from worker.job_queue where id = $1", job)
    )
    return told
