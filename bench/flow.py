"""A queue that is filled, and daemons that empty it: what the measurements of throughput have in common."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import orjson

from bench.ground import ROOT, Ground, cpu

FAST = "concurrency = 1000\nprefetch = 2000"
PLAIN = ""  # the settings' defaults
NOOP = '[job.noop]\npython = "bench.noop:noop"\n'
BATCH, LANES = 500, 2  # of the raw drain
UP_SECONDS = 60.0
DONE_SECONDS = 600.0

Processes = Sequence["subprocess.Popen[bytes]"]


@asynccontextmanager
async def daemons(
    ground: Ground, dsn: str, connection: asyncpg.Connection, settings: str = FAST, jobs: str = NOOP, *, count: int = 1
) -> AsyncIterator[Processes]:
    """So many daemons, up and asleep before the jobs come."""
    config = ground.configure(jobs, settings)
    async with AsyncExitStack() as stack:
        command = ("-m", "worker", "run", "--config", str(config))
        running = [await stack.enter_async_context(ground.process(dsn, *command)) for _ in range(count)]
        try:
            await until(connection, "select bench.asleep() >= $1", count, seconds=UP_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{ground.said()}") from None
        yield running


async def emptied(ground: Ground, connection: asyncpg.Connection, running: Processes, jobs: int) -> dict[str, float]:
    """Put so many jobs in, in one commit: jobs a second from the first start to the last end, and CPU time a job."""
    since = await connection.fetchval("select bench.newest()")
    before, before_postgres = _cpu(running), ground.backends_cpu()
    await connection.execute("select bench.fill($1)", jobs)
    filled = ground.backends_cpu() - before_postgres
    await until(connection, "select bench.is_done($1)", since)
    worker, postgres = _cpu(running) - before, ground.backends_cpu() - before_postgres - filled
    seconds = await connection.fetchval("select bench.span($1)", since)
    return {"value": jobs / seconds, "worker_cpu_us": worker / jobs * 1e6, "postgres_cpu_us": postgres / jobs * 1e6}


async def raw_emptied(
    ground: Ground, dsn: str, jobs: int, seconds: float = 0.0, batch: int = BATCH
) -> dict[str, float]:
    """The same of the raw table, which `raw_fill` filled, by raw SQL."""
    before = ground.backends_cpu()
    command = [sys.executable, "-m", "bench.raw_drain", dsn, str(seconds), str(batch), str(LANES)]
    said = await asyncio.to_thread(subprocess.check_output, command, cwd=ROOT, timeout=DONE_SECONDS)
    told = orjson.loads(said)
    assert told["jobs"] == jobs, told
    return {"value": jobs / told["seconds"], "postgres_cpu_us": (ground.backends_cpu() - before) / jobs * 1e6}


async def until(
    connection: asyncpg.Connection, question: str, *arguments: object, seconds: float = DONE_SECONDS
) -> None:
    """Ask until the answer is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + seconds
    while not await connection.fetchval(question, *arguments):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not after {seconds:.0f} s: {question}")
        await asyncio.sleep(0.05)


def medians(told: Sequence[dict[str, float]]) -> dict[str, float]:
    """By name, over several rounds."""
    return {name: statistics.median(each[name] for each in told) for name in told[0]}


def _cpu(running: Processes) -> float:
    return sum(cpu(each.pid) for each in running)
