"""Several processes on one queue: what they do together, and whether each type gets its turn."""

from bench.figure import Figure
from bench.flow import FAST, NOOP, PLAIN, daemons, emptied, until
from bench.ground import Ground
from bench.progress import repeated, say

JOBS = 100_000
COUNTS = (1, 2, 4, 8)
PLAIN_COUNTS = (1, 2)
TYPES = NOOP + NOOP.replace("noop]", "rare]")
RARE = 10  # jobs of the other type for one of these


async def workers(ground: Ground, runs: int) -> Figure:
    """100,000 jobs by 1, 2, 4 and 8 processes; and two types, of which one has ten times the jobs of the other."""
    told = await repeated("workers", runs, lambda: _workers(ground))
    goal = "≥ 0.9 of one process, by_4_ratio ≥ 0.9, by_8_ratio ≥ 0.9, rare_share ≥ 0.4"
    return Figure.of("workers", "jobs/s by 2 processes", goal, told)


async def _workers(ground: Ground) -> dict[str, float]:
    by = {count: await together(ground, count, FAST) for count in COUNTS}
    plain = {count: await together(ground, count, PLAIN) for count in PLAIN_COUNTS}
    return {
        "value": by[2],
        "raw": by[1],
        **{f"by_{count}_ratio": by[count] / by[1] for count in COUNTS[2:]},
        "default_settings": plain[2],
        "default_settings_ratio": plain[2] / plain[1],
        "rare_share": await share(ground),
    }


async def together(ground: Ground, count: int, settings: str) -> float:
    """Jobs a second of so many processes."""
    jobs = ground.sized(JOBS, least=100) // (1 if settings else 5)
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, settings, count=count) as running,
    ):
        rate = (await emptied(ground, connection, running, jobs))["value"]
        say(f"    {count} processes{'' if settings else ', default settings'}: {rate:,.0f} jobs/s")
        return rate


async def share(ground: Ground) -> float:
    """Of the jobs that two processes started while both types had some: those of the rarer type; a half is fair."""
    jobs = ground.sized(JOBS, least=100)
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, FAST, TYPES, count=2),
    ):
        async with connection.transaction():  # so that there are all at once
            await connection.execute("select bench.fill($1, 'noop')", jobs)
            await connection.execute("select bench.fill($1, 'rare')", max(jobs // RARE, 1))
        await until(connection, "select bench.is_done(0)")
        told: float = await connection.fetchval("select bench.share('rare')")
        return told
