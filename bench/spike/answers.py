"""Question 2b: how the claim answers: an array of composites, made late or in RETURNING, or rows."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from bench.spike import harness
from bench.spike.harness import opened, p50, text, timed
from bench.spike.tables import CLAIM, TYPES

VARIANTS = ("b2", "b2_direct", "b2_rows")
SIZES = (100, 500)
CALLS = 34


async def measure(rounds: int = 3) -> dict[str, Any]:
    took: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for variant in VARIANTS:
        await harness.create(variant)
    for _ in range(rounds):
        for size in SIZES:
            for variant in VARIANTS:
                async with opened(variant) as (connection,):
                    await connection.execute(text(variant, "reset"))
                    await connection.execute(text(variant, "load_due"), (CALLS + 6) * size)
                    await connection.execute("vacuum analyze worker.job_queue")
                    calls = [await claim(connection, variant, size) for _ in range(CALLS + 6)]
                    took.setdefault((variant, size), []).extend(calls[6:])
    for variant in VARIANTS:
        await harness.drop(variant)
    return {"answers": [(*key, *(p50(column) for column in zip(*values, strict=True))) for key, values in took.items()]}


async def claim(connection: asyncpg.Connection, variant: str, size: int) -> tuple[float, float]:
    """Microseconds a job: on the clock, and of the client's processor."""
    call = connection.fetch if variant == "b2_rows" else connection.fetchrow
    processor = time.process_time()
    ms, _answer = await timed(call(CLAIM, time.time_ns(), TYPES, size))
    return ms * 1e3 / size, (time.process_time() - processor) * 1e6 / size


def report(result: dict[str, Any]) -> str:
    return harness.table(("answer", "n", "µs a job", "client CPU µs a job"), result["answers"])
