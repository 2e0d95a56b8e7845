"""How fast a queue that is full is emptied, by one process."""

from bench.figure import Figure
from bench.flow import FAST, NOOP, PLAIN, daemons, emptied, raw_emptied
from bench.ground import Ground
from bench.progress import repeated

JOBS = 100_000


async def drain(ground: Ground, runs: int) -> Figure:
    """100,000 no-op jobs by one process, beside raw SQL in batches that keeps its rows."""
    told = await repeated("drain", runs, lambda: _both(ground, "noop", 0.0))
    return Figure.of("drain", "jobs/s", "≥ 0.6 of raw, stretch 0.8", told)


async def drain_5ms(ground: Ground, runs: int) -> Figure:
    """The same with jobs of five milliseconds."""
    told = await repeated("drain_5ms", runs, lambda: _both(ground, "wait_5ms", 0.005))
    return Figure.of("drain_5ms", "jobs/s", "≥ 0.8 of raw", told)


async def _both(ground: Ground, handler: str, seconds: float) -> dict[str, float]:
    jobs = ground.sized(JOBS, least=100)
    ours = await _ours(ground, jobs, handler, FAST)
    async with ground.database() as (dsn, connection):
        await connection.execute("select raw_fill($1)", jobs)
        raw = await raw_emptied(ground, dsn, jobs, seconds)
    plain = await _ours(ground, max(jobs // 5, 1), handler, PLAIN)
    return {**ours, "raw": raw["value"], "raw_postgres_cpu_us": raw["postgres_cpu_us"],
            "default_settings": plain["value"]}  # fmt: skip


async def _ours(ground: Ground, jobs: int, handler: str, settings: str) -> dict[str, float]:
    declared = NOOP.replace("noop:noop", f"noop:{handler}")
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, settings, declared) as running,
    ):
        return await emptied(ground, connection, running, jobs)
