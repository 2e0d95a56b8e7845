"""What a step costs beside the bare call of its function."""

import statistics
import time

import asyncpg

from bench.figure import Figure
from bench.flow import PLAIN, daemons, until
from bench.ground import Ground, cpu_of_threads
from bench.progress import repeated

STEPS = 20  # of a job, one after the other
JOBS, UNCOUNTED = 20, 5
CALLS = 500
FUNCTION = "bench.nothing"


async def step(ground: Ground, runs: int) -> Figure:
    """A step of a function that does nothing: transaction, fence and mark, above the bare call."""
    told = await repeated("step", runs, lambda: _step(ground))
    return Figure.of("step", "ms more than bare", "< 1 ms", told)


async def _step(ground: Ground) -> dict[str, float]:
    lines = "\n".join(f's{n} = {{ sql = "{FUNCTION}" }}' for n in range(STEPS))
    declared = f"[job.steps]\nparallel = 1\n[job.steps.steps]\n{lines}\n"
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, PLAIN, declared) as running,
    ):
        jobs = ground.sized(JOBS, least=3)
        for _ in range(UNCOUNTED):
            await _job(connection)
        worker, postgres = cpu_of_threads(running[0].pid), ground.backends_cpu()
        spans = [await _job(connection) for _ in range(jobs)]
        worker, postgres = cpu_of_threads(running[0].pid) - worker, ground.backends_cpu() - postgres
        calls = ground.sized(CALLS, least=20)
        bare = await _each(connection, calls, ("select bench.nothing()",))
        alone = await _each(connection, calls, ("begin", "select bench.nothing()", "commit"))
    return {
        "value": statistics.median(spans) / STEPS * 1000 - bare,
        "bare_ms": bare,
        "bare_transaction_ms": alone,
        "worker_cpu_us": worker / jobs / STEPS * 1e6,
        "postgres_cpu_us": postgres / jobs / STEPS * 1e6,
    }


async def _job(connection: asyncpg.Connection) -> float:
    job_id = await connection.fetchval("select worker.enqueue('steps')")
    await until(connection, "select bench.took($1) is not null", job_id)
    took: float = await connection.fetchval("select bench.took($1)", job_id)
    return took


async def _each(connection: asyncpg.Connection, count: int, statements: tuple[str, ...]) -> float:
    """Milliseconds of one round of the statements."""
    began = time.perf_counter()
    for _ in range(count):
        for statement in statements:
            await connection.execute(statement)
    return (time.perf_counter() - began) / count * 1000
