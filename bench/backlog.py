"""What drained jobs pay for rows that only lie there, and for somebody who holds an old snapshot."""

import os
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from bench.figure import Figure
from bench.flow import FAST, NOOP, PLAIN, daemons, emptied, medians, raw_emptied
from bench.ground import Ground
from bench.progress import repeated, say

ROWS = 1_000_000
JOBS = 20_000
ROUNDS = 3
HELD_JOBS = 50_000
LAID = ("finished", "future", "paused")
TYPES = NOOP + NOOP.replace("noop]", "halted]")


async def backlog(ground: Ground, runs: int) -> Figure:
    """20,000 jobs beside a million finished rows, future rows, rows of a paused type, each against none of them."""
    told = await repeated("backlog", runs, lambda: _backlog(ground))
    return Figure.of("backlog", "jobs/s beside the worst", "≥ 0.9 of the own base", told)


async def snapshot(ground: Ground, runs: int) -> Figure:
    """50,000 jobs while a REPEATABLE READ session holds a snapshot, against the same without it."""
    told = await repeated("snapshot", runs, lambda: _snapshot(ground))
    return Figure.of("snapshot", "jobs/s", "≥ 0.85 of the own base", told)


async def _backlog(ground: Ground) -> dict[str, float]:
    """The base comes first and last, so that a machine that grows slower is no fault of the rows."""
    rows = ground.sized(ROWS, least=1_000)
    first = await beside(ground, None, 0)
    laid = {each: await beside(ground, each, rows) for each in LAID}
    last = await beside(ground, None, 0)
    base = {name: statistics.mean((first[name], last[name])) for name in first}
    # Processor time comes in ticks, and a trial's few jobs may take less than one.
    cpu = max(base["postgres_cpu_us"], 1e6 / os.sysconf("SC_CLK_TCK") / ground.sized(JOBS, least=50))
    ratios = {each: laid[each]["value"] / base["value"] for each in LAID}
    return {
        "value": min(each["value"] for each in laid.values()),
        "raw": base["value"],
        **{f"{each}_ratio": ratio for each, ratio in ratios.items()},
        **{f"{each}_cpu_ratio": laid[each]["postgres_cpu_us"] / cpu for each in LAID},
        "default_settings": min(each["default_settings"] for each in laid.values()),
        "default_settings_ratio": min(each["default_settings"] for each in laid.values()) / base["default_settings"],
    }


async def beside(ground: Ground, lay: str | None, rows: int) -> dict[str, float]:
    """The median of some drains in a table in which so many rows lie; then one with the default settings."""
    jobs = ground.sized(JOBS, least=50)
    async with ground.database() as (dsn, connection):
        async with daemons(ground, dsn, connection, FAST, TYPES) as running:
            await connection.execute("select worker.pause('halted')")
            if lay:
                say(f"    {rows:,} {lay} rows")
                await connection.execute(f"select bench.lay_{lay}($1)", rows)
            await connection.execute("vacuum (analyze) worker.job_queue")
            told = medians([await emptied(ground, connection, running, jobs) for _ in range(ROUNDS)])
        async with daemons(ground, dsn, connection, PLAIN, TYPES) as running:
            plain = medians([await emptied(ground, connection, running, jobs) for _ in range(ROUNDS)])
        return told | {"default_settings": plain["value"]}


async def _snapshot(ground: Ground) -> dict[str, float]:
    told = {
        (settings, held): await _held(ground, settings, held) for settings in (FAST, PLAIN) for held in (False, True)
    }
    raw, raw_held = await _raw(ground, held=False), await _raw(ground, held=True)
    return {
        "value": told[FAST, True],
        "raw": told[FAST, False],
        "default_settings": told[PLAIN, True],
        "default_settings_ratio": told[PLAIN, True] / told[PLAIN, False],
        "raw_sql_ratio": raw_held / raw,
    }


async def _held(ground: Ground, settings: str, held: bool) -> float:
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, settings) as running,
        _snapshot_of(dsn, held),
    ):
        return (await emptied(ground, connection, running, ground.sized(HELD_JOBS, least=50)))["value"]


async def _raw(ground: Ground, held: bool) -> float:
    jobs = ground.sized(HELD_JOBS, least=50)
    async with ground.database() as (dsn, connection):
        await connection.execute("select raw_fill($1)", jobs)
        async with _snapshot_of(dsn, held):
            return (await raw_emptied(ground, dsn, jobs))["value"]


@asynccontextmanager
async def _snapshot_of(dsn: str, held: bool) -> AsyncIterator[None]:
    other = await asyncpg.connect(dsn)
    try:
        if held:
            await other.execute("begin isolation level repeatable read")
            await other.fetchval("select count(*) from worker.process")
        yield
    finally:
        await other.close()
