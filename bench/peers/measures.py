"""What is measured of each queue; each measure in a fresh database, each figure under a name of its own."""

import asyncio
import json
import time
from asyncio.subprocess import Process
from typing import Any

import asyncpg

from bench.ground import Ground, cpu, memory
from bench.latency import percentile
from bench.peers.adapter import Adapter, TooSlowError, producers_cpu
from bench.peers.process import WARM

ONE_BY_ONE = 2_000
DRAIN_SECONDS = 60.0
START_SECONDS = 40.0
PICKUPS, PICKUPS_A_SECOND, COLD = 200, 50, 20
RATE, RATE_SECONDS = 500, 8
STREAM_SECONDS = 45.0
CRASHED, CRASH_SECONDS = 100, 60.0


async def drain(adapter: Adapter, ground: Ground) -> dict[str, float]:
    """Putting jobs in, one by one and in bulk; then from the first handler until no job is open."""
    async with adapter.database() as (dsn, connection):
        figures = await adapter.enqueue(dsn, ground.sized(ONE_BY_ONE, 100), ground.sized(adapter.entry.jobs, 500))
        jobs = await connection.fetchval(adapter.entry.open_jobs())
        await connection.execute("analyze")
        before = ground.backends_cpu()
        async with adapter.worker(dsn, jobs) as work:
            told = await work.told(DRAIN_SECONDS)
            ended = max(told["last"], await _until_none_is_open(connection, adapter))
            used = ground.backends_cpu() - before
            figures |= {
                "drain": jobs / (ended - told["first"]),
                "drain_worker_cpu": max(cpu(work.process.pid) - told["cpu"], 0) / jobs * 1e6,
                "drain_postgres_cpu": used / jobs * 1e6,
                "drain_memory": memory(work.process.pid),
            }
    return figures


async def _until_none_is_open(connection: asyncpg.Connection, adapter: Adapter) -> float:
    """When it was asked for the first time that none was found: the counting itself takes long in a full table."""
    query, deadline = adapter.entry.any_open(), time.time() + DRAIN_SECONDS
    while True:
        asked = time.time()
        left = await connection.fetchval(query)
        if not left:
            return asked
        if asked > deadline:
            raise TooSlowError("not all jobs were marked as done")
        await asyncio.sleep(0.005)


async def pickup(adapter: Adapter, ground: Ground) -> dict[str, float]:
    """From just before the enqueue until the handler begins, in a worker that has nothing else to do."""
    waits, _ = await _streamed(adapter, ground, ground.sized(PICKUPS, 20) + COLD, PICKUPS_A_SECOND)
    warm = waits[COLD:]
    return {"pickup_p50": percentile(warm, 0.5), "pickup_p99": percentile(warm, 0.99)}


async def sustained(adapter: Adapter, ground: Ground) -> dict[str, float]:
    """500 jobs a second; the processor time is the worker's and that of all backends but the producer's."""
    waits, used = await _streamed(adapter, ground, ground.sized(RATE * RATE_SECONDS, 500), RATE)
    return {
        "sustained_p50": percentile(waits, 0.5),
        "sustained_p99": percentile(waits, 0.99),
        "sustained_cpu": used["worker"] + used["backends"],
        "sustained_worker_cpu": used["worker"],
        "sustained_rate": used["rate"],
    }


async def _streamed(adapter: Adapter, ground: Ground, jobs: int, rate: int) -> tuple[list[float], dict[str, float]]:
    async with (
        adapter.database() as (dsn, connection),
        adapter.worker(dsn, jobs + 1) as work,
        adapter.stream(dsn, jobs, rate) as producer,
    ):
        await work.begun(START_SECONDS)
        await asyncio.sleep(0.5)
        before = cpu(work.process.pid), ground.backends_cpu() - await producers_cpu(connection)
        reached = await _go(producer)
        told = await work.told(START_SECONDS)
        after = cpu(work.process.pid), ground.backends_cpu() - await producers_cpu(connection)
        worker, backends = (then - first for first, then in zip(before, after, strict=True))
        used = {"worker": worker / jobs * 1000, "backends": backends / jobs * 1000, "rate": reached}
        return told["waits"], used


async def _go(producer: Process) -> float:
    """Let it stream; the rate that it reached."""
    assert producer.stdin is not None
    assert producer.stdout is not None
    producer.stdin.write(b"go\n")
    try:
        said = await asyncio.wait_for(producer.stdout.readline(), STREAM_SECONDS)
    except TimeoutError:
        raise TooSlowError(f"the jobs could not be put in within {STREAM_SECONDS:.0f} s") from None
    if not said:
        raise TooSlowError("its producer ended early")
    return float(json.loads(said)["rate"])


async def recovery(adapter: Adapter, ground: Ground) -> dict[str, float]:
    """Seconds from kill -9 of a worker in the middle of its jobs until another, started at once, has begun them all.

    Infinite when that takes longer than is waited for.
    """
    at_once = min(CRASHED, jobs_at_once(adapter.entry.settings))
    async with adapter.database() as (dsn, _):
        await adapter.enqueue(dsn, 0, CRASHED - WARM)
        async with adapter.worker(dsn, at_once, holds=True) as held:
            await held.told(START_SECONDS)
        killed = time.time()
        async with adapter.worker(dsn, CRASHED) as work:
            try:
                told = await work.told(CRASH_SECONDS)
            except TooSlowError:
                return {"recovery": float("inf")}
    return {"recovery": told["last"] - killed}


def jobs_at_once(settings: dict[str, Any]) -> int:
    """How many jobs of these settings run at once, at least."""
    for name in ("concurrency", "concurrentJobs", "limit", "batch_size", "batchSize"):
        if name in settings:
            return int(settings[name])
    return 1
