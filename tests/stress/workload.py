"""What the daemons of an experiment are given to do, and what leaves evidence of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.stress.checker import CANARY
from tests.stress.experiment import Report
from tests.stress.jobs import OVERLAPS, RUNS, VIOLATIONS, lines
from tests.stress.place import Place

KEYS = 60
RETRY = 'retry = { first = "10ms", max = "100ms", max_attempts = 100 }'
# Python handlers with a key and without, and a graph of four steps.
MIXED = f"""
[job.keyed]
python = "tests.stress.jobs:keyed"
concurrency_key = "key:{{key}}"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.free]
python = "tests.stress.jobs:free"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.graph]
arguments = {{ job_id = "id" }}
parallel = 2
{RETRY}
[job.graph.steps]
a = {{ sql = "step_a" }}
b = {{ sql = "step_b", needs = ["a"] }}
c = {{ sql = "step_c" }}
d = {{ sql = "step_d", needs = ["b", "c"] }}
"""
FREE = f"""
[job.free]
python = "tests.stress.jobs:free"
settings = {{ folder = "{{folder}}" }}
{RETRY}
"""


async def create_steps(place: Place) -> None:
    """The functions step_a to step_d: an effect, and up to 30 ms of work."""
    for name in "abcd":
        await place.connection.execute(
            f"create function step_{name}(job_id bigint) returns void language sql as"
            f" $$ select evidence.step(job_id, '{name}', random() * 0.03) $$"
        )


async def produce(place: Place, count: int, keys: int = KEYS) -> None:
    """Of four jobs two have a key, one is free, one is a graph."""
    chance = place.chance
    payloads = [
        f'{{"key": "{chance.randrange(keys)}", "ms": {chance.randrange(1, 40)}, "secret": "{CANARY}"}}'
        for _ in range(count)
    ]
    await place.connection.execute(
        "select worker.enqueue((array['keyed', 'free', 'keyed', 'graph'])[n % 4 + 1], p::jsonb)"
        " from unnest($1::text[]) with ordinality as u (p, n)",
        payloads,
    )


async def produce_free(place: Place, count: int, ms: int = 5) -> None:
    """Jobs that take so many milliseconds, beside everything."""
    await place.connection.execute(
        "select worker.enqueue('free', jsonb_build_object('ms', $2::int)) from generate_series(1, $1)", count, ms
    )


@asynccontextmanager
async def producing(
    place: Place, count: int, produced: Callable[[Place, int], Awaitable[None]] = produce
) -> AsyncIterator[None]:
    """Never let the queue run dry while faults are injected; about `count` jobs wait."""

    async def produce_on() -> None:
        waiting = "select count(*) from worker.job_queue where status = 'pending'"
        while True:
            if await place.connection.fetchval(waiting) < count:
                await produced(place, count)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(produce_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def account(place: Place, report: Report) -> None:
    """What the files say that the coroutines wrote: keys that overlapped, jobs that nobody ran, second executions."""
    overlaps = lines(place.folder, VIOLATIONS)
    report.effects += len(overlaps)
    report.expect(not overlaps, f"{len(overlaps)} overlaps of one key, such as {overlaps[:3]}")
    beside = lines(place.folder, OVERLAPS)
    report.figures["executions_side_by_side"] = len(beside)
    report.expect(not beside, f"{len(beside)} executions of one job ran side by side, such as {beside[:3]}")
    ran = [int(line[0]) for line in lines(place.folder, RUNS)]
    report.duplicates += len(ran) - len(set(ran))
    done = await place.connection.fetch(
        "select id from worker.job_queue where status = 'completed' and job_type in ('keyed', 'free')"
    )
    nobody = {row["id"] for row in done} - set(ran)
    report.lost += len(nobody)
    report.expect(not nobody, f"completed, but run by nobody: {sorted(nobody)[:5]}")
    incomplete = await place.connection.fetchval(
        "select count(*) from worker.job_queue j where status = 'completed' and job_type = 'graph'"
        " and (select count(distinct step) from evidence.fx where fx.job_id = j.id) <> 4"
    )
    report.lost += incomplete
    report.expect(incomplete == 0, f"{incomplete} completed graphs lack an effect")
