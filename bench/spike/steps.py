"""Question 3: how a step keeps every other attempt at the same step out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import Any

import asyncpg

from bench.spike import harness
from bench.spike.harness import opened, p50, p99, timed

VARIANTS = ("s_none", "s_advisory", "s_row", "s_insert", "s_both")
RUN = "select worker.run_step($1, 'step', 1, $2)"
JOBS = itertools.count(1)


async def measure(calls: int = 1500) -> dict[str, Any]:
    for variant in VARIANTS:
        await harness.create(variant, ("steps", "lock"))
    async with contextlib.AsyncExitStack() as stack:
        sessions = {v: (await stack.enter_async_context(opened(v)))[0] for v in VARIANTS}
        took: dict[str, list[float]] = {}
        for turn in range(calls):
            for variant, connection in sessions.items():
                for label, key in (("known key", f"stats:{turn % 20}"), ("fresh key", f"job {turn}")):
                    ms, _ = await timed(connection.fetchval(RUN, next(JOBS), key))
                    if turn >= 50:
                        took.setdefault(f"{variant} {label}", []).append(ms)
        sizes = {
            v: await c.fetchval("select coalesce(pg_total_relation_size(to_regclass('worker.step_lock')), 0)")
            for v, c in sessions.items()
        }
    staged = {variant: await scenes(variant) for variant in VARIANTS[1:]}
    crowd = {variant: await together(variant) for variant in VARIANTS}
    old = {variant: await under_old_snapshot(variant) for variant in VARIANTS[1:]}
    sweep = await swept()
    for variant in VARIANTS:
        await harness.drop(variant)
    overhead = {key: (p50(values), p99(values)) for key, values in took.items()}
    return {"overhead": overhead, "bytes": sizes, "staged": staged, "together": crowd, "old": old, "swept": sweep}


async def scenes(variant: str) -> dict[str, str]:
    return {
        "holder commits": await scene(variant, "commit"),
        "holder rolls back": await scene(variant, "rollback"),
        "holder is terminated": await scene(variant, "terminate"),
        "holder stays": await scene(variant, "stay"),
    }


async def scene(variant: str, end: str) -> str:
    """Two arrive at a step whose key nobody has used; the first one ends as told after 200 ms."""
    job, key = next(JOBS), f"new {next(JOBS)}"
    async with opened(variant, 3) as (first, second, admin):
        pid = await first.fetchval("select pg_backend_pid()")
        await first.execute("begin")
        await first.fetchval(RUN, job, key)
        start = time.perf_counter()
        waiting = asyncio.create_task(attempt(second, job, key))
        await asyncio.sleep(0.2)
        match end:
            case "terminate":
                await admin.fetchval("select pg_terminate_backend($1)", pid)
            case "stay":
                pass
            case _:
                await first.execute(end)
        answer = await waiting
        ms = (time.perf_counter() - start) * 1e3
        if end == "stay":
            await first.execute("rollback")
        effects = await admin.fetchval("select count(*) from worker.effect where job_id = $1", job)
        return f"{answer} after {ms:.0f} ms, {effects} effect(s)"


async def attempt(connection: asyncpg.Connection, job: int, key: str) -> str:
    try:
        return await connection.fetchval(RUN, job, key)
    except asyncpg.PostgresError as error:
        return error.sqlstate


async def together(variant: str, sessions: int = 8, rounds: int = 60) -> str:
    """Eight at once at the same new step, again and again: effects for each job, and errors."""
    async with opened(variant, sessions) as connections:
        answers: list[str] = []
        began = time.perf_counter()
        jobs = [next(JOBS) for _ in range(rounds)]
        for job in jobs:
            answers += await asyncio.gather(*(attempt(c, job, f"job {job}") for c in connections))
        seconds = time.perf_counter() - began
        effects = await connections[0].fetch(
            "select job_id, count(*) from worker.effect where job_id = any($1) group by job_id", jobs
        )
        twice = sum(row["count"] > 1 for row in effects)
    counts = {answer: answers.count(answer) for answer in sorted(set(answers))}
    return f"{counts}, {twice} of {rounds} jobs twice, {seconds * 1e3 / rounds:.2f} ms a round"


async def under_old_snapshot(variant: str, calls: int = 4000) -> tuple[float, float]:
    """p50 of the first and the last 200 steps of one key while somebody holds a snapshot."""
    async with opened(variant, 2) as (reader, connection):
        await reader.execute("begin isolation level repeatable read")
        await reader.fetchval("select count(*) from worker.effect")
        took = [(await timed(connection.fetchval(RUN, next(JOBS), "stats:1")))[0] for _ in range(calls)]
        return p50(took[:200]), p50(took[-200:])


async def swept(variant: str = "s_row") -> str:
    """A sweep deletes the row of a key while a step waits for it, and a second step comes."""
    async with opened(variant, 3) as (sweep, first, second):
        key = f"swept {next(JOBS)}"
        await first.fetchval(RUN, next(JOBS), key)
        await sweep.execute("begin")
        await sweep.execute("delete from worker.step_lock where key = $1", key)
        await first.execute("begin")
        waiting = asyncio.create_task(attempt(first, next(JOBS), key))
        await asyncio.sleep(0.1)
        await sweep.execute("commit")
        one = await waiting
        two = await attempt(second, next(JOBS), key)
        await first.execute("commit")
        return f"first {one}, second, while the first is open: {two}"


def report(result: dict[str, Any]) -> str:
    lines = [harness.table(("lock", "p50 ms", "p99 ms"), [(k, *v) for k, v in result["overhead"].items()])]
    lines += [f"bytes of step_lock after the run: {result['bytes']}"]
    for variant, each in result["staged"].items():
        lines += [f"{variant}: {name}: {answer}" for name, answer in each.items()]
    lines += [f"{variant}: eight at once: {answer}" for variant, answer in result["together"].items()]
    lines += [
        f"{variant}: under an old snapshot, first and last 200 of 4,000 of one key: {a:.3f} {b:.3f} ms"
        for variant, (a, b) in result["old"].items()
    ]
    lines += [f"row deleted by a sweep while a step waits for it: {result['swept']}"]
    return "\n".join(lines)
