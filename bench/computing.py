"""The handlers of bench/children.py: one takes the pulse of the loop, the others compute beside it."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker import Context

LOOK_SECONDS = 0.005
BURN_SECONDS = 0.25


def burn() -> int:
    """Pure Python that never waits."""
    end, rounds = time.perf_counter() + BURN_SECONDS, 0
    while time.perf_counter() < end:
        rounds += sum(number * number for number in range(1_000)) > 0
    return rounds


async def pulse(context: Context) -> dict[str, float]:
    """How late the loop of this daemon woke, in milliseconds."""
    end, late = time.perf_counter() + context.payload["seconds"], []
    while (began := time.perf_counter()) < end:
        await asyncio.sleep(LOOK_SECONDS)
        late.append((time.perf_counter() - began - LOOK_SECONDS) * 1000)
    return {"p50_ms": statistics.median(late), "p99_ms": statistics.quantiles(late, n=100)[98], "longest_ms": max(late)}


async def by_children(context: Context) -> int:
    """In a child process."""
    return await context.to_process(burn)


async def by_threads(context: Context) -> int:
    """In a thread, which shares the lock of the loop's own."""
    return await asyncio.to_thread(burn)
