"""What a daemon holds: when it is idle, and whether it grows with the jobs it has done."""

import asyncio
import statistics
from collections.abc import Sequence

from bench.figure import Figure
from bench.flow import FAST, PLAIN, daemons, emptied
from bench.ground import Ground
from bench.ground import memory as held
from bench.progress import repeated, say

JOBS = 100_000  # of a round
ROUNDS = 10
SETTLED_SECONDS = 2.0


async def memory(ground: Ground, runs: int) -> Figure:
    """RSS of a daemon idle, after 100,000 jobs and over a million."""
    told = await repeated("memory", min(runs, 1), lambda: _memory(ground))
    goal = "≤ 80 MB idle, at_100000_mb ≤ 100 MB, mb_per_100000 ≤ 0.5 MB"
    return Figure.of("memory", "MB idle", goal, told)


async def _memory(ground: Ground) -> dict[str, float]:
    fast = await _grown(ground, FAST, ROUNDS)
    plain = await _grown(ground, PLAIN, 2)
    return {"value": fast[0], "at_100000_mb": fast[1], "at_1000000_mb": fast[-1], "mb_per_100000": slope(fast[1:]),
            "default_settings_idle_mb": plain[0], "default_settings_at_100000_mb": plain[1]}  # fmt: skip


async def _grown(ground: Ground, settings: str, rounds: int) -> list[float]:
    """MB idle and after each round."""
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, settings) as running,
    ):
        await asyncio.sleep(SETTLED_SECONDS)
        told = [held(running[0].pid)]
        for n in range(1, rounds + 1):
            await emptied(ground, connection, running, ground.sized(JOBS, least=50))
            told.append(held(running[0].pid))
            say(f"    after round {n}: {told[-1]:.1f} MB")
        return told


def slope(values: Sequence[float]) -> float:
    """Growth from one value to the next, by least squares."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope
