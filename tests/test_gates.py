"""Limits, rates and turns with real daemons: what is promised over all of them, also when one is killed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.heart import DEADLINE, QUICK, configured, daemon, enqueue, until, write_config
from tests.processes import Fleet, fleet

THREE = """
[job.work]
python = "tests.sample_jobs:one_of_three"
limit = 3
priority = 1
settings = {{ folder = "{folder}" }}
[job.echo]
python = "tests.sample_jobs:echo"
"""
TURNS = """
[job.turn]
python = "tests.sample_jobs:nap"
fair = true
settings = { seconds = 0.05 }
[job.echo]
python = "tests.sample_jobs:echo"
"""
MANY = "select worker.enqueue_many($1, array_fill($2::jsonb, array[$3::integer]))"


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


def files(folder: Path, kind: str) -> int:
    """Of how many jobs there is evidence of a kind."""
    return len(list(folder.glob(f"{kind}-*")))


async def test_two_daemons_share_a_limit_and_one_is_killed(
    tmp_path: Path, connection: asyncpg.Connection, daemons: Fleet
) -> None:
    config = write_config(tmp_path, THREE.format(folder=tmp_path), worker=QUICK)
    first, _ = daemons.start(config), daemons.start(config)
    jobs = 200
    await connection.execute(MANY, "work", "{}", jobs)
    free = await enqueue(connection, "echo")
    await until(connection, "select status = 'completed' from worker.job_queue where id = $1", free)
    assert files(tmp_path, "done") < jobs, "a free job of lower priority is not held up"
    first.kill()
    daemons.start(config)
    await until(
        connection, "select count(*) = $1 from worker.job_queue where status = 'completed'", jobs + 1, seconds=60
    )
    assert files(tmp_path, "excess") == 0
    assert files(tmp_path, "done") == jobs
    assert await connection.fetchval("select count(*) from worker.type_slot where job_id is null") == 3


async def test_a_daemon_asleep_starts_what_another_made_room_for(
    dsn: str, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    config = configured(tmp_path, dsn, THREE.format(folder=tmp_path), worker='poll = "60s"\nconcurrency = 2')
    async with daemon(config), daemon(config):
        await connection.execute(MANY, "work", "{}", 40)
        await until(connection, "select count(*) = 40 from worker.job_queue where status = 'completed'", seconds=40)


async def test_b_s_one_job_starts_within_two_job_lengths_of_a_s_many(
    dsn: str, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    config = configured(tmp_path, dsn, TURNS, worker='concurrency = 2\nprefetch = 50\npoll = "60s"')
    async with daemon(config):
        await connection.execute(MANY, "turn", '{"tenant_id": "a"}', 100_000)
        for n in range(3):
            enough = "select count(*) >= $1 from worker.job_queue where status = 'completed'"
            await until(connection, enough, 20 * (n + 1), seconds=60)
            b = await enqueue(connection, "turn", {"tenant_id": "b"})
            await until(connection, "select started_at is not null from worker.job_queue where id = $1", b)
            between = await connection.fetchval(
                """select count(*) from worker.job_queue a, worker.job_queue b
                   where b.id = $1 and a.tenant_id = 'a' and a.started_at between b.created_at and b.started_at""",
                b,
            )
            # Two run at once: in two job lengths four begin, and two more where the claim was on its way already.
            assert between <= 6


async def test_no_fair_job_waits_here_behind_a_stock_of_others(
    dsn: str, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    config = configured(tmp_path, dsn, TURNS, worker='concurrency = 2\nprefetch = 50\npoll = "60s"')
    counts = "select count(*) filter (where status = 'running'), count(started_at) from worker.job_queue"
    most = begun = 0
    async with daemon(config), asyncio.timeout(DEADLINE):
        await connection.execute(MANY, "turn", '{"tenant_id": "a"}', 1_000)
        while begun < 20:
            running, begun = await connection.fetchrow(counts)
            most = max(most, running)
    assert 0 < most <= 4  # two run, two may be over and not settled yet
