"""Question 1: where finished rows live."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from bench.spike import harness
from bench.spike.harness import opened, p50, p99, text, timed

VARIANTS = ("a", "b", "b2", "c", "d")
TYPES = [f"type_{i}" for i in range(10)]
BATCH = 500
CLAIM = "select * from worker.claim(1, $1, $2, $3)"
MEDIANS = ("rate", "enqueue", "wal_enqueue", "wal", "claim_cpu", "settle_cpu")
LISTS = ("list_type", "list_tenant", "list_failed", "count_running", "rescue")


async def drain(variant: str, jobs: int) -> dict[str, Any]:
    """Enqueue, then claim and settle in a pipeline of two connections."""
    async with opened(variant, 2) as (claimer, settler):
        start = await lsn(claimer)
        enqueue, _ = await timed(claimer.execute(text(variant, "load_due"), jobs))
        enqueued = await lsn(claimer)
        await claimer.execute("vacuum analyze worker.job_queue")
        claims: list[float] = []
        settles: list[float] = []
        before, used = await lsn(claimer), [await harness.cpu(claimer), await harness.cpu(settler)]
        began = time.perf_counter()
        batches: asyncio.Queue[Any] = asyncio.Queue(maxsize=2)
        await asyncio.gather(claim_all(claimer, batches, claims), settle_all(settler, batches, settles))
        seconds = time.perf_counter() - began
        after = await lsn(claimer)
        claim_cpu, settle_cpu = (await harness.cpu(claimer) - used[0], await harness.cpu(settler) - used[1])
    return {
        "rate": jobs / seconds,
        "claims": claims,
        "settles": settles,
        "enqueue": enqueue * 1e3 / jobs,
        "wal_enqueue": (enqueued - start) / jobs,
        "wal": (after - before) / jobs,
        "claim_cpu": claim_cpu * 1e6 / jobs,
        "settle_cpu": settle_cpu * 1e6 / jobs,
    }


async def claim_all(connection: asyncpg.Connection, batches: asyncio.Queue[Any], took: list[float]) -> None:
    number = time.time_ns()
    while True:
        number += 1
        ms, row = await timed(connection.fetchrow(CLAIM, number, TYPES, BATCH))
        await batches.put(row["jobs"])
        if row["jobs"] is None:
            return
        took.append(ms)


async def settle_all(connection: asyncpg.Connection, batches: asyncio.Queue[Any], took: list[float]) -> None:
    while (jobs := await batches.get()) is not None:
        ids, fences = [job["id"] for job in jobs], [job["claim"] for job in jobs]
        nothing = [None] * len(jobs)
        ms, settled = await timed(
            connection.fetchval(
                "select worker.settle($1, $2, $3, $4, $5, $6)",
                ids,
                fences,
                ["completed"] * len(jobs),
                nothing,
                nothing,
                nothing,
            )
        )
        assert len(settled) == len(jobs)
        took.append(ms)


async def lsn(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def drains(variants: tuple[str, ...], jobs: int, rounds: int, empty: bool) -> dict[str, dict[str, Any]]:
    """The variants in turn, `rounds` times; medians."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    for turn in range(rounds + 1):
        order = variants if turn % 2 else variants[::-1]
        for variant in order:
            if empty:
                await run_file(variant, "reset")
            result = await drain(variant, jobs if turn else jobs // 4)
            if turn:
                runs[variant].append(result)
    return {variant: summary(results) for variant, results in runs.items()}


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    claims = [ms for result in results for ms in result["claims"]]
    settles = [ms for result in results for ms in result["settles"]]
    medians = {key: p50([result[key] for result in results]) for key in MEDIANS}
    return medians | {
        "claim_p50": p50(claims),
        "claim_p99": p99(claims),
        "settle_p50": p50(settles),
        "settle_p99": p99(settles),
    }


async def run_file(variant: str, name: str) -> None:
    async with opened(variant) as (connection,):
        await connection.execute(text(variant, name))


async def load_finished(variant: str, rows: int) -> None:
    async with opened(variant) as (connection,):
        await connection.execute(text(variant, "reset"))
        await connection.execute(text(variant, "load_finished"), rows)
        await connection.execute("vacuum analyze")


async def lists(variants: tuple[str, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Lists, counts and a rescue among the finished rows, with 200 rows of process 7 running."""
    took: dict[str, dict[str, list[float]]] = {variant: {name: [] for name in LISTS} for variant in variants}
    for variant in variants:
        async with opened(variant) as (connection,):
            await connection.execute(text(variant, "load_due"), 1000)
            await connection.execute("vacuum analyze")
            number = time.time_ns()
            row = await connection.fetchrow("select * from worker.claim(7, $1, $2, 200)", number, TYPES)
            assert len(row["jobs"]) == 200
            await connection.execute("update worker.process set open_batch = $1", number)
    for _ in range(rounds):
        for variant in variants:
            async with opened(variant) as (connection,):
                for name in LISTS:
                    query = text(variant, name)
                    await connection.fetch(query)
                    ms, _rows = await timed(connection.fetch(query))
                    took[variant][name].append(ms)
    return {variant: {name: p50(values) for name, values in each.items()} for variant, each in took.items()}


async def prune(variant: str, rows: int) -> float:
    """Seconds to delete `rows` of the oldest completed rows, page by page."""
    async with opened(variant) as (connection,):
        cut = await connection.fetchval(text(variant, "cut"), rows)
        last, more, began = 0, True, time.perf_counter()
        while more:
            last, _gone, more = await connection.fetchrow(text(variant, "prune"), last, cut)
        return time.perf_counter() - began


async def size(variant: str) -> tuple[int, int]:
    async with opened(variant) as (connection,):
        return tuple(await connection.fetchrow(text(variant, "bytes")))


async def measure(
    jobs: int = 40_000, finished: int = 1_000_000, rounds: int = 3, variants: tuple[str, ...] = VARIANTS
) -> dict[str, Any]:
    for variant in variants:
        await harness.create(variant)
    empty = await drains(variants, jobs, rounds, empty=True)
    for variant in variants:
        empty[variant]["heap"], empty[variant]["indexes"] = await size(variant)
        await load_finished(variant, finished)
    loaded = {variant: await size(variant) for variant in variants}
    full = await drains(variants, jobs, rounds, empty=False)
    answers = await lists(variants, rounds)
    pruned = {variant: await prune(variant, finished // 10) for variant in variants}
    for variant in variants:
        await harness.drop(variant)
    return {"empty": empty, "loaded": loaded, "full": full, "lists": answers, "prune": pruned}


def report(result: dict[str, Any]) -> str:
    sizes = harness.table(
        ("variant", "heap", "indexes", *LISTS, "prune"),
        [
            (v, heap / 1e6, indexes / 1e6, *(result["lists"][v][name] for name in LISTS), result["prune"][v])
            for v, (heap, indexes) in result["loaded"].items()
        ],
    )
    return "\n\n".join(
        [
            "drain, empty tables",
            drained(result["empty"]),
            "drain, finished rows in front",
            drained(result["full"]),
            "MB with the finished rows, ms of the lists, seconds of the pruning",
            sizes,
        ]
    )


def drained(runs: dict[str, dict[str, Any]]) -> str:
    """Ratios are to the first variant."""
    base = next(iter(runs.values()))
    work = base["claim_cpu"] + base["settle_cpu"]
    names = (
        "claim_p50",
        "claim_p99",
        "settle_p50",
        "settle_p99",
        "enqueue",
        "wal_enqueue",
        "wal",
        "claim_cpu",
        "settle_cpu",
    )
    head = (
        "variant",
        "jobs/s",
        "ratio",
        "claim p50 ms",
        "claim p99",
        "settle p50",
        "settle p99",
        "enqueue µs/job",
        "WAL enqueue",
        "WAL claim+settle",
        "claim CPU µs/job",
        "settle CPU µs/job",
        "CPU ratio",
    )
    return harness.table(
        head,
        [
            (
                variant,
                run["rate"],
                run["rate"] / base["rate"],
                *(run[name] for name in names),
                (run["claim_cpu"] + run["settle_cpu"]) / work,
            )
            for variant, run in runs.items()
        ],
    )
