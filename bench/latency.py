"""How soon a job starts: when the daemon sleeps, and under a steady stream. And what it costs to wait for one."""

import asyncio
import statistics
import time
from collections.abc import Sequence

import asyncpg

from bench.figure import Figure
from bench.flow import PLAIN, daemons
from bench.ground import Ground, cpu, cpu_of_threads, memory
from bench.progress import repeated

PICKUPS = 200
RATE = 500
SECONDS = 20.0
IDLE_SECONDS = 60.0
CALLS = "select bench.calls($1)"


async def pickup(ground: Ground, runs: int) -> Figure:
    """From the insert into an idle queue to the job's start, beside a bare LISTEN that hears a NOTIFY."""
    told = await repeated("pickup", runs, lambda: _pickup(ground))
    return Figure.of("pickup", "ms p50", "≤ 2 ms, p99 ≤ 5 ms", told)


async def sustained(ground: Ground, runs: int) -> Figure:
    """500 jobs a second for 20 seconds."""
    told = await repeated("sustained", runs, lambda: _sustained(ground))
    return Figure.of("sustained", "ms p99", "≤ 10 ms, p50 ≤ 5 ms, cpu_s_per_1000 ≤ 0.4 s", told)


async def idle(ground: Ground, runs: int) -> Figure:
    """What a daemon that has nothing to do asks of the database in an hour, and what it costs."""
    told = await repeated("idle", min(runs, 1), lambda: _idle(ground))
    return Figure.of("idle", "statements/h", "≤ 1,000 beside beats, cpu_s_beside_beats ≤ 2 s, memory_mb ≤ 80 MB", told)


async def _pickup(ground: Ground) -> dict[str, float]:
    waits, raw = await pickups(ground)
    return {"value": percentile(waits, 0.5), "p99": percentile(waits, 0.99), "max": max(waits),
            "raw": percentile(raw, 0.5), "raw_p99": percentile(raw, 0.99)}  # fmt: skip


async def pickups(ground: Ground) -> tuple[Sequence[float], Sequence[float]]:
    """Milliseconds from insert to start, and those of a bare listener."""
    count = ground.sized(PICKUPS, least=10)
    async with ground.database() as (dsn, connection), daemons(ground, dsn, connection, PLAIN):
        for _ in range(count):
            await asyncio.sleep(0.03)
            await connection.execute("select bench.enqueue_one()")
        await asyncio.sleep(0.5)
        waits = [row["started"] for row in await connection.fetch("select * from bench.latencies('noop')")]
        return waits, await _heard(dsn, connection, count)


async def _heard(dsn: str, connection: asyncpg.Connection, count: int) -> Sequence[float]:
    """Milliseconds from the NOTIFY to a bare listener's first statement after it, as a start would be."""
    listener = await asyncpg.connect(dsn)
    rung = asyncio.Event()
    await listener.add_listener("bench", lambda *_: rung.set())
    other, waits = await asyncpg.connect(dsn), []
    for _ in range(count):
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
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, PLAIN) as running,
    ):
        producers = [await asyncpg.connect(dsn) for _ in range(4)]
        own = [await each.fetchval("select pg_backend_pid()") for each in producers]
        before, backends = cpu(running[0].pid), ground.backends_cpu() - sum(map(cpu, own))
        count = ground.sized(round(RATE * SECONDS), least=50) // len(producers)
        await asyncio.gather(*(stream(each, RATE / len(producers), count) for each in producers))
        worker = cpu(running[0].pid) - before
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
        "cpu_s_per_1000": (worker + postgres) / jobs * 1000,
        "worker_cpu_s_per_1000": worker / jobs * 1000,
        "backends_cpu_s_per_1000": postgres / jobs * 1000,
    }


async def stream(connection: asyncpg.Connection, rate: float, count: int) -> None:
    """Enqueue so many, paced by the clock, so that a slow moment is caught up."""
    began = time.perf_counter()
    for n in range(count):
        await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
        await connection.execute("select bench.enqueue_one()")


async def _idle(ground: Ground) -> dict[str, float]:
    """With another daemon beside it that beats twice as often: what that one costs more is what beats cost."""
    told, quick = await asyncio.gather(_waited(ground, PLAIN), _waited(ground, 'beat = "250ms"'))
    of_a_beat = (quick["cpu_s"] - told["cpu_s"]) / max(quick["beats"] - told["beats"], 1)
    return told | {"cpu_s_beside_beats": told["cpu_s"] - of_a_beat * told["beats"]}


async def _waited(ground: Ground, settings: str) -> dict[str, float]:
    span = IDLE_SECONDS * min(ground.scale * 10, 1.0)
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, settings) as running,
    ):
        await connection.execute("create extension pg_stat_statements")
        await asyncio.sleep(span / 6)  # its start is no part of an idle hour
        began = cpu_of_threads(running[0].pid)
        first, first_beats = await connection.fetchval(CALLS, ""), await connection.fetchval(CALLS, "worker.beat")
        await asyncio.sleep(span)
        statements = await connection.fetchval(CALLS, "") - first - 2  # our own questions
        beats = await connection.fetchval(CALLS, "worker.beat") - first_beats
        hours = span / 3600
        return {"value": (statements - beats) / hours, "beats": beats / hours,
                "cpu_s": (cpu_of_threads(running[0].pid) - began) / hours,
                "memory_mb": memory(running[0].pid)}  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else statistics.nan
