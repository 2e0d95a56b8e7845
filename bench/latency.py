"""How soon a job starts: when the daemon sleeps, and under a steady stream. And what it costs to wait for one."""

import asyncio
import statistics
import time
from collections.abc import Sequence

import asyncpg

from bench.figure import Figure
from bench.ground import Ground, cpu, memory

PICKUPS = 200
RATE = 500
SECONDS = 20.0
IDLE_SECONDS = 60.0
NOOP = '[job.noop]\npython = "bench.noop:noop"\n'
SLEEPS = "select exists (select from worker.asleep)"


async def pickup(ground: Ground, runs: int) -> Figure:
    """From the insert into an idle queue to the job's start, beside a bare LISTEN that hears a NOTIFY."""
    told = [await _pickup(ground) for _ in range(runs)]
    return Figure.of("pickup", "ms p50", "p50 ≤ 2 ms, p99 ≤ 5 ms", told)


async def sustained(ground: Ground, runs: int) -> Figure:
    """500 jobs a second for 20 seconds."""
    told = [await _sustained(ground) for _ in range(runs)]
    return Figure.of("sustained", "ms p99", "p99 ≤ 10 ms", told)


async def idle(ground: Ground, runs: int) -> Figure:
    """What a daemon that has nothing to do asks of the database in an hour, and what it costs."""
    told = [await _idle(ground) for _ in range(min(runs, 1))]
    return Figure.of("idle", "statements/h", "≤ 1,000 beside beats, ≤ 2 s of CPU, ≤ 80 MB", told)


async def _pickup(ground: Ground) -> dict[str, float]:
    config = ground.configure(NOOP, "")
    async with (
        ground.database() as (dsn, connection),
        ground.process(dsn, "-m", "worker", "run", "--config", str(config)),
    ):
        while not await connection.fetchval(SLEEPS):
            await asyncio.sleep(0.05)
        for _ in range(PICKUPS):
            await asyncio.sleep(0.03)
            await connection.execute("select bench.enqueue_one()")
        await asyncio.sleep(0.5)
        waits = [row["started"] for row in await connection.fetch("select * from bench.latencies('noop')")]
        raw = await _heard(dsn, connection)
    return {"value": percentile(waits, 0.5), "p99": percentile(waits, 0.99), "max": max(waits),
            "raw": percentile(raw, 0.5), "raw_p99": percentile(raw, 0.99)}  # fmt: skip


async def _heard(dsn: str, connection: asyncpg.Connection) -> Sequence[float]:
    """Milliseconds from the NOTIFY to a bare listener's first statement after it, as a start would be."""
    listener = await asyncpg.connect(dsn)
    rung = asyncio.Event()
    await listener.add_listener("bench", lambda *_: rung.set())
    other, waits = await asyncpg.connect(dsn), []
    for _ in range(PICKUPS):
        await asyncio.sleep(0.03)
        rung.clear()
        began = time.perf_counter()
        await connection.execute("select pg_notify('bench', '')")
        await rung.wait()
        await other.fetch("select raw_claim(1)")
        waits.append((time.perf_counter() - began) * 1000)
    await listener.close()
    await other.close()
    return waits


async def _sustained(ground: Ground) -> dict[str, float]:
    config = ground.configure(NOOP, "")
    async with (
        ground.database() as (dsn, connection),
        ground.process(dsn, "-m", "worker", "run", "--config", str(config)) as process,
    ):
        while not await connection.fetchval(SLEEPS):
            await asyncio.sleep(0.05)
        producers = [await asyncpg.connect(dsn) for _ in range(4)]
        own = [await each.fetchval("select pg_backend_pid()") for each in producers]
        before, backends = cpu(process.pid), ground.backends_cpu() - sum(map(cpu, own))
        await asyncio.gather(*(_stream(each, RATE / len(producers)) for each in producers))
        worker = cpu(process.pid) - before
        postgres = ground.backends_cpu() - sum(map(cpu, own)) - backends
        for each in producers:
            await each.close()
        await asyncio.sleep(0.5)
        waits = [row["started"] for row in await connection.fetch("select * from bench.latencies('noop')")]
    jobs = len(waits)
    return {
        "value": percentile(waits, 0.99),
        "p50": percentile(waits, 0.5),
        "jobs": jobs,
        "worker_cpu_s_per_1000": worker / jobs * 1000,
        "backends_cpu_s_per_1000": postgres / jobs * 1000,
    }


async def _stream(connection: asyncpg.Connection, rate: float) -> None:
    """Paced by the clock, so that a slow moment is caught up."""
    began = time.perf_counter()
    for n in range(int(rate * SECONDS)):
        await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
        await connection.execute("select bench.enqueue_one()")


async def _idle(ground: Ground) -> dict[str, float]:
    config = ground.configure(NOOP, "")
    calls = (
        "select sum(calls) from pg_stat_statements s join pg_database d on d.oid = s.dbid"
        " where datname = current_database()"
    )
    async with (
        ground.database() as (dsn, connection),
        ground.process(dsn, "-m", "worker", "run", "--config", str(config)) as process,
    ):
        await connection.execute("create extension pg_stat_statements")
        while not await connection.fetchval(SLEEPS):
            await asyncio.sleep(0.05)
        await asyncio.sleep(10)  # its start is no part of an idle hour
        beats = f"{calls} and query like '%worker.beat%'"
        began, first, first_beats = cpu(process.pid), await connection.fetchval(calls), await connection.fetchval(beats)
        await asyncio.sleep(IDLE_SECONDS)
        statements, beaten = (
            await connection.fetchval(calls) - first - 1,
            await connection.fetchval(beats) - first_beats,
        )
        hours = IDLE_SECONDS / 3600
        return {"value": float(statements - beaten) / hours, "beats": float(beaten) / hours,
                "cpu_s": (cpu(process.pid) - began) / hours, "memory_mb": memory(process.pid)}  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else statistics.nan
