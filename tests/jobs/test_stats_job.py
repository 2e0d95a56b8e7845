"""From a finished match to its statistics: trigger, queue, graph, on the shipped worker.toml."""

import asyncio
import uuid
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.heart import daemon, until
from tests.jobs.independent_stats import Replay
from tests.jobs.stats_database import KEYS, install, table
from tests.support import ROOT
from worker.config import Config, load
from worker.demo import tables
from worker.demo.club import Club, Match, PlayerMatch, generate
from worker.demo.tables import finish_match

QUIET = "select not exists (select from worker.job_queue where status in ('pending', 'running'))"
LAST_STEP = "update_aggregated_hall_of_fame"


@pytest.fixture
async def clubs(connection: asyncpg.Connection, config: Config) -> Club:
    """Two small clubs whose last matches are still to be played; the type is declared, as `worker migrate` does."""
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    await install(connection)
    made = generate(7, players=24, matches=60, tenants=2, seasons=2)
    await tables.load(connection, made)
    await connection.execute(
        "insert into club.config select id, 'hall_of_fame_minimum_games', 1 from club.tenant on conflict do nothing"
    )
    await install(connection, trigger=True)
    return made


@pytest.fixture
def config(dsn: str, tmp_path: Path) -> Config:
    """worker.toml as it is shipped, but for the waiting between attempts."""
    text = (ROOT / "worker.toml").read_text(encoding="utf-8").replace('first = "2s"', 'first = "1ms"')
    path = tmp_path / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, {"DATABASE_URL": dsn})


async def as_played(connection: asyncpg.Connection, clubs: Club) -> Club:
    """The clubs with what the database says of their matches now."""
    matches = [Match(*row) for row in await connection.fetch("select * from club.match order by tenant_id, id")]
    entries = [PlayerMatch(*row) for row in await connection.fetch("select * from club.player_match")]
    return Club(clubs.tenants, clubs.players, clubs.seasons, matches, entries)


async def assert_right(connection: asyncpg.Connection, clubs: Club, tenant_id: uuid.UUID, *names: str) -> None:
    replay = Replay(await as_played(connection, clubs), tenant_id, {"hall_of_fame_minimum_games": 1})
    for name in names or KEYS:
        assert await table(connection, name, tenant_id) == getattr(replay, name)(), name


async def jobs(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from worker.job_queue order by id")


async def test_a_finished_match_becomes_statistics(connection, clubs, config):
    tenant = clubs.tenants[0].id
    async with daemon(config):
        await finish_match(connection, tenant)
        await until(connection, QUIET)
    (job,) = await jobs(connection)
    assert (job["status"], job["attempt"], job["tenant_id"]) == ("completed", 1, str(tenant))
    assert await connection.fetchval("select count(*) from worker.job_step where status = 'completed'") == 10
    await assert_right(connection, clubs, tenant)
    assert await connection.fetchval("select count(*) from club.all_time_stats where tenant_id <> $1", tenant) == 0


async def test_a_thousand_matches_in_one_transaction_make_at_most_two_runs(connection, clubs, config):
    tenant = clubs.tenants[0].id
    async with daemon(config):
        async with connection.transaction():
            for number in range(1000):
                await connection.execute(
                    "insert into club.match (tenant_id, season_id, played_on, status, team_a_score, team_b_score,"
                    " finished_at) values ($1, 1, date '2016-02-01' + $2::int % 100, 'finished', 1, 0, now())",
                    tenant, number,
                )  # fmt: skip
        await until(connection, QUIET, seconds=60)
    ran = await jobs(connection)
    assert 1 <= len(ran) <= 2
    assert {job["status"] for job in ran} == {"completed"}
    await assert_right(connection, clubs, tenant, "all_time_stats", "hall_of_fame")


async def test_matches_in_many_transactions_leave_one_waiting_behind_the_running(connection, second, clubs, config):
    """While a run is held in its middle, however many matches come, one more run waits; and it sees them all."""
    tenant = clubs.tenants[0].id
    hold = second.transaction()
    await hold.start()
    await second.execute("lock table club.hall_of_fame in access exclusive mode")
    async with daemon(config):
        await finish_match(connection, tenant)
        held = "select exists (select from pg_locks where relation = 'club.hall_of_fame'::regclass and not granted)"
        await until(connection, held)
        for _ in range(4):
            await finish_match(connection, tenant)
        await connection.execute(
            "update club.match set team_a_score = team_a_score + 1 where tenant_id = $1 and id = 1", tenant
        )
        assert [job["status"] for job in await jobs(connection)] == ["running", "pending"]
        await hold.rollback()
        await until(connection, QUIET, seconds=60)
    assert [job["status"] for job in await jobs(connection)] == ["completed", "completed"]
    await assert_right(connection, clubs, tenant)


async def test_one_job_at_a_time_per_tenant_and_tenants_side_by_side(connection, second, clubs, config):
    one, other = (tenant.id for tenant in clubs.tenants)
    hold = second.transaction()
    await hold.start()
    await second.execute("lock table club.hall_of_fame in access exclusive mode")
    waiting = "select count(*) from pg_locks where relation = 'club.hall_of_fame'::regclass and not granted"
    async with daemon(config):
        await finish_match(connection, one)
        await until(connection, waiting)
        await finish_match(connection, one)  # has to wait for the first
        await finish_match(connection, other)  # has not
        await until(connection, f"select ({waiting}) = 2")
        running = [job["tenant_id"] for job in await jobs(connection) if job["status"] == "running"]
        assert sorted(running) == sorted([str(one), str(other)])
        await until(connection, "select count(*) = 1 from worker.job_queue where parked")
        await hold.rollback()
        await until(connection, QUIET, seconds=60)
    assert [job["status"] for job in await jobs(connection)] == ["completed"] * 3
    overlapping = """
        select count(*) from worker.job_queue a join worker.job_queue b on a.id < b.id and a.tenant_id = b.tenant_id
        where (a.started_at, a.finished_at) overlaps (b.started_at, b.finished_at)"""
    assert await connection.fetchval(overlapping) == 0
    assert await connection.fetchval("select count(*) from worker.key_slot") == 0
    for tenant in (one, other):
        await assert_right(connection, clubs, tenant, "all_time_stats", "hall_of_fame")


async def fails_once(connection: asyncpg.Connection, table_name: str) -> None:
    """The next write to this table fails, once; a sequence counts, because a rollback leaves it alone."""
    await connection.execute(
        f"""
        create sequence failures;
        create function fail_once() returns trigger language plpgsql security definer as $$
        begin
          if nextval('public.failures') = 1 then raise exception 'the disk hiccups'; end if;
          return null;
        end $$;
        create trigger fail_once before insert or update or delete on club.{table_name}
        for each statement execute function fail_once();
        """
    )


@pytest.mark.parametrize("name", ["hall_of_fame", "all_time_stats", "player_power_rating"])
async def test_a_step_that_fails_once_is_repeated_alone(connection, clubs, config, name):
    tenant = clubs.tenants[0].id
    await fails_once(connection, name)
    async with daemon(config):
        await finish_match(connection, tenant)
        await until(connection, QUIET, seconds=60)
    (job,) = await jobs(connection)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert "the disk hiccups" in job["errors"]
    attempts = await connection.fetch("select name, attempt from worker.job_step where job_id = $1", job["id"])
    again = {row["name"] for row in attempts if row["attempt"] == 2}
    assert len(attempts) == 10
    assert (
        again
        == {
            "hall_of_fame": {"hall_of_fame"},
            "all_time_stats": {"all_time", "hall_of_fame"},  # what needs it waited
            "player_power_rating": {"power_ratings"},
        }[name]
    )
    await assert_right(connection, clubs, tenant)


async def test_a_match_that_comes_between_a_failure_and_its_retry_is_in_the_hall_of_fame(connection, clubs, config):
    """Step 10 of 10 fails; nine are marked and stay so. The new match is in everything nevertheless, in the end."""
    tenant = clubs.tenants[0].id
    await fails_once(connection, "hall_of_fame")
    async with daemon(_slow_retry(config)):
        await finish_match(connection, tenant)
        await until(connection, "select status = 'pending' and attempt = 1 from worker.job_queue")
    (failed,) = await jobs(connection)
    assert await connection.fetchval("select count(*) from worker.job_step where status = 'completed'") == 9
    await finish_match(connection, tenant)
    await connection.execute("update worker.job_queue set scheduled_at = now() where id = $1", failed["id"])
    async with daemon(config):
        await until(connection, QUIET, seconds=60)
    first, new = await jobs(connection)
    assert (first["status"], new["status"]) == ("completed", "completed")
    await assert_right(connection, clubs, tenant)


def _slow_retry(config: Config) -> Config:
    """The same with an hour between attempts, so that nothing is retried behind the test's back."""
    text = config.path.read_text(encoding="utf-8").replace('first = "1ms"', 'first = "3600s"\nmax_attempts = 6')
    text = text.replace('max = "10m"', 'max = "10h"').replace("max_attempts = 5\n", "", 1)
    path = config.path.with_name("slow.toml")
    path.write_text(text, encoding="utf-8")
    assert config.database.url is not None
    return load(path, {"DATABASE_URL": config.database.url.get_secret_value()})


async def test_a_match_that_commits_late_is_not_lost(connection, second, clubs, config):
    """The lost update of `keep`: a match is told that a job waits already, commits only after that job ran past it."""
    tenant = clubs.tenants[0].id
    await finish_match(connection, tenant)  # enqueues the job that the late one is answered with
    late = second.transaction()
    await late.start()
    await finish_match(second, tenant)
    assert len(await jobs(connection)) == 1
    async with daemon(config):
        await until(connection, QUIET, seconds=60)
        assert [job["status"] for job in await jobs(connection)] == ["completed"]  # without the late one
        await late.commit()
        await until(connection, "select count(*) = 2 from worker.job_queue where status = 'completed'", seconds=60)
    await assert_right(connection, clubs, tenant)


async def test_matches_that_finish_while_no_daemon_is_there_are_not_lost(connection, clubs, config):
    for tenant in clubs.tenants:
        for _ in range(3):
            await finish_match(connection, tenant.id)
    assert [job["status"] for job in await jobs(connection)] == ["pending", "pending"]
    async with daemon(config):
        await until(connection, QUIET, seconds=60)
    for tenant in clubs.tenants:
        await assert_right(connection, clubs, tenant.id)


async def test_a_storm_from_many_producers_at_once(connection, dsn, clubs, config):
    """Eight producers, each match its own transaction: far fewer runs than matches, and nothing is missing."""
    tenant = clubs.tenants[0].id

    async def producer(number: int) -> None:
        own = await asyncpg.connect(dsn)
        for index in range(25):
            await own.execute(
                "insert into club.match (tenant_id, season_id, played_on, status, team_a_score, team_b_score,"
                " finished_at) values ($1, 1, date '2016-03-01' + $2::int, 'finished', 2, 1, now())",
                tenant, number + index,
            )  # fmt: skip
        await own.close()

    async with daemon(config):
        await asyncio.gather(*(producer(number) for number in range(8)))
        await until(connection, QUIET, seconds=90)
    ran = await jobs(connection)
    assert {job["status"] for job in ran} == {"completed"}
    assert len(ran) < 200
    await assert_right(connection, clubs, tenant, "all_time_stats", "hall_of_fame", "season_stats")


def test_the_shipped_graph_is_the_one_that_is_tested(config: Config) -> None:
    graph = config.job["stats_update"].graph
    assert graph is not None
    assert len(graph) == 10
    assert graph.steps["hall_of_fame"].sql == LAST_STEP
