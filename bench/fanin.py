"""Many jobs that each announce stale tags, to a receiver that is to be called seldom and soon."""

from bench.figure import Figure
from bench.flow import daemons, until
from bench.ground import Ground
from bench.progress import repeated
from worker.demo.receiver import Receiver

JOBS = 2_000
TAGS = ("season_stats", "all_time_stats", "hall_of_fame")
STATS = """[job.stats]
steps = {{ update = {{ sql = "bench.nothing", tags = [{tags}] }} }}
{then}
"""
CALLED = """[job.announce]
http = "{url}"
body = {{ tags = "{{tags}}", source = "worker", requestId = "{{correlation_id}}" }}
{coalesce}
"""
COALESCE = 'coalesce = { key = "cache", unite = ["tags"] }'


async def fanin(ground: Ground, runs: int) -> Figure:
    """2,000 jobs whose tags go to one HTTP receiver, coalesced, beside the same without `coalesce`."""
    told = await repeated("fanin", runs, lambda: _fanin(ground))
    return Figure.of("fanin", "calls/job", "≤ 0.25 of the calls without coalesce, last_tag_s ≤ 1 s", told)


async def _fanin(ground: Ground) -> dict[str, float]:
    alone = await _announced(ground, 'then = ["announce"]', "")
    silent = await _announced(ground, "", "")
    united = await _announced(ground, 'then = ["announce"]', COALESCE)
    return {
        "value": united["calls"],
        "raw": alone["calls"],
        "last_tag_s": united["last_tag_s"],
        "last_tag_without_coalesce_s": alone["last_tag_s"],
        "jobs_per_s": united["jobs_per_s"],
        "jobs_per_s_without_then": silent["jobs_per_s"],
    }


async def _announced(ground: Ground, then: str, coalesce: str) -> dict[str, float]:
    jobs = ground.sized(JOBS, least=20)
    stats = STATS.format(tags=", ".join(f'"{tag}"' for tag in TAGS), then=then)
    async with Receiver() as receiver, ground.database() as (dsn, connection):
        called = CALLED.format(url=receiver.url, coalesce=coalesce) if then else ""
        async with daemons(ground, dsn, connection, "", stats + called):
            await connection.execute("select bench.fill($1, 'stats')", jobs)
            await until(connection, "select bench.completed('stats') = $1", jobs)
            await until(connection, "select bench.quiet()")
        if then:
            heard = set(receiver.tags)
            assert heard == set(TAGS), f"the receiver heard of {heard}"
        return {
            "calls": len(receiver.calls) / jobs,
            "jobs_per_s": jobs / await connection.fetchval("select bench.span_of('stats')"),
            "last_tag_s": await connection.fetchval("select bench.lag('stats', 'announce')") or 0.0,
        }
