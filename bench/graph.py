"""The stats graph against its lower bound, and what a step costs beside the bare call of its function.

Lower bound: no schedule on so many cores can be shorter than the longest path of needs, nor than all the work divided
by the cores; both from the functions called bare, one after the other, in the same run.
"""

import asyncio
import os
import statistics
import time
import tomllib
from typing import Any

import asyncpg

from bench.figure import Figure
from bench.ground import ROOT, Ground
from worker import migrations
from worker.demo import club, tables
from worker.graph import Graph, Step

SEED, PLAYERS, MATCHES = 2026, 200, 2_000
ROUNDS = 7
STEPS = 20


async def graph(ground: Ground, runs: int) -> Figure:
    """The ten functions of the football club, on two step connections."""
    told = [await _makespan(ground, 2) for _ in range(runs)]
    return Figure.of("graph", "s", "≤ 1.10 of its lower bound", told)


async def step(ground: Ground, runs: int) -> Figure:
    """A step of a function that does nothing: transaction, fence and mark beside the bare call."""
    told = [await _overhead(ground) for _ in range(runs)]
    return Figure.of("step", "ms more than bare", "< 1 ms", told)


async def _makespan(ground: Ground, connections: int) -> dict[str, float]:
    steps = tomllib.loads((ROOT / "worker.toml").read_text())["job"]["stats_update"]["steps"]
    async with ground.database() as (dsn, connection):
        await migrations.install(connection, "stats")
        made = club.generate(SEED, PLAYERS, MATCHES)
        await tables.load(connection, made)
        await connection.execute("analyze")
        tenant, seconds = made.tenants[0].id, {}
        text = (ROOT / "worker.toml").read_text().replace("steps = 4 ", f"steps = {connections} ")
        config = ground.folder / "stats.toml"
        config.write_text(text)
        async with ground.process(dsn, "-m", "worker", "run", "--config", str(config)):
            spans = [await _run(connection, str(tenant)) for _ in range(ROUNDS + 2)][2:]  # two to learn the order by
            for name, declared in steps.items():
                seconds[name] = await _bare(connection, declared["sql"], tenant)
    bound = _lower_bound(steps, seconds, min(connections, os.cpu_count() or 1))
    return {"value": statistics.median(spans), "raw": bound, "total_work": sum(seconds.values())}


async def _run(connection: asyncpg.Connection, tenant: str) -> float:
    job_id = await connection.fetchval(
        "select worker.enqueue('stats_update', jsonb_build_object('tenant_id', $1::text))", tenant
    )
    while not (row := await connection.fetchrow(
        "select status, date_part('epoch', finished_at - started_at) from worker.job_queue"
        " where id = $1 and finished_at is not null", job_id)):  # fmt: skip
        await asyncio.sleep(0.02)
    assert row["status"] == "completed", row
    return float(row[1])


async def _bare(connection: asyncpg.Connection, function: str, tenant: Any) -> float:
    await connection.execute("set search_path = club, public")
    spans = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await connection.fetch(f"select {function}($1)", tenant)
        spans.append(time.perf_counter() - began)
    await connection.execute("reset search_path")
    return statistics.median(spans)


def _lower_bound(steps: dict[str, Any], seconds: dict[str, float], cores: int) -> float:
    drawn = Graph(Step(name, each["sql"], needs=tuple(each.get("needs", ()))) for name, each in steps.items())
    return max(*drawn.remaining(seconds).values(), sum(seconds.values()) / cores)


async def _overhead(ground: Ground) -> dict[str, float]:
    lines = "\n".join(f's{n} = {{ sql = "nothing" }}' for n in range(STEPS))
    config = ground.configure(f"[job.steps]\nparallel = 1\n[job.steps.steps]\n{lines}\n", "")
    async with ground.database() as (dsn, connection):
        await connection.execute("create function nothing() returns void language sql as ''")
        async with ground.process(dsn, "-m", "worker", "run", "--config", str(config)):
            ids = [await _run_steps(connection) for _ in range(20)]
            spans = await connection.fetchval(
                "select array_agg(date_part('epoch', finished_at - started_at))"
                " from worker.job_queue where id = any ($1)",
                ids[5:],
            )
            began = time.perf_counter()
            for _ in range(500):
                await connection.fetch("select nothing()")
            bare = (time.perf_counter() - began) / 500
    return {"value": (statistics.median(spans) / STEPS - bare) * 1000, "bare_ms": bare * 1000}


async def _run_steps(connection: asyncpg.Connection) -> int:
    job_id: int = await connection.fetchval("select worker.enqueue('steps')")
    while not await connection.fetchval("select finished_at is not null from worker.job_queue where id = $1", job_id):
        await asyncio.sleep(0.005)
    return job_id
