"""Question 2: what one claim costs, with and without millions of rows in front of it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import asyncpg

from bench.spike import harness
from bench.spike.harness import opened, p50, p99, text, timed

PLAIN, FRONT, STALE = "b2_plainfront", "b2_front", "b2_stale"
TYPES = (1, 10, 50)
SIZES = {1: 200, 100: 60}  # claimed at once: claims in a round
MODES = [
    (PLAIN, "auto"),
    (FRONT, "auto"),
    (FRONT, "force_generic_plan"),
    (STALE, "auto"),
    (STALE, "force_generic_plan"),
]
CLAIM = "select * from worker.claim(1, $1, $2, $3)"


def names(count: int) -> list[str]:
    return [f"type_{i}" for i in range(count)] + ["type_paused"]


async def prepare() -> None:
    """Three databases: nothing in front, three million rows in front, the same with statistics from 200 rows."""
    for variant in (PLAIN, FRONT, STALE):
        await harness.create(variant)
        async with opened(variant) as (connection,):
            if variant == STALE:
                await connection.execute(text(variant, "load_due"), 200)
                await connection.execute("analyze")
            if variant != PLAIN:
                await connection.execute(text(variant, "load_front"))
                await connection.execute(text(variant, "load_finished"), 1_000_000)
            if variant != STALE:
                await connection.execute("vacuum analyze")


async def refill() -> None:
    """The same due rows for everybody, and no dead entries left by the round before."""
    for variant in (PLAIN, FRONT, STALE):
        async with opened(variant) as (connection,):
            await connection.execute(text(variant, "load_claimable"))
            await connection.execute("vacuum worker.job_queue")


async def claim(connection: asyncpg.Connection, types: int, size: int) -> tuple[float, float]:
    """Milliseconds on the clock and of the backend's processor; the second is free of the host's other load."""
    before = harness.processor_time(connection.get_server_pid())
    ms, row = await timed(connection.fetchrow(CLAIM, time.time_ns(), names(types), size))
    assert len(row["jobs"]) == size
    return ms, (harness.processor_time(connection.get_server_pid()) - before) * 1e3


async def buffers(connection: asyncpg.Connection, types: int, size: int) -> int:
    """Pages touched by one claim, rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        explain = "explain (analyze, buffers, format json) " + CLAIM
        plan = await connection.fetchval(explain, time.time_ns(), names(types), size)
    finally:
        await transaction.rollback()
    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


async def look(connection: asyncpg.Connection, types: int) -> float:
    """The question for the next due time, which an empty or short claim asks too."""
    ms, _row = await timed(connection.fetchrow("select worker.next_due($1, now())", names(types)))
    return ms


async def measure(rounds: int = 3) -> dict[str, Any]:
    """Claim by claim in turn over all tables and plan modes, so that the load of the host falls on all alike."""
    await prepare()
    took: dict[tuple[str, str, int, int], list[tuple[float, float]]] = {}
    touched: dict[tuple[str, str, int, int], int] = {}
    due: dict[tuple[str, str, int], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        sessions = {
            (variant, mode): (await stack.enter_async_context(opened(variant, plan_cache_mode=mode)))[0]
            for variant, mode in MODES
        }
        for _ in range(rounds):
            await refill()
            for types in TYPES:
                for (variant, mode), connection in sessions.items():
                    for _ in range(8):
                        await claim(connection, types, 1)
                    for size in SIZES:
                        touched[variant, mode, types, size] = await buffers(connection, types, size)
                for size, count in SIZES.items():
                    for _ in range(count):
                        for session, connection in sessions.items():
                            took.setdefault((*session, types, size), []).append(await claim(connection, types, size))
                            due.setdefault((*session, types), []).append(await look(connection, types))
    for variant in (PLAIN, FRONT, STALE):
        await harness.drop(variant)
    return {
        "claims": [(*key, *spread(values), touched[key]) for key, values in took.items()],
        "next_due": [(*key, p50(values), p99(values)) for key, values in due.items()],
    }


def spread(values: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    clock, processor = zip(*values, strict=True)
    return p50(clock), p99(clock), p50(processor), p99(processor)


def report(result: dict[str, Any]) -> str:
    base = {row[2:4]: row[4:8] for row in result["claims"] if row[0] == PLAIN}
    rows = []
    for *key, pages in sorted(result["claims"], key=lambda row: row[2:4]):
        figures, unburdened = key[4:], base[tuple(key[2:4])]
        ratios = [figure / without for figure, without in zip(figures, unburdened, strict=True)]
        rows.append((*key, *ratios, pages))
    measures = ("p50", "p99", "CPU p50", "CPU p99")
    units = [f"{measure} {unit}" for unit in ("ms", "ratio") for measure in measures]
    head = ("tables", "plans", "types", "n", *units, "buffers")
    due = harness.table(("tables", "plans", "types", "next_due p50", "p99"), result["next_due"])
    return harness.table(head, rows) + "\n\n" + due
