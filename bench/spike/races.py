"""Staged races behind the decisions: a second writer, a claim against a death, one key at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from bench.spike import harness
from bench.spike.harness import opened, text

TYPES = [f"type_{i}" for i in range(10)]
CLAIM = "select * from worker.claim($1, $2, $3, $4)"


async def claimed(connection: asyncpg.Connection, process: int, n: int, batch: int | None = None) -> asyncpg.Record:
    return await connection.fetchrow(CLAIM, process, batch or time.time_ns(), TYPES, n)


async def answer(work: Any) -> str:
    try:
        return str(await work)
    except asyncpg.PostgresError as error:
        return f"{error.sqlstate} {error}"


async def cancel_meets_settle(variant: str) -> str:
    """A cancel request that waits for the settle of the same job."""
    async with opened(variant, 2) as (worker, person):
        await worker.execute(text(variant, "load_due"), 1)
        job = (await claimed(worker, 1, 1))["jobs"][0]
        await worker.execute("begin")
        await worker.fetchval(text(variant, "settle_one"), job["id"], job["claim"])
        waiting = asyncio.create_task(answer(person.execute(text(variant, "request_cancel"), job["id"])))
        await asyncio.sleep(0.1)
        await worker.execute("commit")
        return await waiting


async def death_meets_claim(variant: str) -> list[str]:
    """The one who declares a process dead waits for its claim in flight, then sees every row of it."""
    story = []
    async with opened(variant, 3) as (worker, judge, beat):
        await worker.execute(text(variant, "load_due"), 20)
        await worker.execute("begin")
        row = await claimed(worker, 2, 5)
        start = time.perf_counter()
        await beat.execute("update worker.process set seen_at = now() where id = 2")
        story.append(f"beat during the claim: {(time.perf_counter() - start) * 1e3:.1f} ms")
        waiting = asyncio.create_task(answer(judge.execute(text(variant, "declare_dead"), 2)))
        await asyncio.sleep(0.1)
        story.append(f"death waits for the claim: {not waiting.done()}")
        await worker.execute("commit")
        await waiting
        seen = await judge.fetchval("select count(*) from worker.job_queue where claimed_by = 2 and status = 'running'")
        story.append(f"rows claimed {len(row['jobs'])}, seen after the death {seen}")
        story.append(f"next claim of the dead: {await answer(claimed(worker, 2, 5))}")
        await judge.execute("update worker.process set closed_batch = 100 where id = 3")
        story.append(f"claim with a closed number: {await answer(claimed(worker, 3, 5, batch=100))}")
    return story


async def keys(variant: str, claimers: int = 6) -> str:
    """Nobody ever holds a key that somebody else holds; nothing is left parked."""
    held: set[str] = set()
    twice = ran = errors = 0
    async with opened(variant, claimers) as connections:
        await connections[0].execute(text(variant, "reset"))
        await connections[0].execute(text(variant, "load_keyed"))

        async def work(connection: asyncpg.Connection, me: int) -> None:
            nonlocal twice, ran, errors
            idle = 0
            while idle < 20:
                try:
                    row = await claimed(connection, me, 50)
                except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
                    errors += 1
                    continue
                jobs = row["jobs"] or []
                idle = 0 if jobs or row["parked"] else idle + 1
                mine = [job["concurrency_key"] for job in jobs if job["concurrency_key"]]
                twice += len(held.intersection(mine)) + len(mine) - len(set(mine))
                held.update(mine)
                await asyncio.sleep(0.001)
                held.difference_update(mine)
                if jobs:
                    nothing = [None] * len(jobs)
                    settled = await connection.fetchval(
                        "select worker.settle($1, $2, $3, $4, $5, $6)",
                        [job["id"] for job in jobs],
                        [job["claim"] for job in jobs],
                        ["completed"] * len(jobs),
                        nothing,
                        nothing,
                        nothing,
                    )
                    ran += len(settled)

        start = time.perf_counter()
        await asyncio.gather(*(work(connection, 4 + me) for me, connection in enumerate(connections)))
        seconds = time.perf_counter() - start
        left = await connections[0].fetchrow(
            "select count(*) filter (where parked) as parked, count(*) filter (where status <> 'completed') as open, "
            "(select count(*) from worker.key_slot) as slots from worker.job_queue"
        )
    return f"{ran} ran in {seconds:.1f} s, key taken twice {twice}, errors {errors}, left {dict(left)}"


async def measure() -> dict[str, Any]:
    variants = ("b2_races", "c_races", "d_races")
    for variant in variants:
        await harness.create(variant)
    result = {
        "cancel meets settle": {variant: await cancel_meets_settle(variant) for variant in variants},
        "death meets claim": await death_meets_claim("b2_races"),
        "keys": await keys("b2_races"),
    }
    for variant in variants:
        await harness.drop(variant)
    return result


def report(result: dict[str, Any]) -> str:
    lines = [f"cancel meets settle, {variant}: {said}" for variant, said in result["cancel meets settle"].items()]
    return "\n".join([*lines, *result["death meets claim"], f"keys: {result['keys']}"])
