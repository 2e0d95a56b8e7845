"""What the plots show, measured: each a set of lines by name, and each line a list of [x, y]."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bench import backlog
from bench.flow import NOOP, daemons, emptied, raw_emptied
from bench.ground import Ground
from bench.latency import pickups
from bench.progress import say

Series = dict[str, list[list[float]]]

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
RAW_BATCHES = (*BATCHES, 1000)
JOBS = 50_000
TABLE_ROWS = (10_000, 100_000, 1_000_000)
BINS_PER_DOUBLING = 2


async def batch_size(ground: Ground) -> Series:
    """Jobs a second against how many jobs are claimed at once, by raw SQL and by one process."""
    told: Series = {"raw SQL": [], "worker": []}
    for batch in RAW_BATCHES:
        jobs = _jobs(ground, batch)
        async with ground.database() as (dsn, connection):
            await connection.execute("select raw_fill($1)", jobs)
            told["raw SQL"].append([batch, (await raw_emptied(ground, dsn, jobs, batch=batch))["value"]])
    for batch in BATCHES:
        # Two claims' worth in hand, as the raw drain has two lanes: one runs while the next is claimed.
        settings = f"concurrency = {batch}\nprefetch = {batch}"
        async with (
            ground.database() as (dsn, connection),
            daemons(ground, dsn, connection, settings, NOOP) as running,
        ):
            told["worker"].append([batch, (await emptied(ground, connection, running, _jobs(ground, batch)))["value"]])
        say(f"    {batch}: {told['worker'][-1][1]:,.0f} jobs/s")
    return told


async def pick_up(ground: Ground) -> Series:
    """How many of the pick-ups of an idle daemon took how many milliseconds, beside a bare LISTEN."""
    waits, raw = await pickups(ground)
    return {"worker": binned(waits), "bare LISTEN": binned(raw)}


async def table_size(ground: Ground) -> Series:
    """Processor time of Postgres a job against rows that only lie in the table."""
    empty = (await backlog.beside(ground, None, 0))["postgres_cpu_us"]
    told: Series = {f"{each} rows": [[0, empty]] for each in backlog.LAID}
    for rows in map(ground.sized, TABLE_ROWS):
        for each in backlog.LAID:
            told[f"{each} rows"].append([rows, (await backlog.beside(ground, each, rows))["postgres_cpu_us"]])
    return told


SERIES: dict[str, Callable[[Ground], Coroutine[Any, Any, Series]]] = {
    each.__name__: each for each in (batch_size, pick_up, table_size)
}


def binned(milliseconds: Sequence[float]) -> list[list[float]]:
    """[lower edge, share in percent] of bins that grow by half a doubling from 0.25 ms on; the last ends the others."""
    edges = [0.25 * 2 ** (n / BINS_PER_DOUBLING) for n in range(32)]
    counts = [0] * (len(edges) - 1)
    for each in milliseconds:
        counts[min(max(sum(edge <= each for edge in edges) - 1, 0), len(counts) - 1)] += 1
    last = max((n for n, count in enumerate(counts) if count), default=-1)
    bins = [[edges[n], 100 * counts[n] / len(milliseconds)] for n in range(last + 1)]
    return [*bins, [edges[last + 1], 0.0]] if bins else []


def _jobs(ground: Ground, batch: int) -> int:
    """Fewer where each costs more, so that every point takes about as long."""
    return ground.sized(min(JOBS, 3_000 * batch), least=50)
